"""What a switch lets in, and what becomes of the rest: every refusal has a rule whose cookie names reason and port.

A terminal sends from its own port, Ethernet and IPv4 address (in the manner of BCP 38), and says nothing else of itself
in ARP; nothing of what others may say about it floods, the fabric answers ARP itself.  It reaches terminals, labels and
its gateway's ping, not the border speakers.  The rules of a port stand above those of ``pipeline``, which then hold for
what comes over trunks.
"""

from __future__ import annotations

from controller.domain import Domain
from controller.southbound.frames import ETH_ARP, ETH_IPV4, ETH_LLDP, ICMP, TCP, UDP
from controller.southbound.openflow import PORT_CONTROLLER, FlowMod, Match, Mod, Output
from controller.southbound.pipeline import ARP, CLASSIFY, LABEL, ROUTE, masked
from packets.kbgp.messages import PORT as BORDER_PORT
from packets.labels import AI_PORT, LABEL_NETWORK, STEERED_DSCP
from packets.security.reasons import BY_NUMBER, NUMBER
from topologies.plan import KBG_ROLE, HostPlan, SwitchPlan, gateway_address

DROP_COOKIE = 1 << 34
ETH_IPV6 = 0x86DD
TAGGED = (0x1000, 0x1000)  # of vlan_vid: a tag is there, whatever it says
LABELLED: Match = {"ipv4_dst": masked(str(LABEL_NETWORK))}
UP = (Output(PORT_CONTROLLER),)


def drop_cookie(reason: str, port: int = 0) -> int:
    """Return the cookie of a rule that drops frames; ``port`` 0: of any port."""
    return DROP_COOKIE | NUMBER[reason] << 16 | port


def read_cookie(cookie: int) -> tuple[str, int] | None:
    """Return the reason and the port of a rule that drops frames; None for the cookie of any other."""
    word = BY_NUMBER.get(cookie >> 16 & 0xFFFF)
    return (word, cookie & 0xFFFF) if cookie & DROP_COOKIE and word else None


def drop(table: int, match: Match, priority: int, reason: str, port: int = 0) -> FlowMod:
    """Return a rule that drops frames, and counts them."""
    return FlowMod(table, match, priority, cookie=drop_cookie(reason, port))


def switch_mods(domain: Domain, switch: SwitchPlan, *, meters: bool, own_source: bool) -> list[Mod]:
    """Return what a switch refuses; ``own_source``: terminals may send from their own addresses alone."""
    mods: list[Mod] = [*_misses(), *_gateway(switch)]
    for host in [h for h in domain.plan.hosts if h.switch == switch.name]:
        mods += _nobody_else(host)
        if own_source:
            mods += [*_port(host, host.port if meters else None), *_away_from_speakers(domain, host)]
    return mods


def _misses() -> list[Mod]:
    """What no rule wants, table by table: never an accident, always a number."""
    return [
        drop(CLASSIFY, {"eth_type": ETH_IPV6}, 2, "ipv6"),
        drop(CLASSIFY, {"eth_type": ETH_LLDP}, 2, "lldp"),
        drop(CLASSIFY, {}, 0, "ethertype"),
        drop(CLASSIFY, {"eth_type": ETH_IPV4, **LABELLED}, 70, "label-use"),
        drop(ARP, {}, 0, "arp"),
        drop(ROUTE, {}, 0, "no-route"),
        drop(LABEL, {}, 0, "label-way"),
    ]


def _gateway(switch: SwitchPlan) -> list[Mod]:
    """The virtual gateway answers ping and nothing else; a real one ends what has no time left to live."""
    mods: list[Mod] = [
        drop(ROUTE, {"eth_type": ETH_IPV4, "ipv4_dst": gateway_address(switch.kas)}, 280, "control-address")
    ]
    if switch.gateway:
        mods += [drop(ROUTE, {"eth_type": ETH_IPV4, "nw_ttl": ttl}, 250 + ttl, "ttl") for ttl in (0, 1)]
    return mods


def _nobody_else(host: HostPlan) -> list[Mod]:
    """No host speaks in the name of a label; one that asks for its own address (is it taken?) is left in peace."""
    port: Match = {"in_port": host.port}
    label: Match = {**port, "eth_type": ETH_IPV4, "ipv4_src": LABELLED["ipv4_dst"]}
    own: Match = {**port, "eth_type": ETH_ARP, "arp_op": 1, "arp_tpa": host.address}
    return [drop(CLASSIFY, label, 95, "spoofed-source", host.port), drop(ARP, own, 30, "arp", host.port)]


