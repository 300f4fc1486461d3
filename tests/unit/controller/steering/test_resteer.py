"""Re-steer on the fake fabric: who notices, what moves, in which order, and where a job goes on."""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence

import msgspec
import pytest

from controller.border.messages import Lost
from controller.southbound.frames import ICMP, mac_bytes, read_unreachable
from controller.southbound.openflow import PacketIn
from controller.southbound.pipeline import CLASSIFY
from controller.values.decisions import JobView, Load, Option, Plan, Request
from packets.labels import AI_PORT, label_address, object_label
from packets.messages import HandOver, LaunchAgain, Leave, Order, OrderRequest, Register, Release, Report
from packets.wire import PacketType
from tests.fake_fabric import World, run, udp
from tests.unit.controller.steering.test_launch import OBJECT, PLAN, Itinerary, label_rules
from tests.unit.controller.training.test_jobs import GOOD, Life, engines, one_step_plan
from topologies.plan import ROUTER_MAC, HostPlan

LABEL = label_address(object_label(OBJECT))


class Home(Itinerary):
    """Decides by itinerary, and has what is lost led elsewhere by whoever launched it."""

    def __init__(self, world: World, *stops: str, holder_kas: int = 1) -> None:
        super().__init__(world, *stops)
        self.holder_kas, self.lost = holder_kas, list[Lost]()
        world.by_kas[2].custody.lost = self.note  # type: ignore[method-assign]

    async def note(self, lost: Lost) -> None:
        self.lost.append(lost)
        to_holder = {"kas": self.holder_kas, "to_holder": True}
        await self.world.by_kas[self.holder_kas].services.must(
            Lost(**{k: getattr(lost, k) for k in lost.__struct_fields__} | to_holder)
        )


def unreachable(host: HostPlan, *, port: int = AI_PORT, told_by: str = "", code: int = 3) -> bytes:
    """Return the frame by which a host's kernel says that nobody listens at a port."""
    own, asker = socket.inet_aton(told_by or host.address), socket.inet_aton("10.1.1.9")
    inner = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 60, 0, 0, 60, 17, 0, asker, socket.inet_aton(host.address))
    quoted = inner + struct.pack("!HHHH", AI_PORT, port, 40, 0)
    outer = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + 8 + len(quoted), 0, 0, 64, ICMP, 0, own, asker)
    return mac_bytes(ROUTER_MAC) + mac_bytes(host.mac) + b"\x08\x00" + outer + bytes((3, code)) + bytes(6) + quoted


def hand_up(world: World, host: HostPlan, frame: bytes) -> None:
    dcc = world.by_kas[host.kas]
    dcc.fabric.packet_in(PacketIn(dcc.domain.switches[host.switch].dpid, host.port, CLASSIFY, frame))


async def steered(world: World, *stops: str) -> Home:
    await world.start()
    home = Home(world, *stops)
    assert await world.launch("owner1", OBJECT, 0) == [stops[0].split("|")[0]]
    return home


# --- who notices


@pytest.mark.parametrize("rest", [b"", b"x" * 20])
def test_a_port_unreachable_is_read(rest: bytes) -> None:
    host = PLAN.hosts[0]
    frame = unreachable(host)
    assert read_unreachable(frame + rest) == (host.address, AI_PORT)
    assert [read_unreachable(frame[:n]) for n in range(len(frame) - 4)] == [None] * (len(frame) - 4), "cut short"


def test_a_host_whose_agent_has_ended_is_no_rendezvous_any_more() -> None:
    async def work() -> None:
        world = World(PLAN)
        home = await steered(world, "h31|h21")
        hand_up(world, world.hosts["h31"], unreachable(world.hosts["h31"]))
        await world.settle()
        assert [(one.place, one.alive, one.visit) for one in home.lost] == [("3:@node/h31", False, 0)]
        assert world.send("owner1", LABEL, b"shard").ends == ["h21"]
        assert [(name, type(m)) for name, m in world.asked] == [("owner1", LaunchAgain)]

    run(work)


