"""Peak EWMA as in Finagle and Linkerd: the replica with the least latency times own queries in flight.

The latency is a moving average that jumps to a peak at once and forgets it with time; nothing but what the asker
measured itself is used. Finagle and Linkerd compare two drawn by chance, as they have many replicas; where there are
few, all are compared, which does better.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

from controller.engines.inference.policies.base import Base
from controller.values.queries import Replica

DECAY_S = 10.0
FAILURE_MS = 1000.0  # what a failure counts as: its own time may be short


class PeakEwma(Base):
    """Cost: average response x (own in flight + 1). Replicas that were never tried come first."""

    def __init__(self, rng: random.Random) -> None:
        super().__init__(rng)
        self._costs: dict[int, tuple[float, float]] = {}  # label -> (ms, when)

    def cost_ms(self, label: int, now_s: float) -> float:
        """Return the average response as of now: without answers it decays, so that a slow one is tried again."""
        cost, at_s = self._costs[label]
        return cost * math.exp(-max(0.0, now_s - at_s) / DECAY_S)

    def choose(self, replicas: Sequence[Replica], now_s: float) -> Replica:
        unexplored = [r for r in replicas if r.label not in self._costs and r.own == 0]
        if unexplored:
            return self.rng.choice(unexplored)
        return min(replicas, key=lambda r: self._load(r, now_s))

    def _load(self, replica: Replica, now_s: float) -> float:
        if replica.label not in self._costs:  # tried, not yet answered
            return math.inf
        return self.cost_ms(replica.label, now_s) * (replica.own + 1)

    def answered(self, label: int, response_ms: float, now_s: float) -> None:
        cost, at_s = self._costs.get(label, (0.0, now_s))
        if response_ms < cost:
            kept = math.exp(-max(0.0, now_s - at_s) / DECAY_S)
            response_ms = cost * kept + response_ms * (1 - kept)
        self._costs[label] = (response_ms, now_s)

    def failed(self, label: int, now_s: float) -> None:
        self.answered(label, FAILURE_MS, now_s)
