"""A hospital whose labels are wrong: what the MPVU's gate and trust are worth.  Without a network, same engines.

    python -m benchmarks.flipped --seeds 0-4 [--figure FILE.svg]

The healthcare job, once as it is (gate: a harmful visit is rolled back, its node loses trust and is no longer offered
below the request's floor) and once without both.  The hospital that holds most of the expert group has all its
training labels flipped; its own description of its data does not give it away. Without the gate no MPVU is asked until
the budget of visits is used.  The last line is JSON:
``gate_met``, ``open_met`` (shares of seeds that reached both targets), ``trust`` (of the flipped hospital, mean).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.common import finish, say
from benchmarks.route_offline import Country
from controller.engines import gate, mtrce
from controller.engines.errors import EngineError
from controller.engines.types import JobView, Option, Request, Visit
from controller.topology.trust import Ledger, seen
from hosts.learning.faults import with_flipped_labels
from hosts.learning.task import TaskSpec, TrainSettings, bytes_to_model, model_to_bytes

FLOOR = 0.5
EXPERT = "cardiology"


def spoiled_country(seed: int, hospitals: int = 12) -> tuple[Country, str]:
    """Return a country in which one hospital has wrong labels, and its name.

    It is the one on which the plan counts for the expert group: a fault where nobody goes shows nothing.
    """
    country = Country(TaskSpec(alpha=0.15), hospitals, seed)
    counts = {n: country.task.group_counts(p.train)[EXPERT] for n, p in country.parts.items()}
    planned = {s.option.handle for s in mtrce.plan(request_of(country, seed, 8), JobView(), country.options()).steps}
    bad = max(planned, key=lambda n: (counts[n], n))
    country.parts = with_flipped_labels(country.task, country.parts, {bad: 1.0}, seed)
    return country, bad


def request_of(country: Country, seed: int, visits: int) -> Request:
    """Return the healthcare job."""
    return Request(
        task="vignettes", groups=country.task.groups, broad_accuracy=0.80, expert_group=EXPERT,
        expert_accuracy=0.95, max_visits=visits, trust_floor=FLOOR, model_bytes=1_000_000, seed=seed,
    )  # fmt: skip


def carry(country: Country, request: Request, *, gated: bool) -> dict[str, Any]:
    """Carry one job through; returns its accuracies after each visit, and the trust that was left."""
    task, offered, ledger = country.task, country.options(), Ledger()
    state, view = model_to_bytes(task.new_model(request.seed)), JobView()
    journey: list[dict[str, Any]] = []
    while len(view.visits) < request.max_visits:
        options = [_trusted(o, ledger) for o in offered if not gated or ledger.trust(o.handle) >= request.trust_floor]
        try:
            step = mtrce.plan(request, view, options).steps[0]
        except EngineError:
            break
        name, model = step.option.handle, bytes_to_model(task, state)
        settings = TrainSettings(
            epochs=step.hyper.epochs, batch_size=step.hyper.batch_size, learning_rate=step.hyper.learning_rate,
            group_weights=step.hyper.group_weights, seed=request.seed * 1000 + len(view.visits),
        )  # fmt: skip
        task.train(model, country.parts[name].train, settings)
        found = country.measure(model, (0,))
        accepted = gate.judge(request, view.measured, found)[0] or not gated
        if gated:
            ledger.take(name, seen(step.option.mix, step.option.quality, view.measured, found))
        state = model_to_bytes(model) if accepted else state
        visit = Visit(
            kas=step.option.kas, handle=name, mix=step.option.mix, samples=step.option.samples,
            epochs=step.hyper.epochs, accepted=accepted if gated else None,
            found=found if gated else None,
        )  # fmt: skip
        measured = found if accepted and gated else view.measured  # without the gate nobody looks until the end
        view = JobView(visits=[*view.visits, visit], measured=measured)
        both = country.measure(bytes_to_model(task, state), (0, 1))
        journey.append(
            {"node": name, "accepted": accepted, "broad": both.broad, "expert": both.per_group.get(EXPERT, 0.0)}
        )
        if gated and accepted and gate.targets_met(request, found, 0.01) and gate.targets_met(request, both):
            break
    final = country.measure(bytes_to_model(task, state), (0, 1))
    trusts = {o.handle: round(ledger.trust(o.handle), 3) for o in offered}
    return {"met": gate.targets_met(request, final), "journey": journey, "trusts": trusts}


def _trusted(option: Option, ledger: Ledger) -> Option:
    return msgspec.structs.replace(option, trust=ledger.trust(option.handle))


def _words(run: dict[str, Any], bad: str) -> str:
    stops = [
        f"{v['node']}{'*' if v['node'] == bad else ''}{'' if v['accepted'] else '!'} {v['broad']:.2f}/{v['expert']:.2f}"
        for v in run["journey"]
    ]
    return f"{'met ' if run['met'] else 'MISS'} {len(stops)} visits: {' '.join(stops)}"


def draw(runs: list[dict[str, Any]], file: Path) -> None:
    """Draw accuracy after each visit, with and without the gate, and the flipped hospital's trust."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(11, 4), sharey=True)
    for run in runs:
        for ways, colour in (("gate", "#4878a8"), ("open", "#c05850")):
            for axis, key in zip(axes, ("broad", "expert"), strict=True):
                values = [v[key] for v in run[ways]["journey"]]
                axis.plot(range(1, len(values) + 1), values, color=colour, alpha=0.7, marker="o", markersize=3)
    for axis, key, goal in zip(axes, ("broad", EXPERT), (0.80, 0.95), strict=True):
        axis.axhline(goal, color="#666666", linestyle="--", linewidth=0.8)
        axis.set(title=f"{key} accuracy", xlabel="visit")
    axes[0].plot([], [], color="#4878a8", label="MPVU gate and trust")
    axes[0].plot([], [], color="#c05850", label="without")
    axes[0].legend(frameon=False, loc="lower right")
    figure.savefig(file, bbox_inches="tight")
    pyplot.close(figure)


