"""The OpenFlow tables: every rule a switch of ours can hold, as pure functions of the declared network.

::

    0 classify --> 1 arp     answer for every host and gateway with the router's address; nothing floods
               --> 1 detour  what was led around a dead link (``failover``), until it is where its way goes on
               --> 2 route   /32 for the hosts of the K-AS, /16 for the others; the last switch sets eth_dst
               --> 3 label   240.0.0.0/4, UDP 55831: the AI objects; a miss at a host's port is a packet-in

A host's "port unreachable" goes on its way and, as a copy, up: nobody listens there (any more).  What is refused, and
counted, is in ``guard``.  The TTL falls at gateways, and a spent one drops the packet there.
"""

from __future__ import annotations

from controller.domain import Domain
from controller.southbound import failover
from controller.southbound.failover import Ways
from controller.southbound.frames import ETH_ARP, ETH_IPV4, ETH_LLDP, ICMP, UDP
from controller.southbound.openflow import (
    PORT_CONTROLLER,
    PORT_IN,
    Action,
    DecTtl,
    FlowMod,
    Match,
    MeterMod,
    Mod,
    Move,
    Output,
    SetField,
)
from packets.labels import AI_PORT, DCC_ADDRESS, LABEL_NETWORK, STEERED_DSCP, label_address
from topologies.plan import ROUTER_MAC, HostPlan, SwitchPlan, gateway_address, kas_prefix

CLASSIFY, ARP, ROUTE, LABEL = 0, 1, 2, 3
DETOUR = ARP  # of IPv4 alone; a packet goes on to tables of higher numbers only
LABEL_COOKIE = 1 << 32
CLASS_COOKIE = 1 << 33
PACKET_IN_PPS = 400
PACKET_IN_BURST = 200
LLDP_GROUP = "01:80:c2:00:00:0e"


def masked(prefix: str) -> tuple[str, str]:
    """Return ``10.1.0.0/16`` as the (value, mask) pair of a match."""
    address, bits = prefix.split("/")
    mask = (0xFFFFFFFF << (32 - int(bits))) & 0xFFFFFFFF
    return address, ".".join(str(mask >> shift & 0xFF) for shift in (24, 16, 8, 0))


def label_cookie(label: int) -> int:
    """Return the cookie that all rules of an object's label carry, so that they can be deleted together."""
    return LABEL_COOKIE | label


def base_mods(domain: Domain, switch: SwitchPlan, *, meters: bool) -> list[Mod]:
    """Return what a switch holds whatever happens: classify, ARP and the label table's misses.

    ``meters``: the switch can meter packet-ins.
    """
    ports = [h for h in domain.plan.hosts if h.switch == switch.name]
    return [
        *(MeterMod(h.port, PACKET_IN_PPS, PACKET_IN_BURST) for h in ports if meters),
        *_classify(domain, switch),
        *_arp(domain, switch),
        *_misses(ports, meters),
        *_deaths(ports, meters),
    ]


def _classify(domain: Domain, switch: SwitchPlan) -> list[Mod]:
    labelled: Match = {"eth_type": ETH_IPV4, "ipv4_dst": masked(str(LABEL_NETWORK))}
    trunks = {port for name, port in [*domain.trunks, *domain.borders] if name == switch.name}
    inside = {port for port in trunks if (switch.name, port) not in domain.borders}
    return [
        *failover.classify(inside, CLASSIFY, DETOUR),
        *(
            FlowMod(CLASSIFY, {"in_port": p, "eth_type": ETH_LLDP}, 100, (Output(PORT_CONTROLLER),))
            for p in sorted(trunks)
        ),
        FlowMod(CLASSIFY, {"eth_type": ETH_ARP}, 90, goto=ARP),
        FlowMod(CLASSIFY, {**labelled, "ip_proto": UDP, "udp_dst": AI_PORT}, 80, goto=LABEL),
        FlowMod(CLASSIFY, {"eth_type": ETH_IPV4}, 60, goto=ROUTE),
    ]


