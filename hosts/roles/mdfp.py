"""MDFP: hosts deployed models and answers queries with them."""

from __future__ import annotations

import contextlib
import ipaddress
import threading
import time
from collections.abc import Sequence
from typing import Any

import msgspec

from hosts.errors import HostError
from hosts.inference.serving import Hosted, Serving
from hosts.learning.errors import LearningError
from hosts.learning.task import bytes_to_model
from hosts.roles.base import Peer, Recent, Role
from hosts.terminal.terminal import Terminal
from packets.errors import DaitnError
from packets.labels import AI_PORT, object_label
from packets.messages import (
    Ack,
    Answer,
    AnyMessage,
    Ask,
    AskState,
    Message,
    Order,
    Refused,
    State,
    decode_message,
    encode_message,
)
from packets.transport import ReceivedObject
from packets.wire import Flag, Header, PacketType

REPORT_S = 0.1  # how often a terminal that is being asked reports
UP_S = 15.0  # after that nobody counts since when a model serves
ANSWERS_KEPT = 4096
FORMER_KEPT = 64


class Mdfp(Role):
    """Serves the models that the DCC deploys here, several, each by its own label."""

    def __init__(self, terminal: Terminal) -> None:
        super().__init__(terminal)
        self.actions |= {"deploy": self.deploy}
        self.commands |= {"serving": self._settings}
        self.serving = Serving(self._infer, terminal.clock, self._busy)
        self._hosted: dict[tuple[str, str], Hosted] = {}
        self._by_label: Recent[Hosted] = Recent(FORMER_KEPT)
        self._asked: Recent[tuple[bytes, PacketType, Peer] | None] = Recent(ANSWERS_KEPT)
        self._asked_lock = threading.Lock()
        self._touched_s = 0.0
        self._activity = contextlib.ExitStack()

    def attributes(self) -> dict[str, Any]:
        now_s = self.terminal.clock()
        hosted = list(self._hosted.values())
        measured = [h.service_ms for h in hosted if h.service_ms]
        queue = {"queue": self.terminal.queue + self.serving.in_flight}
        models = {"models": [_said(h, now_s) for h in hosted]}
        return super().attributes() | queue | models | {"latency_ms": round(max(measured, default=0.0), 2)}

    def deploy(self, obj: ReceivedObject, order: Order) -> None:
        """Load a model and say so at once; a newer one of the same task and variant takes the place of the one here.

        The old one's label goes on being answered, by the new one: who knows only that loses no query.
        """
        task = order.task or self.terminal.task.name
        if task != self.terminal.task.name:
            raise HostError(f"order to deploy task {task!r}, this testbed runs {self.terminal.task.name!r}")
        model = bytes_to_model(self.terminal.task, obj.payload)
        model.eval()
        label = object_label(obj.object_id)
        new = Hosted(label, obj.object_id, task, model, order.accuracy, self.terminal.clock())
        former = self._hosted.get((task, new.variant))
        self._by_label.note(label, new)
        for old, hosted in list(self._by_label.items()):
            if former is not None and hosted is former:
                self._by_label[old] = new
        self._hosted[task, new.variant] = new
        self.terminal.emit(
            "model.deployed", object_id=obj.object_id, node=self.terminal.name, task=task, accuracy=order.accuracy
        )
        self.terminal.touch()

    def _settings(self, command: dict[str, Any]) -> dict[str, Any]:
        """Set how queries are served: {"batch"?, "limit"?}."""
        for name in ("batch", "limit"):
            value = command.get(name, getattr(self.serving, name))
            if not isinstance(value, int) or not 1 <= value <= 65536:
                raise HostError(f"{name}: {value!r}; give a number from 1 to 65536")
            setattr(self.serving, name, value)
        return {"batch": self.serving.batch, "limit": self.serving.limit}

    # --- questions

    def message_arrived(self, header: Header, payload: bytes, peer: Peer) -> None:
        """Take queries and probes at once; all else as every role does."""
        if header.type not in (PacketType.QUERY, PacketType.PROBE) or header.flags & Flag.REPLY or not payload:
            super().message_arrived(header, payload, peer)
            return
        if header.type is PacketType.QUERY and self._known(header, peer):
            return
        try:
            message = decode_message(payload)
        except msgspec.DecodeError as error:
            self.terminal.emit("packet.refused", reason="message", node=self.terminal.name, sender=peer[0])
            self._reply(header, peer, f"no message of ours: {str(error)[:200]}".encode(), PacketType.ERROR)
            return
        if isinstance(message, Ask):
            self._query(header, peer, message)
        else:
            self._reply(header, peer, encode_message(self.answer(message)))

    def _known(self, header: Header, peer: Peer) -> bool:
        """Tell whether a query came before: one that is answered is answered again, one that waits is let wait."""
        key = peer, header.transfer_id
        with self._asked_lock:
            if key not in self._asked:
                self._asked.note(key, None)
                return False
            earlier = self._asked[key]
        if earlier is not None:
            self._send(header, earlier[0], earlier[2], earlier[1])
        return True

    def _query(self, header: Header, peer: Peer, ask: Ask) -> None:
        hosted = self._model(object_label(header.object_id), ask)
        refusal: Message | None = None
        if hosted is None:
            refusal = Refused(reason=f"{self.terminal.name} hosts no model of task {ask.task!r} that is good enough")
        elif ask.answer_to and not _is_place(ask.answer_to):
            refusal = Refused(reason=f"answer_to {ask.answer_to!r} is no address of a terminal")
        else:
            refusal = self.serving.put(hosted, ask, lambda answer: self._done(header, peer, ask, answer))
        if refusal is not None:
            self._reply(header, peer, encode_message(refusal))
        self._touch()

    def _model(self, label: int, ask: Ask) -> Hosted | None:
        """Return the model that a label names; of a class, the best one that is good enough."""
        named = self._by_label.get(label)
        if named is not None and named.task == ask.task:
            return named
        floors = ask.need.floors
        good = [
            h for h in self._hosted.values()
            if h.task == ask.task and all(h.accuracy.get(g, 0.0) >= floor for g, floor in floors.items() if floor)
        ]  # fmt: skip
        return max(good, key=lambda h: h.accuracy.get("broad", 0.0), default=None)

    def _done(self, header: Header, peer: Peer, ask: Ask, answer: Message) -> None:
        """Send an answer: to who asked, or where that one wants it, and then a word to who asked."""
        self._touch()
        if not ask.answer_to:
            self._reply(header, peer, encode_message(answer))
            return
        self._send(header, encode_message(answer), (ask.answer_to, AI_PORT), PacketType.RESPONSE)
        self._reply(header, peer, encode_message(Ack()))

    def _reply(self, header: Header, peer: Peer, payload: bytes, kind: PacketType | None = None) -> None:
        kind = kind or (PacketType.RESPONSE if header.type is PacketType.QUERY else header.type)
        if header.type is PacketType.QUERY:
            with self._asked_lock:
                self._asked.note((peer, header.transfer_id), (payload, kind, peer))
        self._send(header, payload, peer, kind)

    def _send(self, header: Header, payload: bytes, peer: Peer, kind: PacketType) -> None:
        try:
            self.terminal.network.reply(header, payload, peer, type=kind)
        except (DaitnError, OSError) as error:
            self.terminal.complain(str(error))

    def answer(self, message: AnyMessage) -> Message:
        """Say how a model stands (label 0: all of them together)."""
        if not isinstance(message, AskState):
            return super().answer(message)
        hosted = self._by_label.get(message.label)
        if hosted is not None:
            return hosted.state(self.terminal.clock())
        return State(label=0, in_flight=self.serving.in_flight)

    # --- compute

    def _infer(self, hosted: Hosted, asks: Sequence[Ask]) -> list[Message]:
        """Answer queries together; where one of them is no sample of the task, each by itself."""
        began_s = time.perf_counter()
        meter = self.terminal.meter
        meter.begin()
        try:
            answers: list[tuple[str, float] | str] = list(
                self.terminal.task.ask_all(hosted.model, [a.sample for a in asks])
            )
        except LearningError as error:
            answers = [str(error)] if len(asks) == 1 else [self._alone(hosted, a) for a in asks]
        except Exception as error:
            self.terminal.complain(f"query to {self.terminal.name}: {error!r}")
            answers = [f"{self.terminal.name} failed on this question"] * len(asks)
        finally:
            meter.end()
        infer_ms = (time.perf_counter() - began_s) * 1e3 / len(asks)
        return [self._message(hosted, a, infer_ms) for a in answers]

    def _busy(self, busy: bool) -> None:
        if busy:
            self._activity.enter_context(self.terminal.activities.doing("serving", 0))
        else:
            self._activity.close()
            self.terminal.touch()

    def _alone(self, hosted: Hosted, ask: Ask) -> tuple[str, float] | str:
        try:
            return self.terminal.task.ask(hosted.model, ask.sample)
        except LearningError as error:
            return str(error)

    def _message(self, hosted: Hosted, answer: tuple[str, float] | str, infer_ms: float) -> Message:
        if isinstance(answer, str):
            return Refused(reason=answer[:400])
        state = hosted.state(self.terminal.clock())
        return Answer(
            answer=answer[0], confidence=min(1.0, answer[1]), model_accuracy=hosted.accuracy,
            answered_by=self.terminal.name, infer_ms=infer_ms, state=state,
        )  # fmt: skip

    def _touch(self) -> None:
        """Have the reporter look, not more often than it is worth."""
        now_s = self.terminal.clock()
        if now_s - self._touched_s >= REPORT_S:
            self._touched_s = now_s
            self.terminal.touch()


def _said(hosted: Hosted, now_s: float) -> dict[str, Any]:
    """Return what the map may know of a model."""
    return {
        "task": hosted.task, "label": hosted.label, "accuracy": hosted.accuracy, "variant": hosted.variant,
        "service_ms": round(hosted.service_ms, 2), "in_flight": hosted.in_flight,
        "arrivals_per_s": hosted.arrivals_per_s(now_s), "up_s": float(min(UP_S, int(now_s - hosted.since_s))),
    }  # fmt: skip


def _is_place(address: str) -> bool:
    try:
        known = ipaddress.IPv4Address(address)
    except ValueError:
        return False
    return known.is_private and not (known.is_reserved or known.is_multicast or known.is_loopback)
