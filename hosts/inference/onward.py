"""Queries that a deployed model sends on to others, and answers that it gathers from them.

Whom it asks it knows as a class of models, never a place: its control centre names the deployed models of the class,
and has their labels lead to them from here. A query that is sent on keeps its transfer id (Visit counts how often it
was); what it comes to goes to who asked, and so does the care for what is lost: when the asker repeats, so does this. A
query that is gathered is put by this terminal itself, and repeated.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from hosts.errors import DccRefused
from packets.errors import DaitnError
from packets.messages import Answer, Ask, AskState, Known, Message, Replicas, State, encode_message
from packets.transfer.udp import Peer, now_us
from packets.wire import NO_FLAGS, Flag, Header, PacketType, TrafficClass

AGAIN_S = (0.15, 0.45, 0.9)  # after the first sending
PATIENCE_S = 2.0  # then it is answered without what is missing
REFRESH_S, RETRY_S = 1.0, 0.25
LOOK_S = 0.05


class Line(Protocol):
    """The part of ``hosts.inference.ports.Ports`` that is used here."""

    def answers(self, label: int, address: str) -> None: ...

    def send(self, header: Header, payload: bytes, label: int) -> None: ...

    def wait(self, timeout_s: float) -> Iterator[tuple[Header, Message, Peer]]: ...


class Gathering:
    """Answers to one query by name; ``finish`` is called once, when nobody is awaited any more.

    ``refusals``: what those said that did not answer.
    """

    def __init__(self, names: Iterable[str], finish: Callable[[dict[str, Answer | None]], None]) -> None:
        self._awaited, self._finish = set(names), finish
        self._answers: dict[str, Answer | None] = {}
        self.refusals: dict[str, Message] = {}
        self._lock = threading.Lock()

    def put(self, name: str, message: Message | None) -> None:
        """Take what one said; None, or no answer: it does not take part."""
        with self._lock:
            if name not in self._awaited:
                return
            self._awaited.discard(name)
            self._answers[name] = message if isinstance(message, Answer) else None
            if message is not None and not isinstance(message, Answer):
                self.refusals[name] = message
            over = not self._awaited
        if over:
            self._finish(self._answers)


@dataclass
class _Asked:
    """A question of a gathering on its way."""

    name: str
    ask: Ask
    gathering: Gathering
    began_s: float
    again: int = 0


@dataclass(frozen=True)
class Means:
    """What it works with. ``open_line``: given what tells whether a transfer id is awaited; ``replicas``: asks the
    control centre for the models of a task; ``complain``: says what went wrong; ``here``: tells whether a label leads
    to this terminal itself, as what it sends there never does.
    """

    address: str
    open_line: Callable[[Callable[[int], bool]], Line]
    replicas: Callable[[str], Replicas]
    complain: Callable[[str], None]
    clock: Callable[[], float] = time.monotonic
    here: Callable[[int], bool] = lambda label: False


@dataclass
class Onward:
    """Speaks for the models of one terminal. Nothing is opened before somebody is to be asked (``know``)."""

    means: Means
    _partners: dict[str, Sequence[Known]] = field(default_factory=dict)
    _asked: dict[int, _Asked] = field(default_factory=dict)
    _probes: dict[int, int] = field(default_factory=dict)
    _known: set[int] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _line: Line | None = None

    @property
    def under_way(self) -> int:
        """Questions of gatherings that are not answered yet."""
        return len(self._asked)

    def know(self, tasks: Iterable[str]) -> None:
        """Find out, and go on finding out, who serves these tasks."""
        with self._lock:
            for task in tasks:
                self._partners.setdefault(task, ())
            if self._line is not None or not self._partners:
                return
            self._line = self.means.open_line(self._awaits)
        threading.Thread(target=self._listen, args=(self._line,), name="onward", daemon=True).start()
        threading.Thread(target=self._refresh, args=(self._line,), name="partners", daemon=True).start()

    def knows(self, task: str) -> bool:
        """Tell whether a model of a task can be asked."""
        return bool(self._partners.get(task))

    def elsewhere(self, task: str) -> list[Known]:
        """Return the models of a task that serve at other terminals, as far as is known."""
        return [k for k in self._partners.get(task, ()) if not self.means.here(k.label)]

    def gone(self, label: int) -> None:
        """A model of this terminal serves no more: nothing that is said of it counts."""
        for task, models in list(self._partners.items()):
            self._partners[task] = [k for k in models if k.label != label]

    def accuracy(self, task: str) -> float:
        """Return the measured accuracy of the models of a task (0: nobody knows)."""
        return max((k.accuracy for k in self._partners.get(task, ())), default=0.0)

    # --- out

    def send_on(self, ask: Ask, number: int, flags: Flag = NO_FLAGS) -> bool:
        """Send a query on by the transfer id that it came with; False: nobody is known to serve it."""
        models, line = self.elsewhere(ask.task), self._line
        if not models or line is None:
            return False
        models = [k for k in models if k.accuracy >= ask.need.broad_accuracy] or models
        label = models[number % len(models)].label
        self._send(line, label, encode_message(ask), number, PacketType.QUERY, flags, ask.hops)
        return True

    def gather(self, asks: Mapping[str, Ask], gathering: Gathering) -> None:
        """Ask each partner; what they say, or that they say nothing, is put into the gathering under their tasks."""
        for name, ask in asks.items():
            number = secrets.randbits(32)
            self._asked[number] = _Asked(name, ask, gathering, self.means.clock())
            if not self.send_on(ask, number):
                self._over(number, None)

    def _send(
        self, line: Line, label: int, payload: bytes, number: int, kind: PacketType, flags: Flag = NO_FLAGS,
        hops: int = 0,
    ) -> None:  # fmt: skip
        header = Header(
            type=kind, flags=flags, traffic_class=TrafficClass.QUERY, object_id=label, owner=self.means.address,
            transfer_id=number, visit=hops, timestamp_us=now_us(),
        )  # fmt: skip
        line.send(header, payload, label)

    # --- in

    def _awaits(self, number: int) -> bool:
        return number in self._asked or number in self._probes

    def _listen(self, line: Line) -> None:
        while True:
            try:
                for header, message, peer in line.wait(LOOK_S):
                    self._heard(line, header.transfer_id, message, peer)
                self._look_after()
            except Exception as error:  # what one answer does must not end the others
                self.means.complain(f"answers to {self.means.address}: {error!r}")

    def _heard(self, line: Line, number: int, message: Message, peer: Peer) -> None:
        label = self._probes.pop(number, None)
        if label is None:
            self._over(number, message)
        elif isinstance(message, State):
            self._known.add(label)
            line.answers(label, peer[0])

    def _over(self, number: int, message: Message | None) -> None:
        asked = self._asked.pop(number, None)
        if asked is not None:
            asked.gathering.put(asked.name, message)

    def _look_after(self) -> None:
        """Ask again what is not answered; give up what has waited for too long."""
        now_s = self.means.clock()
        for number, asked in list(self._asked.items()):
            waited_s = now_s - asked.began_s
            if waited_s > PATIENCE_S:
                self._over(number, None)
            elif asked.again < len(AGAIN_S) and waited_s > sum(AGAIN_S[: asked.again + 1]):
                asked.again += 1
                self.send_on(asked.ask, number, Flag.REPEATED)

    # --- whom

    def _refresh(self, line: Line) -> None:
        while True:
            for task in list(self._partners):
                try:
                    self._partners[task] = self.means.replicas(task).replicas
                    self._probe(line, [k.label for k in self.elsewhere(task) if k.label not in self._known])
                except DccRefused:  # none serves the task now
                    self._partners[task] = ()
                except DaitnError:  # its control centre is silent: as before
                    continue
                except Exception as error:
                    self.means.complain(f"who serves {task}: {error!r}")
            time.sleep(REFRESH_S if all(self._partners.values()) else RETRY_S)

    def _probe(self, line: Line, labels: Sequence[int]) -> None:
        """Find out who answers for labels: what is said to a known one needs no signature."""
        while len(self._probes) > 64:
            self._probes.pop(next(iter(self._probes)), None)
        for label in labels:
            number = secrets.randbits(32)
            self._probes[number] = label
            self._send(line, label, encode_message(AskState(label=label)), number, PacketType.PROBE)
