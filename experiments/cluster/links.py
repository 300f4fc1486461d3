"""The links between servers: over which addresses, and how much a packet there may carry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec

from experiments.cluster.orders import Way
from experiments.cluster.server import Server
from experiments.testbed.openflow_tls import HERE
from topologies.cluster.calibrate import STEPS, Heard, judge_tunnel
from topologies.cluster.parts import FULL_MTU, Cut, tunnel_mtu
from topologies.cluster.ssh import address_of
from topologies.errors import PlanError
from topologies.machine.calibrate import RETRIES, LinkCalibration
from topologies.plan import LinkPlan


def cuts_of(
    crossing: Sequence[tuple[LinkPlan, str, str]], servers: Mapping[str, Server]
) -> tuple[dict[str, list[Cut]], int]:
    """Return each server's ends of the tunnels, and the MTU of the network: what every tunnel carries."""
    cuts: dict[str, list[Cut]] = {name: [] for name in servers}
    if not crossing:
        return cuts, FULL_MTU
    pairs = sorted({(a, b) for _, a, b in crossing} | {(b, a) for _, a, b in crossing})
    ways = _ways(pairs, servers)
    mtu = min(tunnel_mtu(min(ways[a, b].mtu, ways[b, a].mtu), f"{a} and {b}") for a, b in pairs)
    for number, (link, a, b) in enumerate(crossing, 1):
        ends = {"a": (a, ways[a, b].local, ways[b, a].local), "b": (b, ways[b, a].local, ways[a, b].local)}
        for end, (server, local, remote) in ends.items():
            cut = {"link": link, "end": end, "number": number, "local": local, "remote": remote, "mtu": mtu}
            cuts[server].append(msgspec.convert(cut, Cut))
    return cuts, mtu


def measure(link: LinkPlan, a: Server, b: Server) -> LinkCalibration:
    """Measure a link between two servers from both ends; again where it is off, as any link."""
    for _ in range(1 + RETRIES):
        ends: list[Heard] = []
        with ThreadPoolExecutor(2) as pool:
            for step in (*STEPS, "heard"):
                said = list(pool.map(lambda server, step=step: _step(server, link, step), (a, b)))
                ends = msgspec.convert(said, list[Heard]) if step == "heard" else []
        found = judge_tunnel(link, ends)
        if found.ok:
            break
    return found


def _step(server: Server, link: LinkPlan, step: str) -> Any:
    return server.ask("measure_tunnel", link=link.name, step=step)


def _ways(pairs: Sequence[tuple[str, str]], servers: Mapping[str, Server]) -> dict[tuple[str, str], Way]:
    """Ask each server how it reaches those that it shares a link with."""
    named = {name: address_of(name) for name in servers if name != HERE}
    if HERE in servers:
        other = next(name for name in servers if name != HERE)
        named[HERE] = _ask(servers[HERE], [named[other]])[named[other]].local
    found: dict[tuple[str, str], Way] = {}
    for name, server in servers.items():
        others = [b for a, b in pairs if a == name]
        ways = _ask(server, [named[b] for b in others])
        found |= {(name, b): ways[named[b]] for b in others}
    for (a, b), way in found.items():
        if not way.local or way.local.startswith("127."):
            raise PlanError(f"server {a} reaches {b} over its loopback: give names of two machines")
    return found


def _ask(server: Server, addresses: Sequence[str]) -> dict[str, Way]:
    return msgspec.convert(server.ask("ways", addresses=list(addresses)), dict[str, Way])
