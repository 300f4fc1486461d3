"""New samples that a data node collects, and labels gone wrong on purpose."""

from __future__ import annotations

import pytest
import torch

from hosts.learning.data.collect import merged_shares, new_samples
from hosts.learning.data.faults import with_flipped_labels
from hosts.learning.errors import LearningError
from hosts.learning.task import TaskSpec, load_task, partition

TASK = load_task(TaskSpec(train_per_node=200, test_per_node=20))
PARTS = partition(TASK, ["h11", "h12", "h21"], 1)


def test_new_samples_are_new_and_of_the_node_s_own_mix() -> None:
    held = PARTS["h11"].train
    new = new_samples(TASK, held, 400, seed=5)
    assert len(new) == 400
    known = {tuple(row) for row in held.inputs.tolist()}
    assert not any(tuple(row) in known for row in new.inputs.tolist())
    assert {g for g, n in TASK.group_counts(new).items() if n} <= {g for g, n in TASK.group_counts(held).items() if n}


def test_a_group_can_be_asked_for_and_one_that_is_not_there_is_named() -> None:
    counts = TASK.group_counts(new_samples(TASK, PARTS["h11"].train, 50, seed=5, group="cardiology"))
    assert counts["cardiology"] == 50
    with pytest.raises(LearningError, match="no group 'cardiologie'"):
        new_samples(TASK, PARTS["h11"].train, 50, seed=5, group="cardiologie")
    with pytest.raises(LearningError, match="ask for 1"):
        new_samples(TASK, PARTS["h11"].train, 0, seed=5)


def test_histograms_merge_by_their_counts() -> None:
    assert merged_shares({"a": 1.0}, 100, {"a": 0.5, "b": 0.5}, 100) == {"a": 0.75, "b": 0.25}


def test_flipped_labels_are_wrong_in_their_own_group_and_only_where_asked() -> None:
    spoiled = with_flipped_labels(TASK, PARTS, {"h12": 1.0, "h21": 0.5}, 1)
    assert spoiled["h11"] is PARTS["h11"]
    before, after = PARTS["h12"].train, spoiled["h12"].train
    assert not bool((before.labels == after.labels).any())
    assert TASK.group_counts(before) == TASK.group_counts(after), "what the node says of its data does not give it away"
    assert torch.equal(spoiled["h12"].test[0].labels, PARTS["h12"].test[0].labels)
    half = (PARTS["h21"].train.labels != spoiled["h21"].train.labels).float().mean()
    assert 0.35 < float(half) < 0.65


def test_an_unknown_node_is_named() -> None:
    with pytest.raises(LearningError, match="h99, which is no data node"):
        with_flipped_labels(TASK, PARTS, {"h99": 1.0}, 1)
