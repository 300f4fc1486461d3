"""Build a ``NetworkPlan`` from a few words: which terminals in which K-AS, which K-AS are joined.

Every K-AS is built alike: access switches ``k<k>s1`` .. ``k<k>s<n>`` in a ring (a line when there are two), each with
a link to the border gateway ``k<k>g``. Terminals hang on the access switches in turn. Numbers are a function of the
declaration alone, so the same words give the same addresses, ports and datapath ids on every machine.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import Any, get_args

import msgspec

from topologies.errors import PlanError
from topologies.plan import (
    KBG_ROLE,
    MAX_INTERFACE_NAME,
    HostPlan,
    LinkPlan,
    NetworkPlan,
    Role,
    StationRole,
    SwitchPlan,
    interface_name,
    kas_prefix,
)

MAX_RATE_MBPS = 10_000.0
MIN_RATE_MBPS = 0.008  # 8 kbit/s: below, tc(8) rounds the rate to nothing, and one packet takes seconds
_NAME = re.compile(r"[a-z][a-z0-9]*\Z")


@dataclass(frozen=True)
class Terminal:
    """One terminal to place.

    ``switch`` is a switch index in its K-AS (None: in turn), ``rate_mbps`` its access link.
    """

    name: str
    role: Role = "host"
    switch: int | None = None
    cpu_share: float = 1.0
    data_may_move: bool = False
    rate_mbps: float | None = None
    delay_ms: float = 0.0


@dataclass(frozen=True)
class Wan:
    """A link between the gateways of two K-AS; None takes the default of ``Rates``."""

    a: int
    b: int
    rate_mbps: float | None = None
    delay_ms: float | None = None
    loss_percent: float = 0.0


@dataclass(frozen=True)
class Rates:
    """Default rates (Mbit/s) and one-way WAN delay (ms)."""

    access_mbps: float = 100.0
    lan_mbps: float = 200.0
    wan_mbps: float = 50.0
    wan_delay_ms: float = 10.0


def build_plan(
    name: str,
    *,
    kas: Mapping[int, Sequence[Terminal | str]],
    wan: Sequence[Wan | tuple[int, int]] = (),
    rates: Rates | None = None,
    access_switches: int = 2,
) -> NetworkPlan:
    """Build and check a plan. A terminal is a ``Terminal`` or ``"name:role"``; ``PlanError`` names what is wrong."""
    builder = Builder(rates or Rates())
    for number in sorted(kas):
        builder.add_kas(number, access_switches)
    for link in wan:
        builder.add_wan(link if isinstance(link, Wan) else Wan(*link))
    for number in sorted(kas):
        for place, terminal in enumerate(kas[number]):
            builder.add_terminal(number, _terminal(terminal), 1 + place % access_switches)
    return builder.plan(name)


def _terminal(spec: Terminal | str) -> Terminal:
    if isinstance(spec, Terminal):
        return spec
    name, _, role = spec.partition(":")
    if (role or "host") not in get_args(Role):
        raise PlanError(f"terminal {name}: role {role!r} is none of {', '.join(get_args(Role))}")
    return Terminal(name, role or "host")  # type: ignore[arg-type]  # checked in the line above


class Builder:
    """Hands out names, ports and addresses while switches, terminals and links are declared, one by one.

    ``plan`` checks the whole. A switch with a link to another K-AS is a gateway (KBG), said or not.
    """

    def __init__(self, rates: Rates) -> None:
        self.rates = rates
        self.hosts: list[HostPlan] = []
        self.switches: list[SwitchPlan] = []
        self.links: list[LinkPlan] = []
        self._speakers: dict[str, HostPlan] = {}
        self._ports: dict[str, count[int]] = {}
        self._addresses: dict[str, count[int]] = {}
        self._by_index: dict[tuple[int, int], str] = {}
        self._gateways: dict[int, str] = {}

    def plan(self, name: str) -> NetworkPlan:
        """Return the checked plan of what was declared; ``PlanError`` names what is wrong."""
        kas_of = {s.name: s.kas for s in self.switches}
        borders = [{x.a, x.b} for x in self.links if x.a in kas_of and kas_of[x.a] != kas_of[x.b]]
        ends = set().union(*borders)
        switches = [msgspec.structs.replace(s, gateway=s.gateway or s.name in ends) for s in self.switches]
        speakers = [self._speaker(s) for s in switches if s.name in ends]
        plan = NetworkPlan(name=name, hosts=self.hosts, switches=switches, links=self.links, speakers=speakers)
        validate(plan)
        return plan

    def add_kas(self, kas: int, access_switches: int) -> None:
        if not 1 <= kas <= 255 or not 1 <= access_switches <= 253:
            raise PlanError(f"K-AS {kas} with {access_switches} access switches: K-AS are 1..255, switches 1..253")
        for index in range(1, access_switches + 1):
            self._add_switch(kas, index, f"k{kas}s{index}")
        self._add_switch(kas, access_switches + 1, f"k{kas}g", gateway=True)
        self._gateways[kas] = f"k{kas}g"
        for index in range(1, access_switches + 1):
            self._join(f"k{kas}s{index}", f"k{kas}g", self.rates.lan_mbps)
        for index in range(1, access_switches):
            self._join(f"k{kas}s{index}", f"k{kas}s{index + 1}", self.rates.lan_mbps)
        if access_switches > 2:
            self._join(f"k{kas}s{access_switches}", f"k{kas}s1", self.rates.lan_mbps)

    def add_wan(self, wan: Wan) -> None:
        missing = [k for k in (wan.a, wan.b) if k not in self._gateways]
        if missing or wan.a == wan.b:
            raise PlanError(f"WAN link {wan.a}-{wan.b}: joins two different declared K-AS ({sorted(self._gateways)})")
        rate = self.rates.wan_mbps if wan.rate_mbps is None else wan.rate_mbps
        delay = self.rates.wan_delay_ms if wan.delay_ms is None else wan.delay_ms
        self._join(self._gateways[wan.a], self._gateways[wan.b], rate, delay, wan.loss_percent)

    def add_switch(self, kas: int, name: str = "", *, gateway: bool = False) -> str:
        """Declare a switch of a K-AS (named ``k<kas>s<n>`` unless it has a name); return its name."""
        if not 1 <= kas <= 255:
            raise PlanError(f"switch {name or '?'}: K-AS {kas} is not in 1..255")
        index = 1 + sum(s.kas == kas for s in self.switches)
        if index > 254:
            raise PlanError(f"K-AS {kas} has more than 254 switches; divide it")
        name = name or f"k{kas}s{index}"
        self._add_switch(kas, index, name, gateway=gateway)
        return name

    def add_terminal_at(self, switch: str, terminal: Terminal, **link: float) -> None:
        """Declare a terminal at a switch; ``link``: loss_percent, queue_packets of its access link."""
        found = next(((k, i) for (k, i), n in self._by_index.items() if n == switch), None)
        if found is None:
            raise PlanError(f"terminal {terminal.name}: there is no switch {switch}")
        self.add_terminal(found[0], replace(terminal, switch=found[1]), found[1])
        self.links[-1] = msgspec.structs.replace(self.links[-1], **link)

    def add_link(
        self, a: str, b: str, rate_mbps: float, delay_ms: float = 0.0, loss_percent: float = 0.0, queue_packets: int = 0
    ) -> None:
        """Declare a link between two switches; the second between the same two is a parallel one."""
        for end in (a, b):
            if end not in self._ports:
                raise PlanError(f"link {a}-{b}: there is no switch {end}")
        if a == b:
            raise PlanError(f"link {a}-{b}: a link has two different ends")
        self._join(a, b, rate_mbps, delay_ms, loss_percent)
        self.links[-1] = msgspec.structs.replace(self.links[-1], queue_packets=queue_packets)

    def add_terminal(self, kas: int, terminal: Terminal, turn: int) -> None:
        index = terminal.switch or turn
        switch = self._by_index.get((kas, index))
        if switch is None:
            raise PlanError(f"terminal {terminal.name}: K-AS {kas} has no switch {index}")
        host = self._host(terminal.name, terminal.role, kas, index)
        self.hosts.append(
            msgspec.structs.replace(host, cpu_share=terminal.cpu_share, data_may_move=terminal.data_may_move)
        )
        port = host.port
        rate = self.rates.access_mbps if terminal.rate_mbps is None else terminal.rate_mbps
        self.links.append(
            LinkPlan(a=terminal.name, a_port=0, b=switch, b_port=port, rate_mbps=rate, delay_ms=terminal.delay_ms)
        )

    def _host(self, name: str, role: StationRole, kas: int, index: int) -> HostPlan:
        switch = self._by_index[kas, index]
        number, port = next(self._addresses[switch]), next(self._ports[switch])
        if number > 254:
            raise PlanError(f"terminal {name}: switch {switch} is full (254 terminals); add access switches")
        return HostPlan(
            name=name, role=role, kas=kas, address=f"10.{kas}.{index}.{number}",
            mac=f"02:da:00:{kas:02x}:{index:02x}:{number:02x}", switch=switch, port=port,
        )  # fmt: skip

    def _speaker(self, gateway: SwitchPlan) -> HostPlan:
        """Return the border speaker beside a gateway: ``kbg<kas>``, of further gateways ``kbg<kas>n<number>``."""
        if gateway.name not in self._speakers:
            number = 1 + sum(s.kas == gateway.kas for s in self._speakers.values())
            name = f"kbg{gateway.kas}" + (f"n{number}" if number > 1 else "")
            self._speakers[gateway.name] = self._host(name, KBG_ROLE, gateway.kas, gateway.dpid % 256)
        return self._speakers[gateway.name]

    def _add_switch(self, kas: int, index: int, name: str, *, gateway: bool = False) -> None:
        self.switches.append(SwitchPlan(name=name, dpid=kas * 256 + index, kas=kas, gateway=gateway))
        self._by_index[kas, index] = name
        self._ports[name] = count(1)
        self._addresses[name] = count(1)

    def _join(self, a: str, b: str, rate_mbps: float, delay_ms: float = 0.0, loss_percent: float = 0.0) -> None:
        a_port, b_port = next(self._ports[a]), next(self._ports[b])
        number = 1 + sum({x.a, x.b} == {a, b} for x in self.links)
        self.links.append(
            LinkPlan(
                a=a,
                a_port=a_port,
                b=b,
                b_port=b_port,
                rate_mbps=rate_mbps,
                delay_ms=delay_ms,
                loss_percent=loss_percent,
                number=number,
            )
        )


def validate(plan: NetworkPlan) -> None:
    """Check a plan, from whatever source: names, ports, addresses unique and in bounds, links between declared ends."""
    names = [s.name for s in plan.switches] + [h.name for h in plan.stations]
    _unique("name", names)
    _unique("datapath id", [str(s.dpid) for s in plan.switches])
    _unique("address", [h.address for h in plan.stations])
    _unique("MAC", [h.mac for h in plan.stations])
    for name in names:
        if not _NAME.match(name):
            raise PlanError(f"node name {name!r}: use lower-case letters and digits, a letter first")
    for host in plan.stations:
        _check_host(host)
    switches, ends = {s.name for s in plan.switches}, []
    for link in plan.wires:
        _check_link(link, set(names), switches)
        ends += [interface_name(link.a, link.a_port), interface_name(link.b, link.b_port)]
    _unique("port", ends)
    long = [end for end in ends if len(end) > MAX_INTERFACE_NAME]
    if long:
        raise PlanError(
            f"interface name {long[0]!r} is longer than {MAX_INTERFACE_NAME} characters: shorten the node's name"
        )
    unplugged = {(h.name, h.switch, h.port) for h in plan.hosts} - {(x.a, x.b, x.b_port) for x in plan.links}
    if unplugged:
        raise PlanError(f"terminal {min(unplugged)[0]} has no link to its declared switch port")


def check_reach(plan: NetworkPlan) -> None:
    """Check that every K-AS holds together, and that every one can be reached from the first; ``PlanError`` names the
    island.
    """
    kas_of = {s.name: s.kas for s in plan.switches}
    trunks = [(x.a, x.b) for x in plan.links if x.a in kas_of]
    for kas in plan.kas_numbers:
        inside = [n for n, k in kas_of.items() if k == kas]
        cut_off = set(inside) - _reached(inside[0], [(a, b) for a, b in trunks if kas_of[a] == kas_of[b]])
        if cut_off:
            raise PlanError(
                f"K-AS {kas} falls into pieces: no link inside it joins {min(cut_off)} to {inside[0]}; add one, or "
                "make it a K-AS of its own"
            )
    first = plan.kas_numbers[0]
    islands = set(plan.kas_numbers) - _reached(first, [(kas_of[a], kas_of[b]) for a, b in trunks])
    if islands:
        raise PlanError(f"K-AS {min(islands)} is an island: no chain of WAN links joins it to K-AS {first}; add one")


def _reached(start: Any, edges: Sequence[tuple[Any, Any]]) -> set[Any]:
    ways: dict[Any, set[Any]] = {}
    for a, b in edges:
        ways.setdefault(a, set()).add(b)
        ways.setdefault(b, set()).add(a)
    seen, left = {start}, [start]
    while left:
        new = ways.get(left.pop(), set()) - seen
        seen |= new
        left += new
    return seen


def _check_host(host: HostPlan) -> None:
    prefix = kas_prefix(host.kas).removesuffix("0.0/16")
    if not host.address.startswith(prefix):
        raise PlanError(f"terminal {host.name}: address {host.address} is not in {kas_prefix(host.kas)}")
    if not 0 < host.cpu_share <= 64:
        raise PlanError(f"terminal {host.name}: cpu_share {host.cpu_share} is not in 0..64 cores")


def _check_link(link: LinkPlan, names: set[str], switches: set[str]) -> None:
    if not {link.a, link.b} <= names or link.b not in switches:
        raise PlanError(f"link {link.name}: its ends must be declared, the second one a switch")
    if not MIN_RATE_MBPS <= link.rate_mbps <= MAX_RATE_MBPS:
        raise PlanError(
            f"link {link.name}: rate {link.rate_mbps:g} Mbit/s is not in {MIN_RATE_MBPS:g}..{MAX_RATE_MBPS:.0f}"
        )
    if not 0 <= link.queue_packets <= 1_000_000:
        raise PlanError(f"link {link.name}: queue of {link.queue_packets} packets is not in 0..1000000 (0: by rate)")
    if not 0 <= link.delay_ms <= 10_000:
        raise PlanError(f"link {link.name}: delay {link.delay_ms} ms is not in 0..10000")
    if not 0 <= link.loss_percent < 100:
        raise PlanError(f"link {link.name}: loss {link.loss_percent} % is not in 0..100")


def _unique(what: str, values: list[str]) -> None:
    twice = sorted({v for v in values if values.count(v) > 1})
    if twice:
        raise PlanError(f"{what} {twice[0]} is declared twice")
