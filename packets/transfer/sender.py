"""The sending side of one object: launch, then windowed selective repeat.  A state machine without socket and clock.

The transport asks ``take`` which shards to send now and tells ``sent`` which of them left; it hands in
acknowledgements and errors; ``wake_at`` says when something is due.  Silence is answered by probes with growing pauses,
never by sending everything again.  What is known of shards is kept in ``flight.py``.
"""

from __future__ import annotations

import msgspec

from packets.batch import ShardTrain
from packets.errors import TransferRefused, TransportError
from packets.security.blocks import digest_of
from packets.transfer.congestion import INITIAL_WINDOW, Congestion
from packets.transfer.flight import HELD, NOTHING, Flight, Indices, Truths
from packets.transfer.guard import Session
from packets.transfer.pathmtu import BLACK_HOLE_S, silence
from packets.transfer.udp import MASK_32
from packets.transfers import OutgoingObject, Transfer, TransferStats
from packets.wire import FIXED_BYTES, IP_UDP_BYTES, NO_FLAGS, Acknowledgement, ErrorCode, Flag, Header

LAUNCH_PAUSES_S = (0.25, 0.5, 1.0, 2.0)
AGAIN_PAUSES_S = (0.012, 0.025, 0.05, 0.1, *LAUNCH_PAUSES_S)  # a switch's cache may lead the first astray
LAUNCH_TIMEOUT_S = 20.0
IDLE_TIMEOUT_S = 15.0
FORMER_PATIENCE_S = 1.0
WORD_S = 0.05  # how long a rendezvous that knows nothing may be ahead of the word to launch again
PROBE_SHARDS = 2
MAX_PROBE_PAUSE_S = 2.0
BATCH = 8
MAX_BATCH = 88
MAX_BURST = 1500
BURST_S = 0.02  # a process that waited for a core that long has lost nothing
TICK_S = 0.001
TRAIN_S = 0.004  # of the rate that leaves together: few wakes a second, and little of a bottleneck's queue (50 ms)
MAX_FLIGHT = 4096  # what a receiver's socket holds while its process waits for a core
NEVER = float("inf")


