"""Where replicas of deployed models go: what the optimiser is given, and what it answers. Plain values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec
import numpy as np
import numpy.typing as npt

Paths = Mapping[str, Mapping[str, float] | Sequence[float] | npt.NDArray[np.float64]]
"""One-way milliseconds of each origin to each site: by name, or in the order of the sites. Unnamed or inf: no way."""


class Site(msgspec.Struct, frozen=True, kw_only=True):
    """An MDFP. ``memory_mib``: free beside what it hosts; ``speed``: units of work per second; ``hosts``: models."""

    name: str
    memory_mib: float
    speed: float
    hosts: list[str] = []


class ModelNeed(msgspec.Struct, frozen=True, kw_only=True):
    """What a replica of a model takes: memory, units of work for each query, and bytes when it is copied to a site."""

    model: str
    memory_mib: float
    work: float
    size_bytes: int = 0


class Demand(msgspec.Struct, frozen=True, kw_only=True):
    """Queries per second for a model that come in at an origin."""

    model: str
    origin: str
    rate_per_s: float


class PlacementSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The prices of a placement, all in milliseconds of mean response, and how long to look for it.

    ``fullness``: share of its speed that a site may be asked for; ``replica_ms``: keeping a replica; ``copy_ms`` and
    ``copy_ms_per_mib``: bringing one in; ``unserved_ms``: a query that nobody answers; ``missing_ms``: a model that no
    site hosts (0: a model that nobody asks for may go altogether); ``max_sites``: those looked at closely; ``kicks``:
    fresh starts from a disturbed placement; ``tries``: placements tried before a search ends.
    """

    fullness: float = 0.8
    replica_ms: float = 0.1
    copy_ms: float = 0.0
    copy_ms_per_mib: float = 0.01
    unserved_ms: float = 1e5
    missing_ms: float = 100.0
    max_sites: int = 400
    kicks: int = 40
    tries: int = 600


class Share(msgspec.Struct, frozen=True, kw_only=True):
    """Queries per second of one demand that one site answers; ``site`` '': nobody does."""

    model: str
    origin: str
    site: str
    rate_per_s: float


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """What differs from what is hosted now, and why (for a person). ``source``: where a moved replica was."""

    kind: Literal["add", "move", "remove"]
    model: str
    site: str
    source: str = ""
    size_bytes: int = 0
    reason: str = ""


class Placement(msgspec.Struct, frozen=True, kw_only=True):
    """Which sites host which model, who answers what, and what to change; ``cost_ms`` is what was minimised.

    ``response_ms``: mean over the queries that are answered, way there and back included.
    """

    replicas: dict[str, list[str]]
    shares: list[Share]
    unserved: list[Share]
    changes: list[Change]
    cost_ms: float
    response_ms: float

    @property
    def moved_bytes(self) -> int:
        """Return how many bytes have to be copied."""
        return sum(change.size_bytes for change in self.changes)
