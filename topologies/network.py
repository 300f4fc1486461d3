"""Bring a declared network up, fast, and take it down to the last trace.

A ``Network`` is a ``mininet.net.Mininet``: the CLI, ``net["h11"].cmd(...)``, ``pingAll`` and scripts written for
Mininet work. Only the making differs: all interfaces come from a few ``ip -batch`` and ``tc -batch`` runs, all
switches from one ``ovs-vsctl`` transaction, so that twenty terminals stand in a second or two.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from mininet.net import Mininet

from topologies import wiring
from topologies.build import validate
from topologies.custom import PlanHost, PlanLink, PlanSwitch
from topologies.errors import PlanError, RefusedError
from topologies.machine import cgroups, netns, shell, wires
from topologies.machine.preflight import check_files, check_machine, check_names
from topologies.machine.probe import Datapath
from topologies.machine.tls import SwitchTls, hide, show
from topologies.machine.waiting import wait_until
from topologies.plan import OPENFLOW_ADDRESSES, LinkPlan, NetworkPlan
from topologies.session import Session

TOGETHER = 4  # hosts that are configured at a time: each waits for two programs


class HostList(list[Any]):
    """Mininet's list of hosts, which also answers to a name: ``net.hosts["h11"].pid``."""

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, str):
            found = next((host for host in self if host.name == key), None)
            if found is None:
                raise KeyError(f"no host {key!r} in this network")
            return found
        return super().__getitem__(key)


