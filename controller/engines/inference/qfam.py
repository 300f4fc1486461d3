"""Q-FAM: may a query of this class be served now? Admit, or every unmet reason and the nearest class that would be."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from controller.values.decisions import Assessment, Mix
from controller.values.knowledge import ModelAt
from packets.queries import Need

SATURATED = 1.0


def assess_query(task: str, models: Sequence[ModelAt], need: Need, path_ms: Mapping[str, float]) -> Assessment:
    """Assess a class of queries. ``path_ms``: one way from the asker to each node ({}: not looked at; inf: no way).

    ``predicted`` is the verified accuracy of the best model that satisfies the class (of the best there is if none),
    ``nearest`` the accuracies, and ``deadline_s``, of the nearest class that would be served.
    """
    hosted = [m for m in models if m.task == task]
    if not hosted:
        return _rejected([f"no MDFP hosts a model of task {task}; deploy one first"], {}, {})
    floors = need.floors
    near = [m for m in hosted if math.isfinite(path_ms.get(m.node, math.inf if path_ms else 0.0))]
    if not near:
        where = "in the asker's own K-AS, where the query is to stay" if need.local else "at the end of a live path"
        return _rejected([f"none of the {len(hosted)} models of task {task} is {where}"], {}, _best(hosted, floors))
    free = [m for m in near if m.load < SATURATED or m.service_ms]
    if not free:
        busy = f"all {len(near)} MDFPs that host task {task} are saturated (load 1.00 or more); ask again later"
        return _rejected([busy], {}, _best(near, floors))
    good = satisfying(free, floors)
    best = _best(good or free, floors)
    nearest = {name: min(floor, best.get(name, 0.0)) for name, floor in floors.items()}
    reasons = [] if good else _accuracy_reasons(task, free, floors)
    late, soonest_s = _too_late(task, good or free, need, path_ms)
    if soonest_s:
        nearest["deadline_s"] = soonest_s
    reasons += late
    return Assessment(admitted=not reasons, reasons=reasons, nearest=nearest, predicted=best)


def satisfying(models: Sequence[ModelAt], min_accuracy: Mapping[str, float]) -> list[ModelAt]:
    """Return the models whose verified accuracies reach every floor."""
    return [m for m in models if _shortfall(m, min_accuracy) == 0.0]


def _too_late(
    task: str, models: Sequence[ModelAt], need: Need, path_ms: Mapping[str, float]
) -> tuple[list[str], float]:
    """Return why the deadline cannot be met, and the nearest one that could (seconds; 0: none is asked for)."""
    if not need.deadline_ms:
        return [], 0.0
    soonest = min(least_ms(m, path_ms.get(m.node, 0.0)) for m in models)
    if soonest <= need.deadline_ms:
        return [], need.deadline_ms / 1e3
    text = f"an answer within {need.deadline_ms} ms is asked for; the soonest model of task {task} needs {soonest:.0f}"
    return [text], math.ceil(soonest) / 1e3


def least_ms(model: ModelAt, path_ms: float) -> float:
    """Return the milliseconds of a query that nobody is in the way of."""
    return 2 * path_ms + (model.service_ms or model.latency_ms)


def _best(models: Sequence[ModelAt], floors: Mapping[str, float]) -> Mix:
    return max(models, key=lambda m: (-_shortfall(m, floors), m.accuracy.get("broad", 0.0), m.node)).accuracy


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
