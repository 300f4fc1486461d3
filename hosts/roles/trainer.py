"""A visit: train the model that arrived, on data that is here or is asked for, and let it go on."""

from __future__ import annotations

import threading
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic

import msgspec
import torch

from hosts.errors import HostError, TerminalRefused
from hosts.learning.compress import travelling
from hosts.learning.errors import LearningError
from hosts.learning.spec import Samples, TrainResult, TrainSettings
from hosts.learning.task import bytes_to_model, bytes_to_samples, model_to_bytes
from hosts.learning.ways.models import seen_by, task_of
from hosts.methods.exchange import Exchange
from hosts.methods.members import QUESTIONS, MemberParts
from hosts.roles.base import Role
from hosts.terminal.terminal import Terminal
from packets.errors import TransportError
from packets.messages import Ack, Order, Refused, SendData, VisitDone, decode_message, encode_message
from packets.transport import ReceivedObject
from packets.wire import PacketType

DATA_WAIT_S = 60.0
ASK_DATA_S = 15.0


@dataclass(frozen=True)
class Waiting:
    """A model whose data is on its way."""

    obj: ReceivedObject
    order: Order
    until: float


class Watched(Samples):
    """Samples that are only handed out as long as nobody has said halt: training on them ends at its next batch."""

    __slots__ = ("_halted",)

    def __init__(self, samples: Samples, halted: Callable[[], str]) -> None:
        super().__init__(samples.inputs, samples.labels)
        self._halted = halted

    def take(self, rows: torch.Tensor) -> Samples:
        if why := self._halted():
            raise LearningError(f"training stopped: {why}")
        return super().take(rows)


