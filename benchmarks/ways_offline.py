"""Which way of inference answers how well, at what cost?  Vignettes and vitals, without a network.

    python -m benchmarks.ways_offline            # a minute on one core; the last line is JSON
    python -m benchmarks.ways_offline --tuned 1 --unseen 101

Every seed has its own hospitals, patients and models. Thresholds, weights and fusion are learned on one MPVU's sample,
accuracies are those on the second MPVU's. ``TUNED`` seeds were looked at while settings were chosen, ``UNSEEN`` ones
were not. Compute: operations a query, counted, as a share of the single (large) model's. Bytes: payload of one query,
from its asker and back, with all that travels between the models.

The findings are fewer and noisier than by default, lest every way be right on everything. Exit status 1: a bar is
missed on some seed. The bars: switched within ``ALLOWED_LOSS`` of single at ``MOST_COMPUTE`` of its compute;
collaborative not below its best member; multimodal above both of its single models.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from statistics import mean

import msgspec
import torch
from torch import nn

from benchmarks.common import finish, run_main, say
from benchmarks.route import seed_list
from hosts.learning.spec import Samples
from hosts.learning.task import NodeData, Task, TaskSpec, TrainSettings, VignetteTask, concat_samples, partition
from hosts.learning.ways.calibrate import probabilities
from hosts.learning.ways.collaborative import combine
from hosts.learning.ways.costs import flops_per_query, ms_per_query
from hosts.learning.ways.multimodal import fuse, learn_fusion
from hosts.learning.ways.pair import CheapVignetteTask
from hosts.learning.ways.split import (
    activations_to_bytes,
    bytes_to_activations,
    choose_cut,
    cut_model,
    expected_ms,
    possible_cuts,
)  # fmt: skip
from hosts.learning.ways.switched import learn_threshold, switch
from hosts.learning.ways.vitals import VitalsTask, with_vitals
from hosts.learning.ways.wire import tensor_to_bytes

TUNED, UNSEEN = "1-3", "101-103"
SPEC = TaskSpec(noise=0.4, findings_per_vignette=8, train_per_node=500, test_per_node=200)
NODES, MEMBERS = 12, 3
LARGE = TrainSettings(epochs=3)
CHEAP = TrainSettings(epochs=8, learning_rate=1e-2)
VITALS = TrainSettings(epochs=12, learning_rate=5e-3)
MEMBER = TrainSettings(epochs=4)
ALLOWED_LOSS, MOST_COMPUTE = 0.01, 0.6
LINK = {"speed_lower": 1e9, "speed_upper": 4e10, "rate_mbps": 10.0, "rtt_ms": 2.0}  # a small device, a server, between
WAYS = ("single", "split", "switched", "collaborative", "multimodal")
OTHERS = ("cheap alone", "best member", "vitals alone")
Row = dict[str, float]


class Data:
    """One seed's patients: to train on by hospital, and the samples of an MPVU and of the second one."""

    def __init__(self, task: Task, seed: int) -> None:
        self.seed = seed
        self.hospitals: list[NodeData] = list(partition(task, [f"h{n}" for n in range(NODES)], seed).values())
        self.train = concat_samples([part.train for part in self.hospitals])
        self.learned_on, self.test = (concat_samples([part.test[i] for part in self.hospitals]) for i in (0, 1))

    def member(self, number: int) -> Samples:
        """Return the training samples of one member of the ensemble: of its own hospitals."""
        return concat_samples([part.train for part in self.hospitals[number::MEMBERS]])

    def vitals(self) -> list[Samples]:
        """Return the same three samples by vitals."""
        return [with_vitals(samples) for samples in (self.train, self.learned_on, self.test)]


class Costs:
    """Operations and milliseconds of each model, and bytes of what travels: they depend on no seed."""

    def __init__(self, text: Task, cheap: Task, vitals: Task) -> None:
        tasks = {"large": text, "cheap": cheap, "vitals": vitals}
        models = {name: task.new_model(0) for name, task in tasks.items()}
        self.flops = {name: flops_per_query(task, models[name]) for name, task in tasks.items()}
        self.ms = {name: round(ms_per_query(task, models[name]), 4) for name, task in tasks.items()}
        self.query = len(msgspec.msgpack.encode(list(range(120, 120 + text.width))))
        self.vitals_query = len(msgspec.msgpack.encode([36.8 + n for n in range(vitals.width)]))
        self.answer = len(msgspec.msgpack.encode({"answer": text.labels[0], "confidence": 0.9}))
        self.chances = len(tensor_to_bytes(torch.full((1, len(text.labels)), 1 / len(text.labels)), half=True))

    def share(self, name: str) -> float:
        """Return a model's operations as a share of the large one's."""
        return self.flops[name] / self.flops["large"]


