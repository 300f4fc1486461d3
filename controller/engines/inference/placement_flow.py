"""Who answers what, given where the replicas are: a transport problem.

The nearest replica of each demand is the best where no site is full; else a linear program says who answers what, and
what a unit of each full site's work is worth (its price).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.optimize import linprog
from scipy.sparse import csr_array

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
Whole = npt.NDArray[np.intp]

EPS = 1e-9
SMALL = 4_000  # pairs that are given to the linear program at once; of more, the cheapest few of each demand at first
FEW = 6


@dataclass(frozen=True)
class Problem:
    """A placement problem as arrays over models M, sites S and origins O.

    ``response_ms`` (M, S, O): way there and back and service, inf: no way; ``share`` (M, O): of all queries; ``work``
    (M, O): units per second; ``capacity`` (S,): units per second; ``fee`` (M, S): what a replica there costs.
    """

    response_ms: Array
    share: Array
    work: Array
    capacity: Array
    memory_mib: Array
    room_mib: Array
    fee: Array
    hosted: Mask
    unserved_ms: float
    missing_ms: float

    def fixed(self, held: Mask) -> float:
        """Return what the replicas themselves cost, with what is paid for models that have none."""
        return float(self.fee[held].sum()) + self.missing_ms * int((~held.any(axis=1)).sum())

    def spare_mib(self, held: Mask) -> Array:
        """Return the memory left at each site, (S,)."""
        return np.asarray(self.room_mib - self.memory_mib @ held)


class Flows(NamedTuple):
    """Who answers what, as parallel arrays; ``part``: of the demand of ``model`` at ``origin``, above 0."""

    model: Whole
    site: Whole
    origin: Whole
    part: Array


class State(NamedTuple):
    """Replicas ``held`` (M, S), the best ``flows`` for them, the cost of both, and the ``price`` of work (S,)."""

    held: Mask
    flows: Flows
    cost: float
    price: Array


def assign(problem: Problem, held: Mask) -> State:
    """Return the best assignment of the demands to the replicas."""
    flows = _nearest(problem, held)
    price = np.zeros(len(problem.capacity))
    if (loads(problem, flows) > problem.capacity * (1 + EPS)).any():
        flows, price = _transport(problem, held)
    return State(held, flows, problem.fixed(held) + _paid(problem, flows), price)


def loads(problem: Problem, flows: Flows) -> Array:
    """Return the work that each site is asked for, units per second, (S,)."""
    asked = flows.part * problem.work[flows.model, flows.origin]
    return np.asarray(np.bincount(flows.site, asked, len(problem.capacity)), dtype=float)


def _paid(problem: Problem, flows: Flows) -> float:
    saved = problem.unserved_ms - problem.response_ms[flows.model, flows.site, flows.origin]
    answered = flows.part * problem.share[flows.model, flows.origin]
    return problem.unserved_ms * float(problem.share.sum()) - float((answered * saved).sum())


def _nearest(problem: Problem, held: Mask) -> Flows:
    parts: list[tuple[Whole, Whole, Whole]] = []
    for m, row in enumerate(held):
        sites, origins = np.flatnonzero(row), np.flatnonzero(problem.share[m])
        if not len(sites) or not len(origins):
            continue
        asked = problem.response_ms[m][np.ix_(sites, origins)]
        best = asked.argmin(axis=0)
        able = asked[best, np.arange(len(origins))] < problem.unserved_ms
        parts.append((np.full(int(able.sum()), m), sites[best[able]], origins[able]))
    if not parts:
        none = np.zeros(0, dtype=np.intp)
        return Flows(none, none, none, np.zeros(0))
    model, site, origin = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Flows(model, site, origin, np.ones(len(model)))


def _transport(problem: Problem, held: Mask) -> tuple[Flows, Array]:
    """Return the best flows and the price of work at each site, by linear programming with columns as needed."""
    model, site, origin = _pairs(problem, held)
    saved = (problem.unserved_ms - problem.response_ms[model, site, origin]) * problem.share[model, origin]
    asked = problem.work[model, origin] / np.maximum(problem.capacity[site], EPS)
    demand = np.unique(model * problem.share.shape[1] + origin, return_inverse=True)[1]
    chosen = _cheapest(demand, saved) if len(saved) > SMALL else np.ones(len(saved), dtype=bool)
    while True:
        part, price, worth = _solve(saved[chosen], asked[chosen], demand[chosen], site[chosen], len(problem.capacity))
        lacking = ~chosen & (saved - price[site] * asked > worth[demand] + EPS)
        if not lacking.any():
            break
        chosen |= lacking
    keep = np.flatnonzero(chosen)[part > EPS]
    flows = Flows(model[keep], site[keep], origin[keep], part[part > EPS])
    return flows, price / np.maximum(problem.capacity, EPS)


def _pairs(problem: Problem, held: Mask) -> tuple[Whole, Whole, Whole]:
    """Return every (model, site, origin) where a replica can answer a demand."""
    model, site = np.nonzero(held)
    able = (problem.share[model] > 0) & (problem.response_ms[model, site] < problem.unserved_ms)
    able &= (problem.capacity[site] > 0)[:, None]
    pair, origin = np.nonzero(able)
    return model[pair], site[pair], origin


def _cheapest(demand: Whole, saved: Array) -> Mask:
    """Choose the ``FEW`` pairs of each demand that save most."""
    order = np.lexsort((-saved, demand))
    ranked = demand[order]
    first = np.searchsorted(ranked, ranked)
    chosen = np.zeros(len(saved), dtype=bool)
    chosen[order] = np.arange(len(saved)) - first < FEW
    return chosen


def _solve(saved: Array, asked: Array, demand: Whole, site: Whole, sites: int) -> tuple[Array, Array, Array]:
    """Return the part of each pair, the price of each site's whole work, and what each demand is worth."""
    columns, demands = np.arange(len(saved)), int(demand.max()) + 1
    rows = np.concatenate([demand, demands + site])
    entries = np.concatenate([np.ones(len(saved)), asked])
    matrix = csr_array((entries, (rows, np.tile(columns, 2))), shape=(demands + sites, len(saved)))
    found = linprog(-saved, A_ub=matrix, b_ub=np.ones(demands + sites), bounds=(0, None), method="highs")
    worth = -np.minimum(found.ineqlin.marginals, 0.0)
    return _within(found.x, matrix), worth[demands:], worth[:demands]


