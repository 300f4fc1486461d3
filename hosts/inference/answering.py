"""Queries at a terminal that serves models: each is taken once, and answered by who it takes, to whom it concerns."""

from __future__ import annotations

import ipaddress
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

import msgspec

from hosts.inference.caching import Cache, key_of
from hosts.inference.onward import Gathering, Onward
from hosts.inference.serving import Hosted, Serving
from hosts.inference.ways import GATHERS, MOST_HOPS, Found, chances_to_bytes
from hosts.learning.errors import LearningError
from hosts.terminal.terminal import Terminal
from packets.errors import DaitnError
from packets.labels import AI_PORT, object_label
from packets.messages import Ack, Answer, Ask, Busy, Message, Refused, encode_message
from packets.queries import Otherwise
from packets.wire import Flag, Header, PacketType

REPORT_S = 0.1  # how often a terminal that is being asked reports
ANSWERS_KEPT = 4096
Peer = tuple[str, int]
Key = tuple[Peer, int, int]
Said = tuple[bytes, PacketType, Peer]
Find = Callable[[int, Ask], Hosted | None]


def kas_of(peer: Peer) -> str:
    """Return the number of the K-AS that an address is in (``10.<k>.0.0/16``)."""
    return peer[0].split(".")[1]


class Query(NamedTuple):
    """A query as it came in. ``then``: takes what is said of it, in place of who asked (a stream)."""

    header: Header
    peer: Peer
    ask: Ask
    came_s: float
    then: Callable[[Message], None] | None = None


