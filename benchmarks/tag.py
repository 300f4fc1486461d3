"""Is TAG right?  Every method trained for real in 24 settings, and TAG's choice beside the measured best.

    make bench-tag                           # seed 5: 32 trainings, about seven minutes on one core
    python -m benchmarks.tag --seeds 2-3 --out table.md

Settings: four ways in which data lie (IID, Dirichlet 1 and 0.2, one class a node) x two models (a transformer of 1 MB
on vignettes at 8 nodes, a small layered one of 20 kB on digits at 10) x three kinds of link: a site (1000 Mbit/s, 2 ms,
each transfer its own link), a wide area (50 Mbit/s, 40 ms round trip, one shared link), a narrow one (5 Mbit/s, 100 ms,
shared). The budget is time: what sequential learning needs for twelve visits there, the same for every method. Training
is real PyTorch (``hosts.learning.methods``, the arithmetic that runs between terminals); rounds, bytes and steps are
counted; seconds are reckoned from them (0.3 s or 0.01 s a local epoch, round trips, bytes over the rate), so the table
does not depend on how busy this machine is. Accuracy: of the last round that ends in time, on all nodes' test samples.

Right: the chosen method's measured accuracy is the best, or within 0.01 of it. TAG's curves: fitted on seeds 0, 1, 3.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import torch

from benchmarks.common import finish, run_main, say
from benchmarks.route import seed_list
from benchmarks.tfam import write_tables
from controller.engines.training.tag import Choice, Cut, Ways, choose
from controller.values.decisions import Hyper, Option, Request
from hosts.learning.methods import MethodSettings, run_method
from hosts.learning.methods.sequential import offers
from hosts.learning.methods.split import Lower, last_cut
from hosts.learning.methods.types import Entry
from hosts.learning.task import TaskSpec, load_task, model_to_bytes, partition

WITHIN = 0.01
VISITS = 12
ROUNDS = {
    "sequential": ("routed", 24),
    "federated": ("federated", 16),
    "gossip": ("gossip", 16),
    "split": ("split", 16),
}
SPREADS: dict[str, dict[str, Any]] = {
    "IID": {"partition": "iid"},
    "Dirichlet 1": {"partition": "dirichlet", "alpha": 1.0},
    "Dirichlet 0.2": {"partition": "dirichlet", "alpha": 0.2},
    "one class": {"partition": "one_class"},
}
LINKS = {
    "site": Ways(rate_mbps=1000.0, round_trip_s=0.002, shared=False),
    "wide": Ways(rate_mbps=50.0, round_trip_s=0.04, shared=True),
    "narrow": Ways(rate_mbps=5.0, round_trip_s=0.1, shared=True),
}
LOCAL = {
    "transformer": Hyper(epochs=1.0, batch_size=64, learning_rate=2e-3),
    "small": Hyper(epochs=2.0, batch_size=16, learning_rate=5e-3),
}
EPOCH_S = {"transformer": 0.3, "small": 0.01}


class Field(NamedTuple):
    """One way of spreading data for one model, every method trained on it."""

    model: str
    spread: str
    options: list[Option]
    request: Request
    cut: Cut
    logs: dict[str, list[Entry]]


class Row(NamedTuple):
    """One setting: what each method measured within the budget, and TAG's choice."""

    model: str
    spread: str
    link: str
    budget_s: float
    measured: dict[str, float]
    choice: Choice
    best: str
    right: bool


def train(model: str, spread: str, seed: int, digits: str) -> Field:
    """Train every method on one field."""
    local = LOCAL[model]
    if model == "transformer":
        spec, nodes = TaskSpec(train_per_node=300, test_per_node=60, **SPREADS[spread]), 8
    else:
        spec, nodes = TaskSpec(name="table", data=digits, hidden=64, **SPREADS[spread]), 10
    task = load_task(spec)
    parts = partition(task, [f"h{i:02}" for i in range(nodes)], seed)
    fresh = task.new_model(seed)
    lower = Lower(task, fresh, last_cut(fresh), next(iter(parts.values())).train).state()
    logs = {}
    for method, (name, rounds) in ROUNDS.items():
        settings = MethodSettings(
            rounds=rounds, epochs=local.epochs, batch_size=local.batch_size, learning_rate=local.learning_rate,
            rate_decay=0.93, seed=seed, cut=0, broad_accuracy=0.999,
        )  # fmt: skip
        begun = time.monotonic()
        logs[method] = run_method(name, task, parts, settings).log
        say(f"seed {seed} {model:11} {spread:13} {method:10} {_curve(logs[method])} ({time.monotonic() - begun:.0f} s)")
    request = Request(
        task=task.name, groups=task.groups, broad_accuracy=0.999, max_visits=24, seed=seed,
        model_bytes=len(model_to_bytes(fresh)),
    )  # fmt: skip
    options = [msgspec.structs.replace(o, epoch_s=EPOCH_S[model]) for o in offers(task, parts, seed)]
    width = 96 if model == "transformer" else 64
    cut = Cut(lower_bytes=sum(t.numel() * t.element_size() for t in lower.values()), activation_bytes=4 * width)
    return Field(model, spread, options, request, cut, logs)


