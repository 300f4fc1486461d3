"""What is fuzzed: functions of bytes that return, or raise because the project has a bug.

Each states its bound of memory; ``bounded`` measures it with tracemalloc (all of Python's and numpy's allocations).
"""

from __future__ import annotations

import random
import struct
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import get_args

import msgspec
import numpy as np

from packets.batch import GOOD, REASONS, USE_DECODE, ShardTrain, parse
from packets.errors import PacketError
from packets.events import decode_event, encode_event
from packets.messages import AnyMessage, Ask, Order, Register, decode_message, encode_message
from packets.options import Authentication, Mandate
from packets.transfer.receiver import Receiving
from packets.transfers import ReceivedObject
from packets.wire import (
    FIXED_BYTES,
    Acknowledgement,
    Digest,
    DigestAlgorithm,
    Flag,
    Header,
    PacketType,
    Requirements,
    authenticated,
    decode,
    encode,
)

Peer = tuple[str, int]
MAX_DATAGRAM = 2048


class Reader:
    """Choices read off the fuzzer's bytes; zeros when they are used up."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    @property
    def left(self) -> int:
        return max(len(self._data) - self._at, 0)

    def take(self, count: int) -> bytes:
        """Return up to ``count`` of the bytes that are left."""
        part = self._data[self._at : self._at + count]
        self._at += count
        return part

    def number(self, size: int = 1) -> int:
        """Return a number of ``size`` bytes."""
        return int.from_bytes(self.take(size).ljust(size, b"\0"), "big")

    def below(self, limit: int) -> int:
        return self.number(2) % limit


@contextmanager
def bounded(limit_bytes: int) -> Iterator[None]:
    """Fail when more memory than this is allocated at a time within the block; off unless tracemalloc is on."""
    if not tracemalloc.is_tracing():
        yield
        return
    tracemalloc.reset_peak()
    before = tracemalloc.get_traced_memory()[0]
    yield
    peak = tracemalloc.get_traced_memory()[1] - before
    assert peak <= limit_bytes, f"{peak} bytes allocated at a time, declared bound {limit_bytes}"


def shaped(reader: Reader, size: int) -> bytes:
    """Return a datagram: noise, or one whose lengths, version and checksums are right as far as its first byte says."""
    how, packet = reader.number(), bytearray(reader.take(size))
    if len(packet) < FIXED_BYTES:
        return bytes(packet)
    header_length = min(max(int.from_bytes(packet[4:6], "big"), FIXED_BYTES), len(packet))
    if how & 1:
        packet[0] = 0x10 | packet[0] & 0xF
    if how & 2:
        struct.pack_into("!HH", packet, 4, header_length, len(packet) - header_length)
    if how & 4:
        struct.pack_into("!I", packet, 56, zlib.crc32(packet[header_length:]))
    if how & 8:
        packet[60:64] = bytes(4)
        struct.pack_into("!I", packet, 60, zlib.crc32(packet[:header_length]))
    return bytes(packet)


def verdict(packet: bytes) -> str:
    """Return why the codec refuses a datagram; "" when it does not."""
    try:
        decode(packet)
    except PacketError as error:
        return error.reason
    return ""


# --- targets ----------------------------------------------------------------------------------------------------------


def codec(data: bytes) -> None:
    """Decode: a header and payload that encode to the same bytes, or PacketError. Bound: 64 KiB, 8 times the input."""
    packet = shaped(Reader(data), MAX_DATAGRAM)
    with bounded(0x10000 + 8 * len(packet)):
        try:
            header, payload = decode(packet)
        except PacketError as error:
            assert error.reason in REASONS
            return
        assert encode(header, payload) == packet
        if header.authentication is not None:
            before, body = authenticated(packet)
            assert len(before) < len(packet) and body == payload


def messages(data: bytes) -> None:
    """Messages and events: something that encodes again, or DecodeError. Bound: 64 KiB, 200 times the input.

    The parsers are compiled, so coverage does not guide into them: odd first bytes make a message of ours out of the
    input, with fields that its type has, of any kind of value.
    """
    text = crafted(Reader(data[1:])) if data[:1] and data[0] & 1 else data[1:]
    with bounded(0x10000 + 200 * len(text)):
        with suppress(msgspec.DecodeError):
            encode_message(decode_message(text))
        with suppress(msgspec.DecodeError):
            encode_event(decode_event(text))


MESSAGES = sorted(get_args(AnyMessage), key=lambda message: message.__name__)


def crafted(reader: Reader) -> bytes:
    """Return msgpack of a message with any values in its fields."""
    message = MESSAGES[reader.below(len(MESSAGES))]
    info = message.__struct_config__
    fields = {name: value(reader, 4) for name in message.__struct_encode_fields__ if reader.number() < 200}
    text = msgspec.msgpack.encode({info.tag_field: info.tag} | fields)
    return text[: reader.below(len(text)) + 1] if reader.number() > 240 else text


def value(reader: Reader, depth: int) -> object:
    """Return any value that msgpack can carry."""
    kind = reader.number() % (10 if depth else 7)
    if kind < 7:
        number = reader.number(1 + kind)
        text = reader.take(number % 50) if kind > 4 else b""
        plain = (None, number > 99, number, -number, number / 199, text.hex(), text)
        return plain[kind]
    if kind == 7:
        return [value(reader, 0)] * (reader.number() % 200)
    if kind == 8:
        return [value(reader, depth - 1) for _ in range(reader.number() % 9)]
    return {reader.take(2).hex(): value(reader, depth - 1) for _ in range(reader.number() % 9)}


def batch(data: bytes) -> None:
    """Blocks: the verdicts and fields of the codec. Bound: 64 KiB, 16 times the block."""
    reader = Reader(data)
    stride = FIXED_BYTES + reader.below(400)
    packets = [shaped(reader, 1 + reader.below(stride + 20)) for _ in range(1 + reader.below(8))]
    frames = np.full((len(packets), stride), 0x5A, np.uint8)
    for row, packet in enumerate(packets):
        kept = packet[:stride]
        frames[row, : len(kept)] = np.frombuffer(kept, np.uint8)
    with bounded(0x10000 + 16 * frames.size):
        parsed = parse(frames, [len(packet) for packet in packets])
        parsed.macs_right(b"key")
    for row, packet in enumerate(packets):
        given = int(parsed.verdict[row])
        if given == USE_DECODE:
            continue
        cut = len(packet) > stride and verdict(packet) not in ("short", "version")
        assert REASONS[given] == ("length" if cut else verdict(packet))
        if given == GOOD:
            header, payload = decode(packet)
            assert (int(parsed.shard_index[row]), int(parsed.offset[row])) == (header.shard_index, header.offset)
            assert parsed.payload(row) == payload


CHANGED_BYTES = {
    "shard_index": 4, "shard_count": 4, "offset": 8, "total_length": 8, "object_id": 8, "visit": 2, "transfer_id": 4,
    "timestamp_us": 4,
}  # fmt: skip
CHANGED = list(CHANGED_BYTES)
OBJECTS = [random.Random(1).randbytes(size) for size in (0, 1, 700, 5000)]
DIGESTS = [Digest.of(one) for one in OBJECTS]


class Assembler:
    """The receiving side under test, with small bounds, and everything that it sends or hands over looked at."""

    MAX_OBJECT, MAX_TOTAL, MAX_OBJECTS = 1 << 14, 1 << 15, 4
    BOUND = 4 * MAX_TOTAL + 0x80000  # objects and their bitmaps twice, 512 transfers remembered, what is on its way out

    def __init__(self) -> None:
        self.now = 100.0
        self.receiving = Receiving(
            send=self.sent, deliver=self.delivered, refused=self.refused, max_object_bytes=self.MAX_OBJECT,
            max_total_bytes=self.MAX_TOTAL, max_objects=self.MAX_OBJECTS,
        )  # fmt: skip
        self.accept = True

    @property
    def now_us(self) -> int:
        return int(self.now * 1e6) & 0xFFFF_FFFF

    def sent(self, header: Header, payload: bytes, peer: Peer, session: object, first: bool) -> None:
        assert verdict(encode(header, payload)) == ""

    def delivered(self, received: ReceivedObject) -> bool:
        assert Digest.of(received.payload) in DIGESTS
        return self.accept

    def refused(self, reason: str, header: Header, peer: Peer, count: int) -> None:
        assert reason and count > 0

    def check(self) -> None:
        held = sum(assembly.weight for assembly in self.receiving._assemblies.values())
        assert held <= 2 * self.MAX_TOTAL and len(self.receiving._assemblies) <= self.MAX_OBJECTS
        self.receiving.wake_at()

    def packet(self, reader: Reader) -> bytes:
        """Return a launch or a shard, right or with any of its fields replaced."""
        which, transfer = reader.number(), reader.number() % 4
        number, size = which % len(OBJECTS), (1, 64, 333, 1408)[which >> 4 & 3]
        payload = OBJECTS[number]
        count = max(-(-len(payload) // size), 1)
        index = reader.number() % min(count, 256)
        launch = Header(
            type=PacketType.MODEL_SHARD, flags=Flag.LAUNCH, object_id=number, transfer_id=transfer, shard_count=count,
            total_length=len(payload), digest=DIGESTS[number],
        )  # fmt: skip
        body, changes = b"", dict[str, object]()
        how = reader.number()
        if how & 1:
            body = payload[index * size : (index + 1) * size]
            changes = {"flags": Flag(0), "digest": None, "shard_index": index, "offset": index * size}
        if how & 2:
            field = CHANGED[how >> 4 & 7]
            changes[field] = reader.number(CHANGED_BYTES[field])
        if how & 4:
            changes["flags"] = Flag((how & 1 == 0) | reader.number(2) & ~1)
        if how & 8:
            body = reader.take(reader.number()) if how & 1 else b""
        return encode(msgspec.structs.replace(launch, **changes), body)


def assembler(data: bytes) -> None:
    """Any sequence of packets, clock steps and withdrawals into the shard assembler. Bound: ``Assembler.BOUND``."""
    reader, under_test = Reader(data), Assembler()
    receiving = under_test.receiving
    with bounded(Assembler.BOUND):
        for _ in range(200):
            if not reader.left:
                break
            step = reader.number()
            if step < 200:
                try:
                    header, payload = decode(under_test.packet(reader))
                except PacketError:
                    continue
                peer = (f"10.1.1.{step % 3}", 55831)
                receiving.on_packet(header, payload, peer, under_test.now, under_test.now_us)
            elif step < 230:
                under_test.now += (0.001, 0.1, 20.0)[step % 3]
                receiving.answer(under_test.now, under_test.now_us)
            elif step < 240:
                receiving.tidy(under_test.now)
            elif step < 250:
                receiving.withdraw(reader.number() % 3, 0)
            else:
                under_test.accept = not under_test.accept
            under_test.check()


# --- where the fuzzer starts ------------------------------------------------------------------------------------------


def good_packets() -> list[bytes]:
    """Return packets of all kinds, with all options."""
    shard = Header(type=PacketType.MODEL_SHARD, object_id=5, transfer_id=6, shard_count=2, total_length=10)
    word = Mandate(issued_ms=1, expires_ms=2, digest=bytes(32), signature=bytes(64))
    seal = Authentication(algorithm=1, key_id=3, tag=bytes(8))
    launch = {
        "flags": Flag.LAUNCH, "digest": Digest(bytes(32), DigestAlgorithm.BLAKE2B_256), "mandate": word,
        "requirements": Requirements(task_class=9, broad_accuracy=8000), "key_share": bytes(32), "sent_at_ms": 7,
        "authentication": Authentication(algorithm=2, key_id=3, tag=bytes(64)),
    }  # fmt: skip
    ack = Header(type=PacketType.ACK, ack=Acknowledgement(base=1, window=9, bitmap=b"\1\2"), others=((0x8001, b"x"),))
    return [
        encode(shard, b"abcde"), encode(msgspec.structs.replace(shard, authentication=seal), b"abcde"),
        encode(msgspec.structs.replace(shard, **launch)), encode(ack),
        encode(Header(type=PacketType.ERROR, error=6), b"text"), encode(Header(type=PacketType.QUERY), b"\x80"),
    ]  # fmt: skip


def good_messages() -> list[bytes]:
    """Return a few messages and an event."""
    register = Register(
        name="h11", role="data", address="10.1.1.1", attributes={"samples": 1, "group_shares": {"a": 1.0}}
    )
    order = Order(action="train", object_id=5, visit=1, group_weights={"a": 1.0}, log=[{"node": "h11"}])
    event = b'{"v":1,"kind":"x","source":"h11","t_unix_s":1.5,"data":{"a":[1,null,true]}}'
    return [encode_message(register), encode_message(order), encode_message(Ask(task="t", sample=[1.0])), event]


def trains() -> list[bytes]:
    """Return blocks of shards, as ``batch`` reads them."""
    blocks = []
    for mac in (None, b"key"):
        template = Header(type=PacketType.DATA_SHARD, object_id=1)
        train = ShardTrain(template, bytes(300), 100, mac=mac)
        into = bytearray(train.stride * 3)
        train.write(into, 0, [0, 1, 2], timestamp_us=1, high=1)
        rows = [
            struct.pack("!HB", train.stride - 1, 0) + into[at : at + train.stride]
            for at in range(0, len(into), train.stride)
        ]
        blocks.append(struct.pack("!HH", train.stride - FIXED_BYTES, 2) + b"".join(rows))
    return blocks


TARGETS: dict[str, Callable[[bytes], None]] = {
    "codec": codec, "messages": messages, "assembler": assembler, "batch": batch,
}  # fmt: skip


def seeds(name: str) -> list[bytes]:
    """Return inputs to start from."""
    if name == "codec":
        return [bytes((how,)) + packet for packet in good_packets() for how in (0, 15)]
    if name == "messages":
        return [b"\0" + one for one in good_messages()] + [
            bytes((1, 0, kind)) + bytes(40) for kind in range(len(MESSAGES))
        ]
    if name == "batch":
        return trains()
    rng = random.Random(1)
    return [rng.randbytes(size) for size in (10, 100, 1000)]
