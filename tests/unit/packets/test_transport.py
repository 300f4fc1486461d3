"""The endpoint over real sockets on loopback: objects through foul weather, requests, bounds, refusals."""

from __future__ import annotations

import contextlib
import random
import select
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from packets.errors import RequestTimeout, TransferRefused, TransportError
from packets.labels import AI_PORT
from packets.transport import Endpoint, OutgoingObject, ReceivedObject
from packets.wire import Digest, ErrorCode, Flag, Header, PacketType, Requirements, decode, encode
from tests.helpers import wait_until

A, B, RELAY = "127.0.83.1", "127.0.83.2", "127.0.83.3"
Peer = tuple[str, int]


class Terminal:
    """An endpoint that keeps what it gets and what it says."""

    def __init__(self, address: str, **bounds: Any) -> None:
        self.objects: list[ReceivedObject] = []
        self.messages: list[tuple[Header, bytes, Peer]] = []
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.endpoint = Endpoint(
            address, on_object=self.on_object, on_message=self.on_message, emit=self.emit, **bounds
        )  # fmt: skip

    def on_object(self, received: ReceivedObject) -> None:
        self.objects.append(received)

    def on_message(self, header: Header, payload: bytes, peer: Peer) -> None:
        self.messages.append((header, payload, peer))
        if payload == b"silence":
            return
        if payload == b"refuse":
            answer = msgspec.structs.replace(header, type=PacketType.ERROR, flags=Flag.REPLY, error=ErrorCode.REFUSED)
            self.raw(encode(answer, b"not today"), peer)
        else:
            self.endpoint.reply(header, b"re:" + payload, peer, type=PacketType.RESPONSE)

    def emit(self, kind: str, /, **data: Any) -> None:
        self.events.append((kind, data))

    def refusals(self) -> list[str]:
        return [data["reason"] for kind, data in self.events if kind == "packet.refused"]

    @staticmethod
    def raw(data: bytes, to: Peer) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.sendto(data, to)


class Relay:
    """Stands at an address between A and B and is foul weather: loses, duplicates, reorders (seeded), or alters."""

    def __init__(
        self, seed: int, *, loss: float = 0.05, duplicate: float = 0.05, reorder: float = 0.1, largest: int = 65535
    ) -> None:
        self.largest = largest
        self.rng = random.Random(seed)
        self.loss, self.duplicate, self.reorder = loss, duplicate, reorder
        self.held: list[tuple[bytes, Peer]] = []
        self.lost = 0
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self.sock.bind((RELAY, AI_PORT))
        self.stop, self.stopped = socket.socketpair()
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self) -> None:
        while True:
            ready, _, _ = select.select([self.sock, self.stopped], [], [], 0.02)
            if self.stopped in ready:
                return
            if self.sock in ready:
                data, peer = self.sock.recvfrom(65535)
                self.forward(data, (B if peer[0] == A else A, AI_PORT))
            elif self.held:
                self.release()

    def forward(self, data: bytes, to: Peer) -> None:
        if self.rng.random() < self.loss or len(data) > self.largest:
            self.lost += 1
            return
        for _ in range(1 + (self.rng.random() < self.duplicate)):
            if self.rng.random() < self.reorder:
                self.held.append((data, to))
            else:
                self.sock.sendto(data, to)
        if len(self.held) > 8:
            self.release()

    def release(self) -> None:
        self.rng.shuffle(self.held)
        for data, to in self.held:
            self.sock.sendto(data, to)
        self.held.clear()

    def close(self) -> None:
        self.stop.send(b"x")
        self.thread.join(2)
        for sock in (self.sock, self.stop, self.stopped):
            sock.close()


@contextlib.contextmanager
def terminals(**bounds: Any) -> Iterator[tuple[Terminal, Terminal]]:
    a, b = Terminal(A), Terminal(B, **bounds)
    with a.endpoint, b.endpoint:
        yield a, b


@pytest.fixture
def pair() -> Iterator[tuple[Terminal, Terminal]]:
    with terminals() as both:
        yield both


def model(size: int, to: str = B, **more: Any) -> OutgoingObject:
    payload = random.Random(size).randbytes(size)
    return OutgoingObject(
        object_id=0x7_0010_0001, type=PacketType.MODEL_SHARD, payload=payload, owner="10.1.1.9", to=to, **more
    )


