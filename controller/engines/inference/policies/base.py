"""What every policy that picks replicas starts from: it sends no probes and learns nothing."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Sequence

from controller.values.queries import Probed, Replica


class Base(ABC):
    """One object per asker and query class; all chance comes from ``rng``."""

    probes_per_query: float = 0.0

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng

    @abstractmethod
    def choose(self, replicas: Sequence[Replica], now_s: float) -> Replica:
        """Return one of the replicas (never empty)."""

    def to_probe(self, replicas: Sequence[Replica], now_s: float) -> list[int]:
        """Return no label: nothing is probed."""
        return []

    def answered(self, label: int, response_ms: float, now_s: float) -> None:  # noqa: B027
        """Learn nothing of an answer."""

    def failed(self, label: int, now_s: float) -> None:  # noqa: B027
        """Learn nothing of a failure."""

    def probed(self, probe: Probed) -> None:  # noqa: B027
        """Learn nothing of a probe."""
