"""A declared network as Mininet's own kinds of things: Topo, hosts, switches, links and a controller.

``mn --custom topologies/<file>.py`` uses them one by one; ``topologies.network.Network`` uses the same classes, but
makes all interfaces in a few batches. Debian's Python must be able to import this file.
"""

from __future__ import annotations

import atexit
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NoReturn

import msgspec
from mininet.link import Intf, Link
from mininet.node import Controller, OVSSwitch
from mininet.topo import Topo

from topologies import venv, wiring
from topologies.errors import PlanError, RefusedError, TopologyError
from topologies.keeper import KeptHost
from topologies.machine import netns, probe, shell, wires
from topologies.machine.cleanup import clean
from topologies.machine.ledger import RUN_VARIABLE
from topologies.machine.preflight import check_machine, check_names, check_port
from topologies.machine.waiting import wait_until
from topologies.plan import HostPlan, LinkPlan, NetworkPlan, SwitchPlan, gateway_address
from topologies.session import Session, mn_run_id, mn_session

OPENFLOW_PORT = 6653
STOP_TIMEOUT_S = 5.0
READY_TIMEOUT_S = 30.0


class PlanIntf(Intf):
    """An interface that was configured when it was made."""

    def config(self, *_: Any, **__: Any) -> dict[str, Any]:
        return {}

    def ifconfig(self, *words: Any) -> str:
        """Configure as Mininet does; a terminal's default route, which goes with its link, comes back with it."""
        said = str(super().ifconfig(*words))
        if words == ("up",) and isinstance(self.node, PlanHost):
            self.node.cmd("ip route replace default via", gateway_address(self.node.plan.kas), "dev", self.name)
        return said


class PlanHost(KeptHost):
    """A terminal of the plan: address, route, software checksums, no IPv6."""

    def __init__(self, name: str, plan: HostPlan, session: Session, **params: Any) -> None:
        self.plan = plan
        self.session = session
        super().__init__(name, **params)

    def _popen(self, cmd: Any, **params: Any) -> Any:
        params.setdefault("env", self.session.environment)
        return super()._popen(cmd, **params)

    def config(self, **_: Any) -> dict[str, Any]:
        """Configure everything that lives in the host's namespace, the shaping of its end of the link included."""
        interface = self.defaultIntf()
        link: LinkPlan = interface.link.plan
        shape = wiring.shape_lines(link, interface.name, self.session.netem)

        def configure() -> None:
            netns.quiet_ipv6()
            shell.batch("ip", wiring.host_lines(self.plan, self.session.elsewhere))
            shell.batch("tc", shape)
            netns.checksum_in_software(interface.name)

        netns.inside(self.pid, configure)
        interface.ip, interface.prefixLen, interface.mac = self.plan.address, "16", self.plan.mac
        return {}


class PlanSwitch(OVSSwitch):
    """A switch of the plan: fail-secure, OpenFlow 1.3, userspace datapath where the kernel has none."""

    def __init__(self, name: str, plan: SwitchPlan, session: Session, **params: Any) -> None:
        self.plan = plan
        self.session = session
        self.asked: list[Any] = []
        self.targets: list[str] = []
        options = {
            "failMode": "secure",
            "protocols": "OpenFlow13",
            "datapath": session.datapath,
            "reconnectms": 1000,
            "batch": False,
        }
        super().__init__(name, **{**params, **options, "dpid": f"{plan.dpid:016x}"})

    def _popen(self, cmd: Any, **params: Any) -> Any:
        params.setdefault("env", self.session.environment)
        return super()._popen(cmd, **params)

    def words(self, targets: list[str]) -> list[str]:
        """Return this switch's part of an ``ovs-vsctl`` transaction."""
        ports = {intf.name: number for intf, number in self.ports.items() if intf.name != "lo"}
        return wiring.bridge_words(self.plan, ports, self.session.run_id, self.session.datapath, targets)

    def shaping(self) -> list[wiring.Line]:
        """Return the shaping of all ports; to be applied after Open vSwitch has taken them, which clears it."""
        intfs = [intf for intf in self.intfList() if intf.name != "lo"]
        return [line for intf in intfs for line in wiring.shape_lines(intf.link.plan, intf.name, self.session.netem)]

    def start(self, controllers: list[Any]) -> None:
        """Make the bridge (never replacing one of the same name that somebody else made) and shape its ports."""
        self.asked = controllers or self.asked
        self.targets = [f"{c.protocol}:{c.IP()}:{c.port}" for c in controllers] or self.targets
        here = [intf.name for intf in self.intfList() if intf.name != "lo"]
        shell.batch("ip", wiring.up_lines(here, self.session.run_id))  # one that was killed comes back whole
        shell.must("ovs-vsctl", *self.words(self.targets))
        shell.batch("tc", self.shaping())

    def stop(self, deleteIntfs: bool = True) -> None:
        """Remove the bridge, if it is still there; the interfaces stay unless told otherwise."""
        shell.run("ovs-vsctl", "--timeout=20", *wiring.unbridge_words([self.name]))
        if deleteIntfs:
            super(OVSSwitch, self).stop(deleteIntfs)

    @classmethod
    def batchStartup(cls, switches: Any, run: Any = None) -> Any:
        """Return the switches: ``start`` has done everything."""
        return switches

    def connected(self) -> bool:
        """Tell whether a controller is connected; when it is our own, whether its rules are there.

        What Open vSwitch's database says of a controller may lag by a minute on a userspace datapath.
        """
        ours = any(isinstance(controller, DccController) for controller in self.asked)
        return self._has_routes() if ours else bool(super().connected())

    def _has_routes(self) -> bool:
        answer = shell.run("ovs-ofctl", "-O", "OpenFlow13", "dump-aggregate", self.name)
        found = [word for word in answer.stdout.split() if word.startswith("flow_count=")]
        return bool(found) and int(found[0].partition("=")[2]) >= len(self.intfList())


