"""How good is MDO's placement, and how far does it scale?  Against the exact optimum by OR-tools, and at 10,000 sites.

    python -m benchmarks.mdo                             # about three minutes on one core
    python -m benchmarks.mdo --instances 10 --first-seed 500

*Gap*: cost of the placement over the least cost of any, less 1. The least cost is that of a mixed-integer program over
the same arrays (a replica is there or not, flows are continuous), solved by SCIP to a relative 1e-6. Instances: 4-12
sites on a plane, 2-6 models, 3-8 origins, 20-90 % of the speed that may be asked for, memory for 1.2-3
replicas of each model (and for one of the largest at a typical site); a third of the sites host models already; seeded.

*Greedy*: the naive baseline: each model at the site nearest to its demand that has room, one replica after another as
long as demand is left; the flows are then as good as they can be.

Larger: 40 sites, 8 models, 15 origins, against the lower bound that SCIP proves in half a minute (so that the gap told
is at least the true one).

Scale: 10,000 sites, 20 models, 200 origins, demand for 0.3, 3 and 12 % of the speed that may be asked for; the whole
``optimise`` from values to the answer. ``s_10k`` is the longest of the three. No optimum is known there, only greedy.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from ortools.linear_solver import pywraplp  # type: ignore[import-untyped]

from benchmarks.common import finish, run_main, say
from controller.engines.inference.placement import lay_out, optimise
from controller.engines.inference.placement_flow import Mask, Problem, assign
from controller.values.placement import Demand, ModelNeed, Site

LAST_TUNED, UNSEEN = 50, 1001
EXACT_S = 120.0


class Instance(NamedTuple):
    """A placement problem as ``optimise`` takes it."""

    sites: list[Site]
    models: list[ModelNeed]
    demands: list[Demand]
    path_ms: dict[str, list[float]]


def small(seed: int) -> Instance:
    """Return a random instance that can be solved exactly; the same seed gives the same."""
    rng = np.random.default_rng([seed, 41])
    sites, models, origins = int(rng.integers(4, 13)), int(rng.integers(2, 7)), int(rng.integers(3, 9))
    return instance(rng, sites, models, origins, load=float(rng.uniform(0.2, 0.9)), room=float(rng.uniform(1.2, 3.0)))


def large(sites: int, load: float) -> Instance:
    """Return one instance of many sites: 20 models, 200 origins."""
    return instance(np.random.default_rng([sites, 43]), sites, 20, 200, load=load, room=6.0)


def medium(seed: int) -> Instance:
    """Return an instance of 40 sites, 8 models, 15 origins."""
    rng = np.random.default_rng([seed, 42])
    return instance(rng, 40, 8, 15, load=float(rng.uniform(0.1, 0.5)), room=float(rng.uniform(2.0, 5.0)))


def instance(rng: np.random.Generator, sites: int, models: int, origins: int, load: float, room: float) -> Instance:
    """Draw an instance. ``load``: share of the work that may be; ``room``: memory of all per one of each model."""
    needs = [
        ModelNeed(
            model=f"m{i}",
            memory_mib=float(rng.uniform(50, 400)),
            work=float(rng.uniform(0.5, 3)),
            size_bytes=int(rng.uniform(10, 80) * 2**20),
        )
        for i in range(models)
    ]
    whole_mib = max(room * sum(n.memory_mib for n in needs) / min(sites, 12), 410.0)
    speed = rng.uniform(50, 400, sites)
    memory = np.maximum(whole_mib * rng.uniform(0.5, 1.5, sites), 60.0)
    hosts = [_hosts(rng, needs, float(m)) if rng.random() < 1 / 3 and sites <= 100 else [] for m in memory]
    taken = [sum(n.memory_mib for n in needs if n.model in h) for h in hosts]
    placed = [
        Site(name=f"s{i}", memory_mib=float(memory[i]) - taken[i], speed=float(speed[i]), hosts=hosts[i])
        for i in range(sites)
    ]
    weight = rng.lognormal(0, 1, (models, origins)) * (rng.random((models, origins)) < 0.7)
    weight[0, 0] += 0.1
    work = np.array([n.work for n in needs])
    rates = weight * load * 0.8 * speed.sum() / float(work @ weight.sum(axis=1))
    demands = [Demand(model=f"m{m}", origin=f"o{o}", rate_per_s=float(rates[m, o])) for m, o in np.argwhere(weight > 0)]
    here, there = rng.random((origins, 2)), rng.random((sites, 2))
    ways = 1 + 40 * np.linalg.norm(here[:, None] - there[None], axis=2)
    return Instance(placed, needs, demands, {f"o{o}": row.tolist() for o, row in enumerate(ways)})


def _hosts(rng: np.random.Generator, needs: Sequence[ModelNeed], memory_mib: float) -> list[str]:
    """Draw models until one does not fit."""
    hosts: list[str] = []
    for i in rng.permutation(len(needs))[: int(rng.integers(1, 4))]:
        memory_mib -= needs[i].memory_mib
        if memory_mib < 0:
            break
        hosts.append(needs[i].model)
    return hosts


# --- the exact optimum and the naive baseline ------------------------------------------------------------------------


def exact(problem: Problem, limit_s: float = EXACT_S) -> tuple[float, float]:
    """Return the least cost of any placement, and the solver's lower bound, by mixed-integer programming."""
    solver = pywraplp.Solver.CreateSolver("SCIP")
    solver.SetTimeLimit(int(1000 * limit_s))
    models, sites = problem.hosted.shape
    held = [[solver.BoolVar("") for _ in range(sites)] for _ in range(models)]
    absent = [solver.NumVar(0, 1, "") for _ in range(models)]
    cost = problem.unserved_ms * float(problem.share.sum()) + problem.missing_ms * solver.Sum(absent)
    cost += solver.Sum(problem.fee[m, s] * held[m][s] for m in range(models) for s in range(sites))
    asked: list[list[Any]] = [[] for _ in range(sites)]
    for m in range(models):
        solver.Add(absent[m] + solver.Sum(held[m]) >= 1)
        for o in np.flatnonzero(problem.share[m]):
            able = np.flatnonzero(np.isfinite(problem.response_ms[m, :, o]))
            flows = {int(s): solver.NumVar(0, 1, "") for s in able}
            solver.Add(solver.Sum(flows.values()) <= 1)
            for s, flow in flows.items():
                solver.Add(flow <= held[m][s])
                asked[s].append(float(problem.work[m, o] / problem.capacity[s]) * flow)
                saved = float(problem.share[m, o] * (problem.unserved_ms - problem.response_ms[m, s, o]))
                cost -= saved * flow
    for s in range(sites):
        solver.Add(solver.Sum(asked[s]) <= 1)
        memory = solver.Sum(float(problem.memory_mib[m]) * held[m][s] for m in range(models))
        solver.Add(memory <= float(problem.room_mib[s]) + 1e-6)
    solver.Minimize(cost)
    parameters = pywraplp.MPSolverParameters()
    parameters.SetDoubleParam(parameters.RELATIVE_MIP_GAP, 1e-6)
    if solver.Solve(parameters) not in (pywraplp.Solver.OPTIMAL, pywraplp.Solver.FEASIBLE):
        return np.nan, np.nan
    found = np.array([[v.solution_value() > 0.5 for v in row] for row in held], dtype=bool)
    return assign(problem, found).cost, solver.Objective().BestBound()