def _within(part: Array, matrix: csr_array) -> Array:
    """Take off what the solver's tolerance lets a row exceed."""
    part = np.maximum(part, 0.0)
    over = np.maximum(matrix @ part, 1.0)
    largest = matrix.copy()
    largest.data = np.repeat(over, np.diff(matrix.indptr))
    return np.asarray(part / largest.max(axis=0).toarray().ravel())


def relaxed(problem: Problem, least: Mask, most: Mask) -> Array:
    """Return the replicas, (M, S) in ``least``..``most``, of the best placement that may have parts of replicas."""
    models, sites = problem.hosted.shape
    model, site, origin = _pairs(problem, np.ones_like(problem.hosted))
    saved = (problem.unserved_ms - problem.response_ms[model, site, origin]) * problem.share[model, origin]
    demand = model * problem.share.shape[1] + origin
    asked = problem.work[model, origin] / np.maximum(problem.capacity[site], EPS)
    pairs, replicas = np.arange(len(saved)), len(saved) + np.arange(models * sites)
    of_model, of_site = np.divmod(np.arange(models * sites), sites)
    blocks = [  # rows, columns, entries, what each row may be at most
        (demand, pairs, np.ones(len(pairs)), np.ones(problem.share.size)),
        (site, pairs, asked, np.ones(sites)),
        (np.tile(pairs, 2), np.concatenate([pairs, replicas[model * sites + site]]), np.repeat([1.0, -1.0], len(pairs)),
         np.zeros(len(pairs))),
        (of_site, replicas, problem.memory_mib[of_model], problem.room_mib),
        (np.concatenate([of_model, np.arange(models)]), np.concatenate([replicas, len(saved) + models * sites
         + np.arange(models)]), np.full(models * (sites + 1), -1.0), np.full(models, -1.0)),
    ]  # fmt: skip
    limits = np.concatenate([block[3] for block in blocks])
    below = np.cumsum([0, *(len(block[3]) for block in blocks[:-1])])
    rows = np.concatenate([block[0] + offset for block, offset in zip(blocks, below, strict=True)])
    columns, entries = (np.concatenate([block[i] for block in blocks]) for i in (1, 2))
    cost = np.concatenate([-saved, problem.fee.ravel(), np.full(models, problem.missing_ms)])
    matrix = csr_array((entries, (rows, columns)), shape=(len(limits), len(cost)))
    bounds = np.tile([0.0, 1.0], (len(cost), 1))
    bounds[replicas] = np.stack([least.ravel(), most.ravel()], axis=1)
    found = linprog(cost, A_ub=matrix, b_ub=limits, bounds=bounds, method="highs")
    if found.x is None:
        return least.astype(float)
    return np.asarray(found.x[replicas].reshape(models, sites))
