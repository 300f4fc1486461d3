"""Which way of inference answers how well, how fast, at what cost?  On the network, with keys on.

    python -m benchmarks.ways                    # two to three minutes; the last line is JSON
    python -m benchmarks.ways --queries 400 --seed 102

Models are trained here, as in ``ways_offline``, and deployed by file through a network of three K-AS with four MDFPs,
where MDO wants them; what works together must come to different MDFPs. Every way is a class of queries; each is asked
the same unseen patients, one after the other, by four askers in turn.

Compute: operations a query as a share of the single model's, from those of each model, counted, and of the cascade the
share of queries that the large model was seen to answer. ``cpu_ms``: processor time of all MDFPs a query, as measured,
with all that an agent does besides: with models as small as these that is most of it. Bytes: Ethernet frames that
terminals put on the wire for a query: the asker's, and all between the models; not what goes to and from control
centres.

``split early`` is cut where activations are larger than a packet, to see that message in parts.

Exit status 1: the cascade loses more than ``ALLOWED_LOSS`` against the large model, or spends more than
``MOST_COMPUTE`` of its compute.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import socket
import tempfile
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch

from benchmarks.common import PROJECT, NotSeen, finish, run_main, say
from benchmarks.queries_net import kas_of, terminals
from benchmarks.standing import StandingNetwork, standing
from benchmarks.ways_net import DELAY_MS, RATE_MBPS, SHARE
from benchmarks.ways_offline import (
    ALLOWED_LOSS,
    CHEAP,
    LARGE,
    MEMBER,
    MEMBERS,
    MOST_COMPUTE,
    SPEC,
    VITALS,
    Costs,
    Data,
    accuracy,
    trained,
)
from experiments.errors import RunFailed
from hosts.inference.ways import fusion_to_bytes
from hosts.learning.task import Samples, VignetteTask, model_to_bytes
from hosts.learning.ways.calibrate import probabilities
from hosts.learning.ways.multimodal import fuse, learn_fusion
from hosts.learning.ways.pair import CheapVignetteTask
from hosts.learning.ways.split import Part, choose_cut, cut_model, possible_cuts
from hosts.learning.ways.switched import Threshold, learn_threshold
from hosts.learning.ways.vitals import VitalsTask
from packets.events import Event
from packets.labels import DCC_ADDRESS
from packets.messages import Way
from packets.queries import variant_task

SEED, QUERIES, WARM = 101, 800, 12
TASK = "vignettes"
EARLY = 1
ASK_OF = {"single": "large", "split": "split", "split early": "early", "switched": "switched",
          "collaborative": "together", "multimodal": "both"}  # fmt: skip
APART = (("switched", "large"), ("split", "upper"), ("early", "early-upper"), ("together", "member1"),
         ("together", "member2"), ("member1", "member2"), ("both", "large"), ("both", "vitals"),
         ("large", "vitals"))  # fmt: skip
READY_S = 20.0
ETH_P_ALL, PACKET_OUTGOING = 3, 4


@dataclass
class Made:
    """A model to deploy."""

    variant: str
    payload: bytes
    accuracy: float
    way: Way


class Models:
    """All that is deployed, trained and measured here; ``patients``: what is asked, by way."""

    def __init__(self, seed: int, queries: int) -> None:
        text, cheap, vitals = VignetteTask(SPEC), CheapVignetteTask(SPEC), VitalsTask(SPEC)
        self.text, self.costs, data = text, Costs(text, cheap, vitals), Data(text, seed)
        known, rng = data.learned_on, np.random.default_rng([seed, 5])
        vital_train, vital_known, vital_test = data.vitals()
        large, little = trained(text, data.train, LARGE, seed), trained(cheap, data.train, CHEAP, seed)
        signs = trained(vitals, vital_train, VITALS, seed)
        members = [trained(text, data.member(i), MEMBER, seed * 10 + i) for i in range(MEMBERS)]
        chances = probabilities(large, known)
        self.threshold = learn_threshold(
            probabilities(little, known), chances, known.labels, ALLOWED_LOSS, cheap_compute=self.costs.share("cheap")
        )
        speed = SHARE * self.costs.flops["large"] / (self.costs.ms["large"] / 1e3)
        link = {"rate_mbps": RATE_MBPS, "rtt_ms": 2 * DELAY_MS}
        self.choice = choose_cut(possible_cuts(text, large, half=True), speed, speed, **link)
        assert self.choice.cut is not None
        vital_chances = probabilities(signs, vital_known)
        fusion = learn_fusion(chances, vital_chances, known.labels)
        of_large, of_members = accuracy(chances, known), [accuracy(probabilities(m, known), known) for m in members]
        self.alone = {
            "cheap": accuracy(probabilities(little, data.test), data.test),
            "vitals": accuracy(probabilities(signs, vital_test), data.test),
            "best member": max(accuracy(probabilities(m, data.test), data.test) for m in members),
        }
        named = [f"member{i}" for i in range(1, MEMBERS)]
        self.made = [  # MDO fills the MDFPs in turn: what works together comes to different ones
            Made("switched", model_to_bytes(little), self.threshold.accuracy, _cascade(self.threshold)),
            Made("large", model_to_bytes(large), of_large, Way()),
            *_halves(*cut_model(text, large, self.choice.cut.at), self.choice.cut.at, of_large, "split", "upper"),
            Made("member1", model_to_bytes(members[1]), of_members[1], Way()),
            Made("member2", model_to_bytes(members[2]), of_members[2], Way()),
            Made("vitals", model_to_bytes(signs), accuracy(vital_chances, known), Way(model="vitals")),
            Made("together", model_to_bytes(members[0]), of_members[0], Way(kind="collaborative", asks=named)),
            Made(
                "both",
                fusion_to_bytes(fusion),
                accuracy(fuse(fusion, chances, vital_chances), known),
                Way(kind="multimodal", asks=["large", "vitals"]),
            ),
            *_halves(*cut_model(text, large, EARLY), EARLY, of_large, "early", "early-upper"),
        ]
        rows = torch.from_numpy(rng.permutation(len(data.test))[:queries])
        self.labels = [text.labels[int(n)] for n in data.test.labels[rows]]
        self.unsure = _unsure(little, data.test, self.threshold)
        self.findings = data.test.inputs[rows].tolist()
        self.vitals = vital_test.inputs[rows].tolist()

    def sample(self, way: str, number: int) -> list[float]:
        """Return a patient as a way is asked about one."""
        return [*self.findings[number], *(self.vitals[number] if way == "multimodal" else [])]

    def compute(self, way: str, sent_on: float) -> float:
        """Return operations a query as a share of the large model's; ``sent_on``: share of queries."""
        added = {"multimodal": self.costs.share("vitals"), "collaborative": MEMBERS - 1.0}
        return self.costs.share("cheap") + sent_on if way == "switched" else 1.0 + added.get(way, 0.0)


