"""The search for a placement: which sites host what, above the transport problem of who answers what.

At the prices of the full sites the cost of every other placement has a lower bound that is a sum over models, so that
all placements one change away are bounded at once as arrays; only those whose bound is below the cost of the best so
far are solved. A change is a replica more, less or elsewhere, and where memory is short, another model's replica that
gives way.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain, combinations
from typing import NamedTuple

import numpy as np

from controller.engines.inference.placement_flow import EPS, Array, Mask, Problem, State, Whole, assign, loads, relaxed

NEAR = 30  # changes of one kind and model that are looked at
PART = 1e-6
DIVE_STEPS = 8  # of the parts of replicas, one of so many is made whole at once
AT_ONCE = 64  # replicas counted anew together
NEARLY = 0.97  # of what the best seemed to save: good enough to be added


# --- a first placement -----------------------------------------------------------------------------------------------


def dive(problem: Problem) -> Mask:
    """Make the best placement with parts of replicas whole, the largest parts first, the rest solved anew each time."""
    least, most = np.zeros_like(problem.hosted), problem.room_mib >= problem.memory_mib[:, None] - EPS
    while True:
        parts = np.where(least, 0.0, relaxed(problem, least, most))
        some = np.argwhere(parts > PART)
        if not len(some):
            return least
        order = np.argsort(-parts[tuple(some.T)], kind="stable")
        whole = int((parts > 1 - PART).sum())
        for m, s in some[order][: whole + 1 + (len(some) - whole) // DIVE_STEPS]:
            if problem.spare_mib(least)[s] >= problem.memory_mib[m] - EPS:
                least[m, s] = True
        most = least | (problem.spare_mib(least) >= problem.memory_mib[:, None] - EPS)


def greedy(problem: Problem, held: Mask) -> Mask:
    """Add the replica that saves most, with what its site can answer counted, until none is worth its cost.

    What a replica saves only falls as others are added, so it is counted anew only when it seems the best.
    """
    build = _Build(problem, held.copy())
    while True:
        net = build.net().ravel()
        some = np.argpartition(-net, AT_ONCE)[:AT_ONCE] if len(net) > AT_ONCE else np.arange(len(net))
        some = some[net[some] > EPS]
        if not len(some):
            return build.held
        models, sites = np.divmod(some, held.shape[1])
        seemed, before = float(net[some].max()), build.gain[models, sites]
        build.gain[models, sites] = build.gains(models, sites)
        now = net[some] + build.gain[models, sites] - before
        best = int(now.argmax())
        if now[best] >= NEARLY * seemed - EPS:
            build.add(int(models[best]), int(sites[best]))


class _Build:
    """A placement that grows. A demand is known by its mean response so far; what moves to a new replica moves evenly
    from all that answered it.
    """

    def __init__(self, problem: Problem, held: Mask) -> None:
        self.problem, self.held = problem, held
        self.spare_mib = problem.spare_mib(held)
        self.parts = np.zeros_like(problem.response_ms)  # (M, S, O)
        flows = assign(problem, held).flows
        self.parts[flows.model, flows.site, flows.origin] = flows.part
        known = np.where(np.isfinite(problem.response_ms), problem.response_ms, 0.0)
        self.mean_ms = problem.unserved_ms + (self.parts * (known - problem.unserved_ms)).sum(axis=1)  # (M, O)
        self.slack = problem.capacity - loads(problem, flows)
        sites = np.arange(held.shape[1])
        self.gain = np.stack([self.gains(np.full_like(sites, m), sites) for m in range(len(held))])

    def net(self) -> Array:
        """Return what each replica seems to save above its cost, (M, S); -inf where it cannot be."""
        p = self.problem
        net = self.gain - p.fee + p.missing_ms * ~self.held.any(axis=1, keepdims=True)
        able = ~self.held & (self.spare_mib >= p.memory_mib[:, None] - EPS)
        return np.where(able, net, -np.inf)

    def add(self, model: int, site: int) -> None:
        """Put a replica there and give it what it answers better, as far as its site can."""
        p = self.problem
        self.held[model, site] = True
        self.spare_mib[site] -= p.memory_mib[model]
        saving = np.maximum(self.mean_ms[model] - p.response_ms[model, site], 0.0)
        share = taken(saving[None], p.work[model][None], self.slack[site, None])[0]
        at = np.flatnonzero(self.held[model])
        self.slack[at] += self.parts[model, at] @ (share * p.work[model])
        self.parts[model, at] *= 1 - share
        self.parts[model, site] += share
        self.slack[site] -= float(share @ p.work[model])
        self.mean_ms[model] -= share * saving

    def gains(self, models: Whole, sites: Whole) -> Array:
        """Return what a replica of each model at each site (parallel arrays) saves."""
        p = self.problem
        saving = np.maximum(self.mean_ms[models] - p.response_ms[models, sites], 0.0)  # (N, O)
        work = np.where(saving > 0, p.work[models], 0.0)
        worth = saving * p.share[models]
        gain = worth.sum(axis=1)
        full = np.flatnonzero(work.sum(axis=1) > self.slack[sites])
        gain[full] = (worth[full] * taken(saving[full], work[full], self.slack[sites[full]])).sum(axis=1)
        return np.asarray(gain)


def taken(saving: Array, work: Array, slack: Array) -> Array:
    """Return the part of each demand that is taken, the most saved first, within ``slack`` units of work: (N, O)."""
    order = np.argsort(-saving, axis=1, kind="stable")
    asked = np.where(saving > 0, work, 0.0)
    sorted_ = np.take_along_axis(asked, order, axis=1)
    left = np.maximum(slack, 0.0)[:, None] - (np.cumsum(sorted_, axis=1) - sorted_)
    part = np.clip(left / np.maximum(sorted_, EPS), 0.0, 1.0)
    placed = np.zeros_like(part)
    np.put_along_axis(placed, order, part, axis=1)
    return np.where(saving > 0, placed, 0.0)


# --- local search ----------------------------------------------------------------------------------------------------


class Step(NamedTuple):
    """A change of one model's replicas: ``drop`` and ``add`` are sites (-1: none). ``bound``: no change saves more."""

    bound: float
    rank: float
    model: int
    drop: int
    add: int


