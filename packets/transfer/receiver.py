"""The receiving side: objects being put together, within declared bounds.  No socket, no clock of its own.

An *assembly* is one object (id, visit, digest); it is fed by one *feed* a transfer, usually by one, by several where
rendezvous or holder have changed on the way.  Every feed is answered by what the whole assembly holds, in batches; an
object is handed over only whole and with every block as its launch announced it.  A transfer that is over keeps being
answered: a lost last answer costs nothing.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

import msgspec

from packets.security.blocks import contradicts
from packets.transfer.assembly import ACK_DELAY_S, WINDOW_SHARDS, Assembly, Feed, Rows
from packets.transfer.guard import Session
from packets.transfer.udp import Peer
from packets.transfers import ReceivedObject
from packets.wire import NO_FLAGS, Acknowledgement, ErrorCode, Flag, Header, PacketType

__all__ = ["ACK_DELAY_S", "WINDOW_SHARDS", "Assembly", "Feed", "Receiving", "answer_to"]

ABANDON_S = 30.0
REMEMBERED = 512
MAX_FEEDS = 16  # transfers of one object at a time
STRANGERS_PER_S = 100.0  # answers to packets of transfers that nobody knows: a flood of them is not worth more

Key = tuple[str, int, int]


class Over(NamedTuple):
    """A transfer that is over: how it ended (None: well)."""

    feed: Feed
    outcome: ErrorCode | None


class Receiving:
    """All objects being received by one endpoint, and the memory of those that are over.

    ``send(header, payload, peer, session, first)``: ``first`` marks the answer to a launch.
    """

    def __init__(
        self,
        *,
        send: Callable[[Header, bytes, Peer, Session | None, bool], None],
        deliver: Callable[[ReceivedObject], bool],
        refused: Callable[[str, Header, Peer, int], None],
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
        self._assemblies: dict[tuple[object, ...], Assembly] = {}
        self._open: dict[Key, Feed] = {}
        self._over: OrderedDict[Key, Over] = OrderedDict()
        self._done: OrderedDict[tuple[object, ...], ErrorCode | None] = OrderedDict()
        self._touched: dict[Key, Feed] = {}
        self._stranger_budget, self._stranger_at = STRANGERS_PER_S, 0.0

    @property
    def busy(self) -> bool:
        """Whether objects are on their way in."""
        return bool(self._assemblies)

    def feed(self, peer: Peer, transfer_id: int) -> Feed | None:
        """Return a transfer that is under way, or was lately: its shards are sealed to the last."""
        key = (*peer, transfer_id)
        over = self._over.get(key)
        return over.feed if over is not None else self._open.get(key)

    def awaits(self, header: Header) -> bool:
        """Tell whether this object is on its way in from elsewhere on this visit, or has come in."""
        stop = header.object_id, header.visit
        return any(name[:2] == stop for name in (*self._assemblies, *self._done))

    # --- in -------------------------------------------------------------------------------------------------------

    def on_launch(self, header: Header, peer: Peer, now: float, now_us: int, session: Session | None = None) -> None:
        """Take a launch, the first one or a repetition."""
        key = (*peer, header.transfer_id)
        over = self._over.get(key)
        if over is not None:
            self._answer_again(over, header.timestamp_us, now, now_us)
            return
        feed = self._open.get(key) or self._admit(key, header, peer, now, now_us, session)
        if feed is None:
            return
        feed.session = session or feed.session
        feed.note(1, header.timestamp_us, now, now_us)
        feed.urgent = feed.answers_launch = True
        self._touched[key] = feed
        if feed.assembly.whole:
            self._complete(feed.assembly, now, now_us)

    def on_packet(self, header: Header, payload: memoryview, peer: Peer, now: float, now_us: int) -> None:
        """Take one launch or shard."""
        if header.flags & Flag.LAUNCH:
            self.on_launch(header, peer, now, now_us)
        else:
            self.on_shards(Rows.single(header, payload), header, peer, now, now_us)

    def on_shards(self, rows: Rows, header: Header, peer: Peer, now: float, now_us: int) -> None:
        """Take shards of one transfer; ``header`` is that of one of them."""
        key = (*peer, header.transfer_id)
        over = self._over.get(key)
        if over is not None:
            self._answer_again(over, header.timestamp_us, now, now_us)
            return
        feed = self._open.get(key)
        if feed is None:
            self._answer_stranger(header, peer, now, now_us)
            return
        wrong = len(rows.shard) - feed.add(rows, now, now_us)
        if wrong:
            self._refused("shard", header, peer, wrong)
        if wrong < len(rows.shard):
            self._touched[key] = feed
        if feed.assembly.whole or feed.assembly.refuted:
            self._complete(feed.assembly, now, now_us)

    def ask_macs(self, header: Header, peer: Peer, now: float, now_us: int) -> None:
        """Answer shards that have no MAC where somebody tampers: their sender may not know it yet."""
        key = (*peer, header.transfer_id)
        over = self._over.get(key)
        if over is not None:
            self._answer_again(over, header.timestamp_us, now, now_us)
        elif (feed := self._open.get(key)) is not None:
            feed.note(1, header.timestamp_us, now, now_us)
            feed.urgent = True
            self._touched[key] = feed

    # --- out ------------------------------------------------------------------------------------------------------

    def answer(self, now: float, now_us: int) -> None:
        """Send the acknowledgements that are due."""
        for key, feed in list(self._touched.items()):
            if feed.answer_due(now):
                self._tell(feed, now_us)
                del self._touched[key]

    def wake_at(self) -> float:
        """Return when an acknowledgement will be due without a further packet."""
        return min((feed.owed_since + ACK_DELAY_S for feed in self._touched.values()), default=float("inf"))

    def tidy(self, now: float) -> list[Assembly]:
        """Forget objects whose senders all went silent, and return them."""
        gone = [a for a in self._assemblies.values() if now - a.heard_at > ABANDON_S]
        for assembly in gone:
            self._drop(assembly)
        return gone

    def withdraw(self, object_id: int, visit: int) -> Assembly | None:
        """Take an unfinished object out of here, with all that it holds; its senders will be strangers from now on."""
        for assembly in self._assemblies.values():
            if (assembly.launch.object_id, assembly.launch.visit) == (object_id, visit):
                self._drop(assembly)
                return assembly
        return None

    def _drop(self, assembly: Assembly) -> None:
        del self._assemblies[assembly.key]
        for key in [key for key, feed in self._open.items() if feed.assembly is assembly]:
            del self._open[key]
            self._touched.pop(key, None)
        assembly.feeds.clear()  # each knows its assembly: such circles wait long for Python to find them

    # --- inside ---------------------------------------------------------------------------------------------------

    def _admit(
        self, key: Key, header: Header, peer: Peer, now: float, now_us: int, session: Session | None
    ) -> Feed | None:
        """Begin a transfer: a new object, or one that somebody else is already feeding."""
        name = Assembly.key_of(header)
        assembly = self._assemblies.get(name)
        if assembly is None:
            if header.flags & Flag.HANDOVER and name in self._done:
                feed = Feed(Assembly(header, now, empty=True), header, peer, now)
                feed.assembly.base, feed.session, feed.answers_launch = header.shard_count, session, True
                feed.assembly.feeds.clear()
                self._remember(key, feed, self._done[name])
                self._answer_again(self._over[key], header.timestamp_us, now, now_us)
                return None
            if contradicts(header):
                self._error(ErrorCode.DIGEST, "the hashes of its blocks are not its digest's", header, peer, now_us)
                self._refused("digest", header, peer, 1)
                return None
            if not self._has_room(header, peer, now_us):
                return None
            self._assemblies[name] = assembly = Assembly(header, now)
        elif len(assembly.feeds) >= MAX_FEEDS:
            self._error(
                ErrorCode.BUSY, f"{MAX_FEEDS} transfers of this object are on their way in", header, peer, now_us
            )
            self._refused("busy", header, peer, 1)
            return None
        self._open[key] = feed = Feed(assembly, header, peer, now)
        assembly.welcome(header, peer)
        return feed

    def _has_room(self, header: Header, peer: Peer, now_us: int) -> bool:
        size = header.total_length
        if size > self._max_object_bytes or header.shard_count > max(size, 1):
            text = f"{size} bytes in {header.shard_count} shards, at most {self._max_object_bytes} are taken"
            self._error(ErrorCode.TOO_LARGE, text, header, peer, now_us)
            self._refused("too-large", header, peer, 1)
            return False
        total = sum(a.weight for a in self._assemblies.values()) + self._waiting_bytes() + size
        if len(self._assemblies) >= self._max_objects or total > self._max_total_bytes:
            self._error(ErrorCode.BUSY, f"{len(self._assemblies)} objects are on their way in", header, peer, now_us)
            self._refused("busy", header, peer, 1)
            return False
        return True

    def _complete(self, assembly: Assembly, now: float, now_us: int) -> None:
        """Check the whole, hand it over, and remember the outcome."""
        right = assembly.matches()
        if not right and not assembly.refuted:  # a block of it comes again
            return
        if right and not self._deliver(assembly.received(now)):
            assembly.urge()
            return
        feeds = {key: feed for key, feed in self._open.items() if feed.assembly is assembly}
        self._drop(assembly)
        self.duplicates += assembly.duplicates
        outcome = None if right else ErrorCode.DIGEST
        if outcome:
            self._refused("digest", assembly.launch, assembly.peer, 1)
        assembly.release()
        self._done[assembly.key] = outcome
        while len(self._done) > REMEMBERED:
            self._done.popitem(last=False)
        for key, feed in feeds.items():
            self._remember(key, feed, outcome)
            self._tell(feed, now_us, outcome, over=True)

    def _remember(self, key: Key, feed: Feed, outcome: ErrorCode | None) -> None:
        self._over[key] = Over(feed, outcome)
        while len(self._over) > REMEMBERED:
            self._over.popitem(last=False)

    def _answer_again(self, over: Over, timestamp_us: int, now: float, now_us: int) -> None:
        self.duplicates += 1
        over.feed.note(1, timestamp_us, now, now_us)
        self._tell(over.feed, now_us, over.outcome, over=True)

    def _tell(self, feed: Feed, now_us: int, outcome: ErrorCode | None = None, *, over: bool = False) -> None:
        """Answer a transfer: what is held, that all is, or why it was for nothing."""
        if outcome is not None:
            self._error(outcome, "the object does not match its digest", feed.launch, feed.peer, now_us, feed.session)
            return
        first, flags = feed.answers_launch, Flag.COMPLETE if over else Flag.AGAIN if feed.assembly.wrong else NO_FLAGS
        for ack, start in feed.answers(now_us):
            header = answer_to(feed.launch, PacketType.ACK, flags, now_us, ack=ack)
            if start > ack.base:
                header = msgspec.structs.replace(header, shard_index=start)
            self._send(header, b"", feed.peer, feed.session, first)
            first = False

    def _answer_stranger(self, header: Header, peer: Peer, now: float, now_us: int) -> None:
        """Tell the sender of shards without a launch to launch again, but not at any rate."""
        earned = (now - self._stranger_at) * STRANGERS_PER_S
        self._stranger_budget, self._stranger_at = min(self._stranger_budget + earned, STRANGERS_PER_S), now
        if self._stranger_budget >= 1.0:
            self._stranger_budget -= 1.0
            self._error(ErrorCode.UNKNOWN_TRANSFER, "launch it again", header, peer, now_us)

    def _error(
        self, code: ErrorCode, text: str, header: Header, peer: Peer, now_us: int, session: Session | None = None
    ) -> None:
        answer = answer_to(header, PacketType.ERROR, NO_FLAGS, now_us, error=code)
        self._send(answer, text.encode(), peer, session, False)


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
