"""Bring-up at scale: 20 to 500 shaped terminals until they are of use, beside plain Mininet; and down again.

    make bench-scale                                # 20, 100, 200, 500 terminals
    python -m benchmarks.scale --hosts 200 --no-mininet

Four K-AS joined in a ring, twenty terminals on an access switch; every link has a rate, those between K-AS a delay of
10 ms.  ``up_s``: from the plan to the first UDP datagram between the farthest terminals, over rules of our control
centre (one process for all K-AS, started at the same time, loading included).  ``mininet_up_s``: plain Mininet of the
same hosts, switches and links (``TCLink`` with ``bw`` and ``delay``; userspace ``OVSSwitch``, no controller), from
``Mininet(...)`` to the end of ``start()``; it carries nothing yet then, and where the kernel has no netem it goes on
without the delays, having said so.  ``rss_mib``: proportional set size of all processes of the run, Open vSwitch left
out.  ``left``: what is there after the teardown and was not before: interfaces, bridges, processes of the run.
``agents``: terminals with a PyTorch agent, of the size that ``--agents`` names, on a network of their own (and without
keys: a control centre vouches for its own K-AS, and here is one for all); ``agents_up_s``: until all have
registered with their control centre over the network and have trained one step on their own data;
``agents_rss_mib``: as ``rss_mib``, with them.
``flows``, ``flows_per_s``: rules of the control centre, and how fast their bytes are made, first and from what is kept;
``os_ken_flows_per_s``: the same by os-ken's own objects.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import socket
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec

from benchmarks.common import ChildTimeout, NotSeen, finish, python, run_child, run_main, say
from benchmarks.scale_agents import grow
from controller.domain import Domain
from controller.oam.hub import EventHub
from controller.southbound import guard, pipeline, translate
from controller.southbound.openflow import FlowMod
from experiments.testbed.counters import memory_mib, run_processes
from experiments.testbed.identities import Identities
from experiments.testbed.processes import Child
from topologies.build import Terminal, Wan, build_plan
from topologies.machine import netns, shell
from topologies.network import Network
from topologies.plan import HostPlan, NetworkPlan

SIZES = (20, 100, 200, 500)
KAS, PER_SWITCH = 4, 20
OPENFLOW_PORT, UDP_PORT = 6821, 9902
PATIENCE_S = 120.0
MININET_LIMIT_S = 240.0


def plan_of(hosts: int) -> NetworkPlan:
    """Declare a ring of four K-AS with so many terminals."""
    each = -(-hosts // KAS)
    kas = {
        k: [Terminal(f"t{n}", "data") for n in range((k - 1) * each, min(hosts, k * each))] for k in range(1, KAS + 1)
    }
    ring = [Wan(k, k % KAS + 1) for k in range(1, KAS + 1)]
    return build_plan("scale", kas=kas, wan=ring, access_switches=max(2, -(-each // PER_SWITCH)))


# --- ours


def usable(network: Network, a: HostPlan, b: HostPlan) -> None:
    """Return when a datagram from one terminal has reached another."""

    def make() -> socket.socket:
        return socket.socket(socket.AF_INET, socket.SOCK_DGRAM)

    into, out = netns.inside(network[b.name].pid, make), netns.inside(network[a.name].pid, make)
    with into, out:
        into.bind((b.address, UDP_PORT))
        into.settimeout(0.02)
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            with contextlib.suppress(OSError):
                out.sendto(b"up", (b.address, UDP_PORT))
                into.recv(16)
                return
    raise NotSeen(f"UDP from {a.name} to {b.name}: not within {PATIENCE_S:g} s")


@contextlib.contextmanager
def standing(plan: NetworkPlan, folder: Path, figures: dict[str, Any], guarded: bool) -> Iterator[Network]:
    """Bring the network up with its control centre, measured; and down again, measured too."""
    before, run_id = present(), f"scale-{os.getpid()}"
    begin = time.monotonic()
    network = Network(plan, run_id, dict.fromkeys(plan.kas_numbers, OPENFLOW_PORT), folder / "net")
    file = folder / "plan.json"
    file.write_bytes(msgspec.json.encode(plan.domain()))
    runtime = folder / "run"
    (runtime / "agents").mkdir()
    words: dict[str, Any] = {"--plan": file, "--openflow-port": OPENFLOW_PORT, "--events": runtime / "events.sock"}
    words |= Identities(plan, runtime).controller_options(plan.kas_numbers[0]) if guarded else {}
    command = python("controller", *(str(word) for pair in words.items() for word in pair))
    dcc = Child("dcc", command, folder / "dcc.log", run_id)
    try:
        network.start()
        figures["network_s"] = round(time.monotonic() - begin, 2)
        usable(network, plan.hosts[0], plan.hosts[len(plan.hosts) // 2])
        figures["up_s"] = round(time.monotonic() - begin, 2)
        figures |= {f"{step}_s": round(took, 2) for step, took in network.seconds.items()}
        figures["rss_mib"] = round(memory_mib([os.getpid(), *run_processes(run_id)]), 1)
        yield network
    finally:
        begin = time.monotonic()
        dcc.stop()
        network.stop()
        figures["down_s"] = round(time.monotonic() - begin, 2)
    figures["left"] = sorted(present() - before) + [str(pid) for pid in run_processes(run_id)]


def present() -> set[str]:
    """Return the names of all interfaces and bridges here."""
    return set(os.listdir("/sys/class/net")) | set(shell.must("ovs-vsctl", "list-br").split())


# --- plain Mininet, the same network


def mininet(plan: NetworkPlan) -> dict[str, Any]:
    """Bring the same network up by Mininet's own means; return how long it took."""
    from functools import partial

    from mininet.link import TCLink
    from mininet.log import setLogLevel
    from mininet.net import Mininet
    from mininet.node import OVSSwitch

    setLogLevel("critical")
    begin = time.monotonic()
    net = Mininet(switch=partial(OVSSwitch, datapath="user"), link=TCLink, controller=None, autoSetMacs=True)
    try:
        for switch in plan.switches:
            net.addSwitch(switch.name, dpid=f"{switch.dpid:016x}", failMode="secure")
        for host in plan.hosts:
            net.addHost(host.name, ip=f"{host.address}/16")
        for link in plan.links:
            delay = {"delay": f"{link.delay_ms:g}ms"} if link.delay_ms else {}
            net.addLink(link.a, link.b, bw=min(link.rate_mbps, 1000), **delay)
        net.start()
        up_s = time.monotonic() - begin
    finally:
        begin = time.monotonic()
        net.stop()
    return {"mininet_up_s": round(up_s, 2), "mininet_down_s": round(time.monotonic() - begin, 2)}


