"""A distributed K-AS: terminals say what is on offer and where the objects go that they hold, and may lie about it."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from typing import Any

import msgspec
import pytest

from controller.border.messages import AskNextStop, AskOptions, Options, pack
from controller.dcc import PATIENCE_S
from controller.placement.distributed import Distributed, fitted
from controller.placement.kinds import KasKind
from controller.plugins.engines import Engines
from controller.values.decisions import JobView, Option, Request
from controller.values.distributed import Brief, Meets, Offered
from hosts.gossip.house import House
from packets.distributed.asking import ROOM_BYTES, AskBrief, AskOffers, AskPlan, Briefed, Offers, Planned, Propose
from packets.messages import Ack, AnyMessage, Message, Refused, Register, Submit, SubmitReply
from tests.fake_fabric import World, run
from tests.unit.controller.training.test_jobs import PLAN, POOR, SPEC, Life, admit, engines, judge

GOOD = {"broad": 0.9, "per_group": {"cardiology": 0.97}}
ALL = (1, 2, 3, 4)
MET = ("data", "compute")
ATTRIBUTES: dict[str, Any] = {
    "samples": 3000, "group_shares": {"cardiology": 0.5, "neurology": 0.5}, "quality": 0.8, "reachable": True,
    "compute_samples_per_s": 3000.0, "queue": 0,
}  # fmt: skip
JOB = 0x0155_0000_0000_0001
REQUEST = Request(task="vignettes", groups=["cardiology", "neurology"], broad_accuracy=0.5, max_visits=4)
Lie = Callable[[str, AnyMessage, Message], Message]


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever is silent here stays so."""
    for kind in PATIENCE_S:
        monkeypatch.setitem(PATIENCE_S, kind, (0.02,))


def honest(name: str, message: AnyMessage, answer: Message) -> Message:
    return answer


class Town(Life):
    """Plays every terminal: those of a distributed K-AS have a house each, and told one another all there is."""

    def __init__(self, kas: Collection[int] = ALL, more: Mapping[int, KasKind] | None = None) -> None:
        kinds = {k: KasKind(kind="distributed") for k in kas} | dict(more or {})
        super().__init__(World(PLAN, engines=Engines.of(tfam=admit, gate=judge), kinds=kinds))
        self.lie: Lie = honest
        self.houses = {h.name: self.house(h.kas) for h in PLAN.hosts if h.kas in kas}
        self.world.says = self.answer

    def house(self, kas: int) -> House:
        mind = self.world.by_kas[kas].services.intelligence
        house = House(mind.domain, mind.salt, lambda: self.world.now_s)
        for host in mind.domain.hosts:
            if host.role in MET:
                house.hear(host.name, msgspec.msgpack.encode(ATTRIBUTES), self.world.now_s)
        return house

    def answer(self, name: str, message: AnyMessage) -> Message:
        house = self.houses.get(name)
        if not isinstance(message, AskOffers | AskPlan) or house is None:
            return Ack()
        honest = house.offers(message.object_id, message.question) if isinstance(message, AskOffers) else None
        said = honest or house.plan(message.brief)  # type: ignore[union-attr]
        return self.lie(name, message, said)

    async def register(self) -> None:
        await self.world.start()
        for host in PLAN.hosts:
            if host.name not in self.houses:
                about = ATTRIBUTES
            else:
                about = {"reachable": True} if host.role in MET else {"test_samples": 50}
            message = Register(name=host.name, role=host.role, address=host.address, attributes=about)
            assert isinstance(await self.world.tell(host.name, message), Ack)

    async def begin(self, spec: Any = SPEC) -> SubmitReply:
        await self.register()
        reply = await self.world.tell("owner1", Submit(name="owner1", spec=spec))
        assert isinstance(reply, SubmitReply)
        self.object_id = reply.object_id
        return reply

    async def offered(self, kas: int = 1, request: Request = REQUEST) -> list[Option]:
        reply = await self.world.by_kas[kas].serving.serve(AskOptions(kas=kas, object_id=JOB, request=request))
        assert isinstance(reply, Options)
        return reply.options

    async def propose(self, name: str | None = None) -> Planned | None:
        """The holder asks what it needs, thinks, and proposes."""
        name = name or self.at
        question = AskBrief(name=name, object_id=self.object_id, visit=self.visit)
        briefed = await self.world.tell(name, question)
        assert isinstance(briefed, Briefed), briefed
        if not briefed.brief:
            return None
        planned = self.houses[name].plan(briefed.brief)
        about = {"handles": planned.handles, "scores": planned.scores, "took_ms": 12.0}
        said = Propose(name=name, object_id=self.object_id, visit=self.visit, **about)  # type: ignore[arg-type]
        assert isinstance(await self.world.tell(name, said), Ack)
        return planned

    def asked(self, kind: type) -> list[str]:
        return [name for name, message in self.world.asked if isinstance(message, kind)]


