"""Model updates in fewer bytes: int8, top-k of a delta, lossless delta; safetensors whose metadata says which.

    data, left = encode(state, parse_spec("topk:0.05"), base=known)    # left: what was not sent, for the next update
    state = decode(data, like=state, base=known)

A *delta* is against a ``base`` that both sides hold; the metadata carries the base's digest, so that a receiver with
another base refuses instead of building nonsense. Nothing in the bytes decides how much memory is taken: names, shapes
and types must be those of ``like`` (the receiver's own model), a compressed stream is unpacked to exactly their size
and not one byte further, and every index is checked. What is wrong is ``LearningError``, whatever the bytes.

``metadata``: ``encoding`` = ``none`` | ``int8`` | ``topk`` | ``lossless``; ``base`` = digest of the base, or absent.
Tensors: ``int8``: ``X`` int8 with ``X.scale`` float32 (one, or one per row); ``topk``: ``X.at`` int32, ``X.value``
float32; ``lossless``: ``packed`` uint8 (zlib of the byte-shuffled bit patterns, XOR those of the base).
"""

from __future__ import annotations

import hashlib
import zlib
from typing import Literal, cast

import msgspec
import numpy as np
import torch
from safetensors.torch import save

from hosts.learning.errors import LearningError, shown
from hosts.learning.tensors import load_tensors

State = dict[str, torch.Tensor]
Bytes = bytes | bytearray | memoryview
Kind = Literal["none", "int8", "topk", "lossless"]
KINDS = ("none", "int8", "topk", "lossless")
DEFAULT_SHARE = 0.05
MAX_HEADER = 1 << 20
_LEVEL = 1
_STEPS = 127.0
_SLACK = 1 << 16


class Compression(msgspec.Struct, frozen=True, kw_only=True):
    """How updates are written. ``share``: part of the values that ``topk`` sends; ``per_row``: one int8 scale a row."""

    kind: Kind = "none"
    share: float = DEFAULT_SHARE
    per_row: bool = True

    @property
    def lossy(self) -> bool:
        return self.kind in ("int8", "topk")


PLAIN = Compression()


def parse_spec(text: str) -> Compression:
    """Read a scenario's word: ``none``, ``int8``, ``int8:tensor`` (one scale), ``lossless``, ``topk``, ``topk:0.1``."""
    kind, _, rest = text.partition(":")
    wrong = LearningError(f"compression {shown(text)!r}: give none, int8, int8:tensor, lossless, topk or topk:SHARE")
    if kind not in KINDS or (rest and kind not in ("int8", "topk")) or (kind == "int8" and rest not in ("", "tensor")):
        raise wrong
    share = DEFAULT_SHARE
    if kind == "topk" and rest:
        try:
            share = float(rest)
        except ValueError:
            raise wrong from None
        if not 0 < share <= 1:
            raise LearningError(f"compression topk:{rest}: the share must be above 0 and at most 1")
    return Compression(kind=cast("Kind", kind), share=share, per_row=rest != "tensor")


def travelling(text: str) -> Compression:
    """Return how a whole model travels to a place that holds no base: ``topk``, a difference, becomes ``int8``."""
    how = parse_spec(text)
    return how if how.kind != "topk" else Compression(kind="int8")


def digest(state: State) -> str:
    """Name a state: SHA-256 over names, shapes and bytes of its tensors, 32 hex digits."""
    sums = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().contiguous()
        sums.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        sums.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return sums.hexdigest()[:32]


# --- encode ----------------------------------------------------------------------------------------------------------


def encode(
    state: State, how: Compression, *, base: State | None = None, left: State | None = None
) -> tuple[bytes, State]:
    """Return (bytes, what they leave out). Give the latter as ``left`` with the next update: nothing is lost for good.

    ``topk`` needs a base. ``left`` is all zeros where the encoding is exact.
    """
    state = {name: tensor.detach().contiguous() for name, tensor in state.items()}
    if how.kind == "topk" and base is None:
        raise LearningError("compression topk sends a difference: both sides need a base")
    if how.kind == "lossless":
        return _with_metadata({"packed": _pack(state, base)}, how, base), {}
    if how.kind == "none":
        return _with_metadata(state, how, None), {}
    wanted = _plus(_minus(state, base), left)
    coded = _topk(wanted, how.share) if how.kind == "topk" else _int8(wanted, how.per_row)
    sent = _from_topk(coded, state) if how.kind == "topk" else _from_int8(coded, state)
    return _with_metadata(coded, how, base), {n: wanted[n] - sent[n] for n in wanted}


