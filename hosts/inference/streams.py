"""Streams at a terminal that serves models: one query of many samples, answered part by part as each is computed.

Streams take turns: one part of each, of a few at once, is in the queue, where its samples count as queries do; the
others wait here, in nobody's way. What was sent is kept for a while, so that a part that got lost is not computed
again; one that is not kept any more is, from the samples that come with each request.
"""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

from hosts.inference.answering import Answering, Find, Peer, Query, kas_of
from hosts.inference.serving import Hosted
from hosts.inference.ways import GATHERS
from hosts.terminal.terminal import Terminal
from packets.errors import DaitnError
from packets.labels import object_label
from packets.messages import Answer, Ask, AskPart, Busy, Message, Refused, StreamPart, encode_message
from packets.queries import Given
from packets.wire import Header, PacketType

STREAMS, STREAMS_AN_ASKER = 64, 4  # under way at once
WAITING, WAITING_A_STREAM = 128, 16  # parts that wait for their turn
TURNS = 4  # parts in the queue at once, each of another stream: half of the queue, the other half is everybody's
IDLE_S = 5.0  # a stream of which nothing comes for so long is over
KEPT, KEPT_BYTES, KEPT_S = 1024, 4 << 20, 30.0  # of parts that were sent
Name = tuple[str, int]  # a stream: its asker's address, its number there


class Kept:
    """Parts that were sent, by stream and number: bounded in number, bytes and seconds, the oldest go first."""

    def __init__(self, most: int = KEPT, most_bytes: int = KEPT_BYTES, seconds: float = KEPT_S) -> None:
        self._most, self._most_bytes, self._seconds = most, most_bytes, seconds
        self._parts: OrderedDict[tuple[Name, int], tuple[bytes, float]] = OrderedDict()
        self.size_bytes = 0

    def __len__(self) -> int:
        return len(self._parts)

    def put(self, name: Name, number: int, part: bytes, now_s: float) -> None:
        """Keep a part, at the cost of older ones."""
        self.drop(name, number)
        self._parts[name, number] = part, now_s
        self.size_bytes += len(part)
        while self._parts:
            (oldest, (_, sent_s)) = next(iter(self._parts.items()))
            full = len(self._parts) > self._most or self.size_bytes > self._most_bytes
            if not full and now_s - sent_s <= self._seconds:
                break
            self.drop(*oldest)

    def get(self, name: Name, number: int, now_s: float) -> bytes | None:
        """Return a part, if it is kept still."""
        part, sent_s = self._parts.get((name, number), (None, 0.0))
        return part if now_s - sent_s <= self._seconds else None

    def drop(self, name: Name, number: int) -> None:
        """Keep a part no longer."""
        part, _ = self._parts.pop((name, number), (b"", 0.0))
        self.size_bytes -= len(part)


class Wanted(NamedTuple):
    """A part that was asked for."""

    header: Header
    peer: Peer
    ask: AskPart
    came_s: float


@dataclass
class Stream:
    """A stream under way: parts that wait, those that wait or are computed, how many were answered."""

    name: Name
    shape: tuple[int, int]
    heard_s: float
    waiting: deque[Wanted] = field(default_factory=deque)
    under_way: set[int] = field(default_factory=set)
    answered: set[int] = field(default_factory=set)
    handed: int = 0
    in_turn: bool = False


class Collected:
    """What is said of the samples of a part; ``finish`` is called once, with all of it in order."""

    def __init__(self, count: int, finish: Callable[[list[Message]], None]) -> None:
        self._said: dict[int, Message] = {}
        self._count, self._finish, self._lock = count, finish, threading.Lock()

    def put(self, index: int, message: Message) -> None:
        """Take what is said of one."""
        with self._lock:
            news = index not in self._said
            self._said.setdefault(index, message)
            whole = news and len(self._said) == self._count
        if whole:
            self._finish([self._said[i] for i in range(self._count)])


