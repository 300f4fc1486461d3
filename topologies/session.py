"""What the nodes and links of one standing network share: whose they are, and what this machine can do for them."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from topologies.machine import probe, sending, shell, sysctls
from topologies.machine.ledger import MAIN_VARIABLE, RUN_BASE, RUN_VARIABLE, Ledger, LedgerContent, this_process
from topologies.machine.preflight import RunLock
from topologies.plan import NetworkPlan, gateway_address
from topologies.wiring import ends, name_servers


class Session:
    """One run's hold on the machine's network: lock, ledger, kernel settings; ``close`` gives all of it back."""

    def __init__(self, run_id: str, runtime_dir: Path, datapath: probe.Datapath | None = None) -> None:
        shell.find_tools()
        self.run_id = run_id
        self.runtime_dir = runtime_dir
        self.datapath: probe.Datapath = datapath or probe.datapath()
        self.netem = probe.netem()
        self.wirefilter = probe.wirefilter()
        main = this_process()
        self.owner = main.pid
        self.environment = {**os.environ, RUN_VARIABLE: run_id, MAIN_VARIABLE: f"{main.pid}:{main.started}"}
        self._lock = RunLock(run_id, runtime_dir.parent)
        self.ledger: Ledger | None = None
        self.warnings: list[str] = []
        self.elsewhere: list[str] = []  # name servers, which a terminal is told at once that it cannot reach

    def open(self, plan: NetworkPlan) -> None:
        """Take the lock, write down what is going to be made, then raise the kernel settings."""
        self._lock.__enter__()
        self.ledger = Ledger(self.runtime_dir, self.run_id)
        ours = {h.address for h in plan.stations} | {gateway_address(kas) for kas in plan.kas_numbers}
        self.elsewhere = [address for address in _name_servers() if address not in ours]
        self.ledger.note(lambda content: _intend(content, plan))
        sysctls.raise_limits(self.ledger)
        if self.datapath == "user":
            self._widen(self.ledger)

    def _widen(self, ledger: Ledger) -> None:
        """Give Open vSwitch room for what waits at all ports; where it is too late, ``warnings`` says what helps."""
        if sending.buffer_bytes() is None:
            with sysctls.raised(ledger, sending.SETTINGS):
                sending.make_socket(self.run_id)
        self.warnings += filter(None, [sending.complaint()])

    def close(self) -> None:
        """Restore the kernel settings; drop the ledger, the run's directory when it is empty, and the lock."""
        if self.ledger is not None and self.owner == os.getpid():
            sysctls.give_back(self.ledger.path)
            with contextlib.suppress(OSError):
                self.runtime_dir.rmdir()
            self.ledger = None
        self._lock.__exit__()


def _name_servers() -> list[str]:
    try:
        return name_servers(Path("/etc/resolv.conf").read_text(errors="replace"))
    except OSError:
        return []


def _intend(content: LedgerContent, plan: NetworkPlan) -> None:
    content.bridges = [switch.name for switch in plan.switches]
    content.interfaces = [name for link in plan.wires for name in ends(link)]


def mn_run_id() -> str:
    """Return the run id of the network that this ``mn`` process makes."""
    return f"mn-{os.getpid()}"


def mn_session() -> Session:
    """Return the session of a network that ``mn`` runs."""
    return Session(mn_run_id(), RUN_BASE / mn_run_id())
