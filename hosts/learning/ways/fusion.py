"""What an MPVU learns for a fusion of findings and vitals. Both models travel there as one object."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn

from hosts.learning.errors import LearningError
from hosts.learning.spec import Evaluation, Samples
from hosts.learning.task import Task
from hosts.learning.ways.calibrate import probabilities
from hosts.learning.ways.cascade import bytes_to_pair
from hosts.learning.ways.models import seen_by, task_of
from hosts.learning.ways.multimodal import Fusion, fuse, learn_fusion

LEAST_SAMPLES = 100  # three numbers a class are learned


class Fused(NamedTuple):
    """A fusion, how it does on samples that it was not learned on, and how either model does alone."""

    fusion: Fusion
    measured: Evaluation
    text: Evaluation
    vitals: Evaluation


def learn_fused(task: Task, data: bytes | bytearray | memoryview, samples: Samples) -> Fused:
    """Learn a fusion on samples that neither model was trained on.

    It is learned on all of them, and measured by what each half says of a fusion that the other half taught.
    """
    if len(samples) < LEAST_SAMPLES:
        raise LearningError(f"a fusion is learned on {LEAST_SAMPLES} test samples at least, here are {len(samples)}")
    vitals, text = bytes_to_pair(data, task, "vitals")
    by_vitals = seen_by(vitals_task := task_of(task, "vitals"), samples)
    of_text, of_vitals = probabilities(text, samples), probabilities(vitals, by_vitals)
    crossed, rows = torch.zeros_like(of_text), torch.arange(len(samples))
    for half in (0, 1):
        known, held = rows[half::2], rows[1 - half :: 2]
        fusion = learn_fusion(of_text[known], of_vitals[known], samples.labels[known])
        crossed[held] = fuse(fusion, of_text[held], of_vitals[held]).to(crossed.dtype)
    return Fused(
        learn_fusion(of_text, of_vitals, samples.labels),
        task.evaluate(nn.Identity(), Samples(crossed, samples.labels)),
        task.evaluate(text, samples), vitals_task.evaluate(vitals, by_vitals),
    )  # fmt: skip
