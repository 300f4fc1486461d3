"""Streams at a query owner: begun, taken part by part, ended, given up; what is told of them."""

from __future__ import annotations

import itertools
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest

from hosts.errors import BadCommand, StreamBroken
from hosts.roles import asker_streams
from hosts.roles.asker_streams import AskerStreams
from packets.messages import Need, State, StreamPart
from packets.queries import Given


class Scripted:
    """A stream whose parts come as ``script`` says: numbers, or an error."""

    script: ClassVar[list[list[int] | Exception]] = []

    def __init__(self, means: Any, task: str, need: Need, samples: list[Any]) -> None:
        self.task, self.samples, self.repeats, self.closed, self.stopped = task, samples, 2, False, False
        self.order = SimpleNamespace(total=len(samples), parts=-(-len(samples) // 8), over=False)
        self.left = list(self.script)

    def more(self) -> list[StreamPart]:
        said = [] if self.stopped or not self.left else self.left.pop(0)
        if isinstance(said, Exception):
            raise said
        self.order.over = not self.left
        return [self.part(number) for number in said]

    def part(self, number: int) -> StreamPart:
        answers = [Given(answer="yes") for _ in self.samples[8 * number : 8 * number + 8]]
        return StreamPart(stream=1, total=len(self.samples), size=8, number=number, answers=answers,
                          answered_by=f"mdfp{number % 2}", state=State(label=3))  # fmt: skip

    def stop(self) -> None:
        self.stopped = True

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    monkeypatch.setattr(asker_streams, "Streaming", Scripted)
    monkeypatch.setattr(Scripted, "script", [[0], [1, 2]])
    events: list[tuple[str, dict[str, Any]]] = []

    def emit(kind: str, /, **data: Any) -> None:
        events.append((kind, data))

    terminal: Any = SimpleNamespace(
        name="asker1", task=SimpleNamespace(name="t"), emit=emit, guard=None, clock=lambda: 0.0, dcc=None,
        plan=SimpleNamespace(address="10.1.1.1"),
    )  # fmt: skip
    expected = itertools.cycle(["yes", "no"])
    one = AskerStreams(terminal, itertools.count(1), lambda *asked: ([1.0], next(expected)), lambda command: Need())
    return SimpleNamespace(streams=one, events=events)


def test_answers_come_in_order_with_what_is_right_and_the_figures_at_the_end(bench: Any) -> None:
    begun = bench.streams.begin({"count": 20, "group": "cardiology"})
    assert begun == {"id": "asker1-1", "samples": 20, "parts": 3}
    assert bench.events == [
        ("query.sent", {"id": "asker1-1", "node": "asker1", "task": "t", "samples": 20, "parts": 3})
    ]
    first = bench.streams.more({"id": "asker1-1"})
    assert [a["number"] for a in first["answers"]] == list(range(1, 9)) and not first["over"]
    assert {a["part"] for a in first["answers"]} == {1} and first["right"] == 4
    assert first["answers"][1] == {
        "number": 2, "part": 1, "answer": "yes", "refused": "", "confidence": 0.0, "expected": "no", "model": 3,
        "answered_by": "mdfp0", "after_ms": first["first_ms"],
    }  # fmt: skip
    last = bench.streams.more({"id": "asker1-1"})
    assert [a["number"] for a in last["answers"]] == list(range(9, 21)) and last["over"]
    assert (last["answered"], last["right"], last["judged"], last["refused"]) == (20, 10, 20, 0)
    assert last["models"] == {"mdfp0": 12, "mdfp1": 8} and last["asked_again"] == 2
    assert 0 < last["first_ms"] < last["latency_ms"]
    kind, told = bench.events[-1]
    assert kind == "query.answered" and (told["id"], told["parts"], told["group"]) == ("asker1-1", 3, "cardiology")
    assert (told["answer"], told["expected"], told["answered_by"]) == (
        "20 of 20 samples in 3 parts",
        "",
        "mdfp0, mdfp1",
    )
    with pytest.raises(BadCommand, match="no stream 'asker1-1' is open at asker1; open: none"):
        bench.streams.more({"id": "asker1-1"})


def test_one_that_is_stopped_is_over_and_tells_what_came(bench: Any) -> None:
    bench.streams.begin({"count": 20})
    bench.streams.more({"id": "asker1-1"})
    assert bench.streams.stop({"id": "asker1-1"})["answered"] == 8
    last = bench.streams.more({"id": "asker1-1"})
    assert last["over"] and last["answers"] == [] and last["answered"] == 8
    assert bench.events[-1][1]["answer"] == "8 of 20 samples in 3 parts"


def test_one_that_breaks_ends_with_the_error_and_is_open_no_longer(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Scripted, "script", [[0], StreamBroken("part 2 of 3 did not come")])
    bench.streams.begin({"count": 20})
    bench.streams.more({"id": "asker1-1"})
    with pytest.raises(StreamBroken, match="part 2 of 3"):
        bench.streams.more({"id": "asker1-1"})
    with pytest.raises(BadCommand, match="open: none"):
        bench.streams.stop({"id": "asker1-1"})
    assert [kind for kind, _ in bench.events] == ["query.sent"]


def test_open_streams_are_bounded_and_those_whose_answers_nobody_takes_are_given_up(
    bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(asker_streams.OPEN):
        bench.streams.begin({"count": 20})
    with pytest.raises(BadCommand, match="4 streams are open at asker1"):
        bench.streams.begin({"count": 20})
    bench.streams.tick()
    assert bench.streams.more({"id": "asker1-2"})["answered"] == 8, "not for a while yet"
    monkeypatch.setattr(asker_streams, "IDLE_S", 0.0)
    bench.streams.tick()
    bench.streams.begin({"count": 20})
    with pytest.raises(BadCommand, match="open: asker1-5"):
        bench.streams.more({"id": "asker1-2"})


@pytest.mark.parametrize(
    ("command", "hint"),
    [
        ({"count": 0}, "from 1 to 1024"),
        ({"count": 1025}, "from 1 to 1024"),
        ({"count": "many"}, "from 1 to 1024"),
        ({"samples": [["a"]]}, "lists of numbers"),
    ],
)
def test_a_stream_that_makes_no_sense_is_a_bad_command(bench: Any, command: dict[str, Any], hint: str) -> None:
    with pytest.raises(BadCommand, match=hint):
        bench.streams.begin(command)
    assert bench.events == []
