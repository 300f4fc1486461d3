"""From a canvas to ranked routes: cut very many data sets down to a shortlist, search with a beam, polish the best.

The shortlist. A plan has a handful of visits, so of 100,000 data sets nearly all are idle; which, depends on what the
visits before taught. So scouts walk ahead over *all* data sets, a few paths wide: at each level every one is tried
after each path, and the best few are kept for the list. Beside them stand, whatever the scouts saw, the best per second
for each group and for breadth. What leaving the rest out costs is measured in ``benchmarks/mtrce.py``.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from controller.engines.routing.canvas import Array, Canvas, Whole, shortfall
from controller.engines.routing.forgetting import SAMPLES_TO_LEARN, State
from controller.engines.routing.polish import polish
from controller.engines.routing.search import Front, Path, grow, ranked, root, search

MAX_OPTIONS = 64
POLISHED = 4
SCOUTS = 3
SCOUTED = 8  # data sets kept for each scout and level


def routes(canvas: Canvas, start: State, first: Sequence[int], depth: int) -> list[Path]:
    """Return routes of up to ``depth`` visits, best first: the beam's, and what the best of them climb to."""
    found = search(canvas, start, first, depth)
    better = polish(canvas, start, found[:POLISHED], first, depth)
    return sorted([*better, *found], key=lambda p: (-p.worth, p.picks))


def shortlist(canvas: Canvas, start: State, first: Sequence[int], depth: int) -> tuple[Canvas, list[int]]:
    """Return the canvas of the data sets worth searching, and which of them may be first."""
    if len(canvas.offers) <= MAX_OPTIONS:
        return canvas, list(first)
    rows = sorted(_best_per_second(canvas) | _scouted(canvas, start, first, depth))
    may_begin = set(first)
    begin = [i for i, row in enumerate(rows) if row in may_begin]
    return canvas.cut(rows), begin or list(range(len(rows)))


def _best_per_second(canvas: Canvas) -> set[int]:
    breadth = np.minimum(canvas.met, SAMPLES_TO_LEARN).sum(axis=1)
    worth = np.concatenate([canvas.met, breadth[:, None]], axis=1) / (1.0 + canvas.cost_s.min(axis=1)[:, None])
    each = max(1, MAX_OPTIONS // 2 // worth.shape[1])
    return {i for column in worth.T for i in _top(column, each).tolist()}


def _top(values: Array, count: int) -> Whole:
    """Return the places of the highest values, of equals the first ones."""
    if count >= len(values):
        return np.argsort(-values, kind="stable")
    least = np.partition(values, -count)[-count]
    near = np.flatnonzero(values >= least)
    return near[np.argsort(-values[near], kind="stable")][:count]


def _scouted(canvas: Canvas, start: State, first: Sequence[int], depth: int) -> set[int]:
    front, kept = root(start), set[int]()
    every = range(len(canvas.offers))
    for level in range(depth):
        grown = [
            _thin(grow(canvas, front.take(np.array([i])), every if level else first)) for i in range(len(front.worth))
        ]
        kept.update(int(pick) for g in grown for pick in g.picks[:, -1])
        front = _joined([g.take(np.flatnonzero(shortfall(canvas, g.state.skill) > 0)[:SCOUTS]) for g in grown])
        front = front.take(ranked(front)[:SCOUTS])
        if not len(front.worth):
            break
    return kept


def _thin(grown: Front) -> Front:
    few = grown.take(_top(grown.worth, SCOUTED * SCOUTS))
    return few.take(ranked(few)[:SCOUTED])


def _joined(fronts: list[Front]) -> Front:
    state = State(*(np.concatenate(parts) for parts in zip(*(f.state for f in fronts), strict=True)))
    picks = np.concatenate([f.picks for f in fronts])
    return Front(picks, state, *(np.concatenate(parts) for parts in zip(*(f[2:] for f in fronts), strict=True)))
