"""MDFP: hosts deployed models and answers queries with them."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from torch import nn

from hosts.errors import HostError
from hosts.learning.task import bytes_to_model
from hosts.roles.base import Role
from hosts.terminal.terminal import Terminal
from packets.messages import Answer, AnyMessage, Ask, Message, Order, Refused
from packets.transport import ReceivedObject


@dataclass(frozen=True)
class Hosted:
    """A deployed model, ready to answer."""

    object_id: int
    model: nn.Module
    accuracy: dict[str, float]


class Mdfp(Role):
    """Loads the models that the DCC deploys here and answers queries of their tasks."""

    def __init__(self, terminal: Terminal) -> None:
        super().__init__(terminal)
        self.actions |= {"deploy": self.deploy}
        self._hosted: dict[str, Hosted] = {}
        self._latency_ms = 0.0

    def attributes(self) -> dict[str, Any]:
        return super().attributes() | {"models": sorted(self._hosted), "latency_ms": round(self._latency_ms, 2)}

    def deploy(self, obj: ReceivedObject, order: Order) -> None:
        """Load a model and say so at once; a newer model of the same task replaces the one here."""
        task = order.task or self.terminal.task.name
        if task != self.terminal.task.name:
            raise HostError(f"order to deploy task {task!r}, this testbed runs {self.terminal.task.name!r}")
        model = bytes_to_model(self.terminal.task, obj.payload)
        model.eval()
        self._hosted[task] = Hosted(obj.object_id, model, order.accuracy)
        self.terminal.emit(
            "model.deployed", object_id=obj.object_id, node=self.terminal.name, task=task, accuracy=order.accuracy
        )
        self.terminal.touch()

    def answer(self, message: AnyMessage) -> Message:
        if not isinstance(message, Ask):
            return super().answer(message)
        hosted = self._hosted.get(message.task)
        if hosted is None:
            return Refused(reason=f"{self.terminal.name} hosts no model of task {message.task!r}")
        return self._infer(message, hosted)

    def _infer(self, message: Ask, hosted: Hosted) -> Answer:
        started = time.perf_counter()
        with self.terminal.computing("serving", hosted.object_id):
            label, confidence = self.terminal.task.ask(hosted.model, message.sample)
        infer_ms = (time.perf_counter() - started) * 1e3
        self._latency_ms += (infer_ms - self._latency_ms) * (0.2 if self._latency_ms else 1.0)
        return Answer(
            answer=label, confidence=confidence, model_accuracy=hosted.accuracy, answered_by=self.terminal.name,
            infer_ms=infer_ms,
        )  # fmt: skip
