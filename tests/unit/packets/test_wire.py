"""The codec against the table in packets/README.md: exact bytes, round trips, and every way of being wrong."""

from __future__ import annotations

import random
import struct
import zlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from packets.errors import PacketError
from packets.events import Event, decode_event, encode_event
from packets.labels import class_label
from packets.messages import Ask, Order, Register, decode_message, encode_message
from packets.options import Authentication
from packets.wire import (
    FIXED_BYTES,
    Acknowledgement,
    Digest,
    DigestAlgorithm,
    Flag,
    Header,
    Mandate,
    PacketType,
    Requirements,
    authenticated,
    decode,
    encode,
    payload_room,
)

U16, U32, U64 = st.integers(0, 2**16 - 1), st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1)
SHARE = st.integers(0, 10_000)
REQUIREMENTS = st.builds(
    Requirements, task_class=U32, broad_accuracy=SHARE, expert_accuracy=SHARE, trust_floor=SHARE, expert_group=U16,
    deadline_ms=U32,
)  # fmt: skip
DIGEST = st.builds(Digest, st.binary(min_size=32, max_size=32), st.sampled_from(DigestAlgorithm))
ACK = st.builds(
    Acknowledgement, base=U32, echo_us=U32, delay_us=U32, window=U32, bitmap=st.binary(max_size=1024)
)  # fmt: skip
AUTHENTICATION = st.builds(
    Authentication, algorithm=st.just(1), key_id=U16, tag=st.binary(min_size=8, max_size=32)
) | st.builds(Authentication, algorithm=st.just(2), key_id=U16, tag=st.binary(min_size=64, max_size=64))
MANDATE = st.builds(
    Mandate, issued_ms=U64, expires_ms=U64, digest=st.binary(min_size=32, max_size=32),
    signature=st.binary(min_size=64, max_size=64),
)  # fmt: skip
KEY_SHARE = st.binary(min_size=32, max_size=32)
OTHERS = st.dictionaries(st.integers(0x8000, 0xFFFE), st.binary(max_size=40), max_size=3)
PLAIN_TYPES = st.sampled_from([kind for kind in PacketType if kind not in (1, 2)])


@st.composite
def headers(draw: st.DrawFn) -> Header:
    """Any header that is not a shard's (those must agree with themselves)."""
    return Header(
        type=draw(PLAIN_TYPES), flags=Flag(draw(U16)), traffic_class=draw(st.integers(0, 15)), object_id=draw(U64),
        owner=".".join(str(draw(st.integers(0, 255))) for _ in range(4)), transfer_id=draw(U32),
        shard_index=draw(U32), shard_count=draw(U32), offset=draw(U64), total_length=draw(U64), visit=draw(U16),
        visit_limit=draw(U16), timestamp_us=draw(U32), requirements=draw(st.none() | REQUIREMENTS),
        digest=draw(st.none() | DIGEST), ack=draw(st.none() | ACK), error=draw(st.none() | U16),
        mandate=draw(st.none() | MANDATE), key_share=draw(st.none() | KEY_SHARE), sent_at_ms=draw(st.none() | U64),
        authentication=draw(st.none() | AUTHENTICATION), others=tuple(sorted(draw(OTHERS).items())),
    )  # fmt: skip


def filled(header: Header, payload: bytes) -> Header:
    return msgspec.structs.replace(header, length=len(payload), payload_checksum=zlib.crc32(payload))


def resealed(data: bytearray, header_length: int = FIXED_BYTES) -> bytes:
    """Give altered bytes a right header checksum, as an attacker or a bug of ours would."""
    data[60:64] = bytes(4)
    data[60:64] = zlib.crc32(data[:header_length]).to_bytes(4, "big")
    return bytes(data)


def reason(data: bytes) -> str:
    with pytest.raises(PacketError) as caught:
        decode(data)
    return caught.value.reason


