"""MDFP: hosts deployed models and answers queries with them."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import msgspec

from hosts.errors import HostError
from hosts.inference.answering import Answering, Query
from hosts.inference.moving import Moving
from hosts.inference.onward import Means, Onward
from hosts.inference.ports import Ports
from hosts.inference.serving import Hosted, Serving
from hosts.inference.streams import Streams
from hosts.inference.ways import Answerer, Found
from hosts.learning.errors import LearningError
from hosts.roles.base import OfModels, Peer, Recent, Role
from hosts.terminal.own_metrics import OwnMetrics
from hosts.terminal.terminal import Terminal
from packets.labels import object_label
from packets.messages import (
    Ack,
    AnyMessage,
    Ask,
    AskPart,
    AskReplicas,
    AskState,
    Copy,
    Message,
    Order,
    Replicas,
    Retire,
    State,
    decode_message,
    encode_message,
)
from packets.queries import variant_task
from packets.transport import ReceivedObject
from packets.wire import Flag, Header, PacketType

MAX_HOSTED = 32  # a report names at most twice as many
FORMER_KEPT = 64


class Mdfp(Role):
    """Serves the models that the DCC deploys here, several, each by its own label."""

    def __init__(self, terminal: Terminal) -> None:
        super().__init__(terminal)
        self.actions |= {"deploy": self.deploy}
        self.commands |= {"serving": self._settings}
        self.serving = Serving(self._infer, terminal.clock, self._busy)
        self._hosted: dict[str, Hosted] = {}
        self._by_label: Recent[Hosted] = Recent(FORMER_KEPT)
        self.onward = Onward(
            Means(
                terminal.plan.address, self._open_line, self._replicas, terminal.complain, terminal.clock,
                lambda label: label in self._by_label,
            )
        )  # fmt: skip
        self.answering = Answering(terminal, self._model, self.serving, self.onward)
        self.streams = Streams(terminal, self._model, self.answering)
        self.moving = Moving(terminal, self._by_label.get)
        self.metrics = OwnMetrics(terminal.metrics, self._warn)
        self._activity = contextlib.ExitStack()

    def attributes(self) -> dict[str, Any]:
        now_s = self.terminal.clock()
        hosted = list(self._hosted.values())
        measured = [h.service_ms for h in hosted if h.service_ms]
        queue = {"queue": self.terminal.queue + self.serving.in_flight + self.streams.waiting}
        models = {"models": [h.told(now_s) for h in hosted]}
        about = super().attributes() | queue | models | {"latency_ms": round(max(measured, default=0.0), 2)}
        self.metrics.about = about | {"name": self.terminal.name, "kas": self.terminal.plan.kas}
        return about | ({"metrics": self.metrics.values} if self.metrics.declared else {})

    def start(self) -> None:
        self.metrics.start(self.terminal.stopping)

    def _warn(self, text: str) -> None:
        self.terminal.emit("warning", text=f"{self.terminal.name}: {text}", node=self.terminal.name)

    def deploy(self, obj: ReceivedObject, order: Order) -> None:
        """Load a model and say so at once; a newer one of the same task and variant takes the place of the one here.

        The old one's label goes on being answered, by the new one: who knows only that loses no query.
        """
        plain = order.task or self.terminal.task.name
        if plain != self.terminal.task.name:
            raise HostError(f"order to deploy task {plain!r}, this testbed runs {self.terminal.task.name!r}")
        task, label = variant_task(plain, order.variant), object_label(obj.object_id)
        if task not in self._hosted and len(self._hosted) >= MAX_HOSTED:
            raise HostError(f"{self.terminal.name} serves {MAX_HOSTED} models already: no room for {task}")
        model = Answerer(self.terminal.task, obj.payload, order.way)
        new = Hosted(label, obj.object_id, task, model, order.accuracy, self.terminal.clock(), order.variant)
        new.for_object = order.for_object
        former = self._hosted.get(task)
        self._by_label.note(label, new)
        for old, hosted in list(self._by_label.items()):
            if former is not None and hosted is former:
                self._by_label[old] = new
        self._hosted[task] = new
        self.onward.know(model.partners)
        self.terminal.emit(
            "model.deployed", object_id=obj.object_id, node=self.terminal.name, task=task, accuracy=order.accuracy
        )
        self.terminal.touch()

    def serve_dcc(self, message: OfModels) -> Message:
        """Send a copy of a model on, or end one that nobody is led to any more."""
        if isinstance(message, Copy):
            return self.moving.copy(message)
        if not isinstance(message, Retire):
            return super().serve_dcc(message)
        hosted = self._by_label.pop(message.label, None)
        if hosted is not None and hosted.label == message.label and self._hosted.get(hosted.task) is hosted:
            del self._hosted[hosted.task]
        self.onward.gone(message.label)
        self.terminal.touch()
        return Ack()

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
        if header.type is PacketType.QUERY and self.answering.came_before(header, peer):
            return
        try:
            message = decode_message(payload)
        except msgspec.DecodeError as error:
            self.terminal.emit("packet.refused", reason="message", node=self.terminal.name, sender=peer[0])
            self.answering.reply(header, peer, f"no message of ours: {str(error)[:200]}".encode(), PacketType.ERROR)
            return
        if isinstance(message, Ask):
            self.answering.take(Query(header, peer, message, self.terminal.clock()))
        elif isinstance(message, AskPart):
            self.streams.take(header, peer, message)
        else:
            self.answering.reply(header, peer, encode_message(self.answer(message)))

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

    def _open_line(self, awaited: Callable[[int], bool]) -> Ports:
        terminal = self.terminal
        return Ports(terminal.plan.address, terminal.guard, partial(terminal.emit, node=terminal.name), awaited)

    def _replicas(self, task: str) -> Replicas:
        return self.terminal.dcc.ask(AskReplicas(name=self.terminal.name, task=task), Replicas, attempts=1)

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
            answers: list[Found | str] = list(hosted.model.run(asks))
        except LearningError as error:
            answers = [str(error)] if len(asks) == 1 else [self._alone(hosted, a) for a in asks]
        except Exception as error:
            self.terminal.complain(f"query to {self.terminal.name}: {error!r}")
            answers = [f"{self.terminal.name} failed on this question"] * len(asks)
        finally:
            meter.end()
        infer_ms = (time.perf_counter() - began_s) * 1e3 / len(asks)
        return [self.answering.message(hosted, a, f, infer_ms) for a, f in zip(asks, answers, strict=True)]

    def _busy(self, busy: bool) -> None:
        if busy:
            self._activity.enter_context(self.terminal.activities.doing("serving", 0))
        else:
            self._activity.close()
            self.terminal.touch()

    def _alone(self, hosted: Hosted, ask: Ask) -> Found | str:
        try:
            return hosted.model.run([ask])[0]
        except LearningError as error:
            return str(error)
