"""Prequal: probes sent beside queries, their answers pooled (Wydrowski et al., "Load is not what you should balance",
NSDI 2024).

A replica is hot when it holds more requests in flight (RIF) than the quantile ``HOT_QUANTILE`` of those probed lately.
Of the cold ones in the pool the least latency is chosen, if all are hot the least RIF. A pool holds one probe a
replica. Where replicas are not many more than a pool holds, the paper's bound on reuse has no value; probes then serve
until they are replaced, removed or too old.
"""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Sequence

from controller.engines.inference.policies.base import Base
from controller.values.queries import Probed, Replica

POOL = 16
MAX_AGE_S = 1.0
HOT_QUANTILE = 0.84
RECENT = 128  # probes of which the quantile is taken
LEAST_POOL = 2
PROBES = 3
REMOVED = 1  # probes a query
SURPLUS = 1.0  # delta of the paper: how fast the pool would fill up if every probe were used as often as it may be


def reuse_budget(replicas: int) -> float:
    """Return how often one probe may be used."""
    net = (1 - POOL / max(1, replicas)) * PROBES - REMOVED
    return max(1.0, (1 + SURPLUS) / net) if net > 0 else math.inf


class _Entry:
    """A probe in the pool. ``rif`` counts the queries that were sent on the strength of it as well."""

    def __init__(self, probe: Probed) -> None:
        self.label, self.rif, self.latency_ms, self.at_s = probe.label, probe.in_flight, probe.latency_ms, probe.at_s
        self.uses = 0


class Prequal(Base):
    """Hot-cold lexicographic choice from a pool of probes; by chance while the pool holds fewer than two."""

    probes_per_query = float(PROBES)

    def __init__(self, rng: random.Random) -> None:
        super().__init__(rng)
        self._pool: list[_Entry] = []  # oldest first
        self._rifs: deque[int] = deque(maxlen=RECENT)
        self._remove_worst = False

    def to_probe(self, replicas: Sequence[Replica], now_s: float) -> list[int]:
        return [r.label for r in self.rng.sample(replicas, min(PROBES, len(replicas)))]

    def probed(self, probe: Probed) -> None:
        self._rifs.append(probe.in_flight)
        self._pool = [e for e in self._pool if e.label != probe.label] + [_Entry(probe)]
        self._pool = sorted(self._pool, key=lambda e: e.at_s)[-POOL:]

    def failed(self, label: int, now_s: float) -> None:
        self._pool = [e for e in self._pool if e.label != label]

    def choose(self, replicas: Sequence[Replica], now_s: float) -> Replica:
        known = {r.label: r for r in replicas}
        self._pool = [e for e in self._pool if now_s - e.at_s <= MAX_AGE_S]
        usable = [e for e in self._pool if e.label in known]
        if len(usable) < LEAST_POOL:
            return self.rng.choice(replicas)
        best = min(usable, key=self._rank)
        best.uses += 1
        best.rif += 1
        if best.uses >= reuse_budget(len(replicas)):
            self._pool.remove(best)
        self._remove()
        return known[best.label]

    def hot_above(self) -> float:
        """Return the RIF above which a replica is hot."""
        ranked = sorted(self._rifs)
        return ranked[min(len(ranked) - 1, int(HOT_QUANTILE * len(ranked)))] if ranked else math.inf

    def _rank(self, entry: _Entry) -> tuple[bool, float]:
        hot = entry.rif > self.hot_above()
        return hot, entry.rif if hot else entry.latency_ms

    def _remove(self) -> None:
        """Remove the oldest probe and the worst in turn."""
        for _ in range(min(REMOVED, len(self._pool))):
            self._pool.remove(max(self._pool, key=self._rank) if self._remove_worst else self._pool[0])
            self._remove_worst = not self._remove_worst
