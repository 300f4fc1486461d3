"""Findings and vitals: the vitals model is trained by visits; how both are fused is learned at an MPVU, not at home."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch

from hosts.errors import BadCommand
from hosts.inference.load import LoadSpec
from hosts.inference.ways import bytes_to_fusion, fusion_to_bytes
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
    samples_to_bytes,
)
from hosts.learning.ways.calibrate import probabilities
from hosts.learning.ways.cascade import pair_to_bytes
from hosts.learning.ways.fusion import LEAST_SAMPLES, learn_fused
from hosts.learning.ways.models import seen_by, task_of
from hosts.learning.ways.multimodal import Fusion, fuse
from packets.messages import (
    Ack,
    AnnounceObject,
    Answer,
    OrderRequest,
    Refused,
    Remeasured,
    SendData,
    Verdict,
    VisitDone,
    Way,
)
from packets.queries import MAX_FUSION_BYTES
from packets.wire import PacketType
from tests.unit.hosts import test_roles
from tests.unit.hosts.pairs import BESIDE_JOB, COPY, from_dcc, mpvu, owner
from tests.unit.hosts.test_roles import JOB, Bench, arrived, ordered, partition, the_task

WAY = Way(kind="multimodal", asks=["text", "vitals"])


@pytest.fixture(scope="module")
def task() -> Task:
    return load_task(
        TaskSpec(name="vignettes", noise=0.4, findings_per_vignette=8, train_per_node=900, test_per_node=900)
    )


@pytest.fixture(scope="module")
def parts(task: Task) -> dict[str, NodeData]:
    return partition(task, ["me", "other"], seed=1)


@pytest.fixture(scope="module")
def both(task: Task, parts: dict[str, NodeData]) -> tuple[bytes, bytes]:
    """Return a model of vitals and one of findings that have learned something."""
    train, vitals = concat_samples([data.train for data in parts.values()]), task_of(task, "vitals")
    signs, text = vitals.new_model(1), task.new_model(1)
    vitals.train(signs, seen_by(vitals, train), TrainSettings(epochs=20, learning_rate=3e-3))
    task.train(text, train, TrainSettings(epochs=3))
    return model_to_bytes(signs), model_to_bytes(text)


@pytest.fixture(autouse=True)
def its_task(monkeypatch: pytest.MonkeyPatch, task: Task) -> None:
    monkeypatch.setattr(test_roles, "_TASK", [task])


def fusion(labels: int) -> bytes:
    return fusion_to_bytes(Fusion(text=[1.0] * labels, vitals=[0.5] * labels, bias=[0.1] * labels))


# --- where samples are


@pytest.mark.parametrize("moved", [False, True])
def test_a_visit_trains_the_model_of_vitals(tmp_path: Path, parts: dict[str, NodeData], moved: bool) -> None:
    vitals = task_of(the_task(), "vitals")
    about = {"model": "vitals", "learning_rate": 3e-3, "epochs": 10}
    train = ordered("train", data_node="other" if moved else "me", data_address="10.0.0.9", **about)
    script = {
        OrderRequest: lambda q: (ordered("use_data", for_object=JOB) if q.object_id == COPY else train)(q),
        VisitDone: Ack(), SendData: Ack(),
    }  # fmt: skip
    bench = Bench("compute" if moved else "data", script, tmp_path, None if moved else parts["me"])
    fresh = model_to_bytes(vitals.new_model(3))
    bench.role.object_arrived(arrived(fresh))
    if moved:
        payload = samples_to_bytes(parts["me"].train)
        bench.role.object_arrived(arrived(payload, object_id=COPY, visit=0, kind=PacketType.DATA_SHARD))
    (sent,) = bench.network.sent
    unseen = seen_by(vitals, parts["me"].test[0])
    before, after = (vitals.evaluate(bytes_to_model(vitals, p), unseen).broad for p in (fresh, sent.payload))
    assert after > before + 0.1 and bench.network.messages(VisitDone)[-1].samples == 900


def test_an_mpvu_measures_vitals_of_the_same_patients(tmp_path: Path, parts: dict[str, NodeData]) -> None:
    bench, vitals = mpvu(tmp_path, parts, "verify", model="vitals"), task_of(the_task(), "vitals")
    model = vitals.new_model(3)
    bench.role.object_arrived(arrived(model_to_bytes(model)))
    samples = concat_samples([data.test[0] for data in parts.values()])
    (word,) = bench.network.messages(Verdict)
    assert word.samples == 1800 and word.broad == pytest.approx(vitals.evaluate(model, seen_by(vitals, samples)).broad)


def test_an_mpvu_learns_a_fusion_on_its_own_samples(
    tmp_path: Path, parts: dict[str, NodeData], both: tuple[bytes, bytes]
) -> None:
    bench = mpvu(tmp_path, parts, "measure", for_object=BESIDE_JOB, way=WAY)
    bench.role.object_arrived(arrived(pair_to_bytes(*both), object_id=COPY, visit=0))
    (word,) = bench.network.messages(Remeasured)
    assert (word.object_id, word.copy, word.samples, word.way) == (BESIDE_JOB, COPY, 1800, WAY)
    learned = bytes_to_fusion(word.fusion, len(the_task().labels))
    assert len(set(learned.vitals)) > 1 and learned.text_temperature != 1 and len(word.fusion) < MAX_FUSION_BYTES / 2
    said = bench.data_of("fusion.learned")
    assert word.broad == pytest.approx(said["broad"], abs=1e-3) and said["broad"] > said["text"] + 0.03 > said["vitals"]
    assert not bench.network.sent, "nothing goes on, samples least of all"


def test_a_fusion_is_measured_by_samples_that_did_not_teach_it(
    task: Task, parts: dict[str, NodeData], both: tuple[bytes, bytes]
) -> None:
    vitals, few = task_of(task, "vitals"), parts["me"].test[0].take(torch.arange(240))
    found = learn_fused(task, pair_to_bytes(*both), few)
    signs, text = (bytes_to_model(t, payload) for t, payload in zip((vitals, task), both, strict=True))
    taught = fuse(found.fusion, probabilities(text, few), probabilities(signs, seen_by(vitals, few)))
    praise = float((taught.argmax(dim=1) == few.labels).double().mean())
    assert found.measured.samples == 240 and found.measured.broad < praise - 0.01, (found.measured.broad, praise)


def test_too_few_samples_teach_no_fusion(parts: dict[str, NodeData], both: tuple[bytes, bytes]) -> None:
    few = parts["me"].test[0].take(torch.arange(LEAST_SAMPLES - 1))
    with pytest.raises(LearningError, match="on 100 test samples at least, here are 99"):
        learn_fused(the_task(), pair_to_bytes(*both), few)


@pytest.mark.parametrize("cut", [0, 40, -1])
def test_an_mpvu_survives_bytes_that_are_no_pair(
    tmp_path: Path, parts: dict[str, NodeData], both: tuple[bytes, bytes], cut: int
) -> None:
    bench = mpvu(tmp_path, parts, "measure", for_object=BESIDE_JOB, way=WAY)
    bench.role.object_arrived(arrived(pair_to_bytes(*both)[:cut], object_id=COPY, visit=0))
    assert not bench.network.messages(Remeasured) and bench.errors().count("\n") == 0
    assert "a task's own model and its vitals one" in bench.errors()
    bench.role.object_arrived(arrived(pair_to_bytes(*reversed(both)), object_id=COPY + 1, visit=0))
    assert not bench.network.messages(Remeasured) and "is it another task's" in bench.errors()


# --- the owner


def learned(fused: bytes, copy: int = COPY, way: Way = WAY) -> Remeasured:
    return Remeasured(
        name="-", object_id=BESIDE_JOB, copy=copy, samples=1800, broad=0.79, per_group={"cardiology": 0.7}, way=way,
        fusion=fused,
    )  # fmt: skip


def test_an_owner_has_a_fusion_learned_and_deploys_what_it_was_told(tmp_path: Path) -> None:
    bench, text, vitals = owner(tmp_path, "vitals")
    told = bench.role.command({"op": "fuse", "object_id": JOB, "vitals": BESIDE_JOB})
    assert told == {"object_id": COPY} and bench.network.sent[-1].payload == pair_to_bytes(vitals, text)
    (asked,) = bench.network.messages(AnnounceObject)
    assert (asked.kind, asked.for_object, asked.way) == ("measure", BESIDE_JOB, WAY)
    labels = len(the_task().labels)
    good, swapped = fusion(labels), msgspec.structs.replace(WAY, asks=["vitals", "text"])
    for lie in (
        learned(good, COPY + 1), learned(good, way=swapped), learned(fusion(labels - 1)), learned(good[:-9]),
        learned(b""),
    ):  # fmt: skip
        assert isinstance(from_dcc(bench, lie), Refused)
    assert "way.learned" not in bench.kinds() and not list(tmp_path.rglob("*.fusion"))
    assert from_dcc(bench, learned(good)) == Ack()
    said = bench.data_of("way.learned")
    assert Path(said["file"]).read_bytes() == good and msgspec.convert(said["way"], Way) == WAY
    assert isinstance(from_dcc(bench, learned(good)), Refused), "once"
    for part in (
        {"object_id": BESIDE_JOB, "variant": "vitals", "way": {"model": "vitals"}},
        {"file": said["file"], "accuracy": said["accuracy"], "variant": "multimodal", "way": said["way"]},
    ):
        bench.role.command({"op": "deploy", **part})
    signs, both = bench.network.messages(AnnounceObject)[1:]
    assert (signs.variant, signs.way, signs.target) == ("vitals", Way(model="vitals"), "")
    assert (both.variant, both.way, both.accuracy["broad"], both.target) == ("multimodal", WAY, 0.79, "")
    assert bench.network.sent[-1].payload == good


@pytest.mark.parametrize(
    ("models", "why"),
    [
        ({"object_id": JOB, "vitals": JOB}, "train one with `model: vitals`"),
        ({"object_id": BESIDE_JOB, "vitals": BESIDE_JOB}, "object_id: it is that of a vitals model"),
        ({"object_id": JOB, "vitals": 5}, "no job of me"),
        ({"object_id": JOB}, "no job of me"),
        ({"vitals": BESIDE_JOB}, "no job of me"),
    ],
)
def test_what_an_owner_cannot_fuse_is_a_bad_command(tmp_path: Path, models: dict[str, int], why: str) -> None:
    bench, _, _ = owner(tmp_path, "vitals")
    with pytest.raises(BadCommand, match=why):
        bench.role.command({"op": "fuse", **models})


def test_an_owner_of_another_task_is_told_that_it_has_no_vitals(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(test_roles, "_TASK", [load_task(TaskSpec(name="digits"))])
    bench = Bench("model_owner", {}, tmp_path)
    with pytest.raises(BadCommand, match="job spec: task digits has no vitals model"):
        bench.role.command({"op": "submit", "spec": {"task": "digits", "model": "vitals"}})


# --- who asks


def asker(tmp_path: Path) -> Any:
    return Bench("query_owner", {}, tmp_path).role


def test_both_are_asked_of_a_multimodal_model_and_findings_of_others(tmp_path: Path) -> None:
    role, task = asker(tmp_path), the_task()
    vitals = task_of(task, "vitals")
    for way, width in (("", task.width), ("cached", task.width), ("multimodal", task.width + vitals.width)):
        asked: list[Any] = []
        role._ask = lambda ask, asked=asked: asked.append(ask) or Answer(answer="", confidence=0.0, answered_by="m1")
        told = role.command({"op": "query", "group": "cardiology", "way": way})
        named = role.command({"op": "query", "task": asked[0].task})
        assert [len(ask.sample) for ask in asked] == [width] * 2 and named["expected"]
        if way == "multimodal":
            whole = torch.tensor([asked[0].sample[-vitals.width :]])
            vitals.check_inputs(whole)
            assert asked[0].sample[-vitals.width :] == vitals.beside(asked[0].sample[: task.width], told["expected"])  # type: ignore[attr-defined]
        samples = role._samples(msgspec.convert({"way": way, "samples": 5}, LoadSpec))
        assert {len(sample) for sample, _ in samples} == {width}
        assert {len(s) for s, _ in role._streams._samples({"count": 3}, asked[0].task)} == {width}


def test_a_task_without_vitals_is_not_asked_for_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(test_roles, "_TASK", [load_task(TaskSpec(name="digits"))])
    with pytest.raises(BadCommand, match="way multimodal: task digits has no vitals model; the vignettes have"):
        asker(tmp_path).command({"op": "query", "way": "multimodal"})
