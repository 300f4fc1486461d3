"""Activations and probabilities as safetensors bytes, sealed: what was cut short, altered or meant for another model is
refused with ``LearningError``.

The bytes hold ``x`` (n, ...) float32 or float16, and ``check``, the CRC-32 of its type, shape and bytes after a
``seal`` that both ends know (say, which model at which cut). A checksum keeps accidents out; against forgery messages
are signed elsewhere.
"""

from __future__ import annotations

import zlib

import torch
from safetensors.torch import save

from hosts.learning.errors import LearningError
from hosts.learning.tensors import load_tensors

Bytes = bytes | bytearray | memoryview
MAX_ROWS = 4096
_TYPES = (torch.float32, torch.float16)
_SLACK = 1 << 12


def tensor_to_bytes(tensor: torch.Tensor, *, half: bool = False, seal: str = "") -> bytes:
    """Return a float32 tensor (n, ...) as bytes; ``half``: as float16, in half of them."""
    values = tensor.detach().to(torch.float16 if half else torch.float32).contiguous()
    if not values.ndim or not 0 < len(values) <= MAX_ROWS:
        raise LearningError(f"tensor of shape {tuple(values.shape)}: 1 to {MAX_ROWS} rows travel at a time")
    if not bool(torch.isfinite(values).all()):
        raise LearningError(f"tensor holds values that are not finite{' as float16: send float32' if half else ''}")
    return bytes(save({"x": values, "check": torch.tensor([_check(values, seal)])}))


def bytes_to_tensor(data: Bytes, shape: tuple[int, ...], *, seal: str = "", what: str = "activations") -> torch.Tensor:
    """Return what ``tensor_to_bytes`` was given, (n, *shape) float32; ``LearningError`` unless it is that."""
    row_bytes = 4 * max(1, torch.Size(shape).numel())
    if len(data) > MAX_ROWS * row_bytes + _SLACK:
        raise LearningError(f"{what} of {len(data)} bytes: {MAX_ROWS} rows of {row_bytes} are the most")
    tensors = load_tensors(data, what)
    if tensors.keys() != {"x", "check"}:
        raise LearningError(f"{what} with {len(tensors)} tensors: need x and check")
    values, check = tensors["x"], tensors["check"]
    if values.dtype not in _TYPES or not values.ndim or tuple(values.shape[1:]) != shape or not len(values):
        raise LearningError(f"{what} of shape {tuple(values.shape)} {values.dtype}: need (rows, *{shape}) of floats")
    if check.dtype != torch.int64 or check.shape != (1,) or int(check) != _check(values, seal):
        raise LearningError(f"{what} of {len(data)} bytes: altered on the way, or of another model or cut")
    if not bool(torch.isfinite(values).all()):
        raise LearningError(f"{what} holds values that are not finite")
    return values.float()


def _check(values: torch.Tensor, seal: str) -> int:
    about = zlib.crc32(f"{seal} {values.dtype} {tuple(values.shape)}".encode())
    return zlib.crc32(values.reshape(-1).view(torch.uint8).numpy().tobytes(), about)