SHARD = Header(
    type=PacketType.MODEL_SHARD, flags=Flag.LAST, object_id=0x0000_0007_0010_0002, owner="10.1.1.3",
    transfer_id=0xDEADBEEF, shard_index=2, shard_count=3, offset=2816, total_length=2819, visit=4, visit_limit=16,
    timestamp_us=0x01020304,
)  # fmt: skip


def test_a_shard_has_exactly_these_bytes() -> None:
    expected = bytes.fromhex(
        "20 01 0002 0040 0003  0000000700100002  0a010103 deadbeef 00000002 00000003"
        "0000000000000b00 0000000000000b03 0004 0010 01020304 352441c2"
    )
    expected += zlib.crc32(expected + bytes(4)).to_bytes(4, "big") + b"abc"
    assert encode(SHARD, b"abc") == expected


def test_the_payload_checksum_of_a_sealed_shard_is_its_makers() -> None:
    for flag in (Flag.ONE_TIME, Flag.KEYED):
        sealed = msgspec.structs.replace(SHARD, flags=flag, payload_checksum=0x01020304)
        packet = encode(sealed, b"abc")
        assert packet[56:60] == b"\1\2\3\4" and encode(*decode(packet)) == packet
        other = encode(msgspec.structs.replace(sealed, type=PacketType.PROBE), b"abc")
        assert other[56:60] == zlib.crc32(b"abc").to_bytes(4, "big"), "of shards alone"


@pytest.mark.parametrize("size", [0, 32, 65, 95, 25 * 32])
def test_blocks_are_two_to_twenty_four_hashes(size: int) -> None:
    launch = msgspec.structs.replace(SHARD, flags=Flag.LAUNCH, digest=Digest(bytes(32)), blocks=bytes(size))
    with pytest.raises(PacketError, match="blocks option"):
        decode(encode(launch))


def test_options_have_exactly_these_bytes() -> None:
    header = Header(
        type=PacketType.ACK, requirements=Requirements(task_class=0x10203, broad_accuracy=8000, expert_accuracy=9500,
        trust_floor=5000, expert_group=7, deadline_ms=170_000), digest=Digest(b"\xaa" * 32), error=5,
        ack=Acknowledgement(base=3, echo_us=4, delay_us=5, window=6, bitmap=b"\x02"),
        mandate=Mandate(issued_ms=1, expires_ms=2, digest=b"\xbb" * 32, signature=b"\xcc" * 64),
        key_share=b"\xdd" * 32, sent_at_ms=1_800_000_000_000, blocks=b"\xee" * 64,
        authentication=Authentication(algorithm=1, key_id=9, tag=b"12345678"), others=((0x8001, b"?"),),
    )  # fmt: skip
    expected = (
        "00010010 00010203 1f40 251c 1388 0007 00029810" + "00020021 01" + "aa" * 32
        + "00030011 00000003 00000004 00000005 00000006 02" + "00040002 0005"
        + "00050070 0000000000000001 0000000000000002" + "bb" * 32 + "cc" * 64 + "00060020" + "dd" * 32
        + "00070008 000001a3185c5000" + "00080040" + "ee" * 64 + "80010001 3f" + "ffff000c 01 00 0009 3132333435363738"
    )  # fmt: skip
    assert encode(header)[FIXED_BYTES:] == bytes.fromhex(expected)


def test_requirements_from_names() -> None:
    need = Requirements.of("vignettes", broad_accuracy=0.8, expert_group="cardiology", expert_accuracy=0.95)
    assert (need.task_class, need.broad_accuracy, need.expert_accuracy) == (class_label("vignettes"), 8000, 9500)
    assert 1 <= need.expert_group <= 0xFFFF


@given(headers(), st.binary(max_size=1500))
def test_round_trip(header: Header, payload: bytes) -> None:
    data = encode(header, payload)
    again, body = decode(data)
    assert again == filled(header, payload)
    assert body == payload
    assert encode(again, body) == data


def test_a_full_shard_fills_the_mtu() -> None:
    assert len(encode(msgspec.structs.replace(SHARD, total_length=9999), bytes(payload_room(1500)))) == 1500 - 28


