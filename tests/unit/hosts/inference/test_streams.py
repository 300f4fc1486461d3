"""Streams at a terminal that serves: turn by turn, each part once, kept for a while, bounded everywhere."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from hosts.inference import streams
from hosts.inference.answering import Answering, Query
from hosts.inference.onward import Gathering
from hosts.inference.serving import Hosted, Serving
from hosts.inference.streams import Kept, Streams
from hosts.inference.ways import Found
from packets.messages import (
    Answer,
    Ask,
    AskPart,
    Busy,
    Message,
    Need,
    Refused,
    State,
    StreamPart,
    Way,
    decode_message,
)
from packets.queries import SINGLE
from packets.wire import Header, PacketType

LABEL = 0x11_0001
PEER, OTHER = ("10.1.1.2", 40000), ("10.2.1.2", 40000)


class Onward:
    """A partner that answers what goes on to it, or nothing (``says`` None)."""

    says: str | None = "of the other"
    under_way = 0

    def gather(self, asks: dict[str, Ask], gathering: Gathering) -> None:
        for name in asks:
            answer = Answer(answer=self.says, confidence=0.5, answered_by="other") if self.says else None
            gathering.put(name, answer)


class Bench:
    """A terminal that serves one model whose compute waits to be let go; an answer is its sample's first number."""

    def __init__(self, **settings: int) -> None:
        self.go, self.now_s, self.free = threading.Semaphore(0), 0.0, False
        self.batches: list[list[float]] = []
        self.replied: list[tuple[tuple[str, int], Message]] = []
        self.news = threading.Condition()
        network = SimpleNamespace(reply=self.reply)
        self.terminal: Any = SimpleNamespace(
            name="me", clock=lambda: self.now_s, network=network, guard=None, touch=lambda: None, complain=self.complain
        )
        model: Any = SimpleNamespace(cache=None, way=SINGLE)
        self.hosted: Hosted | None = Hosted(LABEL, LABEL, "t", model, {}, 0.0)
        self.serving = Serving(self.infer, lambda: self.now_s, **settings)
        self.onward: Any = Onward()
        self.answering = Answering(self.terminal, lambda label, ask: self.find(ask), self.serving, self.onward)
        self.streams = Streams(self.terminal, lambda label, ask: self.find(ask), self.answering)

    def complain(self, text: str) -> None:
        raise AssertionError(text)

    def find(self, ask: Ask) -> Hosted | None:
        return self.hosted if ask.task == "t" else None

    def infer(self, hosted: Hosted, asks: Sequence[Ask]) -> list[Message]:
        if not self.free:
            assert self.go.acquire(timeout=5.0)
        self.batches.append([float(a.sample[0]) for a in asks])
        return [self.said(float(a.sample[0])) for a in asks]

    def said(self, number: float) -> Message:
        if number < 0:
            return Refused(reason="no sample of this task") if number > -9 else Ask(task="t/more", sample=[number])
        return Answer(answer=f"{number:g}", confidence=1.0, answered_by="me", infer_ms=1.0)

    def reply(self, header: Header, payload: bytes, peer: tuple[str, int], *, type: PacketType) -> None:
        with self.news:
            self.replied.append((peer, decode_message(payload)))
            self.news.notify_all()

    def ask(self, number: int, *, peer: tuple[str, int] = PEER, first: float | None = None, **about: Any) -> None:
        about = {"task": "t", "stream": 1, "total": 80, "size": 8, **about}
        count = min(about["size"], about["total"] - number * about["size"])
        at = number * about["size"] if first is None else first
        ask = AskPart(number=number, samples=[[at + i] for i in range(count)], **about)
        header = Header(type=PacketType.QUERY, object_id=LABEL, transfer_id=1000 * ask.stream + number)
        if not self.answering.came_before(header, peer):  # as the role has it
            self.streams.take(header, peer, ask)

    def wait(self, count: int) -> list[Message]:
        with self.news:
            assert self.news.wait_for(lambda: len(self.replied) >= count, 5.0), self.replied
        return [message for _, message in self.replied]


def numbers(said: Sequence[Message]) -> list[int]:
    return [m.number for m in said if isinstance(m, StreamPart)]


def until(look: Callable[[], bool]) -> None:
    end = time.monotonic() + 5.0
    while not look():
        assert time.monotonic() < end
        time.sleep(0.002)


def test_a_part_is_answered_as_soon_as_it_is_computed_and_says_who_did() -> None:
    bench = Bench()
    for number in range(3):
        bench.ask(number, total=20)
    bench.go.release()
    (first,) = bench.wait(1)
    assert isinstance(first, StreamPart) and [g.answer for g in first.answers] == [str(i) for i in range(8)]
    assert (first.answered_by, first.state.label, first.infer_ms) == ("me", LABEL, 8.0)
    bench.go.release(5)
    assert numbers(bench.wait(3)) == [0, 1, 2]
    assert (bench.serving.in_flight, bench.streams.waiting) == (0, 0)


