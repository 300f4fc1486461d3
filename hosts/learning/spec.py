"""The values that a learning task trades in: settings, results, samples."""

from __future__ import annotations

import msgspec
import torch

from hosts.learning.errors import LearningError
from hosts.learning.task_spec import Kind, TaskSpec

__all__ = [
    "Evaluation", "Kind", "NodeData", "Samples", "TaskSpec", "TrainResult", "TrainSettings", "concat_samples",
]  # fmt: skip


class TrainSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Hyper-parameters of one visit. ``epochs`` may be a fraction; ``group_weights``: loss weight per group (default
    1).
    """

    epochs: float = 1.0
    batch_size: int = 64
    learning_rate: float = 2e-3
    group_weights: dict[str, float] = {}
    seed: int = 0


class TrainResult(msgspec.Struct, frozen=True, kw_only=True):
    """What a visit did: mean loss over the last epoch, samples held, seconds spent."""

    loss: float
    samples: int
    seconds: float


class Evaluation(msgspec.Struct, frozen=True, kw_only=True):
    """Accuracy over all samples, and per group that occurs in them (shares of 1)."""

    broad: float
    per_group: dict[str, float]
    samples: int


class Samples:
    """Inputs and labels: ``inputs`` (n, width) int16 tokens or float32 features, ``labels`` (n,) int16."""

    __slots__ = ("inputs", "labels")

    def __init__(self, inputs: torch.Tensor, labels: torch.Tensor) -> None:
        if inputs.ndim != 2 or labels.shape != inputs.shape[:1]:
            raise LearningError(
                f"samples of shape {tuple(inputs.shape)} with labels {tuple(labels.shape)}: need (n, width), (n,)"
            )
        self.inputs = inputs
        self.labels = labels

    def __len__(self) -> int:
        return int(self.labels.shape[0])

    def take(self, rows: torch.Tensor) -> Samples:
        """Return the samples at the given row numbers."""
        return Samples(self.inputs[rows], self.labels[rows])


def concat_samples(parts: list[Samples]) -> Samples:
    """Join samples of one task, in order; an MPVU does so with what the data nodes sent it."""
    if not parts:
        raise LearningError("no samples to join: wait until a data node has sent some")
    return Samples(torch.cat([p.inputs for p in parts]), torch.cat([p.labels for p in parts]))


class NodeData(msgspec.Struct, frozen=True, kw_only=True):
    """What one data node holds: its training samples, and two test samples that share no row with them nor with each
    other.
    """

    train: Samples
    test: tuple[Samples, Samples]