@given(headers(), st.binary(max_size=200), st.data())
def test_one_altered_bit_anywhere_is_refused(header: Header, payload: bytes, data: st.DataObject) -> None:
    packet = bytearray(encode(header, payload))
    bit = data.draw(st.integers(0, len(packet) * 8 - 1))
    packet[bit // 8] ^= 1 << bit % 8
    with pytest.raises(PacketError):
        decode(packet)


def test_every_truncation_is_refused() -> None:
    packet = encode(msgspec.structs.replace(SHARD, digest=Digest(bytes(32))), b"abc")
    for end in range(len(packet)):
        assert reason(packet[:end]) == ("short" if end < FIXED_BYTES else "length")
    assert reason(packet + b"x") == "length"


@given(st.binary(max_size=300))
def test_noise_is_refused_and_nothing_else_escapes(noise: bytes) -> None:
    with pytest.raises(PacketError):
        decode(noise)


def test_sealed_mutations_only_ever_raise_packet_error() -> None:
    """With right checksums, the parsers behind them get to see the damage."""
    rng = random.Random(1)
    whole = msgspec.structs.replace(
        SHARD, requirements=Requirements(task_class=1), digest=Digest(bytes(32)), error=3,
        ack=Acknowledgement(base=1, bitmap=b"\xff"), authentication=Authentication(algorithm=1, key_id=1, tag=bytes(8)),
        mandate=Mandate(issued_ms=1, expires_ms=2, digest=bytes(32), signature=bytes(64)), key_share=bytes(32),
        sent_at_ms=1,
    )  # fmt: skip
    packet = encode(whole, b"abc")
    header_length = len(packet) - 3
    reasons = set()
    for _ in range(3000):
        altered = bytearray(packet)
        for _ in range(rng.randint(1, 3)):
            altered[rng.randrange(8, header_length)] = rng.randrange(256)
        try:
            decode(resealed(altered, header_length))
        except PacketError as error:
            reasons.add(error.reason)
    assert {"option", "shard", "payload-checksum"} <= reasons


@pytest.mark.parametrize(
    ("at", "value", "expected"),
    [
        (0, b"\x10", "version"),
        (1, b"\x00", "type"),
        (1, b"\x0a", "type"),
        (4, b"\x00\x3f", "length"),
        (6, b"\x00\x04", "length"),
        (24, b"\x00\x00\x00\x03", "shard"),
        (32, b"\xff" * 8, "shard"),
        (40, b"\x00" * 8, "shard"),
        (2, b"\x00\x01", "shard"),
        (56, b"\x00" * 4, "payload-checksum"),
    ],
)
def test_each_rule_has_its_reason(at: int, value: bytes, expected: str) -> None:
    packet = bytearray(encode(SHARD, b"abc"))
    packet[at : at + len(value)] = value
    assert reason(resealed(packet)) == expected


def test_altered_header_and_payload_are_told_apart() -> None:
    packet = encode(SHARD, b"abc")
    assert reason(packet[:16] + b"\x0b" + packet[17:]) == "header-checksum"
    assert reason(packet[:-1] + b"d") == "payload-checksum"


@pytest.mark.parametrize(
    "options",
    [
        "0001",  # cut off in its own header
        "00040003000500",  # wrong length
        "00040002000500040002000 5".replace(" ", ""),  # twice
        "0004000200050001001000000000000000000000000000000000",  # out of order
        "0001001000000000271100000000000000000000",  # more than 1.0
        "00020021ff" + "00" * 32,  # unknown digest
        "7fff0000",  # unknown, may not be skipped
        "8000000500",  # leaves the header
        "ffff000c01010009" + "00" * 8,  # reserved byte
        "ffff000b01000009" + "00" * 7,  # MAC too short
        "ffff002501000009" + "00" * 33,  # MAC too long
        "ffff004302000009" + "00" * 63,  # no Ed25519 signature
        "ffff000c03000009" + "00" * 8,  # unknown algorithm
        "0005006f" + "00" * 111,  # mandate cut short
        "0006001f" + "00" * 31,  # key share cut short
        "00070007" + "00" * 7,  # sent-at cut short
    ],
)
def test_broken_options_are_refused(options: str) -> None:
    value = bytes.fromhex(options)
    packet = bytearray(encode(Header(type=PacketType.PROBE)) + value)
    struct.pack_into("!H", packet, 4, len(packet))
    assert reason(resealed(packet, len(packet))) == "option"


def test_unknown_skippable_options_and_flags_survive() -> None:
    header = Header(type=PacketType.PROBE, flags=Flag(0x8001), others=((0x8123, b"later"),))
    assert decode(encode(header))[0] == header


@pytest.mark.parametrize(
    "change",
    [
        {"owner": "nobody"},
        {"visit": 70_000},
        {"object_id": -1},
        {"error": 99_999},
        {"timestamp_us": 2**32},
        {"digest": Digest(b"short")},
        {"key_share": b"short"},
        {"sent_at_ms": -1},
        {"sent_at_ms": 2**64},
        {"mandate": Mandate(issued_ms=1, expires_ms=2, digest=bytes(31), signature=bytes(64))},
    ],
)
def test_values_that_do_not_fit_are_named_errors(change: dict[str, object]) -> None:
    with pytest.raises(PacketError, match="cannot be built"):
        encode(msgspec.structs.replace(SHARD, **change), b"abc")


@given(headers(), st.binary(max_size=100), AUTHENTICATION)
def test_what_an_authentication_covers(header: Header, payload: bytes, auth: Authentication) -> None:
    packet = encode(msgspec.structs.replace(header, authentication=auth), payload)
    bare = encode(msgspec.structs.replace(header, authentication=None), payload)
    before, body = authenticated(packet)
    plain = bytearray(bare[: len(bare) - len(payload)])
    plain[4:6], plain[60:64] = packet[4:6], bytes(4)  # the header is longer by the option; its checksum is left out
    assert (before, body) == (plain, payload)
    other = msgspec.structs.replace(auth, tag=bytes(len(auth.tag)))
    assert authenticated(encode(msgspec.structs.replace(header, authentication=other), payload)) == (before, body)


def test_a_packet_without_authentication_covers_nothing() -> None:
    with pytest.raises(PacketError, match="without"):
        authenticated(encode(SHARD, b"abc"))


MESSAGES = [
    Register(name="h11", role="data", address="10.1.1.1", attributes={"samples": 10, "group_shares": {"a": 0.5}}),
    Order(action="train", object_id=5, visit=1, group_weights={"a": 1.0}, log=[{"node": "h11"}]),
    Ask(task="vignettes", sample=[1.0, 2.0]),
]


@pytest.mark.parametrize("message", MESSAGES)
def test_damaged_messages_raise_decode_error_only(message: object) -> None:
    rng = random.Random(2)
    payload = encode_message(message)  # type: ignore[arg-type]
    assert decode_message(payload) == message
    for _ in range(2000):
        altered = bytearray(payload[: rng.randint(0, len(payload))])
        for _ in range(rng.randint(0, 3)):
            if altered:
                altered[rng.randrange(len(altered))] = rng.randrange(256)
        try:
            decode_message(bytes(altered))
        except msgspec.DecodeError:
            continue


@given(st.binary(max_size=200))
def test_noise_is_no_message_and_no_event(noise: bytes) -> None:
    for parse in (decode_message, decode_event):
        try:
            parse(noise)
        except msgspec.DecodeError:
            continue


def test_damaged_events_raise_decode_error_only() -> None:
    rng = random.Random(3)
    line = encode_event(Event(kind="packet.refused", source="h11", t_unix_s=1.5, data={"reason": "short", "n": [1]}))
    for _ in range(3000):
        altered = bytearray(line)
        altered[rng.randrange(len(line))] = rng.randrange(256)
        try:
            decode_event(bytes(altered))
        except msgspec.DecodeError:
            continue
