"""A query of many samples on the real network: over links that lose packets, beside other queries, past a death."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks import streams
from benchmarks.queries_net import terminals
from benchmarks.standing import StandingNetwork

SAMPLES = 600


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StandingNetwork]:
    with streams.serving(tmp_path_factory.mktemp("streams"), loss_percent=3.0) as (one, _):
        yield one


def test_a_stream_over_a_lossy_wan_is_whole_and_in_order(network: StandingNetwork) -> None:
    asker = terminals(network, "query_owner")[-1]
    found = streams.taken(network, asker, count=SAMPLES)
    assert [a["number"] for a in found["answers"]] == list(range(1, SAMPLES + 1))
    assert (found["answered"], found["refused"], found["parts"]) == (SAMPLES, 0, SAMPLES / 8)
    assert len(found["models"]) == 1, "a stream stays with who answered its first part"
    assert found["asked_again"] > 0, "150 packets over a link that loses 3 in 100"
    assert found["right"] == sum(a["answer"] == a["expected"] for a in found["answers"]) > SAMPLES / 3
    assert found["first_ms"] < found["latency_ms"] / 3
    told = network.wait_for("query.answered", 5.0, id=found["id"])
    assert (told.data["parts"], told.data["right"]) == (SAMPLES / 8, found["right"])


def test_a_small_query_is_answered_long_before_a_stream_ends(network: StandingNetwork) -> None:
    one, *_, asker = terminals(network, "query_owner")
    network.at(one, "query", group="")  # its class is open
    answered: list[tuple[float, dict[str, Any]]] = []
    stream = threading.Thread(target=lambda: streams.taken(network, asker, at_once, count=1000))
    began = threading.Event()

    def at_once(answers: streams.Answers) -> None:
        began.set()

    stream.start()
    assert began.wait(10.0)
    for _ in range(3):
        answer = network.at(one, "query", group="")
        answered.append((time.monotonic(), answer))
    assert stream.is_alive(), "all three were answered before the stream was"
    stream.join(60.0)
    over_s = time.monotonic()
    assert all(answer["answer"] for _, answer in answered)
    assert over_s - answered[0][0] > 3 * answered[0][1]["latency_ms"] / 1e3


def test_the_rest_comes_from_the_other_replica_in_order_when_one_dies(tmp_path: Path) -> None:
    with streams.serving(tmp_path, loss_percent=1.0) as (network, labels):
        asker = terminals(network, "query_owner")[-1]
        found = streams.killed(network, asker, streams.drawn(SAMPLES))
        assert found["in_order"] and found["answered"] == SAMPLES, found
        assert found["models"].keys() == labels.keys() and sum(found["models"].values()) == SAMPLES, found
        assert found["models"][found["killed"]] >= SAMPLES / 4 and found["gap_ms"] < 5000, found
        (event,) = network.events("query.answered")[-1:]
        assert set(event.data["answered_by"].split(", ")) == set(labels)