# --- offers


def test_a_terminal_says_what_is_on_offer_and_the_control_centre_has_heard_nothing() -> None:
    async def work() -> None:
        town = Town([1])
        await town.register()
        dcc = town.world.by_kas[1]
        assert isinstance(dcc.services.intelligence, Distributed)
        assert dcc.services.krrm.node("h11").attributes.keys() == {"reachable"}
        options = await town.offered()
        assert len(options) == 3  # h11, h13, and the data of h13 at c1
        assert town.asked(AskOffers) and not town.world.of("offers.refused")
        for option in options:
            place = dcc.places.resolve(JOB, 1, option.handle)
            assert place.host.name in ("h11", "h13", "c1") and place.data_node in ("h11", "h13")
        assert dcc.places.explain(JOB, options[0].handle)["h11.samples"]["value"] == 3000
        assert not any(name in pack(1, Options(options=options)) for name in (b"h11", b"h13", b"owner1"))

    run(work)


def test_terminals_agree_on_handles_and_are_asked_in_turn() -> None:
    async def work() -> None:
        town = Town([1])
        await town.register()
        first, second = await town.offered(), await town.offered()
        assert [o.handle for o in first] == [o.handle for o in second]
        assert len(set(town.asked(AskOffers))) == 2

    run(work)


def test_the_age_of_what_was_heard_is_told() -> None:
    async def work() -> None:
        town = Town([1])
        await town.register()
        town.world.now_s += 3.0
        assert {o.age_s for o in await town.offered()} == {3.0}

    run(work)


def test_a_terminal_that_is_silent_is_passed_over_and_asked_last_from_then_on() -> None:
    async def work() -> None:
        town = Town([1])
        await town.register()
        names = [h.name for h in PLAN.hosts if h.kas == 1]
        town.world.speechless = set(names) - {"c1"}
        for _ in range(3):
            await town.offered()  # three are asked each time: whoever was silent comes last
        assert len(await town.offered()) == 3
        assert town.asked(AskOffers) == ["c1"] * len(town.asked(AskOffers))

    run(work)


def test_where_no_terminal_answers_nothing_is_on_offer_and_that_is_said() -> None:
    async def work() -> None:
        town = Town([1])
        await town.register()
        town.world.speechless = {h.name for h in PLAN.hosts}
        assert await town.offered() == []
        assert "no terminal of K-AS 1 says what it offers" in town.world.of("warning")[-1]["text"]

    run(work)


def changed(found: bytes, **changes: Any) -> Offers:
    told = msgspec.msgpack.decode(found, type=Offered)
    meets = [Meets(msgspec.structs.replace(m.option, **changes), m.data_node, m.facility) for m in told.meetings]
    return Offers(found=msgspec.msgpack.encode(msgspec.structs.replace(told, meetings=meets)))


def swapped(found: bytes, data_node: str, facility: str) -> Offers:
    told = msgspec.msgpack.decode(found, type=Offered)
    meets = [Meets(m.option, data_node, facility) for m in told.meetings]
    return Offers(found=msgspec.msgpack.encode(msgspec.structs.replace(told, meetings=meets)))


def padded(found: bytes) -> Offers:
    told = msgspec.msgpack.decode(found, type=Offered)
    known = {name: {f"a{i}": (i, float(i)) for i in range(5000)} for name in told.known}
    return Offers(found=msgspec.msgpack.encode(msgspec.structs.replace(told, known=known))[:40_000])