def test_what_does_not_prove_that_it_is_dead_changes_nothing() -> None:
    async def work() -> None:
        world = World(PLAN)
        home = await steered(world, "h31|h21")
        h31, h33 = world.hosts["h31"], world.hosts["h33"]
        hand_up(world, h31, unreachable(h31, port=53))
        hand_up(world, h33, unreachable(h31))  # said at another's port
        hand_up(world, h31, unreachable(h31, told_by=h33.address))
        hand_up(world, h31, unreachable(h31, code=1))
        hand_up(world, h31, b"\x00" * 60)
        await world.settle()
        assert home.lost == [] and world.send("owner1", LABEL, b"shard").ends == ["h31"]

    run(work)


def test_a_loss_that_is_told_twice_moves_the_object_once() -> None:
    async def work() -> None:
        world = World(PLAN)
        await steered(world, "h31|h21|h11")
        for _ in range(3):
            hand_up(world, world.hosts["h31"], unreachable(world.hosts["h31"]))
        world.fabric.unplug("h31", world.hosts["h31"].switch)
        await world.settle()
        assert len(world.of("object.resteered")) == 1
        assert world.send("owner1", LABEL, b"shard").ends == ["h21"]

    run(work)


def test_rendezvous_are_knocked_at_until_the_journey_ends() -> None:
    async def work() -> None:
        world = World(PLAN)
        await steered(world, "h31")
        dcc = world.by_kas[3]
        assert [a.node for a in dcc.services.location.expected()] == ["h31"]
        arrival = dcc.services.location.arrival(OBJECT)
        assert arrival is not None
        dcc.services.location.done(arrival)
        assert dcc.services.location.expected() == []
        hand_up(world, world.hosts["h31"], unreachable(world.hosts["h31"]))
        await world.settle()
        assert world.of("object.resteered") == []

    run(work)


def test_nobody_speaks_in_the_name_of_a_label() -> None:
    async def work() -> None:
        world = World(PLAN)
        await world.start()
        forged = udp(world.hosts["h11"], world.hosts["h13"].address).with_(ipv4_src="240.0.0.1")
        assert world.fabric.inject(world.hosts["h11"], forged).ends == []
        assert world.send("h11", world.hosts["h13"].address, b"x").ends == ["h13"]

    run(work)


# --- what moves


def test_the_new_way_stands_before_the_old_one_goes() -> None:
    """At each barrier of a re-steer a shard arrives: first at the old place, then at the new one, never nowhere."""

    async def work() -> None:
        world = World(PLAN)
        await steered(world, "h31|h21")
        seen: list[str] = []
        plain = world.fabric.barrier

        async def watched(dpid: int, timeout_s: float = 5.0) -> None:
            await plain(dpid, timeout_s)
            journey = world.send("owner1", LABEL, b"shard")
            assert journey.punted == 0 and len(journey.ends) == 1, f"lost after {seen}"
            seen.append(journey.ends[0])

        world.fabric.barrier = watched  # type: ignore[method-assign]
        await world.by_kas[3].resteering.withdrawn("h31", "withdrawn")
        await world.settle()
        assert seen == sorted(seen, reverse=True) and set(seen) == {"h31", "h21"}
        assert {n[:2] for n in label_rules(world)} == {"k1", "k2"}, "nothing of the old way is left"

    run(work)


def test_a_withdrawn_rendezvous_hands_over_to_the_new_one() -> None:
    async def work() -> None:
        world = World(PLAN)
        await steered(world, "h31|h21")
        await world.by_kas[3].resteering.withdrawn("h31", "withdrawn")
        asked = dict(world.asked)
        assert asked["h31"] == HandOver(object_id=OBJECT, visit=0, address=world.hosts["h21"].address)
        assert asked["owner1"] == LaunchAgain(object_id=OBJECT, visit=0, former_lives=True)
        (moved,) = world.of("object.resteered")
        assert moved["alive"] and (moved["from_kas"], moved["to_kas"]) == (3, 2)

    run(work)


def test_a_former_rendezvous_that_says_nothing_does_not_hold_the_object_up() -> None:
    async def work() -> None:
        world = World(PLAN)
        await steered(world, "h31|h21")
        world.speechless.add("h31")
        await world.by_kas[3].resteering.withdrawn("h31", "withdrawn")
        assert world.send("owner1", LABEL, b"shard").ends == ["h21"]
        assert any("hands nothing over" in w["text"] for w in world.of("warning"))

    run(work)


