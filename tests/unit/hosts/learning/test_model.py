"""Learning models: training, testing, asking; and bytes off the wire that are a model or samples, or are refused."""

from __future__ import annotations

import json
import math
import random
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save
from torch import nn

from hosts.learning import safe_bytes
from hosts.learning.data.encode import Table, prose_columns
from hosts.learning.data.read import Rows
from hosts.learning.errors import LearningError
from hosts.learning.spec import Samples, TaskSpec, TrainSettings, concat_samples
from hosts.learning.task import (
    TableTask,
    Task,
    bytes_to_model,
    bytes_to_samples,
    load_task,
    model_to_bytes,
    partition,
    samples_to_bytes,
)

torch.set_num_threads(1)


def two_clouds(rows: int = 120, hidden: int = 0) -> TableTask:
    """A table that is easy to learn: class "b" lies to the right of "a" in the first of three features."""
    rng = np.random.default_rng(0)
    labels = np.arange(rows) % 2
    features = rng.normal(size=(rows, 3)).astype(np.float32)
    features[:, 0] += 4 * labels - 2
    table = Table(features, labels, np.zeros(rows, int), ["a", "b"], ["x", "y", "z"])
    return TableTask(TaskSpec(name="table", partition="iid", hidden=hidden), table)


TABLE = two_clouds()
VIGNETTES = load_task(TaskSpec(train_per_node=96, test_per_node=48, partition="iid"))
PART = partition(TABLE, ["h1"], seed=0)["h1"]
PATIENTS = partition(VIGNETTES, ["h1"], seed=0)["h1"]
MODEL = model_to_bytes(TABLE.new_model(0))
SAMPLES = samples_to_bytes(PART.train)


def state(model: nn.Module) -> list[torch.Tensor]:
    return list(model.state_dict().values())


def same(one: nn.Module, other: nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(state(one), state(other), strict=True))


# --- training --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("task", "part"), [(TABLE, PART), (VIGNETTES, PATIENTS)], ids=["table", "vignettes"])
def test_training_lowers_the_loss_and_repeats_under_a_seed(task: Task, part: Any) -> None:
    def run(seed: int) -> tuple[list[float], nn.Module]:
        model = task.new_model(seed)
        visits = [TrainSettings(learning_rate=5e-3, batch_size=16, seed=seed + i) for i in range(3)]
        return [task.train(model, part.train, visit).loss for visit in visits], model

    losses, model = run(1)
    assert losses[0] > losses[1] > losses[2]
    again, twin = run(1)
    assert losses == again
    assert same(model, twin)
    assert not same(model, run(2)[1])


@pytest.mark.parametrize("hidden", [0, 8])
def test_a_trained_table_model_knows_unseen_rows(hidden: int) -> None:
    task = two_clouds(hidden=hidden)
    part = partition(task, ["h1"], seed=0)["h1"]
    model = task.new_model(0)
    task.train(model, part.train, TrainSettings(epochs=20, batch_size=8, learning_rate=2e-2))
    found = task.evaluate(model, concat_samples(list(part.test)))
    assert found.broad > 0.9
    assert found.samples == 40
    assert set(found.per_group) == {"a", "b"}
    assert np.mean(list(found.per_group.values())) == pytest.approx(found.broad)  # as many of either


def test_a_trained_transformer_tells_departments_it_saw() -> None:
    task = load_task(TaskSpec(train_per_node=300, test_per_node=60, partition="one_class", noise=0.0))
    part = partition(task, ["h1"], seed=0)["h1"]
    model = task.new_model(0)
    before = task.evaluate(model, part.test[0]).broad
    task.train(model, part.train, TrainSettings(epochs=4, batch_size=16))
    assert task.evaluate(model, part.test[0]).broad > before + 0.4


def test_a_new_model_repeats_and_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(9)
    expected = torch.rand(1)
    torch.manual_seed(9)
    one, same_seed, other = (VIGNETTES.new_model(seed) for seed in (3, 3, 4))
    assert torch.equal(torch.rand(1), expected)
    assert same(one, same_seed)
    assert not same(one, other)


def test_training_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(9)
    expected = torch.rand(1)
    torch.manual_seed(9)
    TABLE.train(TABLE.new_model(0), PART.train, TrainSettings())
    assert torch.equal(torch.rand(1), expected)


