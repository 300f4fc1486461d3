"""The world drifts: what data nodes, askers, MPVUs and owners do about it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from hosts.errors import BadCommand
from hosts.learning.data import vignettes
from hosts.learning.errors import LearningError
from hosts.learning.task import NodeData, TaskSpec, bytes_to_samples, load_task, model_to_bytes, samples_to_bytes
from packets.labels import DCC_ADDRESS
from packets.messages import (
    Ack,
    AnnounceObject,
    AnnounceReply,
    OrderRequest,
    Recalibrate,
    Remeasured,
    Returned,
    Submit,
    SubmitReply,
    decode_message,
    encode_message,
)
from packets.wire import PacketType
from tests.unit.hosts import test_roles
from tests.unit.hosts.test_roles import JOB, Bench, arrived, ordered, partition, question, the_task

NEW_JOB = JOB + 1
SPEC = {"task": "vignettes", "broad_accuracy": 0.8, "seed": 4}


@pytest.fixture(autouse=True)
def own_task(monkeypatch: pytest.MonkeyPatch) -> None:
    """A task drifts for good: each test has its own."""
    task = load_task(TaskSpec(name="vignettes", train_per_node=64, test_per_node=24))
    monkeypatch.setattr(test_roles, "_TASK", [task])


@pytest.fixture
def parts() -> Iterator[dict[str, NodeData]]:
    yield partition(the_task(), ["me", "other"], seed=1)


def test_a_drift_changes_one_departments_diseases_and_no_others() -> None:
    import numpy as np

    number = vignettes.DEPARTMENTS.index("cardiology")
    changed = vignettes.drifted(vignettes.PROFILES, number, np.random.default_rng(1))
    rows = np.flatnonzero((changed != vignettes.PROFILES).any(axis=1))
    first = number * vignettes.PER_DEPARTMENT
    assert rows.tolist() == list(range(first, first + vignettes.PER_DEPARTMENT))
    assert np.allclose(changed.sum(axis=1), 1) and (changed >= 0).all()
    gone = (vignettes.PROFILES > 0) & (changed == 0)
    assert gone[rows].sum(axis=1).tolist() == [vignettes.DRIFTING] * len(rows)


def test_samples_are_of_the_world_as_it_is_and_it_is_the_same_for_all() -> None:
    before = the_task().sample_of("cardiology", random.Random(1))
    the_task().drift("cardiology", 5)
    after = the_task().sample_of("cardiology", random.Random(1))
    other = load_task(TaskSpec(name="vignettes"))
    other.drift("cardiology", 5)
    assert after != before and other.sample_of("cardiology", random.Random(1)) == after
    with pytest.raises(LearningError, match="no group 'x'"):
        other.drift("x", 5)


def test_data_that_lies_still_does_not_drift() -> None:
    with pytest.raises(LearningError, match="only the world of vignettes drifts"):
        load_task(TaskSpec(name="digits")).drift("", 1)


def test_a_data_node_collects_what_it_sees_now_and_holds_some_back_for_the_mpvus(
    tmp_path: Path, parts: dict[str, NodeData]
) -> None:
    numbers = iter((501, 502))
    bench = Bench("data", {AnnounceObject: lambda _: AnnounceReply(object_id=next(numbers))}, tmp_path, parts["me"])
    reply = bench.role.command({"op": "drift", "group": "cardiology", "seed": 3, "count": 50, "tests": 0.2})
    assert reply == {"new": 40, "samples": 104}
    assert [(m.kind, m.copy) for m in bench.network.messages(AnnounceObject)] == [
        ("late_sample", 0),
        ("late_sample", 1),
    ]
    first, second = (bytes_to_samples(the_task(), o.payload) for o in bench.network.sent)
    assert len(first) == len(second) == 5
    held = bench.terminal.data
    assert held is not None and torch.equal(held.train.inputs[:64], parts["me"].train.inputs)
    with pytest.raises(BadCommand, match="tests: 1"):
        bench.role.command({"op": "collect", "count": 50, "tests": 1.0})
    with pytest.raises(BadCommand, match="no group"):
        bench.role.command({"op": "drift", "group": "x", "count": 5})


def test_a_load_that_is_under_way_asks_about_the_world_as_it_is_now(tmp_path: Path) -> None:
    bench = Bench("query_owner", {}, tmp_path)

    class Over:
        @staticmethod
        def is_set() -> bool:
            return False

    class Asking:
        over, samples = Over(), [([0.0], "old")]

    class Load:
        asking = Asking()

    from hosts.inference.load import LoadSpec

    load: Any = Load()
    load.spec = LoadSpec(samples=8)
    bench.role._loads.append(load)  # type: ignore[attr-defined]
    before = bench.role._samples(load.spec)  # type: ignore[attr-defined]
    assert bench.role.command({"op": "drift", "group": "", "seed": 3}) == {"loads": 1}
    assert len(load.asking.samples) == 8 and load.asking.samples != before


def late(bench: Bench, data: NodeData, object_id: int) -> None:
    payload = samples_to_bytes(data.test[1])
    bench.role.object_arrived(arrived(payload, object_id=object_id, visit=0, kind=PacketType.DATA_SHARD))


def test_an_mpvu_measures_a_deployed_model_on_late_samples_alone(tmp_path: Path, parts: dict[str, NodeData]) -> None:
    actions = {801: "keep_test_sample", 802: "keep_late_sample", 803: "keep_late_sample", 900: "measure"}
    script = {
        OrderRequest: lambda q: ordered(actions[q.object_id], for_object=JOB)(q),
        Remeasured: Ack(),
    }  # fmt: skip
    bench = Bench("mpvu", script, tmp_path)
    model = model_to_bytes(the_task().new_model(3))
    bench.role.object_arrived(arrived(model, object_id=900, visit=0))
    assert "no late samples" in bench.errors() and not bench.network.messages(Remeasured)

    payload = samples_to_bytes(parts["me"].test[0])
    bench.role.object_arrived(arrived(payload, object_id=801, visit=0, kind=PacketType.DATA_SHARD))
    late(bench, parts["other"], 802)
    assert bench.role.attributes()["late_samples"] == 24
    assert bench.role.attributes()["test_samples"] == 24, "what its owner sent before counts no more"
    bench.role.object_arrived(arrived(model, object_id=900, visit=1))
    (word,) = bench.network.messages(Remeasured)
    assert (word.object_id, word.copy, word.samples) == (JOB, 900, 24)
    assert sum(word.group_samples.values()) == 24 and 0 <= word.broad <= 1
    assert not bench.network.sent, "a copy that is measured goes no further"


def from_dcc(bench: Bench, word: Recalibrate) -> Any:
    bench.role.message_arrived(question(transfer_id=9), encode_message(word), (DCC_ADDRESS, 55831))
    return decode_message(bench.network.replied[-1][1])


@pytest.mark.parametrize(("now", "deployed"), [(0.9, True), (0.7, False)])
def test_an_owner_has_a_model_trained_on_and_deploys_it_where_it_is_better(
    tmp_path: Path, now: float, deployed: bool
) -> None:
    numbers, homes = iter((JOB, NEW_JOB)), {JOB: 0.85, NEW_JOB: now}
    script = {
        Submit: lambda _: SubmitReply(object_id=next(numbers), admitted=True),
        OrderRequest: lambda q: ordered("home", accuracy={"broad": homes[q.object_id]})(q),
        Returned: Ack(),
        AnnounceObject: AnnounceReply(object_id=99),
    }  # fmt: skip
    bench = Bench("model_owner", script, tmp_path)
    bench.role.command({"op": "submit", "spec": SPEC})
    refused = from_dcc(bench, Recalibrate(object_id=JOB, broad=0.75))
    assert "no trained model" in refused.reason
    trained = model_to_bytes(the_task().new_model(8))
    bench.role.object_arrived(arrived(trained, visit=9))
    bench.network.sent.clear()

    bench.role._answered.clear()
    assert from_dcc(bench, Recalibrate(object_id=JOB, broad=0.75, reason="it fell")) == Ack()
    (sent,) = bench.network.sent
    assert (sent.object_id, sent.payload, sent.visit) == (NEW_JOB, trained, 0), (
        "it begins where the deployed one stands"
    )
    again = bench.network.messages(Submit)[1].spec
    assert again.trained and again.broad_accuracy == pytest.approx(0.82), "nearly what it was verified with"
    assert bench.data_of("model.recalibrating")["replaces"] == JOB

    bench.role.object_arrived(arrived(trained, object_id=NEW_JOB, visit=9))
    announced = bench.network.messages(AnnounceObject)
    assert [(m.replaces, m.for_object) for m in announced] == ([(JOB, NEW_JOB)] if deployed else [])
    assert deployed or "no better" in bench.errors()