def _deaths(ports: list[HostPlan], meters: bool) -> list[Mod]:
    """Copies of what a host's kernel says of an agent that is gone."""
    dead: Match = {"eth_type": ETH_IPV4, "ip_proto": ICMP, "icmpv4_type": 3, "icmpv4_code": 3}
    up: tuple[Action, ...] = (Output(PORT_CONTROLLER),)
    return [
        *(
            FlowMod(CLASSIFY, {**dead, "in_port": h.port}, 85, up, goto=ROUTE, meter=h.port if meters else None)
            for h in ports
        ),
    ]


ARP_REPLY: tuple[Action, ...] = (
    Move("eth_src", "eth_dst", 48),
    SetField("eth_src", ROUTER_MAC),
    SetField("arp_op", 2),
    Move("arp_sha", "arp_tha", 48),
    SetField("arp_sha", ROUTER_MAC),
    Move("arp_tpa", "reg0", 32),
    Move("arp_spa", "arp_tpa", 32),
    Move("reg0", "arp_spa", 32),
    Output(PORT_IN),
)


def _arp(domain: Domain, switch: SwitchPlan) -> list[Mod]:
    """Proxy ARP: every address of the network is the router's."""
    ask: Match = {"eth_type": ETH_ARP, "arp_op": 1}
    known = [h.address for h in domain.hosts_of(switch.kas)] + [gateway_address(switch.kas)]
    others = sorted({k for link in domain.plan.kas_links for k in (link.a_kas, link.b_kas)} - {switch.kas})
    return [
        *(FlowMod(ARP, {**ask, "arp_tpa": address}, 20, ARP_REPLY) for address in known),
        *(FlowMod(ARP, {**ask, "arp_tpa": masked(kas_prefix(k))}, 10, ARP_REPLY) for k in others),
    ]


def _misses(ports: list[HostPlan], meters: bool) -> list[Mod]:
    """Label table: messages to the DCC and objects not steered yet go up; from host ports only, and rationed."""
    up: tuple[Action, ...] = (Output(PORT_CONTROLLER),)
    mods: list[Mod] = []
    for host in ports:
        meter = host.port if meters else None
        to_dcc: Match = {"in_port": host.port, "eth_type": ETH_IPV4, "ipv4_dst": DCC_ADDRESS}
        mods += [
            FlowMod(LABEL, to_dcc, 100, up, meter=meter),
            FlowMod(LABEL, {"in_port": host.port}, 1, up, meter=meter),
        ]
    return mods


def route_flows(domain: Domain, ways: Ways | None = None) -> dict[str, list[FlowMod]]:
    """Return the route table of every switch of the domain, by switch name, for the links that are up."""
    ways = ways or Ways(domain)
    flows: dict[str, list[FlowMod]] = {name: [] for name in domain.switches}
    for kas in sorted(domain.kas):
        for switch in domain.switches_of(kas):
            flows[switch.name] += [_echo_reply(kas), _echo_rest(kas)]
            flows[switch.name] += failover.detour_flows(ways, switch.name, DETOUR, ROUTE, LABEL)
        for host in domain.hosts_of(kas):
            _host_routes(domain, host, ways, flows)
        for other in sorted({k for link in domain.plan.kas_links for k in (link.a_kas, link.b_kas)} - {kas}):
            _kas_routes(domain, kas, other, ways, flows)
    return flows


def _host_routes(domain: Domain, host: HostPlan, ways: Ways, flows: dict[str, list[FlowMod]]) -> None:
    match: Match = {"eth_type": ETH_IPV4, "ipv4_dst": host.address}
    if (host.switch, host.port) not in domain.down:
        last = (*_ttl(domain, host.switch), *to_host(host, rewrite_address=False))
        flows[host.switch].append(FlowMod(ROUTE, match, 200, last))
    way = ways.to(host.switch)
    for name in way.towards:
        flows[name].append(FlowMod(ROUTE, match, 200, (*_ttl(domain, name), *way.onward(name))))


