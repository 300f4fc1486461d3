"""A cascade on the real network: its cheap model travels, an MPVU learns the threshold, and queries go on where due."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from benchmarks.queries_net import terminals
from benchmarks.standing import StandingNetwork
from experiments.commands.client import request
from hosts.learning.task import load_task
from hosts.learning.task_spec import TaskSpec
from tests.network.ways_network import DATA, deployed_as

JOB = {"broad_accuracy": 0.7, "max_visits": 5}


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StandingNetwork]:
    with deployed_as("switched", JOB, tmp_path_factory.mktemp("switched")) as one:
        yield one


def test_a_threshold_is_learned_and_unsure_queries_go_on(network: StandingNetwork) -> None:
    told = network.job["ways"]["switched"]  # type: ignore[attr-defined]
    learned = network.wait_for("threshold.learned", object_id=told["cheap"])
    assert learned.data["node"] in terminals(network, "mpvu") and learned.data["samples"] >= 1800
    assert learned.data["threshold"] == told["threshold"] and learned.data["broad"] >= learned.data["large"] - 0.01
    assert 0 < learned.data["sent_on"] < 1, learned.data
    at, asker = {m["variant"]: m["node"] for m in told["models"]}, terminals(network, "query_owner")[0]
    task, rng = load_task(TaskSpec(**DATA)), random.Random(5)  # type: ignore[arg-type]
    by = [
        network.at(asker, "query", way="switched", sample=task.sample_of("", rng)[0])["answered_by"] for _ in range(60)
    ]
    assert set(by) == {at["switched"], at["large"]}
    share = by.count(at["switched"]) / len(by)
    assert abs(share - (1 - learned.data["sent_on"])) < 0.25, "as on the MPVU's samples, give or take chance"
    spec = {"rate_per_s": 60.0, "seconds": 5.0}
    found = [request("load", 60.0, quiet=True, spec=spec | {"way": way}) for way in ("switched", "")]
    assert all(one["answered"] == one["asked"] > 200 for one in found), found
    rows = [(one.get("right"), one["p50_ms"]) for one in found]
    print(f"cheap {share:.2f} of queries (right, p50): switched {rows[0]}, plain {rows[1]}; {learned.data}")