def _port(host: HostPlan, meter: int | None) -> list[Mod]:
    """What one terminal may send: its own word, in IPv4 and ARP."""
    port: Match = {"in_port": host.port}
    own: Match = {**port, "eth_type": ETH_IPV4, "eth_src": host.mac, "ipv4_src": host.address}
    dead: Match = {**own, "ip_proto": ICMP, "icmpv4_type": 3, "icmpv4_code": 3}
    arp: Match = {**port, "eth_type": ETH_ARP, "eth_src": host.mac, "arp_sha": host.mac}
    return [
        drop(CLASSIFY, {**port, "vlan_vid": TAGGED}, 270, "vlan", host.port),
        drop(CLASSIFY, {**port, "eth_type": ETH_IPV4, "ip_dscp": STEERED_DSCP}, 269, "label-mark", host.port),
        FlowMod(CLASSIFY, dead, 260, UP, goto=ROUTE, meter=meter),
        FlowMod(CLASSIFY, {**own, **LABELLED, "ip_proto": UDP, "udp_dst": AI_PORT}, 245, goto=LABEL),
        drop(CLASSIFY, {**own, **LABELLED}, 244, "label-use", host.port),
        FlowMod(CLASSIFY, own, 243, goto=ROUTE),
        FlowMod(
            CLASSIFY, {**port, "eth_type": ETH_IPV4, "eth_src": host.mac}, 242, UP, meter=meter,
            cookie=drop_cookie("spoofed-source", host.port),
        ),
        drop(CLASSIFY, {**port, "eth_type": ETH_IPV4}, 241, "spoofed-mac", host.port),
        FlowMod(CLASSIFY, {**arp, "arp_spa": host.address}, 235, goto=ARP),
        FlowMod(CLASSIFY, {**arp, "arp_spa": "0.0.0.0", "arp_op": 1}, 234, goto=ARP),  # is my address taken?
        drop(CLASSIFY, {**port, "eth_type": ETH_ARP}, 233, "spoofed-arp", host.port),
        drop(ARP, port, 1, "arp", host.port),
        drop(ROUTE, {**port, "eth_type": ETH_IPV4}, 1, "no-route", host.port),
        drop(CLASSIFY, {**port, "eth_type": ETH_IPV6}, 220, "ipv6", host.port),
        drop(CLASSIFY, {**port, "eth_type": ETH_LLDP}, 220, "lldp", host.port),
        drop(CLASSIFY, port, 210, "ethertype", host.port),
    ]  # fmt: skip


def _away_from_speakers(domain: Domain, host: HostPlan) -> list[Mod]:
    """Border speakers talk to each other: no terminal to one of its own K-AS, nor in their protocol to any."""
    if host.role == KBG_ROLE:
        return []
    port: Match = {"in_port": host.port, "eth_type": ETH_IPV4}
    speakers = [{**port, "ipv4_dst": speaker.address} for speaker in domain.speakers(host.kas)]
    protocol: list[Match] = [{**port, "ip_proto": TCP, end: BORDER_PORT} for end in ("tcp_src", "tcp_dst")]
    return [
        *(drop(CLASSIFY, match, 265, "control-address", host.port) for match in speakers),
        *(drop(CLASSIFY, match, 267 + i, "control-address", host.port) for i, match in enumerate(protocol)),
    ]


def closed_mods(host: HostPlan, *, reopen: bool = False) -> list[Mod]:
    """Return what closes a terminal's port for AI traffic, in both directions (``reopen``: what opens it again)."""
    port: Match = {"in_port": host.port, "eth_type": ETH_IPV4}
    udp: Match = {**port, "ip_proto": UDP}
    to_it: Match = {"eth_type": ETH_IPV4, "ipv4_dst": host.address, "ip_proto": UDP}
    rules = [
        (CLASSIFY, {**port, **LABELLED}, 283),
        (CLASSIFY, {**udp, "udp_dst": AI_PORT}, 282),
        (CLASSIFY, {**udp, "udp_src": AI_PORT}, 281),
        (ROUTE, {**to_it, "udp_dst": AI_PORT}, 312),
        (ROUTE, {**to_it, "udp_src": AI_PORT}, 311),
    ]
    if reopen:
        return [FlowMod(table, match, priority, delete=True) for table, match, priority in rules]
    return [drop(table, match, priority, "revoked", host.port) for table, match, priority in rules]
