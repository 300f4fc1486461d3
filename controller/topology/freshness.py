"""What the map's freshness costs, and what it is worth: bytes of telemetry, and how far behind the terminals it runs.

The map (``krrm``) knows the age of every attribute; this module knows what keeping them young costs (bytes of report
frames, per terminal and in all) and the *lag*: seconds from a change at a terminal to its entry in the map.  It has no
clock: the caller passes ``now_s``.
"""

from __future__ import annotations

from array import array
from collections import deque
from typing import Any

import msgspec
import numpy as np

WINDOW_S = 10
LAGS_KEPT = 1 << 16


class Cost(msgspec.Struct):
    """What one terminal's reports have cost since it joined."""

    reports: int = 0
    bytes: int = 0
    since_s: float = 0.0

    def bytes_per_s(self, now_s: float) -> float:
        """Return the mean over the terminal's time on the map."""
        return self.bytes / max(1.0, now_s - self.since_s)


class Freshness:
    """Counts reports. ``lags`` keeps the last 65,536 in seconds, for exact quantiles."""

    def __init__(self) -> None:
        self.reports = self.bytes = 0
        self._costs: dict[str, Cost] = {}
        self._lags = array("d")
        self._next = 0
        self._seconds: deque[list[float]] = deque(maxlen=WINDOW_S + 1)  # [second, reports, bytes]

    def note(self, name: str, size_bytes: int, now_s: float, lag_s: float | None = None) -> None:
        """Take one report of ``size_bytes`` on the wire; ``lag_s``: None where the terminal did not say when."""
        cost = self._costs.get(name)
        if cost is None:
            cost = self._costs[name] = Cost(since_s=now_s)
        cost.reports += 1
        cost.bytes += size_bytes
        self.reports += 1
        self.bytes += size_bytes
        second = float(int(now_s))
        if not self._seconds or self._seconds[-1][0] != second:
            self._seconds.append([second, 0.0, 0.0])
        self._seconds[-1][1] += 1
        self._seconds[-1][2] += size_bytes
        if lag_s is not None:
            self._keep(lag_s)

    def _keep(self, lag_s: float) -> None:
        if len(self._lags) < LAGS_KEPT:
            self._lags.append(lag_s)
        else:
            self._lags[self._next] = lag_s
            self._next = (self._next + 1) % LAGS_KEPT

    def forget(self, name: str) -> None:
        """A terminal left; what it cost stays in the sums."""
        self._costs.pop(name, None)

    def cost(self, name: str) -> Cost:
        """Return what a terminal's reports have cost (nothing, for one that never reported)."""
        return self._costs.get(name, Cost())

    def lags_ms(self) -> dict[str, float]:
        """Return quantiles of the lag in milliseconds, and over how many reports; empty when none told its time."""
        if not self._lags:
            return {}
        found = np.quantile(np.frombuffer(self._lags, dtype=float), [0.5, 0.9, 0.99, 0.999, 1.0]) * 1e3
        names = ("p50_ms", "p90_ms", "p99_ms", "p999_ms", "max_ms")
        return {n: round(float(q), 4) for n, q in zip(names, found, strict=True)} | {"lags": float(len(self._lags))}

    def rates(self, now_s: float) -> dict[str, float]:
        """Return reports and bytes per second over the last ten whole seconds."""
        whole = [s for s in self._seconds if int(now_s) - WINDOW_S <= s[0] < int(now_s)]
        span = max(1.0, min(float(WINDOW_S), int(now_s) - whole[0][0])) if whole else 1.0
        return {
            "reports_per_s": round(sum(s[1] for s in whole) / span, 1),
            "telemetry_bytes_per_s": round(sum(s[2] for s in whole) / span, 1),
        }

    def summary(self, now_s: float) -> dict[str, Any]:
        """Return all of it, for events, ``daitn map`` and metrics."""
        return {"reports": self.reports, "bytes": self.bytes, **self.rates(now_s), **self.lags_ms()}
