"""MDO, the model deployment optimiser, where models go: replicas of each at which MDFPs, and who answers what.

Least mean response of all queries (way there and back, and service), plus a price for each replica kept and for each
brought in; within every site's memory and ``fullness`` of its speed. All prices are milliseconds of mean response, so
that a replica that saves less than it costs goes. A demand that cannot be answered is paid for dearly, and is told.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from controller.engines.inference.placement_flow import EPS, Array, Problem, State, Whole, assign, loads
from controller.engines.inference.placement_search import Search, dive, greedy
from controller.values.placement import Change, Demand, ModelNeed, Paths, Placement, PlacementSettings, Share, Site

MIB = 2**20
NEAREST = 24  # sites of each origin that are looked at closely where there are many
ROOM_FACTOR = 2.0  # the sites looked at closely have this many times the speed and memory that is asked for
SMALL = 10_000  # models x sites x origins; what is larger has one start and no kicks
FEW_PAIRS = 600  # replicas x origins; with more, a try takes longer, and there are fewer
DEFAULTS = PlacementSettings()


class Names(NamedTuple):
    """What the rows of a problem's arrays are called; ``rate_per_s`` is (M, O)."""

    models: list[ModelNeed]
    sites: list[Site]
    origins: list[str]
    rate_per_s: Array


def optimise(
    sites: Sequence[Site],
    models: Sequence[ModelNeed],
    demands: Sequence[Demand],
    path_ms: Paths,
    *,
    seed: int = 0,
    settings: PlacementSettings = DEFAULTS,
) -> Placement:
    """Return where replicas go and what share of each demand each answers; the same seed gives the same."""
    problem, names = lay_out(sites, models, demands, path_ms, settings)
    size = problem.response_ms.size
    if not size:
        return _told(problem, names, assign(problem, np.zeros_like(problem.hosted)))
    small = size <= SMALL
    starts = [greedy(problem, problem.hosted)]
    if small:
        starts += [greedy(problem, first) for first in (np.zeros_like(problem.hosted), dive(problem))]
    pairs = max(int(start.sum()) for start in starts) * problem.share.shape[1]
    tries = int(settings.tries * min(1.0, (FEW_PAIRS / max(pairs, 1)) ** 0.8))
    search = Search(problem, tries, np.random.default_rng(seed))
    return _told(problem, names, search.run(starts, settings.kicks if small else 0))


def lay_out(
    sites: Sequence[Site],
    models: Sequence[ModelNeed],
    demands: Sequence[Demand],
    path_ms: Paths,
    settings: PlacementSettings = DEFAULTS,
) -> tuple[Problem, Names]:
    """Return the problem as arrays, of the sites worth a close look, and the names of its rows."""
    origins = sorted({demand.origin for demand in demands if demand.rate_per_s > 0}) or [""]
    rate_per_s = _rates(models, demands, origins)
    ways_ms = np.stack([_row(path_ms.get(o, {}), sites) for o in origins])  # (O, S)
    chosen = _worth_a_look(sites, models, rate_per_s, ways_ms, settings)
    names = Names(list(models), [sites[i] for i in chosen], origins, rate_per_s)
    return _problem(names, ways_ms[:, chosen], settings), names


def _rates(models: Sequence[ModelNeed], demands: Sequence[Demand], origins: Sequence[str]) -> Array:
    row, column = {m.model: i for i, m in enumerate(models)}, {o: i for i, o in enumerate(origins)}
    rates = np.zeros((len(models), len(origins)))
    for demand in demands:
        if demand.rate_per_s > 0:
            rates[row[demand.model], column[demand.origin]] += demand.rate_per_s
    return rates


def _row(ways: object, sites: Sequence[Site]) -> Array:
    if isinstance(ways, Mapping):
        return np.array([ways.get(site.name, np.inf) for site in sites], dtype=float)
    return np.asarray(ways, dtype=float)


