"""The queue of a terminal that serves: bounded, in order, several at once, refusing early, a measure of itself."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import pytest
from torch import nn

from hosts.inference.serving import Hosted, Serving
from packets.messages import Ack, Ask, Busy, Message, Need

MODEL = nn.Identity()


def hosted(label: int = 1) -> Hosted:
    return Hosted(label=label, object_id=label, task="t", model=MODEL, accuracy={}, since_s=0.0)


class Bench:
    """A serving queue whose compute waits to be let go."""

    def __init__(self, **settings: int) -> None:
        self.batches: list[tuple[int, list[float]]] = []
        self.go, self.now_s = threading.Semaphore(0), 0.0
        self.serving = Serving(self.infer, lambda: self.now_s, **settings)
        self.answered: list[float] = []
        self.news = threading.Condition()

    def infer(self, model: Hosted, asks: Sequence[Ask]) -> list[Message]:
        self.go.acquire(timeout=5.0)
        self.batches.append((model.label, [float(a.sample[0]) for a in asks]))
        self.now_s += 0.01 * len(asks)
        return [Ack() for _ in asks]

    def put(self, model: Hosted, number: float, need: Need | None = None) -> Busy | None:
        def reply(_: Message) -> None:
            with self.news:
                self.answered.append(number)
                self.news.notify()

        return self.serving.put(model, Ask(task="t", sample=[number], need=need or Need()), reply)

    def wait(self, count: int) -> None:
        with self.news:
            assert self.news.wait_for(lambda: len(self.answered) >= count, 5.0), self.answered


def test_what_waits_for_one_model_is_answered_together_and_in_order() -> None:
    bench, a, b = Bench(batch=3), hosted(1), hosted(2)
    for model, number in ((a, 1), (a, 2), (a, 3), (a, 4), (b, 5), (a, 6)):
        assert bench.put(model, number) is None
    bench.go.release(10)
    bench.wait(6)
    assert bench.answered == [1, 2, 3, 4, 5, 6]
    assert [label for label, _ in bench.batches[-2:]] == [2, 1] and max(len(x) for _, x in bench.batches) <= 3
    assert (a.in_flight, b.in_flight, bench.serving.in_flight) == (0, 0, 0)


def test_a_full_queue_refuses_at_once_and_says_how_it_stands() -> None:
    bench, model = Bench(limit=2, batch=1), hosted()
    assert bench.put(model, 1) is None and bench.put(model, 2) is None
    busy = bench.put(model, 3)
    assert isinstance(busy, Busy) and busy.state.in_flight == 2 and busy.state.label == 1
    bench.go.release(5)
    bench.wait(2)
    assert bench.put(model, 4) is None
    bench.wait(3)


def test_what_would_be_too_late_is_refused_early() -> None:
    bench, model = Bench(batch=1), hosted()
    model.service_ms = 50.0
    assert bench.put(model, 1) is None and bench.put(model, 2) is None
    assert isinstance(bench.put(model, 3, Need(deadline_ms=90)), Busy)
    assert bench.put(model, 4, Need(deadline_ms=110)) is None
    bench.go.release(5)
    bench.wait(3)


def test_it_measures_itself() -> None:
    bench, model = Bench(batch=4), hosted()
    bench.go.release(100)
    for number in range(20):
        bench.put(model, number)
        bench.wait(number + 1)
    state = model.state(bench.now_s)
    assert state.service_ms == pytest.approx(10.0) and state.latency_ms == pytest.approx(10.0)
    assert state.arrivals_per_s == 20 and model.state(bench.now_s + 2.0).arrivals_per_s == 0


def test_it_says_once_that_it_is_busy_and_once_that_it_is_not() -> None:
    told: list[bool] = []
    idle = threading.Event()

    def busy(now: bool) -> None:
        told.append(now)
        if not now:
            idle.set()

    serving = Serving(lambda _, asks: [Ack() for _ in asks], lambda: 0.0, busy)
    model = hosted()
    for _ in range(5):
        serving.put(model, Ask(task="t", sample=[0]), lambda _: None)
    assert idle.wait(5.0) and told == [True, False]
    serving.close()
    assert isinstance(serving.put(model, Ask(task="t", sample=[0]), lambda _: None), Busy)
