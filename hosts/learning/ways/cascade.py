"""What an MPVU learns for a cascade: from where the cheap model answers. Both models travel there as one object."""

from __future__ import annotations

from typing import NamedTuple

import msgspec
import torch
from torch import nn

from hosts.learning.errors import LearningError
from hosts.learning.spec import Evaluation, Samples
from hosts.learning.task import Task, bytes_to_model
from hosts.learning.ways.calibrate import LEAST, probabilities
from hosts.learning.ways.models import task_of
from hosts.learning.ways.switched import Threshold, learn_threshold, switch

ALLOWED_LOSS = 0.01  # of all answers, against the large model


class Pair(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A task's own model and another one beside it, each as safetensors."""

    beside: bytes
    own: bytes


class Cascade(nn.Module):
    """Both models as one."""

    def __init__(self, cheap: nn.Module, large: nn.Module, threshold: Threshold) -> None:
        super().__init__()
        self.cheap, self.large, self.threshold = cheap, large, threshold

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        def ask_large(rows: torch.Tensor) -> torch.Tensor:
            return _chances(self.large, inputs[rows])

        return switch(self.threshold, _chances(self.cheap, inputs), ask_large).clamp(min=LEAST).log()


class Learned(NamedTuple):
    """From which confidence on the cheap model answers, and how the cascade then does on the same samples."""

    threshold: Threshold
    measured: Evaluation


def pair_to_bytes(beside: bytes, own: bytes) -> bytes:
    """Return both models as one object."""
    return msgspec.msgpack.encode(Pair(beside, own))


def bytes_to_pair(
    data: bytes | bytearray | memoryview, task: Task, model: str = "cheap"
) -> tuple[nn.Module, nn.Module]:  # fmt: skip
    """Return a task's model of that name, and its own; ``LearningError`` unless they are these."""
    try:
        pair = msgspec.msgpack.decode(data, type=Pair)
    except msgspec.DecodeError as error:
        raise LearningError(f"a task's own model and its {model} one: {error}") from None
    return bytes_to_model(task_of(task, model), pair.beside), bytes_to_model(task, pair.own)


def learn_cascade(task: Task, data: bytes | bytearray | memoryview, samples: Samples) -> Learned:
    """Learn a threshold on samples that neither model was trained on, at a loss of ``ALLOWED_LOSS`` at most."""
    cheap, large = bytes_to_pair(data, task)
    threshold = learn_threshold(
        probabilities(cheap, samples), probabilities(large, samples), samples.labels, ALLOWED_LOSS
    )
    return Learned(threshold, task.evaluate(Cascade(cheap, large, threshold).eval(), samples))


def _chances(model: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
    found: torch.Tensor = model(inputs).softmax(dim=1)
    return found
