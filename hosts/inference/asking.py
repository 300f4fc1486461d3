"""An asker under load: queries of one class, put when they are due whatever became of those before (open loop).

A query goes to the label of the model that the asker's policy picks or, where it knows none (or has no policy), to that
of the class, and the network picks.
"""

from __future__ import annotations

import heapq
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from controller.values.queries import Policy, Probed
from hosts.inference.asked import Row
from hosts.inference.known import KnownReplicas
from hosts.inference.ports import Ports
from packets.events import Emit
from packets.messages import (
    Ack,
    Answer,
    Ask,
    AskState,
    Busy,
    Message,
    Need,
    Replicas,
    State,
    encode_message,
)
from packets.queries import query_label
from packets.security.keeper import Keeper
from packets.transfer.udp import now_us
from packets.wire import NO_FLAGS, Flag, Header, PacketType, Requirements, TrafficClass

AGAIN_S = (0.3, 0.6, 1.2)  # a query that is not answered goes again, to where it went: a model that has it waits on
GIVE_UP_S = 10.0
MOST_TRIES = 4  # models that are asked in turn, where each is too busy
PROBE_S = 1.0  # a probe that is not answered by then is forgotten
Sample = tuple[Sequence[float], str]


@dataclass(slots=True)
class Query:
    """A query on its way. ``due_s``: when it was to be put; ``model``: label it was sent to (0: to its class)."""

    number: int
    due_s: float
    sample: Sample
    model: int = 0
    sent_s: float = 0.0
    tries: int = 0
    again: int = 0
    refused_by: set[int] = field(default_factory=set)


@dataclass(frozen=True)
class Means:
    """What an asker works with. ``replicas``: asks the control centre for the models of the class (raises on No)."""

    address: str
    guard: Keeper | None
    emit: Emit
    replicas: Callable[[], Replicas]
    clock: Callable[[], float] = time.monotonic


