"""Safetensors bytes to tensors: nothing off the wire is executed."""

from __future__ import annotations

import torch
from safetensors import SafetensorError
from safetensors.torch import load

from hosts.learning.errors import LearningError


def load_tensors(data: bytes | bytearray | memoryview, what: str) -> dict[str, torch.Tensor]:
    """Return the tensors of safetensors bytes by name; ``LearningError`` (naming ``what``) when they are not whole."""
    try:
        tensors: dict[str, torch.Tensor] = load(bytes(data))
    except (SafetensorError, ValueError, KeyError, TypeError, RuntimeError, OverflowError) as problem:
        raise LearningError(f"{what} of {len(data)} bytes is not whole safetensors: {str(problem)[:80]}") from None
    return tensors