class Answering:
    """The queries of one terminal. ``find``: the model that a label, or else a query, names."""

    def __init__(self, terminal: Terminal, find: Find, serving: Serving, onward: Onward) -> None:
        self.terminal, self._find, self.serving, self.onward = terminal, find, serving, onward
        self._asked: OrderedDict[Key, Said | Ask | None] = OrderedDict()
        self._lock = threading.Lock()
        self._touched_s = 0.0

    def came_before(self, header: Header, peer: Peer) -> bool:
        """Tell whether a query came before: answer again, or send on again, what was; what waits is let wait."""
        key = _key(header, peer)
        with self._lock:
            earlier = self._asked.get(key)
            if key not in self._asked:
                self._note(key, None)
                return False
        if isinstance(earlier, Ask):
            self.onward.send_on(earlier, header.transfer_id, Flag.REPEATED)
        elif earlier is not None:
            self._send(header, earlier[0], earlier[2], earlier[1])
        return True

    def forget(self, header: Header, peer: Peer) -> None:
        """Remember a query no longer: who takes it remembers what it needs of it."""
        with self._lock:
            self._asked.pop(_key(header, peer), None)

    def _note(self, key: Key, value: Said | Ask | None) -> None:
        self._asked[key] = value
        while len(self._asked) > ANSWERS_KEPT:
            self._asked.popitem(last=False)

    def take(self, query: Query) -> None:
        """Queue a query for its model, have it answered by several, or refuse it."""
        ask, hosted = query.ask, self._find(object_label(query.header.object_id), query.ask)
        refusal: Message | None = None
        if hosted is None:
            refusal = Refused(reason=f"{self.terminal.name} hosts no model of task {ask.task!r} that is good enough")
        elif ask.answer_to and not _is_place(ask.answer_to):
            refusal = Refused(reason=f"answer_to {ask.answer_to!r} is no address of a terminal")
        elif ask.hops > MOST_HOPS:
            refusal = Refused(reason=f"sent on {ask.hops} times: do these models ask each other in a circle?")
        elif ask.answer_port and not self._may_send_on(query):
            self.reply(query.header, query.peer, encode_message(Refused(reason="only an MDFP sends queries on")))
            return
        elif hosted.model.cache is not None:
            refusal = self._from_cache(query, hosted, hosted.model.cache)
        elif hosted.model.way.kind in GATHERS:
            refusal = self._gather(query, hosted)
        else:
            refusal = self.serving.put(hosted, ask, lambda answer: self._done(query, answer), kas_of(query.peer))
        if refusal is not None:
            self._done(query, refusal, refused=True)
        self._touch()

    def _may_send_on(self, query: Query) -> bool:
        """A query that names where its answer goes, port and all, comes from one that serves, too."""
        guard = self.terminal.guard
        speaker = guard.peer(query.peer[0]) if guard is not None else None
        return bool(query.ask.answer_to) and (speaker is None or speaker.role == "mdfp")

    def _gather(self, query: Query, hosted: Hosted) -> Message | None:
        """Have a query answered by several; return why not, if so."""
        ask, began_s = query.ask, self.terminal.clock()
        if self.onward.under_way >= self.serving.limit:
            return Busy(reason=f"{self.onward.under_way} queries wait here", state=hosted.state(began_s))
        try:
            asks = hosted.model.parts(ask)
        except LearningError as error:
            return Refused(reason=str(error)[:400])
        own = hosted.model.way.kind == "collaborative"
        gathering = Gathering([*asks, *([""] if own else [])], lambda found: self._gathered(query, hosted, found))
        if own:
            wanted = msgspec.structs.replace(ask, chances=True)
            if busy := self.serving.put(hosted, wanted, lambda answer: gathering.put("", answer)):
                return busy
        self._put_to(asks, gathering)
        return None

    def _put_to(self, asks: Mapping[str, Ask], gathering: Gathering) -> None:
        """Put each question to a model of this terminal, where there is one with room, else to one elsewhere."""
        for name, ask in asks.items():
            own = self._beside(ask)
            busy = self.serving.put(own, ask, partial(gathering.put, name)) if own is not None else None
            if own is None or busy is not None:
                gathering.refusals |= {name: busy} if busy is not None else {}
                self.onward.gather({name: ask}, gathering)

    def _beside(self, ask: Ask) -> Hosted | None:
        """Return the model of this terminal that a query which goes on is for, if it answers by itself."""
        own = self._find(0, ask)
        return own if own is not None and own.model.way.kind in ("single", "upper") else None

    # --- from memory

    def _from_cache(self, query: Query, hosted: Hosted, cache: Cache) -> Message | None:
        """Answer from memory, or have the model asked whose answers are kept; return why not, if so."""
        ask, now_s, found = query.ask, self.terminal.clock(), hosted.in_flight
        hosted.came.append((now_s, kas_of(query.peer)))
        try:
            asks = hosted.model.parts(ask)
        except LearningError as error:
            return Refused(reason=str(error)[:400])
        key = key_of(ask)
        answer = cache.find(key, self._serving(asks), now_s)
        hosted.served(1, self.terminal.clock() - now_s)
        if answer is not None:
            self._of_cache(query, hosted, found, msgspec.structs.replace(answer, cached=True, infer_ms=0.0))
        elif hosted.in_flight >= self.serving.limit:
            return Busy(reason=f"{hosted.in_flight} queries wait here", state=hosted.state(now_s))
        else:
            self.serving.hold(hosted, 1)
            if cache.wait(key, ask.need.deadline_ms, lambda message: self._missed(query, hosted, found, message)):
                gathering = Gathering(asks, lambda answers: self._fill(hosted, cache, key, asks, gathering, answers))
                self._put_to(asks, gathering)
        return None

    def _serving(self, asks: Mapping[str, Ask]) -> set[int]:
        """Return the labels of models that serve what is asked: of those here, what they are now is known at once."""
        elsewhere = {k.label for task in asks for k in self.onward.elsewhere(task)}
        return elsewhere | {own.label for ask in asks.values() if (own := self._beside(ask)) is not None}

    def _fill(
        self, hosted: Hosted, cache: Cache, key: bytes, asks: Mapping[str, Ask], gathering: Gathering,
        answers: Mapping[str, Answer | None],
    ) -> None:  # fmt: skip
        """Keep an answer that came, and give it, or why there is none, to all that wait for it."""
        ((task, ask),) = asks.items()
        answer, floors = answers[task], ask.need.floors
        message: Message
        if answer is None:
            message = gathering.refusals.get(task) or Refused(reason=f"no model of task {task} has answered")
        elif low := [g for g, floor in floors.items() if floor and answer.model_accuracy.get(g, 0.0) < floor]:
            message = Refused(reason=f"the model of task {task} that answered is not good enough in {', '.join(low)}")
        else:
            cache.keep(key, answer, self._serving(asks), self.terminal.clock())
            message = answer
        for reply in cache.waited(key, ask.need.deadline_ms):
            reply(message)

    def _missed(self, query: Query, hosted: Hosted, found: int, message: Message) -> None:
        self.serving.hold(hosted, -1)
        self._of_cache(query, hosted, found, message)

    def _of_cache(self, query: Query, hosted: Hosted, found: int, message: Message) -> None:
        """Send what a model said as the cache's word: how that one stands is nothing to who asked."""
        now_s = self.terminal.clock()
        if isinstance(message, Answer):
            hosted.took(found, (now_s - query.came_s) * 1e3)
            state = hosted.state(now_s)
            message = msgspec.structs.replace(message, answered_by=self.terminal.name, state=state)
        elif isinstance(message, Busy):
            message = msgspec.structs.replace(message, state=hosted.state(now_s))
        self._done(query, message)

    def _gathered(self, query: Query, hosted: Hosted, answers: dict[str, Answer | None]) -> None:
        accuracies = {name: self.onward.accuracy(name) for name in answers if name}
        try:
            found = hosted.model.join(answers, accuracies | {"": hosted.accuracy.get("broad", 0.0)})
        except LearningError as error:
            self._done(query, Refused(reason=str(error)[:400]))
            return
        infer_ms = sum(a.infer_ms for a in answers.values() if a is not None)
        self._done(query, self.message(hosted, query.ask, found, infer_ms))

    def _done(self, query: Query, answer: Message, *, refused: bool = False) -> None:
        """Send an answer: to who asked, or where that one wants it, and then a word to who asked."""
        self._touch()
        header, peer, ask = query.header, query.peer, query.ask
        if isinstance(answer, Busy) and ask.otherwise is not None:
            answer, refused = Answer(**msgspec.structs.asdict(ask.otherwise)), False
        if query.then is not None:
            self.hand(query.then, answer)
        elif isinstance(answer, Ask):
            self._send_on(query, answer)
        elif ask.answer_port:
            self.reply(header, peer, encode_message(_of_another(answer)), to=(ask.answer_to, ask.answer_port))
        elif ask.answer_to and not refused:
            self._send(header, encode_message(answer), (ask.answer_to, AI_PORT), PacketType.RESPONSE)
            self.reply(header, peer, encode_message(Ack()))
        else:
            self.reply(header, peer, encode_message(answer))

    def hand(self, then: Callable[[Message], None], answer: Message) -> None:
        """Hand over what is said of a query, after asking whom it goes on to."""
        self._touch()
        if not isinstance(answer, Ask):
            then(answer)
            return
        silent = Refused(reason=f"no model of task {answer.task} answered {self.terminal.name}")
        gathering = Gathering([answer.task], lambda found: then(found[answer.task] or silent))
        self.onward.gather({answer.task: answer}, gathering)

    def _send_on(self, query: Query, further: Ask) -> None:
        """Send a query on to another model; its answer goes from there to who asked."""
        header, peer, ask = query.header, query.peer, query.ask
        to = (ask.answer_to, ask.answer_port or AI_PORT) if ask.answer_to else peer
        spent_ms = int((self.terminal.clock() - query.came_s) * 1e3)
        need = msgspec.structs.replace(further.need, deadline_ms=max(1, further.need.deadline_ms - spent_ms))
        further = msgspec.structs.replace(
            further, answer_to=to[0], answer_port=to[1], need=need if further.need.deadline_ms else further.need
        )
        own = self._beside(further)
        if own is not None and not self.serving.put(own, further, lambda said: self._done(query, _of_another(said))):
            return
        if not self.onward.send_on(further, header.transfer_id):
            self._done(query, Refused(reason=f"no model of task {further.task} is known to {self.terminal.name}"))
        elif ask.answer_to and not ask.answer_port:
            self.reply(header, peer, encode_message(Ack()))
        else:
            with self._lock:
                self._note(_key(header, peer), further)

    def reply(
        self, header: Header, peer: Peer, payload: bytes, kind: PacketType | None = None, to: Peer | None = None
    ) -> None:
        """Answer, and the same again when the query comes again."""
        kind, to = kind or (PacketType.RESPONSE if header.type is PacketType.QUERY else header.type), to or peer
        if header.type is PacketType.QUERY:
            with self._lock:
                self._note(_key(header, peer), (payload, kind, to))
        self._send(header, payload, to, kind)

    def _send(self, header: Header, payload: bytes, peer: Peer, kind: PacketType) -> None:
        try:
            self.terminal.network.reply(header, payload, peer, type=kind)
        except (DaitnError, OSError) as error:
            self.terminal.complain(str(error))

    def message(self, hosted: Hosted, ask: Ask, found: Found | str, infer_ms: float) -> Message:
        """Return what is said of a query; an ``Ask`` where it is to go on."""
        if isinstance(found, str):
            return Refused(reason=found[:400])
        further = hosted.model.onward(ask, found)
        if further is not None and (found.activations or self.onward.knows(further.task)):
            return self._or_else(further, found)
        state, wanted = hosted.state(self.terminal.clock()), found.chances if ask.chances else None
        return Answer(
            answer=found.answer, confidence=min(1.0, found.confidence), model_accuracy=hosted.accuracy,
            answered_by=self.terminal.name, infer_ms=infer_ms, state=state,
            chances=chances_to_bytes(wanted) if wanted is not None else b"",
        )  # fmt: skip

    def _or_else(self, further: Ask, found: Found) -> Ask:
        """Return a query as it goes on, with the answer that there is already."""
        if not found.answer:
            return further
        otherwise = Otherwise(
            answer=found.answer, confidence=min(1.0, found.confidence), answered_by=self.terminal.name
        )  # fmt: skip
        return msgspec.structs.replace(further, otherwise=otherwise)

    def _touch(self) -> None:
        """Have the reporter look, not more often than it is worth."""
        now_s = self.terminal.clock()
        if now_s - self._touched_s >= REPORT_S:
            self._touched_s = now_s
            self.terminal.touch()


def _key(header: Header, peer: Peer) -> Key:
    """What makes a query one: the same may come by again, sent on more often."""
    return peer, header.transfer_id, header.visit


def _of_another(answer: Message) -> Message:
    """Return an answer without its state: whom it comes to may take that for the state of the model that it asked."""
    if isinstance(answer, Busy):
        return Refused(reason=answer.reason)
    return msgspec.structs.replace(answer, state=None) if isinstance(answer, Answer) else answer


def _is_place(address: str) -> bool:
    try:
        known = ipaddress.IPv4Address(address)
    except ValueError:
        return False
    return known.is_private and not (known.is_reserved or known.is_multicast or known.is_loopback)
