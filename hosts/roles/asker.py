"""Query owner: puts queries to the network, which finds the model that answers them."""

from __future__ import annotations

import itertools
import random
import time
from typing import Any

import msgspec

from hosts.autonomy.queries import ask_straight
from hosts.control import Command
from hosts.errors import BadCommand, TerminalRefused
from hosts.inference.asking import Means, Sample
from hosts.inference.load import Load, LoadSpec
from hosts.learning.errors import LearningError
from hosts.learning.ways.models import both_of
from hosts.roles.asker_streams import AskerStreams
from hosts.roles.base import Role
from hosts.terminal.terminal import Terminal
from packets.labels import label_address
from packets.messages import Ack, Answer, Ask, AskReplicas, Need, Refused, Replicas, decode_message, encode_message
from packets.queries import query_label, variant_task
from packets.terms import MAX_SAMPLE
from packets.wire import PacketType

ANSWER_TIMEOUT_S = 15.0
MULTIMODAL = "multimodal"  # the variant that is asked findings and vitals


class QueryOwner(Role):
    """Asks for answers of a class of models, names no place."""

    def __init__(self, terminal: Terminal) -> None:
        super().__init__(terminal)
        self.commands |= {
            "query": self._query, "load": self._load, "load_result": self._load_result, "load_stop": self._load_stop,
            "drift": self._drift,
        }  # fmt: skip
        self._loads: list[Load] = []
        self._numbers = itertools.count(1)
        self._rng = random.Random(f"{terminal.seed}/{terminal.name}")
        self._streams = AskerStreams(terminal, self._numbers, self._drawn, self._need)
        self.commands |= self._streams.commands

    def _query(self, command: Command) -> Command:
        task = variant_task(command.get("task", self.terminal.task.name), str(command.get("way") or ""))
        sample, expected = self._sample(command, task)
        query = f"{self.terminal.name}-{next(self._numbers)}"
        self.terminal.emit("query.sent", id=query, node=self.terminal.name, task=task)
        started = time.perf_counter()
        need = self._need(command)
        question = Ask(task=task, sample=sample, need=need, answer_to=str(command.get("answer_to") or ""))
        answer = self._answer_to(question, straight=bool(command.get("aats")))
        latency_ms = (time.perf_counter() - started) * 1e3
        result = {
            "answered_by": answer.answered_by,
            "answer": answer.answer,
            "expected": expected,
            "latency_ms": latency_ms,
            "cached": answer.cached,
        }
        self.terminal.emit(
            "query.answered", id=query, node=self.terminal.name, group=command.get("group", ""), **result
        )
        return {"id": query, "confidence": answer.confidence, "infer_ms": answer.infer_ms, **result}

    def tick(self) -> None:
        self._streams.tick()

    @staticmethod
    def _need(command: Command) -> Need:
        try:
            return msgspec.convert(command.get("need") or {}, Need)
        except msgspec.ValidationError as error:
            raise BadCommand(f"need: {error}") from None

    # --- under load ---

    def _load(self, command: Command) -> Command:
        """Begin to ask by a pattern: {"spec": ``LoadSpec``}; returns at once."""
        try:
            spec = msgspec.convert(command.get("spec") or {}, LoadSpec)
        except msgspec.ValidationError as error:
            raise BadCommand(f"load: {error}") from None
        samples = self._samples(spec)
        task, name = variant_task(self.terminal.task.name, spec.way), self.terminal.name

        def replicas() -> Replicas:
            return self.terminal.dcc.ask(AskReplicas(name=name, task=task, need=spec.need), Replicas, attempts=1)

        def emit(kind: str, /, **data: Any) -> None:
            self.terminal.emit(kind, node=name, **data)

        means = Means(self.terminal.plan.address, self.terminal.guard, emit, replicas, self.terminal.clock)
        number = len(self._loads)
        self._loads.append(Load(spec, means, task, samples, self.terminal.folder / f"load{number}"))
        return {"load": number}

    def _samples(self, spec: LoadSpec) -> list[Sample]:
        rng = random.Random(f"{spec.seed}/{spec.asker}/samples")
        task = variant_task(self.terminal.task.name, spec.way)
        return [self._picked(spec.group, rng, task) for _ in range(spec.samples)]

    def _drift(self, command: Command) -> Command:
        """The world that is asked about changes, also for loads that are under way: {"group", "seed"}."""
        self.drift_world(command)
        under_way = [load for load in self._loads if not load.asking.over.is_set()]
        for load in under_way:
            load.asking.samples = self._samples(load.spec)
        return {"loads": len(under_way)}

    def _load_result(self, command: Command) -> Command:
        """Return how a load stands: {"load", "wait_s"?}."""
        return self._load_of(command).result(float(command.get("wait_s") or 0.0))

    def _load_stop(self, command: Command) -> Command:
        """End a load now: {"load"}."""
        load = self._load_of(command)
        load.asking.stop()
        return load.result(5.0)

    def _load_of(self, command: Command) -> Load:
        number = command.get("load", len(self._loads) - 1)
        if not isinstance(number, int) or not 0 <= number < len(self._loads):
            raise BadCommand(f"no load {number!r} at {self.terminal.name}; there were {len(self._loads)}")
        return self._loads[number]

    # --- one query ---

    def _sample(self, command: Command, task: str) -> tuple[list[float], str]:
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
        return self._drawn(str(command.get("group") or ""), task)

    def _drawn(self, group: str, asked: str) -> tuple[list[float], str]:
        return self._picked(group, self._rng, asked)

    def _picked(self, group: str, rng: random.Random, asked: str) -> tuple[list[float], str]:
        """Draw a sample of a group for a task or a variant of it: findings, with vitals where both are asked for."""
        task = self.terminal.task
        if group and group not in task.groups:
            raise BadCommand(f"no group {group!r} in task {task.name}; it has: {', '.join(task.groups)}")
        held = self.terminal.queries
        sample, expected = task.pick(held, group, rng) if held is not None else task.sample_of(group, rng)
        if asked != variant_task(task.name, MULTIMODAL):
            return sample, expected
        try:
            return both_of(task, sample, expected), expected
        except LearningError as error:
            raise BadCommand(f"way {MULTIMODAL}: {error}") from None

    def _answer_to(self, question: Ask, *, straight: bool) -> Answer:
        """Have a question answered, by a model that the network finds, or (``straight``) that is found from here."""
        if len(question.sample) > MAX_SAMPLE:
            raise BadCommand(f"sample of {len(question.sample)} numbers; a query takes {MAX_SAMPLE}")
        reply = ask_straight(self.terminal, question, random.Random()) if straight else self._ask(question)
        return reply if isinstance(reply, Answer) else Answer(answer="", confidence=0.0, answered_by=question.answer_to)

    def _ask(self, question: Ask) -> Answer | Ack:
        label = query_label(question.task, question.need)
        with self.terminal.activities.doing("sending", label):
            _, payload = self.terminal.network.request(
                encode_message(question), to=label_address(label), type=PacketType.QUERY, timeout_s=ANSWER_TIMEOUT_S,
                object_id=label,
            )  # fmt: skip
        try:
            reply = decode_message(payload)
        except msgspec.DecodeError:
            raise TerminalRefused("the answer was no message of ours") from None
        if isinstance(reply, Answer | Ack):
            return reply
        raise TerminalRefused(
            reply.reason if isinstance(reply, Refused) else f"answered with {reply.__class__.__name__}"
        )