def _with_metadata(tensors: State, how: Compression, base: State | None) -> bytes:
    about = {"encoding": how.kind} | ({"base": digest(base)} if base is not None else {})
    return bytes(save(tensors, metadata=about))


def _minus(state: State, base: State | None) -> State:
    return state if base is None else {name: tensor - base[name] for name, tensor in state.items()}


def _plus(state: State, left: State | None) -> State:
    return state if not left else {name: tensor + left[name] for name, tensor in state.items()}


def _int8(state: State, per_row: bool) -> State:
    coded: State = {}
    for name, tensor in state.items():
        rows = tensor.reshape(tensor.shape[0], -1) if per_row and tensor.ndim > 1 else tensor.reshape(1, -1)
        scale = (rows.abs().amax(dim=1) / _STEPS).float()  # (rows,)
        steps = torch.where(scale > 0, scale, torch.ones_like(scale))
        coded[name] = (rows / steps[:, None]).round().clamp(-_STEPS, _STEPS).to(torch.int8).reshape(tensor.shape)
        coded[f"{name}.scale"] = scale
    return coded


def _topk(state: State, share: float) -> State:
    coded: State = {}
    for name, tensor in state.items():
        flat = tensor.reshape(-1)
        k = min(len(flat), max(1, round(share * len(flat))))
        at = flat.abs().topk(k).indices.sort().values
        coded[f"{name}.at"], coded[f"{name}.value"] = at.to(torch.int32), flat[at].clone()
    return coded


def _bits(state: State) -> bytes:
    """Return all tensors' bytes, one after the other by name."""
    return b"".join(state[n].contiguous().reshape(-1).view(torch.uint8).numpy().tobytes() for n in sorted(state))


def _pack(state: State, base: State | None) -> torch.Tensor:
    """Shuffle bytes so that those of equal weight lie together (exponents repeat, mantissas do not), then zlib."""
    bits = np.frombuffer(_bits(state), dtype=np.uint8)
    if base is not None:
        bits = bits ^ np.frombuffer(_bits(base), dtype=np.uint8)
    width = _width(state)
    packed = zlib.compress(np.ascontiguousarray(bits.reshape(-1, width).T).tobytes(), _LEVEL)
    return torch.from_numpy(np.frombuffer(packed, dtype=np.uint8).copy())


def _width(state: State) -> int:
    """Return the bytes per value that all tensors share (1 where they differ)."""
    widths = {t.element_size() for t in state.values()}
    return widths.pop() if len(widths) == 1 else 1


# --- decode ----------------------------------------------------------------------------------------------------------


def encoding_of(data: Bytes) -> tuple[str, str]:
    """Return (encoding, base digest) that bytes claim; plain safetensors are ``none``; else ``LearningError``."""
    length = int.from_bytes(bytes(data[:8]), "little")
    if len(data) < 8 or length > min(MAX_HEADER, len(data) - 8):
        raise LearningError(f"update of {len(data)} bytes is not whole safetensors")
    try:
        header = msgspec.json.decode(bytes(data[8 : 8 + length]), type=_Header)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise LearningError("update whose safetensors header is no JSON object of strings") from None
    kind = header.metadata.get("encoding", "none")
    if kind not in KINDS:
        raise LearningError(f"update of encoding {shown(kind)!r}: known are {', '.join(KINDS)}")
    return kind, header.metadata.get("base", "")


class _Header(msgspec.Struct, frozen=True):
    metadata: dict[str, str] = msgspec.field(default_factory=dict, name="__metadata__")