def _cascade(found: Threshold) -> Way:
    return Way(
        kind="switched", model="cheap", asks=["large"], threshold=found.value, temperature=found.temperature
    )  # fmt: skip


def _halves(lower: Part, upper: Part, at: int, of: float, below: str, above: str) -> list[Made]:
    return [
        Made(above, upper.to_bytes(), of, Way(kind="upper", cut=at, seal=upper.seal)),
        Made(below, lower.to_bytes(), of, Way(kind="lower", cut=at, seal=lower.seal, asks=[above])),
    ]


def _unsure(model: torch.nn.Module, samples: Samples, found: Threshold) -> list[float]:
    """Return the sample of which the cheap model is least sure."""
    row = int(probabilities(model, samples).max(dim=1).values.argmin())
    values: list[float] = samples.inputs[row].tolist()
    return values


# --- deployed


def deploy(network: StandingNetwork, models: Models, folder: Path) -> dict[str, str]:
    """Deploy all models, each once the map knows the one before; return the MDFP of each variant."""
    owner, at = terminals(network, "model_owner")[0], dict[str, str]()
    for made in models.made:
        file = folder / made.variant
        file.write_bytes(made.payload)
        told = network.at(
            owner, "deploy", file=str(file), variant=made.variant, way=msgspec.to_builtins(made.way),
            accuracy={"broad": round(made.accuracy, 4)},
        )  # fmt: skip
        event = network.wait_for("model.deployed", object_id=told["object_id"])
        at[made.variant] = str(event.data["node"])
        label = told["object_id"] & 0xFFF_FFFF
        network.wait_until(partial(_on_map, network, at[made.variant], label), 10.0, f"{made.variant} on the map")
    say(f"deployed: {', '.join(f'{variant} at {node}' for variant, node in at.items())}")
    if together := [pair for pair in APART if at[pair[0]] == at[pair[1]]]:
        raise NotSeen(f"these came to one MDFP, the network has no work with them: {together}")
    return at


