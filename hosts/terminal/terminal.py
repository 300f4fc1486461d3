"""What a role works with: its terminal's identity, task, data, network, DCC, and one thread's worth of compute."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from controller.values.metrics import OwnMetric
from hosts.autonomy.policies import Policy
from hosts.errors import LaunchFailed
from hosts.gossip.house import House
from hosts.learning.spec import NodeData, Samples
from hosts.learning.task import Task
from hosts.process.config import NodeSpec
from hosts.terminal.custody import Custody, Mover
from hosts.terminal.dcc_line import DccLine, Requests
from hosts.terminal.resources import Meter
from hosts.terminal.work import Submit
from packets.errors import TransportError
from packets.events import Emit
from packets.security.clock import unix_s
from packets.security.keeper import Keeper
from packets.transport import OutgoingObject, Transfer, TransferStats
from packets.wire import Header, PacketType
from topologies.plan import HostPlan

LAUNCH_ATTEMPTS = 4
TRANSFER_TIMEOUT_S = 90.0
_COMPLAINTS_PER_S = 10.0


class Sending(Protocol):
    """An object on its way (``packets.transport.Transfer``)."""

    def result(self, timeout_s: float) -> TransferStats: ...


class Network(Requests, Protocol):
    """The part of ``packets.transport.Endpoint`` that roles use."""

    def send_object(self, obj: OutgoingObject) -> Sending: ...

    def relaunch(self, object_id: int, visit: int, *, former_lives: bool = False) -> bool: ...

    def hand_over(self, object_id: int, visit: int, to: str) -> Transfer | None: ...

    def reply(self, header: Header, payload: bytes, peer: tuple[str, int], *, type: PacketType) -> None: ...

    def say_again(self) -> None: ...


class Activities:
    """The agent's state: what it does now. Activities may overlap; the latest begun is the state, none is ``idle``."""

    def __init__(self, name: str, emit: Emit) -> None:
        self._name = name
        self._emit = emit
        self._lock = threading.Lock()
        self._running: list[tuple[str, int]] = []

    @property
    def state(self) -> tuple[str, int]:
        """The state and the object it is about (0: none)."""
        running = self._running
        return running[-1] if running else ("idle", 0)

    @contextlib.contextmanager
    def doing(self, state: str, object_id: int) -> Iterator[None]:
        """Be in a state: receiving, training, verifying, sending or serving."""
        self._change(lambda: self._running.append((state, object_id)))
        try:
            yield
        finally:
            self._change(lambda: self._running.remove((state, object_id)))

    def _change(self, how: Callable[[], None]) -> None:
        with self._lock:
            before = self.state
            how()
            state, object_id = self.state
            if (state, object_id) != before:
                self._emit("agent.state", name=self._name, state=state, object_id=object_id)


