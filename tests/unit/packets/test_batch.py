"""The batch codec says of every packet what encode and decode say of it."""

from __future__ import annotations

import hashlib
import random
import zlib

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from packets.batch import GOOD, REASONS, SEALED_BYTES, USE_DECODE, Parsed, ShardTrain, header_checksums, parse
from packets.errors import PacketError
from packets.options import Authentication
from packets.security import seal
from packets.wire import (
    FIXED_BYTES,
    Acknowledgement,
    Digest,
    Flag,
    Header,
    PacketType,
    authenticated,
    decode,
    encode,
)

KEY = b"k" * 32
SEAL = Authentication(algorithm=1, key_id=7, tag=bytes(8))
TEMPLATE = Header(
    type=PacketType.DATA_SHARD, flags=Flag.ENCRYPTED, traffic_class=3, object_id=0x123456789ABCDEF0, owner="10.1.2.3",
    transfer_id=0xDEADBEEF, visit=3, visit_limit=9,
)  # fmt: skip


def by_encode(payload: bytes, size: int, index: int, time_us: int, high: int, key: bytes | None) -> bytes:
    """One shard, built alone."""
    count = max(-(-len(payload) // size), 1)
    flags = TEMPLATE.flags | (Flag.LAST if index == count - 1 else 0) | (Flag.REPEATED if index < high else 0)
    header = msgspec.structs.replace(
        TEMPLATE, flags=Flag(flags), shard_index=index, shard_count=count, offset=index * size,
        total_length=len(payload), timestamp_us=time_us, authentication=SEAL if key else None,
    )  # fmt: skip
    body = payload[index * size : (index + 1) * size]
    packet = encode(header, body)
    if key is None:
        return packet
    before, rest = authenticated(packet)
    tag = hashlib.blake2b(before + rest, key=key, digest_size=8).digest()
    return encode(msgspec.structs.replace(header, authentication=msgspec.structs.replace(SEAL, tag=tag)), body)


def block(packets: list[bytes], stride: int | None = None) -> tuple[np.ndarray, list[int]]:
    """Lay datagrams into rows, with noise behind them as an earlier datagram would leave."""
    stride = stride or max(FIXED_BYTES, *map(len, packets))
    frames = np.full((len(packets), stride), 0xA5, np.uint8)
    for row, packet in enumerate(packets):
        kept = packet[:stride]
        frames[row, : len(kept)] = np.frombuffer(kept, np.uint8)
    return frames, [len(packet) for packet in packets]


@settings(max_examples=60, deadline=None)
@given(st.data(), st.binary(max_size=700), st.integers(1, 90), st.sampled_from([None, KEY]))
def test_a_train_equals_its_packets(data: st.DataObject, payload: bytes, size: int, key: bytes | None) -> None:
    train = ShardTrain(TEMPLATE, payload, size, mac=key, key_id=7)
    any_index = st.integers(0, train.count - 1)
    indices = data.draw(st.lists(any_index, max_size=20) | st.just(list(range(train.count))))
    time_us, high = data.draw(st.integers(0, 2**32 - 1)), data.draw(any_index)
    into = bytearray(b"\xee" * (5 + len(indices) * train.stride + 3))
    end = train.write(into, 5, indices, timestamp_us=time_us, high=high)
    short_last = sorted(indices, key=lambda i: i == train.count - 1 and len(payload) % size > 0)
    expected = b"".join(by_encode(payload, size, i, time_us, high, key) for i in (short_last if payload else indices))
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
    """Shards with and without MAC above all, and some of everything else."""
    payload, size = rng.randbytes(rng.choice([0, 1, 30, 100])), rng.choice([7, 50])
    header = msgspec.structs.replace(
        TEMPLATE, flags=Flag(rng.getrandbits(16) & ~1), object_id=rng.getrandbits(64), transfer_id=rng.getrandbits(32),
        shard_index=rng.randrange(5), shard_count=5, offset=rng.getrandbits(62), total_length=1 << 62 | 100,
        type=rng.choice(list(PacketType)), timestamp_us=rng.getrandbits(32), visit=rng.getrandbits(16),
    )  # fmt: skip
    more: dict[str, object] = rng.choice(
        [
            {}, {}, {"authentication": msgspec.structs.replace(SEAL, tag=rng.randbytes(8))},
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
    auth = header.authentication
    assert bool(parsed.sealed[row]) == (auth is not None)
    if auth is not None:
        assert (parsed.tag[row].tobytes(), int(parsed.key_id[row])) == (auth.tag, auth.key_id)


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
        plain = len(packet) - len(payload) == FIXED_BYTES
        lone = header.authentication is not None and len(packet) - len(payload) == SEALED_BYTES
        lone = lone and header.authentication.algorithm == 1  # type: ignore[union-attr]
        assert (parsed.verdict[row] == GOOD) == (plain or lone)


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


def test_macs() -> None:
    payload = random.Random(3).randbytes(1000)
    train = ShardTrain(TEMPLATE, payload, 100, mac=KEY)
    buffer = bytearray(train.stride * train.count)
    train.write(buffer, 0, range(train.count), timestamp_us=9, high=0)
    frames = np.frombuffer(buffer, np.uint8).reshape(train.count, -1).copy()
    frames[3, 70] ^= 1  # key id: not under the MAC, under the checksum
    frames[4, -1] ^= 1  # payload
    frames[5, 75] ^= 1  # tag, and a right checksum
    frames[6, 53] ^= 1  # timestamp, and a right checksum
    for row in (5, 6):
        frames[row, 60:64] = 0
        frames[row, 60:64] = list(zlib.crc32(frames[row, :SEALED_BYTES].tobytes()).to_bytes(4, "big"))
    parsed = parse(frames, [train.stride] * train.count)
    expected = ["", "", "", "header-checksum", "payload-checksum", *[""] * 5]
    assert [REASONS[one] for one in parsed.verdict] == expected
    assert np.flatnonzero(~parsed.macs_right(KEY)).tolist() == [3, 4, 5, 6]
    assert not parsed.macs_right(b"other").any()


def test_macs_are_those_of_single_packets() -> None:
    train = ShardTrain(TEMPLATE, bytes(250), 100, mac=KEY, key_id=3)
    for index in range(train.count):
        into = bytearray(train.stride)
        packet = bytes(into[: train.write(into, 0, [index], timestamp_us=1, high=0)])
        header, payload = decode(packet)
        assert seal.mac_matches(header, packet, KEY, 8) and not seal.mac_matches(header, packet, b"other", 8)
        bare = msgspec.structs.replace(header, authentication=None)
        assert seal.seal_with_mac(bare, payload, KEY, 3, 8) == packet


@given(st.integers(1, 20), st.sampled_from([FIXED_BYTES, SEALED_BYTES]), st.randoms(use_true_random=False))
def test_header_checksums_are_zlibs(count: int, length: int, rng: random.Random) -> None:
    headers = np.frombuffer(rng.randbytes(count * length), np.uint8).reshape(count, length)
    expected = [zlib.crc32(row[:60].tobytes() + bytes(4) + row[64:].tobytes()) for row in headers]
    assert header_checksums(headers).tolist() == expected
