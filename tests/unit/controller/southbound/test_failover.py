"""Detours: every link that is no bridge is gone around at once, and whatever is dead, nothing loops."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.domain import Domain
from controller.southbound import failover, pipeline
from controller.southbound.failover import Trunk, Ways, detours
from controller.southbound.openflow import GroupMod
from packets.labels import label_address, make_object_id, object_label
from tests.fake_fabric import FakeFabric, World, run, small_plan, udp
from tests.unit.controller.steering.test_launch import Itinerary
from topologies.build import Builder, Rates, Terminal, build_plan
from topologies.plan import NetworkPlan

End = tuple[str, int]


@st.composite
def networks(draw: st.DrawFn) -> NetworkPlan:
    """One K-AS: a random tree of switches, and more links in it, parallel ones too, of few different costs."""
    count = draw(st.integers(2, 9))
    builder = Builder(Rates())
    names = [builder.add_switch(1) for _ in range(count)]
    for number in range(1, count):
        builder.add_link(names[draw(st.integers(0, number - 1))], names[number], draw(st.sampled_from([10.0, 100.0])))
    for _ in range(draw(st.integers(0, 8))):
        a, b = draw(st.sampled_from(list(itertools.combinations(names, 2))))
        builder.add_link(a, b, draw(st.sampled_from([10.0, 100.0])))
    for number, name in enumerate(names):
        builder.add_terminal_at(name, Terminal(f"h{number}", "data"))
    return builder.plan("random")


def wires(plan: NetworkPlan) -> dict[End, End]:
    found = {(x.a, x.a_port): (x.b, x.b_port) for x in plan.links}
    return found | {b: a for a, b in found.items()}


def fabric_of(plan: NetworkPlan, dead: set[int]) -> FakeFabric:
    """Switches with all their rules and groups, nobody who would repair them, and links that are dead (by number)."""
    fabric, domain = FakeFabric(plan), Domain(plan.domain())
    ways = Ways(domain)
    routes = pipeline.route_flows(domain, ways)
    for switch in plan.switches:
        base = pipeline.base_mods(domain, switch, meters=False)
        fabric.send(switch.dpid, [*base, *failover.groups(ways, switch.name, ()).values(), *routes[switch.name]])
    ends = {(x.a, x.a_port) for x in plan.links if x.a in domain.switches} | {(x.b, x.b_port) for x in plan.links}
    fabric.down = {end for n, x in enumerate(plan.links) for end in ((x.a, x.a_port), (x.b, x.b_port)) if n in dead}
    fabric.down &= ends
    return fabric


def reached(plan: NetworkPlan, dead: set[int]) -> Iterator[tuple[str, bool, bool]]:
    """Send from every terminal to every other; yield who sent to whom, whether it came, and whether there was a way."""
    fabric, domain = fabric_of(plan, dead), Domain(plan.domain())
    domain.down |= fabric.down
    for a, b in itertools.permutations(plan.hosts, 2):
        journey = fabric.inject(a, udp(a, b.address))
        assert journey.ends in ([], [b.name])
        if journey.ends:
            assert journey.delivered[0][1]["eth_dst"] == b.mac
        way = a.switch == b.switch or a.switch in domain.next_ports(b.switch)
        yield f"{a.name} -> {b.name} by {journey.switches}", journey.ends == [b.name], way


def trunk_numbers(plan: NetworkPlan) -> list[int]:
    switches = {s.name for s in plan.switches}
    return [n for n, x in enumerate(plan.links) if x.a in switches]


@settings(deadline=None, max_examples=60)
@given(networks(), st.data())
def test_one_dead_link_is_gone_around_wherever_there_is_another_way(plan: NetworkPlan, data: st.DataObject) -> None:
    dead = {data.draw(st.sampled_from(trunk_numbers(plan)))}
    for what, came, way in reached(plan, dead):
        assert came == way, what


@settings(deadline=None, max_examples=60)
@given(networks(), st.data())
def test_whatever_is_dead_nothing_loops(plan: NetworkPlan, data: st.DataObject) -> None:
    """The fake fabric finds loops and copies by itself."""
    for what, came, way in reached(plan, data.draw(st.sets(st.sampled_from(trunk_numbers(plan)), max_size=5))):
        assert way or not came, what


@settings(deadline=None, max_examples=150)
@given(networks())
def test_a_detour_over_a_link_of_ones_own_is_a_loop_free_alternate(plan: NetworkPlan) -> None:
    """RFC 5286, inequality 1: dist(n, d) < dist(n, s) + dist(s, d); of equally near ones the tree tells."""
    domain, far = Domain(plan.domain()), wires(plan)
    ways, cost = Ways(domain), distances(domain)
    for way in (ways.to(s.name) for s in plan.switches):
        for name, port in way.around.items():
            other, _ = far[name, port]
            if other != way.target and far[other, way.towards[other]] == (name, port):
                continue  # down the tree: the link is another switch's
            assert cost[other, way.target] <= cost[other, name] + cost[name, way.target]
            climbed = other
            while climbed != way.target:
                assert climbed != name, "the alternate's own way leads back"
                climbed = far[climbed, way.towards[climbed]][0]


def distances(domain: Domain) -> dict[tuple[str, str], float]:
    """Floyd and Warshall's, to be told by another than the code under test."""
    names = list(domain.switches)
    cost = {(a, b): 0.0 if a == b else float("inf") for a in names for b in names}
    for a in names:
        for b, _, step in domain.edges(a):
            cost[a, b] = min(cost[a, b], step)
    for k, a, b in itertools.product(names, repeat=3):
        cost[a, b] = min(cost[a, b], cost[a, k] + cost[k, b])
    return cost