@dataclass
class Terminal:
    """One emulated host as its role sees it. ``queries``: unseen samples for a query owner whose task invents none;
    ``metrics``: what an MDFP measures of itself beside the usual; ``members``: terminals that autonomous objects may
    ask from here, ``policies``: by which they may choose (none: ours); ``house``: of a terminal of a distributed K-AS.
    """

    plan: HostPlan
    task: Task
    network: Network
    emit: Emit
    submit: Submit
    meter: Meter
    folder: Path
    seed: int = 0
    data: NodeData | None = None
    queries: Samples | None = None
    guard: Keeper | None = None
    clock: Callable[[], float] = time.monotonic
    stopping: threading.Event = field(default_factory=threading.Event)
    changed: threading.Event = field(default_factory=threading.Event)
    leaving: bool = False
    pulled: Callable[[list[str]], None] = lambda names: None
    metrics: Mapping[str, OwnMetric] = field(default_factory=dict)
    members: Sequence[NodeSpec] = ()
    policies: Mapping[str, Policy] = field(default_factory=dict)
    house: House | None = None

    def __post_init__(self) -> None:
        self.dcc = DccLine(self.network, self.plan.kas)
        self.activities = Activities(self.plan.name, self.emit)
        self.custody = Custody()
        self.mover = Mover(
            self.name, self.custody,
            relaunch=lambda object_id, visit, lives: self.network.relaunch(object_id, visit, former_lives=lives),
            hand_over=lambda object_id, visit, to: self.network.hand_over(object_id, visit, to),
            launch=self.launch, submit=self.submit, emit=self.emit,
        )  # fmt: skip
        self.changed_unix_s = 0.0
        self._compute = threading.Lock()
        self._counting = threading.Lock()
        self._waiting = 0
        self._complaints = _COMPLAINTS_PER_S
        self._complained_at = self.clock()

    @property
    def name(self) -> str:
        return self.plan.name

    def speaker(self, address: str) -> str | None:
        """Return whose certificate an address has; None where nobody has any (an open network)."""
        known = self.guard.peer(address) if self.guard else None
        return known.name if known else None

    def refuse(self, revoked: Sequence[str]) -> None:
        """Believe these no more, and none but these (its DCC's word)."""
        if self.guard is not None:
            self.guard.revoked = frozenset(revoked)

    def touch(self) -> None:
        """Something changed that the DCC's map should know: the reporter looks now."""
        if not self.changed_unix_s:
            self.changed_unix_s = unix_s()
        self.changed.set()

    @property
    def queue(self) -> int:
        """How many pieces of work wait for this terminal's compute or hold it."""
        return self._waiting

    @contextlib.contextmanager
    def computing(self, state: str, object_id: int) -> Iterator[None]:
        """Hold this terminal's compute: one piece of work at a time, the others queue."""
        self._count(1)
        try:
            with self._compute, self.activities.doing(state, object_id):
                self.meter.begin()
                try:
                    yield
                finally:
                    self.meter.end()
        finally:
            self._count(-1)

    def _count(self, step: int) -> None:
        with self._counting:
            self._waiting += step
        self.touch()

    def launch(self, obj: OutgoingObject, attempts: int = LAUNCH_ATTEMPTS) -> TransferStats:
        """Hand an object to the network, wait until its rendezvous has it all; ``LaunchFailed`` after ``attempts``."""
        self.emit("object.launched", object_id=obj.object_id, visit=obj.visit, node=self.name, bytes=len(obj.payload))
        self.custody.keep(obj)
        why = "never tried"
        with self.activities.doing("sending", obj.object_id):
            for attempt in range(attempts):
                try:
                    stats = self.network.send_object(obj).result(TRANSFER_TIMEOUT_S)
                except TransportError as error:
                    why = " ".join(str(error).split())
                else:
                    self._delivered(obj, stats)
                    return stats
                if self.stopping.wait(min(8.0, 2.0**attempt)):
                    break
        raise LaunchFailed(
            f"object {obj.object_id:#x}, visit {obj.visit}, did not leave {self.name} in {attempts} attempts: {why}"
        )

    def _delivered(self, obj: OutgoingObject, stats: TransferStats) -> None:
        self.emit(
            "object.delivered", object_id=obj.object_id, visit=obj.visit, node=self.name, bytes=stats.bytes,
            packets=stats.packets, retransmissions=stats.retransmissions, seconds=stats.seconds, rtt_ms=stats.rtt_ms,
            goodput_mbps=stats.goodput_mbps,
        )  # fmt: skip

    def complain(self, text: str, **about: object) -> None:
        """Say what went wrong, as an error event; at most some per second, whatever the network sends us."""
        now = self.clock()
        self._complaints = min(_COMPLAINTS_PER_S, self._complaints + (now - self._complained_at) * _COMPLAINTS_PER_S)
        self._complained_at = now
        if self._complaints >= 1:
            self._complaints -= 1
            self.emit("error", text=" ".join(text.split())[:400], node=self.name, **about)
