"""What steering costs queries, what their classes cost switches, and how many a second go through.

    python -m benchmarks.steer

One network: four switches in a line, askers at each, MDFPs at the far end of the first. In one run: a query through its
class's label, its model's label and the MDFP's own address, by turns; 500 classes, each first query decided, installed
at four switches and confirmed by barriers; queries a second through one MDFP and through four, beside a Flask and a
gRPC service of the same model at the same place. A second network has 200 askers, for the rules that 500 classes take.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np

from benchmarks.common import PROJECT, finish, run_main, say
from benchmarks.queries_net import Ends, deployed, terminals, trained
from benchmarks.standing import StandingNetwork, standing
from hosts.learning.task_spec import TaskSpec
from packets.labels import class_label
from packets.messages import Need
from packets.queries import query_label

TASK: Literal["vignettes"] = "vignettes"
SPEC = TaskSpec(name=TASK, alpha=1.0)
SCENARIO = {
    "name": "steer",
    "network": {"topo": f"{PROJECT}/benchmarks/steer_net.py:FourSwitches"},
    "data": {"name": TASK, "alpha": 1.0},
    "jobs": [{"task": TASK, "broad_accuracy": 0.5, "max_visits": 2}],
}
ASKER, BIG, SMALL = "a1n1", "big", ("m1", "m2", "m3", "m4")
PORT = 8123
WINDOW = 64
SECOND_QUERIES = 20
MANY_UP_S = 240.0


def cost(ends: Ends, labels: dict[str, int], count: int) -> dict[str, Any]:
    """Compare a query's ways; and see that the second query of a class makes no packet-in."""
    took = ends.run("pairs", server=ends.address[BIG], label=labels[BIG], class_label=class_label(TASK), count=count)
    say(f"median, p95 (ms): class {took['class']}, model {took['model']}, MDFP's address {took['direct']}")
    return {
        "ratio_label_vs_direct": round(took["class"][0] / took["direct"][0], 4),
        "ratio_model_label_vs_direct": round(took["model"][0] / took["direct"][0], 4),
        "class_ms": took["class"], "model_ms": took["model"], "direct_ms": took["direct"],
    }  # fmt: skip


def seconds_make_no_packet_in(network: StandingNetwork) -> int:
    """Return how many packet-ins a class's further queries made, from the asker of the first and from another."""
    for name in (ASKER, "a3n1"):
        network.at(name, "query", task=TASK, group="")
    time.sleep(0.3)
    label = class_label(TASK)
    before = len(network.events("packet.in", label=label))
    for _ in range(SECOND_QUERIES):
        for name in (ASKER, "a3n1"):
            network.at(name, "query", task=TASK, group="")
    time.sleep(0.3)
    return len(network.events("packet.in", label=label)) - before


def classes(network: StandingNetwork, count: int) -> dict[str, Any]:
    """Ask the first query of so many classes; return the time of decision and installation, by the control centre."""
    already, first_ms = len(network.events("query.steered")), []
    for number in range(count):
        need = {"deadline_ms": 600_000 + number}
        first_ms.append(network.at(ASKER, "query", task=TASK, group="", need=need)["latency_ms"])
    time.sleep(0.5)
    steered = network.events("query.steered")[already:]
    first = [e for e in steered if e.data.get("first")]
    took = np.array([e.data["took_ms"] for e in first])
    switches = {len(e.data["switches"]) for e in first}
    say(f"{len(first)} classes at {switches} switches: p50 {np.percentile(took, 50):.2f} ms")
    return {
        "classes": len(first), "switches": max(switches, default=0),
        "install_p50_ms": round(float(np.percentile(took, 50)), 3),
        "install_p99_ms": round(float(np.percentile(took, 99)), 3),
        "first_query_p50_ms": round(float(np.percentile(first_ms, 50)), 3),
        "first_query_p99_ms": round(float(np.percentile(first_ms, 99)), 3),
    }  # fmt: skip


def rules(network: StandingNetwork) -> dict[str, dict[str, int]]:
    """Return the rules and groups of each switch, and those of the table of labels."""
    found = {}
    for switch in ("s1", "s2", "s3", "s4"):
        flows = _ovs("dump-flows", switch).splitlines()[1:]
        groups = _ovs("dump-groups", switch).splitlines()[1:]
        labels = sum("table=3" in line for line in flows)
        found[switch] = {"rules": len(flows), "label_rules": labels, "groups": len(groups)}
    return found


def _ovs(what: str, switch: str) -> str:
    words = ["ovs-ofctl", "-O", "OpenFlow13", what, switch]
    return subprocess.run(words, capture_output=True, text=True, timeout=20, check=True).stdout


