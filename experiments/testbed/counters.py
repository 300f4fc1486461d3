"""Measured by others than us: the switches' port counters, and the memory of the processes of a run."""

from __future__ import annotations

import os
import re
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

from experiments.testbed.processes import RUN_VARIABLE
from topologies.plan import LinkPlan, NetworkPlan, interface_name
from topologies.wiring import ends

_PORT = re.compile(r'port\s+"?([\w.-]+)"?:\s+rx pkts=\d+, bytes=(\d+).*?tx pkts=\d+, bytes=(\d+)', re.DOTALL)


def port_bytes(bridges: list[str]) -> tuple[dict[str, int], list[str]]:
    """Return rx + tx bytes of every port of these switches, by interface name, from OpenFlow port statistics; and the
    switches that did not answer.
    """
    counted: dict[str, int] = {}
    silent: list[str] = []
    for bridge in bridges:
        command = ["ovs-ofctl", "-O", "OpenFlow13", "--names", "dump-ports", bridge]
        try:
            text = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
            silent.append(bridge)
        else:
            counted |= {name: int(rx) + int(tx) for name, rx, tx in _PORT.findall(text)}
    return counted, silent


class LinkBytes:
    """Counts what went over each link of a plan. ``on_silent``: told once of each switch that does not answer;
    ``count``: who reads the counters of all its switches, where they are not all here.
    """

    def __init__(
        self, plan: NetworkPlan, on_silent: Callable[[str], None],
        count: Callable[[], tuple[dict[str, int], list[str]]] | None = None,
    ) -> None:  # fmt: skip
        self.plan, self._on_silent = plan, on_silent
        self._count = count or (lambda: port_bytes([s.name for s in plan.switches]))
        self._counted: dict[str, int] = {}
        self._silent: set[str] = set()

    def read(self) -> dict[str, int]:
        """Return rx + tx bytes of each link as the switches count them: where one is gone, by the switch at the other
        end, else as was last read.
        """
        counted, silent = self._count()
        for name in sorted(set(silent) - self._silent):
            self._on_silent(name)
        self._silent.update(silent)
        for link in self.plan.links:
            here = [counted[end] for end in reversed(ends(link)) if end in counted]
            self._counted[link.name] = here[0] if here else self._counted.get(link.name, 0)
        return dict(self._counted)


def link_interfaces(plan: NetworkPlan, *, borders: bool = False) -> dict[str, str]:
    """Return, for each link (or those between K-AS alone), where it is captured: {switch interface: link name}."""
    kas_of = {s.name: s.kas for s in plan.switches}

    def crosses(link: LinkPlan) -> bool:
        return {link.a, link.b} <= kas_of.keys() and kas_of[link.a] != kas_of[link.b]

    return {
        interface_name(link.a, link.a_port) if link.a in kas_of else interface_name(link.b, link.b_port): link.name
        for link in plan.links
        if not borders or crosses(link)
    }


def run_processes(run_id: str) -> list[int]:
    """Return the pids of every process that carries this run's tag."""
    tag = f"{RUN_VARIABLE}={run_id}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if tag in (entry / "environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


def memory_mib(pids: list[int]) -> float:
    """Return the proportional set size of these processes together, MiB."""
    kib = 0
    for pid in pids:
        try:
            text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        except OSError:
            continue
        match = re.search(r"^Pss:\s+(\d+) kB", text, re.MULTILINE)
        kib += int(match.group(1)) if match else 0
    return kib / 1024


class MemoryWatch:
    """Sample the run's memory every few seconds and keep the peak (this process counts too; it has no tag)."""

    def __init__(self, run_id: str, period_s: float = 4.0) -> None:
        self.peak_mib = 0.0
        self._run_id = run_id
        self._period_s = period_s
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="memory-watch", daemon=True)
        self._thread.start()

    def sample(self) -> None:
        """Take one sample now."""
        pids = {*run_processes(self._run_id), os.getpid()}
        self.peak_mib = max(self.peak_mib, memory_mib(sorted(pids)))

    def stop(self) -> float:
        """End the watch; return the peak, MiB."""
        self._end.set()
        self._thread.join(10)
        self.sample()
        return self.peak_mib

    def _watch(self) -> None:
        while not self._end.wait(self._period_s):
            self.sample()