LIES: dict[str, Callable[[bytes], Message]] = {
    "a terminal of another K-AS": lambda found: swapped(found, "h21", "h21"),
    "no terminal at all": lambda found: swapped(found, "h99", "h99"),
    "a facility for a data node": lambda found: swapped(found, "c1", "c1"),
    "data that may not move": lambda found: swapped(found, "h11", "c1"),
    "another handle": lambda found: changed(found, handle="0123456789abcdef"),
    "another place": lambda found: changed(found, place="0123456789abcdef"),
    "another K-AS": lambda found: changed(found, kas=2),
    "no number": lambda found: changed(found, epoch_s=math.nan),
    "negative samples": lambda found: changed(found, samples=-1),
    "shares that are none": lambda found: changed(found, mix={"cardiology": 7.0}),
    "groups that were not asked for": lambda found: changed(found, mix={"oncology": 1.0}),
    "bytes that move by themselves": lambda found: changed(found, move_bytes=-1),
    "more attributes than a terminal has": padded,
    "rubbish": lambda found: Offers(found=b"\xc1rubbish"),
    "no topology": lambda found: Offers(found=msgspec.msgpack.encode([1, 2, 3])),
    "another message": lambda found: Ack(),
    "a refusal": lambda found: Refused(reason="no"),
}


@pytest.mark.parametrize("what", LIES)
def test_offers_that_lie_are_not_passed_on(what: str) -> None:
    async def work() -> None:
        town = Town([1])
        await town.register()
        town.lie = lambda name, message, said: LIES[what](said.found) if isinstance(said, Offers) else said
        assert await town.offered() == []

    run(work)


def test_one_lie_among_true_offers_costs_that_offer_alone_and_is_told() -> None:
    async def work() -> None:
        def one(name: str, message: AnyMessage, said: Message) -> Message:
            assert isinstance(said, Offers)
            told = msgspec.msgpack.decode(said.found, type=Offered)
            wrong = msgspec.structs.replace(told.meetings[0].option, samples=-5)
            meets = [Meets(wrong, told.meetings[0].data_node, told.meetings[0].facility), *told.meetings[1:]]
            return Offers(found=msgspec.msgpack.encode(msgspec.structs.replace(told, meetings=meets)))

        town = Town([1])
        await town.register()
        town.lie = one
        assert len(await town.offered()) == 2
        assert "1 of 3 offers" in town.world.of("offers.refused")[-1]["reason"]

    run(work)


def test_who_is_dead_withdrawn_or_not_trusted_is_not_on_offer_whatever_a_terminal_says() -> None:
    async def work() -> None:
        town = Town([1])
        await town.register()
        dcc = town.world.by_kas[1]
        dcc.gathering.noted("h11", {"trust": 0.1})
        town.lie = lambda name, message, said: changed(said.found, trust=1.0) if isinstance(said, Offers) else said
        assert {dcc.places.resolve(JOB, 1, o.handle).data_node for o in await town.offered()} == {"h13"}
        dcc.gathering.noted("h13", {"reachable": False})
        assert await town.offered() == []

    run(work)


def test_who_has_not_heard_of_all_yet_is_not_the_last_word() -> None:
    async def work() -> None:
        town = Town([1])
        await town.register()
        order = [h.name for h in PLAN.hosts if h.kas == 1]
        for name in order[:2]:
            mind = town.world.by_kas[1].services.intelligence
            town.houses[name] = House(mind.domain, mind.salt, lambda: town.world.now_s)
        for _ in order:
            assert len(await town.offered()) == 3

    run(work)


# --- where an object goes


def test_the_holder_decides_and_the_home_follows() -> None:
    async def work() -> None:
        town = Town()
        assert (await town.begin()).admitted
        planned = await town.propose("owner1")
        assert planned is not None
        order = await town.hop()
        assert order.action == "train"
        (decided,) = town.world.of("job.decided")
        assert decided["handle"] == planned.handles[0]
        assert (decided["by"]["terminal"], decided["by"]["kas"], decided["by"]["ms"]) == ("holder", 1, 12.0)
        (said,) = town.world.of("holder.decided")
        assert (said["node"], said["handle"]) == ("owner1", planned.handles[0])
        assert not town.asked(AskPlan) and not town.world.of("proposal.refused")

    run(work)


