"""Data gone wrong, on purpose: a node whose training labels are flipped (an experiment's fault, never a default)."""

from __future__ import annotations

import zlib
from collections.abc import Mapping

import numpy as np
import torch

from hosts.learning.errors import LearningError
from hosts.learning.spec import NodeData, Samples
from hosts.learning.task import Task


def with_flipped_labels(
    task: Task, data: Mapping[str, NodeData], flip: Mapping[str, float], seed: int
) -> dict[str, NodeData]:
    """Give nodes wrong training labels, ``flip``: {node: share of its samples}; ``LearningError`` for an unknown node.

    A wrong label is another answer of the same group where the group has several (a disease of the same department),
    else of another group; which one is the same for all samples of a label, as a wrong coding table would do it. Test
    samples stay right: they are drawn by hand, training data is exported by a program.
    """
    if unknown := sorted(set(flip) - set(data)):
        raise LearningError(f"flip names {unknown[0]}, which is no data node; there are {', '.join(sorted(data))}")
    if wrong := [n for n, share in flip.items() if not 0 <= share <= 1]:
        raise LearningError(f"flip of {wrong[0]}: a share of its labels, 0..1")
    spoiled = {name: _spoil(task, data[name], share, name, seed) for name, share in flip.items() if share > 0}
    return {**data, **spoiled}


def _spoil(task: Task, held: NodeData, share: float, name: str, seed: int) -> NodeData:
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    labels = held.train.labels.clone()
    rows = torch.from_numpy(np.flatnonzero(rng.random(len(labels)) < share))
    labels[rows] = wrong_labels(task)[labels[rows].long()].to(labels.dtype)
    return NodeData(train=Samples(held.train.inputs, labels), test=held.test)


def wrong_labels(task: Task) -> torch.Tensor:
    """Return the wrong label of every label (labels,): the next one of its group, or of all where it is alone there."""
    wrong = torch.zeros(len(task.labels), dtype=torch.int64)
    groups = task.group_of.tolist()
    for label, group in enumerate(groups):
        peers = [i for i, g in enumerate(groups) if g == group]
        peers = peers if len(peers) > 1 else list(range(len(groups)))
        wrong[label] = peers[(peers.index(label) + 1) % len(peers)]
    return wrong
