"""The agent: the process that is a terminal.  Transport, reports, control socket and role, tied together.

It runs inside its Mininet host's network namespace (the zygote forks it there) and knows nothing of the network but its
own address; everything else it learns from AI packets.
"""

from __future__ import annotations

import os
import queue
import signal
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from controller.values.metrics import OwnMetric
from hosts.autonomy.policies import Policy
from hosts.control import Command, ControlServer
from hosts.errors import DccRefused, HostError
from hosts.gossip.house import House
from hosts.gossip.runtime import Gossiping
from hosts.learning.spec import NodeData, Samples
from hosts.learning.task import Task
from hosts.process.config import NodeSpec
from hosts.process.namespaces import mtu_of
from hosts.roles import ROLES, Role
from hosts.terminal.custody import HAND_OVER_S
from hosts.terminal.reporter import Reporter
from hosts.terminal.resources import Meter
from hosts.terminal.terminal import Terminal
from hosts.terminal.work import Work
from packets.events import Emit
from packets.messages import Ack, Leave
from packets.security.keeper import Keeper
from packets.transport import Endpoint, ReceivedObject
from packets.wire import Header
from topologies.plan import HostPlan, interface_name

TICK_S = 0.5
DRAIN_S = 30.0


@dataclass(frozen=True)
class AgentSetup:
    """What an agent is born with. ``samples_per_s``: training speed of one whole core here, measured by the zygote.

    ``guard``: the keeper of its word and keys (None: an open network); ``members``, ``policies``, ``house``: as of
    ``Terminal``.
    """

    plan: HostPlan
    task: Task
    runtime_dir: Path
    seed: int
    samples_per_s: float
    data: NodeData | None = None
    queries: Samples | None = None
    guard: Keeper | None = None
    metrics: Mapping[str, OwnMetric] = field(default_factory=dict)
    members: Sequence[NodeSpec] = ()
    policies: Mapping[str, Policy] = field(default_factory=dict)
    house: House | None = None


class Agent:
    """One terminal at work. ``run`` returns when it is told to stop."""

    def __init__(self, setup: AgentSetup, emit: Emit) -> None:
        plan = setup.plan
        self.plan, self.emit = plan, emit
        self.endpoint = Endpoint(
            plan.address,
            on_object=self._on_object,
            on_message=self._on_message,
            emit=emit,
            guard=setup.guard,
            on_query=self._on_message if plan.role == "mdfp" else None,
            only_steered=setup.guard is not None,
            mtu=mtu_of(interface_name(plan.name, 0)),
        )
        self.terminal = Terminal(
            plan=plan, task=setup.task, network=self.endpoint, emit=emit, submit=Work(),
            meter=Meter(setup.samples_per_s * min(1.0, plan.cpu_share), time.monotonic),
            folder=setup.runtime_dir / plan.name, seed=setup.seed, data=setup.data, queries=setup.queries,
            guard=setup.guard, metrics=setup.metrics, members=setup.members, policies=setup.policies,
            house=setup.house,
        )  # fmt: skip
        self.role = self._make_role()
        self.gossiping = Gossiping(self.terminal, setup.house) if setup.house else None
        self.role.gossiped = self.gossiping.heard if self.gossiping else None
        self.reporter = Reporter(self.terminal, self._told_dcc)
        self.terminal.pulled = self.reporter.pull
        self.control = ControlServer(setup.runtime_dir / "agents" / f"{plan.name}.sock", self.command)
        self._ready = False

    def run(self) -> None:
        """Work until ``stop``; returns within a second of it, whatever is under way."""
        self.endpoint.start()
        self.control.start()
        if self.gossiping:
            self.gossiping.start()
        threading.Thread(target=self._report, name="reporter", daemon=True).start()
        try:
            while not self.terminal.stopping.wait(TICK_S):
                self.role.tick()
        finally:
            self.control.close()
            self.endpoint.close()

    def stop(self) -> None:
        """End the run."""
        self.terminal.stopping.set()
        self.terminal.changed.set()

    def command(self, command: Command) -> Command:
        """Answer one line of the control socket."""
        own = {"state": self._state, "leave": self._leave, "withdraw": self._withdraw, "offer": self._offer}
        do = own.get(command["op"])
        return do() if do else self.role.command(command)

    def _withdraw(self) -> Command:
        """Be no rendezvous any more, but stay: what is on its way here goes elsewhere, with what came of it."""
        self.terminal.leaving = True
        self.terminal.touch()
        self.terminal.dcc.ask(Leave(name=self.plan.name, reason="withdrawn", force=True, stay=True), Ack)
        return {"withdrawn": True}

    def _offer(self) -> Command:
        """Be a rendezvous again."""
        self.terminal.leaving = False
        self.terminal.touch()
        return {"withdrawn": False}

    def _leave(self) -> Command:
        """Withdraw in good order: nothing new, finish what is here, tell the DCC, end."""
        terminal, plan = self.terminal, self.plan
        terminal.leaving = True
        terminal.touch()
        deadline, left = time.monotonic() + DRAIN_S, False
        while not left and not terminal.stopping.wait(0.1):
            force = time.monotonic() > deadline
            if terminal.activities.state[0] != "idle" and not force:
                continue
            try:
                terminal.dcc.ask(Leave(name=plan.name, reason="left", force=force), Ack, attempts=1)
                left = True
            except DccRefused:
                left = force
        self.terminal.mover.wait(HAND_OVER_S)
        threading.Timer(0.2, self.stop).start()  # after the answer to whoever asked
        return {"left": left}

    def _told_dcc(self) -> dict[str, Any]:
        """Return what the DCC is told of this terminal now; in a distributed K-AS the others hear the rest."""
        now = self.role.attributes()
        return self.gossiping.told(now) if self.gossiping else now

    def _state(self) -> Command:
        state, object_id = self.terminal.activities.state
        return {
            "name": self.plan.name, "role": self.plan.role, "kas": self.plan.kas, "state": state,
            "object_id": object_id, "registered": self.reporter.registered, "pid": os.getpid(),
            "attributes": self.reporter.known,
            "transport": msgspec.to_builtins(self.endpoint.counters), "refused": dict(self.endpoint.refusals),
            "gossip": self.gossiping.state() if self.gossiping else None,
        }  # fmt: skip

    def _make_role(self) -> Role:
        if self.plan.role not in ROLES:
            raise HostError(f"host {self.plan.name}: no role {self.plan.role!r}; there are: {', '.join(ROLES)}")
        return ROLES[self.plan.role](self.terminal)

    def _on_object(self, obj: ReceivedObject) -> None:
        self.role.object_arrived(obj)

    def _on_message(self, header: Header, payload: bytes, peer: tuple[str, int]) -> None:
        self.role.message_arrived(header, payload, peer)

    def _report(self) -> None:
        try:
            self.reporter.run(self._registered)
        except Exception as error:  # a dead reporter would look like a dead terminal: say so and end as one
            self.emit("error", text=f"reporter of {self.plan.name} failed: {error!r}", node=self.plan.name)
            self.stop()

    def _registered(self) -> None:
        plan = self.plan
        self.emit("agent.ready", name=plan.name, role=plan.role, kas=plan.kas, address=plan.address, pid=os.getpid())
        if not self._ready:
            self._ready = True
            self.role.start()


def serve(agent: Agent) -> None:
    """Run an agent in this process until SIGTERM or SIGINT."""

    asked = queue.SimpleQueue[int]()  # the one lock that a signal handler may take, whatever it interrupts
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: asked.put(number))

    def end() -> None:
        asked.get()
        agent.stop()

    threading.Thread(target=end, name="end", daemon=True).start()
    agent.run()