def _kas_routes(domain: Domain, kas: int, other: int, ways: Ways, flows: dict[str, list[FlowMod]]) -> None:
    border = domain.border(kas, domain.next_kas(other).get(kas, 0))
    if border is None:
        return
    match: Match = {"eth_type": ETH_IPV4, "ipv4_dst": masked(kas_prefix(other))}
    flows[border.switch].append(FlowMod(ROUTE, match, 100, (DecTtl(), Output(border.port))))
    way = ways.to(border.switch)
    for name in way.towards:
        flows[name].append(FlowMod(ROUTE, match, 100, (*_ttl(domain, name), *way.onward(name))))


def _ttl(domain: Domain, name: str) -> tuple[Action, ...]:
    return (DecTtl(),) if domain.switches[name].gateway else ()


def _echo_reply(kas: int) -> FlowMod:
    """The virtual gateway answers ping, as people expect of a gateway."""
    address = gateway_address(kas)
    match: Match = {"eth_type": ETH_IPV4, "ip_proto": ICMP, "icmpv4_type": 8, "ipv4_dst": address}
    back: tuple[Action, ...] = (
        Move("eth_src", "eth_dst", 48),
        SetField("eth_src", ROUTER_MAC),
        Move("ipv4_src", "ipv4_dst", 32),
        SetField("ipv4_src", address),
        SetField("icmpv4_type", 0),
        Output(PORT_IN),
    )
    return FlowMod(ROUTE, match, 300, back)


def _echo_rest(kas: int) -> FlowMod:
    """The later fragments of a long ping, which have no ICMP header, go the way of the first."""
    address = gateway_address(kas)
    match: Match = {"eth_type": ETH_IPV4, "ip_proto": ICMP, "ipv4_dst": address}
    back: tuple[Action, ...] = (
        Move("eth_src", "eth_dst", 48),
        SetField("eth_src", ROUTER_MAC),
        Move("ipv4_src", "ipv4_dst", 32),
        SetField("ipv4_src", address),
        Output(PORT_IN),
    )
    return FlowMod(ROUTE, match, 290, back)


def to_host(host: HostPlan, *, rewrite_address: bool) -> tuple[Action, ...]:
    """Return the actions of a last switch: name the place (its MAC; for a label also its address) and put it out."""
    place: tuple[Action, ...] = ()
    if rewrite_address:  # the mark tells the terminal that the object came by a way that a control centre laid
        place = (SetField("ipv4_dst", host.address), SetField("ip_dscp", STEERED_DSCP))
    return (SetField("eth_dst", host.mac), SetField("eth_src", ROUTER_MAC), *place, Output(host.port))


def route_changes(old: list[FlowMod], new: list[FlowMod]) -> list[FlowMod]:
    """Return what turns one route table into another: additions overwrite, what is gone is deleted (strictly)."""

    def key(flow: FlowMod) -> tuple[int, int, tuple[tuple[str, object], ...]]:
        return flow.table, flow.priority, tuple(sorted(flow.match.items()))

    before, after = {key(f): f for f in old}, {key(f): f for f in new}
    gone = [FlowMod(f.table, f.match, f.priority, delete=True) for k, f in before.items() if k not in after]
    return [f for k, f in after.items() if before.get(k) != f] + gone


def label_match(label: int, in_port: int | None = None) -> Match:
    """Return the match of a label, wherever it comes in, or at one port (so that its next holder's launch misses)."""
    match: Match = {"eth_type": ETH_IPV4, "ip_proto": UDP, "ipv4_dst": label_address(label), "udp_dst": AI_PORT}
    return match if in_port is None else {"in_port": in_port, **match}


def label_delete(label: int) -> FlowMod:
    """Delete every rule of an object's label."""
    return FlowMod(LABEL, {}, delete=True, cookie=label_cookie(label))
