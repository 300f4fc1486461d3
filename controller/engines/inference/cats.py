"""What is known of deployed models in the three levels of the IETF's CATS metrics (draft-ietf-cats-metric-definition).

Level 0 is raw, as reported; level 1 one figure a category; level 2 one figure in all, 0 to 10, 10 the best there is.  A
raw metric of one's own goes in with a ``Metric``: what it is read from, its category, and which way is better.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import msgspec

from controller.engines.inference.qirce import expected_ms
from controller.values.knowledge import ModelAt

Category = Literal["computing", "communication", "service"]
CATEGORIES: tuple[Category, ...] = ("computing", "communication", "service")
BEST = 10.0
Raw = Mapping[str, float]


class Metric(msgspec.Struct, frozen=True, kw_only=True):
    """How a raw metric counts: ``read`` takes level 0, ``weight`` within its category."""

    name: str
    category: Category
    read: Callable[[Raw], float]
    more_is_better: bool = False
    weight: float = 1.0


class Levels(msgspec.Struct, frozen=True, kw_only=True):
    """One model's metrics: ``raw`` (level 0), ``by_category`` (level 1) and ``score`` (level 2), both 0 to 10."""

    node: str
    raw: dict[str, float]
    by_category: dict[str, float]
    score: float


USUAL = (
    Metric(name="answer_ms", category="computing", read=lambda raw: raw["answer_ms"]),
    Metric(name="round_trip_ms", category="communication", read=lambda raw: 2 * raw["path_ms"]),
    Metric(name="accuracy", category="service", read=lambda raw: raw["accuracy"], more_is_better=True),
)
WEIGHTS: dict[Category, float] = {"computing": 1.0, "communication": 1.0, "service": 1.0}


def raw_of(model: ModelAt, path_ms: float) -> dict[str, float]:
    """Return level 0 of a model; ``answer_ms``: expected in the replica, queries that it holds counted."""
    return {
        "service_ms": model.service_ms, "in_flight": float(model.in_flight), "arrivals_per_s": model.arrivals_per_s,
        "load": model.load, "latency_ms": model.latency_ms, "age_s": model.age_s, "path_ms": path_ms,
        "answer_ms": expected_ms(model, 0.0), "accuracy": model.accuracy.get("broad", 0.0),
    }  # fmt: skip


def levels(
    models: Sequence[ModelAt],
    path_ms: Mapping[str, float],
    metrics: Sequence[Metric] = USUAL,
    weights: Mapping[Category, float] = WEIGHTS,
    more: Mapping[str, Raw] | None = None,
) -> list[Levels]:
    """Return all levels of models that can be reached, the best first.

    ``more``: raw metrics of one's own, by node. A metric is 10 at the best of the models, and in proportion below it
    (half as good: 5), so that what is alike for all counts for none.
    """
    near = [m for m in models if math.isfinite(path_ms.get(m.node, math.inf))]
    raw = {m.node: raw_of(m, path_ms[m.node]) | dict((more or {}).get(m.node, {})) for m in near}
    scored = {metric.name: _normalised(metric, raw) for metric in metrics}
    found = []
    for node, own in raw.items():
        parts = {c: [(m.weight, scored[m.name][node]) for m in metrics if m.category == c] for c in CATEGORIES}
        by_category: dict[str, float] = {category: _mean(part) for category, part in parts.items()}
        score = _mean([(weights.get(c, 0.0), by_category[c]) for c in CATEGORIES if parts[c]])
        found.append(Levels(node=node, raw=own, by_category=by_category, score=score))
    return sorted(found, key=lambda x: (-x.score, x.node))


def _normalised(metric: Metric, raw: Mapping[str, Raw]) -> dict[str, float]:
    values = {node: max(0.0, metric.read(own)) for node, own in raw.items()}
    if metric.more_is_better:
        top = max(values.values(), default=0.0)
        return {node: BEST * value / top if top else BEST for node, value in values.items()}
    least = min(values.values(), default=0.0)
    return {node: BEST * least / value if value else BEST for node, value in values.items()}


def _mean(weighted: Sequence[tuple[float, float]]) -> float:
    total = sum(weight for weight, _ in weighted)
    return round(sum(weight * value for weight, value in weighted) / total, 4) if total else 0.0