# --- rules


def rules(plan: NetworkPlan) -> dict[str, Any]:
    """Return how many rules a control centre of all K-AS has, and how fast it has their bytes."""
    from os_ken.ofproto import ofproto_v1_3, ofproto_v1_3_parser

    domain = Domain(plan.domain())
    begin = time.monotonic()
    routes = pipeline.route_flows(domain)
    routes_s = time.monotonic() - begin
    mods = [mod for s in plan.switches for mod in pipeline.base_mods(domain, s, meters=True)]
    mods += [mod for s in plan.switches for mod in guard.switch_mods(domain, s, meters=True, own_source=True)]
    flows = [mod for mod in mods if isinstance(mod, FlowMod)] + [flow for table in routes.values() for flow in table]

    def rate(make: Any, some: Sequence[FlowMod]) -> int:
        begin = time.monotonic()
        for flow in some:
            make(flow)
        return round(len(some) / (time.monotonic() - begin))

    datapath = SimpleNamespace(id=1, ofproto=ofproto_v1_3, ofproto_parser=ofproto_v1_3_parser)

    def by_os_ken(flow: FlowMod) -> None:
        message = translate.to_message(datapath, flow)
        message.set_xid(1)
        message.serialize()

    def ours(flow: FlowMod) -> None:
        translate.to_bytes(1, flow)

    return {
        "flows": len(flows),
        "routes_s": round(routes_s, 3),
        "flows_per_s": rate(ours, flows),
        "flows_again_per_s": rate(ours, flows),
        "os_ken_flows_per_s": rate(by_os_ken, flows[:: max(1, len(flows) // 4000)]),
    }


# --- the benchmark


def one(hosts: int, agents: bool) -> dict[str, Any]:
    """Measure one size in this process."""
    figures: dict[str, Any] = {"hosts": hosts}
    plan = plan_of(hosts)
    with tempfile.TemporaryDirectory(prefix="daitn-scale-") as name:
        folder = Path(name)
        (folder / "run").mkdir()
        with EventHub(folder / "run" / "events.sock") as hub, standing(plan, folder, figures, not agents) as network:
            if agents:
                figures |= grow(network, folder, hub, [os.getpid()])
    return {**figures, **rules(plan)}


def child(*words: str, timeout_s: float) -> dict[str, Any]:
    """Run this module anew, so that one size finds nothing of another; return its last line."""
    with tempfile.TemporaryDirectory(prefix="daitn-scale-") as folder:
        log = Path(folder) / "log"
        status = run_child(python("benchmarks.scale", *words), log, timeout_s)
        lines = log.read_text(errors="replace").strip().splitlines()
    if status or not lines:
        raise NotSeen(f"benchmarks.scale {' '.join(words)}: {' '.join(lines[-2:])}")
    return dict(json.loads(lines[-1]))


def beside(hosts: int) -> dict[str, Any]:
    """Run plain Mininet within its time limit; one line says why it failed."""
    try:
        return child("--plain", str(hosts), timeout_s=MININET_LIMIT_S)
    except (NotSeen, ChildTimeout) as error:
        return {"mininet_up_s": None, "mininet_failed": " ".join(str(error).split())[-200:]}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; exit status 1 when something was left after a teardown."""
    parser = argparse.ArgumentParser(prog="benchmarks.scale", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--hosts", type=int, nargs="+", default=list(SIZES), help="sizes (default %(default)s)")
    parser.add_argument("--no-mininet", action="store_true", help="leave plain Mininet out")
    parser.add_argument("--agents", type=int, default=200, help="size that has PyTorch agents (default %(default)s)")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--with-agents", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--plain", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.one or options.plain:
        say(json.dumps(one(options.one, options.with_agents) if options.one else mininet(plan_of(options.plain))))
        return 0
    rows = []
    for hosts in options.hosts:
        row = child("--one", str(hosts), timeout_s=PATIENCE_S)
        if hosts == options.agents:
            grown = child("--one", str(hosts), "--with-agents", timeout_s=3 * PATIENCE_S)
            row |= {k: v for k, v in grown.items() if k.startswith("agents")} | {"left": row["left"] + grown["left"]}
        rows.append(row if options.no_mininet else row | beside(hosts))
        say(json.dumps(rows[-1]))
    columns = ("hosts", "up_s", "mininet_up_s", "rss_mib", "down_s")
    left = sum(len(row["left"]) for row in rows)
    finish({**{c: [row.get(c) for row in rows] for c in columns}, "left": left, "rows": rows})
    return 1 if any(row["left"] for row in rows) else 0


if __name__ == "__main__":
    run_main(main)