class Streams:
    """The streams of one terminal. ``find``: the model that a label, or else a query, names."""

    def __init__(self, terminal: Terminal, find: Find, answering: Answering) -> None:
        self.terminal, self._find, self.answering = terminal, find, answering
        self.kept = Kept()
        self._streams: dict[Name, Stream] = {}
        self._ready: deque[Stream] = deque()  # those of which a part waits and none is in the queue
        self._in_turn, self._turning = 0, False
        self._lock = threading.Lock()

    @property
    def waiting(self) -> int:
        """Samples that wait for the turn of their part."""
        with self._lock:
            return sum(len(w.ask.samples) for s in self._streams.values() for w in s.waiting)

    def take(self, header: Header, peer: Peer, ask: AskPart) -> None:
        """Take a request for a part: have it computed, send it again where it was, or refuse it."""
        self.answering.forget(header, peer)
        wanted = Wanted(header, peer, ask, self.terminal.clock())
        hosted = self._model(wanted)
        with self._lock:
            said = self._admit(wanted, hosted)
        if said is None:
            self._turns()
        else:
            self._send(wanted, said)

    def _model(self, wanted: Wanted) -> Hosted | None:
        ask = wanted.ask
        return self._find(object_label(wanted.header.object_id), Ask(task=ask.task, sample=[], need=ask.need))

    def _admit(self, wanted: Wanted, hosted: Hosted | None) -> Message | bytes | None:
        """Have a part wait for its turn, or return what is to be said instead."""
        ask, now_s, name = wanted.ask, wanted.came_s, (wanted.peer[0], wanted.ask.stream)
        if (part := self.kept.get(name, ask.number, now_s)) is not None:
            return part
        if hosted is None:
            return Refused(reason=f"{self.terminal.name} hosts no model of task {ask.task!r} that is good enough")
        stream = self._streams.get(name) or self._begin(name, (ask.total, ask.size), now_s)
        if stream is None:
            return Busy(reason=f"{len(self._streams)} streams are under way here", state=hosted.state(now_s))
        if stream.shape != (ask.total, ask.size):
            return Refused(reason=f"this stream has {stream.shape[0]} samples in parts of {stream.shape[1]}")
        stream.heard_s = now_s
        if ask.number in stream.under_way:
            return hosted.state(now_s)
        waiting = sum(len(s.waiting) for s in self._streams.values())
        if len(stream.waiting) >= WAITING_A_STREAM or waiting >= WAITING:
            return Busy(reason=f"{waiting} parts of streams wait here", state=hosted.state(now_s))
        for number in range(stream.handed, min(ask.handed, ask.parts)):
            self.kept.drop(name, number)
        stream.handed = max(stream.handed, min(ask.handed, ask.parts))
        stream.under_way.add(ask.number)
        stream.waiting.append(wanted)
        if len(stream.waiting) == 1 and not stream.in_turn:
            self._ready.append(stream)
        return None

    def _begin(self, name: Name, shape: tuple[int, int], now_s: float) -> Stream | None:
        """Return a new stream; None where there are too many."""
        for other in [s for s in self._streams.values() if not s.under_way and now_s - s.heard_s > IDLE_S]:
            del self._streams[other.name]
        of_asker = sum(address == name[0] for address, _ in self._streams)
        if of_asker >= STREAMS_AN_ASKER or len(self._streams) >= STREAMS:
            return None
        self._streams[name] = Stream(name, shape, now_s)
        return self._streams[name]

    # --- its turn

    def _turns(self) -> None:
        """Put what is next into the queue, a part of each stream in turn; one thread at a time does."""
        with self._lock:
            if self._turning:
                return
            self._turning = True
        while (taken := self._next()) is not None:
            stream, wanted = taken
            try:
                refusal = self._put(stream, wanted)
            except Exception as error:  # what one part does must not end the turns of the others
                self.terminal.complain(f"stream of {wanted.peer[0]} to {self.terminal.name}: {error!r}")
                refusal = Refused(reason=f"{self.terminal.name} failed on this part")
            if refusal is not None:
                self._over(stream, wanted, refusal)

    def _next(self) -> tuple[Stream, Wanted] | None:
        with self._lock:
            if self._in_turn >= TURNS or not self._ready:
                self._turning = False
                return None
            stream = self._ready.popleft()
            stream.in_turn = True
            self._in_turn += 1
            return stream, stream.waiting.popleft()

    def _put(self, stream: Stream, wanted: Wanted) -> Message | None:
        """Have the samples of a part answered; return why not, if so."""
        ask, hosted = wanted.ask, self._model(wanted)
        if hosted is None:
            return Refused(reason=f"{self.terminal.name} hosts no model of task {ask.task!r} any more")
        asks = [Ask(task=ask.task, sample=sample, need=ask.need) for sample in ask.samples]
        collected = Collected(len(asks), lambda said: self._computed(stream, wanted, hosted, said))
        puts = [partial(collected.put, index) for index in range(len(asks))]
        if hosted.model.way.kind in GATHERS:  # answered by several, who are asked one by one
            for one, put in zip(asks, puts, strict=True):
                self.answering.take(Query(wanted.header, wanted.peer, one, wanted.came_s, put))
            return None
        replies = [partial(self.answering.hand, put) for put in puts]
        together = list(zip(asks, replies, strict=True))
        return self.answering.serving.put_together(hosted, together, kas_of(wanted.peer))

    def _computed(self, stream: Stream, wanted: Wanted, hosted: Hosted, said: list[Message]) -> None:
        """Make a part of what is said of its samples."""
        ask = wanted.ask
        busy = next((m for m in said if isinstance(m, Busy)), None)
        part = busy or StreamPart(
            stream=ask.stream, total=ask.total, size=ask.size, number=ask.number, answers=[_given(m) for m in said],
            answered_by=self.terminal.name, infer_ms=sum(m.infer_ms for m in said if isinstance(m, Answer)),
            state=hosted.state(self.terminal.clock()),
        )  # fmt: skip
        self._over(stream, wanted, part)
        self._turns()

    def _over(self, stream: Stream, wanted: Wanted, message: Message) -> None:
        """Say what came of a part."""
        said, number = encode_message(message), wanted.ask.number
        with self._lock:
            stream.in_turn = False
            self._in_turn -= 1
            if stream.waiting:
                self._ready.append(stream)
            stream.under_way.discard(number)
            if isinstance(message, StreamPart):
                self.kept.put(stream.name, number, said, self.terminal.clock())
                stream.answered.add(number)
                if len(stream.answered) == message.parts:
                    self._streams.pop(stream.name, None)
        self._send(wanted, said)

    def _send(self, wanted: Wanted, said: Message | bytes) -> None:
        payload = said if isinstance(said, bytes) else encode_message(said)
        try:
            self.terminal.network.reply(wanted.header, payload, wanted.peer, type=PacketType.RESPONSE)
        except (DaitnError, OSError) as error:
            self.terminal.complain(str(error))


def _given(message: Message) -> Given:
    """Return what a part says of a sample."""
    if isinstance(message, Answer):
        return Given(answer=message.answer[:400], confidence=message.confidence)
    return Given(refused=getattr(message, "reason", type(message).__name__)[:400])