def _problem(names: Names, ways_ms: Array, settings: PlacementSettings) -> Problem:
    work = np.array([m.work for m in names.models])
    memory_mib = np.array([m.memory_mib for m in names.models])
    mib = np.array([m.size_bytes for m in names.models]) / MIB
    speed = np.array([s.speed for s in names.sites])
    hosted = np.array([[m.model in s.hosts for s in names.sites] for m in names.models], dtype=bool)
    hosted = hosted.reshape(len(names.models), len(names.sites))
    total = float(names.rate_per_s.sum()) or 1.0
    with np.errstate(divide="ignore", invalid="ignore"):
        service_ms = np.where(speed > 0, 1000.0 * work[:, None] / speed, np.inf)
    response_ms = 2 * ways_ms.T[None] + service_ms[:, :, None]
    return Problem(
        response_ms=np.where(response_ms < settings.unserved_ms, response_ms, np.inf),
        share=names.rate_per_s / total,
        work=names.rate_per_s * work[:, None],
        capacity=settings.fullness * speed,
        memory_mib=memory_mib,
        room_mib=np.array([s.memory_mib for s in names.sites]) + memory_mib @ hosted,
        fee=settings.replica_ms + (settings.copy_ms + settings.copy_ms_per_mib * mib[:, None]) * ~hosted,
        hosted=hosted,
        unserved_ms=settings.unserved_ms,
        missing_ms=settings.missing_ms,
    )


def _worth_a_look(
    sites: Sequence[Site], models: Sequence[ModelNeed], rate_per_s: Array, ways_ms: Array, settings: PlacementSettings
) -> Whole:
    """Return the sites to look at: those that host, then each origin's best, until they have room enough to choose."""
    if len(sites) <= settings.max_sites or not rate_per_s.any():
        return np.arange(len(sites))
    work = np.array([m.work for m in models]) @ rate_per_s  # (O,)
    speed, memory = np.array([s.speed for s in sites]), np.array([s.memory_mib for s in sites])
    hosting = np.array([bool(s.hosts) for s in sites])
    per_query = float(work.sum() / rate_per_s.sum())
    near_ms = 2 * ways_ms + 1000 * per_query / np.maximum(speed, EPS)  # (O, S)
    order = np.argpartition(near_ms, min(NEAREST, len(sites) - 1), axis=1)[:, :NEAREST]
    rank = np.full(len(sites), np.inf)
    best = np.take_along_axis(near_ms, order, axis=1)
    np.minimum.at(rank, order, np.argsort(np.argsort(best, axis=1), axis=1).astype(float))
    mean_ms = work @ np.where(np.isfinite(near_ms), near_ms, settings.unserved_ms)
    ordered = np.lexsort((mean_ms, rank, ~hosting))
    needed = ROOM_FACTOR * np.array([work.sum() / settings.fullness, sum(m.memory_mib for m in models)])
    had = np.cumsum(np.stack([speed[ordered], memory[ordered]]), axis=1)
    enough = int(np.argmax((had >= needed[:, None]).all(axis=0))) if (had[:, -1] >= needed).all() else len(sites)
    return np.sort(ordered[: max(settings.max_sites, enough + 1)])


# --- the answer, with reasons ----------------------------------------------------------------------------------------


def _told(problem: Problem, names: Names, state: State) -> Placement:
    shares, unserved = _shares(names, state)
    left = problem.unserved_ms * sum(s.rate_per_s for s in unserved) / (float(names.rate_per_s.sum()) or 1.0)
    answered = 1.0 - left / problem.unserved_ms
    response_ms = (state.cost - problem.fixed(state.held) - left) / answered if shares else 0.0
    return Placement(
        replicas={
            need.model: [names.sites[s].name for s in np.flatnonzero(state.held[m])]
            for m, need in enumerate(names.models)
        },
        shares=shares,
        unserved=unserved,
        changes=_Reasons(problem, names, state).changes(),
        cost_ms=state.cost,
        response_ms=response_ms,
    )


def _shares(names: Names, state: State) -> tuple[list[Share], list[Share]]:
    left, shares = names.rate_per_s.copy(), []
    for m, s, o, part in zip(*state.flows, strict=True):
        rate = float(part * names.rate_per_s[m, o])
        left[m, o] -= rate
        shares.append(_share(names, m, o, names.sites[s].name, rate))
    lacking = np.argwhere(left > 1e-6 * np.maximum(names.rate_per_s, EPS))
    return shares, [_share(names, m, o, "", float(left[m, o])) for m, o in lacking]


