"""Compressed updates: what comes back, what is refused, and how much memory a lie can take."""

from __future__ import annotations

import zlib
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save

from hosts.learning.compress import Compression, decode, encode, encoding_of, parse_spec
from hosts.learning.errors import LearningError
from hosts.learning.task import TaskSpec, bytes_to_model, load_task, model_to_bytes

SPECS = ("none", "int8", "int8:tensor", "lossless", "topk:0.2")


def state(seed: int, scale: float = 1.0) -> dict[str, torch.Tensor]:
    make = torch.Generator().manual_seed(seed)
    shapes = {"a.weight": (7, 5), "a.bias": (7,), "b": (3, 2, 4), "one": (1,)}
    return {name: scale * torch.randn(shape, generator=make) for name, shape in shapes.items()}


@given(st.integers(0, 999), st.sampled_from(["none", "lossless"]), st.booleans())
@settings(deadline=None, max_examples=40)
def test_exact_encodings_come_back_bit_for_bit(seed: int, spec: str, with_base: bool) -> None:
    model, base = state(seed), state(seed + 1) if with_base else None
    data, _ = encode(model, parse_spec(spec), base=base)
    assert all(torch.equal(t, model[n]) for n, t in decode(data, model, base=base).items())


@given(st.integers(0, 999), st.sampled_from(["int8", "int8:tensor", "topk:0.3"]), st.floats(1e-6, 1e6))
@settings(deadline=None, max_examples=60)
def test_what_a_lossy_encoding_leaves_out_is_what_is_missing(seed: int, spec: str, scale: float) -> None:
    model, base = state(seed, scale), state(seed + 1, scale)
    data, left = encode(model, parse_spec(spec), base=base)
    found = decode(data, model, base=base)
    for name, tensor in model.items():
        assert torch.allclose(found[name] + left[name], tensor, atol=scale * 1e-5)


@given(st.integers(0, 99))
@settings(deadline=None, max_examples=20)
def test_int8_errs_by_half_a_step_at_most(seed: int) -> None:
    model = state(seed)
    data, left = encode(model, parse_spec("int8"))
    assert len(data) < sum(4 * t.numel() for t in model.values()) + 1200
    for name, tensor in model.items():
        assert float(left[name].abs().max()) <= float(tensor.abs().max()) / 127 * 0.501


def test_error_feedback_sends_everything_in_the_end() -> None:
    goal, known = state(1), state(2)
    for _ in range(60):
        data, _ = encode(goal, parse_spec("topk:0.2"), base=known)
        known = decode(data, known, base=known)
    assert all(torch.allclose(known[n], goal[n], atol=1e-5) for n in goal)


def test_feedback_carries_over_what_one_update_left_out() -> None:
    zero = {n: torch.zeros_like(t) for n, t in state(0).items()}
    step = state(5, 0.1)
    sent, left = {n: torch.zeros_like(t) for n, t in step.items()}, None
    for _ in range(10):
        data, left = encode(step, parse_spec("topk:0.25"), base=zero, left=left)
        sent = {n: sent[n] + t for n, t in decode(data, step, base=zero).items()}
    for name, tensor in step.items():
        assert torch.allclose(sent[name] + left[name], 10 * tensor, atol=1e-4)


def test_lossless_delta_of_a_small_step_is_small() -> None:
    base = {"w": torch.randn(4000, generator=torch.Generator().manual_seed(0))}
    near = {"w": base["w"].clone()}
    near["w"][::50] += 1e-3
    data, _ = encode(near, Compression(kind="lossless"), base=base)
    assert len(data) < 16000 / 8


def test_another_base_is_refused() -> None:
    model, base = state(0), state(1)
    for spec in ("int8", "lossless", "topk"):
        data, _ = encode(model, parse_spec(spec), base=base)
        for other in (None, state(2)):
            with pytest.raises(LearningError, match="not held here"):
                decode(data, model, base=other)


def test_top_k_without_a_base_is_refused() -> None:
    with pytest.raises(LearningError, match="base"):
        encode(state(0), parse_spec("topk"))


@pytest.mark.parametrize(
    "text", ["", "int4", "topk:0", "topk:2", "topk:nan", "topk:x", "none:1", "int8:row", "lossless:9"]
)
def test_bad_specs_are_named(text: str) -> None:
    with pytest.raises(LearningError, match="compression"):
        parse_spec(text)


