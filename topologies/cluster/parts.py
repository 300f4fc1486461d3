"""A network in parts: which K-AS stands on which server, and what of the plan each server makes. Pure data.

A K-AS is never divided, so only links between gateways are cut; each end of such a link is the end of a tunnel.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import msgspec

from topologies.errors import PlanError
from topologies.plan import LinkPlan, NetworkPlan, interface_name

TUNNEL_BYTES = 50  # VXLAN over IPv4: Ethernet 14, IP 20, UDP 8, VXLAN 8 (RFC 7348)
FULL_MTU, LEAST_MTU = 1500, 1280  # of a terminal; what every path must carry (IPv6's least, as in packets/transfer)


class Cut(msgspec.Struct, frozen=True, kw_only=True):
    """This server's end of a link whose other end is on another server.

    ``number``: the tunnel's own, the same at both ends; ``local``, ``remote``: IPv4 addresses of the two servers.
    """

    link: LinkPlan
    end: Literal["a", "b"]
    number: int
    local: str
    remote: str
    mtu: int

    @property
    def switch(self) -> str:
        """The gateway here."""
        return self.link.a if self.end == "a" else self.link.b

    @property
    def port(self) -> int:
        """Its OpenFlow port."""
        return self.link.a_port if self.end == "a" else self.link.b_port

    @property
    def interface(self) -> str:
        """The interface of that port."""
        return interface_name(self.switch, self.port)


def place(kas: Sequence[int], servers: Sequence[str], said: Mapping[int, str]) -> dict[int, str]:
    """Return the server of each K-AS: the one said, else in turn; ``PlanError`` names what cannot be."""
    from mininet.examples.cluster import RoundRobinPlacer  # brings Mininet along: not for every command

    for number, server in said.items():
        if number not in kas:
            raise PlanError(f"--place {number}={server}: there is no K-AS {number}; there are {_listed(kas)}")
        if server not in servers:
            raise PlanError(f"--place {number}={server}: {server} is none of --servers {','.join(servers)}")
    placer = RoundRobinPlacer(servers=list(servers))
    found = {number: said.get(number) or str(placer.place(number)) for number in sorted(kas)}
    idle = [server for server in servers if server not in found.values()]
    if idle:
        raise PlanError(f"server {idle[0]} would have no K-AS: there are {len(kas)} for {len(servers)} servers")
    return found


def kas_of(plan: NetworkPlan) -> dict[str, int]:
    """Return the K-AS of every switch and station."""
    return {s.name: s.kas for s in plan.switches} | {h.name: h.kas for h in plan.stations}


def part_of(plan: NetworkPlan, kas: Iterable[int]) -> NetworkPlan:
    """Return what of a plan stands where these K-AS do; the links that are cut are not in it."""
    mine = set(kas)
    nodes = {name for name, number in kas_of(plan).items() if number in mine}
    return NetworkPlan(
        name=plan.name,
        hosts=[h for h in plan.hosts if h.kas in mine],
        switches=[s for s in plan.switches if s.kas in mine],
        links=[x for x in plan.links if {x.a, x.b} <= nodes],
        speakers=[s for s in plan.speakers if s.kas in mine],
    )


def crossing(plan: NetworkPlan, placed: Mapping[int, str]) -> list[tuple[LinkPlan, str, str]]:
    """Return the links between servers, in the plan's order, each with the servers of its two ends."""
    at = {name: placed[kas] for name, kas in kas_of(plan).items()}
    return [(x, at[x.a], at[x.b]) for x in plan.links if at[x.a] != at[x.b]]


def tunnel_mtu(path_mtu: int, between: str) -> int:
    """Return what a tunnel over a path carries; ``PlanError`` when that is less than every terminal must send."""
    mtu = min(FULL_MTU, path_mtu - TUNNEL_BYTES)
    if mtu < LEAST_MTU:
        raise PlanError(
            f"between {between} packets of {path_mtu} bytes pass; a tunnel takes {TUNNEL_BYTES} of them, and "
            f"{LEAST_MTU} must be left: raise the MTU there to {LEAST_MTU + TUNNEL_BYTES} or more"
        )
    return mtu


def _listed(numbers: Iterable[int]) -> str:
    return ", ".join(str(n) for n in sorted(numbers))
