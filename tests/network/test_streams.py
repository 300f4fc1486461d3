"""A query of many samples on the real network: over links that lose packets, and beside other queries."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from benchmarks import streams
from benchmarks.queries_net import terminals
from benchmarks.standing import StandingNetwork

SAMPLES = 600


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StandingNetwork]:
    with streams.serving(tmp_path_factory.mktemp("streams"), loss_percent=5.0, replicas=1) as (one, _):
        yield one


def test_a_stream_over_a_lossy_wan_is_whole_and_in_order(network: StandingNetwork) -> None:
    asker = terminals(network, "query_owner")[-1]
    found = streams.taken(network, asker, count=SAMPLES)
    assert [a["number"] for a in found["answers"]] == list(range(1, SAMPLES + 1))
    assert (found["answered"], found["refused"], found["parts"]) == (SAMPLES, 0, SAMPLES / 8)
    assert found["asked_again"] > 0, "150 packets over a link that loses 5 in 100"
    assert found["right"] == sum(a["answer"] == a["expected"] for a in found["answers"]) > SAMPLES / 3
    assert len({a["after_ms"] for a in found["answers"]}) >= 10, "they come as they are computed, not all at the end"
    told = network.wait_for("query.answered", 5.0, id=found["id"])
    assert (told.data["parts"], told.data["right"]) == (SAMPLES / 8, found["right"])


def test_a_small_query_is_answered_long_before_a_stream_ends(network: StandingNetwork) -> None:
    one, *_, asker = terminals(network, "query_owner")
    found = streams.meanwhile(network, asker, [one], streams.drawn(400))
    assert found["samples"] == 1000 and found["queries"] >= 3, found
    assert found["beside_p50_ms"] < found["stream_ms"] / 4, found