class Sending:
    """State of one outgoing object; times in seconds on any monotonic clock, timestamps in us modulo 2**32.

    ``only``: the shards (bool, one a shard) that are here, when somebody else has the rest; ``template``: the launch
    that they came with.
    """

    def __init__(
        self,
        obj: OutgoingObject,
        transfer_id: int,
        shard_bytes: int,
        now: float,
        *,
        template: Header | None = None,
        only: Truths | None = None,
    ) -> None:
        self.object = obj
        self.payload = memoryview(obj.payload)
        self.transfer_id = transfer_id
        self.destination = obj.destination
        self.shard_bytes = shard_bytes
        self.count = max(1, -(-len(self.payload) // shard_bytes))
        self.name = f"object {obj.object_id:#x} (visit {obj.visit}) to {self.destination}"
        self.handle = Transfer(self.name, transfer_id)
        self.header = Header(
            type=obj.type, flags=obj.flags, traffic_class=obj.traffic_class, object_id=obj.object_id, owner=obj.owner,
            transfer_id=transfer_id, shard_count=self.count, total_length=len(self.payload), visit=obj.visit,
            visit_limit=obj.visit_limit,
        )  # fmt: skip
        self._template = template or self._first_header()
        self.peer: str | None = None
        self.session: Session | None = None
        self.packets = self.retransmissions = self.losses = 0
        self._only = only
        self._congestion: Congestion | None = None
        self._started_at = self._answered_at = now
        self._flight = Flight(self.count, only)
        self._former: str | None = None
        self._relaunch(now)

    def _first_header(self) -> Header:
        digest, blocks = digest_of(self.payload, in_blocks=not self.secret)
        return msgspec.structs.replace(
            self.header, requirements=self.object.requirements, digest=digest, blocks=blocks,
            mandate=self.object.mandate, offset=self.shard_bytes,
        )  # fmt: skip

    @property
    def secret(self) -> bool:
        """Whether the object travels encrypted: its launch tells nothing of its parts then."""
        return bool(self.header.flags & Flag.ENCRYPTED)

    def _relaunch(self, now: float) -> None:
        """Go back to the launch: whoever answers it next may hold nothing."""
        self._former, self.peer, self.session = self.peer or self._former, None, None
        self._train: ShardTrain | None = None
        self._strict = self.secret
        self._launched_at = self._launch_at = self._heard_at = now
        self._launch_stamps: list[int] = []
        had = self._flight.state == HELD
        self._flight = Flight(self.count, self._only, had if had.any() else None)
        self._tail_at = 0.0
        self._tokens, self._tokens_at = 0.0, now
        self._relaunch_at = NEVER
        self._probe_at, self._probe_pause_s = NEVER, 0.0

    # --- launch ---------------------------------------------------------------------------------------------------

    @property
    def launching(self) -> bool:
        return self.peer is None

    def launch(self, now: float, now_us: int) -> Header | None:
        """Return the launch packet when one is due: everything about the object but its bytes."""
        if not self.launching or now < self._launch_at:
            return None
        soon = self._former or self.object.flags & Flag.HANDOVER  # it may come before what it is to be part of
        pauses_s = AGAIN_PAUSES_S if soon else LAUNCH_PAUSES_S
        self._launch_at = now + pauses_s[min(len(self._launch_stamps), len(pauses_s) - 1)]
        self._launch_stamps.append(now_us)
        return msgspec.structs.replace(
            self._template, flags=self.object.flags | Flag.LAUNCH, transfer_id=self.transfer_id, timestamp_us=now_us
        )

    def answers_launch(self, header: Header) -> bool:
        """Tell whether an acknowledgement answers one of our launches, so that its sender becomes the receiver."""
        return self.launching and header.ack is not None and header.ack.echo_us in self._launch_stamps

    def relaunch(self, now: float, *, former_lives: bool = False) -> bool:
        """Launch again, at whoever answers now, unless that is being done already; False when it is over.

        ``former_lives``: what the former rendezvous holds comes from there; it is sent from here only when that stops.
        """
        if self.launching or self.handle.done:
            return not self.handle.done
        had = self._flight.held
        self._relaunch(now)
        if former_lives and self._only is None:
            self._flight.tail -= had
            self._tail_at = now + FORMER_PATIENCE_S
        return True

    def answered(self, header: Header) -> bool:
        """Tell whether an acknowledgement repeats the one that named the receiver."""
        return header.ack is not None and header.ack.echo_us in self._launch_stamps

    # --- shards ---------------------------------------------------------------------------------------------------

    def shard(self, index: int, now_us: int) -> tuple[Header, memoryview]:
        """Return header and bytes of one shard."""
        offset, flags = index * self.shard_bytes, self.header.flags
        flags |= Flag.LAST if index == self.count - 1 else NO_FLAGS
        flags |= Flag.REPEATED if self._flight.batch_of[index] else NO_FLAGS
        header = msgspec.structs.replace(
            self.header, flags=flags, shard_index=index, offset=offset, timestamp_us=now_us
        )
        return header, self.payload[offset : offset + self.shard_bytes]

    def write(self, into: bytearray, indices: Indices, now_us: int) -> int:
        """Write shards that ``take`` chose end to end into ``into``; return the position after them."""
        if self._train is None:
            self._train = self._new_train()
        again = self._flight.batch_of[indices] > 0
        end = self._train.write(into, 0, indices[again], timestamp_us=now_us, high=self.count)
        return self._train.write(into, end, indices[~again], timestamp_us=now_us, high=0)

    @property
    def frame_bytes(self) -> int:
        """Bytes of every shard's packet but the last one's."""
        return self.shard_bytes + FIXED_BYTES

    def _new_train(self) -> ShardTrain:
        session = self.session
        if session is None:
            return ShardTrain(self.header, self.payload, self.shard_bytes)
        payload = session.cipher(0, self.payload) if self.secret else self.payload
        seal = {"mac": session.send_key} if self._strict else {"words": session.words}
        return ShardTrain(self.header, payload, self.shard_bytes, **seal)

    def take(self, now: float) -> Indices:
        """Choose shards to send now, within window and pacing: first those sent before, the object's last one last.

        Each must then be told to ``sent`` or ``put_back``.
        """
        if self._congestion is None or self.launching or self._relaunch_at < NEVER:
            return NOTHING
        self._flight.waits = now < self._tail_at
        self._judge_silence(now)
        rate = self._congestion.rate
        burst = min(max(rate * BURST_S, BATCH), MAX_BURST)
        self._tokens = min(self._tokens + (now - self._tokens_at) * rate, burst)
        self._tokens_at = now
        room = min(self._window - self._flight.flying, int(self._tokens), MAX_BATCH)
        room = max(room, len(self._flight.probes))
        return self._flight.pick(room) if room > 0 else NOTHING

    @property
    def _window(self) -> int:
        assert self._congestion is not None
        return int(min(self._congestion.window, MAX_FLIGHT))

    def sent(self, indices: Indices, now: float) -> None:
        """Note shards that left."""
        if not indices.size:
            return
        assert self._congestion is not None
        self.retransmissions += self._flight.sent(indices, self._congestion.sent(now, self._flight.flying))
        self.packets += indices.size
        self._tokens -= indices.size

    def put_back(self, indices: Indices) -> None:
        """Note shards that the kernel would not take now."""
        self._flight.put_back(indices)

    def _judge_silence(self, now: float) -> None:
        """After a silence, send the oldest shards again."""
        if now >= self._probe_at:
            self._flight.probe(PROBE_SHARDS)
            self._probe_pause_s = min(self._probe_pause_s * 2, MAX_PROBE_PAUSE_S)
            self._probe_at = now + self._probe_pause_s

    # --- what comes back ------------------------------------------------------------------------------------------

    def on_ack(self, header: Header, peer: str, now: float, now_us: int) -> None:
        """Take an acknowledgement; those of somebody else, or older than the current launch, change nothing."""
        ack = header.ack
        if ack is None or ack.base > self.count:
            return
        rtt_s = ((now_us - ack.echo_us - ack.delay_us) & MASK_32) / 1e6
        if self.launching:
            if not self.answers_launch(header):
                return
            self._answer(peer, now, rtt_s)
        elif peer != self.peer:
            return
        self._heard_at = now
        if header.flags & Flag.COMPLETE:
            self._finish(now)
            return
        assert self._congestion is not None
        self._probe_pause_s = self._congestion.timeout_s
        self._probe_at = now + self._probe_pause_s
        self._flight.limit = max(self._flight.limit, ack.base + ack.window)
        start = max(header.shard_index, ack.base)
        if header.flags & Flag.AGAIN:  # somebody tampers: a MAC in each shard from now on
            self._train, self._strict = self._train if self._strict else None, True
            self._flight.again(ack, start)
        self._settle(ack, start, now, rtt_s if rtt_s < IDLE_TIMEOUT_S else None)

    def _answer(self, peer: str, now: float, rtt_s: float) -> None:
        self.peer, self._answered_at, self._tokens_at = peer, now, now
        self._flight.limit = 0
        if self._congestion is None or self._former not in (None, peer):
            self._congestion = Congestion(now, rtt_s)
        self._tokens = INITIAL_WINDOW

    def _settle(self, ack: Acknowledgement, start: int, now: float, rtt_s: float | None) -> None:
        """Note what the receiver holds, and what it should hold by now but does not."""
        assert self._congestion is not None
        settled = self._flight.settle(ack, start)
        if self._tail_at and settled.from_elsewhere:
            self._tail_at = now + FORMER_PATIENCE_S  # the former rendezvous is at it
        self.handle.delivered_bytes = min(self._flight.held * self.shard_bytes, len(self.payload))
        if settled.newest is not None:
            self._congestion.acknowledged(settled.newest, settled.fresh, now, rtt_s, self._flight.flying)
        for lost in self._flight.losses(self._congestion.reorder_s):
            self.losses += lost
            self._congestion.lost(lost)
        if self._only is not None and self._flight.arrived:
            self._finish(now)

    def on_error(self, header: Header, text: str, now: float) -> None:
        """Take an ERROR packet: start over where that helps, else give up."""
        if header.error == ErrorCode.UNKNOWN_TRANSFER:
            if not self.launching:  # it was led elsewhere; whoever did so says in a moment what became of the rest
                self._relaunch_at = min(self._relaunch_at, now + WORD_S)
        elif header.error == ErrorCode.BUSY:
            self._heard_at = now
        else:
            code = header.error or 0
            known = {int(one): one.name.lower().replace("_", " ") for one in ErrorCode}
            what = known.get(code, f"error {code}")
            self.handle.fail(TransferRefused(code, f"{self.name} was refused ({what}): {text}"))

    def _finish(self, now: float) -> None:
        seconds = max(now - self._answered_at, 1e-6)
        assert self._congestion is not None and self.peer is not None
        size = len(self.payload) if self._only is None else int(self._flight.order.size) * self.shard_bytes
        self.handle.finish(
            TransferStats(
                bytes=size, packets=self.packets, retransmissions=self.retransmissions, losses=self.losses,
                seconds=seconds, launch_seconds=self._answered_at - self._started_at,
                rtt_ms=self._congestion.min_rtt_s * 1e3, smoothed_rtt_ms=self._congestion.srtt_s * 1e3,
                goodput_mbps=size * 8 / seconds / 1e6, receiver=self.peer,
            )
        )  # fmt: skip

    # --- time -----------------------------------------------------------------------------------------------------

    def check(self, now: float) -> None:
        """Fail the transfer when it waited too long or was cancelled."""
        if now >= self._relaunch_at:
            self._relaunch(now)
        if self.handle.cancelled:
            self.handle.fail(TransportError(f"{self.name} was cancelled"))
        elif self.launching and now - self._launched_at > LAUNCH_TIMEOUT_S:
            tries = len(self._launch_stamps)
            self.handle.fail(
                TransportError(f"no rendezvous answered {tries} launches of {self.name}: ask the DCC why it found none")
            )
        elif not self.launching and now - self._heard_at > IDLE_TIMEOUT_S:
            vanished = self.packets and not self._flight.held
            size = self.frame_bytes + IP_UDP_BYTES if vanished else 0
            self.handle.fail(TransportError(silence(self.name, str(self.peer), size)))

    def in_black_hole(self, now: float) -> bool:
        """Tell whether launches are answered and full-sized shards vanish: none of those sent has arrived for long."""
        return (
            not self.launching and self._flight.held == 0 and self.packets > 0 and self._only is None
            and now - self._heard_at > BLACK_HOLE_S and self._relaunch_at == NEVER
        )  # fmt: skip

    def narrower(self, transfer_id: int, shard_bytes: int, now: float) -> Sending:
        """Return the sending that takes this one's place, in smaller shards; whoever waits goes on waiting."""
        other = Sending(self.object, transfer_id, shard_bytes, now)
        other.handle, self.handle.transfer_id = self.handle, transfer_id
        other._started_at = self._started_at
        return other

    def gather_s(self, packets: int) -> float:
        """Return how long so many packets take to become due; at once while rate or round trip are being found out."""
        if self.launching or self._congestion is None or not self._congestion.filled or self._congestion.probing:
            return 0.0
        return packets / self._congestion.rate

    def wake_at(self, now: float) -> float:
        """Return when this transfer next wants the processor."""
        if self.launching or self._congestion is None:
            return min(self._launch_at, self._launched_at + LAUNCH_TIMEOUT_S)
        due = min(self._relaunch_at, self._probe_at, self._heard_at + IDLE_TIMEOUT_S)
        hole_at = self._heard_at + BLACK_HOLE_S
        due = min(due, hole_at) if now < hole_at and not self._flight.held else due
        due = min(due, self._tail_at if self._flight.waits else NEVER)
        room = self._window - self._flight.flying
        if room > 0 and self._flight.unsent:
            train = min(max(self._congestion.rate * TRAIN_S, BATCH), MAX_BATCH)
            waiting = min(room, train) - self._tokens
            due = min(due, now + max(waiting / self._congestion.rate, TICK_S))
        return due
