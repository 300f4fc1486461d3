"""Several sources for one object, hand-over, relaunch on demand; batches from the socket to the assembly."""

from __future__ import annotations

import random
import socket
import time
from typing import Any

import msgspec
import numpy as np
import pytest

from packets.batch import ShardTrain
from packets.transfer.assembly import Assembly, Feed, Rows
from packets.transfer.congestion import Congestion
from packets.transfer.flight import HELD
from packets.transfer.inbox import FEW, STRANGERS_PER_S, Inbox
from packets.transfer.outgoing import remainder
from packets.transfer.receiver import STRANGERS_PER_S as ANSWERS_PER_S
from packets.transfer.receiver import Receiving
from packets.transfer.sender import WORD_S, Sending
from packets.transfer.udp import Arrivals, UdpSocket, peer_number, peer_of
from packets.transfers import OutgoingObject, ReceivedObject
from packets.wire import Digest, ErrorCode, Flag, Header, PacketType, decode, encode

SHARD = 100
HOLDER, FORMER, HERE = ("10.1.1.1", 55831), ("10.1.1.2", 55831), "10.2.1.1"


class Exchange:
    """Senders and receivers joined by a perfect wire, in steps."""

    def __init__(self) -> None:
        self.now = 50.0
        self.objects: list[ReceivedObject] = []
        self.sent: list[tuple[Header, bytes, tuple[str, int]]] = []
        self.refusals: list[str] = []

    def receiving(self) -> Receiving:
        return Receiving(
            send=lambda header, payload, peer, _session, _first: self.sent.append((header, payload, peer)),
            deliver=lambda received: self.objects.append(received) or True,
            refused=lambda reason, _header, _peer, count: self.refusals.extend([reason] * count),
            max_object_bytes=1 << 20,
            max_total_bytes=1 << 21,
            max_objects=4,
        )

    def launch(self, sending: Sending, to: Receiving, peer: tuple[str, int]) -> None:
        header = sending.launch(self.now, self._us())
        assert header is not None
        to.on_launch(decode(encode(header))[0], peer, self.now, self._us())
        self.answer(sending, to, peer)

    def answer(self, sending: Sending, to: Receiving, peer: tuple[str, int], receiver: str = HERE) -> None:
        self.now += 0.005
        to.answer(self.now, self._us())
        for header, payload, where in self.sent:
            if where == peer and header.transfer_id == sending.transfer_id:
                if header.type is PacketType.ERROR:
                    sending.on_error(header, payload.decode(), self.now)
                else:
                    sending.on_ack(decode(encode(header))[0], receiver, self.now, self._us())
        self.sent.clear()

    def step(self, sending: Sending, to: Receiving, peer: tuple[str, int]) -> list[int]:
        """Let a sender send once; return the shards."""
        self.now += 0.005
        indices: list[int] = sending.take(self.now).tolist()
        for index in indices:
            header, payload = sending.shard(index, self._us())
            raw = encode(header, payload)
            to.on_packet(*decode(raw), peer, self.now, self._us())
        sending.sent(np.asarray(indices, np.int64), self.now)
        self.answer(sending, to, peer)
        return indices

    def _us(self) -> int:
        return int(self.now * 1e6) & 0xFFFF_FFFF


def outgoing(shards: int, **more: Any) -> OutgoingObject:
    payload = random.Random(shards).randbytes(shards * SHARD - 7)
    return OutgoingObject(object_id=0x100001, type=PacketType.MODEL_SHARD, payload=payload, owner=HOLDER[0], **more)


def half_way(wire: Exchange, shards: int = 400) -> tuple[Sending, Receiving]:
    """A transfer whose first receiver holds about half."""
    sending, former = Sending(outgoing(shards), 7, SHARD, wire.now), wire.receiving()
    wire.launch(sending, former, HOLDER)
    while sending.handle.delivered_bytes < shards * SHARD / 2:
        wire.step(sending, former, HOLDER)
    return sending, former