Move = tuple[Step, ...]


@dataclass
class Search:
    """Local search from placements, with what it may spend; the same seed gives the same."""

    problem: Problem
    tries: int
    rng: np.random.Generator
    near: int = NEAR
    seen: dict[bytes, float] = field(default_factory=dict)

    def run(self, starts: list[Mask], kicks: int) -> State:
        """Return the best placement found by climbing from each start, then from the best, disturbed."""
        states = sorted((assign(self.problem, start) for start in starts), key=lambda state: state.cost)
        best = min(map(self.climb, states), key=lambda state: state.cost)
        for _ in range(kicks):
            if self.tries <= 0 or not best.held.size:
                break
            after = self.climb(assign(self.problem, self._kicked(best.held)))
            best = after if after.cost < best.cost - EPS else best
        return best

    def climb(self, state: State) -> State:
        """Change one thing at a time, at first many at once, until nothing is better."""
        while self.tries > 0:
            moves = sorted(self._moves(state), key=lambda move: (sum(step.rank for step in move), move))
            better = self._together(state, moves) or self._first(state, moves)
            if better is None:
                break
            state = better
        return state

    def _first(self, state: State, moves: list[Move]) -> State | None:
        for move in moves:
            if self.tries <= 0:
                break
            after = self._tried(state, [move])
            if after is not None:
                return after
        return None

    def _together(self, state: State, moves: list[Move]) -> State | None:
        """Make the best changes of different models and sites at once, then half of them, as long as that is worse."""
        some: list[Move] = []
        models: set[int] = set()
        sites: set[int] = set()
        for move in moves:
            there = {site for step in move for site in (step.drop, step.add) if site >= 0}
            if models.isdisjoint(step.model for step in move) and sites.isdisjoint(there):
                some.append(move)
                models.update(step.model for step in move)
                sites |= there
        while len(some) > 1:
            after = self._tried(state, some)
            if after is not None:
                return after
            some = some[: len(some) // 2]
        return None

    def _tried(self, state: State, moves: list[Move]) -> State | None:
        held = changed(state.held, moves)
        key = np.packbits(held).tobytes()
        if self.seen.get(key, -np.inf) >= state.cost - EPS:
            return None
        self.tries -= 1
        after = assign(self.problem, held)
        self.seen[key] = after.cost
        return after if after.cost < state.cost - EPS else None

    def _kicked(self, held: Mask) -> Mask:
        """Clear one to three sites, or take some replicas away, and put one or two where there is room."""
        held = held.copy()
        if self.rng.random() < 0.5:
            held[:, self.rng.permutation(np.flatnonzero(held.any(axis=0)))[: int(self.rng.integers(1, 4))]] = False
        else:
            for m, s in self.rng.permutation(np.argwhere(held))[: int(self.rng.integers(2, 5))]:
                held[m, s] = False
        for _ in range(int(self.rng.integers(1, 4))):
            free = np.argwhere(~held & (self.problem.spare_mib(held) >= self.problem.memory_mib[:, None] - EPS))
            if len(free):
                m, s = free[self.rng.integers(len(free))]
                held[m, s] = True
        return held

    def _moves(self, state: State) -> Iterator[Move]:
        """Yield the changes that may lower the cost; what does not fit comes with a replica that gives way."""
        p, spare = self.problem, self.problem.spare_mib(state.held)
        bounds = [Bounds(p, state, m) for m in range(len(state.held))]
        leave = {(step.model, step.drop): step for b in bounds for step in b.leaving(spare)}
        for step in chain.from_iterable(b.steps(self.near) for b in bounds):
            if step.add < 0 or spare[step.add] >= p.memory_mib[step.model] - EPS:
                if step.bound < -EPS:
                    yield (step,)
                continue
            there = [leave[int(m), step.add] for m in np.flatnonzero(state.held[:, step.add])]
            lacking = p.memory_mib[step.model] - spare[step.add] - EPS
            for gives in chain(combinations(there, 1), combinations(there, 2)):
                freed = sum(p.memory_mib[other.model] for other in gives)
                if freed >= lacking and step.bound + sum(other.bound for other in gives) < -EPS and _apart(gives):
                    yield step, *gives


def _apart(steps: Move) -> bool:
    """Return whether no two go to the same site."""
    to = [step.add for step in steps if step.add >= 0]
    return len(set(to)) == len(to)


def changed(held: Mask, moves: list[Move]) -> Mask:
    """Return the placement after some changes."""
    held = held.copy()
    for step in chain.from_iterable(moves):
        if step.drop >= 0:
            held[step.model, step.drop] = False
        if step.add >= 0:
            held[step.model, step.add] = True
    return held


class Bounds:
    """What changing the replicas of one model saves at most, at the prices of a state. Negative: it saves."""

    def __init__(self, problem: Problem, state: State, model: int) -> None:
        self.problem, self.model, self.held = problem, model, state.held[model]
        at = np.flatnonzero(problem.share[model])
        share, work = problem.share[model, at], problem.work[model, at]
        self.paid = problem.response_ms[model][:, at] * share + state.price[:, None] * work  # (S, O)
        self.here = np.flatnonzero(self.held)
        self.first, self.best, self.second = self._two_best(problem.unserved_ms * share)
        saved = np.maximum(self.best - self.paid, 0.0)
        alone = problem.missing_ms * (len(self.here) == 0)
        self.more = problem.fee[model] - saved.sum(axis=1) - alone  # (S,)
        slack = np.maximum(problem.capacity - loads(problem, state.flows), 0.0)
        asked = (saved > 0) @ work
        kept = np.where((state.price > 0) | (asked <= slack), 1.0, slack / np.maximum(asked, EPS))
        self.doubt = saved.sum(axis=1) * (1 - kept)  # saved only if the site had more to give

    def _two_best(self, unserved: Array) -> tuple[Whole, Array, Array]:
        """Return which of the replicas answers each demand (-1: none), at what cost, and at what without it."""
        rows = np.vstack([unserved, unserved, self.paid[self.here]])
        order = np.argsort(rows, axis=0, kind="stable")[:2]
        origins = np.arange(rows.shape[1])
        return np.maximum(order[0] - 2, -1), rows[order[0], origins], rows[order[1], origins]

    def less(self) -> Array:
        """Return what taking each replica away saves, (J,)."""
        lost = np.bincount(self.first + 1, self.second - self.best, len(self.here) + 1)[1:]
        alone = self.problem.missing_ms * (len(self.here) == 1)
        return np.asarray(lost - self.problem.fee[self.model, self.here] + alone)

    def other(self) -> Array:
        """Return what moving each replica to each site saves, (J, S)."""
        owned = (self.first == np.arange(len(self.here))[:, None]).astype(float)  # (J, O)
        without = np.clip(self.paid, self.best, self.second) - self.best
        lost = owned @ without.T
        return np.asarray(self.more + lost - self.problem.fee[self.model, self.here][:, None])

    def steps(self, near: int) -> Iterator[Step]:
        """Yield the most promising replicas less, more, and elsewhere."""
        for here, bound in zip(self.here, self.less(), strict=True):
            yield Step(float(bound), float(bound), self.model, int(here), -1)
        for s in _lowest(np.where(self.held, np.inf, self.more + self.doubt), near):
            yield Step(float(self.more[s]), float(self.more[s] + self.doubt[s]), self.model, -1, int(s))
        other = np.where(self.held, np.inf, self.other())
        for at in map(int, _lowest((other + self.doubt).ravel(), 4 * near)):
            j, to = divmod(at, len(self.held))
            saves = float(other[j, to])
            yield Step(saves, saves + float(self.doubt[to]), self.model, int(self.here[j]), to)

    def leaving(self, spare_mib: Array) -> Iterator[Step]:
        """Yield the best way for each replica to give way: to be no more, or to go where there is room."""
        fits = ~self.held & (spare_mib >= self.problem.memory_mib[self.model] - EPS)
        bound = np.where(fits, self.other(), np.inf)
        rank, less = bound + self.doubt, self.less()
        to, rows = rank.argmin(axis=1), np.arange(len(self.here))
        moves = rank[rows, to] < less
        ranks, bounds = np.where(moves, rank[rows, to], less), np.minimum(bound.min(axis=1), less)
        for j, here in enumerate(self.here.tolist()):
            yield Step(float(bounds[j]), float(ranks[j]), self.model, here, int(to[j]) if moves[j] else -1)


def _lowest(values: Array, count: int) -> Whole:
    """Return the places of the ``count`` lowest finite values, lowest first."""
    some = np.argpartition(values, count)[:count] if len(values) > count else np.arange(len(values))
    some = some[np.isfinite(values[some])]
    return some[np.argsort(values[some], kind="stable")]
