"""The part of a run that stands on one server: a bed whose network is a part of the whole."""

from __future__ import annotations

import shutil
import tempfile
import threading
from pathlib import Path
from typing import Any

import msgspec

from experiments.cluster.orders import PartOrder
from experiments.errors import RunFailed
from experiments.testbed import counters, terminal
from experiments.testbed.folder import RunFolder
from experiments.testbed.gateways import KEYLOG, Gateways
from experiments.testbed.identities import Identities
from experiments.testbed.openflow_tls import Certificates
from experiments.testbed.testbed import FIRST_OPENFLOW_PORT, Bed
from packets.security.identity import write_private
from topologies.cluster.calibrate import Heard, Step, TunnelEnd
from topologies.cluster.network import PartNetwork
from topologies.cluster.parts import part_of
from topologies.machine import netns, selftest, shell
from topologies.machine.ledger import RUN_BASE

TLS_FOLDER = "tls"
KEPT = Path("/var/tmp")  # captures may be larger than a /tmp in memory
PING_S = 2


class PartBed(Bed):
    """The K-AS of one server. Events go to the leader; what it records lies in a folder that the leader fetches."""

    def __init__(self, order: PartOrder, over: threading.Event) -> None:
        self.order, self._over = order, over
        self.kept = Path(tempfile.mkdtemp(prefix=f"daitn-{order.run_id}-", dir=KEPT))
        (self.kept / "logs").mkdir()
        runtime = RUN_BASE / order.run_id
        super().__init__(
            order.scenario, RunFolder(self.kept), page_port=None, capture=order.capture,
            certificates=Certificates(runtime / TLS_FOLDER),
        )  # fmt: skip
        self.run_id, self.runtime = order.run_id, runtime
        self.plan = part_of(self.whole, order.kas)
        self._links = counters.LinkBytes(self.plan, self._uncounted)
        self._memory = counters.MemoryWatch(self.run_id)
        self._measured: dict[str, TunnelEnd] = {}

    def _make_keys(self) -> None:
        (self.runtime / TLS_FOLDER).mkdir(mode=0o700)
        for name, content in self.order.files.items():
            write_private(self.runtime / name, content)
        identities = Identities.given(self.runtime, self.order.keys)
        self.identities = identities if self.order.signed else None
        keylog = self.folder.logs / KEYLOG if self._want_capture else None
        self.gateways = Gateways(
            self.plan, self.runtime, identities, signed=self.order.signed, keylog=keylog, written=True
        )

    network: PartNetwork

    def _make_network(self) -> PartNetwork:
        ports = {k: FIRST_OPENFLOW_PORT + k - 1 for k in self.plan.kas_numbers}
        assert self.certificates is not None
        tls = self.certificates.switch_tls(self.order.server)
        return PartNetwork(
            self.plan, self.run_id, ports, self.runtime, cuts=self.order.cuts, mtu=self.order.mtu, tls=tls
        )

    def _try_out(self) -> None:
        """Leave it to the leader: other K-AS may not stand yet."""
        assert self.network.session is not None and self.network.session.ledger is not None
        self.network.session.ledger.note(lambda content: content.files.append(str(self.kept)))

    def try_out(self) -> None:
        """Check that what the terminals' kernels send arrives."""
        hosts = self.plan.hosts
        selftest.check_udp(self.network.hosts[hosts[0].name], self.network.hosts[hosts[-1].name])

    def try_tunnel(self, source: str, target: str, address: str) -> None:
        """Check that packets as long as terminals send come through to a terminal elsewhere, whole, and back."""
        size = self.order.mtu - 28  # IPv4 20, ICMP 8
        words = ["ping", "-M", "do", "-s", str(size), "-c", "5", "-i", "0.2", "-w", "10", "-W", str(PING_S), address]
        done = netns.inside(self.network.hosts[source].pid, lambda: shell.run(*words))
        if done.returncode:
            raise RunFailed(
                f"packets of {self.order.mtu} bytes from {source} do not come through to {target}: look for a firewall "
                f"(UDP 55840), or a smaller MTU, between the servers: {shell.one_line(done.stdout)[-160:]}"
            )

    def calibrate(self) -> list[dict[str, Any]]:
        """Measure the links that are whole here, in full frames; from then on only what tunnels carry is sent."""
        found = super().calibrate()
        self.network.narrow([host.name for host in self.plan.hosts])
        return found

    def measure_tunnel(self, link: str, step: str) -> Heard | None:
        """Take one step of measuring a link between servers; ``heard`` ends it."""
        if link not in self._measured:
            self._measured[link] = TunnelEnd(next(cut for cut in self.order.cuts if cut.link.name == link))
        if step == "heard":
            return self._measured.pop(link).heard()
        self._measured[link].do(msgspec.convert(step, Step))
        return None

    def _captured(self, *, borders: bool = False) -> dict[str, str]:
        mine = {s.name for s in self.plan.switches}
        links = counters.link_interfaces(self.whole, borders=borders)
        return {interface: link for interface, link in links.items() if interface.rsplit("-eth", 1)[0] in mine}

    def counted(self) -> tuple[dict[str, int], list[str]]:
        """Return the port counters of the switches here, and which of these do not answer."""
        return counters.port_bytes([s.name for s in self.plan.switches])

    def peak_memory_mib(self) -> float:
        """Return the most that the processes of this part have held together."""
        return self._memory.stop()

    def tell(self, name: str, op: str, timeout_s: float = 30.0, **arguments: Any) -> dict[str, Any]:
        """Send a command to a terminal's agent; the wait for its answer ends with the run."""
        return terminal.call(self.runtime / "agents" / f"{name}.sock", op, timeout_s, meanwhile=self.check, **arguments)

    def check(self) -> None:
        if self._over.is_set():
            raise RunFailed("the run is over")
        super().check()

    def remove_kept(self) -> None:
        """Remove what was recorded here, once it was fetched, or nobody will."""
        shutil.rmtree(self.kept, ignore_errors=True)
