"""Ordinary traffic on the fake fabric: everybody reaches everybody, nothing floods, loops or leaves its way."""

from __future__ import annotations

import itertools

import pytest

from controller.domain import Domain
from controller.southbound import pipeline
from controller.southbound.failover import Ways
from controller.southbound.openflow import FlowMod, Output
from controller.southbound.pipeline import label_cookie
from controller.tools.exits import Entry, Exit
from packets.labels import LABEL_NETWORK, label_address
from tests.fake_fabric import FabricFault, FakeFabric, World, arp, run, small_plan, udp
from topologies.plan import ROUTER_MAC, gateway_address

PLAN = small_plan()


def everybody_reaches_everybody(world: World, but: frozenset[str] = frozenset()) -> None:
    for a, b in itertools.permutations([h for h in PLAN.hosts if h.name not in but], 2):
        journey = world.send(a.name, b.address, b"hello", port=9)
        assert journey.ends == [b.name], f"{a.name} -> {b.name} by {journey.switches} reached {journey.ends}"
        assert journey.delivered[0][1]["eth_dst"] == b.mac
        assert len(journey.switches) == len(set(journey.switches)), f"a switch twice on {journey.switches}"


@pytest.mark.parametrize("together", [False, True], ids=["one DCC per K-AS", "one DCC for all"])
def test_every_host_reaches_every_host(together: bool) -> None:
    async def work() -> None:
        world = World(PLAN, together=together)
        await world.start()
        assert sorted(d["kas"] for d in world.of("dcc.ready")) == [1, 2, 3, 4]
        everybody_reaches_everybody(world)
        assert not world.of("error")

    run(work)


@pytest.mark.parametrize("cut", [("k1s1", "k1g"), ("k2s1", "k2s2"), ("k1g", "k2g"), ("k1g", "k3g")])
def test_routes_lead_around_a_dead_link_and_back(cut: tuple[str, str]) -> None:
    async def work() -> None:
        world = World(PLAN)
        await world.start()
        before = {n: list(s.flows) for n, s in world.fabric.switches.items()}
        world.fabric.unplug(*cut)
        await world.settle()
        everybody_reaches_everybody(world)
        world.fabric.plug(*cut)
        await world.settle()
        everybody_reaches_everybody(world)
        for name, switch in world.fabric.switches.items():
            assert sorted(map(str, switch.flows)) == sorted(map(str, before[name])), f"rules left over in {name}"

    run(work)


def test_time_to_live_falls_at_gateways_and_ends_there() -> None:
    async def work() -> None:
        world = World(PLAN)
        await world.start()
        target = world.hosts["h31"].address
        arrived = world.send("h11", target, b"x", port=9, ttl=64).delivered[0][1]
        assert arrived["ttl"] == 64 - 2, "one gateway each of K-AS 1 and K-AS 3"
        assert world.send("h11", target, b"x", port=9, ttl=1).ends == []
        assert world.send("h11", target, b"x", port=9, ttl=2).ends == []
        assert world.send("h11", target, b"x", port=9, ttl=3).ends == ["h31"]
        assert world.send("h11", world.hosts["c1"].address, b"x", port=9, ttl=1).ends == ["c1"], "inside: no router"

    run(work)


@pytest.mark.parametrize(
    "target", ["10.1.9.9", "10.9.0.1", "8.8.8.8", "224.0.0.1", "255.255.255.255", "10.1.255.255", "0.0.0.0"]
)
def test_what_nobody_has_goes_nowhere(target: str) -> None:
    async def work() -> None:
        world = World(PLAN)
        await world.start()
        journey = world.send("h11", target, b"x", port=9)
        assert (journey.ends, journey.punted) == ([], 0)

    run(work)


def test_only_ai_packets_may_carry_a_label() -> None:
    async def work() -> None:
        world = World(PLAN)
        await world.start()
        journey = world.send("h11", label_address(0x123456), b"x", port=9)
        assert (journey.ends, journey.punted) == ([], 0)
        assert str(LABEL_NETWORK) == "240.0.0.0/4"

    run(work)


def test_the_fabric_answers_arp_with_the_router_and_keeps_it_from_others() -> None:
    async def work() -> None:
        world = World(PLAN)
        await world.start()
        host = world.hosts["h11"]
        for target in (gateway_address(1), world.hosts["c1"].address, "10.3.1.1"):
            journey = world.fabric.inject(host, arp(host, target))
            assert journey.ends == ["h11"]
            answer = journey.delivered[0][1]
            assert (answer["arp_op"], answer["arp_sha"], answer["arp_spa"]) == (2, ROUTER_MAC, target)
            assert (answer["arp_tha"], answer["arp_tpa"], answer["eth_dst"]) == (host.mac, host.address, host.mac)

    run(work)


