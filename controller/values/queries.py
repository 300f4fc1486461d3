"""What is known of the replicas that can answer a query, and what a policy that picks one is told: plain values.

A replica is a deployed model; it is named by its label, the model *object's*, never by a place.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Protocol

import msgspec


class Replica(msgspec.Struct, kw_only=True):
    """One deployed model as an asker knows it. Seconds are of the asker's own clock.

    ``path_ms``: one way there; ``service_ms``: milliseconds of the replica's compute that a query takes (its inverse is
    what it can answer, a slow start counted in); ``in_flight``: queries that it holds, as told at ``told_s``;
    ``accuracy``: measured by an MPVU, broad, share of 1; ``weight``: QIRCE's, best 100; ``own``: queries of this asker
    that are on their way; ``sent_since``: those of them sent after the state at ``told_s`` was taken; ``metrics``: raw
    ones of one's own.
    """

    label: int
    path_ms: float = 0.0
    service_ms: float = 0.0
    in_flight: int = 0
    told_s: float = 0.0
    arrivals_per_s: float = 0.0
    accuracy: float = 0.0
    weight: int = 1
    own: int = 0
    sent_since: int = 0
    metrics: dict[str, float] = {}


class Probed(msgspec.Struct, frozen=True, kw_only=True):
    """A probe's answer: queries in flight, and the latency (milliseconds in the replica) estimated at that many."""

    label: int
    in_flight: int
    latency_ms: float
    at_s: float


class Policy(Protocol):
    """How an asker picks the replica of each query. One object per asker and class, no clock of its own.

    ``probes_per_query``: how many probes the asker shall send beside each query (0: none), to replicas that
    ``to_probe`` names.
    """

    probes_per_query: float

    def __init__(self, rng: random.Random) -> None: ...

    def choose(self, replicas: Sequence[Replica], now_s: float) -> Replica:
        """Return one of the replicas (never empty)."""

    def to_probe(self, replicas: Sequence[Replica], now_s: float) -> list[int]:
        """Return the labels to probe now, beside a query."""

    def answered(self, label: int, response_ms: float, now_s: float) -> None:
        """A query was answered after so many milliseconds (network included)."""

    def failed(self, label: int, now_s: float) -> None:
        """A query was refused, or not answered in time."""

    def probed(self, probe: Probed) -> None:
        """A probe was answered."""