def test_a_dead_border_is_gone_around_to_the_same_rendezvous() -> None:
    async def work() -> None:
        world = World(PLAN)
        home = await steered(world, "h31|h21")
        before = world.send("owner1", LABEL, b"shard").switches
        world.fabric.unplug("k1g", "k3g")
        await world.settle()
        journey = world.send("owner1", LABEL, b"shard")
        assert journey.ends == ["h31"] and journey.switches != before
        assert [one.place for one in home.lost] == [""], "the way is lost, not the place"
        assert world.asked == [] and world.of("object.resteered") == []
        assert world.of("object.rerouted")

    run(work)


def test_a_border_that_only_the_far_side_sees_down_is_gone_around() -> None:
    async def work() -> None:
        world = World(PLAN)
        await steered(world, "h31")
        link = next(k for k in PLAN.links if {k.a, k.b} == {"k1g", "k3g"})
        port = link.a_port if link.a == "k3g" else link.b_port
        dcc = world.by_kas[3]
        dcc.fabric.port_changed(dcc.domain.switches["k3g"].dpid, port, False)
        await world.settle()
        assert "k1g" in (journey := world.send("owner1", LABEL, b"shard")).switches
        assert journey.ends == ["h31"] and len({s[:2] for s in journey.switches}) == 3

    run(work)


def test_where_the_new_place_does_not_work_either_the_next_one_is_taken() -> None:
    async def work() -> None:
        world = World(PLAN)
        home = await steered(world, "h31|h21|h11")
        world.mute.add(4)
        world.fabric.deaf.add(world.hosts["h21"].switch)
        hand_up(world, world.hosts["h31"], unreachable(world.hosts["h31"]))
        await world.settle()
        assert home.asked[-1].exclude == ["3:@node/h31", "2:@node/h21"]
        assert world.send("owner1", LABEL, b"shard").ends == ["h11"]

    run(work)


def test_nowhere_to_go_takes_the_rules_out_and_a_later_launch_asks_anew() -> None:
    async def work() -> None:
        world = World(PLAN)
        home = await steered(world, "h31")
        hand_up(world, world.hosts["h31"], unreachable(world.hosts["h31"]))
        await world.settle()
        assert world.of("object.resteered") == []
        assert world.send("owner1", LABEL, b"shard").punted == 1
        home.stops = ["h31|h21"]
        assert await world.launch("owner1", OBJECT, 0) == ["h21"]

    run(work)


# --- custody: a job goes on from whoever has it


async def at_work() -> tuple[Life, str]:
    life = Life(World(PLAN, engines=engines()))
    await life.begin()
    order = await life.hop()
    assert order.action == "train"
    return life, life.at


def die(life: Life, name: str) -> None:
    hand_up(life.world, life.world.hosts[name], unreachable(life.world.hosts[name]))


def test_a_node_that_dies_at_work_is_replaced_from_the_last_state() -> None:
    async def work() -> None:
        life, first = await at_work()
        life.world.now_s += 3.0
        die(life, first)
        await life.world.settle()
        assert life.world.asked[-1] == ("owner1", LaunchAgain(object_id=life.object_id, visit=0))
        (back,) = life.world.of("job.recovered")
        assert (back["visit"], back["action"], back["lost_s"]) == (0, "train", 3.0)
        life.at = "owner1"
        await life.play(GOOD)
        assert first not in [node for _, node in life.journey[1:]]
        assert life.finished["state"] == "finished" and life.finished["visits"] == 1

    run(work)


def test_work_that_was_reported_and_then_lost_does_not_count() -> None:
    async def work() -> None:
        life, first = await at_work()
        await life.train(Order(action="train", object_id=life.object_id, visit=0, epochs=2.0))
        job = life.world.by_kas[1].training.book.jobs[life.object_id]
        assert len(job.visits) == 1
        die(life, first)  # before it launched
        await life.world.settle()
        assert job.visits == [] and life.world.asked[-1][0] == "owner1"
        life.at, life.visit = "owner1", 0
        await life.play(GOOD)
        assert life.finished["visits"] == 1

    run(work)