class Network(Mininet):
    """A standing network made from a plan; a context manager, and safe to stop twice.

    ``controller_ports`` gives, for each K-AS, the loopback TCP port of its controller, started before or after;
    ``tls``: what its switches show there (None: OpenFlow is spoken plain).
    ``seconds`` holds how long each step of the start took.
    """

    def __init__(
        self,
        plan: NetworkPlan,
        run_id: str,
        controller_ports: Mapping[int, int],
        runtime_dir: Path | str,
        datapath: Datapath | None = None,
        tls: SwitchTls | None = None,
    ) -> None:
        validate(plan)
        if not run_id or not run_id.replace("-", "").replace("_", "").isalnum():
            raise PlanError(f"run id {run_id!r}: use letters, digits, '-' and '_'")
        Mininet.inited = (
            True  # its init() raises a dozen kernel settings for good; Session raises ours and restores them
        )
        super().__init__(topo=None, build=False)
        self.plan = plan
        self.run_id = run_id
        self.hosts = HostList()
        self.switches: list[Any] = []
        self.links: list[Any] = []
        self.nameToNode: dict[str, Any] = {}
        self.built = False
        self.seconds: dict[str, float] = {}
        self._runtime_dir = Path(runtime_dir)
        self._controller_ports = dict(controller_ports)
        self._wanted_datapath = datapath
        self._tls = tls
        self.session: Session | None = None

    def __enter__(self) -> Network:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    # --- up ---

    @property
    def warnings(self) -> list[str]:
        """What may be measured wrongly on this machine, and the cure."""
        return self.session.warnings if self.session else []

    def start(self) -> None:
        """Make the network; on failure nothing of it is left.

        Raises a ``TopologyError`` that names what was refused.
        """
        if self.built:
            return
        check_machine()
        check_files(self.plan)
        check_names(self.plan)
        session = Session(self.run_id, self._runtime_dir, self._wanted_datapath)
        wired = {x.name for x in self.plan.wires if wiring.needs_wire(x, session.netem, session.wirefilter)}
        session.open(self.plan)
        self.session = session
        atexit.register(self.stop)  # a script that ends without stop() leaves nothing either
        try:
            self._make(session, wired)
        except BaseException:
            self.stop()
            raise
        self.built = True

    def _make(self, session: Session, wired: set[str]) -> None:
        with self._timed("nodes"):
            for host in self.plan.stations:
                self.addHost(host.name, cls=PlanHost, plan=host, session=session)
            for switch in self.plan.switches:
                self.addSwitch(switch.name, cls=PlanSwitch, plan=switch, session=session)
        with self._timed("links"):
            self._make_links(session, wired)
        with self._timed("hosts"), ThreadPoolExecutor(TOGETHER) as pool:
            list(pool.map(PlanHost.config, self.hosts))
        with self._timed("switches"):
            self._start_switches()

    def _make_links(self, session: Session, wired: set[str]) -> None:
        pids = {host.name: host.pid for host in self.hosts}
        lines: list[wiring.Line] = []
        for plan in self.plan.wires:
            wire = None
            if plan.name in wired:
                wire = wires.start_wire(plan, wiring.ends(plan), session.environment)
            else:
                lines += wiring.veth_lines(plan, pids.get(plan.a), session.run_id)
            self.links.append(PlanLink(self[plan.a], self[plan.b], plan, session, made=True, wire=wire))
        shell.batch("ip", lines)
        self._settle_wires(pids)
        here = [name for plan in self.plan.wires for name in self._switch_ends(plan)]
        for name in here:
            netns.quiet_ipv6(name)
        shell.batch("ip", wiring.up_lines(here, session.run_id))

    def _settle_wires(self, pids: Mapping[str, int]) -> None:
        for link in self.links:
            if link.wire is not None:
                wires.wait_for_taps(link.wire)
        moves = [(x.plan.a, wiring.ends(x.plan)[0]) for x in self.links if x.wire is not None and x.plan.a in pids]
        shell.batch("ip", [(f"link set {tap} netns {pids[host]}", f"terminal {host}") for host, tap in moves])

    def namespace_pid(self, node: str) -> int | None:
        """Return a process in whose network namespace a node's interfaces are.

        None for a switch (they are in this one).
        """
        found = self[node]
        return int(found.pid) if isinstance(found, PlanHost) else None

    def _switch_ends(self, link: LinkPlan) -> tuple[str, ...]:
        ends = wiring.ends(link)
        return ends[1:] if isinstance(self[link.a], PlanHost) else ends

    def _start_switches(self) -> None:
        words: list[str] = []
        if self._tls is not None:
            show(self._tls, self.run_id)
        scheme = "tcp" if self._tls is None else "ssl"
        for switch in self.switches:
            port = self._controller_ports.get(switch.plan.kas)
            addresses = OPENFLOW_ADDRESSES if self._tls is None else OPENFLOW_ADDRESSES[:1]  # no spare session over TLS
            switch.targets = [f"{scheme}:{address}:{port}" for address in addresses] if port else []
            words += switch.words(switch.targets)
        shell.must("ovs-vsctl", *words)
        self._check_ports()
        shell.batch("tc", [line for switch in self.switches for line in switch.shaping()])

    def _check_ports(self) -> None:
        """Check that every port has the OpenFlow number that the plan promised to the controllers."""
        text = shell.must("ovs-vsctl", "--format=csv", "--no-headings", "--columns=name,ofport", "list", "Interface")
        numbers = dict(line.split(",") for line in text.replace('"', "").splitlines())
        for switch in self.switches:
            for intf, number in switch.ports.items():
                if intf.name != "lo" and numbers.get(intf.name) != str(number):
                    raise RefusedError(
                        f"switch {switch.name}: port {intf.name} is {numbers.get(intf.name)}, not {number}"
                    )

    # --- down ---

    def stop(self) -> None:
        """Take everything down that ``start`` made, also after a start that failed half way."""
        if self.session is None or self.session.owner != os.getpid():  # a forked child takes nothing down
            return
        session, self.session = self.session, None
        lines = [link.wire for link in self.links if link.wire is not None]
        for wire in lines:
            wire.ask_to_end()
        shell.run("ovs-vsctl", "--timeout=20", *wiring.unbridge_words(s.name for s in self.plan.switches))
        if self._tls is not None:
            hide(session.run_id)
        for wire in lines:
            wire.stop()
        shell.try_batch("ip", [f"link del group {wiring.group(session.run_id)}"])
        self._end_shells()
        wait_until(lambda: cgroups.remove_groups(session.run_id), 1.0)
        session.close()
        atexit.unregister(self.stop)
        self.built = False

    def _end_shells(self) -> None:
        nodes = [*self.hosts, *self.switches]
        for node in nodes:  # all at once first: each then ends while the others are waited for
            if isinstance(node, PlanHost):
                node.hang_up()
            elif node.shell is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(node.shell.pid, signal.SIGHUP)
        for node in nodes:
            if node.shell is not None:
                node.terminate()
        self.hosts, self.switches, self.links, self.nameToNode = HostList(), [], [], {}

    @contextlib.contextmanager
    def _timed(self, step: str) -> Iterator[None]:
        begin = time.monotonic()
        yield
        self.seconds[step] = time.monotonic() - begin