@pytest.mark.parametrize(("epochs", "steps"), [(1.0, 8), (2.0, 16), (0.5, 4), (1.5, 12), (0.001, 1)])
def test_epochs_may_be_a_fraction(epochs: float, steps: int) -> None:
    seen: list[int] = []
    model = TABLE.new_model(0)
    model.register_forward_hook(lambda _m, given, _out: seen.append(len(given[0])))
    TABLE.train(model, PART.train, TrainSettings(epochs=epochs, batch_size=10))
    assert len(PART.train) == 80
    assert len(seen) == steps
    assert sum(seen) == max(1, round(80 * epochs))


def test_an_epoch_meets_every_sample_once() -> None:
    seen: list[torch.Tensor] = []
    model = TABLE.new_model(0)
    model.register_forward_hook(lambda _m, given, _out: seen.append(given[0]))
    TABLE.train(model, PART.train, TrainSettings(batch_size=7))
    met = torch.cat(seen)
    assert sorted(met.tolist()) == sorted(PART.train.inputs.tolist())
    assert not torch.equal(met, PART.train.inputs)  # shuffled


def test_group_weights_pull_towards_a_group() -> None:
    unclear = Samples(torch.zeros(64, 3), (torch.arange(64) % 2).to(torch.int16))
    sure = []
    for weights in ({"a": 8.0}, {}, {"b": 8.0}):
        model = TABLE.new_model(0)
        TABLE.train(model, unclear, TrainSettings(epochs=20, batch_size=4, learning_rate=2e-2, group_weights=weights))
        with torch.inference_mode():
            sure.append(float(model(torch.zeros(1, 3)).softmax(dim=1)[0, 1]))
    assert sure[0] < 0.25 < sure[1] < 0.75 < sure[2]


NOTHING = Samples(torch.zeros(0, 3), torch.zeros(0, dtype=torch.int16))


@pytest.mark.parametrize(
    "wrong", [{"epochs": 0}, {"epochs": -1}, {"batch_size": 0}, {"learning_rate": 0}, {"group_weights": {"c": 1.0}},
              {"group_weights": {"a": 0.0}}]
)  # fmt: skip
def test_hyper_parameters_that_cannot_be(wrong: dict[str, Any]) -> None:
    model = TABLE.new_model(0)
    with pytest.raises(LearningError, match=r"above 0"):
        TABLE.train(model, PART.train, TrainSettings(**wrong))
    assert same(model, TABLE.new_model(0))


@pytest.mark.parametrize(
    "wrong", [{"epochs": math.inf}, {"epochs": math.nan}, {"learning_rate": math.nan}, {"learning_rate": 1e38}],
    ids=str,
)  # fmt: skip
def test_hyper_parameters_that_are_no_numbers(wrong: dict[str, float]) -> None:
    with pytest.raises(LearningError):
        TABLE.train(TABLE.new_model(0), PART.train, TrainSettings(**wrong))


def test_divergence_is_told() -> None:
    broken = Samples(torch.full((40, 3), math.inf), torch.zeros(40, dtype=torch.int16))
    with pytest.raises(LearningError, match="diverged"):
        TABLE.train(TABLE.new_model(0), broken, TrainSettings())


def test_no_samples() -> None:
    with pytest.raises(LearningError, match="no samples"):
        TABLE.train(TABLE.new_model(0), NOTHING, TrainSettings())
    with pytest.raises(LearningError, match="no samples"):
        TABLE.evaluate(TABLE.new_model(0), NOTHING)
    with pytest.raises(LearningError, match="no samples"):
        concat_samples([])
    with pytest.raises(LearningError, match="need"):
        Samples(torch.zeros(3, 2), torch.zeros(2))


# --- testing and probing ---------------------------------------------------------------------------------------------


class Always(nn.Module):
    """Answers one label, whatever it is asked."""

    def __init__(self, label: int, labels: int) -> None:
        super().__init__()
        self.answer = nn.functional.one_hot(torch.tensor(label), labels).float()

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.answer.expand(len(inputs), -1)


def test_accuracy_is_counted_per_group_and_only_for_groups_that_occur() -> None:
    labels = torch.tensor([0] * 6 + [1] * 2 + [7] * 2, dtype=torch.int16)  # 0, 1: cardiology; 7: neurology
    found = VIGNETTES.evaluate(Always(0, 48), Samples(torch.zeros(10, 12, dtype=torch.int16), labels))
    assert found.broad == pytest.approx(0.6)
    assert found.per_group == {"cardiology": pytest.approx(0.75), "neurology": 0.0}
    assert found.samples == 10


def test_testing_in_parts_is_testing_in_one() -> None:
    labels = (torch.arange(1300) % 3 == 0).to(torch.int16)
    found = TABLE.evaluate(Always(1, 2), Samples(torch.zeros(1300, 3), labels))
    assert found.broad == pytest.approx(float(labels.double().mean()))
    assert found.per_group == {"a": 0.0, "b": 1.0}