def trained(task: Task, samples: Samples, settings: TrainSettings, seed: int) -> nn.Module:
    """Return a model of a task, trained in one place."""
    model = task.new_model(seed)
    task.train(model, samples, msgspec.structs.replace(settings, seed=seed))
    return model


def accuracy(chances: torch.Tensor, samples: Samples) -> float:
    """Return the share of right answers."""
    return float((chances.argmax(dim=1) == samples.labels).double().mean())


def split(task: Task, model: nn.Module, test: Samples, costs: Costs) -> Row:
    """Answer through the cut that is best for the link, with activations as float16 bytes."""
    choice = choose_cut(possible_cuts(task, model, half=True), **LINK)
    assert choice.cut is not None and choice.cut_ms is not None
    lower, upper = cut_model(task, model, choice.cut.at)
    parts = torch.split(test.inputs, 512)
    sent = [activations_to_bytes(lower, lower(part), half=True) for part in parts]
    logits = torch.cat([upper(bytes_to_activations(upper, data)) for data in sent])
    one = activations_to_bytes(lower, lower(test.inputs[:1]), half=True)
    return {
        "accuracy": accuracy(logits, test), "compute": 1.0, "bytes": costs.query + len(one) + costs.answer,
        "cut": choice.cut.at, "cut_ms": choice.cut_ms, "whole_ms": choice.whole_ms,
    }  # fmt: skip


def switched(large: Sequence[torch.Tensor], cheap: Sequence[torch.Tensor], data: Data, costs: Costs) -> Row:
    """Learn the threshold on one sample, answer the other."""
    threshold = learn_threshold(
        cheap[0], large[0], data.learned_on.labels, ALLOWED_LOSS, cheap_compute=costs.share("cheap")
    )
    asked: list[int] = []

    def ask_large(rows: torch.Tensor) -> torch.Tensor:
        asked.extend(rows.tolist())
        return large[1][rows]

    chances = switch(threshold, cheap[1], ask_large)
    share = len(asked) / len(data.test)
    return {
        "accuracy": accuracy(chances, data.test), "compute": costs.share("cheap") + share,
        "bytes": costs.query * (1 + share) + costs.answer, "threshold": threshold.value, "escalated": share,
        "temperature": threshold.temperature,
    }  # fmt: skip


def collaborative(task: Task, data: Data, costs: Costs) -> tuple[Row, Row]:
    """Train members on hospitals of their own; return the ensemble's row and that of its best member."""
    models = {str(i): trained(task, data.member(i), MEMBER, data.seed * 10 + i) for i in range(MEMBERS)}
    known = {name: accuracy(probabilities(model, data.learned_on), data.learned_on) for name, model in models.items()}
    answers: dict[str, torch.Tensor | None] = {n: probabilities(model, data.test) for n, model in models.items()}
    alone = {name: accuracy(answer, data.test) for name, answer in answers.items() if answer is not None}
    missing = {**answers, max(known, key=lambda name: known[name]): None}
    row = {
        "accuracy": accuracy(combine(answers, known), data.test), "compute": float(MEMBERS),
        "bytes": MEMBERS * (costs.query + costs.chances) + costs.answer,
        "accuracy_without_best": accuracy(combine(missing, known), data.test),
        "accuracy_log_pool": accuracy(combine(answers, known, pool="log"), data.test),
    }  # fmt: skip
    return row, {"accuracy": max(alone.values()), "compute": 1.0, "bytes": costs.query + costs.answer}


