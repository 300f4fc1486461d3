"""A headless Chromium for tests: its own profile, no background traffic, and what it said and asked for."""

from __future__ import annotations

import base64
import json
import os
import time
from pathlib import Path
from typing import Any

from selenium import webdriver
from selenium.webdriver.chrome.service import Service

FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-dev-shm-usage",
)

# Notes in window.placed every place that a model's token is shown at: [object id, terminal or "moving", wall clock ms].
RECORD = """
window.placed = [];
const note = (t) => t.dataset && t.dataset.testid === 'model' && window.placed.push(
  [t.dataset.object, t.dataset.node, performance.timeOrigin + performance.now()]);
new MutationObserver((all) => all.forEach((m) => m.type === 'attributes' ? note(m.target)
  : m.addedNodes.forEach((n) => { note(n); n.querySelectorAll?.('[data-testid=model]').forEach(note); })))
  .observe(document.getElementById('network'), {subtree: true, childList: true, attributeFilter: ['data-node']});
"""


class Browser:
    """A driver with the few things that the page's tests ask for."""

    def __init__(self) -> None:
        options = webdriver.ChromeOptions()
        options.binary_location = "/usr/bin/chromium"
        for flag in FLAGS:
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        self.driver = webdriver.Chrome(options=options, service=Service("/usr/bin/chromedriver"))
        self.driver.set_script_timeout(20)
        self.driver.set_page_load_timeout(30)

    def open(self, url: str) -> None:
        """Open a page anew, with nothing said or asked for yet."""
        self.driver.get("about:blank")
        self.errors()
        self.requests()
        self.driver.get(url)

    def run(self, script: str, *arguments: Any) -> Any:
        """Run a script in the page and return its result."""
        return self.driver.execute_script(script, *arguments)

    def errors(self) -> list[str]:
        """Return (and forget) what the console said that is worse than information."""
        return [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]

    def requests(self) -> list[str]:
        """Return (and forget) the addresses that the browser asked for."""
        said = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        return [m["params"]["request"]["url"] for m in said if m["method"] == "Network.requestWillBeSent"]

    def look(self, width: int, height: int = 900, *, dark: bool = False, still: bool = False) -> None:
        """Set the window, the colour scheme and the wish for less motion."""
        features = [
            {"name": "prefers-color-scheme", "value": "dark" if dark else "light"},
            {"name": "prefers-reduced-motion", "value": "reduce" if still else "no-preference"},
        ]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        self.run("return new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")

    def shot(self, path: Path) -> Path:
        """Take the whole page as a PNG."""
        width, height = self.run("return [window.innerWidth, document.documentElement.scrollHeight]")
        clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
        answer = self.driver.execute_cdp_cmd(
            "Page.captureScreenshot", {"format": "png", "captureBeyondViewport": True, "clip": clip}
        )
        path.write_bytes(base64.b64decode(answer["data"]))
        return path

    def close(self) -> None:
        self.driver.quit()


def shots_folder(default: Path) -> Path:
    """Where screenshots go: DAITN_SHOTS when set, else the test's own folder."""
    folder = Path(os.environ.get("DAITN_SHOTS", default))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def now_ms() -> float:
    """Wall clock in the page's unit."""
    return time.time() * 1e3
