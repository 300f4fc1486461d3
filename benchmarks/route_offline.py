"""Does the route matter?  The healthcare job without a network: same engines, same learning code, same gate.

    python -m benchmarks.route_offline --seeds 0-9 --methods routed,random

Prints one line per run and, last, one JSON object.  Minutes on one core; with the network: `make bench-route`.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

from controller.engines.routing import mtrce
from controller.engines.routing.canvas import MODEL_BYTES_PER_S, links
from controller.engines.training import gate, hpo
from controller.values.decisions import JobView, Measured, Option, Request, Step, Visit
from hosts.learning.methods.merging import as_measured, merge
from hosts.learning.methods.updates import state_of
from hosts.learning.task import (
    NodeData,
    Samples,
    Task,
    TaskSpec,
    TrainSettings,
    bytes_to_model,
    concat_samples,
    load_task,
    model_to_bytes,
    partition,
)

EPOCH_S = 0.45
VERIFY_S = 0.4  # at the MPVU, besides the way there
LEAST_SAMPLES = 8
BORDERS = (1, 0, 1, 2)  # K-AS borders between the hospitals of each K-AS and the MPVU in the second, as in healthcare


class Country:
    """Hospitals, two MPVU test sets, and the options they would offer. ``sample_s``: seconds of training per sample."""

    def __init__(self, spec: TaskSpec, hospitals: int, seed: int, *, sample_s: float = 0.0) -> None:
        self.task: Task = load_task(spec)
        self.sample_s = sample_s
        names = [f"h{i // 3 + 1}{i % 3 + 1}" for i in range(hospitals)]
        self.parts: dict[str, NodeData] = partition(self.task, names, seed)
        self.tests: tuple[Samples, Samples] = (self._gather(0), self._gather(1))
        self.seed = seed

    def _gather(self, copy: int) -> Samples:
        return concat_samples([part.test[copy] for part in self.parts.values()])

    def options(self) -> list[Option]:
        """Return what each hospital publishes; one without a handful of samples offers nothing."""
        named = enumerate(self.parts.items())
        return [self._option(i, name, part) for i, (name, part) in named if len(part.train) >= LEAST_SAMPLES]

    def _option(self, number: int, name: str, part: NodeData) -> Option:
        mix = self.task.describe(part.train, self.seed)
        quality = self.task.quality_probe(part.train, self.seed)
        return Option(
            kas=number // 3 + 1,
            handle=name,
            mix=mix,
            samples=len(part.train),
            epoch_s=self.sample_s * len(part.train) or EPOCH_S,
            reach_s=0.2,
            quality=round(quality, 3),
            borders=BORDERS[(number // 3) % len(BORDERS)],
        )

    def measure(self, model: Any, copies: tuple[int, ...]) -> Measured:
        return as_measured(self.task.evaluate(model, concat_samples([self.tests[c] for c in copies])))


def run_job(
    country: Country, request: Request, *, use_gate: bool = True, merging: bool = True, salt: int = 0
) -> dict[str, Any]:
    """Carry one job through; returns pass, visits, pooled accuracies and the journey."""
    task, options = country.task, country.options()
    state = model_to_bytes(task.new_model(request.seed))
    view = JobView()
    journey: list[str] = []
    met: list[bool] = []
    confirmed, margin = False, 0.0
    plan_s, sent_bytes = 0.0, 0
    reached: tuple[int, int] | None = None  # visits and bytes until both targets were met and confirmed
    pooled: list[Measured] = []
    while len(view.visits) < request.max_visits and not (confirmed and not request.train_on):
        started = time.perf_counter()
        try:
            step = mtrce.plan(gate.beyond(request) if confirmed else request, view, options).steps[0]
        except mtrce.NoRoute:
            break
        plan_s += time.perf_counter() - started
        sent_bytes += round(2 * request.model_bytes * links(step.option)) + step.option.move_bytes  # there, and back
        model = bytes_to_model(task, state)
        settings = settings_of(step, request.seed * 1000 + len(view.visits) + salt * 77)
        task.train(model, country.parts[step.option.handle].train, settings)
        known = state_of(bytes_to_model(task, state)) if view.measured and use_gate and merging else None
        merged = merge(task, country.tests[0], known, model, hpo.MERGE, request)
        found = as_measured(merged.kept)
        accepted, _ = gate.judge(request, view.measured, found)
        accepted = accepted or not use_gate
        if accepted:
            model.load_state_dict(merged.state)
            state = model_to_bytes(model)
        view = _after(view, step, accepted, found, request)
        pooled.append(country.measure(bytes_to_model(task, state), (0, 1)))
        met.append(gate.targets_met(request, pooled[-1]))
        journey.append(_told(request, step.option.handle, found, accepted, step.expected))
        if accepted and not confirmed and gate.targets_met(request, found, margin):
            confirmed = met[-1]
            margin += 0.01  # as the control centre does: one that was not confirmed raises the bar
            reached = (len(view.visits), sent_bytes) if confirmed else None
    final = country.measure(bytes_to_model(task, state), (0, 1))
    expert = gate.expert_of(request, final)
    return {
        "pass": gate.targets_met(request, final),
        "visits": (reached or (len(view.visits),))[0],
        "broad": round(final.broad, 4),
        "expert": round(expert, 4),
        "met": "".join(".+"[m] for m in met),
        "plan_s": round(plan_s, 2),
        "seconds": round(view.elapsed_s, 2),
        "bytes": (reached or (0, sent_bytes))[1],
        "trace": [(round(m.broad, 4), round(gate.expert_of(request, m), 4)) for m in pooled],
        "journey": journey,
    }


def settings_of(step: Step, seed: int) -> TrainSettings:
    """Return how a planned visit trains."""
    return TrainSettings(
        epochs=step.hyper.epochs,
        batch_size=step.hyper.batch_size,
        learning_rate=step.hyper.learning_rate,
        group_weights=step.hyper.group_weights,
        seed=seed,
    )


def _after(view: JobView, step: Step, accepted: bool, found: Measured, request: Request) -> JobView:
    option = step.option
    visit = Visit(
        kas=option.kas, handle=option.handle, mix=option.mix, samples=option.samples, epochs=step.hyper.epochs,
        accepted=accepted, found=found,
    )  # fmt: skip
    verify_s = VERIFY_S + request.model_bytes / MODEL_BYTES_PER_S
    measured = found if accepted else view.measured
    elapsed_s = view.elapsed_s + step.cost_s + verify_s
    return JobView(visits=[*view.visits, visit], measured=measured, elapsed_s=elapsed_s)


def _told(request: Request, handle: str, found: Measured, accepted: bool, expected: dict[str, float]) -> str:
    expert = request.expert_group or request.groups[0]
    guess = f"~{sum(expected.values()) / len(expected):.2f}/{expected.get(expert, 0):.2f}"
    return f"{handle}{'' if accepted else '!'} {found.broad:.2f}/{gate.expert_of(request, found):.2f}{guess}"


def main(arguments: list[str] | None = None) -> int:
    """Run every seed with every method and print the shares that pass."""
    options = _parser().parse_args(arguments)
    first, _, last = options.seeds.partition("-")
    seeds = list(range(int(first), int(last or first) + 1))
    spec = TaskSpec(alpha=options.alpha, noise=options.noise, test_per_node=options.test, train_per_node=options.train)
    results: dict[str, list[dict[str, Any]]] = {m: [] for m in options.methods.split(",")}
    for seed in seeds:
        country = Country(spec, options.hospitals, seed)
        for method, found in results.items():
            started = time.perf_counter()
            run = run_job(
                country, _request(country, options, method, seed), use_gate=not options.no_gate,
                merging=not options.no_merge, salt=options.salt,
            )  # fmt: skip
            found.append(run)
            print(
                f"{method:7} seed {seed:2} {'pass' if run['pass'] else 'MISS'} {run['visits']:2} visits "
                f"{run['broad']:.3f}/{run['expert']:.3f} {run['bytes'] / 1e6:5.1f} MB "
                f"{run['met']} {time.perf_counter() - started:4.1f}s "
                f"{' '.join(run['journey'])}",
                flush=True,
            )
    summary: dict[str, Any] = {f"{m}_pass": sum(r["pass"] for r in runs) / len(runs) for m, runs in results.items()}
    summary |= {f"{m}_visits": sum(r["visits"] for r in runs) / len(runs) for m, runs in results.items()}
    summary |= {f"{m}_mb": round(sum(r["bytes"] for r in runs) / len(runs) / 1e6, 1) for m, runs in results.items()}
    for key in ("broad", "expert"):
        summary |= {f"{m}_{key}": round(sum(r[key] for r in runs) / len(runs), 4) for m, runs in results.items()}
    print(json.dumps({**summary, "seeds": len(seeds)}))
    return 0


def _request(country: Country, options: argparse.Namespace, method: str, seed: int) -> Request:
    return Request(
        task="vignettes",
        groups=country.task.groups,
        broad_accuracy=0.80,
        expert_group="cardiology",
        expert_accuracy=0.95,
        max_visits=options.visits,
        model_bytes=1_000_000,
        method=method,
        seed=seed,
        train_on=options.train_on,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.route_offline")
    parser.add_argument("--seeds", default="0-9")
    parser.add_argument("--methods", default="routed,random")
    parser.add_argument("--visits", type=int, default=6)
    parser.add_argument("--alpha", type=float, default=0.15)
    parser.add_argument("--noise", type=float, default=0.3)
    parser.add_argument("--train", type=int, default=1500)
    parser.add_argument("--test", type=int, default=200)
    parser.add_argument("--hospitals", type=int, default=12)
    parser.add_argument("--salt", type=int, default=0, help="other shuffles of the training data, same data")
    parser.add_argument("--train-on", action="store_true", help="go on past the targets, to the budget's end")
    parser.add_argument("--no-gate", action="store_true")
    parser.add_argument("--no-merge", action="store_true", help="an MPVU keeps a visit whole or not at all")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