def test_when_holder_and_rendezvous_die_the_one_before_has_it_still() -> None:
    async def work() -> None:
        life, first = await at_work()
        await life.train(Order(action="train", object_id=life.object_id, visit=0, epochs=2.0))
        (mpvu,) = await life.world.launch(first, life.object_id, 1)
        life.world.speechless.add(first)
        die(life, first)
        await life.world.settle()
        assert life.world.asked[-1] == ("owner1", LaunchAgain(object_id=life.object_id, visit=0))
        assert mpvu.startswith("mpvu")
        life.at, life.visit = "owner1", 0
        await life.play(GOOD)
        assert life.finished["state"] == "finished" and first not in [node for _, node in life.journey[1:]]

    run(work)


def test_a_holder_that_dies_after_delivery_is_not_missed() -> None:
    async def work() -> None:
        life, first = await at_work()
        await life.train(Order(action="train", object_id=life.object_id, visit=0, epochs=2.0))
        await life.hop()
        asked = list(life.world.asked)
        die(life, first)
        await life.world.settle()
        assert [m for m in life.world.asked[len(asked) :] if isinstance(m[1], LaunchAgain)] == []
        await life.verify(GOOD)
        await life.play(GOOD)
        assert life.finished["state"] == "finished"

    run(work)


def test_copies_are_let_go_once_the_object_is_safe_two_stops_on() -> None:
    async def work() -> None:
        life, first = await at_work()
        await life.train(Order(action="train", object_id=life.object_id, visit=0, epochs=2.0))
        assert [m for _, m in life.world.asked if isinstance(m, Release)] == []
        await life.hop()
        await life.world.settle()
        released = [(name, m) for name, m in life.world.asked if isinstance(m, Release)]
        assert released == [("owner1", Release(object_id=life.object_id, visit=0))]
        assert first != "owner1"

    run(work)


def test_a_job_that_is_over_is_left_alone() -> None:
    async def work() -> None:
        life = Life(World(PLAN, engines=engines()))
        await life.begin()
        await life.play(GOOD)
        before = len(life.world.asked)
        die(life, "owner1")
        die(life, life.journey[0][1])
        await life.world.settle()
        assert [m for _, m in life.world.asked[before:] if isinstance(m, LaunchAgain)] == []
        assert len(life.world.of("job.finished")) == 1

    run(work)


def test_a_terminal_that_withdraws_but_stays_is_offered_no_more() -> None:
    async def work() -> None:
        world = World(PLAN)
        await world.start()
        host = world.hosts["c3"]
        await world.tell("c3", Register(name="c3", role="compute", address=host.address, attributes={}))
        places = world.by_kas[3].places
        assert [f.attributes["ready"] for f in places.facilities(3, "compute")] == [True]
        await world.tell("c3", Leave(name="c3", force=True, stay=True))
        assert [f.attributes["ready"] for f in places.facilities(3, "compute")] == [False]
        assert "c3" in world.by_kas[3].services.krrm and world.of("terminal.withdrawn")

    run(work)


def test_an_order_for_the_old_rendezvous_is_refused_after_a_withdrawal() -> None:
    async def work() -> None:
        life = Life(World(PLAN, engines=engines()))
        await life.begin()
        (first,) = await life.world.launch("owner1", life.object_id, 0)
        kas = life.world.hosts[first].kas
        await life.world.by_kas[kas].resteering.withdrawn(first, "withdrawn")
        late = await life.world.tell(first, OrderRequest(name=first, object_id=life.object_id, visit=0))
        assert not isinstance(late, Order)
        assert isinstance(life.world.asked[0][1], HandOver | LaunchAgain)

    run(work)


async def under_way() -> tuple[Life, str]:
    """A job whose model is on its way to its first rendezvous; returns that."""
    life = Life(World(PLAN, engines=engines()))
    await life.begin()
    (first,) = await life.world.launch("owner1", life.object_id, 0)
    life.world.now_s += 2.0
    return life, first


def test_second_thoughts_leave_a_good_choice_alone() -> None:
    async def work() -> None:
        life, _ = await under_way()
        await life.world.by_kas[1].custody.reconsider()
        assert life.world.of("object.resteered") == [] and life.world.asked == []

    run(work)


