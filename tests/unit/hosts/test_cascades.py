"""A cascade's cheap model: trained by visits, measured at an MPVU, taken home; its threshold is learned at an MPVU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch

from hosts.errors import BadCommand
from hosts.learning.errors import LearningError
from hosts.learning.spec import TrainSettings
from hosts.learning.task import (
    NodeData,
    Task,
    TaskSpec,
    bytes_to_model,
    concat_samples,
    load_task,
    model_to_bytes,
)
from hosts.learning.ways.cascade import bytes_to_pair, learn_cascade, pair_to_bytes
from hosts.learning.ways.models import task_of
from hosts.learning.ways.switched import NEVER
from packets.messages import (
    Ack,
    AnnounceObject,
    JobSpec,
    OrderRequest,
    Refused,
    Remeasured,
    Submit,
    Verdict,
    VisitDone,
    Way,
)
from tests.unit.hosts import test_roles
from tests.unit.hosts.pairs import BESIDE_JOB, COPY, from_dcc, mpvu, owner
from tests.unit.hosts.test_roles import JOB, Bench, arrived, ordered, partition, the_task

WAY = Way(kind="switched", model="cheap", asks=["large"])


@pytest.fixture(scope="module")
def task() -> Task:
    return load_task(
        TaskSpec(name="vignettes", noise=0.4, findings_per_vignette=8, train_per_node=900, test_per_node=900)
    )


@pytest.fixture(scope="module")
def cheap(task: Task) -> Task:
    return task_of(task, "cheap")


@pytest.fixture(scope="module")
def parts(task: Task) -> dict[str, NodeData]:
    return partition(task, ["me", "other"], seed=1)


@pytest.fixture(scope="module")
def both(task: Task, cheap: Task, parts: dict[str, NodeData]) -> tuple[bytes, bytes]:
    """Return a cheap and a large model that have learned something."""
    train = concat_samples([data.train for data in parts.values()])
    little, large = cheap.new_model(1), task.new_model(1)
    cheap.train(little, train, TrainSettings(epochs=8, learning_rate=1e-2))
    task.train(large, train, TrainSettings(epochs=3))
    return model_to_bytes(little), model_to_bytes(large)


@pytest.fixture(autouse=True)
def its_task(monkeypatch: pytest.MonkeyPatch, task: Task) -> None:
    monkeypatch.setattr(test_roles, "_TASK", [task])


def test_a_visit_trains_the_cheap_model_of_its_order(tmp_path: Path, parts: dict[str, NodeData], cheap: Task) -> None:
    script = {
        OrderRequest: ordered("train", data_node="me", model="cheap", learning_rate=1e-2, epochs=8),
        VisitDone: Ack(),
    }
    bench = Bench("data", script, tmp_path, parts["me"])
    fresh = model_to_bytes(cheap.new_model(3))
    bench.role.object_arrived(arrived(fresh))
    (sent,) = bench.network.sent
    before, after = (
        cheap.evaluate(bytes_to_model(cheap, payload), parts["other"].test[0]).broad
        for payload in (fresh, sent.payload)
    )
    assert after > before + 0.1 and bench.network.messages(VisitDone)[0].samples == 900


def test_a_task_without_a_cheap_model_lets_the_object_go_as_it_came(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digits = load_task(TaskSpec(name="digits"))
    monkeypatch.setattr(test_roles, "_TASK", [digits])
    order = lambda q: msgspec.structs.replace(ordered("train", data_node="me", model="cheap")(q), task="digits")  # noqa: E731
    bench = Bench("data", {OrderRequest: order, VisitDone: Ack()}, tmp_path, partition(digits, ["me"], 1)["me"])
    payload = model_to_bytes(digits.new_model(0))
    bench.role.object_arrived(arrived(payload))
    assert "task digits has no cheap model" in bench.network.messages(VisitDone)[0].problem
    assert [o.payload for o in bench.network.sent] == [payload]


def test_an_mpvu_measures_the_cheap_model_as_what_it_is(
    tmp_path: Path, parts: dict[str, NodeData], cheap: Task
) -> None:
    bench = mpvu(tmp_path, parts, "verify", model="cheap")
    model = cheap.new_model(3)
    bench.role.object_arrived(arrived(model_to_bytes(model)))
    samples = concat_samples([data.test[0] for data in parts.values()])
    (word,) = bench.network.messages(Verdict)
    assert word.samples == 1800 and word.broad == pytest.approx(cheap.evaluate(model, samples).broad)


def test_an_mpvu_learns_a_threshold_on_its_own_samples(
    tmp_path: Path, parts: dict[str, NodeData], both: tuple[bytes, bytes]
) -> None:
    bench = mpvu(tmp_path, parts, "measure", for_object=BESIDE_JOB, way=WAY)
    bench.role.object_arrived(arrived(pair_to_bytes(*both), object_id=COPY, visit=0))
    (word,) = bench.network.messages(Remeasured)
    assert (word.object_id, word.copy, word.samples) == (BESIDE_JOB, COPY, 1800)
    assert (word.way.kind, word.way.model, word.way.asks) == ("switched", "cheap", ["large"])
    said = bench.data_of("threshold.learned")
    assert 0 < word.way.threshold < 1 and said["threshold"] == word.way.threshold
    assert 0 < said["sent_on"] < 1 and said["broad"] >= said["large"] - 0.01
    assert word.broad == pytest.approx(said["broad"], abs=1e-3), "the cascade as it answers"
    assert not bench.network.sent, "nothing goes on, samples least of all"


def test_few_samples_leave_everything_to_the_large_model(parts: dict[str, NodeData], both: tuple[bytes, bytes]) -> None:
    few = parts["me"].test[0].take(torch.arange(20))
    learned = learn_cascade(the_task(), pair_to_bytes(*both), few)
    assert learned.threshold.value == NEVER and learned.measured.samples == 20


def test_an_mpvu_without_samples_learns_nothing(tmp_path: Path, cheap: Task) -> None:
    bench = Bench("mpvu", {OrderRequest: ordered("measure", way=WAY), Remeasured: Ack()}, tmp_path)
    bench.role.object_arrived(arrived(b"", object_id=COPY, visit=0))
    assert "holds no test samples yet" in bench.errors() and not bench.network.messages(Remeasured)


@pytest.mark.parametrize("cut", [0, 1, 40, -1])
def test_bytes_that_are_no_pair_are_refused(cheap: Task, cut: int) -> None:
    whole = pair_to_bytes(*(model_to_bytes(t.new_model(0)) for t in (cheap, the_task())))
    assert len(bytes_to_pair(whole, the_task())) == 2
    with pytest.raises(LearningError):
        bytes_to_pair(whole[:cut], the_task())
    swapped = pair_to_bytes(*(model_to_bytes(t.new_model(0)) for t in (the_task(), cheap)))
    with pytest.raises(LearningError, match="is it another task's"):
        bytes_to_pair(swapped, the_task())


# --- the owner


def measured(copy: int = COPY, **way: Any) -> Remeasured:
    return Remeasured(
        name="-", object_id=BESIDE_JOB, copy=copy, samples=1800, broad=0.79, per_group={"cardiology": 0.7},
        way=msgspec.structs.replace(WAY, **way),
    )  # fmt: skip


def test_an_owner_launches_a_cheap_model_that_is_cheap(tmp_path: Path) -> None:
    bench, _, _ = owner(tmp_path, "cheap")
    plain, cheap = bench.network.sent
    assert len(cheap.payload) < len(plain.payload) / 5
    assert [m.spec.model_bytes for m in bench.network.messages(Submit)] == [len(plain.payload), len(cheap.payload)]


def test_an_owner_has_a_threshold_learned_and_believes_it_once(tmp_path: Path) -> None:
    bench, large, cheap = owner(tmp_path, "cheap")
    told = bench.role.command({"op": "switch", "object_id": JOB, "cheap": BESIDE_JOB})
    assert told == {"object_id": COPY} and bench.network.sent[-1].payload == pair_to_bytes(cheap, large)
    (asked,) = bench.network.messages(AnnounceObject)
    assert (asked.kind, asked.for_object, asked.way) == ("measure", BESIDE_JOB, WAY)
    for lie in (measured(COPY + 1, threshold=0.6), measured(threshold=0.6, asks=["other"])):
        assert isinstance(from_dcc(bench, lie), Refused)
    assert "way.learned" not in bench.kinds()
    assert from_dcc(bench, measured(threshold=0.6, temperature=1.5)) == Ack()
    said = bench.data_of("way.learned")
    assert msgspec.convert(said["way"], Way) == measured(threshold=0.6, temperature=1.5).way
    assert said["accuracy"] == {"broad": 0.79, "cardiology": 0.7} and said["copy"] == COPY
    assert isinstance(from_dcc(bench, measured(threshold=0.1)), Refused)


def test_what_an_owner_cannot_make_a_cascade_of_is_a_bad_command(tmp_path: Path) -> None:
    bench, _, _ = owner(tmp_path, "cheap")
    for cheap, why in ((JOB, "train one with `model: cheap`"), (5, "no job of me"), (None, "no job of me")):
        with pytest.raises(BadCommand, match=why):
            bench.role.command({"op": "switch", "object_id": JOB, "cheap": cheap})


def test_a_cheap_model_is_deployed_as_one(tmp_path: Path) -> None:
    bench, _, _ = owner(tmp_path, "cheap")
    for job in (JOB, BESIDE_JOB):
        bench.role.command({"op": "deploy", "object_id": job})
    assert [m.way for m in bench.network.messages(AnnounceObject)] == [Way(), Way(model="cheap")]


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        ({"model": "cheap", "method": "federated"}, "model cheap is trained by method routed alone, not by federated"),
        ({"model": "vitals", "method": "gossip"}, "model vitals is trained by method routed alone, not by gossip"),
        ({"model": "large"}, "model"),
    ],
)
def test_a_job_for_a_model_that_cannot_be_trained_so_is_a_bad_command(
    tmp_path: Path, spec: dict[str, Any], why: str
) -> None:
    bench = Bench("model_owner", {}, tmp_path)
    with pytest.raises(BadCommand, match=why):
        bench.role.command({"op": "submit", "spec": {"task": "vignettes", **spec}})
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"task": "vignettes", **spec}, JobSpec)


def test_an_owner_of_another_task_is_told_that_it_has_no_cheap_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(test_roles, "_TASK", [load_task(TaskSpec(name="digits"))])
    bench = Bench("model_owner", {}, tmp_path)
    with pytest.raises(BadCommand, match="job spec: task digits has no cheap model"):
        bench.role.command({"op": "submit", "spec": {"task": "digits", "model": "cheap"}})