class PlanLink(Link):
    """A link of the plan: a veth pair, or two taps with a delay line between them where the kernel has no netem."""

    def __init__(
        self,
        node1: Any,
        node2: Any,
        plan: LinkPlan,
        session: Session,
        made: bool = False,
        wire: wires.Wire | None = None,
        **_: Any,
    ) -> None:
        self.plan = plan
        self.session = session
        self.wire = wire
        if not made:
            self._make(node1)
        a, b = wiring.ends(plan)
        still = {"link": self, "moveIntfFn": self._ignore}
        self.intf1: PlanIntf | None = PlanIntf(a, node=node1, port=plan.a_port, **still)
        self.intf2: PlanIntf | None = PlanIntf(b, node=node2, port=plan.b_port, **still)

    def _make(self, node1: Any) -> None:
        """Make the interfaces of this one link and bring up what belongs to a switch."""
        a, b = wiring.ends(self.plan)
        pid = node1.pid if node1.inNamespace else None
        if wiring.needs_wire(self.plan, self.session.netem, self.session.wirefilter):
            self.wire = wires.start_wire(self.plan, (a, b), self.session.environment)
            wires.wait_for_taps(self.wire)
            shell.batch("ip", [(f"link set {a} netns {pid}", f"link {self.plan.name}")] if pid else [])
        else:
            shell.batch("ip", wiring.veth_lines(self.plan, pid, self.session.run_id))
        here = [b] if pid else [a, b]
        for name in here:
            netns.quiet_ipv6(name)
        shell.batch("ip", wiring.up_lines(here, self.session.run_id))

    def delete(self) -> None:
        """Remove the link; deleting one end of a pair takes the other with it."""
        if self.wire is not None:
            self.wire.stop()
        shell.try_batch("ip", [f"link del {wiring.ends(self.plan)[1]}"])
        for intf in (self.intf1, self.intf2):
            if intf is not None:
                intf.node.delIntf(intf)
        self.intf1 = self.intf2 = None


class PlanTopo(Topo):
    """A plan as ``mn`` wants it; building it checks the machine first."""

    plan: NetworkPlan

    def build(self, *args: Any, **params: Any) -> None:
        try:
            if args or params:
                raise PlanError(f"topology {self.plan.name} takes no options, it was given {args or params}")
            check_words(sys.argv)
            self._build()
        except TopologyError as error:
            leave(error)

    def _build(self) -> None:
        check_machine()
        check_names(self.plan)
        session = mn_session()
        for link in self.plan.wires:
            wiring.needs_wire(link, session.netem, session.wirefilter)
        session.open(self.plan)
        atexit.register(session.close)
        for switch in self.plan.switches:
            self.addSwitch(switch.name, cls=PlanSwitch, plan=switch, session=session)
        for host in self.plan.stations:
            self.addHost(host.name, cls=PlanHost, plan=host, session=session)
        for x in self.plan.wires:
            self.addLink(x.a, x.b, port1=x.a_port, port2=x.b_port, cls=PlanLink, plan=x, session=session)