def test_a_place_that_is_no_longer_on_offer_is_thought_better_of() -> None:
    async def work() -> None:
        life, first = await under_way()
        host = life.world.hosts[first]
        report = Report(name=first, sequence=1, attributes={"reachable": False})
        await life.world.tell(first, report, PacketType.TELEMETRY)
        await life.world.by_kas[1].custody.reconsider()
        (moved,) = life.world.of("object.resteered")
        assert moved["alive"] and "no longer on offer" in moved["reason"] and moved["from_kas"] == host.kas
        assert {name: type(m) for name, m in life.world.asked} == {first: HandOver, "owner1": LaunchAgain}

    run(work)


def test_second_thoughts_come_too_late_for_what_has_arrived() -> None:
    async def work() -> None:
        life, first = await at_work()
        life.world.now_s += 2.0
        report = Report(name=first, sequence=1, attributes={"reachable": False})
        await life.world.tell(first, report, PacketType.TELEMETRY)
        await life.world.by_kas[1].custody.reconsider()
        assert life.world.of("object.resteered") == []

    run(work)


def test_a_much_better_place_is_turned_to_in_mid_transfer() -> None:
    async def work() -> None:
        life, first = await under_way()
        report = Report(name=first, sequence=1, attributes={"compute_samples_per_s": 0.5})
        await life.world.tell(first, report, PacketType.TELEMETRY)
        job = life.world.by_kas[1].training.book.jobs[life.object_id]
        decided = job.decisions[0].handle

        def another(request: Request, view: JobView, options: Sequence[Option], load: Load | None = None) -> Plan:
            return one_step_plan(request, view, [o for o in options if o.handle != decided])

        life.world.by_kas[1].services.intelligence.engines = engines(another)
        await life.world.by_kas[1].custody.reconsider()
        (moved,) = life.world.of("object.resteered")
        assert "takes" in moved["reason"] and moved["alive"]

    run(work)


def test_second_thoughts_are_planned_as_the_first_were() -> None:
    async def work() -> None:
        life, first = await under_way()
        report = Report(name=first, sequence=1, attributes={"compute_samples_per_s": 0.5})
        await life.world.tell(first, report, PacketType.TELEMETRY)
        dcc = life.world.by_kas[1]
        job = dcc.training.book.jobs[life.object_id]
        job.spec = msgspec.structs.replace(job.spec, train_on=True)
        seen: list[tuple[Request, Load | None]] = []

        def plan(request: Request, view: JobView, options: Sequence[Option], load: Load | None = None) -> Plan:
            seen.append((request, load))
            return one_step_plan(request, view, options)

        dcc.services.intelligence.engines = engines(plan)
        await dcc.custody.reconsider()
        await dcc.training.stops.plan(job, 1, *await dcc.training.stops.look(job, 1))
        assert len(seen) == 2 and seen[0] == seen[1], "the same aim, and the load that every K-AS tells of"

    run(work)


def test_an_agent_that_hangs_is_missed_sooner_where_an_object_waits_for_it() -> None:
    async def work() -> None:
        life, first = await under_way()
        dcc = life.world.by_kas[life.world.hosts[first].kas]
        dcc.liveness.look()
        await life.world.settle()
        assert life.world.of("object.resteered") == [], "a late report is no death"
        life.world.now_s += 5.0
        dcc.liveness.look()
        await life.world.settle()
        (moved,) = life.world.of("object.resteered")
        assert "fallen silent" in moved["reason"]
        assert [d["name"] for d in life.world.of("agent.gone")] == [first], "others have longer"

    run(work)


def test_nobody_holds_on_to_an_object_that_is_home() -> None:
    async def work() -> None:
        life, _ = await at_work()
        await life.train(Order(action="train", object_id=life.object_id, visit=0, epochs=2.0))
        await life.play(GOOD)
        await life.world.settle()
        assert life.finished["state"] == "finished"
        released = sorted(m.visit for _, m in life.world.asked if isinstance(m, Release))
        assert released == list(range(len(life.journey))), life.journey
        held = [s for dcc in life.world.dccs for name in life.world.hosts for s in dcc.steering.launched_by(name)]
        assert held == []

    run(work)