def test_group_counts() -> None:
    labels = torch.tensor([0, 5, 6, 47], dtype=torch.int16)
    counts = VIGNETTES.group_counts(Samples(torch.zeros(4, 12, dtype=torch.int16), labels))
    assert {g: n for g, n in counts.items() if n} == {"cardiology": 2, "neurology": 1, "dermatology": 1}
    assert list(counts) == VIGNETTES.groups


def test_the_quality_probe_tells_good_data_from_noise() -> None:
    noise = Samples(
        PART.train.inputs, PART.train.labels[torch.randperm(80, generator=torch.Generator().manual_seed(0))]
    )
    good, bad = TABLE.quality_probe(PART.train), TABLE.quality_probe(noise)
    assert good > 0.85
    assert 0.2 < bad < 0.75
    assert good == TABLE.quality_probe(PART.train)
    assert TABLE.quality_probe(PART.train.take(torch.arange(5))) == 0
    assert 0.3 < VIGNETTES.quality_probe(PATIENTS.train) <= 1


# --- queries ---------------------------------------------------------------------------------------------------------


def test_ask_agrees_with_evaluate() -> None:
    model = TABLE.new_model(0)
    TABLE.train(model, PART.train, TrainSettings(epochs=10, batch_size=8, learning_rate=2e-2))
    test = PART.test[0]
    right = 0
    for row, label in zip(test.inputs.tolist(), test.labels.tolist(), strict=True):
        answer, confidence = TABLE.ask(model, row)
        right += answer == TABLE.labels[label]
        assert 0.5 <= confidence <= 1
    assert right / len(test) == pytest.approx(TABLE.evaluate(model, test).broad)


@pytest.mark.parametrize(
    "sample", [[], [1.0, 2.0], [1.0] * 4, [[1.0, 2.0, 3.0]], [math.nan, 0, 0], [math.inf, 0, 0], "abc", None,
               [1j, 0, 0], ["1", "2", "3"], [None, 0, 0], 5],
    ids=str,
)  # fmt: skip
def test_what_is_no_query_is_refused(sample: Any) -> None:
    with pytest.raises(LearningError):
        TABLE.ask(TABLE.new_model(0), sample)


@pytest.mark.parametrize("token", [-1, 160, 0.5, math.nan, 1e300])
def test_a_vignette_holds_finding_numbers(token: float) -> None:
    with pytest.raises(LearningError, match=r"0\.\.159"):
        VIGNETTES.ask(VIGNETTES.new_model(0), [token, *[0.0] * 11])
    assert VIGNETTES.ask(VIGNETTES.new_model(0), [159, *[0] * 11])[0] in VIGNETTES.labels


def test_a_number_too_large_for_the_model_is_refused() -> None:
    with pytest.raises(LearningError):
        TABLE.ask(TABLE.new_model(0), [1e39, 0.0, 0.0])


def test_an_integer_too_large_for_any_float_is_refused() -> None:
    with pytest.raises(LearningError):
        TABLE.ask(TABLE.new_model(0), [10**400, 0, 0])


@pytest.mark.parametrize("task", [TABLE, VIGNETTES], ids=["table", "vignettes"])
def test_a_sample_of_a_group_can_be_asked(task: Task) -> None:
    model, group = task.new_model(0), task.groups[1]
    drawn = [task.sample_of(group, random.Random(seed)) for seed in range(8)]
    for sample, expected in drawn:
        assert task.groups[int(task.group_of[task.labels.index(expected)])] == group
        assert task.ask(model, sample)[0] in task.labels
    assert drawn[0] == task.sample_of(group, random.Random(0))
    assert len({tuple(sample) for sample, _ in drawn}) > 1
    assert len({task.sample_of("", random.Random(seed))[1] for seed in range(12)}) > 1
    with pytest.raises(LearningError, match="no group 'astrology'"):
        task.sample_of("astrology", random.Random(0))


def test_pick_gives_what_is_there() -> None:
    only_a = PART.test[0].take(torch.nonzero(PART.test[0].labels == 0)[:, 0])
    sample, expected = TABLE.pick(only_a, "a", random.Random(1))
    assert expected == "a"
    assert sample in only_a.inputs.tolist()
    with pytest.raises(LearningError, match="no sample of group 'b'"):
        TABLE.pick(only_a, "b", random.Random(1))