def multimodal(task: Task, large: Sequence[torch.Tensor], data: Data, costs: Costs) -> tuple[Row, Row]:
    """Train the model of vitals, learn the fusion on one sample; return its row and that of vitals alone."""
    train, *others = data.vitals()
    model = trained(task, train, VITALS, data.seed)
    vitals = [probabilities(model, samples) for samples in others]
    fusion = learn_fusion(large[0], vitals[0], data.learned_on.labels)
    row = {
        "accuracy": accuracy(fuse(fusion, large[1], vitals[1]), data.test), "compute": 1.0 + costs.share("vitals"),
        "bytes": costs.query + 2 * costs.vitals_query + costs.chances + costs.answer,
        "accuracy_plain_product": accuracy(large[1] * vitals[1], data.test),
    }  # fmt: skip
    own = {"compute": costs.share("vitals"), "bytes": costs.vitals_query + costs.answer}
    return row, {"accuracy": accuracy(fuse(fusion, None, vitals[1]), data.test), **own}


def measure(seed: int, text: Task, cheap: Task, vitals: Task, costs: Costs) -> dict[str, Row]:
    """Train all models of a seed and answer by every way."""
    data = Data(text, seed)
    model, small = trained(text, data.train, LARGE, seed), trained(cheap, data.train, CHEAP, seed)
    large, little = ([probabilities(m, s) for s in (data.learned_on, data.test)] for m in (model, small))
    plain = {"compute": 1.0, "bytes": float(costs.query + costs.answer)}
    together, member = collaborative(text, data, costs)
    fused, signs = multimodal(vitals, large, data, costs)
    return {
        "single": {"accuracy": accuracy(large[1], data.test), **plain},
        "split": split(text, model, data.test, costs),
        "switched": switched(large, little, data, costs),
        "collaborative": together,
        "multimodal": fused,
        "cheap alone": {"accuracy": accuracy(little[1], data.test), **plain, "compute": costs.share("cheap")},
        "best member": member,
        "vitals alone": signs,
    }


def bars(rows: dict[str, Row]) -> dict[str, bool]:
    """Tell which bars one seed meets."""
    at = {way: row["accuracy"] for way, row in rows.items()}
    return {
        "split": abs(at["split"] - at["single"]) <= 0.002,
        "switched_accuracy": at["switched"] >= at["single"] - ALLOWED_LOSS,
        "switched_compute": rows["switched"]["compute"] <= MOST_COMPUTE,
        "collaborative": at["collaborative"] >= at["best member"],
        "multimodal": at["multimodal"] > max(at["single"], at["vitals alone"]),
    }


def table(found: dict[int, dict[str, Row]], groups: dict[str, list[int]]) -> None:
    """Print means over seeds, a line a way."""
    say(f"{'way':16}" + "".join(f"{name:>10}" for name in groups) + f"{'compute':>10}{'bytes':>8}")
    for way in (*WAYS, *OTHERS):
        means = [mean(found[seed][way]["accuracy"] for seed in seeds) for seeds in groups.values()]
        compute, size = (mean(rows[way][key] for rows in found.values()) for key in ("compute", "bytes"))
        say(f"{way:16}" + "".join(f"{value:10.4f}" for value in means) + f"{compute:10.4f}{size:8.0f}")


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.ways_offline", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--tuned", type=seed_list, default=seed_list(TUNED), help=f"seeds [default: {TUNED}]")
    parser.add_argument("--unseen", type=seed_list, default=seed_list(UNSEEN), help=f"seeds [default: {UNSEEN}]")
    args = parser.parse_args()
    torch.set_num_threads(1)
    text, cheap, vitals = VignetteTask(SPEC), CheapVignetteTask(SPEC), VitalsTask(SPEC)
    costs, started = Costs(text, cheap, vitals), time.monotonic()
    groups = {"tuned": list(args.tuned), "unseen": list(args.unseen)}
    found = {seed: measure(seed, text, cheap, vitals, costs) for seeds in groups.values() for seed in seeds}
    table(found, groups)
    met = {seed: bars(rows) for seed, rows in found.items()}
    cuts = possible_cuts(text, text.new_model(0), half=True)
    finish({
        "benchmark": "ways_offline", "flops": costs.flops, "ms": costs.ms, "link": LINK,
        "cuts": [{**msgspec.to_builtins(cut), "expected_ms": round(expected_ms(cut, **LINK), 3)} for cut in cuts],
        "seeds": {s: {w: {k: round(v, 4) for k, v in r.items()} for w, r in rows.items()} for s, rows in found.items()},
        "missed": {seed: [bar for bar, holds in held.items() if not holds] for seed, held in met.items()},
        "seconds": round(time.monotonic() - started, 1),
    })  # fmt: skip
    return 0 if all(all(held.values()) for held in met.values()) else 1


if __name__ == "__main__":
    run_main(main)
