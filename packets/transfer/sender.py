"""The sending side of one object: launch, then windowed selective repeat.  A state machine without socket and clock.

The transport asks ``take`` which shards to send now and tells ``sent`` which of them left; it hands in
acknowledgements and errors; ``wake_at`` says when something is due.  Loss is judged by time in the manner of RACK
(RFC 8985): a shard is lost when one sent sufficiently later has arrived.  Silence is answered by probes with growing
pauses, never by sending everything again.  What is known of shards lies in arrays, one place a shard: Python's work is
per batch and per acknowledgement, not per packet.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from packets.batch import ShardTrain
from packets.checksums import SEALED_BYTES
from packets.errors import TransferRefused, TransportError
from packets.transfer.assembly import Assembly
from packets.transfer.congestion import Congestion, Sent
from packets.transfer.guard import Session
from packets.transfer.pathmtu import BLACK_HOLE_S
from packets.transfers import OutgoingObject, Transfer, TransferStats
from packets.wire import FIXED_BYTES, IP_UDP_BYTES, NO_FLAGS, Acknowledgement, Digest, ErrorCode, Flag, Header

LAUNCH_PAUSES_S = (0.25, 0.5, 1.0, 2.0)
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
TRAIN_S = 0.006  # of the rate that leaves together: few wakes a second, and little of a bottleneck's queue (50 ms)
MAX_FLIGHT = 4096  # what a receiver's socket holds while its process waits for a core
MASK_32 = 0xFFFF_FFFF
NEVER = float("inf")
UNSENT, FLYING, LOST, HELD = range(4)

Indices = npt.NDArray[np.int64]
NOTHING: Indices = np.zeros(0, np.int64)


class Batch(NamedTuple):
    """Shards that left together."""

    number: int
    sent: Sent
    indices: Indices


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
        only: npt.NDArray[np.bool_] | None = None,
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
        self._template = template or self._first_header(Digest.of(self.payload))
        self.peer: str | None = None
        self.session: Session | None = None
        self.packets = self.retransmissions = self.losses = 0
        self._only = only
        self._congestion: Congestion | None = None
        self._started_at = self._answered_at = now
        self._state: npt.NDArray[np.uint8] = np.zeros(self.count, np.uint8)
        self._former: str | None = None
        self._relaunch(now)

    def _first_header(self, digest: Digest) -> Header:
        return msgspec.structs.replace(
            self.header, requirements=self.object.requirements, digest=digest, mandate=self.object.mandate
        )

    def _relaunch(self, now: float) -> None:
        """Go back to the launch: whoever answers it next may hold nothing."""
        self._former, self.peer, self.session = self.peer or self._former, None, None
        self._train: ShardTrain | None = None
        self._launched_at = self._launch_at = self._heard_at = now
        self._launch_stamps: list[int] = []
        self._base, self._limit = 0, self.count
        self._order = self._new_order()
        self._next = 0
        self._tail, self._tail_at, self._waits = self._order.size, 0.0, False
        self._state[:] = UNSENT
        self._batch_of: npt.NDArray[np.int32] = np.zeros(self.count, np.int32)
        self._number, self._flying, self._held = 0, 0, 0
        self._batches: deque[Batch] = deque()
        self._sent: dict[int, Sent] = {}
        self._lost: deque[int] = deque()
        self._probes: list[int] = []
        self._newest_at = 0.0
        self._tokens, self._tokens_at = 0.0, now
        self._relaunch_at = NEVER
        self._probe_at, self._probe_pause_s = NEVER, 0.0

    def _new_order(self) -> Indices:
        """What a former rendezvous held goes last, and backwards: it may come from there, to meet us half way."""
        had = self._state == HELD
        order: Indices = np.concatenate((np.flatnonzero(~had), np.flatnonzero(had)[::-1]))
        return order if self._only is None else order[self._only[order]]

    # --- launch ---------------------------------------------------------------------------------------------------

    @property
    def launching(self) -> bool:
        return self.peer is None

    def launch(self, now: float, now_us: int) -> Header | None:
        """Return the launch packet when one is due: everything about the object but its bytes."""
        if not self.launching or now < self._launch_at:
            return None
        self._launch_at = now + LAUNCH_PAUSES_S[min(len(self._launch_stamps), len(LAUNCH_PAUSES_S) - 1)]
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
        had = int(np.count_nonzero(self._state == HELD))
        self._relaunch(now)
        if former_lives and self._only is None:
            self._tail, self._tail_at = self._order.size - had, now + FORMER_PATIENCE_S
        return True

    def answered(self, header: Header) -> bool:
        """Tell whether an acknowledgement repeats the one that named the receiver."""
        return header.ack is not None and header.ack.echo_us in self._launch_stamps

    # --- shards ---------------------------------------------------------------------------------------------------

    def shard(self, index: int, now_us: int) -> tuple[Header, memoryview]:
        """Return header and bytes of one shard."""
        offset, flags = index * self.shard_bytes, self.header.flags
        flags |= Flag.LAST if index == self.count - 1 else NO_FLAGS
        flags |= Flag.REPEATED if self.repeated(index) else NO_FLAGS
        header = msgspec.structs.replace(
            self.header, flags=flags, shard_index=index, offset=offset, timestamp_us=now_us
        )
        return header, self.payload[offset : offset + self.shard_bytes]

    def write(self, into: bytearray, indices: Indices, now_us: int) -> int:
        """Write shards that ``take`` chose end to end into ``into``; return the position after them."""
        if self._train is None:
            self._train = self._new_train()
        again = self._batch_of[indices] > 0
        end = self._train.write(into, 0, indices[again], timestamp_us=now_us, high=self.count)
        return self._train.write(into, end, indices[~again], timestamp_us=now_us, high=0)

    @property
    def frame_bytes(self) -> int:
        """Bytes of every shard's packet but the last one's."""
        return self.shard_bytes + (FIXED_BYTES if self.session is None else SEALED_BYTES)

    def _new_train(self) -> ShardTrain:
        session = self.session
        if session is None:
            return ShardTrain(self.header, self.payload, self.shard_bytes)
        secret = self.header.flags & Flag.ENCRYPTED
        payload = session.cipher(0, self.payload) if secret else self.payload
        return ShardTrain(self.header, payload, self.shard_bytes, mac=session.send_key, key_id=session.key_id)

    def repeated(self, index: int) -> bool:
        """Tell whether a shard was sent before."""
        return bool(self._batch_of[index])

    def take(self, now: float) -> Indices:
        """Choose shards to send now, within window and pacing: first those sent before, the object's last one last.

        Each must then be told to ``sent`` or ``put_back``.
        """
        if self._congestion is None or self.launching or self._relaunch_at < NEVER:
            return NOTHING
        self._waits = now < self._tail_at
        self._judge_silence(now)
        rate = self._congestion.rate
        burst = min(max(rate * BURST_S, BATCH), MAX_BURST)
        self._tokens = min(self._tokens + (now - self._tokens_at) * rate, burst)
        self._tokens_at = now
        room = min(self._window - self._flying, int(self._tokens), MAX_BATCH)
        room = max(room, len(self._probes))
        return self._pick(room) if room > 0 else NOTHING

    @property
    def _window(self) -> int:
        assert self._congestion is not None
        return int(min(self._congestion.window, MAX_FLIGHT))

    def _pick(self, room: int) -> Indices:
        again: list[int] = []
        while len(again) < room and self._probes:
            again.append(self._probes.pop())
        while len(again) < room and self._lost:
            index = self._lost.popleft()
            if self._state[index] == LOST:
                again.append(index)
        if not again:
            return self._pick_fresh(room)
        first = np.unique(np.asarray(again, np.int64))
        if first[-1] == self.count - 1:
            return first
        return np.concatenate((first, self._pick_fresh(room - first.size)))

    def _last_one_last(self, chosen: Indices) -> Indices:
        """The object's last shard may be shorter than the others, which only the end of a train can be."""
        last = chosen == self.count - 1
        return np.concatenate((chosen[~last], chosen[last])) if last[:-1].any() else chosen

    def _pick_fresh(self, room: int) -> Indices:
        while room > 0 and self._next < self._end:
            some = self._order[self._next : min(self._next + room, self._end)]
            beyond = np.flatnonzero(some >= self._limit)
            if beyond.size:
                some = some[: beyond[0]]
            self._next += some.size
            some = some[self._state[some] == UNSENT]
            if some.size or beyond.size:
                return self._last_one_last(some)
        return NOTHING

    def sent(self, indices: Indices, now: float) -> None:
        """Note shards that left."""
        if not indices.size:
            return
        assert self._congestion is not None
        again = np.count_nonzero(self._batch_of[indices])
        record = self._congestion.sent(now, self._flying)
        self._number += 1
        self._flying += indices.size - int(np.count_nonzero(self._state[indices] == FLYING))
        self._state[indices] = FLYING
        self._batch_of[indices] = self._number
        self._batches.append(Batch(self._number, record, indices))
        self._sent[self._number] = record
        self.packets += indices.size
        self.retransmissions += int(again)
        self._tokens -= indices.size

    def put_back(self, indices: Indices) -> None:
        """Note shards that the kernel would not take now."""
        idle = indices[self._state[indices] != FLYING]
        self._state[idle] = LOST
        self._lost.extendleft(reversed(idle.tolist()))

    def _judge_silence(self, now: float) -> None:
        """After a silence, send the oldest shards again: their acknowledgement tells what else is missing."""
        if now >= self._probe_at:
            self._probes = self._oldest(PROBE_SHARDS) or ([] if self._unsent else [int(self._order[self._end - 1])])
            self._probe_pause_s = min(self._probe_pause_s * 2, MAX_PROBE_PAUSE_S)
            self._probe_at = now + self._probe_pause_s

    @property
    def _unsent(self) -> bool:
        return bool(self._lost) or self._next < self._end

    @property
    def _end(self) -> int:
        """How far in its order the sender may go now: not to what a former rendezvous is handing over."""
        return self._tail if self._waits else self._order.size

    def _oldest(self, wanted: int) -> list[int]:
        found: list[int] = []
        for batch in self._batches:
            found += self._still_flying(batch)[: wanted - len(found)].tolist()
            if len(found) >= wanted:
                break
        return found

    def _still_flying(self, batch: Batch) -> Indices:
        here = (self._batch_of[batch.indices] == batch.number) & (self._state[batch.indices] == FLYING)
        found: Indices = batch.indices[here]
        return found

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
        self._limit = max(self._limit, ack.base + ack.window)
        self._settle(ack, max(header.shard_index, ack.base), now, rtt_s if rtt_s < IDLE_TIMEOUT_S else None)

    def _answer(self, peer: str, now: float, rtt_s: float) -> None:
        self.peer, self._answered_at, self._tokens_at = peer, now, now
        self._limit = 0
        if self._congestion is None or self._former not in (None, peer):
            self._congestion = Congestion(now, rtt_s)
        self._tokens = float(BATCH)

    def _settle(self, ack: Acknowledgement, start: int, now: float, rtt_s: float | None) -> None:
        """Note what the receiver holds, and what it should hold by now but does not."""
        assert self._congestion is not None
        fresh = self._newly_held(ack, start)
        flown = fresh[self._state[fresh] == FLYING]
        if self._tail_at and fresh.size and bool((self._state[fresh] == UNSENT).any()):
            self._tail_at = now + FORMER_PATIENCE_S  # the former rendezvous is at it
        self._state[fresh] = HELD
        self._flying -= flown.size
        self._held += fresh.size
        self.handle.delivered_bytes = min(self._held * self.shard_bytes, len(self.payload))
        newest = self._sent.get(int(self._batch_of[flown].max())) if flown.size else None
        if newest is not None:
            self._congestion.acknowledged(newest, fresh.size, now, rtt_s, self._flying)
            self._newest_at = max(self._newest_at, newest.at)
        self._judge_losses()
        if self._only is not None and bool((self._state[self._order] == HELD).all()):
            self._finish(now)

    def _newly_held(self, ack: Acknowledgement, start: int) -> Indices:
        """Return the shards that an acknowledgement is the first to speak of; bit 0 stands for shard ``start``."""
        fresh = NOTHING
        if ack.base > self._base:
            fresh = self._base + np.flatnonzero(self._state[self._base : ack.base] != HELD)
            self._base = ack.base
        if not ack.bitmap or start >= self.count:
            return fresh
        bits = np.unpackbits(np.frombuffer(ack.bitmap, np.uint8), bitorder="little")[: self.count - start]
        bits &= self._state[start : start + bits.size] != HELD
        above = start + np.flatnonzero(bits)
        above = above[above >= self._base]
        return np.concatenate((fresh, above)) if fresh.size else above

    def _judge_losses(self) -> None:
        assert self._congestion is not None
        horizon = self._newest_at - self._congestion.reorder_s
        while self._batches and self._batches[0].sent.at < horizon:
            batch = self._batches.popleft()
            missing = self._still_flying(batch)
            del self._sent[batch.number]
            if missing.size:
                self._state[missing] = LOST
                self._flying -= missing.size
                self._lost.extend(missing.tolist())
                self.losses += missing.size
                self._congestion.lost(missing.size)

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
        size = len(self.payload) if self._only is None else int(self._order.size) * self.shard_bytes
        self.handle.finish(
            TransferStats(
                bytes=size,
                packets=self.packets,
                retransmissions=self.retransmissions,
                losses=self.losses,
                seconds=seconds,
                launch_seconds=self._answered_at - self._started_at,
                rtt_ms=self._congestion.min_rtt_s * 1e3,
                smoothed_rtt_ms=self._congestion.srtt_s * 1e3,
                goodput_mbps=size * 8 / seconds / 1e6,
                receiver=self.peer,
            )
        )

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
            self.handle.fail(TransportError(self._silence()))

    def _silence(self) -> str:
        if self._held or not self.packets:
            return f"{self.peer} fell silent during {self.name}: launch it again"
        size = self.frame_bytes + IP_UDP_BYTES
        return (
            f"{self.peer} answered the launch of {self.name}, and no shard of {size} bytes came through: "
            "look at the MTU of the ports on the way"
        )

    def in_black_hole(self, now: float) -> bool:
        """Tell whether launches are answered and full-sized shards vanish: none of those sent has arrived for long."""
        return (
            not self.launching and self._held == 0 and self.packets > 0 and self._only is None
            and now - self._heard_at > BLACK_HOLE_S and self._relaunch_at == NEVER
        )  # fmt: skip

    def narrower(self, transfer_id: int, shard_bytes: int, now: float) -> Sending:
        """Return the sending that takes this one's place, in smaller shards; whoever waits goes on waiting."""
        other = Sending(self.object, transfer_id, shard_bytes, now, template=None)
        other.handle, self.handle.transfer_id = self.handle, transfer_id
        other._started_at = self._started_at
        return other

    def gather_s(self, packets: int) -> float:
        """Return how long so many packets take to become due; at once while the rate is still being found out."""
        if self._congestion is None or not self._congestion.filled:
            return 0.0
        return packets / self._congestion.rate

    def wake_at(self, now: float) -> float:
        """Return when this transfer next wants the processor."""
        if self.launching or self._congestion is None:
            return min(self._launch_at, self._launched_at + LAUNCH_TIMEOUT_S)
        due = min(self._relaunch_at, self._probe_at, self._heard_at + IDLE_TIMEOUT_S)
        due = (
            min(due, self._heard_at + BLACK_HOLE_S) if self._held == 0 and now < self._heard_at + BLACK_HOLE_S else due
        )
        due = min(due, self._tail_at if self._waits else NEVER)
        room = self._window - self._flying
        if room > 0 and self._unsent:
            train = min(max(self._congestion.rate * TRAIN_S, BATCH), MAX_BATCH)
            waiting = min(room, train) - self._tokens
            due = min(due, now + max(waiting / self._congestion.rate, TICK_S))
        return due


def remainder(assembly: Assembly, to: str, transfer_id: int, now: float) -> Sending:
    """Return the sending, to an address, of what an unfinished assembly holds."""
    launch = assembly.launch
    obj = OutgoingObject(
        object_id=launch.object_id, type=launch.type, payload=assembly.data.data, owner=launch.owner,
        visit=launch.visit, visit_limit=launch.visit_limit, requirements=launch.requirements,
        traffic_class=launch.traffic_class, flags=(launch.flags | Flag.HANDOVER) & ~Flag.LAUNCH, to=to,
        mandate=launch.mandate,
    )  # fmt: skip
    template = msgspec.structs.replace(launch, authentication=None, key_share=None, sent_at_ms=None)
    return Sending(obj, transfer_id, assembly.stride, now, template=template, only=assembly.held)
