"""Abstract terminals: tier 1 sees one terminal and no member; what a visit meets there is tier 2's word."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from controller.border.messages import AskFacilities, AskOptions, Book, Options, pack
from controller.engines.training import hpo
from controller.errors import PlanError
from controller.intelligence import Inside
from controller.placement.aggregate import aggregate, insides, outside
from controller.placement.kinds import KasKind
from controller.placement.tiers import Tiered
from controller.plugins.engines import Engines
from controller.topology.drrt import Rendezvous
from controller.topology.errors import BadReport, UnknownNode
from controller.values.decisions import Assessment, Hyper, JobView, Load, Option, Plan, Request, Step
from controller.values.errors import EngineError
from controller.values.knowledge import Attribute, Node
from controller.values.paths import host_route
from tests.fake_fabric import World, run
from tests.unit.controller.training.test_jobs import PLAN, POOR, Life, admit, judge

GROUPS = {"at11": ["h11", "h13", "c1"]}
MEMBERS = set(GROUPS["at11"])
KINDS = {1: KasKind(kind="hierarchical", abstract_terminals=GROUPS)}
SALT = bytes(range(32))
JOB = 0x0155_0000_0000_0001
REQUEST = Request(task="vignettes", groups=["cardiology", "neurology"], broad_accuracy=0.5, max_visits=4)
SAID: dict[str, dict[str, Any]] = {
    "h11": {"samples": 300, "group_shares": {"cardiology": 1.0}, "compute_samples_per_s": 50.0, "trust": 0.9},
    "h13": {"samples": 100, "group_shares": {"neurology": 1.0}, "compute_samples_per_s": 40.0, "trust": 0.5},
    "c1": {"compute_samples_per_s": 400.0, "queue": 1},
    "mdfp1": {"compute_samples_per_s": 1.0},
}  # fmt: skip


def node(name: str, role: str = "data", t_s: float = 1.0, **attributes: Any) -> Node:
    held = {key: Attribute(value, t_s) for key, value in attributes.items()}
    return Node(name=name, role=role, kas=1, address="10.1.0.1", attributes=held)


def tiered(engines: Engines | None = None, **changes: dict[str, Any]) -> Tiered:
    """A K-AS whose terminals have said what they are, at second 5."""
    mind = Tiered(PLAN.domain(1), engines, salt=SALT, groups=GROUPS)
    for host in PLAN.hosts:
        if host.name in SAID:
            mind.hear(host, SAID[host.name] | changes.get(host.name, {}), 5.0)
    return mind


def offered(mind: Tiered, job: int = JOB) -> Option:
    (option,) = mind.offers(job, REQUEST, 6.0).options
    return option


def settled(mind: Tiered, job: int = JOB, taken: dict[str, float] | None = None) -> Inside | None:
    return asyncio.run(mind.settle(job, offered(mind, job).handle, 6.0, taken=taken))


def met(mind: Tiered, job: int = JOB) -> Rendezvous | None:
    return mind.place(job, offered(mind, job).handle)


# --- as one


def test_members_are_summed_mixed_by_samples_and_as_old_as_the_oldest() -> None:
    one = aggregate(
        [
            node("h11", t_s=3.0, samples=300, group_shares={"a": 1.0}, quality=1.0, compute_samples_per_s=50.0),
            node("h13", t_s=2.0, samples=100, group_shares={"a": 0.5, "b": 0.5}, quality=0.2, sample_bytes=9),
            node("c1", "compute", t_s=4.0, compute_samples_per_s=400.0, queue=1),
        ],
        {"h13"},
    )
    assert {key: held.value for key, held in one.items()} == {
        "samples": 400, "group_shares": {"a": 0.875, "b": 0.125}, "quality": pytest.approx(0.8), "sample_bytes": 9,
        "compute_samples_per_s": 400.0, "queue": 1, "reachable": True,
    }  # fmt: skip
    assert (one["samples"].t_s, one["compute_samples_per_s"].t_s, one["quality"].t_s) == (2.0, 4.0, 2.0)


def test_a_facility_counts_where_data_may_move_to_it_and_while_it_is_free_soonest() -> None:
    data = node("h11", samples=10, compute_samples_per_s=50.0)
    facility = node("c1", "compute", compute_samples_per_s=400.0, queue=9)
    assert aggregate([data, facility], set())["compute_samples_per_s"].value == 50.0
    assert aggregate([data, facility], {"h11"})["compute_samples_per_s"].value == 50.0, "ten jobs share its 400"
    free = node("c1", "compute", compute_samples_per_s=400.0)
    assert aggregate([data, free], {"h11"})["compute_samples_per_s"].value == 400.0


@pytest.mark.parametrize(
    "members", [[], [node("c1", "compute", compute_samples_per_s=1.0)], [node("h11", samples=0)],
                [node("h11", samples=9, reachable=False)]]
)  # fmt: skip
def test_where_there_is_no_data_there_is_no_terminal(members: list[Node]) -> None:
    assert aggregate(members, set()) == {}


def test_of_more_groups_than_a_map_holds_the_largest_are_told() -> None:
    many = [node(f"h{n}", samples=100 + n, group_shares={f"g{n}": 1.0}) for n in range(100)]
    shares = aggregate(many, set())["group_shares"].value
    assert len(shares) == 64 and "g99" in shares and "g0" not in shares
    assert sum(shares.values()) == pytest.approx(1.0)


def test_tier_1_is_told_of_one_terminal_at_the_widest_door_and_tier_2_of_its_members() -> None:
    plan = PLAN.domain(1)
    links = [msgspec.structs.replace(k, rate_mbps=7.0) if k.a != "h13" else k for k in plan.links]
    plan = msgspec.structs.replace(plan, links=links)
    tier1, tier2 = outside(plan, GROUPS), insides(plan, GROUPS)["at11"]
    assert {h.name for h in tier1.hosts} == {h.name for h in plan.hosts} - MEMBERS | {"at11"}
    at = next(h for h in tier1.hosts if h.name == "at11")
    door = next(h for h in plan.hosts if h.name == "h13")
    assert (at.role, at.switch, at.data_may_move) == ("data", door.switch, False)
    assert not any(member in repr(tier1) for member in ("h11", "h13", "c1-"))
    assert {h.name for h in tier2.hosts} == MEMBERS
    gateway = next(s.name for s in plan.switches if s.gateway)
    assert host_route(tier1, "at11", gateway).places[-1] == host_route(tier2, "c1", gateway).places[-1] == gateway


def test_a_member_that_the_plan_does_not_have_is_named() -> None:
    with pytest.raises(PlanError, match="at11: the plan has no terminal h19"):
        Tiered(PLAN.domain(1), salt=SALT, groups={"at11": ["h11", "h19"]})


# --- two tiers


def test_members_report_to_tier_2_alone_and_tier_1_offers_one_place() -> None:
    mind = tiered()
    option = offered(mind)
    assert {n.name for n in mind.map.nodes()} == {"at11", "mdfp1"}
    assert {n.name for n in mind.tiers["at11"].mind.map.nodes()} == MEMBERS
    assert (option.samples, option.mix) == (400, {"cardiology": 0.75, "neurology": 0.25})
    assert option.trust == pytest.approx(0.8) and option.move_bytes == 0
    assert option.age_s == 1.0 and option.epoch_s == pytest.approx(400 / 400 * 2), "c1, behind the one it works on"
    assert not any(member in repr(option) for member in MEMBERS)


def test_what_is_met_is_opaque_until_tier_2_has_decided_and_stays_until_it_was_trained_on() -> None:
    mind = tiered()
    assert met(mind) is None
    chosen = settled(mind)
    assert chosen is not None and chosen.at == "at11" and {chosen.data_node, chosen.facility} <= MEMBERS
    place = met(mind)
    assert place is not None and (place.data_node, place.facility) == (chosen.data_node, chosen.facility)
    assert settled(mind) is None and met(mind) == place, "decided once"
    mind.trained(JOB, "h99")
    assert met(mind) == place
    mind.trained(JOB, chosen.data_node)
    assert met(mind) is None
    again = settled(mind)
    assert again is not None and again.data_node != chosen.data_node, "the other one has what this one lacks"
    inner = mind.tiers["at11"].mind.offers(JOB, REQUEST, 6.0).options
    assert offered(mind).handle not in {o.handle for o in inner}


def test_two_pieces_of_one_training_that_come_at_once_meet_the_same() -> None:
    async def slow(request: Request, view: JobView, options: Sequence[Option], load: Load | None) -> Plan:
        turns.append(len(turns))
        await asyncio.sleep(0.01)
        return here_first(request, view, options, load)

    async def work() -> None:
        mind = tiered(Engines.of(mtrce=slow))
        handle = offered(mind).handle
        both = await asyncio.gather(*(mind.settle(JOB, handle, 6.0) for _ in range(2)))
        decided = [b for b in both if b is not None]
        assert len(turns) == 2 and len(decided) == 1
        place = met(mind)
        assert place is not None and place.facility == decided[0].facility

    turns: list[int] = []
    run(work)


def test_jobs_are_decided_on_by_themselves_and_go_around_each_other() -> None:
    mind = tiered()
    first = settled(mind)
    assert first is not None
    other = settled(mind, JOB + 1, {first.facility: 60.0, first.data_node: 60.0})
    assert other is not None and other.facility != first.facility
    assert met(mind, JOB) != met(mind, JOB + 1)


def test_to_tier_1_an_abstract_terminal_is_taken_once_every_place_in_it_is() -> None:
    mind = tiered()
    assert mind.taken({"h11": 9.0, "mdfp1": 2.0}) == {"mdfp1": 2.0}
    assert mind.taken({"h11": 9.0, "h13": 4.0, "c1": 6.0}) == {"at11": 4.0}


def test_who_is_gone_is_not_met_and_where_all_are_nothing_is_offered() -> None:
    mind = tiered()
    chosen = settled(mind)
    assert chosen is not None
    mind.forget(chosen.data_node)
    before = offered(mind).handle
    assert met(mind) is None, "its home is told, and offered another place"
    now = settled(mind)
    assert now is not None and now.data_node != chosen.data_node
    assert offered(mind).handle == before
    assert offered(mind).samples == SAID[now.data_node]["samples"]
    mind.know(now.data_node, {"reachable": False}, 7.0)
    assert mind.offers(JOB, REQUEST, 7.0).options == [] and "at11" not in mind.map
    mind.know(now.data_node, {"reachable": True}, 8.0)
    assert offered(mind).samples == SAID[now.data_node]["samples"]


def test_where_tier_2_has_nothing_to_offer_it_says_so() -> None:
    def nowhere(request: Request, view: JobView, options: Sequence[Option], load: Load | None) -> Plan:
        raise EngineError("not today")

    mind = tiered(Engines.of(mtrce=nowhere))
    with pytest.raises(EngineError, match="not today"):
        settled(mind)


def test_what_cannot_be_true_of_a_member_is_refused_as_ever() -> None:
    mind, host = tiered(), next(h for h in PLAN.hosts if h.name == "h11")
    with pytest.raises(BadReport, match="h11"):
        mind.hear(host, {"samples": -1}, 7.0)
    assert offered(mind).samples == 400


def test_the_tools_look_after_every_terminal_and_know_no_abstract_one() -> None:
    mind = tiered()
    offered(mind)
    assert [n.name for n in mind.known.nodes()] == ["c1", "h11", "h13", "mdfp1"]
    assert [n.name for n in mind.known.nodes("data")] == ["h11", "h13"]
    assert "h11" in mind.known and "at11" not in mind.known and "h12" not in mind.known and len(mind.known) == 4
    assert mind.known.node("h11").get("samples") == 300 and mind.known.stale(30.0, 15.0) == [
        "c1",
        "h11",
        "h13",
        "mdfp1",
    ]
    for name in ("at11", "h12"):
        with pytest.raises(UnknownNode, match=name):
            mind.known.node(name)


# --- in a network


def here_first(request: Request, view: JobView, options: Sequence[Option], load: Load | None = None) -> Plan:
    """Stay in K-AS 1, and of what is on offer there take first what was not visited yet."""
    done = {v.handle for v in view.visits}
    here = [o for o in options if o.kas == 1 and not o.move_bytes]
    if not here:
        raise EngineError("nothing is left in K-AS 1")
    first = min(here, key=lambda o: (o.handle in done, o.handle))
    hyper = Hyper(epochs=2, batch_size=32, learning_rate=1e-3)
    step = Step(option=first, hyper=hyper, expected={}, cost_s=1, cost_bytes=1, verify=True, reason="here")
    return Plan(steps=[step], expected_broad=0.9, expected_expert=0.9, total_s=1, total_bytes=1)


def hierarchical() -> World:
    return World(PLAN, engines=Engines.of(tfam=admit, mtrce=here_first, gate=judge), kinds=KINDS)


def test_a_job_visits_the_members_that_tier_2_chooses_one_after_the_other() -> None:
    async def work() -> None:
        life = Life(hierarchical())
        await life.begin()
        dcc = life.world.by_kas[1]
        assert MEMBERS.isdisjoint(n.name for n in dcc.services.intelligence.map.nodes())
        order = await life.hop()
        first = life.at
        assert order.action == "train" and order.data_node == first in MEMBERS
        assert order.epochs == hpo.epochs(100) != hpo.epochs(200), "those of who is met, not of all that was offered"
        await life.train(order)
        await life.hop()
        await life.verify(POOR)
        order = await life.hop()
        assert order.action == "train" and life.at in MEMBERS - {first}
        decided = life.world.of("at.decided")
        assert [d["data_node"] for d in decided] == [first, life.at] and {d["at"] for d in decided} == {"at11"}
        assert len({d["handle"] for d in life.world.of("job.decided") if d["action"] == "train"}) == 1

    run(work)


def test_what_a_hierarchical_k_as_tells_others_names_no_member() -> None:
    async def work() -> None:
        life = Life(hierarchical())
        await life.begin()
        dcc = life.world.by_kas[1]
        reply = await dcc.serving.serve(AskOptions(kas=1, object_id=JOB, request=REQUEST))
        assert isinstance(reply, Options)
        (option,) = reply.options
        assert option.samples == 200
        told = pack(1, reply)
        assert not any(member.encode() in told for member in MEMBERS)
        assert dcc.places.answer(AskFacilities(kas=1, role="compute")).facilities == []

    run(work)


def test_a_member_that_is_cut_off_is_not_met() -> None:
    async def work() -> None:
        life = Life(hierarchical())
        await life.begin()
        host = life.world.hosts["h11"]
        life.world.fabric.unplug("h11", host.switch)
        await life.world.settle()
        await life.hop()
        assert life.at == "h13"

    run(work)


def test_what_dies_with_an_object_on_its_way_is_replaced_by_another_member() -> None:
    async def work() -> None:
        life = Life(hierarchical())
        await life.begin()
        order = await life.hop()
        first, dcc = life.at, life.world.by_kas[1]
        dcc.liveness.dead(first, "has fallen silent")
        await life.world.settle()
        (resteered,) = life.world.of("object.resteered")
        assert resteered["from_node"] == first and {resteered["to_node"], first} == {"h11", "h13"}
        assert order.action == "train" and len(life.world.of("at.decided")) == 2
        handles = [d["handle"] for d in life.world.of("job.decided")]
        assert len(set(handles)) == len(handles) == 2, "another handle: the home has excluded the first"

    run(work)


def test_places_are_booked_in_an_abstract_terminal_and_the_next_object_is_met_elsewhere() -> None:
    async def work() -> None:
        def free_first(request: Request, view: JobView, options: Sequence[Option], load: Load | None = None) -> Plan:
            taken = {b.place for b in load.bookings} if load else set()
            return here_first(request, view, [o for o in options if o.place not in taken], load)

        life = Life(World(PLAN, engines=Engines.of(tfam=admit, mtrce=free_first, gate=judge), kinds=KINDS))
        await life.begin()
        dcc, nodes = life.world.by_kas[1], []
        for job in (JOB, JOB + 1):
            (option,) = await dcc.places.options(job, REQUEST, 1)
            await dcc.rivals.book(Book(kas=1, object_id=job, visit=0, handle=option.handle, wait_s=0, expected_s=9.0))
            nodes.append(dcc.places.resolve(job, 1, option.handle).host.name)
        assert sorted(nodes) == ["h11", "h13"]
        assert dcc.rivals.bookings(1, JOB + 2) == [], "c1 is free: to others the abstract terminal is"

    run(work)


def test_t_fam_is_asked_about_what_tier_1_sees() -> None:
    seen: list[Option] = []

    def look(request: Request, options: Sequence[Option], mpvus: int) -> Assessment:
        seen.extend(options)
        return admit(request, options, mpvus)

    async def work() -> None:
        await Life(World(PLAN, engines=Engines.of(tfam=look, mtrce=here_first), kinds=KINDS)).begin()
        assert len([o for o in seen if o.kas == 1]) == 1 < len([o for o in seen if o.kas == 2])

    run(work)
