"""A disk that runs full ends a run at once, in words, rather than by everything that then fails to happen."""

from __future__ import annotations

import os
from pathlib import Path

from experiments.errors import ExperimentError, RunFailed

MIB = 1 << 20
LEAST_TO_BEGIN_MIB = 32  # events, capture, databases, model and report of a small run
LEAST_MIB = 1


def left_mib(path: Path) -> float:
    """Return how much may still be written where ``path`` is."""
    found = os.statvfs(path)
    return found.f_bavail * found.f_frsize / MIB


def check_before(path: Path) -> None:
    """Raise ``ExperimentError`` where a run's results would hardly fit."""
    left = left_mib(path)
    if left < LEAST_TO_BEGIN_MIB:
        raise ExperimentError(
            f"disk full: {left:.0f} MiB are left for {path}, a run needs {LEAST_TO_BEGIN_MIB} and more: free some, or "
            "name another folder with --run-dir"
        )


def check_now(path: Path) -> None:
    """Raise ``RunFailed`` once nothing more can be written for a run."""
    if left_mib(path) < LEAST_MIB:
        raise RunFailed(
            f"disk full: nothing more can be written to {path}; what was recorded until now is there. Free some space, "
            "or name another folder with --run-dir"
        )
