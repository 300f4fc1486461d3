"""How a deployed model answers: a bounded queue, several queries at once, early refusal, a measure of itself.

One thread computes, as everywhere in a terminal; whoever brings a query never waits for it.
"""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from hosts.inference.ways import Answerer
from packets.messages import Ask, Busy, Message, State

Reply = Callable[[Message], None]
Infer = Callable[["Hosted", Sequence[Ask]], Sequence[Message]]
LIMIT, BATCH = 64, 8
MEMORY = 0.1  # of the new in a running mean
WINDOW_S = 1.0
LINGER_S = 0.3  # without work before it says so: not at each query
UP_S = 15.0  # after that nobody counts since when a model serves
LATENCIES = 256  # numbers in flight for which a latency is remembered


@dataclass
class Hosted:
    """A deployed model, and how it does: milliseconds of compute a query, arrivals, latency by number in flight."""

    label: int
    object_id: int
    task: str
    model: Answerer
    accuracy: dict[str, float]
    since_s: float
    variant: str = ""
    in_flight: int = 0
    service_ms: float = 0.0
    latencies_ms: OrderedDict[int, float] = field(default_factory=OrderedDict)
    for_object: int = 0
    came: deque[tuple[float, str]] = field(default_factory=lambda: deque(maxlen=4096))

    def asked_by(self, now_s: float) -> dict[str, float]:
        """Return how many queries came in the last second, by where they came from."""
        self.arrivals_per_s(now_s)
        return {origin: n / WINDOW_S for origin, n in Counter(origin for _, origin in list(self.came)).items()}

    def arrivals_per_s(self, now_s: float) -> float:
        """Return how many queries came in the last second."""
        while self.came and self.came[0][0] < now_s - WINDOW_S:
            self.came.popleft()
        return len(self.came) / WINDOW_S

    def served(self, queries: int, seconds: float) -> None:
        """A batch is done: what a query takes of the compute."""
        now_ms = seconds * 1e3 / queries
        self.service_ms += (now_ms - self.service_ms) * (MEMORY if self.service_ms else 1.0)

    def took(self, found: int, latency_ms: float) -> None:
        """A query is answered that found so many in flight when it came."""
        known = self.latencies_ms.get(found, latency_ms)
        self.latencies_ms[found] = known + (latency_ms - known) * 0.3
        self.latencies_ms.move_to_end(found)
        if len(self.latencies_ms) > LATENCIES:
            self.latencies_ms.popitem(last=False)

    def latency_ms(self) -> float:
        """Return the latency of queries that found about as many in flight as there are now (Prequal's estimate)."""
        known = self.latencies_ms
        near = min(list(known), key=lambda found: (abs(found - self.in_flight), found), default=None)
        return known[near] if near is not None else (self.in_flight + 1) * self.service_ms

    def state(self, now_s: float) -> State:
        """Return how it stands."""
        return State(
            label=self.label, in_flight=self.in_flight, service_ms=round(self.service_ms, 3),
            latency_ms=round(self.latency_ms(), 3), arrivals_per_s=round(self.arrivals_per_s(now_s), 2),
        )  # fmt: skip

    def told(self, now_s: float) -> dict[str, Any]:
        """Return what the map may know of it."""
        return {
            "task": self.task, "label": self.label, "accuracy": self.accuracy, "variant": self.variant,
            "job": self.for_object,
            "service_ms": round(self.service_ms, 3), "in_flight": self.in_flight,
            "arrivals_per_s": self.arrivals_per_s(now_s), "asked_by": self.asked_by(now_s),
            "up_s": float(min(UP_S, int(now_s - self.since_s))), **self._cache_told(),
        }  # fmt: skip

    def _cache_told(self) -> dict[str, int]:
        cache = self.model.cache
        return {} if cache is None else {"hits": cache.hits, "misses": cache.misses}


@dataclass(frozen=True, slots=True)
class Waiting:
    """A query in the queue. ``found``: how many were in flight when it came."""

    hosted: Hosted
    ask: Ask
    reply: Reply
    came_s: float
    found: int


class Serving:
    """The queue of a terminal that serves models, and the thread that works it off.

    ``limit``: queries that wait or are answered; ``batch``: how many of one model are answered at once; ``busy``: told
    when there is work, and when there was none for a while.
    """

    def __init__(
        self,
        infer: Infer,
        clock: Callable[[], float],
        busy: Callable[[bool], None] = lambda _: None,
        *,
        limit: int = LIMIT,
        batch: int = BATCH,
    ) -> None:
        self._infer, self._clock, self._tell_busy = infer, clock, busy
        self.limit, self.batch = limit, batch
        self._busy = False
        self._queue: deque[Waiting] = deque()
        self._news = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closed = False
        self.in_flight = 0

    def put(self, hosted: Hosted, ask: Ask, reply: Reply, origin: str = "") -> Busy | None:
        """Queue a query (``origin``: a K-AS); ``Busy`` when there is no room, or it would be answered too late."""
        return self.put_together(hosted, [(ask, reply)], origin)

    def put_together(self, hosted: Hosted, asks: Sequence[tuple[Ask, Reply]], origin: str = "") -> Busy | None:
        """Queue queries that came together, all or none of them; an empty queue takes any number."""
        now_s, need = self._clock(), asks[0][0].need
        with self._news:
            hosted.came.extend((now_s, origin) for _ in asks)
            wait_ms = self.in_flight * hosted.service_ms
            late = need.deadline_ms and wait_ms > need.deadline_ms
            full = self.in_flight and self.in_flight + len(asks) > self.limit
            if late or full or self._closed:
                why = f"{wait_ms:.0f} ms until it is begun" if late else f"{self.in_flight} queries wait here"
                return Busy(reason=why, state=hosted.state(now_s))
            for ask, reply in asks:
                self._queue.append(Waiting(hosted, ask, reply, now_s, hosted.in_flight))
                hosted.in_flight += 1
                self.in_flight += 1
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="serving", daemon=True)
                self._thread.start()
            self._news.notify()
        return None

    def hold(self, hosted: Hosted, queries: int) -> None:
        """Count queries of a model that wait for others' answers, not for this thread (below 0: they have them)."""
        with self._news:
            hosted.in_flight += queries

    def close(self) -> None:
        """Answer no more."""
        with self._news:
            self._closed = True
            self._news.notify()

    def _take(self) -> list[Waiting]:
        """Return the queries to answer at once: the oldest, and those behind it that wait for the same model."""
        with self._news:
            while not self._queue and not self._closed:
                if not self._news.wait(LINGER_S) and self._busy and not self._queue:
                    self._busy = False
                    self._tell_busy(False)
            if self._closed:
                return []
            if not self._busy:
                self._busy = True
                self._tell_busy(True)
            first = self._queue[0].hosted
            taken: list[Waiting] = []
            while self._queue and self._queue[0].hosted is first and len(taken) < self.batch:
                taken.append(self._queue.popleft())
            return taken

    def _work(self) -> None:
        while taken := self._take():
            hosted, began_s = taken[0].hosted, self._clock()
            answers = self._infer(hosted, [w.ask for w in taken])
            now_s = self._clock()
            with self._news:
                hosted.served(len(taken), now_s - began_s)
                hosted.in_flight -= len(taken)
                self.in_flight -= len(taken)
            for waiting, answer in zip(taken, answers, strict=True):
                hosted.took(waiting.found, (now_s - waiting.came_s) * 1e3)
                waiting.reply(answer)
