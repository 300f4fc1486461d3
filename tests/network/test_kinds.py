"""Kinds of K-AS on the real network: T-FAM that is borrowed, lenders that stand still, abstract terminals."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from benchmarks.standing import StandingNetwork, standing
from experiments.commands import netmap
from experiments.commands.client import request
from experiments.scenarios.scenario import SCENARIO_FOLDER
from tests.network.daitn import daitn

MEMBERS = {"h31", "h32", "h33", "c3"}
KAS = {
    2: {"kind": "non_standalone", "borrows": {"tfam": [4, 1]}, "timeout_s": 1.0},
    3: {"kind": "hierarchical", "abstract_terminals": {"at31": sorted(MEMBERS)}},
}
TO_K_AS_3 = """
def plan(request, view, options, load):
    met = [v.handle for v in view.visits]
    return [o.handle for o in sorted(options, key=lambda o: (o.kas != 3, o.handle in met, o.move_bytes, o.handle))]
"""  # MTRCE of both tiers
JOB = {"task": "vignettes", "broad_accuracy": 0.4, "max_visits": 1, "deadline_s": 60.0}
SILENT_S = 20.0  # what asking K-AS that say nothing for MPVUs, options and leaders takes, besides the lenders


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StandingNetwork]:
    folder = tmp_path_factory.mktemp("kinds")
    content = msgspec.yaml.decode((SCENARIO_FOLDER / "fig3.yaml").read_bytes())
    scenario = folder / "kinds.yaml"
    (folder / "mine.py").write_text(TO_K_AS_3)
    own = {"name": "kinds", "kas": KAS, "engines": {"mtrce": "mine.py:plan"}}
    scenario.write_bytes(msgspec.yaml.encode(content | own))
    with standing(scenario, folder) as net:
        yield net


@contextlib.contextmanager
def frozen(network: StandingNetwork, *kas: int) -> Iterator[None]:
    """The control centres of these K-AS stand still meanwhile; their border speakers do not."""
    pids = [int((network.runtime / f"dcc{k}.ready").read_text()) for k in kas]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def submit(network: StandingNetwork) -> dict[str, Any]:
    """Submit at the owner's terminal; returns T-FAM's verdict as the owner gets it, with whose it was."""
    mark = len(network.events("job.assessed"))
    reply = network.at("owner2", "submit", timeout_s=SILENT_S + 20, spec=JOB)["reply"]
    assessed = network.wait_until(lambda: network.events("job.assessed")[mark:] or None, 5.0, "job.assessed")
    return {**reply, "by": assessed[0].data["by"]}


def test_t_fam_is_borrowed_from_the_first_lender_that_answers_and_else_nothing_is_admitted(
    network: StandingNetwork, tmp_path: Path
) -> None:
    first = submit(network)
    assert first["admitted"], first
    assert (first["by"]["kas"], first["by"]["before"]) == (4, [])
    assert 20.0 < first["by"]["ms"] < 1000.0, "there and back over a WAN of 10 ms each way, at least"
    told = daitn("explain", f"{first['object_id']:x}", "--folder", str(network.folder), cwd=tmp_path)
    assert "admitted by K-AS 4's T-FAM, borrowed, after " in told.out, told

    with frozen(network, 4):
        second = submit(network)
    assert second["admitted"], second
    assert (second["by"]["kas"], second["by"]["before"]) == (1, ["K-AS 4: no answer within 1 s"])

    with frozen(network, 1, 4):
        third = submit(network)
    (reason,) = third["reasons"]
    assert not third["admitted"] and third["by"] is None
    assert reason.startswith("K-AS 2 has no T-FAM of its own, nobody lent it one: K-AS ")
    assert "K-AS 4: no answer within 1 s" in reason and "K-AS 1: no answer within 1 s" in reason

    again = submit(network)
    assert again["admitted"] and again["by"]["kas"] in (1, 4), "they are asked again once they are back"


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
    before = len(network.events("job.submitted"))
    job = threading.Thread(target=lambda: ended.update(request("submit", 150.0, quiet=True, spec=spec)))
    job.start()
    network.wait_until(lambda: network.events("job.submitted")[before:] or None, 20.0, "job.submitted")
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


def test_the_log_names_the_kind_of_each_k_as(network: StandingNetwork) -> None:
    (up,) = network.events("network.up")
    assert up.data["kinds"] == {
        "1": "centralised", "2": "non-standalone (T-FAM of K-AS 4, else 1)", "4": "centralised",
        "3": "hierarchical (at31: c3 h31 h32 h33)",
    }  # fmt: skip
