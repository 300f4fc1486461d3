"""What a switch lets in, on the fake fabric: whatever a terminal forges goes nowhere, and is counted by its reason."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from controller.southbound.frames import ETH_LLDP, ICMP, TCP
from controller.southbound.guard import DROP_COOKIE, ETH_IPV6, closed_mods, drop_cookie, read_cookie
from controller.southbound.openflow import DropCount, FlowMod, Output
from controller.southbound.pipeline import CLASS_COOKIE, label_cookie
from controller.tools.drops import Drops
from packets.kbgp.messages import PORT as BORDER_PORT
from packets.labels import AI_PORT, DCC_ADDRESS, STEERED_DSCP, label_address
from packets.security.reasons import BY_NUMBER, REASONS, WORDS, reasons_table
from tests.fake_fabric import Packet, World, arp, run, small_plan, udp
from topologies.plan import ROUTER_MAC, HostPlan, gateway_address

PLAN = small_plan()
PROJECT = Path(__file__).parents[4]
OTHER = next(h for h in PLAN.hosts if h.name == "h13")
FAR = next(h for h in PLAN.hosts if h.name == "h31")
GATEWAY = gateway_address(1)
SPEAKER = next(s for s in PLAN.speakers if s.kas == 1)


class Guarded(World):
    """A network whose switches hold terminals to their own addresses."""

    def __init__(self) -> None:
        super().__init__(PLAN)
        for dcc in self.dccs:
            dcc.services.communication.own_source = True

    def dropped(self) -> dict[str, int]:
        """Read the counters of all switches; return what was dropped, by reason."""
        for dcc in self.dccs:
            dcc.fabric.poll_drops()
        found: dict[str, int] = {}
        for told in self.of("frame.dropped"):
            assert told["more"] == sum(told["reasons"].values())
            for reason, frames in told["reasons"].items():
                found[reason] = found.get(reason, 0) + frames
        return found


def tcp(host: HostPlan, target: str, port: int) -> Packet:
    sent = udp(host, target).fields | {"ip_proto": TCP, "tcp_dst": port, "tcp_src": 40000}
    return Packet({k: v for k, v in sent.items() if not k.startswith("udp")})


FORGED: dict[str, tuple[str, Callable[[HostPlan], Packet]]] = {
    "another's IP": ("spoofed-source", lambda h: udp(h, FAR.address).with_(ipv4_src=OTHER.address)),
    "another's IP, to the DCC": ("spoofed-source", lambda h: udp(h, DCC_ADDRESS).with_(ipv4_src="8.8.8.8")),
    "another's IP in a death notice": (
        "spoofed-source",
        lambda h: udp(h, FAR.address).with_(ipv4_src=OTHER.address, ip_proto=17, icmpv4_type=3, icmpv4_code=3),
    ),
    "a label's IP": ("spoofed-source", lambda h: udp(h, FAR.address).with_(ipv4_src=label_address(77))),
    "another's MAC": ("spoofed-mac", lambda h: udp(h, FAR.address).with_(eth_src=OTHER.mac)),
    "the router's MAC": ("spoofed-mac", lambda h: udp(h, FAR.address).with_(eth_src=ROUTER_MAC)),
    "ARP, another's sender IP": ("spoofed-arp", lambda h: arp(h, FAR.address, sender=OTHER.address)),
    "ARP, another's sender MAC": ("spoofed-arp", lambda h: arp(h, FAR.address).with_(arp_sha=OTHER.mac)),
    "ARP, another's frame": ("spoofed-arp", lambda h: arp(h, FAR.address).with_(eth_src=OTHER.mac)),
    "ARP, I am the gateway": ("spoofed-arp", lambda h: arp(h, OTHER.address, sender=GATEWAY).with_(arp_op=2)),
    "ARP, gratuitous for another": ("spoofed-arp", lambda h: arp(h, OTHER.address, sender=OTHER.address)),
    "ARP, gratuitous": ("arp", lambda h: arp(h, h.address)),
    "ARP, a reply nobody asked for": ("arp", lambda h: arp(h, OTHER.address).with_(arp_op=2)),
    "ARP, for nobody": ("arp", lambda h: arp(h, "10.1.9.9")),
    "IPv6": ("ipv6", lambda h: Packet({"eth_type": ETH_IPV6, "eth_src": h.mac})),
    "a VLAN tag": ("vlan", lambda h: udp(h, FAR.address).with_(vlan_vid=0x1005)),
    "LLDP": ("lldp", lambda h: Packet({"eth_type": ETH_LLDP, "eth_src": h.mac})),
    "another ethertype": ("ethertype", lambda h: Packet({"eth_type": 0x88B5, "eth_src": h.mac})),
    "a label by TCP": ("label-use", lambda h: tcp(h, label_address(5), AI_PORT)),
    "the mark of a label": ("label-mark", lambda h: udp(h, FAR.address, port=AI_PORT).with_(ip_dscp=STEERED_DSCP)),
    "the gateway's TCP": ("control-address", lambda h: tcp(h, GATEWAY, 6653)),
    "a border speaker": ("control-address", lambda h: udp(h, SPEAKER.address)),
    "a border speaker's protocol, afar": ("control-address", lambda h: tcp(h, "10.3.9.9", BORDER_PORT)),
    "nobody": ("no-route", lambda h: udp(h, "203.0.113.9")),
}  # fmt: skip


@pytest.mark.parametrize("what", FORGED)
def test_what_a_terminal_forges_goes_nowhere_and_is_counted(what: str) -> None:
    reason, make = FORGED[what]

    async def work() -> None:
        world = Guarded()
        await world.start()
        host = world.hosts["h11"]
        assert world.fabric.inject(host, make(host)).ends == []
        assert world.dropped() == {reason: 1}
        told = world.of("frame.dropped")[0]
        assert told["kas"] == 1 and told["node"] in ("h11", "") and told["text"] == reason
        assert world.dropped() == {reason: 1}, "and once"

    run(work)


def test_what_is_a_terminals_own_passes() -> None:
    async def work() -> None:
        world = Guarded()
        await world.start()
        host = world.hosts["h11"]
        assert world.fabric.inject(host, udp(host, FAR.address)).ends == ["h31"]
        assert world.fabric.inject(host, arp(host, GATEWAY)).ends == ["h11"]
        assert world.fabric.inject(host, arp(host, "10.3.1.1", sender="0.0.0.0")).ends == ["h11"], "is it taken?"
        assert world.fabric.inject(host, udp(host, DCC_ADDRESS, b"x", port=AI_PORT)).punted == 1
        dead = udp(host, OTHER.address).with_(ip_proto=ICMP, icmpv4_type=3, icmpv4_code=3)
        switch = world.fabric.switches[host.switch]
        assert {port for port, _, _ in switch.process(dead, host.port)} > {Output(0xFFFFFFFD).port}, "a copy goes up"
        far = next(s for s in PLAN.speakers if s.kas == 2)
        said = world.fabric.switches[SPEAKER.switch].process(tcp(SPEAKER, far.address, BORDER_PORT), SPEAKER.port)
        assert len(said) == 1, "border speakers speak to each other"
        assert not world.dropped()

    run(work)


def test_a_label_on_a_trunk_that_nobody_laid_is_counted_at_the_next_switch() -> None:
    async def work() -> None:
        world = Guarded()
        await world.start()
        link = next(k for k in PLAN.links if k.a.startswith("k1") and k.b.startswith("k1"))
        stray = udp(world.hosts["h11"], label_address(9 << 20 | 1), port=AI_PORT)
        assert world.fabric.switches[link.a].process(stray, link.a_port) == []
        assert world.dropped() == {"label-way": 1}

    run(work)


def test_a_closed_port_lets_no_ai_traffic_through_in_either_direction_and_opens_again() -> None:
    async def work() -> None:
        world = Guarded()
        await world.start()
        host = world.hosts["h11"]
        switch = world.fabric.switches[host.switch]
        rules = list(switch.flows)
        for mod in closed_mods(host):
            assert isinstance(mod, FlowMod)
            switch.apply(mod)
        for packet in (
            udp(host, DCC_ADDRESS, port=AI_PORT),
            udp(host, FAR.address, port=AI_PORT),
            udp(host, FAR.address, port=50000),  # an answer, from the AI port
        ):
            journey = world.fabric.inject(host, packet)
            assert (journey.ends, journey.punted) == ([], 0)
        assert world.fabric.inject(FAR, udp(FAR, host.address, port=AI_PORT)).ends == []
        assert world.fabric.inject(host, udp(host, FAR.address).with_(udp_src=9)).ends == ["h31"], (
            "other traffic goes on"
        )
        assert world.dropped() == {"revoked": 4}
        for mod in closed_mods(host, reopen=True):
            assert isinstance(mod, FlowMod)
            switch.apply(mod)
        assert sorted(map(str, switch.flows)) == sorted(map(str, rules))

    run(work)


def test_a_counter_that_begins_anew_loses_nothing() -> None:
    events: list[dict[str, Any]] = []
    domain = World(PLAN).by_kas[1].domain
    drops = Drops(domain, lambda kind, /, **data: events.append(data))
    cookie = drop_cookie("spoofed-arp", 1)
    for packets in (5, 7, 7, 2):
        drops.counted(0x101, [DropCount(cookie, 0, 233, packets), DropCount(label_cookie(5), 3, 50, 99)])
    drops.counted(0x999, [DropCount(cookie, 0, 233, 1000)])
    assert [e["more"] for e in events] == [5, 2, 2] and drops.total == {"spoofed-arp": 9}


def test_cookies_name_reason_and_port_and_are_nobody_elses() -> None:
    for number, word in BY_NUMBER.items():
        assert read_cookie(drop_cookie(word, 65535)) == (word, 65535)
        assert number < 1 << 16
    assert read_cookie(label_cookie((1 << 28) - 1)) is None and not CLASS_COOKIE & DROP_COOKIE


def literals(tree: ast.AST) -> set[str]:
    """Return the reasons that a module names: of refusals, errors of packets, events and rules."""
    found: set[str] = set()
    for call in (n for n in ast.walk(tree) if isinstance(n, ast.Call)):
        name = getattr(call.func, "id", getattr(call.func, "attr", ""))
        first = call.args[0] if call.args else None
        told = [k.value for k in call.keywords if k.arg == "reason"]
        if name in ("Refusal", "PacketError", "drop_cookie"):
            told.append(first) if first is not None else None
        elif name == "drop":
            told += call.args[3:4]
        elif name not in ("emit", "_emit") or getattr(first, "value", "") not in ("packet.refused", "frame.dropped"):
            continue
        found |= {n.value for n in told if isinstance(n, ast.Constant) and isinstance(n.value, str)}
    return found


def test_every_reason_that_the_code_names_is_declared_and_documented() -> None:
    named = {
        word
        for folder in ("packets", "hosts", "controller")
        for file in (PROJECT / folder).rglob("*.py")
        for word in literals(ast.parse(file.read_text()))
    }
    assert len(named) > 30 and named <= WORDS, named - WORDS
    assert len(WORDS) == len(REASONS) and all(f"`{word}`" in reasons_table() for word in WORDS)
