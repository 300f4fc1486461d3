"""One replica after the other, by label."""

from __future__ import annotations

import random
from collections.abc import Sequence

from controller.engines.inference.policies.base import Base
from controller.values.queries import Replica


class RoundRobin(Base):
    """The next label after the last; the first one by chance, so that askers are not in step."""

    def __init__(self, rng: random.Random) -> None:
        super().__init__(rng)
        self._last: int | None = None

    def choose(self, replicas: Sequence[Replica], now_s: float) -> Replica:
        if self._last is None:
            self._last = self.rng.choice(replicas).label - 1
        last = self._last
        chosen = min(replicas, key=lambda r: (r.label <= last, r.label))
        self._last = chosen.label
        return chosen
