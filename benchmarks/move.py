"""Models that move, die and stall under load: is a query lost, how long is one late?

    python -m benchmarks.move

Three K-AS with an MDFP each, a model deployed at two of them, two hundred queries a second from three owners. In turn:
the model is moved from one MDFP to the idle third; the agent of one is killed (SIGKILL), then another's is stopped
(SIGSTOP) for a while. A query counts as lost when it never gets an answer. And Q-FAM refuses what cannot be served.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import finish, run_main, say
from benchmarks.queries_net import begin, deployed, ended, terminals, trained
from benchmarks.standing import StandingNetwork, standing
from experiments.errors import RunFailed
from experiments.load import AHEAD_S
from experiments.scenarios.queries import QueriesSpec
from hosts.inference import asked

TASK = "vignettes"
RATE_PER_S = 200.0
BEFORE_S, AFTER_S = 4.0, 8.0
STALL_S = 2.0
AROUND_S = 3.0
SCENARIO = {
    "name": "move",
    "network": {
        "kas": {
            1: {"data": 2, "compute": 1, "mpvu": 1, "mdfp": 1, "model_owner": 1, "query_owner": 1},
            2: {"data": 1, "mpvu": 1, "mdfp": 1, "query_owner": 1},
            3: {"mdfp": 1, "query_owner": 1},
            4: {"query_owner": 1},
        },
        "wan": [
            {"a": 1, "b": 2, "rate_mbps": 50, "delay_ms": 3},
            {"a": 2, "b": 3, "rate_mbps": 50, "delay_ms": 3},
            {"a": 3, "b": 1, "rate_mbps": 50, "delay_ms": 3},
            {"a": 4, "b": 1, "rate_mbps": 50, "delay_ms": 3},
        ],
    },
    "data": {"name": TASK, "alpha": 1.0},
    "jobs": [{"task": TASK, "broad_accuracy": 0.5, "max_visits": 2}],
}  # fmt: skip
IMPOSSIBLE = {
    "accuracy": {"broad_accuracy": 0.999},
    "deadline": {"deadline_ms": 1},
    "reachability": {"local": True},
}


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[tuple[StandingNetwork, dict[str, int]]]:
    """Have the network up with a model deployed at two of the three MDFPs; yield it, and the model's labels by MDFP."""
    with standing(SCENARIO, folder) as network:
        yield network, deployed(network, trained(network), 2)


def under_load(
    network: StandingNetwork, askers: list[str], rate_per_s: float, act: Callable[[], None], seed: int
) -> tuple[list[asked.Row], float]:
    """Ask for some seconds, do something in the midst; return the rows and when that was, on their time."""
    begin(network, askers, QueriesSpec(rate_per_s=rate_per_s, seconds=BEFORE_S + AFTER_S), seed)
    began_s = time.monotonic() + AHEAD_S
    time.sleep(AHEAD_S + BEFORE_S)
    at_s = time.monotonic() - began_s
    act()
    time.sleep(max(0.0, BEFORE_S + AFTER_S - (time.monotonic() - began_s)))
    return ended(network, askers), at_s


def figures(name: str, rows: list[asked.Row], at_s: float) -> dict[str, Any]:
    """Return what was lost, and how late queries were before and around what happened."""
    calm = [r.latency_ms for r in rows if r.outcome == "answered" and 1.0 < r.at_s < at_s - 0.5]
    around = [r.latency_ms for r in rows if r.outcome == "answered" and at_s - 0.5 < r.at_s < at_s + AROUND_S]
    whole = asked.summary(rows)
    found = {
        "asked": len(rows), "lost": whole["lost"], "refused": whole["refused"],
        "p99_before_ms": round(float(np.percentile(calm, 99)), 2),
        "p99_around_ms": round(float(np.percentile(around, 99)), 2),
        "recovery_s": round(max(around) / 1e3, 3), "by_model": whole["by_model"],
    }  # fmt: skip
    say(f"{name}: {found}")
    return found


