"""QIRCE at the asker: the replica from which the answer is expected soonest, all that is known of it brought up to now.

Expected is the way there and back, and the replica's compute for every query that it holds and for this one. What it
holds: what it was told to hold, since then grown by arrivals and worked off, and what this asker sent it meanwhile.
Nobody knows how many came and went since, so the number is drawn (as in Thompson sampling), the wider the older the
state and the faster the replica; and among replicas not much later than the best one is drawn, the sooner the likelier.
Askers who were told the same thus do not all go the same way. Own queries on their way are known without delay, and
weigh more: they spread what one asker sends. Where real responses differ from what was expected, a bounded factor for
each replica learns it. A replica that failed is left alone for a while, then trusted with little at first.
"""

from __future__ import annotations

import math
import random
import statistics
from collections import deque
from collections.abc import Sequence

from controller.engines.inference.policies.base import Base
from controller.values.queries import Replica

NEAR = 0.5  # considered: expected at most that share later than the best
SPREAD = 0.2  # that share later is 1/e as likely
MAX_AGE_S = 1.0  # of arrivals and work that are added up since a replica told its state
TREND = 0.5  # of what arrivals less work were lately, how much is taken to go on: others turn away from what fills up
OWN = 2.0  # queries more that each of this asker's own on its way counts for
DOUBT = 1.0  # standard deviations, of as many arrivals and departures as come by chance, that are drawn
LEAST_MS = 0.05
MOST_MS = 1e9
USUAL_MS = 1.0  # a query's compute where no replica has measured it

KEPT = 0.99  # of what was learned, an answer
PRIOR = 50.0  # queries' compute that what a replica says of itself counts for at first
FACTORS = (0.5, 3.0)
PENDING = 256  # queries a replica that are remembered until they are answered
SAME_S = 0.005  # an answer is of the query sent then, give or take

BACK_OFF_S = (0.5, 8.0)  # after the first failure; doubled with each further one, at most
SLOW_START_S = 2.0
SLOW_START_SHARE = 0.2  # of its speed that a replica is trusted with just after a back-off


def clamped(value: float, high: float) -> float:
    """Return the value within 0..high; what is no number counts as high."""
    return max(0.0, value) if value < high else high


def expected_in_flight(replica: Replica, now_s: float, draw: float = 0.0) -> float:
    """Return the queries that a replica holds now: as told, aged by arrivals and work, and own ones sent since.

    ``draw``: how many standard deviations more came, or fewer went, than expected.
    """
    told = clamped(replica.in_flight, MOST_MS)
    if replica.service_ms > 0:
        age_s = clamped(now_s - replica.told_s, MAX_AGE_S)
        come = clamped(replica.arrivals_per_s, MOST_MS)
        gone = 1e3 / max(LEAST_MS, clamped(replica.service_ms, MOST_MS))
        told += TREND * age_s * (come - gone) + draw * math.sqrt(age_s * (come + gone))
    return max(0.0, told) + clamped(replica.sent_since, MOST_MS)


class Lessons:
    """What an asker found out about one replica by itself."""

    def __init__(self) -> None:
        self._expected = self._measured = PRIOR  # queries' compute
        self._pending: deque[tuple[float, float, float, float]] = deque(maxlen=PENDING)
        self._failures = 0
        self._again_s = -math.inf

    @property
    def factor(self) -> float:
        """Return how many times as long as it says a replica takes."""
        return min(FACTORS[1], max(FACTORS[0], self._measured / self._expected))

    def avoided(self, now_s: float) -> bool:
        """Has it failed so lately that it is left alone?"""
        return now_s < self._again_s

    def started(self, now_s: float) -> float:
        """Return the share of its speed that it is trusted with."""
        since_s = max(0.0, now_s - self._again_s)
        return min(1.0, SLOW_START_SHARE + (1 - SLOW_START_SHARE) * since_s / SLOW_START_S)

    def sent(self, now_s: float, travel_ms: float, service_ms: float, queries: float) -> None:
        """Remember what was expected of a query: the path there and back, and the compute of so many queries."""
        self._pending.append((now_s, travel_ms, service_ms, queries))

    def answered(self, response_ms: float, now_s: float) -> None:
        """Compare an answer with what was expected of it; queries sent before it are forgotten."""
        if not self.avoided(now_s):
            self._failures = 0
        sent_s = now_s - response_ms / 1e3
        while self._pending and self._pending[0][0] < sent_s - SAME_S:
            self._pending.popleft()
        if not self._pending or self._pending[0][0] > sent_s + SAME_S:
            return
        _, travel_ms, service_ms, queries = self._pending.popleft()
        measured = clamped((response_ms - travel_ms) / service_ms, queries * FACTORS[1] ** 2)
        self._measured = KEPT * self._measured + measured
        self._expected = KEPT * self._expected + queries

    def failed(self, now_s: float) -> None:
        """Leave it alone for a while; failures meanwhile are of queries sent before, and count as one."""
        if not self.avoided(now_s):
            self._again_s = now_s + min(BACK_OFF_S[1], BACK_OFF_S[0] * 2.0 ** min(self._failures, 16))
            self._failures += 1


class Qirce(Base):
    """Shortest expected response, by chance among the nearly shortest."""

    def __init__(self, rng: random.Random) -> None:
        super().__init__(rng)
        self._lessons: dict[int, Lessons] = {}

    def choose(self, replicas: Sequence[Replica], now_s: float) -> Replica:
        for replica in replicas:
            self._lessons.setdefault(replica.label, Lessons())
        usual_ms = _usual_ms(replicas)
        usable = [r for r in replicas if not self._lessons[r.label].avoided(now_s)] or replicas
        times = [self.expected_ms(r, now_s, usual_ms, self.rng.gauss(0.0, DOUBT)) for r in usable]
        best = min(times)
        late = [time_ms / best - 1 for time_ms in times]
        chances = [math.exp(-share / SPREAD) if share <= NEAR else 0.0 for share in late]
        chosen = self.rng.choices(usable, chances)[0]
        queries = expected_in_flight(chosen, now_s) + 1
        service_ms = max(LEAST_MS, clamped(chosen.service_ms, MOST_MS) or usual_ms)
        self._lessons[chosen.label].sent(now_s, 2 * chosen.path_ms, service_ms, queries)
        return chosen

    def expected_ms(self, replica: Replica, now_s: float, usual_ms: float = USUAL_MS, draw: float = 0.0) -> float:
        """Return the milliseconds to the answer of a query sent now.

        ``usual_ms``: a query's compute where the replica has not measured it; ``draw``: as of ``expected_in_flight``.
        """
        lessons = self._lessons.get(replica.label) or Lessons()
        service_ms = (clamped(replica.service_ms, MOST_MS) or usual_ms) * lessons.factor / lessons.started(now_s)
        compute_ms = (expected_in_flight(replica, now_s, draw) + OWN * clamped(replica.own, MOST_MS) + 1) * service_ms
        return clamped(LEAST_MS + 2 * max(0.0, replica.path_ms) + compute_ms, MOST_MS)

    def answered(self, label: int, response_ms: float, now_s: float) -> None:
        self._lessons.setdefault(label, Lessons()).answered(response_ms, now_s)

    def failed(self, label: int, now_s: float) -> None:
        self._lessons.setdefault(label, Lessons()).failed(now_s)


def _usual_ms(replicas: Sequence[Replica]) -> float:
    measured = [clamped(r.service_ms, MOST_MS) for r in replicas if r.service_ms > 0]
    return statistics.fmean(measured) if measured else USUAL_MS