def test_a_stream_takes_its_turn_and_others_are_answered_in_between() -> None:
    bench = Bench()
    for number in range(4):
        bench.ask(number)
    until(lambda: bench.serving.in_flight == 8)
    assert bench.hosted is not None and bench.hosted.state(0.0).in_flight == 8, "a part counts as its samples do"
    assert bench.streams.waiting == 24
    single = Ask(task="t", sample=[500.0])
    bench.answering.take(Query(Header(type=PacketType.QUERY, object_id=LABEL, transfer_id=9), OTHER, single, 0.0))
    bench.ask(0, peer=OTHER, total=8, first=600.0)
    bench.go.release(20)
    bench.wait(6)
    order = [peer for peer, _ in bench.replied]
    assert order[:3] == [PEER, OTHER, PEER] or order[:4] == [PEER, OTHER, OTHER, PEER], order
    assert order.index(OTHER) == 1, "behind one part, not behind four"
    assert bench.batches[1][0] == 500.0


def test_streams_together_have_half_of_the_queue_and_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench()
    for number in range(2):
        for asker in range(6):
            bench.ask(number, peer=(f"10.{asker}.1.2", 4), total=16)
    until(lambda: bench.serving.in_flight == 32)
    bench.go.release(100)
    bench.wait(12)
    assert [peer[0] for peer, _ in bench.replied[:6]] == [f"10.{asker}.1.2" for asker in range(6)]
    assert numbers([m for _, m in bench.replied]) == [0] * 6 + [1] * 6


def test_a_way_of_many_models_is_asked_sample_by_sample() -> None:
    bench = Bench()
    join: Any = lambda answers, accuracies: Found(str(next(iter(answers.values())).answer), 0.5)  # noqa: E731
    model: Any = SimpleNamespace(
        cache=None,
        way=Way(kind="multimodal"),
        parts=lambda ask: {"t/text": ask},
        join=join,
        onward=lambda ask, found: None,
    )
    bench.hosted = Hosted(LABEL, LABEL, "t", model, {}, 0.0)
    bench.onward.accuracy = lambda name: 0.5
    for number in range(10):
        bench.ask(number)
    said = bench.wait(10)
    assert numbers(said) == list(range(10)) and bench.batches == []
    assert all(g.answer == "of the other" for m in said if isinstance(m, StreamPart) for g in m.answers)
    bench.onward.under_way = 1000
    bench.ask(0, stream=2)
    assert isinstance(bench.wait(11)[-1], Busy)


def test_a_part_that_waits_is_said_to_and_one_that_was_sent_is_sent_again_not_computed() -> None:
    bench = Bench()
    bench.ask(0)
    bench.ask(0)
    (state,) = bench.wait(1)
    assert isinstance(state, State) and state.label == LABEL
    bench.go.release()
    bench.wait(2)
    bench.ask(0)
    said = bench.wait(3)
    assert said[1] == said[2] and numbers(said) == [0, 0] and len(bench.batches) == 1


def test_what_was_handed_out_is_kept_no_longer_and_what_is_not_kept_is_computed_again() -> None:
    bench = Bench()
    bench.free = True
    for number in range(4):
        bench.ask(number)
        bench.wait(number + 1)
    assert len(bench.streams.kept) == 4
    bench.ask(4, handed=3)
    bench.wait(5)
    assert len(bench.streams.kept) == 2
    bench.ask(1)
    assert numbers(bench.wait(6)) == [0, 1, 2, 3, 4, 1] and len(bench.batches) == 6


def test_what_is_kept_is_bounded_in_number_bytes_and_seconds() -> None:
    name = ("10.1.1.2", 1)
    by_number, by_bytes, by_age = Kept(most=3), Kept(most_bytes=100), Kept(seconds=10.0)
    for kept in (by_number, by_bytes, by_age):
        for number in range(10):
            kept.put(name, number, bytes(30), float(number))
    assert len(by_number) == 3 and by_number.get(name, 9, 9.0) and by_number.get(name, 6, 9.0) is None
    assert len(by_bytes) == 3 and by_bytes.size_bytes == 90
    assert by_age.get(name, 0, 9.0) and by_age.get(name, 0, 10.5) is None and len(by_age) == 10
    by_age.put(name, 10, b"", 15.0)
    assert len(by_age) == 6 and by_age.get(name, 5, 15.0) is not None
    for number in range(11):
        by_age.drop(name, number)
        by_age.drop(name, number)
    assert (len(by_age), by_age.size_bytes) == (0, 0)
    by_bytes.put(name, 1, bytes(200), 10.0)
    assert (len(by_bytes), by_bytes.size_bytes) == (0, 0), "one that is too large is not kept, nor are those before it"


