"""What every benchmark shares: where it ran, one child at a time within a time limit, one JSON object as last line.

A figure without its machine and date is hearsay: each result carries both. Nothing is printed after the last line, so
that ``make bench-... | tail -1 | python -m json.tool`` works.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

from experiments.errors import ExperimentError, RunFailed
from experiments.testbed.processes import PROJECT, ChildTimeout, end_in_order, last_words, python, run_child
from topologies.errors import TopologyError

__all__ = [
    "PROJECT", "ChildTimeout", "NotSeen", "commit", "finish", "last_words", "machine", "now", "python",
    "run_child", "run_main", "say",
]  # fmt: skip


class NotSeen(AssertionError):
    """What was waited for did not come in time."""


def run_main(main: Callable[[], int]) -> NoReturn:
    """Run a benchmark and exit: 0 and 1 are its own, 2: not to be had here (one line says why), 130: asked to end.

    Whoever asks it to end (Ctrl-C, SIGTERM, SIGHUP), it takes down what it built.
    """
    end_in_order(once=True)
    try:
        status = main()
    except (ExperimentError, RunFailed, TopologyError, NotSeen) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        status = 2
    except KeyboardInterrupt:
        print("stopped; everything is torn down", file=sys.stderr)
        status = 130
    sys.exit(status)


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
