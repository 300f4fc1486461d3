"""Every training method on the emulated network: ten nodes, one class each, a few visits, one job after the other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from benchmarks.standing import StandingNetwork, standing
from experiments.commands.client import request
from experiments.scenarios.scenario import SCENARIO_FOLDER
from packets.events import Event
from tests.network.daitn import ROOT

VISITS = 3
FAIR = f"{ROOT / 'examples/method_fair.py'}:Fair"
DIGITS = msgspec.yaml.decode((SCENARIO_FOLDER / "digits.yaml").read_bytes())
LATE = {"replayed", "unsigned"}  # what a busy machine delivers after its answer came is a repetition, and refused


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StandingNetwork]:
    """Digits with layers to cut for ``split``, data that may move for ``central``, and a method of one's own."""
    own = {"name": "methods", "data": DIGITS["data"] | {"hidden": 16}}
    own["network"] = DIGITS["network"] | {"data_may_move": True}
    with standing(DIGITS | own, tmp_path_factory.mktemp("methods"), "--seed", "1", "--method", FAIR) as one:
        yield one


def run(network: StandingNetwork, method: str) -> tuple[dict[str, Any], list[Event]]:
    """Train by a method; return what came of the job, and the events meanwhile."""
    mark = len(network.events())
    # Trust falls where one class was learned and others forgotten: a later job is to go there all the same.
    spec = DIGITS["jobs"][0] | {"max_visits": VISITS, "method": method, "seed": 1, "trust_floor": 0.0}
    return request("submit", 120.0, quiet=True, spec=spec), network.events()[mark:]


@pytest.mark.parametrize("method", ["cycle", "tramfl"])
def test_baseline_orders_visit_node_after_node(network: StandingNetwork, method: str) -> None:
    report, _ = run(network, method)
    assert len({v["node"] for v in report["route"]}) == VISITS
    assert len(report["curve"]) > VISITS


@pytest.mark.parametrize("method", ["federated", "secure", "gossip", "central", "own"])
def test_all_members_train_together_and_an_mpvu_looks_at_the_model(network: StandingNetwork, method: str) -> None:
    report, events = run(network, method)
    trained = [e.data for e in events if e.kind == "visit.trained"]
    assert len(trained) == VISITS and {t["members"] for t in trained} == {10}
    assert all(t["samples"] > 1000 for t in trained)
    assert {v["facility"] for v in report["route"]} <= {"c1", "c2", "c3", "c4"}
    assert [e.data for e in events if e.kind == "error"] == []
    assert [e.data for e in events if e.kind == "packet.refused" and e.data["reason"] not in LATE] == []
    assert report["accuracy"]["broad"] > 0.1
    if method == "federated":
        names_no_foreign_node(events)


def names_no_foreign_node(events: list[Event]) -> None:
    """The leader learns places, not names: an order's members are handles that only their own K-AS resolves."""
    steered = [e.data for e in events if e.kind == "object.steered" and e.data["purpose"] == "exchange"]
    assert {d["kas"] for d in steered if d["node"].startswith("h")} == {1, 2, 3, 4}
    for data in steered:
        assert not data["node"] or data["node"][1] == str(data["kas"])


def test_a_split_model_learns_over_straight_transfers(network: StandingNetwork) -> None:
    _, events = run(network, "split")
    trained = [e.data for e in events if e.kind == "visit.trained"]
    assert len(trained) == VISITS and all(t["loss"] > 0 for t in trained)
    announced = [e for e in events if e.kind == "object.steered" and e.data["purpose"] == "exchange"]
    arrived = [e for e in events if e.kind == "object.arrived" and e.data["visit"] > 0 and e.data["node"][0] == "h"]
    assert announced and len(arrived) >= VISITS * 10  # gradients, straight to the nodes' addresses
