"""Flap damping in the manner of RFC 2439: what comes and goes too often is not used for a while, or as last resort."""

from __future__ import annotations

import math
from dataclasses import dataclass

WITHDRAWN, MOVED = 1000.0, 500.0  # what a withdrawal and another path cost; news of the same path cost nothing


@dataclass(frozen=True)
class Damping:
    """Above ``suppress`` a route is not used until its penalty, halved every ``half_life_s``, is below ``reuse``; where
    there is no other, until it has stood for ``settle_s``: whoever flaps is not cut off once it is quiet.
    """

    half_life_s: float = 15.0
    suppress: float = 6000.0
    reuse: float = 750.0
    longest_s: float = 60.0
    settle_s: float = 2.0

    @property
    def ceiling(self) -> float:
        """The most that a penalty can be, so that nothing is suppressed for longer than ``longest_s``."""
        return self.reuse * 2 ** (self.longest_s / self.half_life_s)


class Penalty:
    """The figure of merit of one route of one neighbour."""

    def __init__(self, damping: Damping) -> None:
        self._damping = damping
        self._value = self._at_s = 0.0
        self._suppressed = False

    def now(self, now_s: float) -> float:
        """Return the penalty, decayed until now."""
        return self._value * math.exp2((self._at_s - now_s) / self._damping.half_life_s)

    def add(self, amount: float, now_s: float) -> None:
        """Count a flap."""
        self._value, self._at_s = min(self.now(now_s) + amount, self._damping.ceiling), now_s
        self._suppressed |= self._value > self._damping.suppress

    def suppressed(self, now_s: float) -> bool:
        """Tell whether the route is to be left alone now."""
        if self._suppressed and self.now(now_s) < self._damping.reuse:
            self._suppressed = False
        return self._suppressed

    def forgotten(self, now_s: float) -> bool:
        """Tell whether it need not be remembered any more."""
        return not self.suppressed(now_s) and self.now(now_s) < self._damping.reuse / 2
