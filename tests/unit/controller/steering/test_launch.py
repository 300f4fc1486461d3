"""Objects on the fake fabric: steered once, across K-AS, destinationless until the last switch; re-steered, refused."""

from __future__ import annotations

import ipaddress
import itertools

import pytest

from controller.border.messages import AskNextStop, Stop
from controller.errors import SteeringError
from controller.southbound.openflow import FlowMod, PacketOut
from controller.southbound.pipeline import LABEL
from packets.labels import AI_PORT, LABEL_NETWORK, label_address, make_object_id, object_label
from packets.wire import PacketType
from tests.fake_fabric import World, launch, run, small_plan, udp

PLAN = small_plan()
OBJECT = make_object_id(2, 5, 77)
RENDEZVOUS = [h.name for h in PLAN.hosts if h.role in ("data", "compute", "mpvu", "model_owner")]


class Itinerary:
    """Stands in for the home's decisions: visit number -> terminal."""

    def __init__(self, world: World, *stops: str, home: int = 2) -> None:
        self.world, self.stops, self.asked = world, list(stops), list[AskNextStop]()
        self.rules_in: set[int] = set()
        world.by_kas[home].training.stops.next_stop = self  # type: ignore[method-assign,assignment]

    async def __call__(self, ask: AskNextStop) -> Stop:
        self.asked.append(ask)
        alternatives = self.stops[ask.visit].split("|")
        names = [n for n in alternatives if f"{self.world.hosts[n].kas}:@node/{n}" not in ask.exclude]
        if not names:
            raise SteeringError("nowhere else to go")
        kas = self.world.hosts[names[0]].kas
        path = self.world.by_kas[2].domain.kas_path(ask.holder_kas, kas)
        clear, self.rules_in = sorted(self.rules_in - set(path)), set(path)
        return Stop(action="train", kas=kas, handle=f"@node/{names[0]}", path=path, clear=clear)


def label_rules(world: World, having: str = "ipv4_dst", object_id: int = OBJECT) -> list[str]:
    """Return the switches that hold rules of an object's label, as often as they do; ``having`` a match on this."""
    address = label_address(object_label(object_id))
    rules = [(n, f.match) for n, s in world.fabric.switches.items() for f in s.flows]
    return [n for n, match in rules if match.get("ipv4_dst") == address and having in match]


def is_label(address: str) -> bool:
    return ipaddress.IPv4Address(address) in LABEL_NETWORK


@pytest.mark.parametrize("together", [False, True], ids=["one DCC per K-AS", "one DCC for all"])
def test_any_holder_to_any_rendezvous_destinationless_to_the_last_switch(together: bool) -> None:
    async def work() -> None:
        world = World(PLAN, together=together)
        await world.start()
        pairs = [(a, b) for a, b in itertools.product([h.name for h in PLAN.hosts], RENDEZVOUS) if a != b]
        for number, (holder, target) in enumerate(pairs):
            object_id = make_object_id(2, number, 1)
            Itinerary(world, target)
            reached = await world.launch(holder, object_id, 0)
            assert reached == [target], f"{holder} -> {target}"
            label = label_address(object_label(object_id))
            journey = world.send(holder, label, launch(object_id, 0), port=AI_PORT)
            assert (journey.ends, journey.punted) == ([target], 0), "later packets never leave the data plane"
            assert all(is_label(destination) for _, destination in journey.hops), journey.hops
            last = journey.delivered[0][1]
            assert (last["ipv4_dst"], last["eth_dst"]) == (world.hosts[target].address, world.hosts[target].mac)
            assert last["ipv4_src"] == world.hosts[holder].address
        assert not world.of("error")

    run(work)


