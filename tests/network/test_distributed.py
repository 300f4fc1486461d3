"""Distributed K-AS on the real network: terminals gossip, and who holds a model says where it trains next."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from benchmarks.standing import StandingNetwork, standing
from experiments.commands.client import request
from experiments.scenarios.scenario import SCENARIO_FOLDER
from packets.events import Event
from tests.network.daitn import daitn

TARGETS = {"broad_accuracy": 0.8, "expert_group": "cardiology", "expert_accuracy": 0.95, "max_visits": 6}
EASY = {"broad_accuracy": 0.4, "expert_group": None, "expert_accuracy": 0.0, "max_visits": 4, "deadline_s": 90.0}
MET = ("data", "compute")


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StandingNetwork]:
    folder = tmp_path_factory.mktemp("distributed")
    content = msgspec.yaml.decode((SCENARIO_FOLDER / "healthcare.yaml").read_bytes())
    kinds = {kas: {"kind": "distributed"} for kas in (1, 2, 3, 4)}
    with standing(content | {"name": "distributed", "seed": 1, "kas": kinds}, folder) as net:
        yield net


def decided(network: StandingNetwork, object_id: int) -> list[Any]:
    """Who said where a job trains, stop by stop (None: the control centre of its home)."""
    return [e.data["by"] for e in network.events("job.decided", object_id=object_id, action="train")]


def test_a_job_is_led_by_its_holders_to_its_targets(network: StandingNetwork, tmp_path: Path) -> None:
    mark = len(network.events("job.finished"))
    ended = request("submit", 120.0, spec={**TARGETS, "deadline_s": 170.0, "seed": 1})
    assert ended["targets_met"], ended
    object_id = network.events("job.finished")[mark].data["object_id"]
    by = decided(network, object_id)
    assert by and all(b["terminal"] == "holder" for b in by), by
    said = network.events("holder.decided", object_id=object_id)
    assert said[0].data["node"] == "owner1" and {e.data["node"] for e in said[1:]} <= {"mpvu2", "mpvu4"}
    assert all(0 < e.data["took_ms"] < 2000 for e in said)
    ages = [a for e in network.events("job.decided", object_id=object_id) for a in e.data["ages"].values()]
    assert ages and 0 < max(ages) < 20, "no record is older than what is held to be so"
    told = daitn("explain", f"{object_id:x}", "--folder", str(network.folder), cwd=tmp_path)
    assert "decided by owner1, which held it, of K-AS 1, after " in told.out, told


def test_every_terminal_of_a_k_as_has_heard_of_all_its_data_and_compute_and_no_control_centre_has(
    network: StandingNetwork,
) -> None:
    hosts = network.events("network.up")[0].data["plan"]["hosts"]
    met = {h["name"] for h in hosts if h["kas"] == 2 and h["role"] in MET}
    dead = {e.data["name"] for e in network.events("agent.gone")}

    def heard(name: str) -> dict[str, float]:
        return dict(network.state(name)["gossip"]["ages_s"])

    for name in ("h21", "mpvu2"):
        if name not in dead:
            network.wait_until(lambda n=name: set(heard(n)) == met - dead or None, 15.0, f"all of it at {name}")  # type: ignore[misc]
            assert max(heard(name).values()) < 20.0
    told = [e.data for e in network.events("krrm.updated") if e.data["role"] in MET]
    assert {a for data in told for a in data["attributes"]} <= {"reachable", "trust", "group_shares", "quality"}


def test_a_terminal_that_dies_before_it_has_decided_is_stepped_over(network: StandingNetwork) -> None:
    ended: dict[str, Any] = {}
    began = time.time()
    spec = {**EASY, "seed": 3, "hyper": {"verify_every": 2}}
    job = threading.Thread(target=lambda: ended.update(request("submit", 120.0, spec=spec)))
    job.start()

    def at_work() -> Event | None:
        return next((e for e in network.events("agent.state", state="training") if e.t_unix_s > began), None)

    training = network.wait_until(at_work, 30.0, "a node that trains, and thinks of where it goes then")
    object_id = training.data["object_id"]
    died = network.kill(training.data["name"])

    def anew() -> Event | None:
        return next((e for e in network.events("holder.decided", object_id=object_id) if e.t_unix_s > died), None)

    again = network.wait_until(anew, 10.0, "another decision")
    assert (again.data["visit"], again.data["holder"]) == (0, "owner1")
    assert again.t_unix_s - died < 3.0
    job.join(100.0)
    assert ended["targets_met"], ended
    assert training.data["name"] not in [stop["node"] for stop in ended["route"]]
    assert all(b["terminal"] for b in decided(network, object_id))
