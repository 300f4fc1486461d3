"""A hospital whose labels are wrong: what the MPVU's gate and trust are worth, on the real network.

    make bench-flipped
    python -m benchmarks.flipped --seeds 0-2 --out DIR

The healthcare job with all training labels of one hospital flipped: the first on the planned route with which that
route, gone through without network, gate and merging, misses a target (a fault where nobody goes, or that later visits
mend, shows nothing).  Its own description of its data does not give it away.
Three times per seed: with gate and trust; ``open``: no MPVU is asked until the budget of visits is used, so nothing is
undone or merged and nobody's trust moves; and ``honest``: open as well, but nobody's labels are wrong, to tell what is
the flipped labels' doing and what is the missing gate's.

The last line is JSON: ``gate_met``, ``open_met``, ``honest_met`` (shares of seeds that reached both targets), ``trust``
(of the flipped hospital at the end, mean over seeds with a gate), ``below_floor`` (share of seeds in which that is
below the request's floor), ``honest_below_floor`` (share of the other hospitals' standings).
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.common import finish, run_main, say
from benchmarks.main_job import carry, chosen
from benchmarks.route_offline import Country, settings_of
from controller.engines.routing import mtrce
from controller.engines.training import gate
from controller.values.decisions import JobView, Measured, Option, Request, Step, Visit
from experiments.scenarios.scenario import Scenario, load
from hosts.learning.data.faults import with_flipped_labels
from hosts.learning.task import TaskSpec

FLOOR = 0.5
EXPERT = "cardiology"
VISITS = 9
WAYS = ("gate", "open", "honest")


def bad_place(seed: int, scenario: Scenario) -> str:
    """Return the hospital whose labels are flipped, see above."""
    country = Country(TaskSpec(alpha=scenario.data.alpha), 12, seed)
    request = Request(
        task="vignettes", groups=country.task.groups, broad_accuracy=0.80, expert_group=EXPERT, expert_accuracy=0.95,
        max_visits=VISITS, model_bytes=1_000_000, seed=seed,
    )  # fmt: skip
    route = _open_route(request, country.options())
    left: dict[str, float] = {}
    for name in dict.fromkeys(step.option.handle for step in route):
        found = _gone_through(country, route, name, seed)
        left[name] = min(found.broad - request.broad_accuracy, gate.expert_of(request, found) - request.expert_accuracy)
        if left[name] < 0:
            break
    listed = ", ".join(f"{name} {over:+.3f}" for name, over in left.items())
    say(f"seed {seed} reckoned with flipped labels, over (+) or below (-) a target: {listed}")
    return min(left, key=lambda n: left[n])


def _open_route(request: Request, options: list[Option]) -> list[Step]:
    """Return where a job goes that is planned visit by visit and never measured."""
    view, route = JobView(), list[Step]()
    while len(route) < request.max_visits:
        step = mtrce.plan(request, view, options).steps[0]
        there = step.option
        visit = Visit(
            kas=there.kas, handle=there.handle, mix=there.mix, samples=there.samples, epochs=step.hyper.epochs,
            accepted=True,
        )  # fmt: skip
        view = JobView(visits=[*view.visits, visit], elapsed_s=view.elapsed_s + step.cost_s)
        route.append(step)
    return route


def _gone_through(country: Country, route: Sequence[Step], bad: str, seed: int) -> Measured:
    """Train along a route with one hospital's labels flipped; return the pooled test accuracies at its end."""
    task, data = country.task, with_flipped_labels(country.task, country.parts, {bad: 1.0}, seed)
    model = task.new_model(seed)
    for visit, step in enumerate(route):
        task.train(model, data[step.option.handle].train, settings_of(step, seed * 1000 + visit))
    return country.measure(model, (0, 1))


def scenario_of(base: Scenario, way: str, bad: str) -> Scenario:
    """Return the scenario of one way to run it."""
    job = msgspec.structs.replace(base.jobs[0], max_visits=VISITS, trust_floor=FLOOR, gate=way == "gate")
    data = msgspec.structs.replace(base.data, flip={} if way == "honest" else {bad: 1.0})
    return msgspec.structs.replace(base, jobs=[job], data=data, query=None)


def measured(base: Scenario, way: str, seed: int, bad: str, out: Path, prefix: list[str]) -> dict[str, Any] | None:
    """Run one; return what came of it, nothing where it measured nothing."""
    run = carry(scenario_of(base, way, bad), way, seed, out, prefix, ["--no-capture"])
    if run is None:
        return None
    report, events = run.report, run.events
    trust = {e["data"]["name"]: e["data"]["trust"] for e in events if e["kind"] == "trust.changed"}
    found = {"met": bool(report["targets_met"]), "trust": trust, "bad": bad, **report["accuracy"]}
    journey = " ".join(
        f"{v['node']}{'*' if v['node'] == bad and way != 'honest' else ''}{'!' if v['accepted'] is False else ''}"
        for v in report["route"]
    )
    verdict = "meets both" if found["met"] else "misses    "
    say(f"seed {seed} {way:6} {verdict} broad {found['broad']:.3f} {EXPERT} {found['expert']:.3f}  {journey}")
    return found


def summary(runs: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Return the figures of all runs, see above."""
    gated = runs["gate"]
    met = {f"{way}_met": round(statistics.fmean(r["met"] for r in found), 3) for way, found in runs.items() if found}
    bad = [r["trust"].get(r["bad"]) for r in gated]
    known = [t for t in bad if t is not None]
    others = [t for r in gated for name, t in r["trust"].items() if name != r["bad"]]
    return {
        **met,
        "seeds": len(gated),
        "visited": len(known),
        "trust": round(statistics.fmean(known), 3) if known else None,
        "below_floor": round(sum(t < FLOOR for t in known) / len(gated), 3) if gated else None,
        "honest_below_floor": round(sum(t < FLOOR for t in others) / len(others), 3) if others else 0.0,
    }


def main(arguments: list[str] | None = None) -> int:
    """Run every seed all ways; 0 when the gate met the targets everywhere and its absence nowhere."""
    choice = chosen("flipped", "A hospital with flipped labels.", WAYS, "0-4", arguments)
    base, runs = load("healthcare"), {way: list[dict[str, Any]]() for way in choice.ways}
    for seed in choice.seeds:
        bad = bad_place(seed, base)
        for way, found in runs.items():
            run = measured(base, way, seed, bad, choice.out, choice.prefix)
            found += [run] if run else []
        if runs.get("gate"):
            say(f"seed {seed} trust of {bad}: {runs['gate'][-1]['trust'].get(bad, 'not visited')}")
    result = summary({"gate": [], **runs})
    finish({"bench": "flipped", **result})
    return 0 if result.get("gate_met") == 1.0 and result.get("open_met", 0.0) == 0.0 else 1


if __name__ == "__main__":
    run_main(main)
