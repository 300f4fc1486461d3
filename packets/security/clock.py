"""The time of day as a run counts it: since 1970, and never moved, whatever becomes of the machine's clock.

Read once, and counted on from there by the monotonic clock, which all processes of a machine share; they share what was
read, too, by their environment.  So a clock that is set (by hand, by NTP, after a pause of a virtual machine) neither
makes a packet old nor a duration negative.
"""

from __future__ import annotations

import os
import time

CLOCK_VARIABLE = "DAITN_CLOCK"  # {seconds of 1970 less those of the monotonic clock}


def _offset_s() -> float:
    try:
        return float(os.environ[CLOCK_VARIABLE])
    except (KeyError, ValueError):
        return time.time() - time.monotonic()


OFFSET_S = _offset_s()


def environment() -> dict[str, str]:
    """Return what has a process of this machine count as this one does."""
    return {CLOCK_VARIABLE: repr(OFFSET_S)}


def unix_s() -> float:
    """Return the seconds since 1970."""
    return time.monotonic() + OFFSET_S


def unix_ms() -> int:
    """Return the milliseconds since 1970."""
    return int(unix_s() * 1000)