def test_a_relaunch_sends_what_the_former_rendezvous_held_last_and_backwards() -> None:
    wire = Exchange()
    sending, _ = half_way(wire)
    had = np.flatnonzero(sending._flight.state == HELD)
    assert sending.relaunch(wire.now)
    assert sending.relaunch(wire.now), "it is being launched already, at whoever answers: nothing is amiss"
    new = wire.receiving()
    wire.launch(sending, new, HOLDER)
    order: list[int] = []
    while not sending.handle.done:
        order += wire.step(sending, new, HOLDER)
    assert sorted(order) == list(range(400))
    order.remove(399)  # the object's last shard, shorter, ends a train wherever it stands
    assert order[-len(had) :] == had[::-1].tolist()
    assert wire.objects[0].payload == sending.object.payload


def test_holder_and_former_rendezvous_fill_one_assembly_and_no_byte_comes_twice() -> None:
    wire = Exchange()
    sending, former = half_way(wire)
    assembly = former.withdraw(0x100001, 0)
    assert assembly is not None
    held = int(np.count_nonzero(assembly.held))
    rest = remainder(assembly, HERE, 8, wire.now)
    assert rest.object.flags & Flag.HANDOVER
    assert rest.destination == HERE
    sending.relaunch(wire.now)
    new = wire.receiving()
    wire.launch(rest, new, FORMER)
    wire.launch(sending, new, HOLDER)
    ours: list[int] = []
    theirs: list[int] = []
    while not sending.handle.done:
        theirs += wire.step(rest, new, FORMER)
        ours += wire.step(sending, new, HOLDER)
    assert len(wire.objects) == 1
    assert wire.objects[0].payload == sending.object.payload
    assert wire.objects[0].sender == HOLDER[0]  # who passes on is not who sends
    assert set(theirs) <= set(np.flatnonzero(assembly.held).tolist())
    assert len(theirs) > held / 3
    assert wire.objects[0].duplicates < 60  # at most what was on its way when they met
    wire.step(rest, new, FORMER)
    assert rest.handle.done


def test_what_a_live_former_rendezvous_hands_over_is_never_sent_by_the_holder() -> None:
    wire = Exchange()
    sending, former = half_way(wire)
    assembly = former.withdraw(0x100001, 0)
    assert assembly is not None
    held = set(np.flatnonzero(assembly.held).tolist())
    rest = remainder(assembly, HERE, 8, wire.now)
    sending.relaunch(wire.now, former_lives=True)
    new = wire.receiving()
    wire.launch(rest, new, FORMER)
    wire.launch(sending, new, HOLDER)
    ours: list[int] = []
    while not sending.handle.done:
        for _ in range(4):
            ours += wire.step(sending, new, HOLDER)
        wire.step(rest, new, FORMER)  # much slower than its former sender
    assert wire.objects[0].payload == sending.object.payload
    assert not held.intersection(ours)


def test_a_former_rendezvous_that_falls_silent_is_not_waited_for_long() -> None:
    wire = Exchange()
    sending, _ = half_way(wire)
    sending.relaunch(wire.now, former_lives=True)
    began, new = wire.now, wire.receiving()
    wire.launch(sending, new, HOLDER)
    while not sending.handle.done:
        wire.step(sending, new, HOLDER)
        assert sending.wake_at(wire.now) < wire.now + 1.1, "it would sleep for ever"
    assert wire.objects[0].payload == sending.object.payload
    assert 0.9 < wire.now - began < 3.0


def test_a_hand_over_that_comes_after_the_end_is_told_that_all_is_there() -> None:
    wire = Exchange()
    sending, former = half_way(wire)
    assembly = former.withdraw(0x100001, 0)
    assert assembly is not None
    sending.relaunch(wire.now)
    new = wire.receiving()
    wire.launch(sending, new, HOLDER)
    while not sending.handle.done:
        wire.step(sending, new, HOLDER)
    rest = remainder(assembly, HERE, 8, wire.now)
    wire.launch(rest, new, FORMER)
    assert rest.handle.done
    assert rest.packets == 0
    assert len(wire.objects) == 1