def test_a_whole_journey_is_decided_by_who_holds_the_object() -> None:
    async def work() -> None:
        town = Town()
        await town.begin()
        measures, by = [POOR, GOOD], []
        for _ in range(20):
            holder = town.at
            if await town.propose() is not None:
                by.append(holder)
            order = await town.hop()
            if order.action == "home":
                break
            if order.action == "train":
                assert await ahead(town) is None, "a verdict is due after it: that is the home's to say"
                await town.train(order)
            else:
                await town.verify(measures.pop(0) if len(measures) > 1 else measures[0])
        assert [a for a, _ in town.journey] == ["train", "verify", "train", "verify", "verify", "home"]
        assert by == ["owner1", "mpvu2"]
        assert [d["node"] for d in town.world.of("holder.decided")] == by
        assert not town.world.of("error") and not town.world.of("warning")

    run(work)


async def ahead(town: Town) -> Brief | None:
    """What a holder is told, while it still trains, of where its object goes then."""
    question = AskBrief(name=town.at, object_id=town.object_id, visit=town.visit + 1)
    briefed = await town.world.tell(town.at, question)
    assert isinstance(briefed, Briefed)
    return msgspec.msgpack.decode(briefed.brief, type=Brief) if briefed.brief else None


def test_a_holder_that_trains_can_think_ahead_where_no_verdict_is_due() -> None:
    async def work() -> None:
        town = Town()
        hyper = msgspec.structs.replace(SPEC.hyper, verify_every=3)
        await town.begin(msgspec.structs.replace(SPEC, hyper=hyper))
        await town.propose()
        order = await town.hop()
        brief = await ahead(town)
        assert brief is not None and len(brief.view.visits) == 1, "the visit that is under way counts as made"
        assert {o.kas for o in brief.options} == set(ALL) - {brief.kas}
        await town.train(order)
        assert await town.propose() is not None
        assert (await town.hop()).action == "train"
        assert [d["by"]["terminal"] for d in town.world.of("job.decided")] == ["holder", "holder"]

    run(work)


def test_a_holder_that_proposes_nothing_is_asked_and_where_it_is_silent_another_one_is() -> None:
    async def work() -> None:
        town = Town()
        await town.begin()
        assert (await town.hop()).action == "train"
        assert town.asked(AskPlan) == ["owner1"]
        (decided,) = town.world.of("job.decided")
        assert decided["by"]["terminal"] == "holder"

        silent = Town()
        await silent.begin()
        silent.world.speechless = {"owner1"}
        assert (await silent.hop()).action == "train"
        (decided,) = silent.world.of("job.decided")
        assert decided["by"]["terminal"] == "other" and silent.asked(AskPlan)[-1] != "owner1"
        (said,) = silent.world.of("holder.decided")
        assert (said["node"], said["holder"]) == ("", "owner1")

    run(work)


def test_where_no_terminal_answers_the_model_is_measured_and_comes_home() -> None:
    async def work() -> None:
        town = Town([2])  # the MPVU's K-AS; K-AS 1, the home, is centralised and decides the first stop
        await town.begin()
        order = await town.hop()
        await town.train(order)
        await town.hop()
        await town.verify(POOR)
        town.lie = lambda name, message, said: Refused(reason="busy")
        await town.play(POOR)
        assert [a for a, _ in town.journey] == ["train", "verify", "verify", "home"]
        assert str(town.finished["reason"]).startswith("no terminal of K-AS 2 says where it goes")

    run(work)


def test_who_decides_changes_as_an_object_crosses_from_kind_to_kind() -> None:
    async def work() -> None:
        town = Town([2])
        await town.begin()
        await town.train(await town.hop())
        await town.hop()
        await town.verify(POOR)
        assert town.at == "mpvu2"
        await town.propose()
        await town.hop()
        trained = [d for d in town.world.of("job.decided") if d["action"] == "train"]
        assert trained[0]["by"] is None and trained[1]["by"]["terminal"] == "holder"

    run(work)


