"""The receiving side: objects being put together, within declared bounds.  No socket, no clock of its own.

Every packet of a transfer is answered by what the receiver holds, in batches; an object is handed over only whole and
with the digest that its launch announced.  A transfer that is over keeps being answered: a lost last answer costs
nothing.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from packets.options import MAX_BITMAP_BYTES
from packets.transfers import ReceivedObject
from packets.wire import NO_FLAGS, Acknowledgement, Digest, ErrorCode, Flag, Header, PacketType

WINDOW_SHARDS = MAX_BITMAP_BYTES * 8
ACK_EVERY = 8
ACK_DELAY_S = 0.004
ABANDON_S = 30.0
REMEMBERED = 512
MASK_32 = 0xFFFF_FFFF

Peer = tuple[str, int]
Key = tuple[str, int, int]


class Assembly:
    """One object being received: bytes so far, shards held, and the answer owed to its sender."""

    def __init__(self, launch: Header, peer: Peer, now: float) -> None:
        self.launch = launch
        self.peer = peer
        self.data = bytearray(launch.total_length)
        self.started_at = self.heard_at = now
        self.packets = self.duplicates = 0
        self.base, self.held = 0, 0
        self.owed, self.owed_since, self.urgent = 0, now, False
        self._echo_us = self._echo_at_us = 0

    @property
    def whole(self) -> bool:
        return self.base == self.launch.shard_count

    def note(self, header: Header, now: float, now_us: int) -> None:
        """Note that a packet came, so that an answer is owed."""
        if self.owed == 0:
            self.owed_since = now
            self._echo_us, self._echo_at_us = header.timestamp_us, now_us
        self.owed += 1
        self.heard_at = now

    def add(self, header: Header, payload: memoryview) -> None:
        """Take a shard of this object that is not held yet; anything else counts as a duplicate."""
        self.packets += 1
        position = header.shard_index - self.base
        if position < 0 or self.held >> position & 1:
            self.duplicates += 1
            self.urgent = True
            return
        self.data[header.offset : header.offset + header.length] = payload
        self.held |= 1 << position
        if position == 0:
            run = (~self.held & (self.held + 1)).bit_length() - 1
            self.base += run
            self.held >>= run
        if self.held or header.flags & Flag.LAST:
            self.urgent = True

    def fits(self, header: Header) -> bool:
        """Tell whether a shard belongs to the object that was launched, and lies in the window."""
        launch = self.launch
        return (
            header.shard_count == launch.shard_count
            and header.total_length == launch.total_length
            and header.object_id == launch.object_id
            and header.shard_index < self.base + WINDOW_SHARDS
        )

    def answer_due(self, now: float) -> bool:
        return self.owed >= ACK_EVERY or (self.owed > 0 and (self.urgent or now - self.owed_since >= ACK_DELAY_S))

    def answer(self, now_us: int, flags: Flag = NO_FLAGS) -> Header:
        """Return the acknowledgement of everything held so far."""
        bitmap = self.held.to_bytes((self.held.bit_length() + 7) // 8, "little")
        ack = Acknowledgement(
            base=self.base,
            echo_us=self._echo_us,
            delay_us=(now_us - self._echo_at_us) & MASK_32,
            window=WINDOW_SHARDS,
            bitmap=bitmap,
        )
        self.owed, self.urgent = 0, False
        return answer_to(self.launch, PacketType.ACK, flags, now_us, ack=ack)

    def received(self, now: float) -> ReceivedObject:
        """Return the whole object."""
        launch = self.launch
        return ReceivedObject(
            object_id=launch.object_id,
            type=launch.type,
            payload=bytes(self.data),
            owner=launch.owner,
            visit=launch.visit,
            visit_limit=launch.visit_limit,
            requirements=launch.requirements,
            sender=self.peer[0],
            transfer_id=launch.transfer_id,
            seconds=now - self.started_at,
            packets=self.packets,
            duplicates=self.duplicates,
        )


class Receiving:
    """All objects being received by one endpoint, and the memory of those that are over."""

    def __init__(
        self,
        *,
        send: Callable[[Header, bytes, Peer], None],
        deliver: Callable[[ReceivedObject], bool],
        refused: Callable[[str, Header, Peer], None],
        max_object_bytes: int,
        max_total_bytes: int,
        max_objects: int,
        waiting_bytes: Callable[[], int] = lambda: 0,
    ) -> None:
        self.duplicates = 0
        self._send, self._deliver, self._refused = send, deliver, refused
        self._waiting_bytes = waiting_bytes
        self._max_object_bytes, self._max_total_bytes = max_object_bytes, max_total_bytes
        self._max_objects = max_objects
        self._open: dict[Key, Assembly] = {}
        self._over: OrderedDict[Key, tuple[Assembly, ErrorCode | None]] = OrderedDict()
        self._touched: dict[Key, Assembly] = {}

    @property
    def busy(self) -> bool:
        """Whether objects are on their way in."""
        return bool(self._open)

    def on_packet(self, header: Header, payload: memoryview, peer: Peer, now: float, now_us: int) -> None:
        """Take a launch or a shard."""
        key = (*peer, header.transfer_id)
        over = self._over.get(key)
        if over is not None:
            self._answer_again(over, header, peer, now, now_us)
            return
        assembly = self._open.get(key)
        if header.flags & Flag.LAUNCH:
            assembly = assembly or self._admit(key, header, peer, now, now_us)
            if assembly is not None:
                assembly.note(header, now, now_us)
                assembly.urgent = True
                self._touched[key] = assembly
        elif assembly is None:
            self._error(ErrorCode.UNKNOWN_TRANSFER, "launch it again", header, peer, now_us)
        elif assembly.fits(header):
            assembly.note(header, now, now_us)
            assembly.add(header, payload)
            self._touched[key] = assembly
        else:
            self._refused("shard", header, peer)
            return
        if assembly is not None and assembly.whole:
            self._complete(key, assembly, now, now_us)

    def answer(self, now: float, now_us: int) -> None:
        """Send the acknowledgements that are due."""
        for key, assembly in list(self._touched.items()):
            if assembly.answer_due(now):
                self._send(assembly.answer(now_us), b"", assembly.peer)
                del self._touched[key]

    def wake_at(self) -> float:
        """Return when an acknowledgement will be due without a further packet."""
        return min((a.owed_since + ACK_DELAY_S for a in self._touched.values()), default=float("inf"))

    def tidy(self, now: float) -> list[Assembly]:
        """Forget objects whose sender went silent, and return them."""
        gone = [key for key, assembly in self._open.items() if now - assembly.heard_at > ABANDON_S]
        for key in gone:
            self._touched.pop(key, None)
        return [self._open.pop(key) for key in gone]

    def _admit(self, key: Key, header: Header, peer: Peer, now: float, now_us: int) -> Assembly | None:
        size = header.total_length
        if size > self._max_object_bytes or header.shard_count > max(size, 1):
            text = f"{size} bytes in {header.shard_count} shards, at most {self._max_object_bytes} are taken"
            self._error(ErrorCode.TOO_LARGE, text, header, peer, now_us)
            self._refused("too-large", header, peer)
            return None
        total = sum(len(a.data) for a in self._open.values()) + self._waiting_bytes() + size
        if len(self._open) >= self._max_objects or total > self._max_total_bytes:
            self._error(ErrorCode.BUSY, f"{len(self._open)} objects are on their way in", header, peer, now_us)
            self._refused("busy", header, peer)
            return None
        self._open[key] = assembly = Assembly(header, peer, now)
        if size == 0:
            assembly.base = header.shard_count
        return assembly

    def _complete(self, key: Key, assembly: Assembly, now: float, now_us: int) -> None:
        """Check the whole, hand it over, and remember the outcome."""
        digest = assembly.launch.digest
        right = digest is not None and Digest.of(assembly.data, digest.algorithm) == digest
        if right and not self._deliver(assembly.received(now)):
            assembly.urgent = True
            return
        del self._open[key]
        self._touched.pop(key, None)
        self.duplicates += assembly.duplicates
        outcome = None if right else ErrorCode.DIGEST
        if outcome:
            self._refused("digest", assembly.launch, assembly.peer)
        assembly.data = bytearray()
        self._over[key] = (assembly, outcome)
        while len(self._over) > REMEMBERED:
            self._over.popitem(last=False)
        self._tell(assembly, outcome, now_us)

    def _answer_again(
        self, over: tuple[Assembly, ErrorCode | None], header: Header, peer: Peer, now: float, now_us: int
    ) -> None:
        assembly, outcome = over
        self.duplicates += 1
        assembly.note(header, now, now_us)
        self._tell(assembly, outcome, now_us)

    def _tell(self, assembly: Assembly, outcome: ErrorCode | None, now_us: int) -> None:
        if outcome is None:
            self._send(assembly.answer(now_us, Flag.COMPLETE), b"", assembly.peer)
        else:
            self._error(outcome, "the object does not match its digest", assembly.launch, assembly.peer, now_us)

    def _error(self, code: ErrorCode, text: str, header: Header, peer: Peer, now_us: int) -> None:
        self._send(answer_to(header, PacketType.ERROR, NO_FLAGS, now_us, error=code), text.encode(), peer)


def answer_to(
    header: Header,
    kind: PacketType,
    flags: Flag,
    now_us: int,
    *,
    ack: Acknowledgement | None = None,
    error: int | None = None,
) -> Header:
    """Return the header of an answer: it names object, transfer and visit of what it answers."""
    return Header(
        type=kind, flags=flags | Flag.REPLY, traffic_class=header.traffic_class, object_id=header.object_id,
        owner=header.owner, transfer_id=header.transfer_id, shard_count=header.shard_count,
        total_length=header.total_length, visit=header.visit, visit_limit=header.visit_limit, timestamp_us=now_us,
        ack=ack, error=error,
    )  # fmt: skip
