"""The batch codec says of every packet what encode and decode say of it."""

from __future__ import annotations

import hashlib
import random
import zlib
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from packets.batch import GOOD, REASONS, USE_DECODE, Parsed, ShardTrain, header_checksums, parse
from packets.errors import PacketError
from packets.options import Authentication
from packets.wire import (
    FIXED_BYTES,
    SEALED,
    SHARD_TYPES,
    Acknowledgement,
    Digest,
    Flag,
    Header,
    PacketType,
    decode,
    encode,
)

KEY = b"k" * 32
TEMPLATE = Header(
    type=PacketType.DATA_SHARD, flags=Flag.ENCRYPTED, traffic_class=3, object_id=0x123456789ABCDEF0, owner="10.1.2.3",
    transfer_id=0xDEADBEEF, visit=3, visit_limit=9,
)  # fmt: skip


def words(shards: np.ndarray) -> np.ndarray:
    """Something that differs from shard to shard."""
    return (shards * 0x9E3779B1 % (1 << 32)).astype(np.uint32)


def by_encode(payload: bytes, size: int, index: int, time_us: int, high: int, seal: str) -> bytes:
    """One shard, built alone."""
    count = max(-(-len(payload) // size), 1)
    flags = TEMPLATE.flags | (Flag.LAST if index == count - 1 else 0) | (Flag.REPEATED if index < high else 0)
    header = msgspec.structs.replace(
        TEMPLATE, flags=Flag(flags), shard_index=index, shard_count=count, offset=index * size,
        total_length=len(payload), timestamp_us=time_us,
    )  # fmt: skip
    body = payload[index * size : (index + 1) * size]
    if seal == "plain":
        return encode(header, body)
    if seal == "word":
        checksum = zlib.crc32(body) ^ int(words(np.array([index]))[0])
        return encode(msgspec.structs.replace(header, flags=flags | Flag.ONE_TIME, payload_checksum=checksum), body)
    blank = encode(msgspec.structs.replace(header, flags=flags | Flag.KEYED), body)
    tag = hashlib.blake2b(blank[:56] + bytes(8) + body, key=KEY, digest_size=4).digest()
    sealed = {"flags": flags | Flag.KEYED, "payload_checksum": int.from_bytes(tag, "big")}
    return encode(msgspec.structs.replace(header, **sealed), body)


def block(packets: list[bytes], stride: int | None = None) -> tuple[np.ndarray, list[int]]:
    """Lay datagrams into rows, with noise behind them as an earlier datagram would leave."""
    stride = stride or max(FIXED_BYTES, *map(len, packets))
    frames = np.full((len(packets), stride), 0xA5, np.uint8)
    for row, packet in enumerate(packets):
        kept = packet[:stride]
        frames[row, : len(kept)] = np.frombuffer(kept, np.uint8)
    return frames, [len(packet) for packet in packets]


@settings(max_examples=60, deadline=None)
@given(st.data(), st.binary(max_size=700), st.integers(1, 90), st.sampled_from(["plain", "word", "MAC"]))
def test_a_train_equals_its_packets(data: st.DataObject, payload: bytes, size: int, seal: str) -> None:
    seals: dict[str, Any] = {"plain": {}, "word": {"words": words}, "MAC": {"mac": KEY}}
    train = ShardTrain(TEMPLATE, payload, size, **seals[seal])
    any_index = st.integers(0, train.count - 1)
    indices = data.draw(st.lists(any_index, max_size=20) | st.just(list(range(train.count))))
    time_us, high = data.draw(st.integers(0, 2**32 - 1)), data.draw(any_index)
    into = bytearray(b"\xee" * (5 + len(indices) * train.stride + 3))
    end = train.write(into, 5, indices, timestamp_us=time_us, high=high)
    short_last = sorted(indices, key=lambda i: i == train.count - 1 and len(payload) % size > 0)
    expected = b"".join(by_encode(payload, size, i, time_us, high, seal) for i in (short_last if payload else indices))
    assert bytes(into[5:end]) == expected
    assert into[:5] == b"\xee" * 5
    assert set(into[end:]) == {0xEE}


def test_a_train_says_what_does_not_fit() -> None:
    train = ShardTrain(TEMPLATE, b"abcdef", 2)
    for wrong in ([3], [-1]):
        with pytest.raises(PacketError, match="an object that has 3"):
            train.write(bytearray(1000), 0, wrong, timestamp_us=0, high=0)
    with pytest.raises(PacketError, match="cannot be built"):
        ShardTrain(msgspec.structs.replace(TEMPLATE, visit=70_000), b"abc", 2)
    with pytest.raises(PacketError, match="no option"):
        ShardTrain(msgspec.structs.replace(TEMPLATE, digest=Digest(bytes(32))), b"abc", 2)
    with pytest.raises(ValueError, match="buffer"):
        train.write(bytearray(100), 0, [0, 1], timestamp_us=0, high=0)


def random_packet(rng: random.Random) -> bytes:
    """Shards, sealed or not, above all, and some of everything else."""
    payload, size = rng.randbytes(rng.choice([0, 1, 30, 100])), rng.choice([7, 50])
    header = msgspec.structs.replace(
        TEMPLATE, flags=Flag(rng.getrandbits(16) & ~1), object_id=rng.getrandbits(64), transfer_id=rng.getrandbits(32),
        shard_index=rng.randrange(5), shard_count=5, offset=rng.getrandbits(62), total_length=1 << 62 | 100,
        type=rng.choice(list(PacketType)), timestamp_us=rng.getrandbits(32), visit=rng.getrandbits(16),
    )  # fmt: skip
    more: dict[str, object] = rng.choice(
        [
            {}, {}, {"flags": header.flags & ~SEALED},
            {"authentication": Authentication(algorithm=rng.choice([1, 2]), key_id=1, tag=rng.randbytes(64))},
            {"flags": Flag.LAUNCH}, {"flags": Flag.LAUNCH, "digest": Digest(bytes(32))},
            {"ack": Acknowledgement(base=3, bitmap=b"1")}, {"others": ((0x8008, b"12345678"),)},
        ]
    )  # fmt: skip
    return encode(msgspec.structs.replace(header, **more), payload[:size])


def mutated(rng: random.Random, packet: bytes) -> bytes:
    """Damage a packet, mostly with a right header checksum so that the later rules are reached."""
    data = bytearray(packet)
    how = rng.randrange(6)
    if how == 0:
        return packet
    if how == 1:
        return bytes(data[: rng.randrange(len(data))]) + rng.choice([b"", b"more"])
    if how == 2:
        at, size = rng.choice([(0, 1), (1, 1), (2, 2), (4, 2), (6, 2), (24, 4), (28, 4), (32, 8), (40, 8), (56, 4)])
        data[at : at + size] = rng.choice([bytes(size), b"\xff" * size, rng.randbytes(size)])
    else:
        for _ in range(rng.randint(1, 3)):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    if rng.random() < 0.7 and FIXED_BYTES <= (stop := int.from_bytes(data[4:6], "big")) <= len(data):
        data[60:64] = bytes(4)
        data[60:64] = zlib.crc32(data[:stop]).to_bytes(4, "big")
    return bytes(data)


def verdict(packet: bytes) -> str:
    try:
        decode(packet)
    except PacketError as error:
        return error.reason
    return ""


def assert_same_fields(parsed: Parsed, row: int, packet: bytes) -> None:
    header, payload = decode(packet)
    for name in ("version", "type", "flags", "traffic_class", "object_id", "transfer_id", "shard_index", "shard_count",
                 "offset", "length", "total_length", "visit", "visit_limit", "timestamp_us",
                 "payload_checksum"):  # fmt: skip
        assert int(getattr(parsed, name)[row]) == getattr(header, name), name
    assert ".".join(map(str, int(parsed.owner[row]).to_bytes(4, "big"))) == header.owner
    assert parsed.payload(row) == payload
    assert bool(parsed.sealed[row]) == (bool(header.flags & SEALED) and header.type in SHARD_TYPES)


@pytest.mark.parametrize("seed", range(8))
def test_verdicts_equal_decodes(seed: int) -> None:
    rng = random.Random(seed)
    packets = [mutated(rng, random_packet(rng)) for _ in range(1500)]
    parsed = parse(*block(packets))
    seen: set[str] = set()
    for row, packet in enumerate(packets):
        given = int(parsed.verdict[row])
        if given == USE_DECODE:
            assert len(packet) > FIXED_BYTES
            continue
        assert REASONS[given] == verdict(packet), (row, packet.hex())
        seen.add(REASONS[given])
        if given == GOOD:
            assert_same_fields(parsed, row, packet)
    assert seen == set(REASONS) - {"option"}  # what has options is decode's to judge


def test_only_packets_with_options_are_left_to_decode() -> None:
    rng = random.Random(5)
    packets = [random_packet(rng) for _ in range(500)]
    parsed = parse(*block(packets))
    for row, packet in enumerate(packets):
        header, payload = decode(packet) if verdict(packet) == "" else (None, b"")
        if header is None:
            continue
        assert (parsed.verdict[row] == GOOD) == (len(packet) - len(payload) == FIXED_BYTES)


def test_a_datagram_that_was_cut_short_is_refused() -> None:
    packet = encode(Header(type=PacketType.PROBE), bytes(200))
    parsed = parse(*block([packet, packet[:100]], stride=100))
    assert [REASONS[one] for one in parsed.verdict] == ["length", "length"]


def test_no_datagrams_no_trouble() -> None:
    assert len(parse(np.zeros((0, 100), np.uint8), [])) == 0


@pytest.mark.parametrize(
    "frames", [np.zeros((2, 63), np.uint8), np.zeros((2, 100), np.int8), np.zeros((2, 200), np.uint8)[:, ::2]]
)
def test_blocks_of_another_shape_are_refused(frames: np.ndarray) -> None:
    with pytest.raises(ValueError, match="frames"):
        parse(frames, [64, 64])


def sealed_block(**seal: Any) -> tuple[Parsed, np.ndarray]:
    """Ten sealed shards, some altered on their way with all checksums mended that can be; and their rows."""
    train = ShardTrain(TEMPLATE, random.Random(3).randbytes(1000), 100, **seal)
    buffer = bytearray(train.stride * train.count)
    train.write(buffer, 0, range(train.count), timestamp_us=9, high=0)
    frames = np.frombuffer(buffer, np.uint8).reshape(train.count, -1).copy()
    frames[3, 62] ^= 1  # header checksum
    frames[4, -1] ^= 1  # payload
    frames[5, 57] ^= 1  # the seal
    frames[6, 53] ^= 1  # timestamp
    frames[7, 27] ^= 1  # index: that of the shard before
    for row in (5, 6, 7):
        frames[row, 60:64] = 0
        frames[row, 60:64] = list(zlib.crc32(frames[row, :FIXED_BYTES].tobytes()).to_bytes(4, "big"))
    parsed = parse(frames, [train.stride] * train.count)
    assert [REASONS[one] for one in parsed.verdict] == ["", "", "", "header-checksum", *[""] * 6]
    return parsed, np.flatnonzero(parsed.verdict == GOOD)


def test_macs_tell_every_altered_shard() -> None:
    parsed, rows = sealed_block(mac=KEY)
    assert rows[~parsed.macs_right(KEY, rows)].tolist() == [4, 5, 6, 7]
    assert not parsed.macs_right(b"other", rows).any() and not parsed.words_right(words, rows).any()


def test_words_tell_shards_of_others_and_in_other_places() -> None:
    """A timestamp is nobody's secret; bytes under it are the blocks' to judge."""
    parsed, rows = sealed_block(words=words)
    assert rows[~parsed.words_right(words, rows)].tolist() == [4, 5, 7]
    assert not parsed.words_right(lambda shards: words(shards) ^ 1, rows).any()
    assert not parsed.macs_right(KEY, rows).any()


def test_without_its_word_a_forged_shard_is_nobodys() -> None:
    """Plain, or under both flags: neither is a seal."""
    for flags in (Flag(0), SEALED, Flag.ONE_TIME, Flag.KEYED):
        forged = msgspec.structs.replace(TEMPLATE, flags=flags, shard_count=3, total_length=30, payload_checksum=5)
        parsed = parse(*block([encode(forged, b"poison")]))
        rows = np.array([0])
        assert parsed.verdict[0] == GOOD
        assert not parsed.words_right(words, rows).any() and not parsed.macs_right(KEY, rows).any()


@given(st.integers(1, 120), st.randoms(use_true_random=False))
def test_header_checksums_are_zlibs(count: int, rng: random.Random) -> None:
    headers = np.frombuffer(rng.randbytes(count * FIXED_BYTES), np.uint8).reshape(count, FIXED_BYTES)
    expected = [zlib.crc32(row[:60].tobytes() + bytes(4)) for row in headers]
    assert header_checksums(headers).tolist() == expected
