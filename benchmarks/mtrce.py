"""How good is MTRCE, and how far does it scale?  Against exact search, against OR-tools, and up to 100,000 options.

    make bench-mtrce                                     # about two minutes on one core
    python -m benchmarks.mtrce --instances 20 --no-ortools

*Loss* of a route: what it lacks to the best that any route could be worth (all targets met with room to spare, in no
time); it counts missing accuracy, missing room, visits and seconds, as the planner does. *Gap*: loss over the
least loss of all routes, less 1. ``exact.best_route`` finds that least loss by branch and bound over every order of up
to nine visits among up to nine nodes. Instances: 5-9 nodes, 4-8 groups, Dirichlet 0.1-0.3, random sizes, speeds,
reachability windows, targets, budgets and deadlines; seeded.

Scale: options with random mixes, one process for each size (so that its peak memory is its own), the whole ``plan``
from option objects to the answer; the exponent is fitted over the sizes in log-log.

OR-tools: CP-SAT cannot express the prediction (exponentials of what came before), so it is given the nearest that it
can: which option on which place of the route, each group's learning capped, decayed by the visits after it, less the
same prices for visits and seconds. Its route is then judged by the real prediction, like MTRCE's. It gets the time that
MTRCE took, and once more ten seconds.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.common import PROJECT, finish, python, run_main, say
from controller.engines.routing import canvas as drawn
from controller.engines.routing import exact, forgetting, learned, mtrce
from controller.engines.routing.canvas import Canvas
from controller.engines.routing.polish import walk
from controller.engines.routing.routes import MAX_OPTIONS, routes, shortlist
from controller.engines.training import hpo
from controller.values.decisions import JobView, Option, Request

SIZES = (1_000, 10_000, 100_000)
CHILD_TIMEOUT_S = 120.0
CP_SCALE = 10_000


def instance(seed: int, nodes: tuple[int, int] = (5, 9)) -> tuple[Request, list[Option]]:
    """Return a random request and its options; the same seed gives the same."""
    rng = np.random.default_rng([seed, 78])
    count, width = int(rng.integers(nodes[0], nodes[1] + 1)), int(rng.integers(4, 9))
    groups = [f"g{i}" for i in range(width)]
    alpha = float(rng.choice([0.1, 0.15, 0.2, 0.3]))
    options = [_option(i, groups, alpha, rng) for i in range(count)]
    request = Request(
        task="t",
        groups=groups,
        broad_accuracy=float(rng.uniform(0.7, 0.92)),
        expert_group="g0" if rng.random() < 0.7 else None,
        expert_accuracy=float(rng.uniform(0.8, 0.97)),
        max_visits=int(rng.integers(5, 10)),
        deadline_s=float(rng.uniform(60, 170)),
        model_bytes=10**6,
    )
    return request, options


def _option(number: int, groups: list[str], alpha: float, rng: np.random.Generator) -> Option:
    return Option(
        kas=1 + number % 4,
        handle=f"{number:06}",
        mix=dict(zip(groups, rng.dirichlet(np.full(len(groups), alpha)).tolist(), strict=True)),
        samples=int(rng.integers(100, 1500)),
        epoch_s=float(rng.uniform(0.1, 4)),
        reach_s=float(rng.uniform(0.05, 3)),
        quality=float(rng.uniform(0.85, 0.97)),
        trust=0.9,
        available_s=float(rng.choice([np.inf, np.inf, rng.uniform(10, 80)])),
    )


def canvas_of(request: Request, options: Sequence[Option]) -> Canvas:
    """Lay an instance out as the planner does before its first visit."""
    usable = mtrce._usable(request, JobView(), options, None)
    return drawn.draw(request, [], usable, usable, request.deadline_s)


def loss_of(canvas: Canvas, picks: Sequence[int]) -> float:
    """Return the loss of a route (infinite when it cannot be kept in time)."""
    walked = walk(canvas, forgetting.blank(len(canvas.request.groups)), [tuple(picks)])
    return drawn.best_worth(canvas) - float(walked.worth[0])


# --- against exact search --------------------------------------------------------------------------------------------


def gaps(count: int) -> dict[str, Any]:
    """Compare the planner with exact search on ``count`` random instances."""
    found: list[float] = []
    by_learning: list[float] = []
    plan_s = exact_s = learn_s = 0.0
    seed = 0
    while len(found) < count:
        request, options = instance(seed)
        seed += 1
        try:
            canvas = canvas_of(request, options)
        except mtrce.NoRoute:
            continue
        start, every = forgetting.blank(len(request.groups)), range(len(canvas.offers))
        begun = time.perf_counter()
        planned = routes(canvas, start, every, request.max_visits)[0]
        between = time.perf_counter()
        best = exact.best_route(canvas, start, every, request.max_visits)
        after = time.perf_counter()
        tried = learned.routes(canvas, start, every, request.max_visits, JobView())[0]
        learn_s += time.perf_counter() - after
        plan_s, exact_s = plan_s + between - begun, exact_s + after - between
        assert best is not None
        top = drawn.best_worth(canvas)
        found.append((top - planned.worth) / (top - best.worth) - 1)
        by_learning.append((top - tried.worth) / (top - best.worth) - 1)
    say(f"exact: {count} instances, mean gap {statistics.fmean(found):.5f}, worst {max(found):.5f}")
    say(f"learned: mean gap {statistics.fmean(by_learning):.5f}, worst {max(by_learning):.5f}")
    return {
        "instances": count,
        "gap_mean": round(statistics.fmean(found), 5),
        "gap_worst": round(max(found), 5),
        "optimal_share": round(sum(g < 1e-6 for g in found) / count, 3),
        "plan_ms_mean": round(1e3 * plan_s / count, 1),
        "exact_ms_mean": round(1e3 * exact_s / count, 1),
        "gap_learned_mean": round(statistics.fmean(by_learning), 5),
        "gap_learned_worst": round(max(by_learning), 5),
        "learned_ms_mean": round(1e3 * learn_s / count, 1),
    }


# --- scale -----------------------------------------------------------------------------------------------------------


def one_size(count: int) -> dict[str, float]:
    """Plan once among ``count`` options; seconds and peak memory of this process."""
    rng = np.random.default_rng([count, 5])
    groups = [f"g{i}" for i in range(8)]
    options = [_option(i, groups, 0.15, rng) for i in range(count)]
    request = Request(
        task="t", groups=groups, broad_accuracy=0.9, expert_group="g0", expert_accuracy=0.95, model_bytes=10**6
    )
    begun = time.perf_counter()
    plan = mtrce.plan(request, JobView(), options)
    spent_s = time.perf_counter() - begun
    rss_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"seconds": round(spent_s, 3), "rss_mib": round(rss_mib, 1), "visits": len(plan.steps)}


def scale() -> dict[str, Any]:
    """Return time, memory and growth exponent over ``SIZES``."""
    found: dict[int, dict[str, float]] = {}
    for size in SIZES:
        child = python("benchmarks.mtrce", "--one-size", str(size))
        done = subprocess.run(child, capture_output=True, text=True, timeout=CHILD_TIMEOUT_S, check=True, cwd=PROJECT)
        found[size] = json.loads(done.stdout.strip().splitlines()[-1])
        say(f"{size:>7} options: {found[size]['seconds']:.2f} s, {found[size]['rss_mib']:.0f} MiB")
    seconds = [found[size]["seconds"] for size in SIZES]
    exponent = float(np.polyfit(np.log(SIZES), np.log(seconds), 1)[0])
    steepest = float(np.log(seconds[-1] / seconds[-2]) / np.log(SIZES[-1] / SIZES[-2]))
    return {
        "s_1k": seconds[0],
        "s_10k": seconds[1],
        "s_100k": seconds[2],
        "rss_mib_100k": found[SIZES[-1]]["rss_mib"],
        "exponent": round(exponent, 3),
        "exponent_last_decade": round(steepest, 3),
    }


def shortlist_gaps(count: int = 12, options: int = 400) -> dict[str, float]:
    """What leaving most options out costs: planned among the shortlist against planned among all."""
    found = []
    for seed in range(count):
        request, offered = instance(1000 + seed, (options, options))
        full = canvas_of(request, offered)
        start = forgetting.blank(len(request.groups))
        few, _ = shortlist(full, start, range(len(full.offers)), request.max_visits)
        losses = [
            drawn.best_worth(c) - routes(c, start, range(len(c.offers)), request.max_visits)[0].worth
            for c in (few, full)
        ]
        found.append(losses[0] / losses[1] - 1)
    say(f"shortlist: {MAX_OPTIONS} of {options} options, mean gap {statistics.fmean(found):.5f}")
    return {"shortlist_gap_mean": round(statistics.fmean(found), 5), "shortlist_gap_worst": round(max(found), 5)}


# --- against OR-tools ------------------------------------------------------------------------------------------------


def against_ortools(count: int = 8, nodes: int = 50, long_s: float = 10.0) -> dict[str, Any]:
    """Compare mean losses at ``nodes`` options: MTRCE, CP-SAT in the same time, CP-SAT in ``long_s``."""
    rows: list[list[float]] = []
    for seed in range(count):
        request, options = instance(2000 + seed, (nodes, nodes))
        canvas = canvas_of(request, options)
        start = forgetting.blank(len(request.groups))
        begun = time.perf_counter()
        planned = routes(canvas, start, range(len(canvas.offers)), request.max_visits)[0]
        spent_s = time.perf_counter() - begun
        ours = drawn.best_worth(canvas) - planned.worth
        theirs = [loss_of(canvas, cp_sat(canvas, limit_s)) for limit_s in (max(spent_s, 0.05), long_s)]
        rows.append([spent_s, ours, *theirs])
        say(f"{nodes} nodes, seed {seed}: {spent_s:.2f} s; loss {ours:.4f}, CP-SAT {theirs[0]:.4f}, {theirs[1]:.4f}")
    means = [float(np.mean(column)) for column in zip(*rows, strict=True)]
    return {
        "ortools_nodes": nodes,
        "ortools_instances": count,
        "mtrce_s": round(means[0], 3),
        "mtrce_loss": round(means[1], 4),
        "ortools_loss_same_time": round(means[2], 4),
        f"ortools_loss_{long_s:.0f}_s": round(means[3], 4),
        "mtrce_better_or_equal": sum(r[1] <= r[2] + 1e-9 for r in rows),
    }


def cp_sat(canvas: Canvas, limit_s: float) -> list[int]:
    """Return the route that CP-SAT finds for the linear stand-in of the prediction."""
    from ortools.sat.python import cp_model

    model = cp_model.CpModel()
    places, offers = range(canvas.request.max_visits), range(len(canvas.offers))
    chosen = [[model.new_bool_var(f"x{p}_{o}") for o in offers] for p in places]
    used = [sum(row) for row in chosen]
    seconds = [[0 if not np.isfinite(c) else int(100 * c) for c in canvas.cost_s.min(axis=1)]] * len(chosen)
    for p in places:
        model.add(used[p] <= (1 if p == 0 else used[p - 1]))
        for o in offers:
            if p:
                model.add(chosen[p][o] + chosen[p - 1][o] <= 1)
            latest = int(100 * min(canvas.until_s[o].max(), 1e6))
            before = sum(chosen[q][i] * seconds[q][i] for q in range(p + 1) for i in offers)
            model.add(before <= latest).only_enforce_if(chosen[p][o])
    gain = _cp_gain(model, canvas, chosen)
    price = int(CP_SCALE * drawn.VISIT_COST)
    per_s = CP_SCALE * drawn.TIME_WEIGHT / canvas.request.deadline_s / 100
    spent = sum(chosen[p][o] * int(per_s * seconds[p][o]) for p in places for o in offers)
    model.add(used[0] == 1)
    model.maximize(gain - price * sum(used) - spent)
    solver = cp_model.CpSolver()
    solver.parameters.max_time_in_seconds = limit_s
    solver.parameters.num_workers = 1
    solver.parameters.random_seed = 1
    if solver.solve(model) not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        return [int(canvas.met.sum(axis=1).argmax())]
    return [o for p in places for o in offers if solver.boolean_value(chosen[p][o])]


def _cp_gain(model: Any, canvas: Canvas, chosen: list[list[Any]]) -> Any:
    """Add each group's skill: what was learned of it, kept over the visits after it, up to its ceiling; the goals' way.

    What one place teaches counts in full on the last two places and less before, as repeated teaching protects it.
    """
    share, ceiling, last = canvas.share, canvas.ceiling, len(chosen) - 1
    goal_broad, goal_expert = canvas.goals
    skills = []
    for g in range(len(share)):
        taught = []
        for p, row in enumerate(chosen):
            kept = 0.85 ** max(0, last - p)
            pace = hpo.pace(canvas.done + p) ** forgetting.LEARN_PACE
            once = ceiling[g] * (1 - np.exp(-((canvas.met[:, g] * pace / forgetting.SAMPLES_TO_LEARN) ** 1.27)))
            taught += [x * int(CP_SCALE * kept * once[o]) for o, x in enumerate(row)]
        skill = model.new_int_var(0, int(CP_SCALE * ceiling[g]), f"skill{g}")
        model.add(skill <= sum(taught))
        skills.append(skill)
    broad = sum(s * round(1000 * share[g]) for g, s in enumerate(skills))
    capped = model.new_int_var(0, int(1000 * CP_SCALE * (goal_broad + drawn.ENOUGH_ROOM)), "broad")
    model.add(capped <= broad)
    near = model.new_int_var(0, 2 * CP_SCALE, "gain")
    model.add(1000 * near <= 2 * capped)
    if canvas.expert < 0:
        return near
    expert = model.new_int_var(0, int(CP_SCALE * (goal_expert + drawn.ENOUGH_ROOM)), "expert")
    model.add(expert <= skills[canvas.expert])
    return near + 2 * expert


def main(arguments: Sequence[str] | None = None) -> int:
    """Run all parts; the last line is one JSON object."""
    parser = argparse.ArgumentParser(prog="benchmarks.mtrce", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--instances", type=int, default=50, help="random instances against exact search")
    parser.add_argument("--no-ortools", action="store_true", help="leave the comparison with OR-tools out")
    parser.add_argument("--one-size", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.one_size:
        say(json.dumps(one_size(options.one_size)))
        return 0
    result: dict[str, Any] = {"bench": "mtrce", **gaps(options.instances), **scale(), **shortlist_gaps()}
    if not options.no_ortools:
        try:
            result |= against_ortools()
        except ImportError:
            print("error: OR-tools is not installed: pip install -r requirements-dev.lock, or --no-ortools",
                  file=sys.stderr)  # fmt: skip
            return 2
    finish(result)
    return 0


if __name__ == "__main__":
    run_main(main)
