"""Findings and vitals: the same patients, two views that are better together, and one that may be missing."""

from __future__ import annotations

import random

import msgspec
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hosts.learning.data import vignettes
from hosts.learning.errors import LearningError
from hosts.learning.spec import TaskSpec, TrainSettings, concat_samples
from hosts.learning.task import VignetteTask, load_task, partition
from hosts.learning.ways.calibrate import probabilities
from hosts.learning.ways.costs import flops_per_query, ms_per_query
from hosts.learning.ways.models import both_of, seen_by, task_of
from hosts.learning.ways.multimodal import Fusion, fuse, learn_fusion
from hosts.learning.ways.pair import CheapVignetteTask
from hosts.learning.ways.vitals import PICTURES, SHOWN, SIGNS, WIDTH, VitalsTask, draw_vitals, vitals_of, with_vitals

SPEC = TaskSpec(noise=0.4, findings_per_vignette=8, train_per_node=400, test_per_node=200)
NODES = ["h1", "h2", "h3", "h4"]
LABELS = 4


def views(seed: int, n: int = 1200) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return (text, vitals, labels): text knows the half of the labels, vitals which of each half."""
    make = torch.Generator().manual_seed(seed)
    labels = torch.randint(LABELS, (n,), generator=make)
    sure = 3 * torch.nn.functional.one_hot(labels // 2, 2), 2 * torch.nn.functional.one_hot(labels % 2, 2)
    text, vitals = (s + torch.randn(n, 2, generator=make) for s in sure)
    return text.repeat_interleave(2, dim=1).softmax(1), vitals.repeat(1, 2).softmax(1), labels


def right(chances: torch.Tensor, labels: torch.Tensor) -> float:
    return float((chances.argmax(1) == labels).double().mean())


def test_two_views_are_better_than_one() -> None:
    fusion = learn_fusion(*views(0))
    text, vitals, labels = views(1)
    together = fuse(fusion, text, vitals)
    assert right(together, labels) > max(right(text, labels), right(vitals, labels)) + 0.2
    assert torch.allclose(together.sum(dim=1), torch.ones(len(labels), dtype=torch.float64))
    sure = together.max(dim=1).values
    assert float(sure.mean()) == pytest.approx(right(together, labels), abs=0.04)  # it is as right as it says


def test_where_one_is_missing_the_other_answers() -> None:
    text, vitals, labels = views(0)
    fusion = learn_fusion(text, vitals, labels)
    assert right(fuse(fusion, None, vitals), labels) == pytest.approx(right(vitals, labels), abs=0.03)
    assert right(fuse(fusion, text, None), labels) == pytest.approx(right(text, labels), abs=0.03)
    with pytest.raises(LearningError):
        fuse(fusion, None, None)


def test_a_view_that_knows_nothing_does_no_harm() -> None:
    text, _, labels = views(2)
    make = torch.Generator().manual_seed(9)
    idle = torch.rand(text.shape, generator=make).softmax(1)
    known = (3 * torch.nn.functional.one_hot(labels, LABELS) + torch.randn(text.shape, generator=make)).softmax(1)
    fusion = learn_fusion(known, idle, labels)
    assert right(fuse(fusion, known, idle), labels) >= right(known, labels) - 0.01


def test_a_fusion_travels_as_plain_numbers() -> None:
    text, vitals, labels = views(0, n=200)
    fusion = learn_fusion(text, vitals, labels)
    back = msgspec.msgpack.decode(msgspec.msgpack.encode(fusion), type=Fusion)
    assert torch.equal(fuse(back, text, vitals), fuse(fusion, text, vitals))
    with pytest.raises(LearningError):
        fuse(fusion, text, vitals[:, :3] / vitals[:, :3].sum(1, keepdim=True))
    with pytest.raises(LearningError):
        learn_fusion(text, vitals[:9], labels)


@given(st.integers(0, 47), st.integers(0, 999))
def test_vitals_are_of_their_disease_and_can_be(label: int, seed: int) -> None:
    group = vignettes.DEPARTMENTS[label // vignettes.PER_DEPARTMENT]
    one, again = (vitals_of(group, vignettes.LABELS[label], np.random.default_rng(seed)) for _ in range(2))
    assert np.array_equal(one, again) and one.shape == (WIDTH,) and one.dtype == np.float32
    assert all(sign.least <= value <= sign.most for sign, value in zip(SIGNS.values(), one, strict=True))
    assert np.array_equal(one, draw_vitals(np.array([label]), np.random.default_rng(seed))[0])


def test_pictures_cut_across_departments() -> None:
    assert list(SHOWN) == vignettes.DEPARTMENTS
    for shown in SHOWN.values():
        assert len(set(shown)) == vignettes.PER_DEPARTMENT and set(shown) <= PICTURES.keys()
    with pytest.raises(LearningError):
        vitals_of("cardiology", "gout", np.random.default_rng(0))


def test_the_same_patients_by_findings_and_by_vitals() -> None:
    text, vitals = (partition(task(SPEC), NODES, seed=5) for task in (VignetteTask, VitalsTask))
    for node in NODES:
        assert torch.equal(text[node].train.labels, vitals[node].train.labels)
        assert torch.equal(text[node].test[1].labels, vitals[node].test[1].labels)
        VitalsTask(SPEC).check_inputs(vitals[node].train.inputs)


def test_whoever_holds_a_sample_sees_the_same_vitals() -> None:
    text, vitals = VignetteTask(SPEC), VitalsTask(SPEC)
    held = partition(text, NODES, seed=5)["h1"].train
    whole, rows = with_vitals(held), torch.tensor([7, 3, 250])
    assert torch.equal(with_vitals(held.take(rows)).inputs, whole.inputs[rows]), "in whatever order, and company"
    findings, label = held.inputs[3].tolist(), text.labels[int(held.labels[3])]
    assert vitals.beside([float(f) for f in findings], label) == whole.inputs[3].tolist()
    assert len(whole.inputs.unique(dim=0)) > 0.95 * len(held), "each patient has vitals of one's own"
    assert len(with_vitals(held.take(torch.arange(0)))) == 0


def test_vitals_are_seen_by_their_model_alone() -> None:
    text = VignetteTask(SPEC)
    held = partition(text, NODES, seed=5)["h1"].train
    assert seen_by(task_of(text, "cheap"), held) is held and seen_by(text, held) is held
    assert torch.equal(seen_by(task_of(text, "vitals"), held).inputs, with_vitals(held).inputs)
    sample, label = text.sample_of("", random.Random(4))
    assert both_of(text, sample, label) == [*sample, *VitalsTask(SPEC).sample_of("", random.Random(4))[0]]
    with pytest.raises(LearningError, match="task digits has no vitals model"):
        both_of(load_task(TaskSpec(name="digits")), [0.0], "1")


def test_models_of_findings_and_vitals_fuse_to_a_better_one() -> None:
    chances, labels = [], torch.empty(0)
    for task in (CheapVignetteTask(SPEC), VitalsTask(SPEC)):
        parts = list(partition(task, NODES, seed=1).values())
        model = task.new_model(0)
        train = concat_samples([part.train for part in parts])
        task.train(model, train, TrainSettings(epochs=8, learning_rate=1e-2))
        tests = [concat_samples([part.test[i] for part in parts]) for i in (0, 1)]
        chances.append([probabilities(model, test) for test in tests])
        labels = torch.stack([test.labels for test in tests])
    fusion = learn_fusion(chances[0][0], chances[1][0], labels[0])
    alone = [right(found[1], labels[1]) for found in chances]
    assert right(fuse(fusion, chances[0][1], chances[1][1]), labels[1]) > max(alone) + 0.05


def test_vitals_are_asked_for_as_any_task() -> None:
    task = VitalsTask(SPEC)
    sample, label = task.sample_of("cardiology", random.Random(1))
    assert label in task.labels[:6] and task.ask(task.new_model(0), sample)[0] in task.labels
    assert 0 <= task.quality_probe(partition(task, NODES, 0)["h1"].train) <= 1
    for bad in ([*sample[:-1]], [float("nan"), *sample[1:]], [500.0, *sample[1:]]):
        with pytest.raises(LearningError):
            task.ask(task.new_model(0), bad)


def test_costs_are_counted_and_measured() -> None:
    large, cheap, vitals = VignetteTask(SPEC), CheapVignetteTask(SPEC), VitalsTask(SPEC)
    flops = [flops_per_query(task, task.new_model(0)) for task in (large, cheap, vitals)]
    assert flops[1] == 2 * (160 * 12 + 12 * 48) and flops[2] == 2 * (7 * 48 + 48 * 48)
    assert flops[0] > 500 * flops[1]
    assert ms_per_query(cheap, cheap.new_model(0), repeats=3) > 0
