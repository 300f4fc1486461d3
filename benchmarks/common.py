"""What every benchmark shares: where it ran, one child at a time within a time limit, one JSON object as last line.

A figure without its machine and date is hearsay: each result carries both. Nothing is printed after the last line, so
that ``make bench-... | tail -1 | python -m json.tool`` works.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parents[1]
TEARDOWN_S = 60.0


class ChildTimeout(Exception):
    """A child did not end within its time limit and was ended, with all that it had started in its session."""


def say(text: str) -> None:
    """Print a progress line now, also into a pipe."""
    print(text, flush=True)


def finish(result: Mapping[str, Any]) -> None:
    """Print the last line: the result with the machine and the date, one JSON object."""
    say(json.dumps({**result, "machine": machine(), "date": now()}, allow_nan=False))


def now() -> str:
    """Return the date and time, UTC, to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def machine() -> dict[str, Any]:
    """Return what a figure depends on: processor, cores, memory, kernel, and how busy the machine was."""
    return {
        "cpu": _cpu_name(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load_1min": round(os.getloadavg()[0], 2),
        "commit": commit(),
    }


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.lower().startswith("model name")]
    return names[0] if names else platform.machine()


def commit() -> str:
    """Return the commit that was measured, with a ``+`` where files differ from it ('' outside a checkout)."""
    found = _git("rev-parse", "--short", "HEAD")
    return found + ("+" if found and _git("status", "--porcelain", "--untracked-files=no") else "")


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", "-C", str(PROJECT), *arguments], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()


def run_child(command: Sequence[str], log: Path, timeout_s: float) -> int:
    """Run a command to its end, its words into ``log``; return its exit status.

    Ctrl-C and the time limit first ask it to take down what it built (SIGINT), then end its session: ``ChildTimeout``.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=PROJECT, start_new_session=True
        )
        try:
            return child.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise ChildTimeout(f"no end after {timeout_s:.0f} s; log: {log}") from None
        finally:
            _end(child)


def _end(child: subprocess.Popen[bytes]) -> None:
    for number, patience_s in ((signal.SIGINT, TEARDOWN_S), (signal.SIGKILL, 5.0)):
        if child.poll() is not None:
            return
        os.killpg(child.pid, number)
        try:
            child.wait(patience_s)
        except subprocess.TimeoutExpired:
            continue


def last_words(log: Path) -> str:
    """Return the last line of a log that says something."""
    try:
        lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    except OSError:
        return "no log"
    return lines[-1] if lines else "it said nothing"


def python(module: str, *arguments: str) -> list[str]:
    """Return the command that runs a module of this project with this interpreter."""
    return [sys.executable, "-m", module, *arguments]
