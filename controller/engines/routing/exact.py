"""The best route of all, for small instances: branch and bound over every sequence, to measure the beam against.

Same canvas, same rules, same worth as the beam. The bound is sound because the prediction is monotone: more samples
met, more skill, more repetitions never end in less skill. So nobody can do better on ``n`` more visits than an
impossible hospital that holds, of each group, the most that any data set still offers this path, at the least cost,
and puts nothing at risk.
Up to nine data sets and a budget of nine visits in seconds; beyond that the number of sequences explodes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from controller.engines.routing import forgetting
from controller.engines.routing.canvas import NEW_DATA_WEIGHT, VISIT_COST, Array, Canvas, shortfall, worth
from controller.engines.routing.forgetting import State
from controller.engines.routing.search import Front, Path, grow, ranked, root
from controller.engines.training import gate, hpo
from controller.values.errors import EngineError

BLOCK = 2048
MAX_DATA_SETS = 12
SLACK = 1e-12


class TooLarge(EngineError):
    """An exact search was asked for more than it can enumerate."""


def best_route(canvas: Canvas, start: State, first: Sequence[int], depth: int, known: float = -np.inf) -> Path | None:
    """Return the best of all feasible sequences of up to ``depth`` visits; ``None`` where there is none at all, or none
    better than ``known`` (the worth of a route at hand, which makes the search quicker).
    """
    if len(canvas.offers) > MAX_DATA_SETS:
        raise TooLarge(f"{len(canvas.offers)} data sets: exact search takes at most {MAX_DATA_SETS}; use the beam")
    best: Path | None = None
    open_blocks = [root(start)]
    while open_blocks:
        front = open_blocks.pop()
        level = front.picks.shape[1]
        grown = grow(canvas, front, range(len(canvas.offers)) if level else first)
        if len(grown.worth) and (top := int(ranked(grown)[0])) >= 0 and grown.worth[top] > known + SLACK:
            known, best = float(grown.worth[top]), grown.take(np.array([top])).paths()[0]
        if level + 1 < depth and len(grown.worth):
            open_blocks += _blocks(canvas, grown, depth, known)
    return best


def _blocks(canvas: Canvas, grown: Front, depth: int, known: float) -> list[Front]:
    """Return what may still lead to better, in blocks, the most promising last (it is taken next)."""
    unmet = np.flatnonzero(shortfall(canvas, grown.state.skill) > 0)
    promise = bound(canvas, grown.take(unmet), depth)
    order = np.argsort(promise, kind="stable")
    order = order[promise[order] > known + SLACK]
    return [grown.take(unmet[order[i : i + BLOCK]]) for i in range(0, len(order), BLOCK)]


def bound(canvas: Canvas, front: Front, depth: int) -> Array:
    """Return what no extension of each path can exceed, (P,)."""
    level = front.picks.shape[1]
    fresh = 1.0 / (1.0 + forgetting.SAME_DATA_AGAIN * (canvas.times + front.counts(len(canvas.offers))))  # (P, D)
    most = (canvas.met * fresh[..., None]).max(axis=1)  # (P, G)
    least_s, least_toll = float(canvas.cost_s.min()), float(canvas.toll.min())
    paid = front.counts(len(canvas.offers)) @ canvas.toll
    state, spent_s = front.state, front.spent_s
    promise = np.full(len(spent_s), -np.inf)
    for visits in range(level + 1, depth + 1):
        state = forgetting.step(
            state, most, hpo.pace(canvas.done + visits - 1), canvas.ceiling, canvas.rates, conflict=0.0
        )
        spent_s, paid = spent_s + least_s, paid + least_toll
        promise = np.maximum(promise, worth(canvas, state.skill, paid, spent_s))
    return promise if gate.has_target(canvas.request) else promise + NEW_DATA_WEIGHT + VISIT_COST