def test_a_line_has_no_detours_and_a_ring_has_them_everywhere() -> None:
    line: list[Trunk] = [("a", 1, "b", 1), ("b", 2, "c", 1)]
    towards = {"b": 1, "c": 1}
    assert detours("a", towards, line) == {}
    assert detours("a", towards, [*line, ("c", 2, "a", 2)]) == {"b": 2, "c": 2}
    assert detours("a", towards, [*line, ("a", 3, "b", 3)]) == {"b": 3}, "a parallel link"


def test_an_older_group_leads_around_by_what_is_now_the_way() -> None:
    plan = small_plan()
    domain = Domain(plan.domain(1))
    before = failover.groups(Ways(domain), "k1s1", ())
    way = Ways(domain).to("k1g")
    old = way.group(way.towards["k1s1"])
    assert [b.watch_port for b in before[old].buckets] == [way.towards["k1s1"], way.around["k1s1"]]
    domain.down.add(("k1s1", way.towards["k1s1"]))
    now = failover.groups(Ways(domain), "k1s1", before)
    assert [b.watch_port for b in now[old].buckets] == [way.towards["k1s1"], way.around["k1s1"]]
    assert failover.port_of(old) == way.towards["k1s1"] and old in now


CUTS = [("k1s1", "k1g"), ("k1s2", "k1g"), ("k1s1", "k1s2")]


@pytest.mark.parametrize("cut", CUTS)
def test_ordinary_and_label_traffic_go_around_a_dead_link_without_the_control_centre(cut: tuple[str, str]) -> None:
    async def work() -> None:
        plan = small_plan()
        world = World(plan)
        await world.start()
        led = {}
        for number, (sender, target) in enumerate([("h11", "h31"), ("owner1", "c1"), ("h31", "h11"), ("c1", "h13")]):
            object_id = make_object_id(2, number, 1)
            Itinerary(world, target)
            assert await world.launch(sender, object_id, 0) == [target]
            led[sender, target] = label_address(object_label(object_id))
        world.fabric.cores = {}  # nobody is told
        world.fabric.unplug(*cut)
        for (sender, target), label in led.items():
            journey = world.send(sender, label, b"shard")
            assert (journey.ends, journey.punted) == ([target], 0), f"{sender} -> {target} by {journey.switches}"
            assert journey.delivered[0][1]["eth_dst"] == world.hosts[target].mac
        for a, b in itertools.permutations(plan.hosts, 2):
            journey = world.send(a.name, b.address, b"hello", port=9)
            assert journey.ends == [b.name], f"{a.name} -> {b.name} by {journey.switches} reached {journey.ends}"
            assert journey.delivered[0][1]["eth_dst"] == b.mac

    run(work)


def test_a_terminal_cannot_mark_its_own_packets() -> None:
    async def work() -> None:
        plan = small_plan()
        world = World(plan)
        await world.start()
        host, other = world.hosts["h11"], world.hosts["h31"]
        marked = Ways(Domain(plan.domain(1))).to("k1g").mac
        for target in (other.address, label_address(0x123)):
            packet = udp(host, target, b"x").with_(eth_dst=marked)
            journey = world.fabric.inject(host, packet)
            assert (journey.ends, journey.punted) == ([], 0)

    run(work)


def test_groups_of_switches_without_another_way_are_not_made() -> None:
    plan = build_plan("line", kas={1: ["a:data"]}, access_switches=1)
    assert all(not failover.groups(Ways(Domain(plan.domain())), s.name, ()) for s in plan.switches)
    ring = build_plan("ring", kas={1: ["a:data"]}, access_switches=4)
    found = failover.groups(Ways(Domain(ring.domain())), "k1s1", ())
    assert len(found) == 4 and all(isinstance(g, GroupMod) and g.failover for g in found.values())
