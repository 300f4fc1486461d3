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
from typing import Any, get_args

import msgspec
import numpy as np

from controller.border.kbgp.config import Config, Neighbour
from controller.border.kbgp.core import Core
from controller.border.kbgp.effects import Send
from controller.border.kbgp.session import Connection
from hosts.errors import HostError
from hosts.gossip.core import Gossip
from hosts.gossip.house import House
from packets.aats.journey import MAGIC, Charter, Stop, TrailError, begun, pack, unpack
from packets.batch import GOOD, REASONS, USE_DECODE, ShardTrain, parse
from packets.distributed.gossip import Digest as Versions
from packets.distributed.gossip import News, Record
from packets.errors import PacketError
from packets.events import decode_event, encode_event
from packets.kbgp import messages as border
from packets.kbgp.knowledge import Bounds, Data, Deployed, Knowledge
from packets.messages import AnyMessage, Ask, JobSpec, Order, Register, decode_message, encode_message
from packets.options import Authentication, Mandate
from packets.security import blocks
from packets.security.identity import Directory
from packets.transfer.receiver import Receiving
from packets.transfers import ReceivedObject
from packets.wire import (
    FIXED_BYTES,
    MAX_REMEMBERED,
    VERSION,
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
from topologies.build import Terminal as Host
from topologies.build import build_plan

Peer = tuple[str, int]
MAX_DATAGRAM = 2048
REMEMBERED_BYTES = 3 * 64 * MAX_REMEMBERED  # wire.py's three tables, each with its smaller self while it is copied


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
        packet[0] = VERSION << 4 | packet[0] & 0xF
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
    """Decode: a header and payload that encode to the same bytes, or PacketError.

    Bound: 64 KiB, 8 times the input, and what the tables of small conversions take while they grow.
    """
    packet = shaped(Reader(data), MAX_DATAGRAM)
    with bounded(0x10000 + 8 * len(packet) + REMEMBERED_BYTES):
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


def journey(data: bytes) -> None:
    """Autonomous objects: one that packs again and is believed of nobody, or TrailError. Bound: 64 KiB, 200 times.

    Odd first bytes put a right frame around a journey whose charter and trail have any kind of value.
    """
    text = framed(Reader(data[1:])) if data[:1] and data[0] & 1 else data[1:]
    with bounded(0x10000 + 200 * len(text)):
        try:
            found, model = unpack(text)
            assert unpack(pack(found, model)) == (found, model)
            found.check(object_id=1, owner="10.1.1.1", visit=len(found.trail) - 1, here="10.1.1.2", directory=NOBODY)
        except TrailError:
            return
    raise AssertionError("a journey that nobody signed is believed")


NOBODY = Directory()


def framed(reader: Reader) -> bytes:
    """Return a frame around a journey with any values in its charter and its entries."""
    charter = {name: value(reader, 3) for name in Charter.__struct_fields__ if reader.number() < 240}
    entry = {name: value(reader, 3) for name in Stop.__struct_fields__ if reader.number() < 240}
    told = {"text": msgspec.msgpack.encode(charter), "word": reader.take(64), "trail": [entry] * (reader.number() % 4)}
    text = msgspec.msgpack.encode(told)
    return MAGIC + len(text).to_bytes(4, "big") + text + reader.take(9)


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
        every = np.flatnonzero(parsed.verdict == GOOD)
        parsed.macs_right(b"key", every)
        parsed.words_right(lambda shards: shards.astype(np.uint32), every)
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


@contextmanager
def small_blocks() -> Iterator[None]:
    """Give the larger objects several blocks."""
    before, blocks.STEP_BYTES = blocks.STEP_BYTES, 512
    try:
        yield
    finally:
        blocks.STEP_BYTES = before


with small_blocks():
    TREES = [blocks.digest_of(one) for one in OBJECTS]


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
        digest, hashes = TREES[number] if which & 0x40 else (DIGESTS[number], None)
        launch = Header(
            type=PacketType.MODEL_SHARD, flags=Flag.LAUNCH, object_id=number, transfer_id=transfer, shard_count=count,
            total_length=len(payload), digest=digest, blocks=hashes, offset=size if which & 0x80 else 0,
        )  # fmt: skip
        body, changes = b"", dict[str, object]()
        how = reader.number()
        if how & 1:
            body = payload[index * size : (index + 1) * size]
            fields = {"flags": Flag(0), "digest": None, "blocks": None}
            changes = fields | {"shard_index": index, "offset": index * size}
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
    with small_blocks(), bounded(Assembler.BOUND):
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


def kbgp(data: bytes) -> None:
    """A stream of KBGP: messages that encode again, or KbgpError. Bound: 64 KiB, 200 times the input.

    An odd first byte makes a header of ours for what follows, as compiled parsers do not guide the fuzzer.
    """
    reader = Reader(data)
    how, kind = reader.number(), border.Type(1 + reader.number() % len(border.Type))
    body = reader.take(reader.left)
    stream = body if how % 2 == 0 else border.HEADER.pack(b"KBGP", 1, kind, 0, border.HEADER.size + len(body)) + body
    with bounded(0x10000 + 200 * len(stream)):
        told = kbgp_message(stream)
        if told is not None:
            assert kbgp_message(border.encode(told)) == told


def kbgp_message(stream: bytes) -> border.Message | None:
    """Read one message off a stream as a speaker does; None: it is cut, or refused."""
    if len(stream) < border.HEADER.size:
        return None
    try:
        kind, size = border.split(stream[: border.HEADER.size])
        body = stream[border.HEADER.size : border.HEADER.size + size]
        return border.decode(kind, body) if len(body) == size else None
    except border.KbgpError as error:
        assert error.code in border.Code and error.sub in border.Sub and len(str(error)) < 300
        return None


class Gateway:
    """A border speaker's core under test, with neighbours of two K-AS, one of them twice, and one of its own."""

    BOUND = 4 << 20

    def __init__(self) -> None:
        self.now_s = 100.0
        at = [(2, "g2", "a"), (2, "g2", "b"), (3, "g3", "a"), (1, "g9", "a")]
        neighbours = [Neighbour(kas=kas, gateway=gateway, link=link, port=1) for kas, gateway, link in at]
        config = Config(kas=1, gateway="g1", neighbours=neighbours, links=[(1, 2), (1, 3), (2, 3), (3, 4)])
        self.core = Core(config, boot_ms=1, now_s=self.now_s, rng=random.Random(1))
        self.core.originate(Knowledge(kas=1, epoch_ms=1, serial=1), b"", self.now_s)
        self.connections: list[Connection] = []

    def message(self, reader: Reader) -> border.Message:
        """Return a message with any content that the codec lets through."""
        kas = [1 + reader.number() % 5 for _ in range(1 + reader.number() % 4)]
        told = Knowledge(kas=kas[-1 if reader.number() < 200 else 0], epoch_ms=1, serial=reader.number() % 3)
        one = border.Advertisement(path=kas, knowledge=told)
        number, code = reader.number() % 8, reader.number()
        return (
            border.Open(
                versions=[1], kas=kas[0], gateway=f"g{(2, 3, 9)[code % 3]}", link="ab"[code // 3 % 2], hold_ms=3000,
                boot_ms=code % 2, restart_s=code % 4, restarting=code > 200,
            ),
            border.Keepalive(), border.Keepalive(), border.EndOfRib(),
            border.Update(withdrawn=kas, advertised=[one]), border.Update(advertised=[one]),
            border.Request(id=code, to_kas=kas[0], trail=kas, left_ms=code, body=b"?"),
            border.Reply(id=code, code=code), border.Notification(code=code),
        )[number if code < 250 else 8]  # fmt: skip

    def step(self, reader: Reader) -> None:
        """Let one thing happen."""
        what, core = reader.number(), self.core
        if what < 20 and len(self.connections) < 20:
            self.connections.append(core.accepted(f"g{(2, 3, 9)[what % 3]}", self.now_s))
        elif what < 40 and len(self.connections) < 20:
            session = list(core.sessions.values())[what % 4]
            if not session.connections:
                self.connections.append(core.dialled(session, self.now_s))
        elif what < 60:
            self.now_s += (0.1, 1.0, 20.0)[what % 3]
            core.tick(self.now_s)
        elif self.connections:
            connection = self.connections[what % len(self.connections)]
            if what < 70:
                core.closed(connection, self.now_s)
            else:
                core.received(connection, self.message(reader), self.now_s)

    def check(self) -> None:
        """Look at all that it sends and believes."""
        for effect in self.core.take():
            if isinstance(effect, Send):
                assert kbgp_message(border.encode(effect.message)) == effect.message
        for kas, route in self.core.rib.best.items():
            assert route.peer is None or (1 not in route.path and len(set(route.path)) == len(route.path))
            assert route.path[-1] == kas
        for session in self.core.sessions.values():
            assert session.up is None or session.up in session.connections


def speaker(data: bytes) -> None:
    """Any sequence of connections, messages and time into a border speaker's core. Bound: ``Gateway.BOUND``."""
    reader = Reader(data)
    with bounded(Gateway.BOUND):
        under_test = Gateway()
        for _ in range(200):
            if not reader.left:
                break
            under_test.step(reader)
            under_test.check()


def gossip(data: bytes) -> None:
    """What other terminals of a distributed K-AS say: who signed is believed, and of it what can be. Bound: 1 MiB.

    Odd first bytes make records, digests and news with any kind of value.
    """
    reader, now_s = Reader(data[1:]), 1.0
    with bounded(1 << 20):
        here = Gossip(
            "h11", ["h13", "c1"], lambda version, attributes: b"y", lambda record: record.signature == b"y",
            now_s=now_s, born_unix_s=1e9, seed="1",
        )  # fmt: skip
        house = House(HOUSED, bytes(16), lambda: now_s)
        for _ in range(50):
            if not reader.left:
                break
            now_s += reader.number() / 10
            talk = told(reader) if data[:1] and data[0] & 1 else News(records=[record_of(reader)])
            for held in here.hear(("h13", "x")[reader.number() % 9 == 0], talk, now_s).fresh:
                house.hear(held.record.name, held.record.attributes, held.t_s)
            with suppress(HostError):
                house.offers(1, reader.take(40))
            with suppress(HostError):
                house.plan(reader.take(40))
            assert set(here.held(now_s)) <= {"h11", "h13", "c1"}
            assert all(h.record.signature == b"y" and h.t_s <= now_s for h in here.held(now_s).values())
            for to, going in here.tick(now_s):
                assert to in ("h13", "c1") and decode_message(encode_message(going)) == going


HOUSED = build_plan(
    "fuzz", kas={1: [Host("h11", "data"), Host("h13", "data"), Host("c1", "compute")]}, wan=[]
).domain(1)  # fmt: skip


def record_of(reader: Reader) -> Record:
    """Return a record of one of three terminals, or of none."""
    said = {name: value(reader, 2) for name in ("samples", "group_shares", "quality", "odd") if reader.number() % 3}
    body = msgspec.msgpack.encode(said) if reader.number() % 4 else reader.take(20)
    name = ("h11", "h13", "c1", "h99")[reader.number() % 4]
    return Record(name, 1 + reader.number(6), body[:4096], b"yn"[reader.number() % 2 :][:1], float(reader.number()))


def told(reader: Reader) -> Versions | News:
    """Return what a message with any values in its fields says, nothing where it is none."""
    kind: type[Versions | News] = (Versions, News)[reader.number() % 2]
    fields = {name: value(reader, 3) for name in kind.__struct_fields__ if reader.number() < 240}
    try:
        return msgspec.convert({"m": kind.__struct_config__.tag, **fields}, kind)
    except msgspec.ValidationError:
        return News(wants=["h11"])


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
    seals: list[dict[str, Any]] = [{}, {"mac": b"key"}, {"words": lambda shards: shards.astype(np.uint32)}]
    for seal in seals:
        template = Header(type=PacketType.DATA_SHARD, object_id=1)
        train = ShardTrain(template, bytes(300), 100, **seal)
        into = bytearray(train.stride * 3)
        train.write(into, 0, [0, 1, 2], timestamp_us=1, high=1)
        rows = [
            struct.pack("!HB", train.stride - 1, 0) + into[at : at + train.stride]
            for at in range(0, len(into), train.stride)
        ]
        blocks.append(struct.pack("!HH", train.stride - FIXED_BYTES, 2) + b"".join(rows))
    return blocks


def good_border() -> list[border.Message]:
    """Return KBGP messages of all types."""
    span = Bounds(low=1, high=2)
    told = Knowledge(
        kas=3, epoch_ms=1, serial=2, terminals={"data": 4, "mdfp": 1}, compute=span,
        data=Data(samples=span, shares={"a": 0.5}),
        models={"t": Deployed(models=1, best_accuracy={"broad": 0.9}, least_ms=3.5)},
    )  # fmt: skip
    question = {"id": 1, "to_kas": 3, "trail": [1, 2], "left_ms": 500, "body": b"?"}
    return [
        border.Open(versions=[1], kas=2, gateway="g2", link="a", hold_ms=9000, boot_ms=5, capabilities=["relay"]),
        border.Keepalive(), border.EndOfRib(), border.Notification(code=6, sub=8, reason="shut down"),
        border.Update(withdrawn=[4], advertised=[border.Advertisement(path=[2, 3], knowledge=told)]),
        border.Request(**question), border.Announce(**question, object_id=2**63, visit=3),
        border.Reply(id=1, code=0, body=b"!"),
    ]  # fmt: skip


def good_journey() -> bytes:
    """Return an autonomous object one stop away from its owner."""
    charter = Charter(object_id=1, owner="10.1.1.1", spec=JobSpec(task="t"), issued_ms=5)
    start = Stop(
        address="10.1.1.1", kas=1, action="start", next="train", to="10.1.1.2", why="near", at_ms=6, digest=bytes(32),
        mix={"a": 1.0}, route=["10.1.1.2"],
    )  # fmt: skip
    return pack(begun(charter, None).grown(start, None), b"a model")


TARGETS: dict[str, Callable[[bytes], None]] = {
    "codec": codec, "messages": messages, "assembler": assembler, "batch": batch, "kbgp": kbgp, "speaker": speaker,
    "journey": journey, "gossip": gossip,
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
    if name == "journey":
        return [b"\0" + good_journey(), b"\1" + bytes(200), b"\1" + bytes(range(255))]
    if name == "gossip":
        return [bytes((odd, 3, *range(60), 1, 1, 0, 200)) for odd in (0, 1)]
    if name == "kbgp":
        return [b"\0\0" + border.encode(one) for one in good_border()]
    if name == "speaker":  # it accepts, hears OPEN, KEEPALIVE, an advertisement, a question
        heard = ((0, 1, 0, 0, 0, 0), (0, 1, 0, 0, 1, 0), (1, 1, 2, 0, 1, 5, 0), (0, 1, 0, 0, 6, 99))
        return [bytes((0, *(byte for one in heard for byte in (80, *one))))]
    rng = random.Random(1)
    return [rng.randbytes(size) for size in (10, 100, 1000)]
