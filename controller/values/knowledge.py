"""What is known of terminals and of the models they host: the values that map and engines share."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import msgspec

from controller.values.decisions import Mix


class Attribute(msgspec.Struct, frozen=True):
    """A value, the time of the report that last carried it, the map's count when it last changed, and its cost.

    ``cost_bytes``: its share of the frames that reported it so far; ``changes``: how often its value changed.
    """

    value: Any
    t_s: float
    version: int = 0
    cost_bytes: float = 0.0
    changes: int = 0


class Node(msgspec.Struct, frozen=True, kw_only=True):
    """A terminal. ``heard_s``: its last sign of life; ``version``: the map's count at its last change of value."""

    name: str
    role: str
    kas: int
    address: str
    attributes: dict[str, Attribute]
    heard_s: float = 0.0
    version: int = 0

    def get(self, attribute: str, default: Any = None) -> Any:
        """Return the value of an attribute, or ``default`` where the terminal never reported it."""
        held = self.attributes.get(attribute)
        return default if held is None else held.value

    def changed(self, attributes: Collection[str]) -> int:
        """Return the map's count at the last change of any of these attributes (0: none was ever reported)."""
        return max((held.version for name, held in self.attributes.items() if name in attributes), default=0)


class ModelAt(msgspec.Struct, frozen=True, kw_only=True):
    """A deployed model. ``accuracy``: ``broad`` and per group; ``load``: 1 is full; ``latency_ms``: one inference.

    ``label``: the model's own (0: it has none). Where it measures itself: ``service_ms``, what a query takes of its
    compute when queries wait; ``in_flight``, queries that it holds; ``arrivals_per_s``, and of them
    ``asked_by`` K-AS; ``up_s``, since when it serves (-1: unknown). ``age_s``: of all that. ``job``: the object of the
    training job that it came from (0: it came from a file). ``metrics``: raw ones of one's own, of its node
    (``controller.values.metrics``). ``cache``: it is none, but answers that one gave.
    """

    node: str
    task: str
    accuracy: Mix
    load: float = 0.0
    latency_ms: float = 0.0
    kas: int = 0
    age_s: float = 0.0
    label: int = 0
    service_ms: float = 0.0
    in_flight: int = 0
    arrivals_per_s: float = 0.0
    up_s: float = -1.0
    asked_by: dict[str, float] = {}
    job: int = 0
    metrics: dict[str, float] = {}
    cache: bool = False