NOT_OURS = {
    "--switch": "the plan says what its switches are",
    "--host": "the plan says what its terminals are",
    "--link": "the plan shapes its links (in a topology of your own: addLink(..., bw=, delay=))",
    "--nat": "the plan is the whole network",
    "--innamespace": "control is over the loopback",
    "--cluster": "it stands on one machine",
    "--placement": "it stands on one machine",
}


WAITS_FOR_EVER = {"iperf", "all"}


def check_words(words: list[str]) -> None:
    """Refuse the options of ``mn`` that a plan would have to leave unheeded; ``PlanError`` names the first."""
    for word, after in zip(words, [*words[1:], ""], strict=True):
        name, equals, value = word.partition("=")
        if name in NOT_OURS:
            raise PlanError(f"mn {name}: not with this topology, {NOT_OURS[name]}; leave it out")
        tests = (value if equals else after).split(",") if name == "--test" else []
        if WAITS_FOR_EVER.intersection(tests):
            raise PlanError(
                f"mn --test {tests[0]}: Mininet waits for ever for a line that iperf 2.1 no longer prints; "
                "run iperf at two hosts yourself (xterm, or h11 iperf -s & and h12 iperf -c h11)"
            )


class DccController(Controller):
    """Our own control centre, one process for all K-AS of the plan: ``mn ... --controller dcc``."""

    plan: NetworkPlan

    def __init__(self, name: str, port: int = OPENFLOW_PORT, **params: Any) -> None:
        self.process: subprocess.Popen[bytes] | None = None
        self.directory = Path(tempfile.mkdtemp(prefix="daitn-mn-"))
        super().__init__(name, port=int(port), **params)

    def checkListening(self) -> None:
        """Leave with one line when the port is taken (``mn`` would clean the whole machine on an exception)."""
        try:
            check_port(self.port)
        except TopologyError as error:
            leave(error)

    def start(self) -> None:
        """Start the control centre and wait until it listens."""
        plan = self.directory / "all.json"
        plan.write_bytes(msgspec.json.encode(self.plan.domain()))
        command = [venv.python(), "-m", "controller", "--plan", str(plan), "--openflow-port", str(self.port)]
        with (self.directory / "dcc.log").open("wb") as log:
            self.process = subprocess.Popen(
                command,
                cwd=venv.ROOT,
                env={**os.environ, RUN_VARIABLE: mn_run_id()},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        if not wait_until(self._decided, READY_TIMEOUT_S) or self.process.poll() is not None:
            log_text = (self.directory / "dcc.log").read_text(errors="replace")
            self.stop()
            leave(RefusedError(f"the control centre did not start: {shell.one_line(log_text[-300:])}"))

    def _decided(self) -> bool:
        """Tell whether the control centre listens, or has given up."""
        assert self.process is not None
        return self.process.poll() is not None or _listening(self.port)

    def stop(self, *args: Any, **kwargs: Any) -> None:
        """End the control centre, by its own process id."""
        if self.process is not None:
            self.process.terminate()
            try:
                self.process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
            self.process = None
        shutil.rmtree(self.directory, ignore_errors=True)
        super(Controller, self).stop(*args, **kwargs)


def _listening(port: int) -> bool:
    rows = Path("/proc/net/tcp").read_text().splitlines()[1:]
    return any(row.split()[3] == "0A" and row.split()[1].endswith(f":{port:04X}") for row in rows)


def leave(error: TopologyError) -> NoReturn:
    """End ``mn`` with the error's one line and status 2.

    Any other exception would make it run its machine-wide clean-up.
    """
    print(f"error: {error}", file=sys.stderr)
    raise SystemExit(2)


def cleanup() -> None:
    """Remove what this ``mn`` made.

    A topology file that imports this name replaces ``mn``'s own clean-up with it (``--custom`` sets ``mn``'s globals),
    which on an error or Ctrl-C would kill by name and delete every bridge of the machine.
    """
    clean(mn_run_id(), force=True)


def plan_topo(plan: NetworkPlan) -> type[PlanTopo]:
    """Return the Topo class of a plan, for a file's ``topos``."""
    return type(f"Topo_{plan.name}", (PlanTopo,), {"plan": plan})


def dcc_controller(plan: NetworkPlan) -> type[DccController]:
    """Return the controller class that runs our control centre for a plan, for a file's ``controllers``."""
    return type(f"Dcc_{plan.name}", (DccController,), {"plan": plan})


__all__ = [
    "DccController",
    "PlanHost",
    "PlanLink",
    "PlanSwitch",
    "PlanTopo",
    "cleanup",
    "dcc_controller",
    "plan_topo",
    "probe",
]
