"""Queries of many samples at a query owner: put, their answers taken in order, ended."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import msgspec

from hosts.control import Command
from hosts.errors import BadCommand, HostError
from hosts.inference.asking import Means, Sample
from hosts.inference.streaming import Streaming
from hosts.terminal.terminal import Terminal
from packets.messages import AskReplicas, Need, Replicas, StreamPart
from packets.queries import MAX_STREAM, variant_task

REPLICAS_S = 2.0  # for the control centre's word on who else could answer
OPEN, IDLE_S = 4, 60.0  # streams, as many as an MDFP takes of one asker; until one whose answers nobody takes is over


class OpenStream:
    """A query of many samples whose answers are taken one part after the other, and what came of it so far."""

    def __init__(self, name: str, group: str, streaming: Streaming, expected: Sequence[str]) -> None:
        self.name, self.group, self.streaming, self._expected = name, group, streaming, expected
        self.over = False
        self._lock = threading.Lock()
        self._began_s = self._taken_s = time.perf_counter()
        self._first_ms = self._last_ms = 0.0
        self._outcomes: Counter[str] = Counter()
        self._models: Counter[str] = Counter()

    def more(self) -> list[Command]:
        """Return the next answers, in order; none once it is over."""
        with self._lock:
            try:
                parts = self.streaming.more() if not self.over else []
                self.over = self.over or not parts or self.streaming.order.over
            except HostError:
                self.over = True
                raise
            finally:
                self._taken_s = time.perf_counter()
                if self.over:
                    self.streaming.close()
            return [answer for part in parts for answer in self._answers(part)]

    def _answers(self, part: StreamPart) -> Iterator[Command]:
        self._last_ms = (time.perf_counter() - self._began_s) * 1e3
        self._first_ms = self._first_ms or self._last_ms
        self._models[part.answered_by] += len(part.answers)
        for index, given in enumerate(part.answers):
            number = part.number * part.size + index
            expected = self._expected[number]
            self._outcomes["refused" if given.refused else "answered"] += 1
            self._outcomes["judged"] += bool(expected)
            self._outcomes["right"] += bool(expected) and given.answer == expected
            yield {
                "number": number + 1, "part": part.number + 1, "answer": given.answer, "refused": given.refused,
                "confidence": given.confidence, "expected": expected, "answered_by": part.answered_by,
                "model": part.state.label, "after_ms": round(self._last_ms, 3),
            }  # fmt: skip

    def idle_s(self) -> float:
        """Return since when nobody has taken answers (0: somebody waits for them now)."""
        return 0.0 if self._lock.locked() else time.perf_counter() - self._taken_s

    def figures(self) -> Command:
        """Return what came of it so far; ``latency_ms``: from the asking to the last answer."""
        order, counts = self.streaming.order, self._outcomes
        return {
            "id": self.name, "samples": order.total, "parts": order.parts, "first_ms": round(self._first_ms, 3),
            "latency_ms": round(self._last_ms, 3), "asked_again": self.streaming.repeats, "models": dict(self._models),
            **{name: counts[name] for name in ("answered", "refused", "judged", "right")},
        }  # fmt: skip


class AskerStreams:
    """The streams of one asker. ``numbers``: of its queries; ``pick``: draws a sample of a group for a task; ``need``:
    reads one from a command.
    """

    def __init__(
        self,
        terminal: Terminal,
        numbers: Iterator[int],
        pick: Callable[[str, str], Sample],
        need: Callable[[Command], Need],
    ) -> None:
        self.terminal, self._numbers, self._pick, self._need = terminal, numbers, pick, need
        self._open: dict[str, OpenStream] = {}
        self.commands: dict[str, Callable[[Command], Command]] = {
            "stream": self.begin, "stream_next": self.more, "stream_stop": self.stop,
        }  # fmt: skip

    def begin(self, command: Command) -> Command:
        """Put many samples as one query: {"count" | "samples", "group"?, "need"?, "way"?}; its answers: ``more``."""
        name = self.terminal.name
        if len(self._open) >= OPEN:
            raise BadCommand(f"{OPEN} streams are open at {name}; take their answers, or end one")
        task = variant_task(command.get("task", self.terminal.task.name), str(command.get("way") or ""))
        samples, need = self._samples(command, task), self._need(command)

        def replicas() -> Replicas:
            question = AskReplicas(name=name, task=task, need=need)
            return self.terminal.dcc.ask(question, Replicas, attempts=1, timeout_s=REPLICAS_S)

        emit = partial(self.terminal.emit, node=name)
        means = Means(self.terminal.plan.address, self.terminal.guard, emit, replicas, self.terminal.clock)
        streaming = Streaming(means, task, need, [sample for sample, _ in samples])
        query, group = f"{name}-{next(self._numbers)}", str(command.get("group") or "")
        self._open[query] = OpenStream(query, group, streaming, [expected for _, expected in samples])
        about = {"samples": len(samples), "parts": streaming.order.parts}
        self.terminal.emit("query.sent", id=query, node=name, task=task, **about)
        return {"id": query, **about}

    def _samples(self, command: Command, task: str) -> list[Sample]:
        count = command.get("count", 1)
        if not isinstance(count, int) or not 1 <= count <= MAX_STREAM:
            raise BadCommand(f"count: {count!r}; give a number from 1 to {MAX_STREAM}")
        try:
            own = msgspec.convert(command.get("samples") or [], list[list[float]])
        except msgspec.ValidationError as error:
            raise BadCommand(f"samples: {error}; give lists of numbers") from None
        group = str(command.get("group") or "")
        return [(sample, "") for sample in own] or [self._pick(group, task) for _ in range(count)]

    def more(self, command: Command) -> Command:
        """Wait for the next answers of a stream, in order: {"id"}; ``over`` with the last ones."""
        stream = self._stream(command)
        try:
            answers = stream.more()
        except HostError:
            self._open.pop(stream.name, None)
            raise
        found = stream.figures()
        if stream.over and self._open.pop(stream.name, None) is not None and found["models"]:
            self.terminal.emit(
                "query.answered", node=self.terminal.name, group=stream.group, expected="",
                answer=f"{found['answered']} of {found['samples']} samples in {found['parts']} parts",
                answered_by=", ".join(found["models"]), **found,
            )  # fmt: skip
        return {"answers": answers, "over": stream.over, **found}

    def stop(self, command: Command) -> Command:
        """End a stream now: {"id"}; whoever waits for its next answers is told that it is over."""
        stream = self._stream(command)
        stream.streaming.stop()
        return stream.figures()

    def _stream(self, command: Command) -> OpenStream:
        stream = self._open.get(str(command.get("id")))
        if stream is None:
            known = ", ".join(self._open) or "none"
            raise BadCommand(f"no stream {command.get('id')!r} is open at {self.terminal.name}; open: {known}")
        return stream

    def tick(self) -> None:
        """Give up streams whose answers nobody takes."""
        for name, stream in list(self._open.items()):
            if stream.idle_s() > IDLE_S and self._open.pop(name, None) is not None:
                stream.streaming.stop()
                stream.more()
