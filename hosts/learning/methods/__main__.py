"""Compare methods on a laptop: ``python -m hosts.learning.methods --methods routed,federated --seeds 0-2``.

One line a run, then one JSON object with means: accuracy, payload bytes, optimiser steps, seconds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from typing import Any

from hosts.learning.errors import LearningError
from hosts.learning.methods import METHODS, MethodSettings, run_method
from hosts.learning.task import TaskSpec, load_task, partition

EVERY = ",".join(METHODS)


def main(arguments: list[str] | None = None) -> int:
    """Run every method with every seed; 2 with one line on stderr when something asked for does not exist."""
    options = _parser().parse_args(arguments)
    try:
        print(json.dumps({name: _mean(_runs(name, options)) for name in options.methods.split(",")}))
    except LearningError as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 2
    return 0


def _runs(name: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    first, _, last = options.seeds.partition("-")
    return [_run(name, seed, options) for seed in range(int(first), int(last or first) + 1)]


def _run(name: str, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    task = load_task(
        TaskSpec(name=options.task, partition=options.partition, alpha=options.alpha, hidden=options.hidden)
    )
    parts = partition(task, [f"h{i + 1}" for i in range(options.nodes)], seed)
    settings = MethodSettings(
        rounds=options.rounds, epochs=options.epochs, rate_decay=options.rate_decay, seed=seed, cut=options.cut,
        compression=options.compression, momentum=options.momentum, secure=options.secure, gate=not options.no_gate,
        expert_group=options.expert_group, expert_accuracy=0.95 if options.expert_group else 0.0,
        stop_at_targets=options.stop,
    )  # fmt: skip
    result = run_method(name, task, parts, settings)
    last = result.log[-1]
    curve = " ".join(f"{e.broad:.2f}" for e in result.log)
    expert = last.per_group.get(options.expert_group or "", 0.0)
    print(
        f"{name:9} seed {seed} {last.broad:.3f}/{expert:.3f} {last.bytes / 1e6:6.1f} MB {last.seconds:5.1f} s  {curve}",
        flush=True,
    )
    keys = ("broad", "bytes", "bottleneck_bytes", "steps", "seconds", "core_seconds")
    return {key: getattr(last, key) for key in keys} | {"rounds": len(result.log), "expert": expert}


def _mean(runs: list[dict[str, Any]]) -> dict[str, float]:
    return {key: round(statistics.fmean(run[key] for run in runs), 4) for key in runs[0]}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m hosts.learning.methods")
    parser.add_argument("--methods", default=EVERY)
    parser.add_argument("--seeds", default="0", help="one, or first-last")
    parser.add_argument("--task", choices=("vignettes", "digits"), default="vignettes")
    parser.add_argument("--partition", default="dirichlet")
    parser.add_argument("--alpha", type=float, default=0.15)
    parser.add_argument("--hidden", type=int, default=64, help="width of the hidden layer (digits)")
    parser.add_argument("--nodes", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--epochs", type=float, default=2.0)
    parser.add_argument("--rate-decay", type=float, default=0.8)
    parser.add_argument("--cut", type=int, default=0)
    parser.add_argument("--compression", default="none")
    parser.add_argument("--momentum", type=float, default=0.0)
    parser.add_argument("--secure", action="store_true")
    parser.add_argument("--no-gate", action="store_true")
    parser.add_argument("--stop", action="store_true", help="end a run when both targets are met")
    parser.add_argument("--expert-group", default=None)
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