def moved(network: StandingNetwork, askers: list[str], labels: dict[str, int], rate_per_s: float) -> dict[str, Any]:
    """Move a model from one MDFP to the idle one."""
    owner, source = terminals(network, "model_owner")[0], next(iter(labels))
    target = next(n for n in terminals(network, "mdfp") if n not in labels)
    place = f"{_kas(network, target)}:@mdfp/0"

    def act() -> None:
        network.at(owner, "move", label=labels[source], to=place)

    rows, at_s = under_load(network, askers, rate_per_s, act, seed=1)
    event = network.wait_for("model.moved", 20.0)
    retired = network.wait_for("model.retired", 20.0)
    labels[target] = int(event.data["new_label"])
    del labels[source]
    spent = {"move_s": event.data["seconds"], "retired_after_s": round(retired.t_unix_s - event.t_unix_s, 2)}
    return figures(f"moved from {source} to {target}", rows, at_s) | spent


def _kas(network: StandingNetwork, name: str) -> int:
    plan = network.events("network.up")[0].data["plan"]
    return next(int(h["kas"]) for h in plan["hosts"] if h["name"] == name)


def stopped(network: StandingNetwork, askers: list[str], labels: dict[str, int], rate_per_s: float) -> dict[str, Any]:
    """Stop the agent of an MDFP for a while; it says nothing, its host says nothing either."""
    name = next(iter(labels))
    pid, before = network.pid(name), len(network.events("model.out"))
    since = [0.0]

    def act() -> None:
        os.kill(pid, signal.SIGSTOP)
        since[0] = time.time()
        time.sleep(STALL_S)
        os.kill(pid, signal.SIGCONT)

    rows, at_s = under_load(network, askers, rate_per_s, act, seed=2)
    out = [e for e in network.events("model.out")[before:] if e.data["node"] == name]
    out_ms = (out[0].t_unix_s - since[0]) * 1e3 if out else None
    return figures(f"{name} stopped for {STALL_S:g} s", rows, at_s) | {"out_ms": out_ms and round(out_ms, 1)}


def killed(network: StandingNetwork, askers: list[str], labels: dict[str, int], rate_per_s: float) -> dict[str, Any]:
    """End the agent of an MDFP by SIGKILL."""
    name = next(iter(labels))
    rows, at_s = under_load(network, askers, rate_per_s, lambda: _kill(network, name), seed=3)
    return figures(f"{name} killed", rows, at_s)


def _kill(network: StandingNetwork, name: str) -> None:
    network.kill(name)


def rejected(network: StandingNetwork, asker: str) -> dict[str, str]:
    """Ask for what cannot be had; return Q-FAM's words."""
    words: dict[str, str] = {}
    for what, need in IMPOSSIBLE.items():
        try:
            network.at(asker, "query", task=TASK, group="", need=need)
            words[what] = "answered"
        except RunFailed as error:
            words[what] = str(error)
        say(f"{what}: {words[what]}")
    return words


def main() -> int:
    """Do all of it, print one JSON line last."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=float, default=RATE_PER_S, help="queries a second (default 200)")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="move") as name, serving(Path(name)) as (network, labels):
        askers = terminals(network, "query_owner")
        asking = askers[:3]
        refusals = rejected(network, askers[-1])
        move = moved(network, asking, labels, chosen.rate)
        stall = stopped(network, asking, labels, chosen.rate)
        kill = killed(network, asking, labels, chosen.rate)
    finish({
        "lost": sum(part["lost"] + part["refused"] for part in (move, stall, kill)),
        "recovery_s": kill["recovery_s"], "p99_move_ms": move["p99_around_ms"], "p99_before_move_ms":
        move["p99_before_ms"], "stall_out_ms": stall["out_ms"], "stall_recovery_s": stall["recovery_s"],
        "move": move, "stall": stall, "kill": kill, "rejected": refusals,
    })  # fmt: skip
    return 0


if __name__ == "__main__":
    run_main(main)
