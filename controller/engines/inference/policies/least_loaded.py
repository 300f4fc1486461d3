"""The replica that held the fewest queries when last heard of, stale as that may be."""

from __future__ import annotations

from collections.abc import Sequence

from controller.engines.inference.policies.base import Base
from controller.values.queries import Replica


class LeastLoaded(Base):
    """Least ``in_flight`` as told; ties by chance."""

    def choose(self, replicas: Sequence[Replica], now_s: float) -> Replica:
        least = min(r.in_flight for r in replicas)
        return self.rng.choice([r for r in replicas if r.in_flight == least])
