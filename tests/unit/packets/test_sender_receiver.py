"""Sender and receiver over a simulated path in simulated time: deterministic, no socket, no thread."""

from __future__ import annotations

import gc
import heapq
import itertools
import random
import weakref
from collections.abc import Callable

import msgspec
import numpy as np
import pytest

from packets.errors import TransferRefused, TransportError
from packets.transfer.assembly import Assembly, Feed, Rows
from packets.transfer.congestion import Congestion
from packets.transfer.receiver import Receiving
from packets.transfer.sender import IDLE_TIMEOUT_S, LAUNCH_TIMEOUT_S, Sending
from packets.transfer.udp import MASK_32
from packets.transfers import OutgoingObject, ReceivedObject
from packets.wire import Digest, ErrorCode, Flag, Header, PacketType, decode, encode

SHARD = 1408
FRAME_BITS = 1514 * 8
RECEIVER = ("10.3.1.1", 55831)
SENDER = ("10.1.1.1", 55831)


class Path:
    """A bottleneck with a drop-tail queue, a delay each way, and weather: loss, reordering, duplication."""

    def __init__(
        self, *, rate_mbps: float = 50, delay_ms: float = 10, queue: int = 1000, loss: float = 0.0,
        reorder: float = 0.0, duplicate: float = 0.0, seed: int = 1, max_object_bytes: int = 1 << 26,
        max_objects: int = 8,
    ) -> None:  # fmt: skip
        self.now = 100.0
        self.rng = random.Random(seed)
        self.rate, self.delay, self.queue = rate_mbps * 1e6, delay_ms / 1e3, queue
        self.loss, self.reorder, self.duplicate = loss, reorder, duplicate
        self.free_at = self.now
        self.objects: list[ReceivedObject] = []
        self.refusals: list[str] = []
        self.sendings: list[Sending] = []
        self.dropped = self.most_queued = 0
        self.tamper: Callable[[Header, bytes], tuple[Header, bytes]] = lambda header, payload: (header, payload)
        self.receiving = self.new_receiver(max_object_bytes, max_objects)
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._ticking: dict[int, float] = {}

    def new_receiver(self, max_object_bytes: int = 1 << 26, max_objects: int = 8) -> Receiving:
        return Receiving(
            send=lambda header, payload, _peer, _session, _first: self.back(encode(header, payload)),
            deliver=lambda received: self.objects.append(received) or True,
            refused=lambda reason, _header, _peer, _count: self.refusals.append(reason),
            max_object_bytes=max_object_bytes,
            max_total_bytes=1 << 27,
            max_objects=max_objects,
        )

    @property
    def now_us(self) -> int:
        return int(self.now * 1e6) & MASK_32

    def at(self, time: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._events, (time, next(self._order), action))

    def forth(self, header: Header, payload: bytes) -> None:
        """A packet enters the bottleneck."""
        queued = max(self.free_at - self.now, 0) * self.rate / FRAME_BITS
        self.most_queued = max(self.most_queued, int(queued))
        if queued > self.queue:
            self.dropped += 1
            return
        self.free_at = max(self.free_at, self.now) + FRAME_BITS / self.rate
        for _ in range(1 + (self.rng.random() < self.duplicate)):
            late = self.rng.uniform(0, 0.03) if self.rng.random() < self.reorder else 0.0
            if self.rng.random() >= self.loss:
                data = encode(*self.tamper(header, payload))
                self.at(self.free_at + self.delay + late, lambda data=data: self.arrive(data))
            else:
                self.dropped += 1

    def arrive(self, data: bytes) -> None:
        self.receiving.on_packet(*decode(data), SENDER, self.now, self.now_us)
        self.receiving.answer(self.now, self.now_us)
        due = self.receiving.wake_at()
        if due < float("inf"):
            self.at(due + 1e-6, lambda: self.receiving.answer(self.now, self.now_us))

    def back(self, data: bytes) -> None:
        if self.rng.random() >= self.loss:
            self.at(self.now + self.delay, lambda: self.heard(data))

    def heard(self, data: bytes) -> None:
        header, payload = decode(data)
        for sending in self.sendings:
            if sending.transfer_id == header.transfer_id:
                if header.type is PacketType.ACK:
                    sending.on_ack(header, RECEIVER[0], self.now, self.now_us)
                else:
                    sending.on_error(header, bytes(payload).decode(), self.now)
                self.tick(sending)

    def tick(self, sending: Sending) -> None:
        """What the transport's loop does for one transfer."""
        sending.check(self.now)
        if sending.handle.done:
            return
        launch = sending.launch(self.now, self.now_us)
        if launch is not None:
            self.forth(launch, b"")
        while (indices := sending.take(self.now)).size:
            for index in indices.tolist():
                header, payload = sending.shard(index, self.now_us)
                self.forth(header, bytes(payload))
            sending.sent(indices, self.now)
        due = max(sending.wake_at(self.now), self.now + 1e-4)
        if due < self._ticking.get(sending.transfer_id, float("inf")):
            self._ticking[sending.transfer_id] = due
            self.at(due, lambda: self._wake(sending))

    def _wake(self, sending: Sending) -> None:
        self._ticking.pop(sending.transfer_id, None)
        self.tick(sending)

    def launch(self, size: int, object_id: int = 0x100001) -> Sending:
        payload = random.Random(object_id).randbytes(size)
        outgoing = OutgoingObject(object_id=object_id, type=PacketType.MODEL_SHARD, payload=payload, owner=SENDER[0])
        sending = Sending(outgoing, object_id & MASK_32, SHARD, self.now)
        self.sendings.append(sending)
        self.at(self.now, lambda: self.tick(sending))
        return sending

    def run(self, seconds: float = 60.0) -> None:
        """Let time pass until every transfer is over, or for so many seconds."""
        end = self.now + seconds
        while self._events and not all(s.handle.done for s in self.sendings):
            self.now, _, action = heapq.heappop(self._events)
            if self.now > end:
                return
            action()