def naive(problem: Problem) -> Mask:
    """Put each model at the site nearest to its demand that has room, and once more while demand is left."""
    held = np.zeros_like(problem.hosted)
    for m in np.argsort(-problem.work.sum(axis=1), kind="stable"):
        left = max(float(problem.work[m].sum()), 1e-9)
        far_ms = np.minimum(problem.response_ms[m], problem.unserved_ms) @ problem.share[m]
        for s in np.argsort(far_ms, kind="stable"):
            busy = float(sum(problem.work[i].sum() / held[i].sum() for i in np.flatnonzero(held[:, s])))
            spare = float(problem.capacity[s]) - busy
            if left <= 0 or spare <= 0 or problem.spare_mib(held)[s] < problem.memory_mib[m]:
                continue
            held[m, s] = True
            left -= spare
    return held


def gaps(first_seed: int, count: int) -> dict[str, Any]:
    """Compare the placement with the exact optimum on ``count`` random instances."""
    ours, theirs, spent_s, exact_s, proved, lacking = [], [], [], [], 0, 0
    for seed in range(first_seed, first_seed + count):
        drawn = small(seed)
        problem, _ = lay_out(*drawn)
        begun = time.perf_counter()
        placed = optimise(*drawn, seed=seed)
        between = time.perf_counter()
        least, bound = exact(problem)
        spent_s.append(between - begun)
        exact_s.append(time.perf_counter() - between)
        proved += least - bound <= 1e-4 * max(abs(least), 1.0)
        lacking += bool(placed.unserved)
        ours.append(placed.cost_ms / least - 1)
        theirs.append(assign(problem, naive(problem)).cost / least - 1)
        shape = "x".join(map(str, problem.response_ms.shape))
        say(
            f"seed {seed}: {shape}, cost {placed.cost_ms:.3f} ms, least {least:.3f} (bound {bound:.3f}), gap "
            f"{ours[-1]:.5f}, greedy {theirs[-1]:.3f}; {spent_s[-1]:.2f} s, exact {exact_s[-1]:.2f} s"
        )
    name = "tuned on" if first_seed <= LAST_TUNED else "not tuned on"
    say(f"{name}: mean gap {statistics.fmean(ours):.5f}, worst {max(ours):.5f}, at the optimum {_optimal(ours)}")
    return {
        "instances": count,
        "seeds": f"{first_seed}-{first_seed + count - 1}",
        "gap_mean": round(statistics.fmean(ours), 5),
        "gap_worst": round(max(ours), 5),
        "optimal_share": round(_optimal(ours) / count, 3),
        "gap_mean_greedy": round(statistics.fmean(theirs), 4),
        "gap_median_greedy": round(statistics.median(theirs), 4),
        "optimise_s_mean": round(statistics.fmean(spent_s), 3),
        "exact_s_mean": round(statistics.fmean(exact_s), 3),
        "exact_proved": int(proved),
        "with_unserved": lacking,
    }


