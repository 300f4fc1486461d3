"""Local search on whole routes: what a beam, which judges a route by its beginning, overlooks.

From each of the best paths, climb: all routes that differ in one visit (another one, one more, one less), in the order
of two, or in the place of one, are walked at once as arrays; the best of them is next, until none is better. A route
that meets its goal early ends there, one that cannot be kept in time is worth nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from controller.engines.routing.canvas import (
    NEW_DATA_WEIGHT,
    VISIT_COST,
    Array,
    Canvas,
    Whole,
    after_one,
    ends,
    shortfall,
    waiting,
    worth,
)
from controller.engines.routing.forgetting import State
from controller.engines.routing.search import Path
from controller.engines.training import gate

CLIMBS = 30
BETTER = 1e-9
Picks = tuple[int, ...]


def polish(canvas: Canvas, start: State, paths: Sequence[Path], first: Sequence[int], depth: int) -> list[Path]:
    """Return the routes that climbing from ``paths`` ends at, each better than the one that it began with."""
    found: dict[Picks, Path] = {}
    for path in paths:
        best = path
        for _ in range(CLIMBS):
            near = sorted({p for p in _neighbours(best.picks, len(canvas.offers), depth) if p[0] in first})
            top = _best(canvas, start, near)
            if top is None or top.worth <= best.worth + BETTER:
                break
            best = top
        if best is not path:
            found[best.picks] = best
    return list(found.values())


def _neighbours(picks: Picks, offers: int, depth: int) -> Iterator[Picks]:
    """Yield the routes one change away, none with the same data twice running (unless nothing else is on offer)."""
    for changed in _changes(picks, offers, depth):
        if changed and (offers == 1 or all(a != b for a, b in pairwise(changed))):
            yield changed


def _changes(picks: Picks, offers: int, depth: int) -> Iterator[Picks]:
    spots = range(len(picks))
    for i in spots:
        rest = picks[:i] + picks[i + 1 :]
        yield rest
        yield from ((*rest[:j], picks[i], *rest[j:]) for j in spots if j != i)
        yield from ((*picks[:i], o, *picks[i + 1 :]) for o in range(offers) if o != picks[i])
        for j in range(i + 2, len(picks)):
            yield (*picks[:i], picks[j], *picks[i + 1 : j], picks[i], *picks[j + 1 :])
    if len(picks) < depth:
        yield from ((*picks[:i], o, *picks[i:]) for i in range(len(picks) + 1) for o in range(offers))


def _best(canvas: Canvas, start: State, routes: Sequence[Picks]) -> Path | None:
    """Return the best of some routes, cut where it first meets its goal; ``None`` where none is feasible."""
    if not routes:
        return None
    walked = walk(canvas, start, routes)
    top = int(walked.worth.argmax())
    if not np.isfinite(walked.worth[top]):
        return None
    picks = routes[top][: int(walked.length[top])]
    return Path(picks, walked.state.at(top), float(walked.worth[top]), float(walked.spent_s[top]))


class Walked(NamedTuple):
    """Where routes end, each (routes,) or (routes, G); ``length``: visits until the goal, the end or the deadline."""

    worth: Array
    length: Whole
    spent_s: Array
    state: State


def walk(canvas: Canvas, start: State, routes: Sequence[Picks]) -> Walked:
    """Walk routes all at once; one that cannot be kept in time is worth ``-inf``."""
    longest = max(map(len, routes))
    picks = np.array([r + (-1,) * (longest - len(r)) for r in routes])  # (R, longest), padded with -1
    rows, count = np.arange(len(routes)), len(routes)
    state = State(*(np.repeat(part[None, :], count, axis=0) for part in start))
    counts, live = np.zeros((count, len(canvas.offers))), np.ones(count, dtype=bool)
    ended = Walked(np.full(count, -np.inf), np.zeros(count, dtype=int), np.zeros(count), state)
    spent_s, least_s = ended.spent_s, canvas.cost_s.min(axis=1)
    for level in range(longest):
        at = np.maximum(picks[:, level], 0)
        spent_s = ends(canvas, np.where(live, spent_s, 0.0), at)[0]
        state = after_one(canvas, state, counts, level, at)
        live = live & (picks[:, level] >= 0)
        paid = counts @ canvas.toll + canvas.toll[at] + waiting(canvas, spent_s, counts @ least_s + least_s[at])
        value = worth(canvas, state.skill, paid, spent_s) + _news(canvas, counts, at)
        counts[rows, at] += 1
        late = live & ~np.isfinite(spent_s)
        value = np.where(late, -np.inf, value)
        ended = _where(live, Walked(value, np.full(count, level + 1), spent_s, state), ended)
        live = live & ~late & (shortfall(canvas, state.skill) > 0)
    return ended


def _where(rows: npt.NDArray[np.bool_], new: Walked, old: Walked) -> Walked:
    state = State(*(np.where(rows[:, None], n, o) for n, o in zip(new.state, old.state, strict=True)))
    worth_, length, spent_s = (np.where(rows, n, o) for n, o in zip(new[:3], old[:3], strict=True))
    return Walked(worth_, length, spent_s, state)


def _news(canvas: Canvas, counts: Array, at: Whole) -> Array | float:
    """Return what new data is worth after a visit to ``at``, (routes,); see ``search``."""
    if gate.has_target(canvas.request):
        return 0.0
    rows, new = np.arange(len(at)), canvas.times == 0
    first = new[at] & (counts[rows, at] == 0)
    sizes = ((counts > 0) & new) @ canvas.size + first * canvas.size[at]
    return np.asarray(NEW_DATA_WEIGHT * sizes + VISIT_COST * first)
