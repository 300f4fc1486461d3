"""Any replica, all alike."""

from __future__ import annotations

from collections.abc import Sequence

from controller.engines.inference.policies.base import Base
from controller.values.queries import Replica


class RandomChoice(Base):
    """Uniform."""

    def choose(self, replicas: Sequence[Replica], now_s: float) -> Replica:
        return self.rng.choice(replicas)
