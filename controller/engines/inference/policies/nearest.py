"""The replica with the shortest path, however busy."""

from __future__ import annotations

from collections.abc import Sequence

from controller.engines.inference.policies.base import Base
from controller.values.queries import Replica


class Nearest(Base):
    """Least ``path_ms``; of equals the one with the lowest label."""

    def choose(self, replicas: Sequence[Replica], now_s: float) -> Replica:
        return min(replicas, key=lambda r: (r.path_ms, r.label))