def test_three_kinds_meet_in_one_job() -> None:
    async def work() -> None:
        kinds = {3: KasKind(kind="hierarchical", abstract_terminals={"at31": ["h31", "h33", "c3"]})}
        town = Town([1, 2], more=kinds)
        assert (await town.begin(msgspec.structs.replace(SPEC, max_visits=8))).admitted
        by, places = [], set()
        for _ in range(30):
            if town.world.hosts[town.at].kas in (1, 2):
                await town.propose()
            order = await town.hop()
            if order.action == "home":
                break
            if order.action == "train":
                by.append(town.world.of("job.decided")[-1]["by"])
                places.add(town.world.hosts[town.at].kas)
                await town.train(order)
            else:
                await town.verify({"broad": 0.5 + len(by) / 100, "per_group": {"cardiology": 0.4 + len(by) / 100}})
        assert len(places) >= 2 and all(b["terminal"] == "holder" for b in by)
        assert len(by) == 8 and not town.world.of("error")

    run(work)


def test_a_home_without_mtrce_has_a_terminal_decide_for_a_holder_in_another_k_as() -> None:
    async def work() -> None:
        town = Town([1])
        await town.begin()
        await town.propose()
        await town.train(await town.hop())
        await town.hop()
        await town.verify(POOR)
        town.world.asked.clear()
        assert (await town.hop()).action == "train"
        (asked,) = town.asked(AskPlan)
        assert town.world.hosts[asked].kas == 1
        decided = [d for d in town.world.of("job.decided") if d["action"] == "train"][-1]
        assert decided["by"]["terminal"] == "other" and decided["by"]["kas"] == 1

    run(work)


# --- proposals that lie


async def told_false(town: Town, **said: Any) -> Message:
    about: dict[str, Any] = {
        "name": town.at,
        "object_id": town.object_id,
        "visit": town.visit,
        "handles": ["0123456789abcdef"],
    }
    return await town.world.tell(town.at, Propose(**(about | said)))


def test_a_place_that_nobody_offers_is_refused_and_the_holder_is_asked_again() -> None:
    async def work() -> None:
        town = Town()
        await town.begin()
        assert isinstance(await told_false(town), Ack)
        assert (await town.hop()).action == "train"
        (refused,) = town.world.of("proposal.refused")
        assert refused["node"] == "owner1" and "not on offer" in refused["reason"]
        assert town.asked(AskPlan) == ["owner1"]

    run(work)


def test_a_holder_that_goes_on_lying_is_passed_over() -> None:
    async def work() -> None:
        town = Town()
        await town.begin()
        town.lie = lambda name, message, said: (
            Planned(handles=["0123456789abcdef"]) if name == "owner1" and isinstance(said, Planned) else said
        )
        await told_false(town)
        assert (await town.hop()).action == "train"
        assert len(town.world.of("proposal.refused")) == 2
        assert town.asked(AskPlan)[0] == "owner1" and town.asked(AskPlan)[-1] != "owner1"
        (decided,) = town.world.of("job.decided")
        assert decided["by"]["terminal"] == "other"

    run(work)


def test_a_holder_that_says_that_there_is_nowhere_is_not_believed_alone() -> None:
    async def work() -> None:
        town = Town()
        await town.begin()
        town.lie = lambda name, message, said: Planned(none="nowhere") if name == "owner1" else said
        assert (await town.hop()).action == "train"
        (decided,) = town.world.of("job.decided")
        assert decided["by"]["terminal"] == "other"

    run(work)


def test_a_proposal_cannot_put_off_a_verdict_nor_outlast_the_budget() -> None:
    async def work() -> None:
        town = Town()
        await town.begin(msgspec.structs.replace(SPEC, max_visits=1))
        planned = await town.propose()
        assert planned is not None
        order = await town.hop()
        await town.train(order)
        assert isinstance(await told_false(town, handles=planned.handles), Ack)
        assert (await town.hop()).action == "verify"
        await town.verify(POOR)
        assert isinstance(await told_false(town, handles=planned.handles), Ack)
        assert (await town.hop()).action == "verify", "the last measurement: all visits are used"

    run(work)


