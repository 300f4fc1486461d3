"""A query of many samples on a standing network: taken in order, ended, told of, shown."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from experiments.cli import app
from experiments.commands.asking.told import answer_in_words, stream_summary
from experiments.errors import ExperimentError, RunFailed
from experiments.streams import RunningStream
from packets.queries import Need, query_label


class Bed:
    """One asker whose stream has three parts; ``breaks``: at which one it ends with an error."""

    def __init__(self, breaks: int = 9) -> None:
        self.breaks, self.told = breaks, list[tuple[str, dict[str, Any]]]()
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.scenario = SimpleNamespace(name="mine", data=SimpleNamespace(name="t"))
        self.hub = SimpleNamespace(emit=lambda kind, **data: self.events.append((kind, data)))
        self.parts = itertools.count()

    def terminals(self, role: str) -> list[str]:
        return ["asker1"] if role == "query_owner" else []

    def tell(self, name: str, op: str, timeout_s: float, **arguments: Any) -> dict[str, Any]:
        self.told.append((op, arguments))
        if op == "stream":
            return {"ok": True, "id": "asker1-1", "samples": 6, "parts": 3}
        if op == "stream_stop":
            raise ExperimentError("no stream 'asker1-1' is open")
        part = next(self.parts)
        if part == self.breaks:
            raise RunFailed(f"{name} refused 'stream_next': part {part + 1} of 3 did not come")
        answers = [{"number": 2 * part + 1}, {"number": 2 * part + 2}]
        return {"ok": True, "id": "asker1-1", "answers": answers, "over": part == 2, "answered": 2 * part + 2}


def stream(bed: Any, count: int = 6) -> RunningStream:
    return RunningStream(bed, "cardiology", count, need={"broad_accuracy": 0.8})


def test_answers_come_in_order_and_its_class_is_told() -> None:
    bed = Bed()
    one = stream(bed)
    assert [a["number"] for a in one] == [1, 2, 3, 4, 5, 6]
    assert one.figures == {"id": "asker1-1", "answered": 6} and not one.stopped
    assert [op for op, _ in bed.told] == ["stream", "stream_next", "stream_next", "stream_next"]
    ((kind, told),) = bed.events
    label = query_label("t", Need(broad_accuracy=0.8))
    assert kind == "query.classed" and (told["id"], told["label"], told["refused"]) == ("asker1-1", label, "")


def test_who_leaves_early_ends_it() -> None:
    bed = Bed()
    one = stream(bed)
    for answer in one:
        if answer["number"] == 3:
            break
    assert one.stopped and bed.told[-1] == ("stream_stop", {"id": "asker1-1"})


def test_what_broke_it_is_told_with_its_class() -> None:
    bed = Bed(breaks=1)
    with pytest.raises(RunFailed, match="part 2 of 3"):
        list(stream(bed))
    assert bed.events[0][1]["refused"] == "part 2 of 3 did not come"


def test_bounds_are_said_before_anything_is_done() -> None:
    for count in (0, 1025):
        with pytest.raises(ExperimentError, match="1 to 1024"):
            stream(Bed(), count)


def test_it_reads_as_a_person_can_read_it() -> None:
    answer = {"number": 7, "part": 1, "answer": "angina", "expected": "angina", "confidence": 0.9, "refused": "",
              "answered_by": "mdfp1", "after_ms": 33.4}  # fmt: skip
    assert answer_in_words(answer) == "    7  angina (right) [dim]part 1, mdfp1, 33 ms[/]"
    assert "(expected flu)" in answer_in_words(answer | {"expected": "flu"})
    assert "(0.90)" in answer_in_words(answer | {"expected": ""})
    assert "takes 12" in answer_in_words(answer | {"answer": "", "refused": "a sample takes 12"})
    result = {"id": "a-1", "samples": 40, "parts": 5, "answered": 39, "refused": 1, "judged": 39, "right": 37,
              "asked_again": 2, "first_ms": 12.0, "latency_ms": 80.0, "models": {"mdfp1": 24, "mdfp3": 16},
              "stopped": False}  # fmt: skip
    assert stream_summary(result) == (
        "39 of 40 answered by mdfp1 (24) and mdfp3 (16), 5 parts: first part after 12.0 ms, all after 80.0 ms, "
        "37 of 39 right, 1 refused, 2 asked again [dim](a-1)[/]"
    )
    assert stream_summary(result | {"models": {}}).startswith("no answer")
    assert "ended early" in stream_summary(result | {"stopped": True})


@pytest.mark.parametrize(
    ("words", "named"), [(["--text", "ill"], "--text"), (["--answer-to", "asker2"], "--answer-to")]
)
def test_options_of_one_sample_do_not_go_with_many(words: list[str], named: str) -> None:
    result = CliRunner().invoke(app, ["query", "--count", "5", *words])
    assert isinstance(result.exception, ExperimentError) and named in str(result.exception)
