"""What is known of deployed models in the three levels of the IETF's CATS metrics (draft-ietf-cats-metric-definition).

Level 0 is raw, as reported; level 1 one figure a category; level 2 one figure in all, 0 to 10, 10 the best there is.  A
raw metric of one's own goes in with a ``Metric``: what it is read from, its category, and which way is better; those
that MDFPs report of themselves are declared (``controller.values.metrics``).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import msgspec

from controller.engines.inference.qirce import expected_ms
from controller.values.knowledge import ModelAt
from controller.values.metrics import Category, OwnMetric

CATEGORIES: tuple[Category, ...] = ("computing", "communication", "service")
BEST = 10.0
Raw = Mapping[str, float]


class Metric(msgspec.Struct, frozen=True, kw_only=True):
    """How a raw metric counts: ``read`` takes level 0 (NaN: this model's is not known, and does not count), ``weight``
    within its category. ``span``: the values that count 10 and 0 (None: 10 is the best there is among the models).
    """

    name: str
    category: Category
    read: Callable[[Raw], float]
    more_is_better: bool = False
    weight: float = 1.0
    span: tuple[float, float] | None = None


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


def own_metrics(declared: Mapping[str, OwnMetric]) -> tuple[Metric, ...]:
    """Return how declared metrics of one's own count."""
    return tuple(
        Metric(name=n, category=d.category, read=partial(_read, n), weight=d.weight, span=(d.best, d.worst))
        for n, d in declared.items()
    )


def _read(name: str, raw: Raw) -> float:
    return raw.get(name, math.nan)


def raw_of(model: ModelAt, path_ms: float) -> dict[str, float]:
    """Return level 0 of a model; ``answer_ms``: expected in the replica, queries that it holds counted."""
    return {
        "service_ms": model.service_ms, "in_flight": float(model.in_flight), "arrivals_per_s": model.arrivals_per_s,
        "load": model.load, "latency_ms": model.latency_ms, "age_s": model.age_s, "path_ms": path_ms,
        "answer_ms": expected_ms(model, 0.0), "accuracy": model.accuracy.get("broad", 0.0),
    }  # fmt: skip


RAW = frozenset(raw_of(ModelAt(node="", task="", accuracy={}), 0.0))  # names that are taken


def levels(
    models: Sequence[ModelAt],
    path_ms: Mapping[str, float],
    metrics: Sequence[Metric] = USUAL,
    weights: Mapping[Category, float] = WEIGHTS,
    more: Mapping[str, Raw] | None = None,
) -> list[Levels]:
    """Return all levels of models that can be reached, the best first.

    ``more``: raw metrics beside those that the models bring, by node. A metric without a span is 10 at the best of the
    models, and in proportion below it (half as good: 5), so that what is alike for all counts for none.
    """
    near = [m for m in models if math.isfinite(path_ms.get(m.node, math.inf))]
    raw = {m.node: {**m.metrics, **(more or {}).get(m.node, {}), **raw_of(m, path_ms[m.node])} for m in near}
    scored = {metric.name: _normalised(metric, raw) for metric in metrics}
    found = []
    for node, own in raw.items():
        known = [m for m in metrics if node in scored[m.name]]
        parts = {c: [(m.weight, scored[m.name][node]) for m in known if m.category == c] for c in CATEGORIES}
        by_category: dict[str, float] = {category: _mean(part) for category, part in parts.items()}
        score = _mean([(weights.get(c, 0.0), by_category[c]) for c in CATEGORIES if parts[c]])
        found.append(Levels(node=node, raw=own, by_category=by_category, score=score))
    return sorted(found, key=lambda x: (-x.score, x.node))


def _normalised(metric: Metric, raw: Mapping[str, Raw]) -> dict[str, float]:
    known = {node: value for node, own in raw.items() if not math.isnan(value := metric.read(own))}
    if metric.span:
        best, worst = metric.span
        return {node: BEST * min(1.0, max(0.0, (value - worst) / (best - worst))) for node, value in known.items()}
    values = {node: max(0.0, value) for node, value in known.items()}
    if metric.more_is_better:
        top = max(values.values(), default=0.0)
        return {node: BEST * value / top if top else BEST for node, value in values.items()}
    least = min(values.values(), default=0.0)
    return {node: BEST * least / value if value else BEST for node, value in values.items()}


def _mean(weighted: Sequence[tuple[float, float]]) -> float:
    total = sum(weight for weight, _ in weighted)
    return round(sum(weight * value for weight, value in weighted) / total, 4) if total else 0.0
