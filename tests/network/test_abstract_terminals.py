"""A hierarchical K-AS on the real network: what a visit meets in an abstract terminal, also when it dies."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from benchmarks.standing import StandingNetwork, standing
from experiments.commands import netmap
from experiments.commands.client import request
from experiments.scenarios.scenario import SCENARIO_FOLDER

MEMBERS = {"h31", "h32", "h33", "c3"}
KAS = {3: {"kind": "hierarchical", "abstract_terminals": {"at31": sorted(MEMBERS)}}}
TO_K_AS_3 = """
def plan(request, view, options, load):
    met = [v.handle for v in view.visits]
    return [o.handle for o in sorted(options, key=lambda o: (o.kas != 3, o.handle in met, o.move_bytes, o.handle))]
"""  # MTRCE of both tiers


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StandingNetwork]:
    folder = tmp_path_factory.mktemp("abstract")
    content = msgspec.yaml.decode((SCENARIO_FOLDER / "healthcare.yaml").read_bytes())
    (folder / "mine.py").write_text(TO_K_AS_3)
    scenario = folder / "abstract.yaml"
    own = {"name": "abstract", "kas": KAS, "engines": {"mtrce": "mine.py:plan"}}
    scenario.write_bytes(msgspec.yaml.encode(content | own))
    with standing(scenario, folder) as net:
        yield net


def led(network: StandingNetwork) -> list[list[dict[str, Any]]]:
    """Where the latest job was led to be trained, visit by visit; more than once where a place died."""
    job = network.events("job.submitted")[-1].data["object_id"]
    visits: dict[int, list[dict[str, Any]]] = {}
    for event in network.events("object.steered", object_id=job, purpose="train"):
        if event.data["node"]:
            visits.setdefault(event.data["visit"], []).append(event.data)
    return list(visits.values())


def test_what_a_visit_meets_in_an_abstract_terminal_is_decided_there_and_again_when_it_dies(
    network: StandingNetwork,
) -> None:
    spec = {"broad_accuracy": 0.4, "max_visits": 3, "train_on": True, "seed": 1}
    ended: dict[str, Any] = {}
    job = threading.Thread(target=lambda: ended.update(request("submit", 150.0, quiet=True, spec=spec)))
    job.start()
    network.wait_for("job.submitted", 20.0)
    network.wait_until(lambda: led(network)[2:] or None, 60.0, "a third visit")
    first, second, third = (visit[-1] for visit in led(network))
    network.kill(third["node"])
    again = network.wait_until(lambda: led(network)[2][1:] or None, 20.0, "another member")[-1]
    job.join(120)
    assert ended, "the model never came home"
    assert {d["node"] for d in (first, second, third, again)} <= MEMBERS
    assert len({first["data_node"], second["data_node"], third["data_node"]}) == 3, "tier 2 knows what was met there"
    assert again["node"] != third["node"]
    assert any(key.startswith("at31.") for key in first["basis"]), "tier 1 decided on what it sees"
    decided = network.events("at.decided", object_id=first["object_id"])
    assert [d.data["facility"] for d in decided] == [first["node"], second["node"], third["node"], again["node"]]
    cut = netmap.cut_of(network.folder, first["object_id"])["3"]
    assert {m["data_node"] for m in cut["meetings"]} == {"at31"}