def test_a_withdrawn_object_is_forgotten_and_its_sender_told_to_launch_again() -> None:
    wire = Exchange()
    sending, former = half_way(wire)
    assert former.withdraw(0x100001, 1) is None  # another visit
    assert former.withdraw(0x100001, 0) is not None
    assert not former.busy
    wire.step(sending, former, HOLDER)
    assert not sending.launching and not sending.take(wire.now).size, "the word to launch again may be on its way"
    sending.check(wire.now + WORD_S)
    assert sending.launching


def test_the_word_to_launch_again_finds_what_the_former_rendezvous_held() -> None:
    wire = Exchange()
    sending, former = half_way(wire)
    former.withdraw(0x100001, 0)
    wire.step(sending, former, HOLDER)
    assert sending.relaunch(wire.now, former_lives=True), "a rendezvous that knows nothing was heard of first"
    assert sending._flight.tail < sending._flight.order.size, "what the former one holds comes from there"


def test_a_word_to_launch_again_that_comes_late_finds_it_done() -> None:
    """Else the control centre takes the holder for one that has lost the object, and a kept model goes out twice."""
    wire = Exchange()
    sending, former = half_way(wire)
    former.withdraw(0x100001, 0)
    wire.step(sending, former, HOLDER)
    sending.check(wire.now + WORD_S)
    assert sending.launching
    assert sending.relaunch(wire.now + 2 * WORD_S, former_lives=True)
    sending.handle.cancel()
    sending.check(wire.now + 3 * WORD_S)
    assert sending.handle.done and not sending.relaunch(wire.now + 3 * WORD_S), "what is over is not launched again"


def test_a_late_front_does_not_hold_up_shards_far_beyond_the_bitmap() -> None:
    """Base stays at 0 while 20,000 shards from the other end arrive: acknowledgements speak of where they are."""
    wire = Exchange()
    payload = bytes(20_000)
    obj = OutgoingObject(object_id=1, type=PacketType.DATA_SHARD, payload=payload, owner=HOLDER[0])
    sending, receiving = Sending(obj, 9, 1, wire.now), wire.receiving()
    wire.launch(sending, receiving, HOLDER)
    sending._flight.order = sending._flight.order[::-1].copy()
    steps = 0
    while not sending.handle.done and (steps := steps + 1) < 5000:
        wire.step(sending, receiving, HOLDER)
    assert sending.handle.done
    assert sending.retransmissions == 0


# --- bounds and nonsense ----------------------------------------------------------------------------------------------


