"""One query of many samples: when its first answers come and its last, beside the same samples asked one by one.

    python -m benchmarks.streams

Four K-AS, a model deployed at two of three MDFPs, the asker in the K-AS without one. The same samples as one stream
and as single queries, each after the answer to the one before; as many as open-loop loads, one at the stream's own
rate; what a stream of one asker costs the queries of others; and a stream over links that lose packets, with the MDFP
that answers it killed in the middle.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import random
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks.common import finish, run_main, say
from benchmarks.move import SCENARIO
from benchmarks.queries_net import deployed, load, terminals, trained
from benchmarks.standing import StandingNetwork, standing
from experiments.scenarios.queries import QueriesSpec
from hosts.inference import asked
from hosts.learning.task import load_task
from hosts.learning.task_spec import TaskSpec

SAMPLES, ROUNDS = 400, 5
LOSS_PERCENT = 3.0
OPEN_LOOP_PER_S = 200.0  # of one asker, what it can bear; the other load is at the stream's own rate
NEXT_S = 40.0
Answers = list[dict[str, Any]]


@contextlib.contextmanager
def serving(
    folder: Path, loss_percent: float = 0.0, replicas: int = 2
) -> Iterator[tuple[StandingNetwork, dict[str, int]]]:
    """Have the network up with a model deployed at MDFPs, its WAN losing packets; yield it, and labels by MDFP."""
    scenario = copy.deepcopy(SCENARIO)
    for link in scenario["network"]["wan"]:  # type: ignore[index]
        link["loss_percent"] = loss_percent
    with standing(scenario | {"name": "streams"}, folder) as network:
        yield network, deployed(network, trained(network), replicas)


def taken(
    network: StandingNetwork, asker: str, on_answers: Callable[[Answers], None] = lambda answers: None, **wanted: Any
) -> dict[str, Any]:
    """Put a stream at an asker and take its answers as they come; return its figures, and all ``answers``."""
    begun, answers = network.at(asker, "stream", **wanted), Answers()
    while True:
        found = network.at(asker, "stream_next", timeout_s=NEXT_S, id=begun["id"])
        answers += found["answers"]
        if found["over"]:
            return found | {"answers": answers}
        on_answers(answers)


def one_by_one(network: StandingNetwork, asker: str, samples: Sequence[Sequence[float]]) -> list[float]:
    """Put single queries, each once the one before is answered; return their latencies, as their asker sees them."""
    return [network.at(asker, "query", sample=sample)["latency_ms"] for sample in samples]


def compared(network: StandingNetwork, asker: str, samples: list[list[float]], rounds: int) -> dict[str, Any]:
    """Ask the same samples in each manner, in turn; return medians over the rounds."""
    streams, first, whole = list[dict[str, Any]](), list[float](), list[float]()
    for number in range(rounds):
        streams.append(taken(network, asker, samples=samples))
        began_s = time.perf_counter()
        singles = one_by_one(network, asker, samples)
        first.append(singles[0])
        whole.append((time.perf_counter() - began_s) * 1e3)
        say(f"round {number + 1}: stream {streams[-1]['latency_ms']:.0f} ms, one by one {whole[-1]:.0f} ms")
    stream_ms = statistics.median(s["latency_ms"] for s in streams)
    rate_per_s = len(samples) / stream_ms * 1e3
    return {
        "samples": len(samples), "parts": streams[0]["parts"], "answered": min(s["answered"] for s in streams),
        "first_ms": round(statistics.median(s["first_ms"] for s in streams), 2), "all_ms": round(stream_ms, 1),
        "samples_per_s": round(rate_per_s, 1), "single_first_ms": round(statistics.median(first), 2),
        "one_by_one_ms": round(statistics.median(whole), 1),
        "open_loop": [open_loop(network, asker, rate, len(samples)) for rate in (OPEN_LOOP_PER_S, rate_per_s)],
    }  # fmt: skip


def open_loop(network: StandingNetwork, asker: str, rate_per_s: float, samples: int) -> dict[str, Any]:
    """Ask about as many samples as single queries at a rate, whatever becomes of any; return what came of them."""
    spec = QueriesSpec(rate_per_s=rate_per_s, seconds=max(0.2, samples / rate_per_s), policy="group")
    rows = load(network, [asker], spec, seed=1)
    whole = asked.summary(rows)
    found = {k: whole[k] for k in ("asked", "answered", "refused", "lost", "p50_ms", "p99_ms")} | {
        "rate_per_s": round(rate_per_s, 1), "all_ms": round(max(r.at_s * 1e3 + r.latency_ms for r in rows), 1),
    }  # fmt: skip
    say(f"as an open-loop load: {found}")
    return found


def meanwhile(
    network: StandingNetwork, asker: str, others: Sequence[str], samples: list[list[float]]
) -> dict[str, Any]:
    """Have other askers put single queries, without a stream and while one is answered; return the latencies of those
    that the stream's model answered.
    """
    alone, beside, over = list[dict[str, Any]](), list[dict[str, Any]](), threading.Event()
    for other in others:
        alone += [network.at(other, "query", sample=sample) for sample in samples[:20]]

    def ask(other: str) -> None:
        while not over.is_set():
            answer = network.at(other, "query", sample=samples[0])
            if not over.is_set():
                beside.append(answer)

    with ThreadPoolExecutor(len(others)) as pool:
        asking = [pool.submit(ask, other) for other in others]
        try:
            stream = taken(network, asker, samples=(samples * 3)[:1000])
        finally:
            over.set()
        for one in asking:
            one.result()
    own = [[a["latency_ms"] for a in asked_so if a["answered_by"] in stream["models"]] for asked_so in (alone, beside)]
    found = {
        "alone_p50_ms": round(statistics.median(own[0]), 2) if own[0] else None,
        "beside_p50_ms": round(statistics.median(own[1]), 2) if own[1] else None,
        "beside_most_ms": round(max(own[1], default=0.0), 2), "queries": len(own[1]), "of_all": len(beside),
        "stream_ms": round(stream["latency_ms"], 1), "samples": stream["answered"],
    }  # fmt: skip
    say(f"queries beside a stream: {found}")
    return found


def killed(network: StandingNetwork, asker: str, samples: list[list[float]]) -> dict[str, Any]:
    """Kill the MDFP that answers once a quarter of the answers are handed out; return what came, from whom, when."""
    dead: list[tuple[str, int]] = []

    def kill(answers: Answers) -> None:
        if not dead and len(answers) >= len(samples) / 4:
            dead.append((answers[-1]["answered_by"], len(answers)))
            network.kill(dead[0][0])

    found = taken(network, asker, kill, samples=samples)
    times, numbers = [a["after_ms"] for a in found["answers"]], [a["number"] for a in found["answers"]]
    name, killed_at = dead[0]
    of_killed = [a["number"] for a in found["answers"] if a["answered_by"] == name]
    result = {
        "answered": found["answered"], "in_order": numbers == list(range(1, len(samples) + 1)),
        "killed": name, "killed_at": killed_at, "models": found["models"],
        "last_of_killed": max(of_killed), "all_ms": round(found["latency_ms"], 1),
        "gap_ms": round(max(after - before for before, after in pairwise(times)), 1),
        "asked_again": found["asked_again"],
    }  # fmt: skip
    say(f"killed in the middle: {result}")
    return result


def drawn(count: int) -> list[list[float]]:
    """Return samples of all groups."""
    task, rng = load_task(TaskSpec(name="vignettes")), random.Random(1)
    return [[float(x) for x in task.sample_of("", rng)[0]] for _ in range(count)]


def main() -> int:
    """Do all of it, print one JSON line last."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=SAMPLES, help=f"of a stream, 8 to 1000 (default {SAMPLES})")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"of the comparison (default {ROUNDS})")
    chosen = parser.parse_args()
    samples = drawn(max(8, min(1000, chosen.samples)))
    with tempfile.TemporaryDirectory(prefix="streams") as name, serving(Path(name)) as (network, _):
        *others, asker = terminals(network, "query_owner")
        comparison = compared(network, asker, samples, max(1, chosen.rounds))
        fairness = meanwhile(network, asker, others, samples)
    with tempfile.TemporaryDirectory(prefix="streams") as name, serving(Path(name), LOSS_PERCENT) as (network, _):
        kill = killed(network, terminals(network, "query_owner")[-1], samples)
    finish({
        "first_ms": comparison["first_ms"], "all_ms": comparison["all_ms"], "one_by_one_ms":
        comparison["one_by_one_ms"], "times_faster": round(comparison["one_by_one_ms"] / comparison["all_ms"], 2),
        "comparison": comparison, "meanwhile": fairness, "killed": kill | {"loss_percent": LOSS_PERCENT},
    })  # fmt: skip
    return 0


if __name__ == "__main__":
    run_main(main)
