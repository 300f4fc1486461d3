"""Q-FAM: may a query of this class be served now? Admit, or every unmet reason and the nearest class that would be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from controller.values.decisions import Assessment, Mix
from controller.values.knowledge import ModelAt

SATURATED = 1.0


def assess_query(task: str, models: Sequence[ModelAt], min_accuracy: float | Mapping[str, float] = 0.0) -> Assessment:
    """Assess a query class. ``min_accuracy``: broad, or per name (``{"broad": 0.8, "cardiology": 0.95}``), shares of 1.

    ``predicted`` is the verified accuracy of the best model that satisfies the class (of the best there is if none).
    """
    floors = dict(min_accuracy) if isinstance(min_accuracy, Mapping) else {"broad": float(min_accuracy)}
    hosted = [m for m in models if m.task == task]
    if not hosted:
        return _rejected([f"no MDFP hosts a model of task {task}; deploy one first"], {}, {})
    free = [m for m in hosted if m.load < SATURATED]
    best = max(free or hosted, key=lambda m: (-_shortfall(m, floors), m.accuracy.get("broad", 0.0), m.node))
    nearest = {name: min(floor, best.accuracy.get(name, 0.0)) for name, floor in floors.items()}
    if not free:
        busy = f"all {len(hosted)} MDFPs that host task {task} are saturated (load 1.00 or more); ask again later"
        return _rejected([busy], {}, best.accuracy)
    if satisfying(free, floors):
        return Assessment(admitted=True, reasons=[], nearest=nearest, predicted=best.accuracy)
    return _rejected(_accuracy_reasons(task, free, floors), nearest, best.accuracy)


def satisfying(models: Sequence[ModelAt], min_accuracy: Mapping[str, float]) -> list[ModelAt]:
    """Return the models whose verified accuracies reach every floor."""
    return [m for m in models if _shortfall(m, min_accuracy) == 0.0]


def _shortfall(model: ModelAt, floors: Mapping[str, float]) -> float:
    return sum(max(0.0, floor - model.accuracy.get(name, 0.0)) for name, floor in floors.items())


def _accuracy_reasons(task: str, models: Sequence[ModelAt], floors: Mapping[str, float]) -> list[str]:
    reasons = []
    for name, floor in floors.items():
        top = max(m.accuracy.get(name, 0.0) for m in models)
        if top < floor:
            reasons.append(
                f"{name} accuracy {floor:.2f} is asked for; the best deployed model of task {task} has {top:.2f}"
            )
    return reasons or [f"no single deployed model of task {task} reaches all of {_spelled(floors)} together"]


def _spelled(floors: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {floor:.2f}" for name, floor in floors.items())


def _rejected(reasons: list[str], nearest: Mix, predicted: Mix) -> Assessment:
    return Assessment(admitted=False, reasons=reasons, nearest=nearest, predicted=predicted)