def test_the_launch_is_released_only_after_every_switch_on_the_path_has_answered() -> None:
    async def work() -> None:
        world = World(PLAN)
        await world.start()
        Itinerary(world, "h31")
        world.fabric.sent.clear()
        assert await world.launch("owner1", OBJECT, 0) == ["h31"]
        sent = [(name, m) for name, m in world.fabric.sent if not isinstance(m, PacketOut) or m.in_port < 0xFF00]
        release = next(i for i, (_, m) in enumerate(sent) if isinstance(m, PacketOut))
        installed = {
            n: i for i, (n, m) in enumerate(sent) if isinstance(m, FlowMod) and not m.delete and m.table == LABEL
        }
        barriers = {n: i for i, (n, m) in enumerate(sent) if m == "barrier"}
        assert len(installed) >= 4
        for name, at in installed.items():
            assert at < barriers[name] < release, f"{name}: rule {at}, barrier {barriers[name]}, release {release}"

    run(work)


def test_a_repeated_launch_is_decided_once_and_released_again() -> None:
    async def work() -> None:
        world = World(PLAN)
        await world.start()
        plan = Itinerary(world, "h31")
        host = world.hosts["owner1"]
        packet = udp(host, label_address(object_label(OBJECT)), launch(OBJECT, 0), port=AI_PORT)
        for _ in range(5):
            world.fabric.inject(host, packet)  # all before the first is decided
        await world.settle()
        assert len(plan.asked) == 1
        assert len(world.fabric.inbox["h31"]) == 5
        steered = world.of("object.steered")
        assert sorted(d["kas"] for d in steered) == [1, 3]
        assert {d["kas"]: d["node"] for d in steered} == {1: "", 3: "h31"}, "only the last K-AS knows the node"

    run(work)


def test_the_next_holder_of_the_label_is_asked_for_anew_and_older_rules_go() -> None:
    async def work() -> None:
        world = World(PLAN)
        await world.start()
        stops = ["h31", "mpvu2", "h11", "h13", "c4", "owner1"]
        plan = Itinerary(world, *stops)
        holder = "owner1"
        for visit, stop in enumerate(stops):
            assert await world.launch(holder, OBJECT, visit) == [stop], f"visit {visit}"
            rules, marked = label_rules(world), label_rules(world, "eth_dst")
            assert len(rules) - len(marked) == len(set(rules)), "one rule a switch: the older ones are gone"
            assert len(marked) == len(set(marked)) and set(marked) <= set(rules), "one more for what made a detour"
            journey = world.send(holder, label_address(object_label(OBJECT)), b"shard")
            assert set(rules) == set(journey.switches), "rules of this visit's path and no others"
            holder = stop
        assert [a.visit for a in plan.asked] == list(range(len(stops)))
        assert not world.of("warning") and not world.of("error")

    run(work)


def test_only_the_holder_may_launch_and_no_visit_comes_back() -> None:
    async def work() -> None:
        world = World(PLAN)
        await world.start()
        Itinerary(world, "h31", "mpvu2")
        assert await world.launch("owner1", OBJECT, 0) == ["h31"]
        assert await world.launch("h33", OBJECT, 1) == [], "h33 does not hold it"
        assert await world.launch("h31", OBJECT, 2) == [], "not visit 2 yet"
        assert await world.launch("h31", OBJECT, 1) == ["mpvu2"]
        assert await world.launch("owner1", OBJECT, 0) == [], "visit 0 is over, its rules are gone"
        refused = [d["reason"] for d in world.of("packet.refused")]
        assert len(refused) == 3 and all("hold" in r or "over" in r for r in refused)

    run(work)


def test_an_impossible_rendezvous_is_excluded_and_another_taken() -> None:
    async def work() -> None:
        world = World(PLAN)
        await world.start()
        plan = Itinerary(world, "h31|h21", "h21|h33")
        world.fabric.unplug("h31", world.hosts["h31"].switch)
        await world.settle()
        assert await world.launch("owner1", OBJECT, 0) == ["h21"]
        assert plan.asked[-1].exclude == ["3:@node/h31"]
        assert await world.launch("h21", OBJECT, 1) == ["h33"], "it is at h21 already"
        assert [len(d) for d in (world.of("error"),)] == [0]

    run(work)