class Trainer(Role):
    """A terminal at which models train. One visit computes at a time; models whose data is under way wait aside."""

    def __init__(self, terminal: Terminal) -> None:
        super().__init__(terminal)
        self.actions |= {"train": self.train_visit, "use_data": self.use_data, "exchange": self.take_piece}
        self.exchange = Exchange(terminal)
        self._parts = MemberParts(terminal, self.exchange)
        self._waiting: dict[int, Waiting] = {}
        self._waiting_lock = threading.Lock()

    @property
    def waiting(self) -> list[int]:
        """The objects whose data is under way."""
        return list(self._waiting)

    # --- training together ---

    def _obey(self, obj: ReceivedObject) -> None:
        if self.exchange.is_straight(obj.object_id) and obj.visit:
            self.exchange.keep(self.exchange.arrived(obj))
        else:
            super()._obey(obj)

    def take_piece(self, obj: ReceivedObject, order: Order) -> None:
        """A piece of training in a group: a question is answered, an answer waits for who asked."""
        piece = self.exchange.arrived(obj)
        if piece.envelope.kind in QUESTIONS:
            self._parts.answer(piece)
        else:
            self.exchange.keep(piece)

    # --- visits ---

    def train_visit(self, obj: ReceivedObject, order: Order) -> None:
        """Train on own data when the order names this node, else send for it and train when it is here."""
        if order.task and order.task != self.terminal.task.name:
            self.give_up_visit(obj, order, f"no task {order.task!r} here, but {self.terminal.task.name!r}", lost=False)
        elif order.data_node in ("", self.terminal.name):
            self._train_on_own(obj, order)
        else:
            self._send_for_data(obj, order)

    def _train_on_own(self, obj: ReceivedObject, order: Order) -> None:
        if self.terminal.data is None:
            self.give_up_visit(obj, order, f"{self.terminal.name} holds no data of its own", lost=False)
        else:
            self._train(obj, order, self.terminal.data.train, self.terminal.name)

    def _send_for_data(self, obj: ReceivedObject, order: Order) -> None:
        with self._waiting_lock:
            self._waiting[obj.object_id] = Waiting(obj, order, monotonic() + DATA_WAIT_S)
        try:
            self._ask_for_data(obj, order)
        except (TransportError, HostError) as error:
            if self._stop_waiting(obj.object_id) is not None:
                self.give_up_visit(obj, order, f"no data from {order.data_node}: {error}", lost=False)

    def _ask_for_data(self, obj: ReceivedObject, order: Order) -> None:
        message = SendData(name=self.terminal.name, for_object=obj.object_id, visit=obj.visit, task=order.task)
        with self.terminal.activities.doing("receiving", obj.object_id):
            _, payload = self.terminal.network.request(
                encode_message(message), to=order.data_address, type=PacketType.ANNOUNCE, timeout_s=ASK_DATA_S,
                object_id=obj.object_id,
            )  # fmt: skip
        try:
            reply = decode_message(payload)
        except msgspec.DecodeError:
            raise TerminalRefused(f"{order.data_node} answered with bytes that are no message") from None
        if not isinstance(reply, Ack):
            raise TerminalRefused(
                reply.reason if isinstance(reply, Refused) else f"it answered {reply.__class__.__name__}"
            )

    def _stop_waiting(self, object_id: int) -> Waiting | None:
        with self._waiting_lock:
            return self._waiting.pop(object_id, None)

    def use_data(self, obj: ReceivedObject, order: Order) -> None:
        """Data arrived for a model that waits here: train on it, then let it go."""
        waiting = self._stop_waiting(order.for_object)
        if waiting is None:
            raise HostError(f"data for object {order.for_object:#x}, which does not wait here (any more): dropped")
        try:
            samples = bytes_to_samples(self.terminal.task, obj.payload)
        except LearningError as error:
            self.give_up_visit(
                waiting.obj, waiting.order, f"bad data of {waiting.order.data_node}: {error}", lost=False
            )
            return
        self._train(waiting.obj, waiting.order, samples, waiting.order.data_node)

    def tick(self) -> None:
        """Let models go on whose data did not come in time."""
        now = monotonic()
        for object_id in [i for i, w in list(self._waiting.items()) if w.until <= now]:
            late = self._stop_waiting(object_id)
            if late is not None:
                self.terminal.submit(lambda late=late: self._too_late(late))  # type: ignore[misc]

    def _too_late(self, late: Waiting) -> None:
        try:
            why = f"data of {late.order.data_node} did not come in {DATA_WAIT_S:g} s"
            self.give_up_visit(late.obj, late.order, why, lost=False)
        except HostError as error:
            self.terminal.complain(str(error), object_id=late.obj.object_id)

    def _train(self, obj: ReceivedObject, order: Order, samples: Samples, data_node: str) -> None:
        try:
            task = task_of(self.terminal.task, order.model)
        except LearningError as error:
            self.give_up_visit(obj, order, str(error), lost=False)
            return
        try:
            model = bytes_to_model(task, obj.payload)
        except LearningError as error:
            self.give_up_visit(obj, order, f"not a model of task {task.name}: {error}", lost=True)
            return
        try:
            watched = Watched(seen_by(task, samples), lambda: self.halted(obj.object_id))
            with self.terminal.computing("training", obj.object_id):
                result = task.train(model, watched, self._settings(order, data_node))
        except LearningError as error:
            self.give_up_visit(obj, order, str(error), lost=False)
            return
        self._tell_trained(obj, order, result, data_node)
        self.go_on(obj, model_to_bytes(model, travelling(order.compression)))

    def _settings(self, order: Order, data_node: str) -> TrainSettings:
        """The order's hyper-parameters; the seed is the run's, so that a journey repeats wherever it trains."""
        seed = zlib.crc32(f"{self.terminal.seed}/{data_node}/{order.visit}".encode())
        return TrainSettings(
            epochs=order.epochs, batch_size=order.batch_size, learning_rate=order.learning_rate,
            group_weights=order.group_weights, seed=seed,
        )  # fmt: skip

    def _tell_trained(self, obj: ReceivedObject, order: Order, result: TrainResult, data_node: str) -> None:
        terminal = self.terminal
        terminal.meter.trained(result.samples * order.epochs, result.seconds)
        terminal.emit(
            "visit.trained", object_id=obj.object_id, visit=obj.visit, node=terminal.name, facility=terminal.name,
            data_node=data_node, kas=terminal.plan.kas, loss=result.loss, samples=result.samples, epochs=order.epochs,
            seconds=result.seconds,
        )  # fmt: skip
        done = VisitDone(
            name=terminal.name, object_id=obj.object_id, visit=obj.visit, data_node=data_node, samples=result.samples,
            epochs=order.epochs, loss=result.loss, train_s=result.seconds,
        )  # fmt: skip
        self.guide(obj.object_id, obj.visit).done(done)
