"""The power of two choices: two replicas by chance, then the one with fewer queries (Mitzenmacher, TPDS 2001)."""

from __future__ import annotations

from collections.abc import Sequence

from controller.engines.inference.policies.base import Base
from controller.values.queries import Replica


class TwoChoices(Base):
    """Of two, the one with fewer in flight: as told, and those that this asker sent itself."""

    def choose(self, replicas: Sequence[Replica], now_s: float) -> Replica:
        pair = self.rng.sample(replicas, min(2, len(replicas)))
        return min(pair, key=lambda r: r.in_flight + r.own)