# --- prose -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cells", "prose"),
    [([f"the patient number {i} coughs" for i in range(9)], True), (["stays in bed"] * 9, False),
     ([f"word{i}" for i in range(9)], False), ([str(i) for i in range(9)], False),
     ([f"a b c {i}" for i in range(5)] + [""] * 4, True), ([f"a b c {i}" for i in range(4)] + [""] * 5, False)],
    ids=["notes", "one phrase", "words", "numbers", "mostly notes", "mostly nothing"],
)  # fmt: skip
def test_prose_is_told_from_other_columns(cells: list[str], prose: bool) -> None:
    rows = Rows(["note", "label"], [[cell, f"long label text {i}"] for i, cell in enumerate(cells)], [0] * 9, "label")
    assert prose_columns(rows) == (["note"] if prose else [])


def test_no_rows_no_prose() -> None:
    assert prose_columns(Rows(["note", "label"], [], [], "label")) == []


# --- bytes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "part"), [(TABLE, PART), (VIGNETTES, PATIENTS), (two_clouds(hidden=5), PART)],
    ids=["table", "vignettes", "hidden"],
)  # fmt: skip
def test_a_model_comes_back_exactly(task: Task, part: Any) -> None:
    model = task.new_model(5)
    task.train(model, part.train, TrainSettings(epochs=0.5))
    data = model_to_bytes(model)
    for sent in (data, bytearray(data), memoryview(data)):
        back = bytes_to_model(task, sent)
        assert same(model, back)
        assert model_to_bytes(back) == data
    assert task.evaluate(model, part.train) == task.evaluate(bytes_to_model(task, data), part.train)


@pytest.mark.parametrize(("task", "part"), [(TABLE, PART), (VIGNETTES, PATIENTS)], ids=["table", "vignettes"])
def test_samples_come_back_exactly(task: Task, part: Any) -> None:
    for samples in (part.train, part.test[1], part.train.take(torch.arange(0)), part.train.take(torch.arange(5, 9))):
        back = bytes_to_samples(task, memoryview(samples_to_bytes(samples)))
        assert torch.equal(back.inputs, samples.inputs)
        assert torch.equal(back.labels, samples.labels)


Tensors = dict[str, torch.Tensor]
WRONG_MODELS: dict[str, Callable[[Tensors], object]] = {
    "other shape": lambda t: t.update({"layers.0.bias": torch.zeros(3)}),
    "turned": lambda t: t.update({"layers.0.weight": t["layers.0.weight"].T.contiguous()}),
    "half precision": lambda t: t.update({"layers.0.bias": t["layers.0.bias"].half()}),
    "double": lambda t: t.update({"layers.0.bias": t["layers.0.bias"].double()}),
    "whole numbers": lambda t: t.update({"layers.0.bias": torch.zeros(2, dtype=torch.int32)}),
    "one missing": lambda t: t.pop("layers.0.bias"),
    "one too many": lambda t: t.update({"extra": torch.zeros(1)}),
    "other name": lambda t: t.update({"bias": t.pop("layers.0.bias")}),
    "nothing": lambda t: t.clear(),
    "not a number": lambda t: t.update({"layers.0.bias": torch.tensor([math.nan, 0])}),
    "infinite": lambda t: t.update({"layers.0.weight": torch.full((2, 3), -math.inf)}),
    "oversize": lambda t: t.update({"layers.0.bias": torch.zeros(1 << 15)}),
}


@pytest.mark.parametrize("name", WRONG_MODELS)
def test_what_is_no_model_of_the_task_is_refused(name: str) -> None:
    tensors = dict(TABLE.new_model(0).state_dict())
    assert same(bytes_to_model(TABLE, save(tensors)), TABLE.new_model(0))  # before it is spoiled
    WRONG_MODELS[name](tensors)
    with pytest.raises(LearningError, match=r"^[^\n]+\Z"):
        bytes_to_model(TABLE, save(tensors))


def test_another_tasks_model_is_refused() -> None:
    with pytest.raises(LearningError, match="another task"):
        bytes_to_model(VIGNETTES, MODEL)
    with pytest.raises(LearningError, match="another task"):
        bytes_to_model(TABLE, model_to_bytes(VIGNETTES.new_model(0)))
    with pytest.raises(LearningError, match="another task"):
        bytes_to_model(TABLE, model_to_bytes(two_clouds(hidden=4).new_model(0)))


def test_a_model_too_large_is_refused_before_it_is_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(safe_bytes, "load_tensors", lambda *_data: pytest.fail("parsed"))
    with pytest.raises(LearningError, match="bytes: a model of task table has 32"):
        bytes_to_model(TABLE, bytes(1 << 20))