def _on_map(network: StandingNetwork, node: str, label: int) -> Event | None:
    return next((e for e in network.events("krrm.updated", name=node) if _holds(e, label)), None)


def _holds(event: Event, label: int) -> bool:
    models = event.data["attributes"].get("models") or []
    return any(isinstance(m, dict) and m.get("label") == label for m in models)


def await_ready(network: StandingNetwork, models: Models, asker: str, at: dict[str, str]) -> None:
    """Wait until every way is answered by who has the last word in it, and by all that it takes."""
    last = {"single": "large", "split": "upper", "split early": "early-upper", "switched": "large",
            "collaborative": "together", "multimodal": "both"}  # fmt: skip
    kas = kas_of(network)
    for made, variant in ((m, v) for m in models.made for v in m.way.asks):
        network.wait_for("query.steered", READY_S, task=variant_task(TASK, variant), kas=kas[at[made.variant]])

    def answered(way: str) -> bool | None:
        sample = models.unsure if way == "switched" else models.sample(way, 0)
        try:
            told = network.at(asker, "query", task=TASK, way=ASK_OF[way], sample=sample)
        except RunFailed:  # refused: one model does not know of another yet
            return None
        return told["answered_by"] == at[last[way]] or None

    for way in ASK_OF:
        network.wait_until(partial(answered, way), READY_S, f"{way} answered by {at[last[way]]}")


# --- measured