def rates(ends: Ends, labels: dict[str, int], model: Path, seconds: float) -> dict[str, Any]:
    """Return the queries a second of ours, HTTP and gRPC, by turns; and of one small MDFP and of four."""
    window, small = WINDOW, [labels[n] for n in SMALL]
    best: dict[str, list[float]] = {"ours": [], "http": [], "grpc": []}
    for _ in range(2):
        ours = ends.run("flood", labels=[labels[BIG]], window=window, seconds=seconds)
        best["ours"].append(ours["per_s"])
        for name in ("http", "grpc"):
            with ends.server(f"serve_{name}", BIG, PORT, model):
                other = ends.run(f"ask_{name}", server=ends.address[BIG], port=PORT, window=window, seconds=seconds)
                best[name].append(other["per_s"])
    say(f"queries a second at one core: {best}")
    one = ends.run("flood", labels=small[:1], window=16, seconds=seconds)["per_s"]
    four = ends.run("flood", labels=small, window=64, seconds=seconds)["per_s"]
    say(f"queries a second at MDFPs of a slice: one {one:.0f}, four {four:.0f}")
    mean = {name: sum(values) / len(values) for name, values in best.items()}
    return {
        "qps_vs_flask": round(mean["ours"] / mean["http"], 3), "qps_vs_grpc": round(mean["ours"] / mean["grpc"], 3),
        "qps": {name: round(value, 1) for name, value in mean.items()},
        "scaling_4": round(four / one, 3), "qps_one_slice": round(one, 1), "qps_four_slices": round(four, 1),
    }  # fmt: skip


def many_askers(folder: Path, count: int, askers: int) -> dict[str, Any]:
    """With 200 askers: rules a switch after so many classes, and packet-ins of all askers after their first queries."""
    scenario = SCENARIO | {"network": {"topo": f"{PROJECT}/benchmarks/steer_net.py:ManyAskers"}}
    with standing(_scenario(scenario, folder, "many"), folder / "many", timeout_s=MANY_UP_S) as network:
        deployed(network, trained(network), 5)
        bare = rules(network)
        measured = classes(network, count)
        names, rng = terminals(network, "query_owner")[:askers], random.Random(1)
        before = len(network.events("packet.in"))
        for name in names:
            for _ in range(3):
                need = {"deadline_ms": 600_000 + rng.randrange(count)}
                network.at(name, "query", task=TASK, group="", need=need)
        time.sleep(0.5)
        labels = {query_label(TASK, Need(deadline_ms=600_000 + n)) for n in range(count)}
        packet_ins = sum(e.data.get("label") in labels for e in network.events("packet.in")[before:])
        full = rules(network)
    most = max(full, key=lambda s: full[s]["rules"])
    say(f"rules a switch: {bare[most]} before, {full[most]} after {count} classes and {len(names)} askers")
    return {
        "rules_500x200": full[most]["rules"] - bare[most]["rules"], "groups_500x200": full[most]["groups"],
        "rules_before": bare[most]["rules"], "packet_ins_of_200_askers": packet_ins,
        "install_p50_ms_200": measured["install_p50_ms"], "install_p99_ms_200": measured["install_p99_ms"],
    }  # fmt: skip


def _scenario(scenario: dict[str, Any], folder: Path, name: str) -> Path:
    """Write a scenario into a folder of its own, where its network's results go, too."""
    (folder / name).mkdir()
    file = folder / name / f"{name}.yaml"
    file.write_bytes(msgspec.yaml.encode(scenario))
    return file


def main() -> int:
    """Measure all of it, print one JSON line last."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--classes", type=int, default=500)
    parser.add_argument("--askers", type=int, default=200)
    parser.add_argument("--pairs", type=int, default=400)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--only", choices=("one", "many"), default="")
    chosen = parser.parse_args()
    result: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="steer") as name:
        folder = Path(name)
        if chosen.only != "many":
            with standing(_scenario(SCENARIO, folder, "four"), folder / "four") as network:
                job = trained(network)
                labels = deployed(network, job, 1)  # MDO has it at the one with a whole core
                model = next((network.runtime / "owner").rglob("model.safetensors"))
                ends = Ends(network, folder, ASKER, SPEC)
                result["second_query_packet_ins"] = seconds_make_no_packet_in(network)
                result |= cost(ends, labels, chosen.pairs)
                labels |= deployed(network, job, 4)
                network.at(ASKER, "query", task=TASK, group="", need={"deadline_ms": 1_000_000})
                result |= rates(ends, labels, model, chosen.seconds)
                result |= classes(network, chosen.classes)
        if chosen.only != "one":
            result |= many_askers(folder, chosen.classes, chosen.askers)
    finish(result)
    return 0


if __name__ == "__main__":
    run_main(main)