class Reno:
    """A TCP that fills buffers: a window that grows by one packet a round trip and halves on loss."""

    def __init__(self, path: Path) -> None:
        self.path, self.window, self.flying, self.delivered = path, 10.0, 0, 0
        self.slow_start, self.cut_at = True, 0.0
        path.at(path.now, self.send)

    def send(self) -> None:
        path = self.path
        while self.flying < int(self.window):
            self.flying += 1
            if (path.free_at - path.now) * path.rate / FRAME_BITS > path.queue:
                path.at(path.now + 2 * path.delay + path.queue * FRAME_BITS / path.rate, self.missed)
            else:
                path.free_at = max(path.free_at, path.now) + FRAME_BITS / path.rate
                path.at(path.free_at + 2 * path.delay, self.acked)

    def acked(self) -> None:
        self.flying -= 1
        self.delivered += 1
        self.window += 1.0 if self.slow_start else 1.0 / self.window
        self.send()

    def missed(self) -> None:
        self.flying -= 1
        if self.path.now - self.cut_at > 2 * self.path.delay + self.path.queue * FRAME_BITS / self.path.rate:
            self.window, self.slow_start, self.cut_at = max(self.window / 2, 2.0), False, self.path.now
        self.send()


@pytest.mark.parametrize("queue", [100, 500])
def test_neither_a_tcp_nor_we_starve_beside_each_other(queue: int) -> None:
    path = Path(queue=queue)
    tcp = Reno(path)
    sending = path.launch(1_000_000_000 // 20)
    path.run(4.0)  # both have found their pace
    theirs, ours = tcp.delivered, sending.packets - sending.retransmissions
    path.run(6.0)
    theirs, ours = tcp.delivered - theirs, sending.packets - sending.retransmissions - ours
    share = ours / (ours + theirs)
    assert 0.1 < share < 0.8
    assert (ours + theirs) * FRAME_BITS / 6 / 1e6 > 0.9 * 50


def test_a_long_path_is_filled() -> None:
    path = Path(delay_ms=50)
    sending = path.launch(20_000_000)
    path.run()
    assert sending.handle.result(0).goodput_mbps > 0.75 * 50


def test_a_clean_path_is_filled_and_nothing_sent_twice() -> None:
    path = Path()
    sending = path.launch(5_000_000)
    path.run()
    stats = sending.handle.result(0)
    assert path.objects[0].payload == sending.object.payload
    assert (stats.packets, stats.retransmissions, path.objects[0].duplicates) == (sending.count, 0, 0)
    assert stats.goodput_mbps > 0.85 * 50
    assert stats.rtt_ms == pytest.approx(20, abs=3)
    assert path.most_queued < 500  # does not fill the buffer it was given


@pytest.mark.parametrize("rate_mbps", [5, 100])
def test_other_rates_are_filled_too(rate_mbps: float) -> None:
    path = Path(rate_mbps=rate_mbps)
    sending = path.launch(3_000_000)
    path.run()
    assert sending.handle.result(0).goodput_mbps > 0.7 * rate_mbps


def test_random_loss_costs_little_more_than_the_lost_packets() -> None:
    path = Path(loss=0.03)
    sending = path.launch(3_000_000)
    path.run()
    stats = sending.handle.result(0)
    assert path.objects[0].payload == sending.object.payload
    assert stats.goodput_mbps > 0.6 * 50
    assert path.dropped / 2 < stats.retransmissions < 2.0 * path.dropped


def test_a_short_queue_does_not_make_it_collapse() -> None:
    path = Path(queue=12)
    sending = path.launch(4_000_000)
    path.run()
    stats = sending.handle.result(0)
    assert stats.goodput_mbps > 0.5 * 50
    assert stats.retransmissions < 0.25 * stats.packets


@pytest.mark.parametrize("seed", range(5))
def test_foul_weather_loses_nothing(seed: int) -> None:
    path = Path(loss=0.15, reorder=0.2, duplicate=0.1, queue=100, seed=seed)
    sendings = [path.launch(200_000, 0x100001 + i) for i in range(3)]
    path.run()
    assert all(sending.handle.result(0).bytes == 200_000 for sending in sendings)
    assert {bytes(o.payload) for o in path.objects} == {s.object.payload for s in sendings}
    assert len(path.objects) == 3  # each handed over once


def test_objects_that_share_a_path_share_it_fairly() -> None:
    path = Path()
    sendings = [path.launch(3_000_000, 0x100001 + i) for i in range(3)]
    path.run()
    seconds = [sending.handle.result(0).seconds for sending in sendings]
    assert max(seconds) < 1.6 * min(seconds)
    assert 9_000_000 * 8 / max(seconds) / 1e6 > 0.8 * 50


@pytest.mark.parametrize("size", [0, 1, SHARD, SHARD + 1])
def test_small_objects(size: int) -> None:
    path = Path()
    sending = path.launch(size)
    path.run()
    assert sending.handle.result(0).bytes == size
    assert len(path.objects[0].payload) == size


def test_an_object_that_does_not_match_its_digest_is_not_handed_over() -> None:
    path = Path()
    sending = path.launch(50_000)
    wrong = Digest(bytes(32))
    path.tamper = lambda header, payload: (msgspec.structs.replace(header, digest=header.digest and wrong), payload)
    path.run()
    with pytest.raises(TransferRefused, match="digest") as caught:
        sending.handle.result(0)
    assert caught.value.code == ErrorCode.DIGEST
    assert path.objects == []
    assert path.refusals == ["digest"]


def test_an_object_over_the_bound_is_refused_before_a_byte_is_stored() -> None:
    path = Path(max_object_bytes=1_000_000)
    sending = path.launch(1_000_001)
    path.run()
    with pytest.raises(TransferRefused, match=r"too large.*1000000"):
        sending.handle.result(0)
    assert sending.packets == 0
    assert path.refusals == ["too-large"]


def test_a_busy_receiver_is_asked_again() -> None:
    path = Path(max_objects=1)
    sendings = [path.launch(500_000, 0x100001 + i) for i in range(2)]
    path.run()
    assert [sending.handle.result(0).bytes for sending in sendings] == [500_000] * 2
    assert "busy" in path.refusals


def test_declared_shard_counts_cannot_exceed_the_bytes() -> None:
    path = Path()
    launch = Header(
        type=PacketType.MODEL_SHARD, flags=Flag.LAUNCH, shard_count=2**32 - 1, total_length=10, digest=Digest(bytes(32))
    )  # fmt: skip
    path.arrive(encode(launch))
    assert path.refusals == ["too-large"]
    assert not path.receiving.busy


def test_shards_of_another_shape_are_refused() -> None:
    path = Path()
    sending = path.launch(50_000)
    path.run(0.02)
    header, payload = sending.shard(1, 0)
    path.arrive(encode(msgspec.structs.replace(header, shard_count=99), payload))
    assert path.refusals == ["shard"]
    path.run()
    assert path.objects[0].payload == sending.object.payload


def test_no_rendezvous_is_a_clear_error_in_time() -> None:
    path = Path(loss=1.0)
    sending, start = path.launch(1000), path.now
    path.run()
    with pytest.raises(TransportError, match="no rendezvous answered"):
        sending.handle.result(0)
    assert path.now - start == pytest.approx(LAUNCH_TIMEOUT_S, abs=2.1)


def test_a_silent_rendezvous_is_a_clear_error_in_time() -> None:
    path = Path()
    sending = path.launch(5_000_000)
    path.run(0.3)
    path.loss, start = 1.0, path.now
    path.run()
    with pytest.raises(TransportError, match="fell silent"):
        sending.handle.result(0)
    assert path.now - start == pytest.approx(IDLE_TIMEOUT_S, abs=2.1)
    assert sending.packets < 2000  # it asked, it did not shout


def test_a_pause_of_seconds_is_survived() -> None:
    path = Path()
    sending = path.launch(2_000_000)
    path.run(0.15)
    path.loss = 1.0
    path.run(3.0)
    path.loss = 0.0
    path.run()
    assert sending.handle.result(0).bytes == 2_000_000


def test_a_rendezvous_that_knows_nothing_gets_the_object_from_the_start() -> None:
    path = Path()
    sending = path.launch(1_000_000)
    path.run(0.15)
    path.receiving = path.new_receiver()
    path.run()
    assert sending.handle.result(0).bytes == 1_000_000
    assert path.objects[0].payload == sending.object.payload


def test_a_lost_last_answer_is_given_again() -> None:
    path = Path()
    sending = path.launch(10_000)
    back, path.back = path.back, lambda data: None if decode(data)[0].flags & Flag.COMPLETE else back(data)  # type: ignore[method-assign]
    path.run(0.5)
    assert len(path.objects) == 1
    assert not sending.handle.done
    path.back = back  # type: ignore[method-assign]
    path.run()
    assert sending.handle.result(0).bytes == 10_000
    assert len(path.objects) == 1


def test_strangers_and_old_answers_change_nothing() -> None:
    path = Path()
    sending = path.launch(1_000_000)
    path.run(0.1)
    ack = Header(type=PacketType.ACK, flags=Flag.COMPLETE | Flag.REPLY, transfer_id=sending.transfer_id)
    sending.on_ack(ack, RECEIVER[0], path.now, path.now_us)  # says nothing of what it holds
    assert not sending.handle.done
    path.run()
    assert path.objects[0].payload == sending.object.payload


def test_cancel() -> None:
    path = Path()
    sending = path.launch(5_000_000)
    path.run(0.1)
    sending.handle.cancel()
    path.run()
    with pytest.raises(TransportError, match="cancelled"):
        sending.handle.result(0)
    with pytest.raises(TransportError, match="under way"):
        path.launch(1).handle.result(0)


def test_an_abandoned_object_is_forgotten() -> None:
    path = Path()
    path.launch(5_000_000)
    path.run(0.1)
    assert path.receiving.tidy(path.now + 29) == []
    assert len(path.receiving.tidy(path.now + 31)) == 1
    assert not path.receiving.busy


class Cubic:
    """The TCP of our benchmarks, as RFC 9438 has it: cubic growth with a Reno-friendly floor, one cut an overflow."""

    def __init__(self, path: Path) -> None:
        self.path, self.window, self.flying, self.delivered = path, 10.0, 0, 0
        self.slow_start, self.peak, self.reno, self.cut_at, self.plateau_s = True, 0.0, 0.0, 0.0, 0.0
        self.sent, self.recover = 0, -1
        self.shortest_s = 9.0
        path.at(path.now, self.send)

    def send(self) -> None:
        path = self.path
        while self.flying < int(self.window):
            self.flying, self.sent = self.flying + 1, self.sent + 1
            number, begun = self.sent, path.now
            if (path.free_at - path.now) * path.rate / FRAME_BITS > path.queue:
                late = 2 * path.delay + path.queue * FRAME_BITS / path.rate
                path.at(path.now + late, lambda number=number: self.missed(number))  # type: ignore[misc]
            else:
                path.free_at = max(path.free_at, path.now) + FRAME_BITS / path.rate
                back = path.free_at + 2 * path.delay
                path.at(back, lambda number=number, begun=begun: self.acked(number, begun))  # type: ignore[misc]

    def acked(self, number: int, begun: float) -> None:
        self.flying, self.delivered = self.flying - 1, self.delivered + 1
        rtt_s = self.path.now - begun
        self.shortest_s = min(self.shortest_s, rtt_s)
        if self.slow_start:
            self.window += 1.0
            if rtt_s > 1.125 * self.shortest_s + 0.004:  # HyStart
                self.slow_start, self.peak, self.cut_at, self.reno = False, self.window, self.path.now, self.window
        elif number > self.recover:
            self.reno += 0.53 / self.window
            target = 0.4 * (self.path.now - self.cut_at + rtt_s - self.plateau_s) ** 3 + self.peak
            self.window += max(min((max(target, self.reno) - self.window) / self.window, 0.5), 0.01 / self.window)
        self.send()

    def missed(self, number: int) -> None:
        self.flying -= 1
        if number > self.recover:
            self.recover, self.slow_start, self.cut_at = self.sent, False, self.path.now
            self.peak, self.window = self.window, max(0.7 * self.window, 2.0)
            self.reno, self.plateau_s = self.window, ((self.peak - self.window) / 0.4) ** (1 / 3)
        self.send()


def jain(ours: float, theirs: float) -> float:
    return (ours + theirs) ** 2 / (2 * (ours * ours + theirs * theirs))


def test_beside_a_cubic_flow_each_gets_about_half() -> None:
    """The benchmark's bottleneck (50 Mbit/s, 20 ms, drop-tail)."""
    path = Path(queue=206)
    tcp = Cubic(path)
    sending = path.launch(60_000_000)
    path.run(8.0)
    assert jain(sending.handle.delivered_bytes, tcp.delivered * 1448) > 0.9
    total = (sending.handle.delivered_bytes + tcp.delivered * 1448) * 8 / 8 / 1e6
    assert total > 0.85 * 50


def test_one_percent_loss_leaves_nearly_the_whole_link() -> None:
    path = Path(rate_mbps=100, queue=412, loss=0.01)
    sending = path.launch(20_000_000)
    path.run()
    stats = sending.handle.result(0)
    assert stats.goodput_mbps > 0.8 * 100  # of which the start is a twentieth here
    assert 0 < stats.losses <= stats.retransmissions


def test_a_probe_for_whose_queue_it_is_ends_with_the_first_short_round_trip() -> None:
    control, now, flight = Congestion(0.0, 0.002), 0.0, 40

    def step(rtt_s: float) -> None:
        nonlocal now
        record, now = control.sent(now, flight), now + rtt_s
        control.acknowledged(record, flight, now, rtt_s, flight)

    while not control.probing and now < 5.0:
        step(0.02 if control.filled else 0.002)
    assert control.probing, "a queue that stands is looked into"
    step(0.02)
    assert control.probing, "the queue is still there"
    step(0.003)
    assert not control.probing and control.min_rtt_s == 0.002


def test_stretches_further_apart_than_a_bitmap_are_acknowledged_together() -> None:
    """A sender that has sent an object's end goes on at another place; both may lie in one answer."""
    count, came = 40_000, [*range(100, 110), *range(20_000, 20_003), *range(39_990, 40_000)]
    launch = Header(
        type=PacketType.MODEL_SHARD, flags=Flag.LAUNCH, object_id=1, shard_count=count, total_length=4 * count
    )
    feed = Feed(Assembly(launch, 0.0), launch, RECEIVER, 0.0)
    for index in came:
        shard = msgspec.structs.replace(launch, flags=Flag(0), shard_index=index, offset=4 * index, length=4)
        assert feed.add(Rows.single(shard, memoryview(b"abcd")), 0.0, 0) == 1
    told = set()
    for ack, start in feed.answers(0):
        bits = np.unpackbits(np.frombuffer(ack.bitmap, np.uint8), bitorder="little")
        told |= set((start + np.flatnonzero(bits)).tolist())
    assert told == set(came)
    assert len(feed.answers(0)) == 1


def test_what_is_forgotten_is_gone_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """No circle of references, which Python would look for only much later."""
    monkeypatch.setattr("packets.transfer.receiver.REMEMBERED", 1)
    path = Path()
    gc.disable()
    try:
        made: list[weakref.ref[Assembly]] = []
        for number in range(3):
            path.launch(50_000, object_id=0x100001 + number)
            path.at(path.now + 0.05, lambda: made.extend(map(weakref.ref, path.receiving._assemblies.values())))
            path.run()
        assert len(path.objects) == 3 and len(made) >= 3
        path.objects.clear()
        path.sendings.clear()
        assert [ref() is None for ref in made[:2]] == [True, True]
    finally:
        gc.enable()
