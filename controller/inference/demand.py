"""How much deployed models are asked for, as rounds of looking see it: what comes once, or stays away once, is chance.

A model says what it was asked in the last second, so of two rounds one may hit a burst, or a pause.  The middle one of
the last ``ROUNDS`` holds against either.
"""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Mapping

from controller.runtime.bounded import Bounded

ROUNDS = 3
Asked = Mapping[str, float]


class SteadyDemand:
    """Queries a second by the K-AS that they come from, of each of many things by key."""

    def __init__(self) -> None:
        self._rounds: Bounded[tuple[str, int], deque[Asked]] = Bounded()

    def saw(self, key: tuple[str, int], asked: Asked) -> dict[str, float]:
        """Take what a round saw; return what holds: nothing, until a second round has seen it."""
        if key not in self._rounds:
            self._rounds[key] = deque([{}] * (ROUNDS - 1), ROUNDS)
        rounds = self._rounds[key]
        rounds.append(dict(asked))
        origins = sorted({origin for one in rounds for origin in one})
        steady = {o: statistics.median(one.get(o, 0.0) for one in rounds) for o in origins}
        return {origin: rate for origin, rate in steady.items() if rate > 0}