def _curve(log: Sequence[Entry]) -> str:
    return " ".join(f"{entry.broad or 0:.2f}" for entry in log[:: max(1, len(log) // 6)])


def seconds(method: str, log: Sequence[Entry], field: Field, ways: Ways) -> list[float]:
    """Return when each round ends on such links."""
    local, nodes = LOCAL[field.model], len(field.options)
    steps = log[0].steps / (1 if method == "sequential" else nodes)
    trips = {"sequential": 2, "federated": 2, "gossip": 1, "split": 2 + steps}[method]
    each_s = local.epochs * EPOCH_S[field.model] + trips * ways.round_trip_s
    return [
        (number + 1) * each_s + 8 * (entry.bytes if ways.shared else entry.bottleneck_bytes) / (ways.rate_mbps * 1e6)
        for number, entry in enumerate(log)
    ]


def settings_of(field: Field) -> Iterator[Row]:
    """Measure and choose for each kind of link."""
    for name, ways in LINKS.items():
        budget_s = seconds("sequential", field.logs["sequential"], field, ways)[VISITS - 1] * 1.001
        measured = {m: _by(log, seconds(m, log, field, ways), budget_s) for m, log in field.logs.items()}
        request = msgspec.structs.replace(field.request, deadline_s=budget_s)
        choice = choose(request, field.options, ways, cut=field.cut, local=LOCAL[field.model])
        best = max(measured, key=lambda m: measured[m])
        right = measured[choice.method] >= measured[best] - WITHIN
        yield Row(field.model, field.spread, name, budget_s, measured, choice, best, right)


def _by(log: Sequence[Entry], ended_s: Sequence[float], budget_s: float) -> float:
    """Return the accuracy of the last round that ended in time (0: none)."""
    done = [entry.broad or 0.0 for entry, end_s in zip(log, ended_s, strict=True) if end_s <= budget_s]
    return done[-1] if done else 0.0


def table(rows: Sequence[Row]) -> str:
    """Return the settings as a Markdown table; measured accuracies, and in brackets what TAG expected."""
    names = list(ROUNDS)
    lines = [
        f"| model | data | link | budget s | {' | '.join(names)} | best | TAG | |",
        f"|---|---|---|---|{'---|' * len(names)}---|---|---|",
    ]
    for row in rows:
        expected = {p.method: p.accuracy for p in row.choice.prospects}
        cells = " | ".join(f"{row.measured[m]:.3f} ({expected[m]:.2f})" for m in names)
        verdict = "right" if row.right else f"wrong by {row.measured[row.best] - row.measured[row.choice.method]:.3f}"
        head = f"| {row.model} | {row.spread} | {row.link} | {row.budget_s:.1f} "
        lines.append(f"{head}| {cells} | {row.best} | {row.choice.method} | {verdict} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it; the last line is one JSON object."""
    parser = argparse.ArgumentParser(prog="benchmarks.tag", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seeds", type=seed_list, default=[5], help="0-1 or 2,3 [default: 5]")
    parser.add_argument("--out", type=Path, help="write the table there, too")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="daitn-tag-") as folder:
        digits = write_tables(Path(folder))["digits"]
        for seed in options.seeds:
            for model in LOCAL:
                for spread in SPREADS:
                    rows += settings_of(train(model, spread, seed, digits))
    told = table(rows)
    say(told)
    if options.out:
        options.out.write_text(told + "\n")
    lost = [row.measured[row.best] - row.measured[row.choice.method] for row in rows]
    finish(
        {
            "bench": "tag",
            "settings": len(rows),
            "right": sum(row.right for row in rows),
            "chosen": {m: sum(row.choice.method == m for row in rows) for m in ROUNDS},
            "best": {m: sum(row.best == m for row in rows) for m in ROUNDS},
            "lost_mean": round(sum(lost) / len(lost), 4),
            "always_sequential_right": sum(r.measured["sequential"] >= r.measured[r.best] - WITHIN for r in rows),
        }
    )
    return 0


if __name__ == "__main__":
    run_main(main)
