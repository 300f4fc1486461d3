"""Faults as they are done to a standing testbed, and undone."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterable
from typing import Any

from experiments.chaos import noise
from experiments.chaos.plan import Fault
from experiments.errors import RunFailed
from experiments.testbed.revival import life_of
from experiments.testbed.testbed import Bed
from packets.events import Event
from topologies.changes import change_link, link_named, set_link
from topologies.machine import cgroups
from topologies.machine.ledger import start_time
from topologies.machine.waiting import wait_until
from topologies.plan import NetworkPlan

FLAP_S = 0.25
GONE_S = 10.0
Mend = Callable[[], None]


class Hand:
    """Does faults and undoes them. ``killed``: the processes it ended."""

    def __init__(self, bed: Bed) -> None:
        self.bed = bed
        self.killed: set[int] = set()
        self._agents: dict[str, int] = {}
        self._links = Links(bed)
        self._shares: dict[str, float] = {h.name: h.cpu_share for h in bed.plan.hosts}

    def begin(self, fault: Fault) -> Mend:
        """Let a fault begin; return what ends it."""
        mend: Mend = getattr(self, f"_{fault.kind}")(fault)
        return mend

    def hear(self, event: Event) -> None:
        """Note where the processes of agents are."""
        if event.kind == "agent.ready":
            self._agents[str(event.data["name"])] = int(event.data["pid"])

    def agents(self) -> dict[int, str]:
        """Return the process of each terminal, {process id: name}, of those that a fault has not ended."""
        return {pid: name for name, pid in list(self._agents.items()) if pid not in self.killed}

    def pid(self, name: str) -> int:
        """Return the process of an agent, a control centre or a border speaker; ``RunFailed`` when there is none."""
        started = [c.process.pid for c in self.bed.children if c.name == name]
        serving = [life_of(pid) for pid in started]
        living = alive(pid for pid in [self._agents.get(name), *serving] if pid)
        if not living:
            raise RunFailed(f"{name} has no process at the moment")
        return living.pop()

    # --- processes

    def _crash(self, fault: Fault) -> Mend:
        return self._restarted(fault) if fault.sort == "switch" else self._ended(fault, signal.SIGKILL)

    def _reboot(self, fault: Fault) -> Mend:
        if fault.sort == "switch":
            self._restarted(fault)()
            return _nothing
        again = self._ended(fault, signal.SIGTERM)
        again()
        return _nothing

    def _ended(self, fault: Fault, how: signal.Signals) -> Mend:
        pid = self.pid(fault.target)
        self.killed.add(pid)
        if how == signal.SIGTERM:  # a control centre that is asked to end takes its parent along
            self.killed |= {child.process.pid for child in self.bed.children if child.name == fault.target}
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, how)
        if fault.sort != "host":  # the testbed starts it again
            return _nothing

        def again() -> None:
            wait_until(lambda: not alive([pid]), GONE_S)
            self.bed.start_agent(fault.target)
            if fault.target in self.bed.terminals("mpvu"):
                self._tested_again()

        return again

    def _tested_again(self) -> None:
        """Have all data nodes send their test samples again: the MPVU that came back has none."""
        for name in self.bed.terminals("data"):
            with contextlib.suppress(RunFailed):  # it is away itself, and sends them when it comes back
                self.bed.tell(name, "send_test_samples", again=True)

    def _pause(self, fault: Fault) -> Mend:
        pid = self.pid(fault.target)
        os.kill(pid, signal.SIGSTOP)

        def go_on() -> None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

        return go_on

    def _slow(self, fault: Fault) -> Mend:
        if fault.sort == "link":
            return self._links.slower(fault.target, fault.share)
        name, whole = fault.target, self._shares.get(fault.target, 1.0)
        group = cgroups.create_group(self.bed.run_id, name, whole * fault.share)
        if group is None:
            raise RunFailed(cgroups.missing_reason() or f"the CPU share of {name} cannot be changed")
        pid = self.pid(name)
        (group / "cgroup.procs").write_text(str(pid))

        def as_before() -> None:
            cgroups.create_group(self.bed.run_id, name, whole if fault.sort == "host" else float(os.cpu_count() or 1))

        return as_before

    # --- switches and links

    def _restarted(self, fault: Fault) -> Mend:
        switch = next(s for s in self.bed.network.switches if s.name == fault.target)
        names = self._links.of_switch(fault.target)
        for name in names:
            self._links.down(name)
        switch.stop(deleteIntfs=False)

        def again() -> None:
            switch.start([])
            for name in names:
                self._links.up(name)

        return again

    def _partition(self, fault: Fault) -> Mend:
        names = self._links.around(fault)
        for name in names:
            self._links.down(name)

        def joined() -> None:
            for name in names:
                self._links.up(name)

        return joined

    def _flapping(self, fault: Fault) -> Mend:
        over = threading.Event()

        def flap() -> None:
            while True:
                self._links.down(fault.target)
                over.wait(FLAP_S)
                self._links.up(fault.target)
                if over.wait(FLAP_S):
                    return

        thread = threading.Thread(target=flap, name="flapping", daemon=True)
        thread.start()

        def still() -> None:
            over.set()
            thread.join(10.0)

        return still

    def _loss(self, fault: Fault) -> Mend:
        return self._links.disturbed(fault, "loss")

    def _corruption(self, fault: Fault) -> Mend:
        return self._links.disturbed(fault, "corruption")


class Links:
    """The links of a testbed. One that two faults hold down at a time comes up with the later one's end."""

    def __init__(self, bed: Bed) -> None:
        self.bed = bed
        self._held: dict[str, int] = {}
        self._lock = threading.Lock()

    def of_switch(self, name: str) -> list[str]:
        """Return the links of a switch."""
        return [link.name for link in self.bed.plan.links if name in (link.a, link.b)]

    def around(self, fault: Fault) -> list[str]:
        """Return the links that a partition cuts."""
        if fault.sort == "link":
            return [fault.target]
        if fault.sort != "gateway":
            return self.of_switch(fault.target)
        return borders(self.bed.plan, fault.target)

    def down(self, name: str) -> None:
        with self._lock:
            self._held[name] = self._held.get(name, 0) + 1
            set_link(self.bed.network, name, up=False)

    def up(self, name: str) -> None:
        with self._lock:
            self._held[name] -= 1
            if not self._held[name]:
                set_link(self.bed.network, name, up=True)

    def slower(self, name: str, share: float) -> Mend:
        rate_mbps = next(link.rate_mbps for link in self.bed.plan.links if link.name == name)
        change_link(self.bed.network, name, rate_mbps=max(0.5, round(rate_mbps * share, 2)))
        return lambda: change_link(self.bed.network, name, rate_mbps=rate_mbps)

    def disturbed(self, fault: Fault, how: noise.Noise) -> Mend:
        link = link_named(self.bed.network, fault.target)
        both = [intf for intf in (link.intf1, link.intf2) if intf is not None]
        ends = [(self.bed.network.namespace_pid(intf.node.name), str(intf.name)) for intf in both]
        return noise.disturb(ends, how, f"{noise.TABLE}{fault.number}", fault.share)


def borders(plan: NetworkPlan, speaker: str) -> list[str]:
    """Return the links to other K-AS of a border speaker's K-AS."""
    kas_of = {s.name: s.kas for s in plan.switches}
    mine = next(s.kas for s in plan.speakers if s.name == speaker)
    sides = {link.name: (kas_of.get(link.a, mine), kas_of.get(link.b, mine)) for link in plan.links}
    return [name for name, ends in sides.items() if mine in ends and ends != (mine, mine)]


def alive(pids: Iterable[int]) -> set[int]:
    """Return those of these processes that live (a zombie does not)."""
    return {pid for pid in pids if start_time(pid) is not None}


def _nothing(*_: Any) -> None:
    """A fault that is over when it has happened."""
