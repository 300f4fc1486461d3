"""When queries are asked: patterns of load as Poisson processes whose rate changes with time, seeded, without a clock.

``rate_per_s`` is that of all askers together, on average over time; ``asker`` is one of ``askers``.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from typing import Annotated, Literal

import msgspec

Positive = Annotated[float, msgspec.Meta(gt=0.0, le=1e6)]
PATTERNS = ("poisson", "diurnal", "bursts", "hot_spot")


class Pattern(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A pattern of load. ``poisson``: steady. ``diurnal``: a sine whose top is ``peak`` times its bottom,
    of ``period_s``.  ``bursts``: ``peak`` times as much for a tenth of each ``period_s``.  ``hot_spot``: one
    place asks ``peak`` times as much as each other, another one every ``period_s``.
    """

    rate_per_s: Positive = 10.0
    kind: Literal["poisson", "diurnal", "bursts", "hot_spot"] = "poisson"
    peak: Annotated[float, msgspec.Meta(ge=1.0, le=1000.0)] = 4.0
    period_s: Positive = 20.0


Rate = Callable[[float], float]
BURST_SHARE = 0.1


def rate_of(pattern: Pattern, place: int, places: int, askers_here: int, askers: int) -> tuple[Rate, float]:
    """Return the rate at which one asker asks at a time since the start (queries a second), and the most it gets.

    ``place``: which of ``places`` the asker is at (a hot spot is a place); ``askers_here``: how many are there.
    """
    mean, peak, period_s = pattern.rate_per_s / askers, pattern.peak, pattern.period_s
    if pattern.kind == "diurnal":
        swing = (peak - 1) / (peak + 1)
        return lambda t: mean * (1 + swing * math.sin(2 * math.pi * t / period_s)), mean * (1 + swing)
    if pattern.kind == "bursts":
        calm = mean / (1 + BURST_SHARE * (peak - 1))
        return lambda t: calm * (peak if (t / period_s) % 1.0 < BURST_SHARE else 1.0), calm * peak
    if pattern.kind == "hot_spot":
        calm = pattern.rate_per_s / (places - 1 + peak) / askers_here
        return lambda t: calm * (peak if int(t / period_s) % places == place else 1.0), calm * peak
    return lambda t: mean, mean


def arrivals(rate: Rate, most: float, rng: random.Random) -> Iterator[float]:
    """Yield the times of arrival since the start, seconds, for ever (thinning: Lewis and Shedler, 1979)."""
    at_s = 0.0
    while True:
        at_s += rng.expovariate(most)
        if rng.random() * most <= rate(at_s):
            yield at_s