INPUTS, LABELS = torch.zeros(4, 3), torch.zeros(4, dtype=torch.int16)
WRONG_SAMPLES: dict[str, Tensors] = {
    "no labels": {"inputs": INPUTS},
    "one too many": {"inputs": INPUTS, "labels": LABELS, "more": LABELS + 0},
    "width": {"inputs": torch.zeros(4, 2), "labels": LABELS},
    "flat": {"inputs": torch.zeros(12), "labels": LABELS},
    "type": {"inputs": INPUTS.double(), "labels": LABELS},
    "label type": {"inputs": INPUTS, "labels": LABELS.long()},
    "label count": {"inputs": INPUTS, "labels": LABELS[:3]},
    "label shape": {"inputs": INPUTS, "labels": LABELS[:, None]},
    "label too high": {"inputs": INPUTS, "labels": LABELS + 2},
    "label below 0": {"inputs": INPUTS, "labels": LABELS - 1},
    "not a number": {"inputs": INPUTS / 0, "labels": LABELS},
    "nothing": {},
}


@pytest.mark.parametrize("name", WRONG_SAMPLES)
def test_what_are_no_samples_of_the_task_is_refused(name: str) -> None:
    assert len(bytes_to_samples(TABLE, save({"inputs": INPUTS, "labels": LABELS}))) == 4
    with pytest.raises(LearningError, match=r"^[^\n]+\Z"):
        bytes_to_samples(TABLE, save(WRONG_SAMPLES[name]))


@pytest.mark.parametrize("token", [-1, 160])
def test_findings_off_the_wire_are_checked(token: int) -> None:
    inputs = PATIENTS.train.inputs.clone()
    inputs[3, 4] = token
    with pytest.raises(LearningError, match=r"0\.\.159"):
        bytes_to_samples(VIGNETTES, samples_to_bytes(Samples(inputs, PATIENTS.train.labels)))


def test_too_many_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(safe_bytes, "MAX_SAMPLES", 79)
    with pytest.raises(LearningError):
        bytes_to_samples(TABLE, SAMPLES)


def opened(data: bytes) -> None:
    """Bytes are a model and samples of the task, or are refused; nothing else happens."""
    for read in (bytes_to_model, bytes_to_samples):
        try:
            found = read(TABLE, data)
        except LearningError as problem:
            assert "\n" not in str(problem)
            continue
        if isinstance(found, nn.Module):
            assert all(bool(torch.isfinite(t).all()) for t in state(found))
        else:
            assert found.labels.dtype == torch.int16
            assert all(0 <= label < 2 for label in found.labels.tolist())


@pytest.mark.parametrize("whole", [MODEL, SAMPLES], ids=["model", "samples"])
def test_every_cut_is_refused(whole: bytes) -> None:
    read: Callable[[Task, bytes], object] = bytes_to_model if whole is MODEL else bytes_to_samples
    read(TABLE, whole)
    for length in [*range(0, min(200, len(whole)), 3), len(whole) - 1]:
        with pytest.raises(LearningError):
            read(TABLE, whole[:length])
    with pytest.raises(LearningError):
        read(TABLE, whole + b"\0")


@given(st.sampled_from([MODEL, SAMPLES]), st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=4))
@settings(max_examples=150)
def test_fuzz_changed_bytes(whole: bytes, changes: list[tuple[int, int]]) -> None:
    data = bytearray(whole)
    for at, value in changes:
        data[at % len(data)] = value
    opened(bytes(data))


@given(st.binary(max_size=120))
def test_fuzz_any_bytes(data: bytes) -> None:
    opened(data)


ENTRY = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "I16", "F64", "BF16", "F8_E4M3", "F4", "BOOL", "C64", "X", ""]),
        "shape": st.lists(st.sampled_from([0, 1, 2, 3, 4, 2**31, 2**63, -1]), max_size=3),
        "data_offsets": st.lists(st.sampled_from([0, 4, 8, 24, 32, 2**40, -4]), min_size=2, max_size=2),
    }
)
HEADER = st.dictionaries(
    st.sampled_from(["layers.0.weight", "layers.0.bias", "inputs", "labels", "__metadata__"]), ENTRY, max_size=3
)


@given(HEADER, st.sampled_from([0, 8, 24, 32]))
@settings(max_examples=150)
def test_fuzz_headers(header: dict[str, Any], body: int) -> None:
    told = json.dumps(header).encode()
    opened(struct.pack("<Q", len(told)) + told + bytes(body))