class Wire:
    """Counts what terminals put on the wire for queries and answers, at the switches' ends of their links."""

    def __init__(self, doors: Sequence[str]) -> None:
        self.frames = self.size_bytes = 0
        self._control = socket.inet_aton(DCC_ADDRESS)
        self._sockets = [_tap(name) for name in doors]
        for one in self._sockets:
            threading.Thread(target=self._count, args=(one,), daemon=True).start()

    def _count(self, one: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                frame, about = one.recvfrom(2048)
                ipv4_udp = frame[12:14] == b"\x08\x00" and frame[23] == 17
                if about[2] == PACKET_OUTGOING or not ipv4_udp or self._control in (frame[26:30], frame[30:34]):
                    continue
                self.frames += 1
                self.size_bytes += len(frame)

    def close(self) -> None:
        for one in self._sockets:
            one.close()


def _tap(interface: str) -> socket.socket:
    one = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
    one.bind((interface, ETH_P_ALL))
    return one


@contextlib.contextmanager
def tapped(network: StandingNetwork) -> Iterator[Wire]:
    """Tap the links of askers and MDFPs."""
    plan, doors = network.events("network.up")[0].data["plan"], network.doors()
    wire = Wire([doors[h["address"]] for h in plan["hosts"] if h["role"] in ("query_owner", "mdfp")])
    try:
        yield wire
    finally:
        wire.close()


def cpu_ms(network: StandingNetwork) -> float:
    """Return the processor time of all MDFPs so far."""
    spent = [Path(f"/proc/{network.pid(m)}/stat").read_text().rpartition(")")[2] for m in terminals(network, "mdfp")]
    ticks = sum(int(words.split()[11]) + int(words.split()[12]) for words in spent)  # user and system
    return 1e3 * ticks / os.sysconf("SC_CLK_TCK")


def measure(network: StandingNetwork, models: Models, way: str, at: dict[str, str]) -> dict[str, float]:
    """Ask about all patients by a way; return its row."""
    askers, rows, count = itertools.cycle(terminals(network, "query_owner")), list[dict[str, Any]](), len(models.labels)
    ask = partial(network.at, op="query", task=TASK, way=ASK_OF[way])
    for number in range(WARM):
        ask(next(askers), sample=models.sample(way, number))
    with tapped(network) as wire:
        before_ms = cpu_ms(network)
        for number in range(count):
            rows.append(ask(next(askers), sample=models.sample(way, number)))
        spent_ms, size, frames = cpu_ms(network) - before_ms, wire.size_bytes, wire.frames
    took = np.array([r["latency_ms"] for r in rows])
    right = sum(r["answer"] == label for r, label in zip(rows, models.labels, strict=True))
    sent_on = sum(r["answered_by"] == at["large"] for r in rows) / count
    return {
        "accuracy": right / count, "p50_ms": float(np.percentile(took, 50)), "p95_ms": float(np.percentile(took, 95)),
        "bytes": size / count, "frames": frames / count, "compute": models.compute(way, sent_on),
        "cpu_ms": spent_ms / count,
    }  # fmt: skip


def table(rows: dict[str, dict[str, float]]) -> None:
    """Print a line a way."""
    names = list(next(iter(rows.values())))
    say(f"{'way':14}" + "".join(f"{name:>10}" for name in names))
    for way, row in rows.items():
        say(f"{way:14}" + "".join(f"{row[name]:10.4g}" for name in names))


def main() -> int:
    """Measure all ways, print one JSON line last."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", type=int, default=QUERIES, help=f"unseen patients a way [default: {QUERIES}]")
    parser.add_argument("--seed", type=int, default=SEED, help=f"of data and models [default: {SEED}]")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    models = Models(chosen.seed, chosen.queries)
    data = {"name": TASK, "noise": SPEC.noise, "findings_per_vignette": SPEC.findings_per_vignette,
            "train_per_node": 64, "test_per_node": 16}  # fmt: skip
    scenario = {"name": "ways", "network": {"topo": f"{PROJECT}/benchmarks/ways_net.py:ThreeKas"}, "data": data,
                "jobs": [{"task": TASK, "broad_accuracy": 0.5, "max_visits": 2}]}  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="ways") as name:
        folder = Path(name)
        with standing(scenario, folder) as network:
            at = deploy(network, models, folder)
            await_ready(network, models, terminals(network, "query_owner")[0], at)
            rows = {way: measure(network, models, way, at) for way in ASK_OF}
    table(rows)
    loss, compute = rows["single"]["accuracy"] - rows["switched"]["accuracy"], rows["switched"]["compute"]
    assert models.choice.cut is not None
    finish({
        "benchmark": "ways", "seed": chosen.seed, "queries": len(models.labels),
        "ways": {way: {key: round(value, 4) for key, value in row.items()} for way, row in rows.items()},
        "switched_loss": round(loss, 4), "switched_compute": round(compute, 4), "places": at,
        "alone": {name: round(value, 4) for name, value in models.alone.items()}, "cut": models.choice.cut.at,
        "cut_expected_ms": round(models.choice.cut_ms or 0.0, 3), "whole_expected_ms": round(models.choice.whole_ms, 3),
    })  # fmt: skip
    return 0 if loss <= ALLOWED_LOSS and compute <= MOST_COMPUTE else 1


if __name__ == "__main__":
    run_main(main)