def _share(names: Names, model: int, origin: int, site: str, rate_per_s: float) -> Share:
    return Share(model=names.models[model].model, origin=names.origins[origin], site=site, rate_per_s=rate_per_s)


class _Reasons:
    """What changes against what is hosted now, and why."""

    def __init__(self, problem: Problem, names: Names, state: State) -> None:
        self.problem, self.names, self.state = problem, names, state
        self.slack = problem.capacity - loads(problem, state.flows)
        self.spare_mib = problem.spare_mib(state.held)

    def changes(self) -> list[Change]:
        """Return the additions, moves and removals, model by model."""
        return [change for m in range(len(self.names.models)) for change in self._of(m)]

    def _of(self, m: int) -> list[Change]:
        new = np.flatnonzero(self.state.held[m] & ~self.problem.hosted[m])
        gone = np.flatnonzero(self.problem.hosted[m] & ~self.state.held[m])
        moved = min(len(new), len(gone))
        need = self.names.models[m]
        made = [
            Change(
                kind="move" if i < moved else "add",
                model=need.model,
                site=self.names.sites[s].name,
                source=self.names.sites[gone[i]].name if i < moved else "",
                size_bytes=need.size_bytes,
                reason=self._why_there(m, int(s)) + (f"; {self._why_gone(m, int(gone[i]))}" if i < moved else ""),
            )
            for i, s in enumerate(new)
        ]
        return made + [
            Change(kind="remove", model=need.model, site=self.names.sites[s].name, reason=self._why_gone(m, int(s)))
            for s in gone[moved:]
        ]

    def _why_there(self, m: int, s: int) -> str:
        """Say what a new replica answers, and what these queries would get without it."""
        flows, rate = self.state.flows, self.names.rate_per_s
        mine = (flows.model == m) & (flows.site == s)
        if not mine.any():
            return f"{self.names.models[m].model} shall be somewhere, and {self.names.sites[s].name} has room"
        at, part = flows.origin[mine], flows.part[mine]
        asked = part * rate[m, at]
        here_ms = float(asked @ self.problem.response_ms[m, s, at] / asked.sum())
        others = self.state.held[m] & (np.arange(len(self.slack)) != s)
        near_ms = self.problem.response_ms[m][np.ix_(others, at)].min(axis=0, initial=np.inf)
        text = f"answers {asked.sum():.3g} of {rate[m].sum():.3g} queries/s ({_some(self.names.origins, at)})"
        if not np.isfinite(near_ms).all():
            return f"{text}, some of which no other replica could answer"
        other_ms = float(asked @ near_ms / asked.sum())
        if other_ms <= here_ms:
            return f"{text}, which is more than the nearer replicas can take"
        return f"{text} in {here_ms:.1f} ms; from the next replica {other_ms:.1f} ms"

    def _why_gone(self, m: int, s: int) -> str:
        """Say why a replica that is hosted now is not kept."""
        name, need = self.names.sites[s].name, self.names.models[m]
        if not self.problem.share[m].any():
            return f"at {name}: nobody asks for {need.model}"
        saved = self._kept_saves_ms(m, s)
        if saved <= self.problem.fee[m, s] + EPS:
            return f"at {name}: would save {saved:.2f} ms of mean response, costs {self.problem.fee[m, s]:.2f} ms"
        if self.spare_mib[s] < need.memory_mib:
            there = [self.names.models[i].model for i in np.flatnonzero(self.state.held[:, s])]
            return f"at {name}: its memory is worth more to {', '.join(there) or 'what else is there'}"
        return f"at {name}: its queries are answered better elsewhere"

    def _kept_saves_ms(self, m: int, s: int) -> float:
        p = self.problem
        here = p.response_ms[m][self.state.held[m]].min(axis=0, initial=p.unserved_ms)  # (O,)
        saving = np.maximum(here - p.response_ms[m, s], 0.0)
        asked = float((saving > 0) @ p.work[m])
        return float(saving @ p.share[m]) * min(1.0, max(float(self.slack[s]), 0.0) / max(asked, EPS))


def _some(origins: Sequence[str], at: Whole) -> str:
    """Name up to three origins."""
    names = [origins[o] for o in at[:3]]
    return ", ".join(names) + (f" and {len(at) - 3} more" if len(at) > 3 else "")
