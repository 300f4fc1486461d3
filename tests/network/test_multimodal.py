"""Findings and vitals on the real network: the vitals model travels, an MPVU learns the fusion, two models answer."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from benchmarks.queries_net import terminals
from benchmarks.standing import StandingNetwork
from experiments.commands.client import request
from hosts.learning.task import load_task
from hosts.learning.task_spec import TaskSpec
from hosts.learning.ways.models import both_of
from tests.network.ways_network import DATA, deployed_as

JOB = {"broad_accuracy": 0.6, "max_visits": 5}


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StandingNetwork]:
    with deployed_as("multimodal", JOB, tmp_path_factory.mktemp("multimodal")) as one:
        yield one


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
    spec = {"rate_per_s": 60.0, "seconds": 5.0}
    found = [request("load", 60.0, quiet=True, spec=spec | {"way": way}) for way in ("multimodal", "text")]
    assert all(one["answered"] == one["asked"] > 200 for one in found), found
    both, text = (one["accuracy"] for one in found)
    print(f"right: both {both}, findings {text}; p50 {[one['p50_ms'] for one in found]} ms; {at}; {learned.data}")
    assert both > text + 0.05, "on patients whom nobody has seen"