def _optimal(found: Sequence[float]) -> int:
    return sum(gap < 1e-5 for gap in found)


# --- scale -----------------------------------------------------------------------------------------------------------


LOADS = {"light": 0.003, "middle": 0.03, "heavy": 0.12}


def larger(count: int, limit_s: float = 30.0) -> dict[str, Any]:
    """Compare with what SCIP proves, and finds, within ``limit_s``, on ``count`` instances of 40 sites."""
    ours, theirs, spent_s = [], [], []
    for seed in range(count):
        drawn = medium(seed)
        problem, _ = lay_out(*drawn)
        begun = time.perf_counter()
        cost_ms = optimise(*drawn, seed=seed).cost_ms
        spent_s.append(time.perf_counter() - begun)
        least, bound = exact(problem, limit_s)
        ours.append(cost_ms / bound - 1)
        theirs.append(least / bound - 1)
        say(
            f"40 sites, seed {seed}: {spent_s[-1]:.2f} s, cost {cost_ms:.3f} ms, SCIP {least:.3f} (bound {bound:.3f}), "
            f"gap to the bound {ours[-1]:.5f}, SCIP's {theirs[-1]:.5f}"
        )
    return {
        "larger_instances": count,
        "larger_gap_to_bound_mean": round(statistics.fmean(ours), 5),
        "larger_gap_to_bound_scip": round(statistics.fmean(theirs), 5),
        "larger_s_mean": round(statistics.fmean(spent_s), 2),
    }


def scale(sites: int = 10_000) -> dict[str, Any]:
    """Time ``optimise`` at many sites, with light, middling and heavy demand."""
    found: dict[str, Any] = {}
    for name, load in LOADS.items():
        drawn = large(sites, load)
        begun = time.perf_counter()
        placed = optimise(*drawn)
        spent_s = time.perf_counter() - begun
        problem, _ = lay_out(*drawn)
        naive_ms = assign(problem, naive(problem)).cost
        replicas = sum(map(len, placed.replicas.values()))
        say(
            f"{sites} sites, {name}: {spent_s:.2f} s; {replicas} replicas, cost {placed.cost_ms:.2f} ms, response "
            f"{placed.response_ms:.2f} ms, greedy's cost {naive_ms:.2f}, unserved demands {len(placed.unserved)}"
        )
        found |= {
            f"s_10k_{name}": round(spent_s, 2),
            f"replicas_10k_{name}": replicas,
            f"cost_ms_10k_{name}": round(placed.cost_ms, 2),
            f"cost_ms_10k_{name}_greedy": round(naive_ms, 2),
            f"unserved_10k_{name}": len(placed.unserved),
        }
    return {"s_10k": max(found[f"s_10k_{name}"] for name in LOADS), **found}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run all parts; the last line is one JSON object."""
    parser = argparse.ArgumentParser(prog="benchmarks.mdo", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--instances", type=int, default=50, help="random instances against the exact optimum")
    parser.add_argument("--first-seed", type=int, default=1, help="the first instance's seed; 1 to 50 were tuned on")
    parser.add_argument("--no-scale", action="store_true", help="leave 40 and 10,000 sites out")
    options = parser.parse_args(arguments)
    result: dict[str, Any] = {"bench": "mdo", **gaps(options.first_seed, options.instances)}
    if options.first_seed < UNSEEN:
        unseen = gaps(UNSEEN, options.instances)
        result |= {f"{key}_unseen": value for key, value in unseen.items() if key != "instances"}
    if not options.no_scale:
        result |= larger(4) | scale()
    finish(result)
    return 0


if __name__ == "__main__":
    run_main(main)
