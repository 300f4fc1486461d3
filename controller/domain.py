"""The declared inside of a domain as a graph, with what is up and what is down; next hops for every switch.

One domain may hold one K-AS (the usual case: one DCC per K-AS) or several (one process for a whole network).  Each K-AS
is routed by itself, and K-AS among each other over their borders, so both cases take the same ways.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from dataclasses import dataclass, field

from controller.errors import PlanError
from controller.values.errors import NoPath
from controller.values.paths import Edge, kas_path
from topologies.plan import KBG_ROLE, BorderPlan, DomainPlan, HostPlan, KasLink, LinkPlan, SwitchPlan

NextEdge = tuple[str, int, int]  # neighbour, own port, cost in nanoseconds


def link_cost(rate_mbps: float, delay_ms: float) -> int:
    """Return what a link costs, in the whole nanoseconds that ``engines.paths`` counts in (so that both agree)."""
    return Edge(0, 0, rate_mbps, delay_ms).cost_ns


@dataclass
class Domain:
    """A ``DomainPlan`` with lookups; ``down`` holds the (switch, port) pairs whose link is gone."""

    plan: DomainPlan
    down: set[tuple[str, int]] = field(default_factory=set)
    down_kas: set[frozenset[int]] = field(default_factory=set)

    def __post_init__(self) -> None:
        plan = self.plan
        self.kas = set(plan.kas)
        self.switches = {s.name: s for s in plan.switches}
        self.by_dpid = {s.dpid: s for s in plan.switches}
        self.hosts = {h.name: h for h in plan.hosts}
        self.host_at = {(h.switch, h.port): h for h in plan.hosts}
        self.host_by_address = {h.address: h for h in plan.hosts}
        self.trunks: dict[tuple[str, int], LinkPlan] = {}
        for link in plan.links:
            if link.a in self.switches:
                self.trunks[link.a, link.a_port] = self.trunks[link.b, link.b_port] = link
        self._trunks_of: dict[str, list[tuple[int, LinkPlan]]] = {name: [] for name in self.switches}
        for (name, port), link in self.trunks.items():
            self._trunks_of[name].append((port, link))
        self.borders = self._all_borders()
        self._check()

    def _check(self) -> None:
        if len(self.by_dpid) != len(self.plan.switches):
            raise PlanError("plan: two switches share a dpid; give each its own")
        for host in self.plan.hosts:
            if host.switch not in self.switches:
                raise PlanError(f"plan: host {host.name} hangs on {host.switch}, which is not a switch of this domain")
        if missing := self.kas - {s.kas for s in self.plan.switches}:
            raise PlanError(f"plan: K-AS {sorted(missing)} is served but has no switch")

    def _all_borders(self) -> dict[tuple[str, int], BorderPlan]:
        """Borders towards other domains, and those between two K-AS of this one."""
        found = {(b.switch, b.port): b for b in self.plan.borders}
        rank = {id(link): number for number, link in enumerate(self.plan.links)}
        for (name, port), link in self.trunks.items():
            other = self.switches[link.b if link.a == name else link.a]
            if other.kas != self.switches[name].kas:
                found[name, port] = BorderPlan(
                    switch=name,
                    port=port,
                    neighbour_kas=other.kas,
                    rate_mbps=link.rate_mbps,
                    delay_ms=link.delay_ms,
                    rank=rank[id(link)],
                )
        return found

    def far_end(self, name: str, port: int) -> tuple[str, int] | None:
        """Return (switch, port) at the other end of a trunk of this domain, or None."""
        link = self.trunks.get((name, port))
        if link is None:
            return None
        return (link.b, link.b_port) if (link.a, link.a_port) == (name, port) else (link.a, link.a_port)

    def is_up(self, name: str, port: int) -> bool:
        """Tell whether the link at a port is up, as far as either of its ends in this domain has said."""
        return (name, port) not in self.down and self.far_end(name, port) not in self.down

    def leads_on(self, name: str, port: int) -> bool:
        """Tell whether a port is up and, at a border, nobody has said that the link to the next K-AS is down."""
        border = self.borders.get((name, port))
        if border is not None and frozenset((self.switches[name].kas, border.neighbour_kas)) in self.down_kas:
            return False
        return self.is_up(name, port)

    def edges(self, name: str) -> Iterable[NextEdge]:
        """Yield the live links of a switch to switches of its own K-AS."""
        for port, link in self._trunks_of[name]:
            if not self.is_up(name, port):
                continue
            other = link.b if link.a == name and link.a_port == port else link.a
            if self.switches[other].kas == self.switches[name].kas:
                yield other, port, link_cost(link.rate_mbps, link.delay_ms)

    def switches_of(self, kas: int) -> list[SwitchPlan]:
        """Return the switches of a K-AS, as declared."""
        return [s for s in self.plan.switches if s.kas == kas]

    def hosts_of(self, kas: int) -> list[HostPlan]:
        """Return the terminals of a K-AS, as declared."""
        return [h for h in self.plan.hosts if h.kas == kas]

    def speakers(self, kas: int) -> list[HostPlan]:
        """Return the border speakers of a K-AS, as declared."""
        return [h for h in self.hosts_of(kas) if h.role == KBG_ROLE]

    def cut_from(self, gateway: str) -> set[int]:
        """Return the neighbouring K-AS to which a gateway has links, but none that is up."""
        links = [(port, b.neighbour_kas) for (name, port), b in self.borders.items() if name == gateway]
        return {kas for _, kas in links} - {kas for port, kas in links if self.is_up(gateway, port)}

    def next_ports(self, target: str) -> dict[str, int]:
        """Return, for every switch of the target's K-AS that reaches it, the port of the next hop to ``target``.

        Every hop strictly lowers the distance to the target, so following the ports cannot loop.
        """
        distance, port_to = {target: 0}, dict[str, int]()
        heap = [(0, target)]
        while heap:
            so_far, name = heapq.heappop(heap)
            if so_far > distance[name]:
                continue
            for other, port, cost in self.edges(name):
                reached = so_far + cost
                if reached < distance.get(other, float("inf")):
                    distance[other] = reached
                    far = self.far_end(name, port)
                    port_to[other] = far[1] if far else 0
                    heapq.heappush(heap, (reached, other))
        return port_to

    def live_kas_links(self) -> list[KasLink]:
        """Return the links between K-AS that nobody has said to be down."""
        return [k for k in self.plan.kas_links if frozenset((k.a_kas, k.b_kas)) not in self.down_kas]

    def next_kas(self, target: int) -> dict[int, int]:
        """Return, for every K-AS that reaches ``target``, the next K-AS on the way (strictly nearer: no loops)."""
        distance, towards = {target: 0}, dict[int, int]()
        heap = [(0, target)]
        while heap:
            so_far, kas = heapq.heappop(heap)
            if so_far > distance[kas]:
                continue
            for link in self.live_kas_links():
                if kas not in (link.a_kas, link.b_kas):
                    continue
                other = link.b_kas if link.a_kas == kas else link.a_kas
                reached = so_far + link_cost(link.rate_mbps, link.delay_ms)
                if reached < distance.get(other, float("inf")):
                    distance[other], towards[other] = reached, kas
                    heapq.heappush(heap, (reached, other))
        return towards

    def kas_path(self, start: int, end: int) -> list[int]:
        """Return the K-AS on the way from one to another, both included; empty when there is none."""
        if start == end:
            return [start]
        down = [(min(pair), max(pair)) for pair in self.down_kas]
        try:
            return kas_path(self.plan.kas_links, start, end, down)
        except NoPath:
            return []

    def border(self, kas: int, neighbour: int) -> BorderPlan | None:
        """Return the live border of ``kas`` towards a neighbouring K-AS, or None; of several the first declared, so
        that both sides take the same.
        """
        for (name, port), border in sorted(self.borders.items(), key=lambda at: (at[1].rank, at[0])):
            if border.neighbour_kas == neighbour and self.switches[name].kas == kas and self.is_up(name, port):
                return border
        return None

    def down_links(self) -> frozenset[str]:
        """Return the names of the links inside this domain that are down, for engines that know no ports."""
        hosts = {(h.switch, h.port) for h in self.plan.hosts}
        return frozenset(
            link.name
            for link in self.plan.links
            if (link.b, link.b_port) in self.down
            or ((link.a, link.a_port) in self.down and (link.a, link.a_port) not in hosts)
        )
