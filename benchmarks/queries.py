"""Queries under load: every policy that chooses the model that answers, side by side on the network.

    python -m benchmarks.queries
    python -m benchmarks.queries --seconds 20 --seeds 1 --policies qirce prequal

Four K-AS with an MDFP and two query owners each, the MDFPs of unequal speed (shares of a core), a model trained by
travelling and deployed at all four. What the four answer together at most is measured anew for each load and seed, as
a shared machine's speed drifts by more than the loads differ; every policy is asked at that share of it, by all owners
at once, open loop, while a hot spot moves from K-AS to K-AS: the same queries at the same times for each policy. The
minute of each is cut in three and the policies take turns, so that a slow minute of the machine is nobody's alone.
Latency runs from when a query was due to its answer.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.common import PROJECT, finish, run_main, say
from benchmarks.queries_net import Ends, deployed, load, terminals, trained
from benchmarks.standing import StandingNetwork, standing
from experiments.scenarios.queries import NeedSpec, QueriesSpec
from hosts.inference import asked
from hosts.learning.task_spec import TaskSpec

POLICIES = ("nearest", "random", "round-robin", "least-loaded", "two-choices", "peak-ewma", "prequal", "qirce")
LOADS = (0.5, 0.8, 0.95)
SHARES = {"mdfp1": 0.25, "mdfp2": 0.17, "mdfp3": 0.11, "mdfp4": 0.07}
TIED = 0.05
DRAIN_S = 1.5
WINDOWS = (4, 8)
HOT_PERIOD_S, HOT_PEAK = 10.0, 4.0
TURNS = 3
TASK = "own"


def scenario(spec: TaskSpec) -> dict[str, Any]:
    """Return the scenario: four K-AS in a ring with a chord."""
    common = {"mdfp": 1, "query_owner": 2}
    return {
        "name": "queries",
        "network": {
            "kas": {
                1: common | {"data": 2, "compute": 1, "mpvu": 1, "model_owner": 1}, 2: common | {"data": 1, "mpvu": 1},
                3: common, 4: common,
            },
            "wan": [
                {"a": 1, "b": 2, "rate_mbps": 50, "delay_ms": 5}, {"a": 2, "b": 3, "rate_mbps": 50, "delay_ms": 5},
                {"a": 3, "b": 4, "rate_mbps": 50, "delay_ms": 5}, {"a": 4, "b": 1, "rate_mbps": 50, "delay_ms": 5},
                {"a": 1, "b": 3, "rate_mbps": 50, "delay_ms": 8},
            ],
            "cpu_share": SHARES,
        },
        "data": msgspec.to_builtins(spec),
        "jobs": [{"task": TASK, "broad_accuracy": 0.4, "max_visits": 2}],
    }  # fmt: skip


class Bench:
    """A standing network with its model deployed, and what its MDFPs answer at most."""

    def __init__(self, network: StandingNetwork, folder: Path, spec: TaskSpec, batch: int) -> None:
        self.network, self.folder = network, folder
        self.askers = terminals(network, "query_owner")
        job = trained(network, TASK, visits=2, target=0.4)
        self.labels = deployed(network, job, len(SHARES))
        for name in self.labels:
            network.at(name, "serving", batch=batch)
        network.at(self.askers[0], "query", group="")  # from now on the models' labels lead to them from there
        self.ends = Ends(network, folder, self.askers[0], spec)

    def capacity(self, seconds: float) -> float:
        """Return the answers a second of all MDFPs together when each always has some waiting (the most seen)."""
        labels = list(self.labels.values())
        seen = [self.ends.run("flood", labels=labels, window=w * len(labels), seconds=seconds) for w in WINDOWS]
        say(f"answers a second with {WINDOWS} waiting at each: {[round(s['per_s'], 1) for s in seen]}")
        return max(float(s["per_s"]) for s in seen)

    def ask(self, policy: str, rate_per_s: float, seconds: float, seed: int, deadline_ms: int) -> list[asked.Row]:
        """Have all owners ask; return what became of every query."""
        spec = QueriesSpec(
            rate_per_s=rate_per_s, pattern="hot_spot", peak=HOT_PEAK, period_s=HOT_PERIOD_S, seconds=seconds,
            policy=policy, need=NeedSpec(deadline_ms=deadline_ms),
        )  # fmt: skip
        rows = load(self.network, self.askers, spec, seed)
        time.sleep(DRAIN_S)
        return rows


def compared(rows: dict[str, dict[str, list[asked.Row]]], deadline_ms: int) -> dict[str, Any]:
    """Return the figures of each load and policy, and the share of loads at which QIRCE is best or tied."""
    loads = {at: {p: asked.summary(r, deadline_ms) for p, r in of.items()} for at, of in rows.items()}
    best = [at for at, of in loads.items() if "qirce" in of and _best(of)]
    strictly = [at for at, of in loads.items() if "qirce" in of and _strictly(of)]
    return {"loads": loads, "qirce_best": round(len(best) / max(1, len(loads)), 3), "qirce_strictly": strictly}


def _best(of: dict[str, dict[str, Any]]) -> bool:
    ours, others = of["qirce"], [v for p, v in of.items() if p != "qirce"]
    p95 = all(ours["p95_ms"] <= (1 + TIED) * v["p95_ms"] for v in others)
    return p95 and all(ours["deadline_hits"] >= (1 - TIED) * v["deadline_hits"] for v in others)


def _strictly(of: dict[str, dict[str, Any]]) -> bool:
    ours, others = of["qirce"], [v for p, v in of.items() if p != "qirce"]
    return all(ours["p95_ms"] < v["p95_ms"] and ours["deadline_hits"] > v["deadline_hits"] for v in others)


def table(found: dict[str, Any]) -> None:
    """Print the figures, a line a load and policy."""
    for at, of in found["loads"].items():
        for policy, v in of.items():
            say(
                f"load {at}  {policy:13} p50 {v['p50_ms']:7.1f}  p95 {v['p95_ms']:7.1f}  p99 {v['p99_ms']:7.1f} ms  "
                f"in time {v['deadline_hits']:.4f}  right {v['accuracy'] or 0:.3f}  refused {v['refused']:4}  "
                f"lost {v['lost']}  of {v['asked']}"
            )


def measure(bench: Bench, chosen: argparse.Namespace, deadline_ms: int) -> dict[str, Any]:
    """Ask at each load, by each seed, with each policy (in another order by each seed)."""
    capacities: list[float] = []
    rows: dict[str, dict[str, list[asked.Row]]] = {f"{at:g}": {p: [] for p in chosen.policies} for at in chosen.loads}
    seeds = range(chosen.first_seed, chosen.first_seed + chosen.seeds)
    for turn, seed in enumerate(seeds):
        for at in chosen.loads:
            capacities.append(capacity := bench.capacity(chosen.capacity_seconds))
            say(f"capacity {capacity:.1f} queries a second")
            for part in range(TURNS):
                first = (TURNS * turn + part) % len(chosen.policies)
                for policy in [*chosen.policies[first:], *chosen.policies[:first]]:
                    part_s, part_seed = chosen.seconds / TURNS, TURNS * seed + part
                    found = bench.ask(policy, at * capacity, part_s, part_seed, deadline_ms)
                    rows[f"{at:g}"][policy] += found
                    v = asked.summary(found, deadline_ms)
                    say(
                        f"seed {seed} load {at:g} part {part + 1} of {TURNS}, {policy}: p95 {v['p95_ms']:.0f} ms, in "
                        f"time {v['deadline_hits']:.3f} (the machine's load average {os.getloadavg()[0]:.1f})"
                    )
    return compared(rows, deadline_ms) | {"capacity_per_s": [round(c, 2) for c in capacities]}


def main() -> int:
    """Measure all of it, print one JSON line last."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0, help="of each load (default 60)")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=1)
    parser.add_argument("--policies", nargs="+", default=list(POLICIES))
    parser.add_argument("--loads", nargs="+", type=float, default=list(LOADS), help="shares of the measured capacity")
    parser.add_argument("--deadline-ms", type=int, default=400)
    parser.add_argument("--batch", type=int, default=1, help="queries that an MDFP answers at once (default 1)")
    parser.add_argument("--capacity-seconds", type=float, default=10.0)
    chosen = parser.parse_args()
    own = f"{PROJECT}/benchmarks/queries_task.py:WideVignettes"
    spec = TaskSpec(name="own", own=own, alpha=1.0, train_per_node=500, findings_per_vignette=48, noise=0.6)
    with tempfile.TemporaryDirectory(prefix="queries") as name:
        folder = Path(name)
        with standing(scenario(spec), folder) as network:
            bench = Bench(network, folder, spec, chosen.batch)
            found = measure(bench, chosen, chosen.deadline_ms)
            found |= {"events": {k: len(network.events(k)) for k in ("error", "model.out", "query.unserved")}}
    table(found)
    settings = {
        "seconds": chosen.seconds, "deadline_ms": chosen.deadline_ms,
        "seeds": [chosen.first_seed, chosen.seeds], "shares": SHARES, "batch": chosen.batch,
    }  # fmt: skip
    finish(found | settings)
    return 0


if __name__ == "__main__":
    run_main(main)
