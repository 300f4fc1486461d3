"""One size of ``benchmarks.control`` on the emulated network: two K-AS, a border, terminals that load no PyTorch.

``bytes_per_s``: of the reports that the control centre took, by its own count; ``sent_bytes_per_s``: what one terminal
sends, on average, whoever it is for; ``wan_bytes_per_s``: both ways over the border link, by the port counter of the
gateway (KBGP in TLS, and what control centres say through it); ``dcc_mib``: memory of the control centre's process.

    python -m benchmarks.control_net centralised 100 20     # kind, terminals, seconds (root)
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.common import NotSeen, python, run_main
from benchmarks.control_sim import groups_of
from benchmarks.control_terminals import role_of
from controller.oam.hub import EventHub
from controller.placement.kinds import Housing, KasKind
from experiments.testbed.counters import memory_mib, port_bytes
from experiments.testbed.gateways import Gateways
from experiments.testbed.identities import Identities
from experiments.testbed.processes import Child, wait_for
from experiments.testbed.revival import life_of
from packets.events import Event
from topologies.build import Terminal, Wan, build_plan
from topologies.network import Network
from topologies.plan import NetworkPlan, gateway_address, interface_name, kas_prefix

PORT = 6811
PER_SWITCH = 50
PATIENCE_S = 180.0
GATEWAY = "k1g"


def plan_of(terminals: int) -> NetworkPlan:
    """Declare K-AS 1 with so many terminals, fifty on an access switch, and a neighbour."""
    hosts = [Terminal(f"t{i}", role_of(i)) for i in range(terminals)]
    switches = max(2, -(-terminals // PER_SWITCH))
    return build_plan("control", kas={1: hosts, 2: ["v1:mpvu"]}, wan=[Wan(1, 2)], access_switches=switches)


class Bench:
    """The standing network with its control centres and border speakers; a context manager."""

    def __init__(self, kind: str, terminals: int) -> None:
        self.kind, self.plan = kind, plan_of(terminals)
        self.run_id = f"control-{os.getpid()}-{terminals}"
        self.events: list[Event] = []
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Bench:
        with contextlib.ExitStack() as stack:
            self.folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="daitn-control-")))
            self.runtime = self.folder / "run"
            self.runtime.mkdir()
            hub = EventHub(self.runtime / "events.sock")
            hub.add_listener(self.events.append)
            stack.enter_context(hub)
            ports = {kas: PORT + kas for kas in self.plan.kas_numbers}
            self.network = Network(self.plan, self.run_id, ports, self.runtime)
            stack.callback(self.network.stop)
            self.dccs = [self._start_dcc(kas, port) for kas, port in ports.items()]
            for dcc in self.dccs:
                stack.callback(dcc.stop)
            self.network.start()
            gateways = Gateways(self.plan, self.runtime, Identities(self.plan, self.runtime), signed=False)
            for one in self.plan.speakers:
                command = gateways.command(one, self.network[one.name].pid)
                stack.callback(Child(one.name, command, self.folder / f"{one.name}.log", self.run_id).stop)
            self._wait("the control centres", lambda: all((self.runtime / f"dcc{k}.ready").exists() for k in ports))
            self._wait("the border session", lambda: any(e.kind == "border.way" for e in self.events))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _wait(self, what: str, true: Any) -> None:
        def check() -> None:
            for dcc in self.dccs:
                dcc.check()

        wait_for(what, true, PATIENCE_S, check)

    def _start_dcc(self, kas: int, port: int) -> Child:
        plan, housing = self.folder / f"plan{kas}.json", self.folder / f"kind{kas}.json"
        plan.write_bytes(msgspec.json.encode(self.plan.domain(kas)))
        housing.write_bytes(msgspec.json.encode(Housing(kind=self._kind(kas))))
        arguments = {
            "--plan": plan, "--openflow-port": port, "--runtime-dir": self.runtime, "--kind": housing,
            "--events": self.runtime / "events.sock", "--database": self.folder / f"dcc{kas}.sqlite", "--seed": 1,
        }  # fmt: skip
        command = python("controller", *(str(x) for pair in arguments.items() for x in pair))
        return Child(f"dcc{kas}", command, self.folder / f"dcc{kas}.log", self.run_id)

    def _kind(self, kas: int) -> KasKind:
        if kas != 1 or self.kind == "centralised":
            return KasKind()
        if self.kind == "distributed":
            return KasKind(kind="distributed")
        groups = groups_of([h for h in self.plan.hosts if h.kas == 1])
        return KasKind(
            kind="hierarchical", abstract_terminals={name: [h.name for h in hosts] for name, hosts in groups.items()}
        )

    def _by_the_router(self) -> None:
        """Have terminals reach each other by way of their router alone: pairs of neighbours share one table of the
        kernel, whatever their namespace, and 500 that gossip have more pairs than it has room for.
        """
        router = gateway_address(1)
        for host in self.plan.hosts:
            if host.kas == 1:
                device = interface_name(host.name, 0)
                lines = (
                    f"route replace {router} dev {device}\nroute replace {kas_prefix(1)} via {router} dev {device}\n"
                )
                inside = ("nsenter", "-t", str(self.network[host.name].pid), "-n", "ip", "-batch", "-")
                subprocess.run(inside, input=lines, text=True, check=True, timeout=10, capture_output=True)

    def crowd(self, seconds: float) -> dict[str, Any]:
        """Let the terminals report for some time; returns their last words and what was counted meanwhile."""
        if self.kind == "distributed":
            self._by_the_router()
        hosts = [msgspec.structs.asdict(h) | {"pid": self.network[h.name].pid} for h in self.plan.hosts if h.kas == 1]
        file = self.folder / "hosts.json"
        file.write_text(json.dumps(hosts))
        command = python("benchmarks.control_crowd", str(file), self.kind, str(seconds))
        crowd = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            assert crowd.stdout is not None
            if not crowd.stdout.readline():
                raise NotSeen(f"the terminals' process ended with status {crowd.wait()}")
            wan = self._wan_bytes()
            began_s = time.time()
            out, _ = crowd.communicate(timeout=seconds + PATIENCE_S)
            spent_s, crossed = time.time() - began_s, self._wan_bytes() - wan
        finally:
            if crowd.poll() is None:
                crowd.kill()
                crowd.wait(5)
        time.sleep(1.2)  # the last second's figures are told once a second
        said: dict[str, Any] = json.loads(out.splitlines()[-1])
        return said | {"seconds": seconds, "began_s": began_s, "wan_bytes": crossed, "wan_s": spent_s}

    def _wan_bytes(self) -> int:
        link = next(k for k in self.plan.links if {k.a, k.b} == {GATEWAY, "k2g"})
        port = link.a_port if link.a == GATEWAY else link.b_port
        counted, silent = port_bytes([GATEWAY])
        if silent:
            raise NotSeen(f"switch {GATEWAY} does not tell its port counters")
        return counted[interface_name(GATEWAY, port)]


def measure(kind: str, terminals: int, seconds: float) -> dict[str, Any]:
    """Build the network, let the terminals report, take it down; return the figures of this size."""
    with Bench(kind, terminals) as bench:
        said = bench.crowd(seconds)
        memory = memory_mib([life_of(bench.dccs[0].process.pid)])
        fresh = [(e.t_unix_s, e.data) for e in bench.events if e.kind == "map.fresh" and 1 in e.data["kas"]]
        errors = [e.data.get("text") for e in bench.events if e.kind == "error"]
    return {
        "kind": kind,
        "terminals": terminals,
        "bytes_per_s": round(rate_of([(t, d["bytes"]) for t, d in fresh], said["began_s"], seconds), 1),
        "sent_bytes_per_s": round(said["sent_bytes"] / terminals / seconds, 1),
        "wan_bytes_per_s": round(said["wan_bytes"] / said["wan_s"], 1),
        "dcc_mib": round(memory, 1),
        **{k: said[k] for k in ("cores", "held_share", "age_p50_s") if k in said},
        "errors": len(errors),
        "first_errors": errors[:2],
    }


def rate_of(counted: Sequence[tuple[float, float]], began_s: float, seconds: float) -> float:
    """Return how fast a counter grew between ``began_s`` and so many seconds later, by readings (time, value)."""
    within = [(t, value) for t, value in counted if began_s <= t <= began_s + seconds]
    if len(within) < 2:
        raise NotSeen(f"the control centre told its cost {len(within)} times in {seconds:g} s")
    (t0, first), (t1, last) = within[0], within[-1]
    return (last - first) / (t1 - t0)


def main(arguments: Sequence[str]) -> int:
    """Measure one kind at one size."""
    kind, terminals, seconds = arguments
    print(json.dumps(measure(kind, int(terminals), float(seconds))), flush=True)
    return 0


if __name__ == "__main__":
    run_main(lambda: main(sys.argv[1:]))