def assembly_of(payload: bytes, shard_bytes: int, **changes: Any) -> tuple[Assembly, Feed]:
    count = max(1, -(-len(payload) // shard_bytes))
    launch = Header(
        type=PacketType.MODEL_SHARD, flags=Flag.LAUNCH, shard_count=count, total_length=len(payload),
        digest=Digest.of(payload),
    )  # fmt: skip
    assembly = Assembly(msgspec.structs.replace(launch, **changes), 0.0)
    return assembly, Feed(assembly, launch, HOLDER, 0.0)


def rows_of(payload: bytes, shard_bytes: int, indices: list[int], **changes: int) -> Rows:
    """A block of frames as ``recvmmsg`` leaves it, 64 bytes of header in front of each payload."""
    count = max(1, -(-len(payload) // shard_bytes))
    template = Header(type=PacketType.MODEL_SHARD)
    train = ShardTrain(template, payload, shard_bytes)
    frames = np.zeros((len(indices), 64 + shard_bytes + 5), np.uint8)
    lengths = []
    for row, index in enumerate(indices):
        buffer = bytearray(train.stride)
        end = train.write(buffer, 0, [index], timestamp_us=1, high=0)
        frames[row, :end] = np.frombuffer(buffer, np.uint8)[:end]
        lengths.append(end - 64)
    n, shard = len(indices), np.asarray(indices, np.int64)
    full = {"offset": shard * shard_bytes, "length": np.array(lengths), "shards": np.full(n, count)}
    full["total"] = np.full(n, len(payload))
    full |= {key: np.full(n, value) for key, value in changes.items()}
    return Rows(frames, np.arange(n), np.full(n, 64), shard, timestamp_us=1, **full)


@pytest.mark.parametrize("seed", range(6))
def test_any_order_with_repeats_in_any_batches_gives_the_object(seed: int) -> None:
    rng = random.Random(seed)
    payload = rng.randbytes(rng.choice([1, 99, 100, 101, 5_000, 300_123]))
    assembly, feed = assembly_of(payload, 100)
    indices = list(range(assembly.count)) * 2
    rng.shuffle(indices)
    if seed % 2:
        indices = [*range(assembly.count), *indices]
    while indices:
        batch, indices = indices[:50], indices[50:]
        assert feed.add(rows_of(payload, 100, batch), 1.0, 1) == len(batch)
    assert assembly.whole
    assert assembly.matches()
    assert assembly.received(1.0).payload == payload
    assert assembly.duplicates == assembly.packets - assembly.count


@pytest.mark.parametrize("wrong", [{"offset": 1}, {"length": 99}, {"shards": 12}, {"total": 1001}, {"offset": -100}])
def test_no_shard_can_write_where_it_does_not_belong(wrong: dict[str, int]) -> None:
    payload = random.Random(1).randbytes(1000)
    assembly, feed = assembly_of(payload, 100)
    feed.add(rows_of(payload, 100, [0]), 1.0, 1)
    assert feed.add(rows_of(payload, 100, [3, 5], **wrong), 1.0, 1) == 0
    feed.add(rows_of(payload, 100, list(range(10))), 1.0, 1)
    assert assembly.matches()


def test_acknowledgements_of_a_digested_front_cannot_be_undone() -> None:
    """What was digested was what is delivered: a second copy of a shard, altered, is a duplicate."""
    payload = random.Random(1).randbytes(600_000)
    assembly, feed = assembly_of(payload, 1000)
    feed.add(rows_of(payload, 1000, list(range(400))), 1.0, 1)
    feed.add(rows_of(bytes(600_000), 1000, list(range(100))), 1.0, 1)
    feed.add(rows_of(payload, 1000, list(range(400, 600))), 1.0, 1)
    assert assembly.matches()
    assert assembly.received(1.0).payload == payload


def test_strangers_are_answered_but_not_at_any_rate() -> None:
    wire = Exchange()
    receiving = wire.receiving()
    for number in range(1000):
        shard = Header(type=PacketType.MODEL_SHARD, transfer_id=number, shard_count=1)
        receiving.on_packet(*decode(encode(shard)), HOLDER, wire.now, 1)
    assert len(wire.sent) == ANSWERS_PER_S
    assert {header.error for header, _, _ in wire.sent} == {ErrorCode.UNKNOWN_TRANSFER}


# --- the socket's side ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batches", [True, False])
def test_a_batch_from_the_socket_is_the_same_with_and_without_recvmmsg(batches: bool) -> None:
    sock = UdpSocket("127.0.85.1", 0, batches=batches)
    sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sender.bind(("127.0.85.2", 0))
    arrivals, texts = Arrivals(8), [b"", b"a", b"b" * 1536, b"c" * 700]
    for text in texts:
        sender.sendto(text, sock.address)
    assert sock.batches is batches
    assert sock.receive(arrivals) == 4
    assert [bytes(arrivals.frame(row)) for row in range(4)] == texts
    assert {arrivals.peer(row) for row in range(4)} == {sender.getsockname()}
    assert sock.receive(arrivals) == 0
    sender.close()
    sock.close()


def test_a_socket_without_recvmmsg_goes_on_without() -> None:
    sock = UdpSocket("127.0.85.1", 0)
    refused: list[int] = []

    def refuse(*_: object) -> int:
        import ctypes
        import errno

        refused.append(1)
        ctypes.set_errno(errno.ENOSYS)
        return -1

    sock._receive_many = refuse
    sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sender.sendto(b"hello", sock.address)
    assert sock.receive(Arrivals(4)) == 1
    assert sock.receive(Arrivals(4)) == 0
    assert not sock.batches
    assert len(refused) == 1
    sender.close()
    sock.close()


def test_sources_are_numbers_and_back() -> None:
    for peer in (("10.1.2.3", 55831), ("255.255.255.255", 65535), ("0.0.0.0", 1)):
        assert peer_of(peer_number(peer)) == peer


class Listener:
    """Takes what an inbox sorts."""

    def __init__(self, feed: Feed | None) -> None:
        self.known, self.shards, self.ones, self.ignored = feed, 0, 0, 0
        self.refused: dict[str, int] = {}

    def feed(self, _peer: object, transfer_id: int) -> Feed | None:
        return self.known if transfer_id == 7 else None

    def expects(self, transfer_id: int) -> bool:
        return transfer_id == 9

    def take_shards(self, rows: Rows, _raw: memoryview, _peer: object) -> None:
        self.shards += len(rows.shard)

    def take_one(self, _raw: memoryview, _peer: object, _service: int) -> None:
        self.ones += 1

    def ignore(self, _peer: object, count: int) -> None:
        self.ignored += count

    def refuse(self, reason: str, _peer: object, count: int) -> None:
        self.refused[reason] = self.refused.get(reason, 0) + count


def arrived(frames: list[bytes]) -> Arrivals:
    arrivals = Arrivals(len(frames))
    for row, frame in enumerate(frames):
        arrivals.frames[row, : len(frame)] = np.frombuffer(frame, np.uint8)
        arrivals.sizes[row], arrivals.peers[row] = len(frame), peer_number(HOLDER)
    return arrivals


def test_a_flood_does_not_reach_python_packet_by_packet() -> None:
    """Shards of the known transfer all pass, awaited packets too; of strangers' packets only so many a second."""
    payload = bytes(50_000)
    _, feed = assembly_of(payload, SHARD)
    listener, now = Listener(feed), 10.0
    inbox = Inbox(listener)
    shards = [encode(Header(type=PacketType.MODEL_SHARD, transfer_id=7, shard_count=3, total_length=9))] * 20
    awaited = [encode(Header(type=PacketType.TELEMETRY, transfer_id=9))] * 5
    noise = [b"noise" * 20] * 40
    strangers = [encode(Header(type=PacketType.PROBE, transfer_id=99), bytes(20))] * 60
    rounds = 100
    for _ in range(rounds):
        inbox.sort(arrived(shards + noise + awaited + strangers), 125, now)
    assert listener.shards == 20 * rounds
    assert listener.ones == 5 * rounds + STRANGERS_PER_S
    assert sum(listener.refused.values()) == 40 * rounds + 60 * rounds - STRANGERS_PER_S
    assert listener.refused["throttled"] == 60 * rounds - STRANGERS_PER_S


def test_a_few_datagrams_are_taken_one_by_one() -> None:
    listener = Listener(None)
    Inbox(listener).sort(arrived([b"x"] * FEW), FEW, 1.0)
    assert listener.ones == FEW


def test_ten_thousand_bad_packets_cost_less_than_a_tenth_of_a_second() -> None:
    """Measured on this thread's processor time; noise, altered shards, shards of unknown transfers."""
    listener = Listener(None)
    inbox = Inbox(listener)
    good = encode(Header(type=PacketType.MODEL_SHARD, transfer_id=99, shard_count=3, total_length=9000), bytes(1400))
    altered = good[:70] + b"!" + good[71:]
    block = arrived([good, altered, b"noise" * 200, good[:-5]] * 32)
    inbox.sort(block, 128, 1.0)  # warm
    begun = time.thread_time()
    for number in range(78):
        inbox.sort(block, 128, 1.0 + number / 78)
    assert time.thread_time() - begun < 0.1 * 3  # three times what it should be, on a busy machine


def test_a_queue_that_stays_when_we_hold_back_is_somebody_elses() -> None:
    """The same long round trips: alone they vanish when less is sent, beside another they do not."""
    for theirs in (False, True):
        control, now = Congestion(0.0, 0.01), 0.0
        held_back = False
        for _ in range(6000):
            now += 0.001
            before = max(control.delivered - 40, 0)
            record = msgspec.structs.replace(control.sent(now - 0.03, 50), delivered=before, delivered_at=now - 0.03)
            held_back = held_back or bool(control._probe_rtt_until)
            rtt_s = 0.05 if theirs or not control._probe_rtt_until else 0.01
            control.acknowledged(record, 4, now, rtt_s, 10)
        assert held_back
        assert control._crowded is theirs