class Asking:
    """One load: begun by ``start``, over when all its queries are."""

    def __init__(
        self,
        means: Means,
        task: str,
        need: Need,
        samples: Sequence[Sample],
        due: Iterator[float],
        seconds: float,
        policy: Policy | None,
        *,
        refresh_s: float = 0.1,
    ) -> None:
        self.means, self.task, self.need = means, task, need
        self.label = query_label(task, need)
        self.rows: list[Row] = []
        self.known = KnownReplicas()
        self.reasons: dict[str, int] = {}
        self.ages_s: deque[float] = deque(maxlen=10_000)  # of what was known of the model that a query went to
        self.samples, self._due, self._seconds, self._policy = samples, due, seconds, policy
        self._refresh_s = refresh_s
        self._queries: dict[int, Query] = {}
        self._probes: dict[int, tuple[int, float]] = {}
        self._timers: list[tuple[float, int]] = []
        self._fresh: tuple[Replicas, float] | None = None
        self._numbers = secrets.randbits(31)
        self._requirements = _requirements(task, need)
        self._ports = Ports(means.address, means.guard, means.emit, self._awaits)
        self._stop = threading.Event()
        self.over = threading.Event()
        self._began_s = 0.0

    # --- its life

    def start(self, at_s: float | None = None) -> None:
        """Begin, at a time of the clock (default: now)."""
        self._began_s = at_s if at_s is not None else self.means.clock()
        threading.Thread(target=self._refresh, name="replicas", daemon=True).start()
        threading.Thread(target=self._run, name="asking", daemon=True).start()

    def stop(self) -> None:
        """Put no more queries; those on their way are waited for no longer."""
        self._stop.set()

    def _awaits(self, number: int) -> bool:
        return number in self._queries or number in self._probes

    @property
    def under_way(self) -> int:
        """Queries that are not answered yet."""
        return len(self._queries)

    def _refresh(self) -> None:
        """Keep asking for the models of the class, until the load is over."""
        while not self.over.wait(self._refresh_s):
            try:
                self._fresh = self.means.replicas(), self.means.clock()
            except Exception as error:  # the control centre is silent, or none serves the class now
                self._note(str(error))

    def _note(self, reason: str) -> None:
        if len(self.reasons) < 64 or reason in self.reasons:
            self.reasons[reason] = self.reasons.get(reason, 0) + 1

    def _run(self) -> None:
        try:
            self._loop()
        except Exception as error:
            self.means.emit("error", text=f"load of {self.means.address}: {error!r}"[:400])
        finally:
            for query in list(self._queries.values()):
                self._end(query, "lost", self.means.clock())
            self._ports.close()
            self.over.set()

    def _loop(self) -> None:
        next_s = self._next()
        while not self._stop.is_set() and (next_s < float("inf") or self._queries):
            now = self.means.clock()
            while next_s <= now:
                self._put(next_s)
                next_s = self._next()
            self._take_fresh(now)
            self._look_after(now)
            wait_s = min(next_s, self._timers[0][0] if self._timers else now + 1.0, now + 0.05) - self.means.clock()
            for header, message, peer in self._ports.wait(wait_s):
                self._heard(header, message, peer[0])

    def _next(self) -> float:
        after_s = next(self._due)
        return self._began_s + after_s if after_s <= self._seconds else float("inf")

    # --- out

    def _put(self, due_s: float) -> None:
        self._numbers = (self._numbers + 1) & 0xFFFF_FFFF
        number = self._numbers
        samples = self.samples  # may be others from one query to the next
        sample = samples[number % len(samples)]
        query = self._queries[number] = Query(number, due_s, sample)
        self._choose(query)
        self._probe()

    def _choose(self, query: Query) -> None:
        """Send a query to the model that the policy picks among those that have not refused it."""
        now = self.means.clock()
        candidates = [r for label, r in self.known.by_label.items() if label not in query.refused_by]
        if self._policy is not None and candidates:
            chosen = self._policy.choose(candidates, now)
            query.model = chosen.label
            if chosen.told_s > float("-inf"):
                self.ages_s.append(now - chosen.told_s)
            self.known.sent(query.model, query.number, now)
        else:
            query.model = 0
        query.tries, query.again, query.sent_s = query.tries + 1, 0, now
        self._send(query, NO_FLAGS)

    def _send(self, query: Query, flags: Flag) -> None:
        label = query.model or self.label
        ask = Ask(task=self.task, sample=list(query.sample[0]), need=self.need)
        header = Header(
            type=PacketType.QUERY, flags=flags, traffic_class=TrafficClass.QUERY, object_id=label,
            owner=self.means.address, transfer_id=query.number, timestamp_us=now_us(),
            requirements=self._requirements,
        )  # fmt: skip
        self._ports.send(header, encode_message(ask), label)
        heapq.heappush(self._timers, (self.means.clock() + AGAIN_S[min(query.again, len(AGAIN_S) - 1)], query.number))

    def _probe(self) -> None:
        """Ask models how they stand, as often as the policy wants."""
        if self._policy is None or not self.known.by_label or not self._policy.probes_per_query:
            return
        now = self.means.clock()
        for label in self._policy.to_probe(list(self.known.by_label.values()), now):
            self._numbers = (self._numbers + 1) & 0xFFFF_FFFF
            self._probes[self._numbers] = label, now
            header = Header(
                type=PacketType.PROBE, traffic_class=TrafficClass.QUERY, object_id=label, owner=self.means.address,
                transfer_id=self._numbers, timestamp_us=now_us(),
            )  # fmt: skip
            self._ports.send(header, encode_message(AskState(label=label)), label)

    # --- in

    def _heard(self, header: Header, message: Message, address: str) -> None:
        now, query = self.means.clock(), self._queries.get(header.transfer_id)
        if query is None:
            self._probed(header.transfer_id, message, address, now)
            return
        state = getattr(message, "state", None)
        if isinstance(state, State):
            self._ports.answers(query.model or self.label, address)
            self.known.state(state, now, query.model)
        match message:
            case Answer():
                self._answered(query, message, now)
            case Ack():
                self._end(query, "answered", now)
            case Busy():
                self._turned_away(query, message.reason, now)
            case _:
                self._note(getattr(message, "reason", type(message).__name__))
                self._end(query, "refused", now)

    def _answered(self, query: Query, answer: Answer, now: float) -> None:
        model = query.model or (answer.state.label if answer.state else 0)
        if self._policy is not None and query.model:
            self._policy.answered(query.model, (now - query.sent_s) * 1e3, now)
        right = -1 if not query.sample[1] else int(answer.answer == query.sample[1])
        self._end(query, "answered", now, model, right, int(answer.cached))

    def _turned_away(self, query: Query, reason: str, now: float) -> None:
        """A model is too busy: another one, as long as that makes sense."""
        if self._policy is not None and query.model:
            self._policy.failed(query.model, now)
            self.known.over(query.model, query.number)
            query.refused_by.add(query.model)
            left = self.known.by_label.keys() - query.refused_by
            in_time = not self.need.deadline_ms or (now - query.due_s) * 1e3 < self.need.deadline_ms
            if left and in_time and query.tries < MOST_TRIES:
                self._choose(query)
                return
        self._note(reason)
        self._end(query, "refused", now)

    def _probed(self, number: int, message: Message, address: str, now: float) -> None:
        label, _ = self._probes.pop(number, (0, 0.0))
        if label and isinstance(message, State) and self._policy is not None:
            self._ports.answers(label, address)
            self.known.state(message, now, label)
            self._policy.probed(
                Probed(label=label, in_flight=message.in_flight, latency_ms=message.latency_ms, at_s=now)
            )

    def _end(
        self, query: Query, outcome: str, now: float, model: int = 0, right: int = -1, cached: int = 0
    ) -> None:  # fmt: skip
        self._queries.pop(query.number, None)
        if query.model:
            self.known.over(query.model, query.number)
        row = Row(query.due_s - self._began_s, (now - query.due_s) * 1e3, outcome, model, query.tries, right, cached)
        self.rows.append(row)

    # --- looked after

    def _take_fresh(self, now: float) -> None:
        """Take what the control centre said; what was with a model that is not offered any more goes to another."""
        fresh, self._fresh = self._fresh, None
        if fresh is None:
            return
        self._ports.expect(self.label, len(fresh[0].replicas))
        if self._policy is None:
            return
        gone = self.known.told(fresh[0].replicas, fresh[1])
        for label in gone:
            self._ports.forget(label)
            if self._policy is not None:
                self._policy.failed(label, now)
        if gone:
            for query in [q for q in self._queries.values() if q.model in gone]:
                self._choose(query)

    def _look_after(self, now: float) -> None:
        """Send again what is not answered in time; give up what has waited for too long."""
        while self._timers and self._timers[0][0] <= now:
            _, number = heapq.heappop(self._timers)
            query = self._queries.get(number)
            if query is None:
                continue
            due_again_s = query.sent_s + sum(AGAIN_S[: query.again + 1])
            if now - query.due_s > GIVE_UP_S:
                self._end(query, "lost", now)
            elif due_again_s <= now + 1e-3:
                query.again += 1
                if query.again > len(AGAIN_S) and self._policy is not None and len(self.known.by_label) > 1:
                    self._elsewhere(query, now)
                else:
                    self._send(query, Flag.REPEATED)
        if len(self._probes) > 64:
            self._probes = {n: p for n, p in self._probes.items() if now - p[1] < PROBE_S}

    def _elsewhere(self, query: Query, now: float) -> None:
        """A model says nothing at all: another one."""
        assert self._policy is not None
        self._policy.failed(query.model, now)
        self.known.over(query.model, query.number)
        query.refused_by.add(query.model)
        self._choose(query)


def _requirements(task: str, need: Need) -> Requirements | None:
    """What the header says of the class, for whoever looks on (nothing where there is nothing to say)."""
    if need == Need():
        return None
    return Requirements.of(
        task, broad_accuracy=need.broad_accuracy, expert_group=need.expert_group or None,
        expert_accuracy=need.expert_accuracy, deadline_s=need.deadline_ms / 1e3,
    )  # fmt: skip
