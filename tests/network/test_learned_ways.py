"""Ways of inference that an MPVU learns, on the real network: a cascade's cheap model and the vitals model travel, the
threshold and the fusion come of what they know, and queries are answered by both models where due.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from benchmarks import move
from benchmarks.queries_net import terminals
from benchmarks.standing import StandingNetwork, standing
from experiments.commands.client import request
from hosts.learning.task import load_task
from hosts.learning.task_spec import TaskSpec
from hosts.learning.ways.models import both_of

DATA = {"name": "vignettes", "alpha": 1.0, "noise": 0.4, "findings_per_vignette": 8, "train_per_node": 500,
        "test_per_node": 600}  # fmt: skip
JOB = {"broad_accuracy": 0.7, "max_visits": 5}
LOAD = {"rate_per_s": 60.0, "seconds": 4.0}


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StandingNetwork]:
    """Have the network up, test samples at the MPVUs, a job trained and deployed in both ways; its end is ``job``."""
    own = {"name": "learned", "ways": ["switched", "multimodal"], "data": DATA}
    with standing(move.SCENARIO | own, tmp_path_factory.mktemp("learned")) as one:
        for name in terminals(one, "data"):
            one.at(name, "send_test_samples", timeout_s=60.0)
        one.job = request("submit", 120.0, quiet=True, spec=JOB)  # type: ignore[attr-defined]
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
    found = [request("load", 60.0, quiet=True, spec=LOAD | {"way": way}) for way in ("switched", "")]
    assert all(one["answered"] == one["asked"] > 150 for one in found), found
    rows = [(one.get("right"), one["p50_ms"]) for one in found]
    print(f"cheap {share:.2f} of queries (right, p50): switched {rows[0]}, plain {rows[1]}; {learned.data}")


def test_a_fusion_is_learned_and_answers_better_than_findings_alone(network: StandingNetwork) -> None:
    told = network.job["ways"]["multimodal"]  # type: ignore[attr-defined]
    learned = network.wait_for("fusion.learned", object_id=told["vitals"])
    assert learned.data["node"] in terminals(network, "mpvu") and learned.data["samples"] >= 1800
    assert learned.data["broad"] > learned.data["text"] + 0.05 > learned.data["vitals"], learned.data
    at, asker = {m["variant"]: m["node"] for m in told["models"]}, terminals(network, "query_owner")[0]
    assert list(at) == ["text", "vitals", "multimodal"] and set(at.values()) <= set(terminals(network, "mdfp"))
    task, rng = load_task(TaskSpec(**DATA)), random.Random(5)  # type: ignore[arg-type]
    findings, label = task.sample_of("", rng)
    whole = both_of(task, findings, label)
    for sample in (whole, findings, whole[task.width :]):
        said = network.at(asker, "query", way="multimodal", sample=sample)
        assert said["answered_by"] == at["multimodal"], "also where one kind of input is missing"
    stream = network.at(asker, "stream", way="multimodal", count=8)
    parts = network.at(asker, "stream_next", id=stream["id"])
    assert [a["refused"] for a in parts["answers"]] == [""] * 8
    found = [request("load", 60.0, quiet=True, spec=LOAD | {"way": way}) for way in ("multimodal", "text")]
    assert all(one["answered"] == one["asked"] > 150 for one in found), found
    both, text = (one["accuracy"] for one in found)
    print(f"right: both {both}, findings {text}; p50 {[one['p50_ms'] for one in found]} ms; {at}; {learned.data}")
    assert both > text + 0.05, "on patients whom nobody has seen"
