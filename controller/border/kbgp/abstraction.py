"""What a K-AS lets others know of it: aggregates over its reachable terminals, with bounds, and nothing per node.

Where fewer than ``least`` terminals stand behind a figure, it is not told: a sum over one is that one.  Amounts are
told as bounds of two digits: small changes are no news, and two words in a row say little of one terminal.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from msgspec.structs import replace

from controller.engines.inference.qirce import expected_ms
from controller.values.knowledge import ModelAt, Node
from packets.kbgp.knowledge import MAX_KNOWLEDGE_BYTES, Bounds, Data, Deployed, Knowledge, text_to_sign

SHARE_STEP = 0.05
ACCURACY_STEP = 0.01
MOST_NAMES = 64


@dataclass(frozen=True)
class Policy:
    """How much is told. ``least``: terminals that must stand behind a figure; ``digits``: of an amount."""

    least: int = 3
    digits: int = 2


def abstract(kas: int, nodes: Iterable[Node], models: Iterable[ModelAt], policy: Policy | None = None) -> Knowledge:
    """Return what a K-AS tells of its terminals and deployed models; who sends it sets its version."""
    policy = policy or Policy()
    here = [n for n in nodes if n.kas == kas and n.get("reachable", True)]
    known = Counter(n.role for n in here)
    data = [n for n in here if n.role == "data" and n.get("samples", 0) > 0]
    facilities = [n for n in here if n.get("compute_samples_per_s", 0.0) > 0]
    speed = sum(n.get("compute_samples_per_s", 0.0) / (1 + n.get("queue", 0)) for n in facilities)
    told = Knowledge(
        kas=kas,
        epoch_ms=0,
        serial=0,
        terminals=dict(sorted(known.items())),  # type: ignore[arg-type]
        data=_data(data, policy) if len(data) >= policy.least else None,
        compute=bounds(speed, policy.digits) if len(facilities) >= policy.least else None,
        models=_models([m for m in models if m.kas == kas]) if known["mdfp"] else {},
    )
    if len(text_to_sign(told)) <= MAX_KNOWLEDGE_BYTES:
        return told
    return replace(told, models={task: replace(m, best_accuracy=_broad(m)) for task, m in told.models.items()})


def _broad(deployed: Deployed) -> dict[str, float]:
    """Return the accuracy that is always told, where there is no room for those of all groups."""
    return {g: a for g, a in deployed.best_accuracy.items() if g == "broad"}


def _data(nodes: list[Node], policy: Policy) -> Data:
    """Return the samples of all, and the share of each group that enough of them have."""
    total = sum(n.get("samples", 0) for n in nodes)
    held: dict[str, float] = {}
    holders: Counter[str] = Counter()
    for node in nodes:
        for group, share in node.get("group_shares", {}).items():
            if share > 0:
                held[group] = held.get(group, 0.0) + share * node.get("samples", 0) / total
                holders[group] += 1
    told = {g: _down(min(s, 1.0), SHARE_STEP) for g, s in sorted(held.items()) if holders[g] >= policy.least}
    kept = sorted((g for g in told if told[g] > 0 and 0 < len(g) <= 48), key=lambda g: (-told[g], g))[:MOST_NAMES]
    return Data(samples=bounds(total, policy.digits), shares={g: told[g] for g in sorted(kept)})


def _models(models: list[ModelAt]) -> dict[str, Deployed]:
    """Return what is deployed of each task: an offer to everybody, so also where one alone makes it."""
    tasks = sorted({m.task for m in models if 0 < len(m.task) <= 48})[:MOST_NAMES]
    found = {}
    for task in tasks:
        of_task = [m for m in models if m.task == task]
        groups = sorted({g for m in of_task for g in m.accuracy if 0 < len(g) <= 48})[:MOST_NAMES]
        best = {g: _down(max(m.accuracy.get(g, 0.0) for m in of_task), ACCURACY_STEP) for g in groups}
        least_ms = bounds(min(expected_ms(m, 0.0) for m in of_task), 2).high
        found[task] = Deployed(models=len(of_task), best_accuracy=best, least_ms=least_ms)
    return found


def bounds(amount: float, digits: int) -> Bounds:
    """Return the two numbers of so many digits between which an amount lies."""
    if not 0 < amount < math.inf:
        return Bounds(low=0.0, high=0.0)
    step = 10.0 ** (math.floor(math.log10(amount)) - digits + 1)
    low, high = math.floor(amount / step) * step, math.ceil(amount / step) * step
    return Bounds(low=min(round(low, 9), amount), high=max(round(high, 9), amount))


def _down(share: float, step: float) -> float:
    """Return a share, rounded down to a step: others rather think too little of us than too much."""
    return round(math.floor(min(max(share, 0.0), 1.0) / step + 1e-9) * step, 6)
