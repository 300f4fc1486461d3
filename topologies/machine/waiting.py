"""Wait for a condition, bounded: the only place in this package that sleeps."""

from __future__ import annotations

import time
from collections.abc import Callable

STEP_S = 0.005


def wait_until(predicate: Callable[[], bool], timeout_s: float) -> bool:
    """Return True as soon as ``predicate()`` holds, False when it does not within ``timeout_s``."""
    deadline = time.monotonic() + timeout_s
    while not predicate():
        if time.monotonic() > deadline:
            return False
        time.sleep(STEP_S)
    return True
