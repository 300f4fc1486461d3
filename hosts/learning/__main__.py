"""The laptop number: train one model on everybody's data at once and test it, without any network.

    python -m hosts.learning --task vignettes --pooled --seed 0

Prints JSON: accuracy on the two MPVU copies, per group, and seconds. Without ``--pooled`` the nodes are visited once
each in order.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import msgspec

from hosts.learning.spec import NodeData
from hosts.learning.task import LearningError, Task, TaskSpec, TrainSettings, concat_samples, load_task, partition


def main(arguments: list[str] | None = None) -> int:
    """Run the laptop baseline; 2 with one line on stderr when the data is no good."""
    options = _parser().parse_args(arguments)
    try:
        print(json.dumps(_measure(options)))
    except LearningError as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 2
    return 0


def _measure(options: argparse.Namespace) -> dict[str, object]:
    spec = _spec(options)
    task = load_task(spec)
    nodes = options.nodes or (4 if spec.partition == "natural" else 12)
    parts = partition(task, [f"node{i + 1}" for i in range(nodes)], options.seed)
    started = time.perf_counter()
    model = train_pooled(task, parts, options) if options.pooled else train_in_turn(task, parts, options)
    seconds = time.perf_counter() - started
    found = task.evaluate(model, concat_samples([copy for part in parts.values() for copy in part.test]))
    return {
        "task": spec.name, "seed": options.seed, "pooled": options.pooled, "broad": round(found.broad, 4),
        "per_group": {k: round(v, 4) for k, v in found.per_group.items()}, "samples": found.samples, "train_s":
        round(seconds, 2),
    }  # fmt: skip


def _spec(options: argparse.Namespace) -> TaskSpec:
    if not options.spec:
        return TaskSpec(
            name=options.task, data=options.data or "", partition=options.partition, label_column=options.label or ""
        )
    try:
        return msgspec.json.decode(Path(options.spec).read_bytes(), type=TaskSpec)
    except (OSError, msgspec.DecodeError) as problem:
        raise LearningError(f"--spec {options.spec}: {problem}; give a TaskSpec as JSON") from None


def train_pooled(task: Task, parts: dict[str, NodeData], options: argparse.Namespace):  # type: ignore[no-untyped-def]
    """Train on all training samples together: what no network of hospitals may do, and the bar to compare with."""
    model = task.new_model(options.seed)
    everything = concat_samples([part.train for part in parts.values()])
    settings = TrainSettings(
        epochs=options.epochs, batch_size=options.batch_size, learning_rate=options.learning_rate, seed=options.seed
    )
    task.train(model, everything, settings)
    return model


def train_in_turn(task: Task, parts: dict[str, NodeData], options: argparse.Namespace):  # type: ignore[no-untyped-def]
    """Visit every node once, in order."""
    model = task.new_model(options.seed)
    for turn, part in enumerate(parts.values()):
        settings = TrainSettings(
            epochs=options.epochs,
            batch_size=options.batch_size,
            learning_rate=options.learning_rate,
            seed=options.seed + turn,
        )
        task.train(model, part.train, settings)
    return model


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m hosts.learning", description=__doc__.splitlines()[0] if __doc__ else None
    )
    parser.add_argument("--task", choices=("vignettes", "table", "text", "digits"), default="vignettes")
    parser.add_argument(
        "--spec", help="JSON file of a whole TaskSpec, in place of --task, --data, --label, --partition"
    )
    parser.add_argument("--data", help="CSV or JSONL file, or the directory of the UCI heart files")
    parser.add_argument("--label", help="label column")
    parser.add_argument(
        "--partition", choices=("dirichlet", "iid", "one_class", "shards", "natural"), default="dirichlet"
    )
    parser.add_argument("--nodes", type=int, help="data nodes (default 12; 4 for natural)")
    parser.add_argument("--pooled", action="store_true", help="train on all data at once instead of node by node")
    parser.add_argument("--epochs", type=float, default=3.0)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=0)
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
