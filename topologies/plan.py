"""The declared network: what a topology promises, and what a controller is told of its own part of it.

Pure data (no Mininet), so that controller and tests can use it without root. A ``NetworkPlan`` is the whole network;
``domain`` cuts from it what the DCC of one K-AS (or of several, when one process serves them all) may know: its own
switches, hosts and links, and of its neighbours only their number and the border link.
"""

from __future__ import annotations

from typing import Literal

import msgspec

Role = Literal["data", "compute", "mpvu", "mdfp", "model_owner", "query_owner", "host"]
StationRole = Literal[Role, "kbg"]
KBG_ROLE: Literal["kbg"] = "kbg"


class HostPlan(msgspec.Struct, frozen=True, kw_only=True):
    """One terminal, or the border speaker of a gateway (role ``kbg``).

    ``port`` is the OpenFlow port number of ``switch`` it hangs on.
    """

    name: str
    role: StationRole
    kas: int
    address: str
    mac: str
    switch: str
    port: int
    cpu_share: float = 1.0
    data_may_move: bool = False


class SwitchPlan(msgspec.Struct, frozen=True, kw_only=True):
    """One switch. ``gateway`` marks the K-AS's border gateway (KBG)."""

    name: str
    dpid: int
    kas: int
    gateway: bool = False


class LinkPlan(msgspec.Struct, frozen=True, kw_only=True):
    """One link. ``a``/``b`` are node names (``b`` is always a switch; ``a`` may be a host); delay is one way.

    ``number`` counts parallel links between the same two nodes; ``queue_packets`` 0: as long as the rate asks for.
    """

    a: str
    a_port: int
    b: str
    b_port: int
    rate_mbps: float
    delay_ms: float = 0.0
    loss_percent: float = 0.0
    number: int = 1
    queue_packets: int = 0

    @property
    def name(self) -> str:
        """The link's name, its own also among parallel links: ``k1g-k2g``, ``k1g-k2g-2``."""
        return f"{self.a}-{self.b}" + (f"-{self.number}" if self.number > 1 else "")


class BorderPlan(msgspec.Struct, frozen=True, kw_only=True):
    """A WAN link as a K-AS sees it: own gateway port, and the number of the K-AS beyond.

    ``rank``: its place among all links, by which both sides of several borders prefer the same one.
    """

    switch: str
    port: int
    neighbour_kas: int
    rate_mbps: float
    delay_ms: float
    rank: int = 0


class KasLink(msgspec.Struct, frozen=True, kw_only=True):
    """The K-AS level graph, which every DCC may know."""

    a_kas: int
    b_kas: int
    rate_mbps: float
    delay_ms: float


class DomainPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What one DCC process is told: the inside of the K-AS it serves, its borders, and the K-AS level graph.

    ``hosts`` holds the border speakers of its gateways, too.
    """

    kas: list[int]
    switches: list[SwitchPlan]
    hosts: list[HostPlan]
    links: list[LinkPlan]
    borders: list[BorderPlan]
    kas_links: list[KasLink]


class NetworkPlan(msgspec.Struct, frozen=True, kw_only=True):
    """The whole declared network. ``speakers``: the hosts beside its gateways that speak the border protocol."""

    name: str
    hosts: list[HostPlan]
    switches: list[SwitchPlan]
    links: list[LinkPlan]
    speakers: list[HostPlan] = []

    @property
    def stations(self) -> list[HostPlan]:
        """All hosts: terminals, then border speakers."""
        return [*self.hosts, *self.speakers]

    @property
    def wires(self) -> list[LinkPlan]:
        """All links: the declared ones, then those of the border speakers."""
        return [*self.links, *(speaker_link(s) for s in self.speakers)]

    @property
    def kas_numbers(self) -> list[int]:
        return sorted({s.kas for s in self.switches})

    def domain(self, *kas: int) -> DomainPlan:
        """Cut what a DCC of these K-AS may know (all K-AS when none is named)."""
        mine = set(kas or self.kas_numbers)
        kas_of = {s.name: s.kas for s in self.switches} | {h.name: h.kas for h in self.hosts}
        inside: list[LinkPlan] = []
        borders: list[BorderPlan] = []
        between: list[KasLink] = []
        for rank, link in enumerate(self.links):
            a, b = kas_of[link.a], kas_of[link.b]
            if a != b:
                between.append(KasLink(a_kas=a, b_kas=b, rate_mbps=link.rate_mbps, delay_ms=link.delay_ms))
            if a in mine and b in mine:
                inside.append(link)
            elif a in mine or b in mine:
                switch, port, other = (link.a, link.a_port, b) if a in mine else (link.b, link.b_port, a)
                borders.append(
                    BorderPlan(
                        switch=switch,
                        port=port,
                        neighbour_kas=other,
                        rate_mbps=link.rate_mbps,
                        delay_ms=link.delay_ms,
                        rank=rank,
                    )
                )
        return DomainPlan(
            kas=sorted(mine),
            switches=[s for s in self.switches if s.kas in mine],
            hosts=[h for h in self.stations if h.kas in mine],
            links=inside,
            borders=borders,
            kas_links=between,
        )


SPEAKER_MBPS = 200.0


def speaker_link(speaker: HostPlan) -> LinkPlan:
    """Return the link of a border speaker to its gateway: short and wide, the WAN is what it waits for."""
    return LinkPlan(a=speaker.name, a_port=0, b=speaker.switch, b_port=speaker.port, rate_mbps=SPEAKER_MBPS)


def kas_prefix(kas: int) -> str:
    """Return the subnet of a K-AS, ``10.<k>.0.0/16``."""
    if not 1 <= kas <= 255:
        raise ValueError(f"K-AS number {kas} is not in 1..255")
    return f"10.{kas}.0.0/16"


def gateway_address(kas: int) -> str:
    """Return the address of the (virtual, anycast) router that every host of a K-AS uses as default gateway."""
    return f"10.{kas}.255.254"


OPENFLOW_ADDRESSES = ("127.0.0.1", "127.0.0.2")  # a control centre is at one, its switches' spare sessions at the other
ROUTER_MAC = "00:00:5e:00:01:01"  # the VRRP range: an address that belongs to a role, not to a card
MAX_INTERFACE_NAME = 15  # IFNAMSIZ - 1


def interface_name(node: str, port: int) -> str:
    """Return the name of the network interface behind a port, as Mininet names it (``h11-eth0``, ``k1s1-eth3``)."""
    return f"{node}-eth{port}"
