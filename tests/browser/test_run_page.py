"""The page in a real Chromium during a real run: what it showed, held against what the run's own event log says."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from controller.oam.__main__ import read_events
from packets.events import Event
from tests.browser.chromium import RECORD, Browser, now_ms, shots_folder
from tests.helpers import wait_until

ROOT = Path(__file__).parents[2]
FOLLOWS_WITHIN_MS = 1000.0
RUN_TIMEOUT_S = 240.0


@dataclass
class Watched:
    """A run that is over: its log, and what the page showed meanwhile as (object id, place, wall clock ms)."""

    exit_status: int
    said: str
    events: list[Event]
    placed: list[tuple[str, str, float]] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    hosts: set[str] = field(default_factory=set)
    job_state: str = ""
    opened_ms: float = 0.0


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    browser = Browser()
    yield browser
    browser.close()


@pytest.fixture(scope="module")
def run(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Watched:
    folder = tmp_path_factory.mktemp("run")
    port = free_port()
    command = [sys.executable, "-m", "experiments.cli", "run", "healthcare", "--seed", "1", "--no-capture"]
    command += ["--page-port", str(port), "--run-dir", str(folder / "result")]
    with (folder / "output").open("w") as output:
        process = subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT)
        try:
            wait_until(lambda: answers(port) or process.poll() is not None, 60, "the page answers")
            assert process.poll() is None, (folder / "output").read_text()[-2000:]
            seen = watch(browser, process, port, shots_folder(folder))
            status = process.wait(RUN_TIMEOUT_S)
        finally:
            end(process)
    log = folder / "result" / "events.jsonl"
    seen.exit_status, seen.said = status, (folder / "output").read_text()
    seen.events = list(read_events(log)) if log.exists() else []
    return seen


def watch(browser: Browser, process: subprocess.Popen[bytes], port: int, shots: Path) -> Watched:
    """Look at the page until the run ends; what it recorded outlives the server."""
    browser.look(1280)
    browser.open(f"http://127.0.0.1:{port}/")
    browser.run(RECORD)
    seen = Watched(0, "", [], opened_ms=now_ms())
    stop_at = time.monotonic() + RUN_TIMEOUT_S
    shot = False
    while process.poll() is None and time.monotonic() < stop_at:
        seen.errors += [e for e in browser.errors() if answers(port)]
        state = str(browser.run("return document.getElementById('job-state').textContent"))
        seen.job_state = state or seen.job_state
        if "training" in state and not shot:
            browser.shot(shots / "run-1280.png")
            shot = True
        if "model is home" in state:
            browser.shot(shots / "run-end-1280.png")
            break
        wait_briefly(process)
    process.wait(RUN_TIMEOUT_S)
    seen.placed = [(str(o), str(n), float(t)) for o, n, t in browser.run("return window.placed")]
    seen.hosts = {url.split("/")[2] for url in browser.requests() if url.startswith("http")}
    wait_until(lambda: browser.run("return document.getElementById('connection').dataset.state") == "lost", 10)
    return seen


def wait_briefly(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(0.3)
    except subprocess.TimeoutExpired:
        return


def end(process: subprocess.Popen[bytes]) -> None:
    """Ask the run to clean up after itself, then insist."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def model_of(run: Watched) -> str:
    return next(str(e.data["object_id"]) for e in run.events if e.kind == "job.assessed" and e.data["admitted"])


def arrivals(run: Watched) -> list[tuple[str, float]]:
    """Where the model came in, and when (ms)."""
    mine = [e for e in run.events if e.kind == "object.arrived" and str(e.data["object_id"]) == model_of(run)]
    return [(e.data["node"], e.t_unix_s * 1e3) for e in mine]


def test_the_run_ends_well(run: Watched) -> None:
    assert run.exit_status == 0, run.said[-2000:]
    assert "finished" in run.job_state


def test_the_page_followed_the_model_within_a_second(run: Watched) -> None:
    stops = arrivals(run)
    assert len(stops) >= 3, run.said[-2000:]
    for node, at in stops:
        late = [t - at for o, n, t in run.placed if (o, n) == (model_of(run), node) and t >= at - 50]
        print(f"{node}: shown {min(late, default=-1):.0f} ms after it arrived")  # read with pytest -rP
        assert late and min(late) <= FOLLOWS_WITHIN_MS, f"{node}: shown {late[:1] or 'never'} ms after it arrived"


def test_the_page_showed_the_stops_in_order_and_the_way_between_them(run: Watched) -> None:
    shown = [node for o, node, _ in run.placed if o == model_of(run)]
    stays = [n for n, after in zip(shown, [*shown[1:], ""], strict=True) if n != "moving" and n != after]
    owner = next(e.data["owner"] for e in run.events if e.kind == "job.submitted")
    assert stays == [owner, *(node for node, _ in arrivals(run))]


def test_the_page_ran_without_an_error_and_asked_no_other_machine(run: Watched) -> None:
    assert run.errors == []
    assert len(run.hosts) == 1 and next(iter(run.hosts)).startswith("127.0.0.1:")