def test_nowhere_to_go_is_a_refusal_and_the_next_launch_may_succeed() -> None:
    async def work() -> None:
        world = World(PLAN)
        await world.start()
        Itinerary(world, "h31")
        world.mute.add(3)
        assert await world.launch("owner1", OBJECT, 0) == []
        assert world.of("packet.refused")
        world.mute.clear()
        assert await world.launch("owner1", OBJECT, 0) == ["h31"]

    run(work)


def test_a_rendezvous_that_dies_is_replaced_without_a_restart() -> None:
    async def work() -> None:
        world = World(PLAN)
        await world.start()
        plan = Itinerary(world, "h31|h21")

        async def lost(message: object) -> None:
            from controller.border.messages import Lost

            await world.by_kas[1].serving.serve(Lost(kas=1, object_id=OBJECT, visit=0, to_holder=True))

        world.by_kas[2].custody.lost = lost  # type: ignore[method-assign,assignment]
        assert await world.launch("owner1", OBJECT, 0) == ["h31"]
        world.fabric.unplug("h31", world.hosts["h31"].switch)
        await world.settle()
        assert plan.asked[-1].exclude == ["3:@node/h31"]
        assert [(n, type(m).__name__) for n, m in world.asked] == [("owner1", "LaunchAgain")]
        assert [n for n in label_rules(world) if n.startswith("k3")] == [], "no rule leads into the void"
        assert world.send("owner1", label_address(object_label(OBJECT)), b"shard").ends == ["h21"], "no launch needed"
        assert await world.launch("owner1", OBJECT, 0) == ["h21"]
        (moved,) = world.of("object.resteered")
        assert (moved["from_kas"], moved["to_kas"], moved["holder"]) == (3, 2, "owner1")

    run(work)


def test_a_dead_link_on_the_way_moves_the_label_path() -> None:
    async def work() -> None:
        world = World(PLAN)
        await world.start()
        plan = Itinerary(world, "h31")
        await world.launch("owner1", OBJECT, 0)
        label = label_address(object_label(OBJECT))
        before = world.send("owner1", label, b"shard").switches
        world.fabric.unplug(before[0], before[1])
        await world.settle()
        journey = world.send("owner1", label, b"shard")
        assert journey.ends == ["h31"] and journey.switches != before
        assert len(plan.asked) == 1, "the decision stands, only the way changed"

    run(work)


def test_shards_whose_rules_are_gone_come_back_to_the_controller_and_no_further() -> None:
    async def work() -> None:
        world = World(PLAN)
        await world.start()
        gateway, border = next(
            (world.hosts["h31"], b) for b in world.by_kas[3].domain.plan.borders if b.neighbour_kas == 1
        )
        switch = world.fabric.switches[border.switch]
        packet = udp(gateway, label_address(object_label(OBJECT)), b"late", port=AI_PORT)
        assert switch.process(packet, border.port) == [], "a late packet at a border is dropped, not handed up"

    run(work)


def test_data_shards_and_wrong_labels_are_no_jobs() -> None:
    async def work() -> None:
        world = World(PLAN)
        await world.start()
        Itinerary(world, "h31")
        other = label_address(object_label(OBJECT) + 1)
        journey = world.send("owner1", other, launch(OBJECT, 0))
        await world.settle()
        assert journey.punted == 1 and journey.ends == []
        assert "no object of ours" in world.of("packet.refused")[-1]["reason"]
        world.send("owner1", label_address(object_label(OBJECT)), b"garbage")
        await world.settle()
        assert len(world.of("packet.refused")) == 2
        assert await world.launch("owner1", OBJECT, 0, PacketType.DATA_SHARD) == ["h31"]

    run(work)


def test_a_switch_that_does_not_answer_holds_the_launch_back() -> None:
    async def work() -> None:
        world = World(PLAN)
        await world.start()
        Itinerary(world, "h31")
        world.fabric.deaf.add("k3g")
        assert await world.launch("owner1", OBJECT, 0) == []
        world.fabric.deaf.clear()
        assert await world.launch("owner1", OBJECT, 0) == ["h31"]

    run(work)