def decode(data: Bytes, like: State, *, base: State | None = None) -> State:
    """Return the state in ``data``: names, shapes and types of ``like``, all values finite; else ``LearningError``."""
    size = sum(t.numel() * t.element_size() for t in like.values())
    if len(data) > 2 * size + _SLACK * (1 + len(like) // 16):  # topk of everything is the largest honest update
        raise LearningError(f"update of {len(data)} bytes for a model of {size}: is it another task's?")
    kind, known = encoding_of(data)
    if known and (base is None or digest(base) != known):
        raise LearningError(f"update against base {shown(known)}, which is not held here: send the whole model")
    reference = base if known else None
    tensors = load_tensors(data, "update")
    state = _DECODERS[kind](tensors, like) if kind != "lossless" else _unpack(tensors, like, reference)
    if reference is not None and kind != "lossless":
        state = {name: tensor + reference[name] for name, tensor in state.items()}
    for name, tensor in state.items():
        if not bool(torch.isfinite(tensor).all()):
            raise LearningError(f"update of tensor {name!r} holds values that are not finite")
    return state


def _names(tensors: State, wanted: set[str]) -> None:
    if tensors.keys() != wanted:
        odd = sorted(tensors.keys() ^ wanted)[0]
        raise LearningError(f"update tensor {shown(odd)!r}: not the tensors that this model's updates have")


def _expect(tensor: torch.Tensor, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    if tuple(tensor.shape) != shape or tensor.dtype != dtype:
        raise LearningError(f"update tensor {name!r} is {tuple(tensor.shape)} {tensor.dtype}, not {shape} {dtype}")


def _plain(tensors: State, like: State) -> State:
    _names(tensors, set(like))
    for name, tensor in tensors.items():
        _expect(tensor, name, tuple(like[name].shape), like[name].dtype)
    return tensors


def _from_int8(tensors: State, like: State) -> State:
    _names(tensors, {n for name in like for n in (name, f"{name}.scale")})
    found: State = {}
    for name, model in like.items():
        steps, scale = tensors[name], tensors[f"{name}.scale"]
        rows = model.shape[0] if model.ndim > 1 and len(scale.reshape(-1)) != 1 else 1
        _expect(steps, name, tuple(model.shape), torch.int8)
        _expect(scale, f"{name}.scale", (rows,), torch.float32)
        found[name] = (steps.reshape(rows, -1).float() * scale[:, None]).reshape(model.shape).to(model.dtype)
    return found


def _from_topk(tensors: State, like: State) -> State:
    _names(tensors, {n for name in like for n in (f"{name}.at", f"{name}.value")})
    found: State = {}
    for name, model in like.items():
        at, value = tensors[f"{name}.at"], tensors[f"{name}.value"]
        if at.ndim != 1 or len(at) > model.numel():
            raise LearningError(f"update tensor {name!r}: {tuple(at.shape)} indices for {model.numel()} values")
        _expect(at, f"{name}.at", (len(at),), torch.int32)
        _expect(value, f"{name}.value", (len(at),), model.dtype)
        if len(at) and not (bool((at[1:] > at[:-1]).all()) and int(at[0]) >= 0 and int(at[-1]) < model.numel()):
            raise LearningError(f"update tensor {name!r}: indices must rise within 0..{model.numel() - 1}")
        flat = torch.zeros(model.numel(), dtype=model.dtype)
        flat[at.long()] = value
        found[name] = flat.reshape(model.shape)
    return found


_DECODERS = {"none": _plain, "int8": _from_int8, "topk": _from_topk}


def _unpack(tensors: State, like: State, base: State | None) -> State:
    """Unpack to exactly the bytes of ``like``: a stream that would give one more is refused before it is unpacked."""
    _names(tensors, {"packed"})
    packed = tensors["packed"]
    _expect(packed, "packed", (packed.numel(),), torch.uint8)
    size = sum(t.numel() * t.element_size() for t in like.values())
    unpacker = zlib.decompressobj()
    try:
        raw = unpacker.decompress(packed.numpy().tobytes(), size + 1)
    except zlib.error as problem:
        raise LearningError(f"update that cannot be unpacked: {str(problem)[:80]}") from None
    if len(raw) != size or not unpacker.eof or unpacker.unused_data:
        raise LearningError(f"update unpacks to other than the {size} bytes of this model")
    bits = np.frombuffer(raw, dtype=np.uint8).reshape(_width(like), -1).T.reshape(-1)
    if base is not None:
        bits = bits ^ np.frombuffer(_bits(base), dtype=np.uint8)
    return _cut(np.ascontiguousarray(bits), like)


def _cut(bits: np.ndarray, like: State) -> State:
    found: State = {}
    at = 0
    for name in sorted(like):
        model = like[name]
        end = at + model.numel() * model.element_size()
        found[name] = torch.from_numpy(bits[at:end].copy()).view(model.dtype).reshape(model.shape)
        at = end
    return found
