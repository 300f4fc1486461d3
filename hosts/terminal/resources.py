"""What a terminal measures of itself: time spent computing, samples per second, memory left to it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

_MIB = 1 << 20
WINDOW_S = 0.2  # over less than this a load is chance: the last one stands


class Meter:
    """Measure compute: ``load`` is the share of time since the last look that was spent computing, in 0..1."""

    def __init__(self, samples_per_s: float, clock: Callable[[], float]) -> None:
        self.samples_per_s = samples_per_s
        self._clock = clock
        self._lock = threading.Lock()
        self._busy_s = 0.0
        self._running_since: float | None = None
        self._looked_at = clock()
        self._load = 0.0

    def begin(self) -> None:
        """Computing starts (one at a time: an agent computes on one thread)."""
        with self._lock:
            self._running_since = self._clock()

    def end(self) -> None:
        """Computing ends."""
        with self._lock:
            self._settle()
            self._running_since = None

    def load(self) -> float:
        """Return the load since the last call, and start anew (at most five times a second)."""
        with self._lock:
            self._settle()
            now = self._clock()
            elapsed, busy = now - self._looked_at, self._busy_s
            if elapsed >= WINDOW_S:
                self._looked_at, self._busy_s = now, 0.0
                self._load = min(1.0, busy / elapsed)
            return self._load

    def trained(self, samples: float, seconds: float) -> None:
        """Learn this terminal's speed from a visit (half of the old value, half of the new)."""
        if samples > 0 and seconds > 0:
            self.samples_per_s += 0.5 * (samples / seconds - self.samples_per_s)

    def _settle(self) -> None:
        if self._running_since is not None:
            now = self._clock()
            self._busy_s += now - self._running_since
            self._running_since = now


def memory_left_mib(meminfo: Path = Path("/proc/meminfo")) -> float:
    """Return the memory that this terminal may still take, MiB (0 where the kernel does not say)."""
    try:
        lines = meminfo.read_text().splitlines()
    except OSError:
        return 0.0
    for line in lines:
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024 / _MIB
    return 0.0