def test_no_arp_answer_for_nobody_for_oneself_or_for_the_world() -> None:
    async def work() -> None:
        world = World(PLAN)
        await world.start()
        host = world.hosts["h11"]
        for target in (host.address, "10.1.9.9", "192.168.0.1"):
            assert world.fabric.inject(host, arp(host, target)).ends == []
        assert world.fabric.inject(host, arp(host, host.address, sender="0.0.0.0")).ends == [], "duplicate detection"

    run(work)


def test_a_switch_that_comes_back_is_adopted_and_a_new_one_is_filled() -> None:
    async def work() -> None:
        world = World(PLAN)
        switch = world.fabric.switches["k1s1"]
        stray = FlowMod(2, {"eth_type": 0x0800}, 999, (Output(1),))
        switch.apply(stray)
        await world.start()
        assert stray not in switch.flows, "rules of an earlier run are forgotten"
        dcc, host = world.by_kas[1], world.hosts["h11"]
        entry, leave = Entry("k1s1", host.port), Exit("k1g", dcc.domain.border(1, 2).port)  # type: ignore[union-attr]
        await dcc.services.communication.steer(77, 1, entry, leave)
        label, held = [f for f in switch.flows if f.cookie == label_cookie(77)], list(switch.flows)
        assert len(label) == 1
        for flows in (held, []):  # the session broke; the switch was started again, with nothing in it
            before, switch.flows = switch.applied, list(flows)
            dcc.fabric.switch_down(0x101)
            await world.start()
            assert sorted(map(str, switch.flows)) == sorted(map(str, held))
            assert switch.applied - before == len(held) - len(flows), "what was right is not touched"

    run(work)


def test_routes_are_computed_once_for_all_switches_and_anew_for_other_links(monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[int] = []
    real = pipeline.route_flows

    def route_flows(domain: Domain, ways: Ways) -> dict[str, list[FlowMod]]:
        counted.append(len(domain.down))
        return real(domain, ways)

    monkeypatch.setattr(pipeline, "route_flows", route_flows)

    async def work() -> None:
        world = World(PLAN, together=True)
        await world.start()
        assert world.of("dcc.ready") and counted == [0]
        world.fabric.unplug("k1s1", "k1g")
        await world.settle()
        assert counted == [0, 2], "once for all that start, once for both ends of a cut link"
        everybody_reaches_everybody(world)

    run(work)


def test_a_control_centre_waits_for_a_switch_that_starts_slowly() -> None:
    async def work() -> None:
        world = World(PLAN)
        world.fabric.slow_s["k1s1"] = 20.0
        await world.start()
        assert 1 in {d["kas"] for d in world.of("dcc.ready")}
        assert not world.of("error")

    run(work)


def test_without_meters_in_the_switch_nothing_is_metered() -> None:
    async def work() -> None:
        world = World(PLAN)
        await world.start(meters=False)
        assert not any(s.meters for s in world.fabric.switches.values())
        everybody_reaches_everybody(world)

    run(work)


def test_the_fake_fabric_finds_a_loop() -> None:
    fabric = FakeFabric(PLAN)
    link = next(k for k in PLAN.links if {k.a, k.b} == {"k1s1", "k1s2"})
    for name, port in ((link.a, link.a_port), (link.b, link.b_port)):
        fabric.switches[name].apply(FlowMod(0, {"eth_type": 0x0800}, 1, (Output(port),)))
        back = FlowMod(0, {"eth_type": 0x0800, "in_port": port}, 2, (Output(0xFFFFFFF8),))
        fabric.switches[name].apply(back)
    host = next(h for h in PLAN.hosts if h.switch == "k1s1")
    with pytest.raises(FabricFault, match="loop"):
        fabric.inject(host, udp(host, "10.1.9.9"))


def test_the_fake_fabric_finds_a_flood_and_an_ambiguity() -> None:
    fabric = FakeFabric(PLAN)
    host = next(h for h in PLAN.hosts if h.switch == "k1s1")
    ports = [k.a_port for k in PLAN.links if k.a == "k1s1"] + [k.b_port for k in PLAN.links if k.b == "k1s1"]
    others = [p for p in ports if p != host.port][:2]
    fabric.switches["k1s1"].apply(FlowMod(0, {}, 1, tuple(Output(p) for p in others)))
    with pytest.raises(FabricFault, match="makes 2 packets"):
        fabric.inject(host, udp(host, "10.1.9.9"))
    fabric.switches["k1s1"].apply(FlowMod(0, {"eth_type": 0x0800}, 1))
    with pytest.raises(FabricFault, match="two flows"):
        fabric.inject(host, udp(host, "10.1.9.9"))
