"""Ways of inference on the real network: what a cache remembers, what it forgets, and a model cut over two places."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest

from benchmarks import move
from benchmarks.queries_net import terminals
from benchmarks.standing import StandingNetwork, standing
from experiments.commands.client import request
from hosts.learning.task import load_task
from hosts.learning.task_spec import TaskSpec

SPEC = TaskSpec(**move.SCENARIO["data"])  # type: ignore[arg-type]
WAYS = ["cached", "split"]


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StandingNetwork]:
    folder = tmp_path_factory.mktemp("ways")
    with standing(move.SCENARIO | {"name": "ways", "ways": WAYS}, folder) as one:
        for name in terminals(one, "data"):
            one.at(name, "send_test_samples", timeout_s=60.0)
        job = request("submit", 120.0, quiet=True, spec={"broad_accuracy": 0.5, "max_visits": 2})
        assert list(job["ways"]) == WAYS, job
        one.job = job  # type: ignore[attr-defined]
        yield one


@pytest.fixture
def sample(request: pytest.FixtureRequest) -> list[float]:
    return load_task(SPEC).sample_of("", random.Random(request.node.name))[0]


def ask(network: StandingNetwork, sample: list[float], way: str = "cached", asker: int = 0) -> dict[str, Any]:
    return network.at(terminals(network, "query_owner")[asker], "query", way=way, sample=sample)


def plain(network: StandingNetwork) -> int:
    """Return the label of the plain model that serves now."""
    gone = {e.data["label"] for e in network.events("model.retired")}
    labels = [int(e.data["object_id"]) & 0xFFF_FFFF for e in network.events("model.deployed", task=SPEC.name)]
    return next(n for n in reversed(labels) if n not in gone)


def test_the_second_time_a_query_is_answered_from_memory(network: StandingNetwork, sample: list[float]) -> None:
    first, second = ask(network, sample), ask(network, sample)
    assert not first["cached"] and first["infer_ms"] > 0
    assert second["cached"] and second["infer_ms"] == 0
    assert first["answer"] == second["answer"] == ask(network, sample, "")["answer"]
    network.wait_for("query.answered", id=second["id"], cached=True)

    def told() -> bool | None:
        models = [m for e in network.events("krrm.updated") for m in e.data["attributes"].get("models") or []]
        return any(m.get("hits", 0) >= 1 and m.get("misses", 0) >= 1 for m in models if isinstance(m, dict)) or None

    network.wait_until(told, 5.0, "hits on the map")


def test_who_asks_elsewhere_has_a_cache_of_their_own(network: StandingNetwork, sample: list[float]) -> None:
    askers = len(terminals(network, "query_owner"))
    by = {ask(network, sample, asker=n)["answered_by"] for n in range(askers)}
    assert len(by) == 3, "one in each K-AS that has an MDFP; the fourth asks at its neighbour's"


def test_a_model_that_has_moved_is_asked_anew(network: StandingNetwork, sample: list[float]) -> None:
    owner, old = terminals(network, "model_owner")[0], plain(network)
    assert not ask(network, sample)["cached"] and ask(network, sample)["cached"]
    network.at(owner, "move", label=old)
    network.wait_for("model.retired", 30.0, label=old)
    network.wait_until(lambda: plain(network) != old or None, 10.0, "the model at its new place")
    again = ask(network, sample)
    assert not again["cached"] and again["infer_ms"] > 0
    assert ask(network, sample)["cached"]


def test_a_model_cut_over_two_places_answers_as_the_whole_one(network: StandingNetwork, sample: list[float]) -> None:
    whole, cut = ask(network, sample, ""), ask(network, sample, "split")
    assert whole["answer"] == cut["answer"] and abs(whole["confidence"] - cut["confidence"]) < 0.01
    models = {m["variant"]: m["node"] for m in network.job["ways"]["split"]["models"]}  # type: ignore[attr-defined]
    assert models["split"] != models["split-upper"] == cut["answered_by"]


def test_a_load_of_queries_that_repeat_is_answered_from_memory(network: StandingNetwork) -> None:
    spec = {"rate_per_s": 60.0, "seconds": 4.0, "samples": 8, "way": "cached"}
    found = request("load", 60.0, quiet=True, spec=spec)
    assert found["answered"] == found["asked"] > 150, found
    assert found["cached"] > 0.5 * found["answered"], found
    plainly = request("load", 60.0, quiet=True, spec=spec | {"way": ""})
    assert plainly["cached"] == 0 and plainly["answered"] == plainly["asked"]
    print(f"from memory {found['cached']} of {found['answered']}, p50 {found['p50_ms']} against {plainly['p50_ms']} ms")
