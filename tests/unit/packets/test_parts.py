"""Messages larger than a packet: cut, carried in any order, put together; parts that lie are refused."""

from __future__ import annotations

import random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from packets.errors import PacketError, TransportError
from packets.messages import Known, Replicas, decode_message, encode_message
from packets.parts import MAX_MESSAGE_BYTES, MESSAGE_ROOM, UNFINISHED, UNFINISHED_A_SOURCE, Unfinished, cut
from packets.queries import MAX_REPLICAS
from packets.terms import MAX_METRICS
from packets.wire import Header, PacketType


def header(transfer_id: int = 7) -> Header:
    return Header(type=PacketType.ANNOUNCE, transfer_id=transfer_id)


@given(size=st.integers(0, MAX_MESSAGE_BYTES), seed=st.integers(0, 99))
def test_any_message_arrives_whole_in_any_order_and_twice(size: int, seed: int) -> None:
    rng = random.Random(seed)
    message = rng.randbytes(size)
    parts = list(cut(header(), message))
    assert max(len(piece) for _, piece in parts) <= MESSAGE_ROOM
    twice = parts + rng.sample(parts, len(parts) // 2)
    rng.shuffle(twice)
    unfinished: Unfinished[int] = Unfinished()
    wholes = [w for n, (part, piece) in enumerate(twice) if (w := unfinished.take("h11", part, piece, n)) is not None]
    assert wholes
    assert all(whole == message for whole, _ in wholes)
    assert len(wholes[0][1]) == len(parts)


def test_what_fits_is_one_packet_as_it_was() -> None:
    assert list(cut(header(), bytes(MESSAGE_ROOM))) == [(header(), bytes(MESSAGE_ROOM))]
    with pytest.raises(TransportError, match="at most 44160 go in 40 parts"):
        list(cut(header(), bytes(MAX_MESSAGE_BYTES + 1)))


def test_sources_and_transfers_are_kept_apart() -> None:
    unfinished: Unfinished[None] = Unfinished()
    first, second = cut(header(), b"a" * 2000)
    other = list(cut(header(8), b"b" * 2000))
    assert unfinished.take("h11", *first, None) is None
    assert unfinished.take("h12", *second, None) is None
    assert unfinished.take("h11", *other[1], None) is None
    assert unfinished.take("h11", *second, None) == (b"a" * 2000, [None, None])


@pytest.mark.parametrize(
    "lie",
    [
        {"shard_count": 3},
        {"shard_index": 2},
        {"total_length": 1999},
        {"offset": 5},
        {"shard_count": 41},
        {"total_length": 1 << 40},
        {"shard_count": 2**32 - 1, "shard_index": 2**32 - 1},
    ],
)
def test_parts_that_lie_are_refused(lie: dict[str, int]) -> None:
    unfinished: Unfinished[None] = Unfinished()
    (first, piece), (second, rest) = cut(header(), b"a" * 2000)
    unfinished.take("h11", first, piece, None)
    with pytest.raises(PacketError) as caught:
        unfinished.take("h11", msgspec.structs.replace(second, **lie), rest, None)
    assert caught.value.reason == "message"


def test_what_never_becomes_whole_is_bounded() -> None:
    unfinished: Unfinished[None] = Unfinished()
    for number in range(50):
        part, piece = next(iter(cut(header(number), bytes(2000))))
        unfinished.take("liar", part, piece, None)
    assert len(unfinished) == UNFINISHED_A_SOURCE
    for number in range(500):
        part, piece = next(iter(cut(header(), bytes(2000))))
        unfinished.take(number, part, piece, None)
    assert len(unfinished) == UNFINISHED


def test_all_that_may_be_told_of_a_class_is_one_message() -> None:
    metrics = {f"{n:x<32}": -1.5 for n in range(MAX_METRICS)}
    known = Known(
        label=(1 << 28) - 1, path_ms=0.1, service_ms=0.1, in_flight=(1 << 31) - 1, arrivals_per_s=0.1, accuracy=0.1,
        weight=(1 << 31) - 1, age_s=0.1, metrics=metrics,
    )  # fmt: skip
    whole = encode_message(Replicas(label=(1 << 28) - 1, replicas=[known] * MAX_REPLICAS))
    assert len(whole) <= MAX_MESSAGE_BYTES and decode_message(whole).replicas[-1].metrics == metrics  # type: ignore[union-attr]
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"label": 1, "path_ms": 1.0, "metrics": metrics | {"more": 1.0}}, Known)
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"label": 1, "path_ms": 1.0, "metrics": {"power_w": float("nan")}}, Known)