def main(arguments: list[str] | None = None) -> int:
    """Run every seed both ways; 0 when the gate met the targets everywhere and its absence nowhere."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.flipped", description="A hospital with flipped labels.")
    parser.add_argument("--seeds", default="0-4", help="seeds, first-last (0-4)")
    parser.add_argument("--visits", type=int, default=8, help="budget of visits (8)")
    parser.add_argument("--figure", type=Path, help="draw into this file")
    options = parser.parse_args(arguments)
    first, _, last = options.seeds.partition("-")
    runs: list[dict[str, Any]] = []
    for seed in range(int(first), int(last or first) + 1):
        country, bad = spoiled_country(seed)
        request = request_of(country, seed, options.visits)
        run: dict[str, Any] = {"seed": seed, "bad": bad}
        for ways, gated in (("gate", True), ("open", False)):
            run[ways] = carry(country, request, gated=gated)
            say(f"seed {seed} {ways} {_words(run[ways], bad)}")
        runs.append(run)
        others = [t for n, t in run["gate"]["trusts"].items() if n != bad]
        say(f"seed {seed} trust of {bad} {run['gate']['trusts'][bad]}, lowest of the others {min(others)}")
    if options.figure:
        draw(runs, options.figure)
    result = _summary(runs)
    finish(result)
    return 0 if result["gate_met"] == 1.0 and result["open_met"] == 0.0 else 1


def _summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    trusts = [run["gate"]["trusts"][run["bad"]] for run in runs]
    others = [t for run in runs for n, t in run["gate"]["trusts"].items() if n != run["bad"]]
    return {
        "seeds": len(runs),
        "gate_met": sum(run["gate"]["met"] for run in runs) / len(runs),
        "open_met": sum(run["open"]["met"] for run in runs) / len(runs),
        "trust": round(sum(trusts) / len(trusts), 3),
        "below_floor": sum(t < FLOOR for t in trusts) / len(trusts),
        "honest_below_floor": sum(t < FLOOR for t in others) / len(others),
    }


if __name__ == "__main__":
    sys.exit(main())