def test_who_does_not_hold_an_object_is_told_nothing_and_proposes_nothing() -> None:
    async def work() -> None:
        town = Town()
        await town.begin()
        await town.propose()
        order = await town.hop()
        await town.train(order)
        await town.hop()
        other = next(h.name for h in PLAN.hosts if h.kas == town.world.hosts[town.at].kas and h.name != town.at)
        question = AskBrief(name=other, object_id=town.object_id, visit=town.visit + 1)
        refused = await town.world.tell(other, question)
        assert isinstance(refused, Refused) and "does not hold" in refused.reason
        said = Propose(name=other, object_id=town.object_id, visit=town.visit + 1, handles=["a"])
        assert isinstance(await town.world.tell(other, said), Refused)
        forged = await town.world.tell(other, msgspec.structs.replace(said, name=town.at))
        assert isinstance(forged, Refused) and "may not speak for" in forged.reason

    run(work)


def test_a_stranger_is_told_nothing_of_a_job_before_its_first_launch() -> None:
    async def work() -> None:
        town = Town()
        await town.begin()
        question = AskBrief(name="h11", object_id=town.object_id, visit=0)
        refused = await town.world.tell("h11", question)
        assert isinstance(refused, Refused) and "owner" in refused.reason

    run(work)


def test_what_a_holder_says_of_costs_is_not_believed() -> None:
    async def work() -> None:
        town = Town()
        await town.begin()
        planned = await town.propose()
        assert planned is not None
        await told_false(town, handles=planned.handles[:1], scores=[["nowhere", 1e9]], took_ms=5.0)
        await town.hop()
        (decided,) = town.world.of("job.decided")
        assert 0 < decided["cost_s"] < SPEC.deadline_s and decided["alternatives"] == []

    run(work)


def test_a_proposal_is_no_use_to_a_home_that_is_not_asked_by_a_distributed_k_as() -> None:
    async def work() -> None:
        life = Life(World(PLAN, engines=engines()))
        await life.begin()
        reply = await life.world.by_kas[1].serving.serve(
            AskNextStop(kas=1, object_id=life.object_id, visit=0, holder_kas=1, held=True)
        )
        assert getattr(reply, "brief", None) is not None and getattr(reply, "why", None) == ""

    run(work)


def test_of_more_options_than_a_message_holds_the_quickest_are_told() -> None:
    one = Option(kas=2, handle="", mix={"cardiology": 1.0}, samples=9, epoch_s=1.0, reach_s=0.0)
    options = [msgspec.structs.replace(one, handle=f"{i:016x}", epoch_s=float(1000 - i)) for i in range(1000)]
    brief = Brief(object_id=1, request=REQUEST, view=JobView(), options=options)
    told = msgspec.msgpack.decode(fitted(brief), type=Brief)
    assert len(fitted(brief)) <= ROOM_BYTES and 100 < len(told.options) < 1000
    assert max(o.epoch_s for o in told.options) == len(told.options)


# --- on the way


def test_a_place_that_dies_under_way_is_decided_anew_by_the_holder() -> None:
    async def work() -> None:
        town = Town()
        await town.begin()
        await town.propose()
        reached = await town.world.launch("owner1", town.object_id, 0)
        first = town.world.of("job.decided")[-1]
        town.world.by_kas[first["kas"]].liveness.dead(reached[0], "has no agent any more")
        await town.world.settle()
        again = town.world.of("job.decided")[-1]
        assert again["handle"] != first["handle"] and again["by"]["terminal"] == "holder"
        assert town.asked(AskPlan) == ["owner1"]

    run(work)


def test_nobody_has_second_thoughts_on_a_place_that_is_still_on_offer() -> None:
    async def work() -> None:
        town = Town()
        await town.begin()
        await town.propose()
        await town.world.launch("owner1", town.object_id, 0)
        town.world.asked.clear()
        town.world.now_s += 2.0
        await town.world.by_kas[1].custody.reconsider()
        assert not town.asked(AskPlan) and len(town.world.of("job.decided")) == 1

    run(work)


def test_what_an_mpvu_finds_moves_the_trust_of_whom_the_control_centre_never_heard() -> None:
    async def work() -> None:
        town = Town()
        await town.begin()
        await town.propose()
        order = await town.hop()
        trained = town.at
        await town.train(order)
        await town.hop()
        await town.verify(GOOD)
        assert [d["name"] for d in town.world.of("trust.changed")] == [order.data_node or trained]

    run(work)
