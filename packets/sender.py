"""The sending side of one object: launch, then windowed selective repeat.  A state machine without socket and clock.

The transport asks ``take`` which shards to send now and tells ``sent`` which of them left; it hands in
acknowledgements and errors; ``wake_at`` says when something is due.  Loss is judged by time in the manner of RACK
(RFC 8985): a shard is lost when one sent sufficiently later has arrived.  Silence is answered by probes with growing
pauses, never by sending everything again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from packets.congestion import Congestion, Sent
from packets.errors import TransferRefused, TransportError
from packets.transfers import OutgoingObject, Transfer, TransferStats
from packets.wire import Acknowledgement, Digest, ErrorCode, Flag, Header

LAUNCH_PAUSES_S = (0.25, 0.5, 1.0, 2.0)
LAUNCH_TIMEOUT_S = 20.0
IDLE_TIMEOUT_S = 15.0
PROBE_SHARDS = 2
MAX_PROBE_PAUSE_S = 2.0
BATCH = 8
MAX_BATCH = 40
BURST_S = 0.012
TICK_S = 0.001
MASK_32 = 0xFFFF_FFFF
NEVER = float("inf")


class Sending:
    """State of one outgoing object; times in seconds on any monotonic clock, timestamps in us modulo 2**32."""

    def __init__(self, obj: OutgoingObject, transfer_id: int, shard_bytes: int, now: float) -> None:
        self.object = obj
        self.payload = memoryview(obj.payload)
        self.transfer_id = transfer_id
        self.destination = obj.destination
        self.shard_bytes = shard_bytes
        self.count = max(1, -(-len(self.payload) // shard_bytes))
        self.name = f"object {obj.object_id:#x} (visit {obj.visit}) to {self.destination}"
        self.handle = Transfer(self.name, transfer_id)
        self.digest = Digest.of(self.payload)
        self.peer: str | None = None
        self.packets = self.retransmissions = 0
        self._congestion: Congestion | None = None
        self._started_at = self._answered_at = now
        self._high = 0
        self._relaunch(now)

    def _relaunch(self, now: float) -> None:
        """Go back to the launch: whoever answers it next may hold nothing."""
        self.peer = None
        self._launched_at = self._launch_at = self._heard_at = now
        self._launch_stamps: list[int] = []
        self._base, self._held = 0, 0
        self._limit, self._next = self.count, 0
        self._lost: deque[int] = deque()
        self._probes: list[int] = []
        self._flight: dict[int, Sent] = {}
        self._newest_at = 0.0
        self._tokens, self._tokens_at = 0.0, now
        self._probe_at, self._probe_pause_s = NEVER, 0.0

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
        obj = self.object
        return Header(
            type=obj.type, flags=obj.flags | Flag.LAUNCH, traffic_class=obj.traffic_class, object_id=obj.object_id,
            owner=obj.owner, transfer_id=self.transfer_id, shard_count=self.count, total_length=len(self.payload),
            visit=obj.visit, visit_limit=obj.visit_limit, timestamp_us=now_us, requirements=obj.requirements,
            digest=self.digest,
        )  # fmt: skip

    # --- shards ---------------------------------------------------------------------------------------------------

    def shard(self, index: int, now_us: int) -> tuple[Header, memoryview]:
        """Return header and bytes of one shard."""
        obj, offset = self.object, index * self.shard_bytes
        flags = obj.flags
        if index == self.count - 1:
            flags |= Flag.LAST
        if index < self._high:
            flags |= Flag.REPEATED
        header = Header(
            type=obj.type, flags=flags, traffic_class=obj.traffic_class, object_id=obj.object_id, owner=obj.owner,
            transfer_id=self.transfer_id, shard_index=index, shard_count=self.count, offset=offset,
            total_length=len(self.payload), visit=obj.visit, visit_limit=obj.visit_limit, timestamp_us=now_us,
        )  # fmt: skip
        return header, self.payload[offset : offset + self.shard_bytes]

    def take(self, now: float) -> list[int]:
        """Choose shards to send now, within window and pacing; each must then be told to ``sent`` or ``put_back``."""
        if self._congestion is None or self.launching:
            return []
        self._judge_silence(now)
        rate = self._congestion.rate
        burst = min(max(rate * BURST_S, BATCH), 4 * MAX_BATCH)
        self._tokens = min(self._tokens + (now - self._tokens_at) * rate, burst)
        self._tokens_at = now
        room = min(int(self._congestion.window) - len(self._flight), int(self._tokens), MAX_BATCH)
        room = max(room, len(self._probes))
        return list(self._pick(room)) if room > 0 else []

    def _pick(self, room: int) -> Iterator[int]:
        while room > 0 and self._probes:
            room -= 1
            yield self._probes.pop()
        while room > 0 and self._lost:
            index = self._lost.popleft()
            if not self._holds(index) and index not in self._flight:
                room -= 1
                yield index
        while room > 0 and self._next < min(self.count, self._limit):
            self._next += 1
            room -= 1
            yield self._next - 1

    def _holds(self, index: int) -> bool:
        return index < self._base or bool(self._held >> (index - self._base) & 1)

    def sent(self, indices: list[int], now: float) -> None:
        """Note shards that left."""
        assert self._congestion is not None
        for index in indices:
            again = index < self._high
            self._flight.pop(index, None)
            self._flight[index] = self._congestion.sent(now, len(self._flight), repeated=again)
            self.packets += 1
            self.retransmissions += again
            self._high = max(self._high, index + 1)
        self._tokens -= len(indices)

    def put_back(self, indices: list[int]) -> None:
        """Note shards that the kernel would not take now."""
        self._lost.extendleft(reversed(indices))

    def _judge_silence(self, now: float) -> None:
        """After a silence, send the oldest shards again: their acknowledgement tells what else is missing."""
        if now >= self._probe_at:
            unsent = self._lost or self._next < self.count
            self._probes = list(self._flight)[:PROBE_SHARDS] or ([] if unsent else [self.count - 1])
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
            if ack.echo_us not in self._launch_stamps:
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
        self._settle(ack, now, rtt_s if rtt_s < IDLE_TIMEOUT_S else None)

    def _answer(self, peer: str, now: float, rtt_s: float) -> None:
        self.peer, self._answered_at, self._tokens_at = peer, now, now
        self._limit = 0
        if self._congestion is None:
            self._congestion = Congestion(now, rtt_s)
        self._tokens = float(BATCH)

    def _settle(self, ack: Acknowledgement, now: float, rtt_s: float | None) -> None:
        """Note what the receiver holds, and what it should hold by now but does not."""
        bits = int.from_bytes(ack.bitmap, "little") & ((1 << (self.count - ack.base)) - 1)
        shift = ack.base - self._base
        bits = (bits << shift) | ((1 << shift) - 1) if shift >= 0 else bits >> -shift
        fresh = bits & ~self._held
        count, newest = fresh.bit_count(), None
        for index in _set_bits(fresh, self._base):
            record = self._flight.pop(index, None)
            if record is not None and (newest is None or record.at >= newest.at):
                newest = record
        self._held |= bits
        run = (~self._held & (self._held + 1)).bit_length() - 1
        self._base += run
        self._held >>= run
        if newest is not None:
            assert self._congestion is not None
            self._congestion.acknowledged(newest, count, now, rtt_s, len(self._flight))
            self._newest_at = max(self._newest_at, newest.at)
        self._judge_losses()

    def _judge_losses(self) -> None:
        assert self._congestion is not None
        horizon = self._newest_at - self._congestion.reorder_s
        missing: list[int] = []
        for index, record in self._flight.items():
            if record.at >= horizon:
                break
            missing.append(index)
        for index in missing:
            del self._flight[index]
        self._lost.extend(missing)
        self._congestion.lost(len(missing))

    def on_error(self, header: Header, text: str, now: float) -> None:
        """Take an ERROR packet: start over where that helps, else give up."""
        if header.error == ErrorCode.UNKNOWN_TRANSFER:
            if not self.launching:
                self._relaunch(now)
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
        self.handle.finish(
            TransferStats(
                bytes=len(self.payload),
                packets=self.packets,
                retransmissions=self.retransmissions,
                seconds=seconds,
                launch_seconds=self._answered_at - self._started_at,
                rtt_ms=self._congestion.min_rtt_s * 1e3,
                goodput_mbps=len(self.payload) * 8 / seconds / 1e6,
                receiver=self.peer,
            )
        )

    # --- time -----------------------------------------------------------------------------------------------------

    def check(self, now: float) -> None:
        """Fail the transfer when it waited too long or was cancelled."""
        if self.handle.cancelled:
            self.handle.fail(TransportError(f"{self.name} was cancelled"))
        elif self.launching and now - self._launched_at > LAUNCH_TIMEOUT_S:
            tries = len(self._launch_stamps)
            self.handle.fail(
                TransportError(f"no rendezvous answered {tries} launches of {self.name}: ask the DCC why it found none")
            )
        elif not self.launching and now - self._heard_at > IDLE_TIMEOUT_S:
            self.handle.fail(TransportError(f"{self.peer} fell silent during {self.name}: launch it again"))

    def wake_at(self, now: float) -> float:
        """Return when this transfer next wants the processor."""
        if self.launching or self._congestion is None:
            return min(self._launch_at, self._launched_at + LAUNCH_TIMEOUT_S)
        due = min(self._probe_at, self._heard_at + IDLE_TIMEOUT_S)
        room = int(self._congestion.window) - len(self._flight)
        if room > 0 and (self._lost or self._next < min(self.count, self._limit)):
            waiting = min(room, BATCH) - self._tokens
            due = min(due, now + max(waiting / self._congestion.rate, TICK_S))
        return due


def _set_bits(bits: int, base: int) -> Iterator[int]:
    while bits:
        low = bits & -bits
        yield base + low.bit_length() - 1
        bits ^= low
