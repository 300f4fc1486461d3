"""The folder of one run: everything that a researcher needs to believe, repeat or look into it."""

from __future__ import annotations

import contextlib
import datetime
import itertools
import json
import os
import platform
import secrets
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from experiments.errors import ExperimentError

PACKAGES = ("torch", "os-ken", "msgspec", "safetensors", "networkx", "flask", "scipy")


class RunFolder:
    """Paths inside ``runs/<stamp>-<scenario>-s<seed>/``; ``runs/latest`` points to the newest."""

    def __init__(self, path: Path, latest: Path | None = None) -> None:
        self.path = path
        self._latest = latest
        self._before: str | None = None
        self.events = path / "events.jsonl"
        self.capture = path / "capture.pcapng"
        self.border = path / "border.pcapng"
        self.report_json = path / "report.json"
        self.report_html = path / "report.html"
        self.manifest = path / "manifest.json"
        self.scenario = path / "scenario.yaml"
        self.logs = path / "logs"
        self.model = path / "model"

    @classmethod
    def create(cls, parent: Path, scenario: str, seed: int, exact: Path | None = None) -> RunFolder:
        """Make a new run folder and point ``latest`` at it; ``ExperimentError`` when it cannot be made."""
        stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
        path = exact or parent / f"{stamp}-{scenario}-s{seed}"
        try:
            if exact is None:
                path = _unused(path)
            if path.exists() and any(path.iterdir()):
                raise ExperimentError(f"run folder {path} is not empty; name another with --run-dir")
            (path / "logs").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ExperimentError(
                f"run folder {path} cannot be made: {error.strerror}; name another with --run-dir"
            ) from None
        return cls(path.resolve(), latest=None if exact else parent / "latest")

    def publish(self) -> None:
        """Point ``runs/latest`` here, now that there is something to see."""
        if self._latest is None:
            return
        self._before = os.readlink(self._latest) if self._latest.is_symlink() else None
        self._point(self._latest, self.path.name)

    def withdraw(self) -> None:
        """Point ``runs/latest`` back to what it was, when this run came to nothing."""
        if self._latest is not None and self._before is not None and not self.report_json.exists():
            self._point(self._latest, self._before)

    @staticmethod
    def _point(link: Path, target: str) -> None:
        temporary = link.with_name(f".latest-{secrets.token_hex(4)}")  # process numbers are a sandbox's own
        temporary.symlink_to(target)
        temporary.replace(link)

    def remove_if_empty(self) -> None:
        """Leave no folder of a run that never began (nothing but an empty ``logs`` in it)."""
        if any(p.is_file() for p in self.path.rglob("*")):
            return
        shutil.rmtree(self.path, ignore_errors=True)
        if self._latest is not None:
            with contextlib.suppress(OSError):  # other runs are in it
                self.path.parent.rmdir()

    def write_manifest(self, **parts: Any) -> None:
        """Add parts to the manifest (versions, kernel, seed, link calibration ...)."""
        present = json.loads(self.manifest.read_text()) if self.manifest.exists() else machine()
        present.update(parts)
        self.manifest.write_text(json.dumps(present, indent=2, default=str) + "\n")


def _unused(path: Path) -> Path:
    """Make a folder of this name, or of the next one where a run began there in this very second; return it."""
    for number in itertools.count(1):
        tried = path if number == 1 else path.with_name(f"{path.name}-{number}")
        with contextlib.suppress(FileExistsError):
            tried.mkdir(parents=True)
            break
    return tried


def machine() -> dict[str, Any]:
    """Return what this run ran on: kernel, cores, versions."""
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "kernel": platform.release(),
        "cores": os.cpu_count(),
        "memory_mib": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20,
        "python": platform.python_version(),
        "open_vswitch": _first_line(["ovs-vsctl", "--version"]),
        "mininet": _first_line(["mn", "--version"]),
        "packages": {name: _version(name) for name in PACKAGES},
        "command": sys.argv,
        "git": _first_line(["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]),
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _first_line(command: list[str]) -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return ((done.stdout or done.stderr).splitlines() or [""])[0]