def test_an_object_arrives_with_all_that_its_header_says(pair: tuple[Terminal, Terminal]) -> None:
    a, b = pair
    need = Requirements.of("vignettes", broad_accuracy=0.8)
    obj = model(300_000, visit=3, visit_limit=16, requirements=need)
    stats = a.endpoint.send_object(obj).result(10)
    wait_until(lambda: len(b.objects) == 1, 5)
    got = b.objects[0]
    assert got.payload == obj.payload
    assert (got.object_id, got.type, got.owner) == (obj.object_id, obj.type, obj.owner)
    assert (got.visit, got.visit_limit, got.requirements, got.sender) == (3, 16, need, A)
    assert (stats.bytes, stats.receiver) == (300_000, B)
    assert stats.packets - stats.retransmissions == got.packets - got.duplicates == -(-300_000 // 1408)


@pytest.mark.parametrize("seed", [1, 2])
def test_an_object_survives_a_lossy_reordering_duplicating_path(pair: tuple[Terminal, Terminal], seed: int) -> None:
    a, b = pair
    relay = Relay(seed)
    try:
        obj = model(400_000, to=RELAY)
        stats = a.endpoint.send_object(obj).result(15)
        wait_until(lambda: len(b.objects) == 1, 5)
    finally:
        relay.close()
    assert b.objects[0].payload == obj.payload
    assert relay.lost > 0
    assert 0 < stats.retransmissions < stats.packets / 2
    assert b.objects[0].duplicates > 0


def test_many_objects_both_ways_at_once(pair: tuple[Terminal, Terminal]) -> None:
    a, b = pair
    there = [a.endpoint.send_object(model(100_000 + i)) for i in range(4)]
    back = [b.endpoint.send_object(model(100_000 + i, to=A)) for i in range(4)]
    assert [transfer.result(15).bytes for transfer in there + back] == [100_000 + i for i in range(4)] * 2
    wait_until(lambda: len(a.objects) == len(b.objects) == 4, 5)


def test_without_udp_segment(pair: tuple[Terminal, Terminal]) -> None:
    a, b = pair
    a.endpoint._socket.segments = False
    assert a.endpoint.send_object(model(200_000)).result(10).bytes == 200_000
    wait_until(lambda: len(b.objects) == 1, 5)


def test_too_large_an_object_is_refused() -> None:
    with terminals(max_object_bytes=100_000) as (a, b):
        with pytest.raises(TransferRefused, match="too large"):
            a.endpoint.send_object(model(100_001)).result(5)
        assert b.refusals() == ["too-large"]
        assert b.objects == []


def test_memory_is_bounded_while_callbacks_are_slow() -> None:
    """What waits for a callback counts: with one place, the third object is kept out until the first is done."""
    gate = threading.Event()
    with terminals(max_total_bytes=150_000, max_objects=2) as (a, b):
        b.on_object = None  # type: ignore[assignment,method-assign]
        b.endpoint._objects._callback = lambda received: (gate.wait(10), b.objects.append(received))
        transfers = [a.endpoint.send_object(model(60_000 + i)) for i in range(8)]
        wait_until(lambda: "busy" in b.refusals(), 5)
        assert b.endpoint._objects.waiting_bytes <= 150_000
        gate.set()
        assert all(transfer.result(15) for transfer in transfers)
        wait_until(lambda: len(b.objects) == 8, 5)


def test_request_and_reply(pair: tuple[Terminal, Terminal]) -> None:
    a, b = pair
    header, payload = a.endpoint.request(b"where?", to=B, type=PacketType.QUERY, object_id=77)
    assert payload == b"re:where?"
    assert (header.type, header.object_id, header.flags) == (PacketType.RESPONSE, 77, Flag.REPLY)
    assert b.messages[0][2][0] == A


def test_a_request_is_repeated_with_one_transfer_id_until_it_is_answered(pair: tuple[Terminal, Terminal]) -> None:
    a, b = pair
    with pytest.raises(RequestTimeout, match=rf"{B} did not answer a PROBE request within 1 s"):
        a.endpoint.request(b"silence", to=B, type=PacketType.PROBE, timeout_s=1.0)
    wait_until(lambda: len(b.messages) >= 3, 2)
    assert len({header.transfer_id for header, _, _ in b.messages}) == 1
    assert [bool(header.flags & Flag.REPEATED) for header, _, _ in b.messages][:2] == [False, True]


def test_what_waits_is_said_again_at_once_when_whoever_is_asked_has_come_back(pair: tuple[Terminal, Terminal]) -> None:
    a, b = pair

    def ask() -> None:
        with contextlib.suppress(RequestTimeout):
            a.endpoint.request(b"silence", to=B, type=PacketType.ANNOUNCE, timeout_s=2.0)

    asking = threading.Thread(target=ask)
    asking.start()
    wait_until(lambda: len(b.messages) >= 3, 5.0, "two repetitions: the next is 0.8 s away")
    before, since = len(b.messages), time.monotonic()
    a.endpoint.say_again()
    wait_until(lambda: len(b.messages) > before, 5.0, "said again", interval_s=0.005)
    assert time.monotonic() - since < 0.5
    assert len({header.transfer_id for header, _, _ in b.messages}) == 1
    asking.join(5.0)


def test_a_request_through_foul_weather(pair: tuple[Terminal, Terminal]) -> None:
    a, _ = pair
    relay = Relay(5, loss=0.4)
    try:
        for i in range(5):
            assert a.endpoint.request(b"%d" % i, to=RELAY, type=PacketType.TELEMETRY)[1] == b"re:%d" % i
    finally:
        relay.close()


def test_messages_larger_than_a_packet_through_foul_weather(pair: tuple[Terminal, Terminal]) -> None:
    a, b = pair
    question = random.Random(3).randbytes(20_000)
    relay = Relay(5, loss=0.1, duplicate=0.2, reorder=0.3)
    try:
        _, answer = a.endpoint.request(question, to=RELAY, type=PacketType.QUERY, object_id=9)
    finally:
        relay.close()
    assert answer == b"re:" + question
    assert {payload for _, payload, _ in b.messages} == {question}


def test_a_refused_request_says_why(pair: tuple[Terminal, Terminal]) -> None:
    with pytest.raises(TransferRefused, match="not today"):
        pair[0].endpoint.request(b"refuse", to=B, type=PacketType.ANNOUNCE)


def test_callbacks_may_take_long_and_use_the_endpoint_themselves() -> None:
    done = threading.Event()
    with terminals() as (a, b):

        def train(received: ReceivedObject) -> None:
            assert b.endpoint.request(b"order?", to=A, type=PacketType.ANNOUNCE)[1] == b"re:order?"
            b.endpoint.send_object(model(50_000, to=A)).result(10)
            done.set()

        b.endpoint._objects._callback = train
        a.endpoint.send_object(model(10_000)).result(10)
        assert done.wait(10)
        wait_until(lambda: len(a.objects) == 1, 5)


def test_a_callback_that_fails_is_an_event_and_the_next_one_runs(pair: tuple[Terminal, Terminal]) -> None:
    a, b = pair
    a.endpoint.request(b"x", to=B, type=PacketType.QUERY)
    b.endpoint._messages._callback = lambda *_: 1 / 0
    with pytest.raises(RequestTimeout):
        a.endpoint.request(b"x", to=B, type=PacketType.QUERY, timeout_s=0.1)
    wait_until(lambda: any(kind == "error" for kind, _ in b.events), 2)
    b.endpoint._messages._callback = b.on_message
    assert a.endpoint.request(b"y", to=B, type=PacketType.QUERY)[1] == b"re:y"


def test_noise_is_refused_with_its_reason_and_nothing_ends() -> None:
    rng = random.Random(4)
    with terminals() as (a, b):
        good = encode(Header(type=PacketType.PROBE), b"abc")
        for data in (b"", b"noise", good[:-1], good[:20] + b"!" + good[21:], good[:-1] + b"!", rng.randbytes(900)):
            Terminal.raw(data, (B, AI_PORT))
        wait_until(lambda: b.endpoint.counters.refused == 6, 5)
        known = {"short": 2, "length": 1, "header-checksum": 1, "payload-checksum": 1}
        assert known.items() <= b.endpoint.refusals.items()
        assert a.endpoint.request(b"alive?", to=B, type=PacketType.QUERY)[1] == b"re:alive?"


def test_a_flood_of_noise_is_counted_but_not_shouted() -> None:
    with terminals() as (_, b):
        for _ in range(300):
            Terminal.raw(b"noise", (B, AI_PORT))
        wait_until(lambda: b.endpoint.counters.refused == 300, 5)
        assert len(b.refusals()) < 100


def test_forged_but_well_formed_packets_harm_nobody() -> None:
    """Every type with every flag, about transfers that do not exist."""
    rng = random.Random(6)
    with terminals() as (a, b):
        for _ in range(400):
            kind = rng.choice(list(PacketType))
            header = Header(
                type=kind, flags=Flag(rng.randrange(32)), object_id=rng.getrandbits(64), shard_index=rng.randrange(4),
                shard_count=4, total_length=rng.choice([0, 3, 4000, 2**63]), digest=Digest(bytes(32)),
                error=rng.randrange(12), transfer_id=rng.getrandbits(4),
            )  # fmt: skip
            with contextlib.suppress(Exception):
                Terminal.raw(encode(header, b"abc"[: rng.randrange(4)]), (B, AI_PORT))
        assert a.endpoint.request(b"alive?", to=B, type=PacketType.QUERY)[1] == b"re:alive?"
        assert a.endpoint.send_object(model(50_000)).result(10).bytes == 50_000
        assert not any(kind == "error" for kind, _ in b.events)


def test_what_leaves_the_socket_is_one_packet_of_the_table_each() -> None:
    """Frames of at most 1500 bytes of IP, from the host's own address, the owner in every one."""
    seen: list[tuple[Header, int, str]] = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as rendezvous:
        rendezvous.bind((RELAY, AI_PORT))
        rendezvous.settimeout(5)
        a = Terminal(A)
        with a.endpoint:
            transfer = a.endpoint.send_object(model(10_000, to=RELAY))
            data, peer = rendezvous.recvfrom(65535)
            launch, payload = decode(data)
            seen.append((launch, len(data), peer[0]))
            rendezvous.sendto(encode(_ack(launch, 0)), peer)
            while len({header.shard_index for header, _, _ in seen[1:]}) < launch.shard_count:
                data, peer = rendezvous.recvfrom(65535)
                header, _ = decode(data)
                if not header.flags & Flag.LAUNCH:
                    seen.append((header, len(data), peer[0]))
            rendezvous.sendto(encode(_ack(launch, launch.shard_count, Flag.COMPLETE)), peer)
            transfer.result(5)
    assert launch.flags == Flag.LAUNCH
    assert launch.digest == Digest.of(model(10_000).payload)
    assert len(payload) == 0
    assert {(source, header.owner) for header, _, source in seen} == {(A, "10.1.1.9")}
    assert max(size for _, size, _ in seen) == 1472


def _ack(launch: Header, base: int, flags: Flag = Flag.REPLY) -> Header:
    from packets.wire import Acknowledgement

    ack = Acknowledgement(base=base, echo_us=launch.timestamp_us, window=1000)
    return Header(
        type=PacketType.ACK, flags=flags, object_id=launch.object_id, transfer_id=launch.transfer_id, ack=ack
    )  # fmt: skip


def test_a_path_that_carries_less_is_found_out_by_the_first_object_and_known_to_the_second(
    pair: tuple[Terminal, Terminal],
) -> None:
    a, b = pair
    relay = Relay(5, loss=0.0, largest=1400 - 28)
    try:
        first = a.endpoint.send_object(model(200_000, to=RELAY))
        assert first.result(15).bytes == 200_000
        dropped = relay.lost
        second = a.endpoint.send_object(msgspec.structs.replace(model(100_000, to=RELAY), visit=1))
        assert second.result(5).bytes == 100_000
        assert relay.lost == dropped
        assert a.endpoint.request(bytes(5_000), to=RELAY, type=PacketType.QUERY)[1] == b"re:" + bytes(5_000)
    finally:
        relay.close()
    assert [len(o.payload) for o in b.objects] == [200_000, 100_000]
    (warning,) = [data["text"] for kind, data in a.events if kind == "warning"]
    assert "no packet of 1500 bytes arrives" in warning and "packets of 1280" in warning


def test_what_does_not_fit_is_said_at_once(pair: tuple[Terminal, Terminal]) -> None:
    a, _ = pair
    with pytest.raises(TransportError, match="message of 50000 bytes: at most 44160 go in 40 parts"):
        a.endpoint.request(bytes(50_000), to=B, type=PacketType.QUERY)
    with pytest.raises(TransportError, match="not as QUERY"):
        a.endpoint.send_object(msgspec.structs.replace(model(1), type=PacketType.QUERY))
    with pytest.raises(TransportError, match="cannot bind"):
        Terminal(A)


def test_close_ends_transfers_and_threads() -> None:
    a = Terminal(A)
    a.endpoint.start()
    transfer = a.endpoint.send_object(model(1000, to="127.0.83.99"))
    started = time.monotonic()
    a.endpoint.close()
    with pytest.raises(TransportError, match="closed"):
        transfer.result(1)
    assert time.monotonic() - started < 1.5
    assert not a.endpoint._thread.is_alive()
    Terminal(A).endpoint.close()  # the address is free again