def bomb(size: int, claimed: dict[str, str]) -> bytes:
    packed = torch.frombuffer(bytearray(zlib.compress(bytes(size))), dtype=torch.uint8)
    return save({"packed": packed}, metadata=claimed)


def test_a_decompression_bomb_is_refused_without_unpacking_it(monkeypatch: pytest.MonkeyPatch) -> None:
    data = bomb(50_000_000, {"encoding": "lossless"})
    taken: list[int] = []
    real = zlib.decompressobj

    class Watched:
        def __init__(self) -> None:
            self.inner = real()

        def decompress(self, data: bytes, limit: int) -> bytes:
            raw = self.inner.decompress(data, limit)
            taken.append(len(raw))
            return raw

        @property
        def eof(self) -> bool:
            return self.inner.eof

        @property
        def unused_data(self) -> bytes:
            return self.inner.unused_data

    monkeypatch.setattr(zlib, "decompressobj", Watched)
    with pytest.raises(LearningError, match="unpacks to other"):
        decode(data, state(0))
    assert sum(taken) <= 4 * (35 + 7 + 24 + 1) + 1


def topk_at(at: Callable[[int], int]) -> bytes:
    tensors: dict[str, torch.Tensor] = {}
    for name, tensor in state(0).items():
        tensors[f"{name}.at"] = torch.tensor([at(tensor.numel())], dtype=torch.int32)
        tensors[f"{name}.value"] = torch.ones(1)
    return save(tensors, metadata={"encoding": "topk"})


HOSTILE = {
    "not finite": save({n: t * float("inf") for n, t in state(0).items()}),
    "wrong shape": save({n: t.reshape(-1) for n, t in state(0).items()}),
    "wrong type": save({n: t.double() for n, t in state(0).items()}),
    "one missing": save({"a.weight": torch.zeros(7, 5)}),
    "unknown encoding": save(state(0), metadata={"encoding": "pickle"}),
    "int8 without scales": save({n: t.to(torch.int8) for n, t in state(0).items()}, metadata={"encoding": "int8"}),
    "int8, scale inf": save(
        {n: t.to(torch.int8) for n, t in state(0).items()}
        | {f"{n}.scale": torch.full((1,), float("inf")) for n in state(0)},
        metadata={"encoding": "int8"},
    ),
    "indices beyond": topk_at(lambda size: size),
    "indices below": topk_at(lambda size: -1),
    "no zlib": save({"packed": torch.zeros(9, dtype=torch.uint8)}, metadata={"encoding": "lossless"}),
    "too short a stream": bomb(10, {"encoding": "lossless"}),
    "empty": b"",
    "huge header": (1 << 62).to_bytes(8, "little") + b"{}",
    "header no object": (2).to_bytes(8, "little") + b"[]",
    "metadata no strings": (28).to_bytes(8, "little") + b'{"__metadata__":{"a":[1,2]}}',
}  # fmt: skip


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_updates_are_refused(what: str) -> None:
    with pytest.raises(LearningError):
        decode(HOSTILE[what], state(0))


@given(st.sampled_from(SPECS), st.integers(0, 1 << 30), st.binary(min_size=1, max_size=4), st.integers(0, 40))
@settings(deadline=None, max_examples=300)
def test_mutated_updates_are_read_or_refused_never_worse(spec: str, at: int, put: bytes, cut: int) -> None:
    base = state(7)
    data = bytearray(encode(state(3), parse_spec(spec), base=base)[0])
    at %= len(data)
    data[at : at + len(put)] = put
    data = data[: len(data) - cut]
    try:
        found = decode(bytes(data), state(0), base=base)
    except LearningError:
        return
    assert {n: t.shape for n, t in found.items()} == {n: t.shape for n, t in base.items()}


@given(st.binary(max_size=400))
@settings(deadline=None, max_examples=200)
def test_any_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(LearningError):
        decode(data, state(0))


@pytest.mark.parametrize("spec", ["int8", "lossless"])
def test_a_model_travels_compressed(spec: str) -> None:
    task = load_task(TaskSpec())
    model = task.new_model(1)
    data = model_to_bytes(model, parse_spec(spec))
    assert encoding_of(data) == (spec, "")
    assert len(data) < (0.3 if spec == "int8" else 0.96) * len(model_to_bytes(model))
    found = bytes_to_model(task, data).state_dict()
    for name, tensor in model.state_dict().items():
        assert torch.allclose(found[name], tensor, atol=0.0 if spec == "lossless" else 0.05)