@pytest.mark.parametrize(
    ("about", "words"),
    [
        ({"task": "else"}, "hosts no model"),
        ({"total": 81}, "80 samples in parts of 8"),
        ({"size": 4}, "80 samples in parts of 8"),
    ],
)
def test_what_does_not_fit_is_refused(about: dict[str, Any], words: str) -> None:
    bench = Bench()
    bench.ask(0)
    bench.ask(1, **about)
    (refused,) = bench.wait(1)
    assert isinstance(refused, Refused) and words in refused.reason
    bench.go.release(5)
    assert numbers(bench.wait(2)) == [0]


def test_streams_and_their_waiting_parts_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench()
    for stream in range(1, 6):
        bench.ask(0, stream=stream)
    (busy,) = bench.wait(1)
    assert isinstance(busy, Busy) and "streams are under way" in busy.reason and busy.state.label == LABEL
    bench.ask(0, stream=1, peer=OTHER)
    for number in range(1, 9):
        bench.ask(number, stream=1)
    assert len(bench.replied) == 1, "another asker, and a stream that is known, go on"
    monkeypatch.setattr(streams, "WAITING_A_STREAM", 8)
    bench.ask(9, stream=1)
    assert isinstance(bench.wait(2)[1], Busy)
    monkeypatch.setattr(streams, "WAITING", 8)
    bench.ask(1, stream=1, peer=OTHER)
    assert isinstance(bench.wait(3)[2], Busy)
    bench.go.release(100)
    assert len(numbers(bench.wait(3 + 13))) == 13
    bench.now_s += streams.IDLE_S + 1.0
    bench.ask(0, stream=7)
    assert numbers(bench.wait(17))[-1] == 0, "those of which nothing came for so long are over"


def test_a_stream_that_is_answered_makes_room_at_once() -> None:
    bench = Bench()
    bench.free = True
    for stream in range(1, 20):
        bench.ask(0, stream=stream, total=3)
        bench.wait(stream)
    assert all(isinstance(m, StreamPart) for _, m in bench.replied)


def test_a_full_queue_refuses_a_part_early_and_an_empty_one_takes_any() -> None:
    bench = Bench(limit=4, batch=2)
    bench.ask(0)
    until(lambda: bench.serving.in_flight == 8)
    bench.go.release(10)
    assert numbers(bench.wait(1)) == [0] and len(bench.batches) == 4
    full = Bench(limit=9)
    for number in range(3):
        header = Header(type=PacketType.QUERY, object_id=LABEL, transfer_id=number)
        full.answering.take(Query(header, OTHER, Ask(task="t", sample=[1.0]), 0.0))
    full.ask(0)
    (busy,) = full.wait(1)
    assert isinstance(busy, Busy) and "3 queries wait here" in busy.reason
    full.go.release(10)
    full.wait(4)
    full.ask(0)
    assert numbers(full.wait(5)) == [0], "asked again, it is taken"


def test_a_deadline_that_would_be_missed_is_said_at_once() -> None:
    bench = Bench()
    assert bench.hosted is not None
    bench.hosted.service_ms = 50.0
    bench.ask(0)
    until(lambda: bench.serving.in_flight == 8)
    bench.ask(0, stream=2, need=Need(deadline_ms=100))
    (busy,) = bench.wait(1)
    assert isinstance(busy, Busy) and "400 ms until it is begun" in busy.reason
    bench.go.release(9)


def test_a_sample_that_is_none_spoils_no_other_and_one_that_goes_on_comes_back() -> None:
    bench = Bench()
    bench.free = True
    bench.ask(0, first=-3.0, total=5)
    (part,) = bench.wait(1)
    assert isinstance(part, StreamPart)
    assert [g.answer or g.refused for g in part.answers] == ["no sample of this task"] * 3 + ["0", "1"]
    bench.ask(0, first=-9.0, total=2, stream=2)
    part = bench.wait(2)[1]
    assert isinstance(part, StreamPart) and [g.answer for g in part.answers] == ["of the other", ""]
    bench.onward.says = None
    bench.ask(0, first=-9.0, total=1, stream=3)
    part = bench.wait(3)[2]
    assert isinstance(part, StreamPart) and "no model of task t/more answered" in part.answers[0].refused


def test_many_that_are_refused_at_once_are_refused_one_after_the_other() -> None:
    bench = Bench()
    for asker in range(9):
        for number in range(16):
            bench.ask(number, peer=(f"10.{asker}.1.2", 4), total=128)
    bench.hosted = None
    bench.go.release(100)
    said = bench.wait(9 * 16)
    assert len(numbers(said)) == 4 and sum(isinstance(m, Refused) for m in said) >= 124


def test_a_model_that_is_retired_while_parts_wait_refuses_them() -> None:
    bench = Bench()
    for number in range(3):
        bench.ask(number)
    bench.hosted = None
    bench.go.release(9)
    said = bench.wait(3)
    assert numbers(said) == [0] and all(isinstance(m, Refused) for m in said[1:])
    assert "any more" in str(said[1])
