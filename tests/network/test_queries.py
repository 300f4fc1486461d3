"""Queries on the real network, shared by switches and by askers."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import pytest

from benchmarks import move
from benchmarks.queries_net import load, terminals
from benchmarks.standing import StandingNetwork
from experiments.errors import RunFailed
from experiments.scenarios.queries import QueriesSpec
from hosts.inference import asked
from packets.labels import class_label

LOAD = QueriesSpec(rate_per_s=60.0, seconds=4.0)


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StandingNetwork]:
    with move.serving(tmp_path_factory.mktemp("queries")) as (one, labels):
        one.labels = labels  # type: ignore[attr-defined]
        yield one


def labels(network: StandingNetwork) -> dict[str, int]:
    found: dict[str, int] = network.labels  # type: ignore[attr-defined]
    return found


def test_only_the_first_query_of_a_class_comes_up(network: StandingNetwork) -> None:
    asker = terminals(network, "query_owner")[0]
    first = network.at(asker, "query", group="")
    network.wait_for("query.answered", id=first["id"])  # told after whatever its packet had told
    before = len(network.events("packet.in", label=class_label("vignettes")))
    for _ in range(5):
        later = network.at(asker, "query", group="")
        assert later["answer"]
    network.wait_for("query.answered", id=later["id"])
    assert len(network.events("packet.in", label=class_label("vignettes"))) == before


@pytest.mark.parametrize("policy", ["qirce", "prequal", "group"])
def test_every_query_of_a_load_is_answered(network: StandingNetwork, policy: str) -> None:
    rows = load(network, terminals(network, "query_owner"), msgspec.structs.replace(LOAD, policy=policy), seed=1)
    found = asked.summary(rows)
    assert found["answered"] == found["asked"] > 150, found
    out = [e.data for kind in ("model.out", "model.moved", "model.retired") for e in network.events(kind)]
    assert len(found["by_model"]) == 2, f"both models are used, unless they were out: {out}"
    assert found["p50_ms"] < 200


def test_no_query_is_lost_while_a_model_moves(network: StandingNetwork) -> None:
    moved = move.moved(network, terminals(network, "query_owner")[:3], labels(network), 60.0)
    assert (moved["lost"], moved["refused"]) == (0, 0), moved


def test_what_cannot_be_served_is_refused_with_the_reason(network: StandingNetwork) -> None:
    asker = terminals(network, "query_owner")[-1]
    for need, words in (({"broad_accuracy": 0.999}, "accuracy 1.00"), ({"deadline_ms": 1}, "within 1 ms")):
        with pytest.raises(RunFailed, match=words):
            network.at(asker, "query", group="", need=need)
    with pytest.raises(RunFailed, match="own K-AS"):
        network.at(asker, "query", group="", need={"local": True})


def test_an_answer_goes_where_its_asker_wants_it(network: StandingNetwork) -> None:
    one, other = terminals(network, "query_owner")[:2]
    address = next(h["address"] for h in network.events("network.up")[0].data["plan"]["hosts"] if h["name"] == other)
    assert network.at(one, "query", group="", answer_to=address)["answered_by"] == address
    received = network.wait_for("answer.received", 5.0, node=other)
    assert received.data["answered_by"] in labels(network) and received.data["answer"]
