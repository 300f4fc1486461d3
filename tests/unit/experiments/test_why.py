"""``daitn explain QUERY``: why a query went where it went, from the events of a run."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from experiments.cli import app
from experiments.commands.asking.why import explain, is_query, need_in_words, read, say
from experiments.errors import ExperimentError
from packets.events import Event, encode_event

LABEL, PLAIN = 0x0B0_0001, 0x0B0_0002
MODEL = {"model": "1:@mdfp/0#11", "label": 0x11, "weight": 75, "kas": 1, "path_ms": 10.0, "service_ms": 4.0,
         "in_flight": 2, "accuracy": 0.85, "age_s": 0.2}  # fmt: skip
OTHER = MODEL | {"model": "3:@mdfp/0#22", "label": 0x22, "weight": 25, "kas": 3, "path_ms": 1.0, "service_ms": 0.0}
NEED = {"broad_accuracy": 0.8, "deadline_ms": 50}


def events() -> list[Event]:
    plan = {"hosts": [{"name": "asker4", "kas": 4}]}
    answer = {"answered_by": "mdfp1", "answer": "angina", "expected": "angina", "latency_ms": 38.8}
    told: list[tuple[str, dict[str, Any]]] = [
        ("network.up", {"plan": plan}),
        ("model.deployed", {"object_id": 0x500_0000_0000_0011, "node": "mdfp1", "task": "v"}),
        ("model.deployed", {"object_id": 0x22, "node": "mdfp3", "task": "v"}),
        ("model.out", {"node": "mdfp2", "kas": 2, "reason": "no answer"}),
        ("query.steered", {"kas": 4, "task": "v", "label": PLAIN, "need": {}, "models": [OTHER], "first": True}),
        ("query.steered", {"kas": 1, "task": "v", "label": LABEL, "need": {}, "models": [OTHER], "first": True}),
        ("query.sent", {"id": "asker4-1", "node": "asker4", "task": "v"}),
        ("query.steered", {"kas": 4, "task": "v", "label": LABEL, "need": NEED, "models": [MODEL, OTHER],
                           "first": True, "took_ms": 3.2}),
        ("query.answered", {"id": "asker4-1", "node": "asker4", "group": "", **answer}),
        ("query.classed", {"id": "asker4-1", "node": "asker4", "task": "v", "label": LABEL, "need": NEED,
                           "refused": ""}),
        ("query.sent", {"id": "asker4-2", "node": "asker4", "task": "v"}),
        ("query.classed", {"id": "asker4-2", "node": "asker4", "task": "v", "label": 7, "need": {"local": True},
                           "refused": "no model is near"}),
        ("query.sent", {"id": "asker4-3", "node": "asker4", "task": "v"}),
        ("query.classed", {"id": "asker4-3", "node": "asker4", "task": "v", "label": 7, "need": {}, "refused": "",
                           "of_load": True}),
    ]  # fmt: skip
    clock: Iterator[int] = count(1)
    return [Event(kind=kind, source="x", t_unix_s=float(next(clock)), data=data) for kind, data in told]


def test_an_answered_query_has_its_class_who_could_answer_and_what_was_known_of_them() -> None:
    told = explain(events(), "asker4-1")
    one, other = told["models"]
    assert (told["kas"], told["label"], told["need"], told["took_ms"]) == (4, LABEL, NEED, 3.2)
    assert (one["node"], one["share"], one["expected_ms"]) == ("mdfp1", 0.75, 32.0)
    assert (other["node"], other["share"]) == ("mdfp3", 0.25)
    assert told["out"] == [{"node": "mdfp2", "kas": 2, "reason": "no answer"}]
    json.dumps(told)


def text_of(told: dict[str, Any]) -> str:
    console = Console(file=io.StringIO(), width=150)
    say(told, console)
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def test_it_reads_as_a_person_can_read_it() -> None:
    text = text_of(explain(events(), "asker4-1"))
    for words in ("accuracy from 0.8, within 50 ms", "240.176.0.1", "2 models could answer", "first of its class"):
        assert words in text, words
    for words in ("75%", "out: mdfp2, no answer", "answered angina, right, by mdfp1, which had 75% of the class"):
        assert words in text, words


def test_metrics_of_ones_own_and_the_score_have_columns() -> None:
    told = explain(events(), "asker4-1")
    assert "score" not in text_of(told), "as runs of earlier versions wrote it"
    told["models"][0] |= {"metrics": {"power_w": 61.5}, "cats": {"computing": 7.5, "score": 8.25}}
    text = text_of(told)
    for words in ("score", "power_w", "8.25", "61.5", "–"):
        assert words in text, words


def test_the_last_is_the_last_that_a_person_put() -> None:
    told = explain(events(), "last")
    assert told["query"] == "asker4-2" and "refused: no model is near" in text_of(told)
    assert explain(events(), "asker4-3")["query"] == "asker4-3"


def test_an_answer_that_went_elsewhere_is_told() -> None:
    said = events()
    answered = next(e for e in said if e.kind == "query.answered")
    answered.data.update(answer="", expected="", answered_by="10.1.0.2")
    assert "the answer went to 10.1.0.2" in text_of(explain(said, "asker4-1"))


def test_a_stream_says_how_many_were_answered_in_how_many_parts() -> None:
    said = events()
    answered = next(e for e in said if e.kind == "query.answered")
    answered.data.update(answer="40 of 40 samples in 5 parts", expected="", parts=5)
    assert "answered 40 of 40 samples in 5 parts, by mdfp1, which had 75%" in text_of(explain(said, "asker4-1"))


def test_what_is_not_there_is_named() -> None:
    with pytest.raises(ExperimentError, match="no query is called asker4-9; there are: asker4-1, asker4-2"):
        explain(events(), "asker4-9")
    with pytest.raises(ExperimentError, match="no query was put"):
        explain(events()[:3], "last")


@pytest.mark.parametrize("word", ["last", "asker4-1", "a1n2-33"])
def test_a_query_is_told_from_a_job(word: str) -> None:
    assert is_query(word)


@pytest.mark.parametrize("word", ["0x5d2e", "5d2e", "123", "1-2"])
def test_a_job_is_told_from_a_query(word: str) -> None:
    assert not is_query(word)


def test_needs_are_words() -> None:
    assert need_in_words({}) == "no needs"
    need = {"expert_group": "cardiology", "expert_accuracy": 0.9, "local": True}
    assert need_in_words(need) == "cardiology from 0.9, not out of its K-AS"


def test_a_finished_runs_folder_is_enough(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [encode_event(e) for e in events()]
    (tmp_path / "events.jsonl").write_bytes(b"\n".join(lines) + b"\n" + lines[0][:20])
    assert len(read(tmp_path)) == len(lines)
    assert not app(["explain", "asker4-1", "--folder", str(tmp_path), "--json"], standalone_mode=False)
    assert json.loads(capsys.readouterr().out)["answer"]["answered_by"] == "mdfp1"
