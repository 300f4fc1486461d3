"""Query owner: puts queries to the network, which finds the model that answers them."""

from __future__ import annotations

import itertools
import random
import time

import msgspec

from hosts.control import Command
from hosts.errors import BadCommand, TerminalRefused
from hosts.learning.errors import LearningError
from hosts.roles.base import Role
from hosts.terminal.terminal import Terminal
from packets.labels import class_label, label_address
from packets.messages import Answer, Ask, Refused, decode_message, encode_message
from packets.terms import MAX_SAMPLE
from packets.wire import PacketType

ANSWER_TIMEOUT_S = 15.0


class QueryOwner(Role):
    """Asks for answers of a class of models, names no place."""

    def __init__(self, terminal: Terminal) -> None:
        super().__init__(terminal)
        self.commands |= {"query": self._query}
        self._numbers = itertools.count(1)
        self._rng = random.Random(f"{terminal.seed}/{terminal.name}")

    def _query(self, command: Command) -> Command:
        task = command.get("task", self.terminal.task.name)
        sample, expected = self._sample(command)
        query = f"{self.terminal.name}-{next(self._numbers)}"
        self.terminal.emit("query.sent", id=query, node=self.terminal.name, task=task)
        started = time.perf_counter()
        answer = self._ask(Ask(task=task, sample=sample))
        latency_ms = (time.perf_counter() - started) * 1e3
        result = {
            "answered_by": answer.answered_by,
            "answer": answer.answer,
            "expected": expected,
            "latency_ms": latency_ms,
        }
        self.terminal.emit(
            "query.answered", id=query, node=self.terminal.name, group=command.get("group", ""), **result
        )
        return {"id": query, "confidence": answer.confidence, "infer_ms": answer.infer_ms, **result}

    def _sample(self, command: Command) -> tuple[list[float], str]:
        """The given sample or text, or an unseen one of the group, whose right answer is known."""
        if "sample" in command:
            try:
                return msgspec.convert(command["sample"], list[float]), ""
            except msgspec.ValidationError as error:
                raise BadCommand(f"sample: {error}; give a list of numbers") from None
        if command.get("text"):
            try:
                return self.terminal.task.sample_from(str(command["text"])), ""
            except LearningError as error:
                raise BadCommand(str(error)) from None
        task, group = self.terminal.task, str(command.get("group") or "")
        if group and group not in task.groups:
            raise BadCommand(f"no group {group!r} in task {task.name}; it has: {', '.join(task.groups)}")
        if self.terminal.queries is not None:
            return task.pick(self.terminal.queries, group, self._rng)
        return task.sample_of(group, self._rng)

    def _ask(self, question: Ask) -> Answer:
        if len(question.sample) > MAX_SAMPLE:
            raise BadCommand(f"sample of {len(question.sample)} numbers; a query takes {MAX_SAMPLE}")
        label = class_label(question.task)
        with self.terminal.activities.doing("sending", label):
            _, payload = self.terminal.network.request(
                encode_message(question), to=label_address(label), type=PacketType.QUERY, timeout_s=ANSWER_TIMEOUT_S,
                object_id=label,
            )  # fmt: skip
        try:
            reply = decode_message(payload)
        except msgspec.DecodeError:
            raise TerminalRefused("the answer was no message of ours") from None
        if isinstance(reply, Answer):
            return reply
        raise TerminalRefused(
            reply.reason if isinstance(reply, Refused) else f"answered with {reply.__class__.__name__}"
        )
