"""A K-AS without T-FAM on the real network: another one admits its jobs, a second one where the first is away."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from benchmarks.standing import StandingNetwork, standing
from experiments.scenarios.scenario import SCENARIO_FOLDER
from tests.network.daitn import daitn

KAS = {2: {"kind": "non_standalone", "borrows": {"tfam": [4, 1]}, "timeout_s": 1.0}}
JOB = {"task": "vignettes", "broad_accuracy": 0.4, "max_visits": 1, "deadline_s": 60.0}
SILENT_S = 20.0  # what asking K-AS that say nothing for MPVUs, options and leaders takes, besides the lenders


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StandingNetwork]:
    folder = tmp_path_factory.mktemp("kinds")
    content = msgspec.yaml.decode((SCENARIO_FOLDER / "healthcare.yaml").read_bytes())
    del content["network"]["kas"][1]["model_owner"]
    content["network"]["kas"][2]["model_owner"] = 1
    scenario = folder / "kinds.yaml"
    scenario.write_bytes(msgspec.yaml.encode(content | {"name": "kinds", "kas": KAS}))
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


def test_the_log_names_the_kind_of_each_k_as(network: StandingNetwork) -> None:
    (up,) = network.events("network.up")
    assert up.data["kinds"] == {
        "1": "centralised", "2": "non-standalone (T-FAM of K-AS 4, else 1)", "3": "centralised", "4": "centralised",
    }  # fmt: skip
