"""Models and samples as safetensors bytes; nothing off the wire is executed, and shapes must be the task's own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from safetensors.torch import save
from torch import nn

from hosts.learning.compress import Compression, decode, encode, encoding_of
from hosts.learning.errors import LearningError
from hosts.learning.spec import Samples
from hosts.learning.tensors import load_tensors

if TYPE_CHECKING:
    from hosts.learning.base import Task

MAX_SAMPLES = 1_000_000
_HEADER_SLACK = 1 << 16


def model_to_bytes(model: nn.Module, how: Compression | None = None) -> bytes:
    """Return the model's tensors, by name, as safetensors; ``how``: ``int8`` or ``lossless`` in fewer bytes."""
    state = {name: tensor.detach().contiguous() for name, tensor in model.state_dict().items()}
    return bytes(save(state)) if how is None or how.kind == "none" else encode(state, how)[0]


def bytes_to_model(task: Task, data: bytes | bytearray | memoryview) -> nn.Module:
    """Return the task's model with the tensors of ``data``, whatever their encoding; ``LearningError`` unless names,
    shapes and types are the task's.
    """
    model = task.new_model(0)
    expected = model.state_dict()
    size = sum(t.numel() * t.element_size() for t in expected.values())
    if len(data) > size + _HEADER_SLACK:
        raise LearningError(
            f"model of {len(data)} bytes: a model of task {task.name} has {size}; is it another task's?"
        )
    if len(data) >= 8 and b'"encoding"' in bytes(data[8:256]) and encoding_of(data)[0] != "none":
        model.load_state_dict(decode(data, expected))
        return model
    tensors = load_tensors(data, "model")
    if tensors.keys() != expected.keys():
        odd = sorted(tensors.keys() ^ expected.keys())[0]
        raise LearningError(
            f"model tensor {odd!r}: not the same tensors as task {task.name} has; is it another task's?"
        )
    for name, tensor in tensors.items():
        _check(name, tensor, expected[name])
    model.load_state_dict(tensors)
    return model


def _check(name: str, tensor: torch.Tensor, like: torch.Tensor) -> None:
    if tensor.shape != like.shape or tensor.dtype != like.dtype:
        got, want = (f"{tuple(t.shape)} {t.dtype}" for t in (tensor, like))
        raise LearningError(f"model tensor {name!r} is {got}, not {want}; is it another task's model?")
    if not bool(torch.isfinite(tensor).all()):
        raise LearningError(f"model tensor {name!r} holds values that are not finite: roll back to an earlier state")


def samples_to_bytes(samples: Samples) -> bytes:
    """Return samples as safetensors (``inputs``, ``labels``)."""
    return bytes(save({"inputs": samples.inputs.contiguous(), "labels": samples.labels.contiguous()}))


def bytes_to_samples(task: Task, data: bytes | bytearray | memoryview) -> Samples:
    """Return the samples in ``data``; ``LearningError`` unless width, types and value ranges are the task's."""
    tensors = load_tensors(data, "samples")
    if tensors.keys() != {"inputs", "labels"}:
        raise LearningError(f"samples with tensors {sorted(tensors)}: need inputs and labels")
    inputs, labels = tensors["inputs"], tensors["labels"]
    if (
        inputs.ndim != 2
        or inputs.shape[1] != task.width
        or inputs.dtype != task.input_type
        or len(inputs) > MAX_SAMPLES
    ):
        raise LearningError(
            f"samples of shape {tuple(inputs.shape)} {inputs.dtype}: task {task.name} has width {task.width}"
        )
    if labels.dtype != torch.int16 or labels.shape != inputs.shape[:1]:
        raise LearningError(f"sample labels of shape {tuple(labels.shape)} {labels.dtype}: need one int16 per sample")
    task.check_inputs(inputs)
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < len(task.labels):
        raise LearningError(f"sample label outside 0..{len(task.labels) - 1}: not a label of task {task.name}")
    return Samples(inputs, labels)
