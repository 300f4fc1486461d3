"""MTRCE's search: a beam over whole sequences of visits, all extensions of all paths of a level in one array pass.

A path ends on a state; it is not followed beyond its goal, since the job would be over there. What is infeasible (a
visit that would end after the deadline, or after its rendezvous is gone, counting all visits before it) is never grown.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from controller.engines.routing.canvas import (
    NEW_DATA_WEIGHT,
    VISIT_COST,
    Array,
    Canvas,
    Whole,
    after,
    ends,
    shortfall,
    waiting,
    worth,
)
from controller.engines.routing.forgetting import State
from controller.engines.training import gate

BEAM = 24


class Path(NamedTuple):
    """A sequence of data sets looked at, the state it ends in, its worth and its seconds."""

    picks: tuple[int, ...]
    state: State
    worth: float
    spent_s: float


class Front(NamedTuple):
    """P paths of one length, as arrays: picks (P, level), states (P, G), seconds and worth (P,)."""

    picks: Whole
    state: State
    spent_s: Array
    worth: Array

    def take(self, rows: Whole) -> Front:
        """Return some of the paths."""
        state = State(*(part[rows] for part in self.state))
        return Front(self.picks[rows], state, self.spent_s[rows], self.worth[rows])

    def counts(self, data_sets: int) -> Array:
        """Return how often each path has picked each data set, (P, D)."""
        found = np.zeros((len(self.picks), data_sets))
        np.add.at(found, (np.arange(len(self.picks))[:, None], self.picks), 1.0)
        return found

    def paths(self) -> list[Path]:
        """Return the paths one by one."""
        rows = zip(self.picks.tolist(), self.worth.tolist(), self.spent_s.tolist(), strict=True)
        return [Path(tuple(p), self.state.at(i), w, s) for i, (p, w, s) in enumerate(rows)]


def root(start: State) -> Front:
    """Return the one path of no visits."""
    one = State(*(part[None, :] for part in start))
    return Front(np.zeros((1, 0), dtype=np.int64), one, np.zeros(1), np.full(1, -np.inf))


def grow(canvas: Canvas, front: Front, allowed: Sequence[int]) -> Front:
    """Return every feasible extension of every path by an allowed data set (none twice running)."""
    return extend(canvas, front, allowed)[1]


def extend(canvas: Canvas, front: Front, allowed: Sequence[int]) -> tuple[Whole, Front]:
    """Return what ``grow`` does, with the row of the path that each extension extends (rising)."""
    level = front.picks.shape[1]
    counts = front.counts(len(canvas.offers))
    state = after(canvas, front.state, counts, level)  # (P, D, G)
    spent_s, _, _ = ends(canvas, front.spent_s)  # (P, D)
    least_s = canvas.cost_s.min(axis=1)
    paid = (counts @ canvas.toll)[:, None] + canvas.toll  # (P, D)
    paid = paid + waiting(canvas, spent_s, (counts @ least_s)[:, None] + least_s)
    value = worth(canvas, state.skill, paid, spent_s)
    if not gate.has_target(canvas.request):  # the best within the budget: all data should have its say
        value = value + _new_data(canvas, counts)
    may = np.zeros(spent_s.shape, dtype=bool)
    may[:, np.asarray(allowed, dtype=int)] = True
    if level and len(canvas.offers) > 1:
        may[np.arange(len(may)), front.picks[:, -1]] = False
    rows, picks = np.nonzero(may & np.isfinite(spent_s))
    grown = State(*(part[rows, picks] for part in state))
    order = np.concatenate([front.picks[rows], picks[:, None]], axis=1)
    return rows, Front(order, grown, spent_s[rows, picks], value[rows, picks])


def _new_data(canvas: Canvas, counts: Array) -> Array:
    """Return what it is worth that a path has met data that no visit had met: (P, D)."""
    new = canvas.times == 0
    met = (counts > 0) & new  # (P, D)
    first = new & ~met
    sizes = (met * canvas.size).sum(axis=1, keepdims=True) + first * canvas.size
    return np.asarray(NEW_DATA_WEIGHT * sizes + VISIT_COST * first)


def ranked(front: Front) -> Whole:
    """Return the rows, best first; of equals the one whose picks come first."""
    keys = [front.picks[:, i] for i in reversed(range(front.picks.shape[1]))]
    return np.lexsort([*keys, -front.worth])


def search(canvas: Canvas, start: State, first: Sequence[int], depth: int, beam: int = BEAM) -> list[Path]:
    """Return the paths seen, best first (each feasible first step of ``first`` at least once)."""
    front, ended = root(start), list[Path]()
    every = range(len(canvas.offers))
    for level in range(depth):
        grown = grow(canvas, front, every if level else first)
        order = ranked(grown)
        ended += grown.take(order[:beam] if level else order).paths()
        near = order[: 2 * beam]
        front = grown.take(near[shortfall(canvas, grown.state.skill[near]) > 0][:beam])
        if not len(front.spent_s):
            break
    return sorted(ended, key=lambda p: (-p.worth, p.picks))
