"""The life of a job on the fake fabric: admitted, routed, verified, confirmed, home; and all that may go wrong."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import msgspec
import pytest

from controller.engines.training import hpo
from controller.plugins.engines import Engines
from controller.training.submission import OVERDUE_S
from controller.values.decisions import Assessment, Hyper, JobView, Load, Measured, Option, Plan, Request, Step
from controller.values.errors import EngineError
from packets.labels import home_kas
from packets.messages import (
    Ack,
    AnnounceObject,
    AnnounceReply,
    Fixed,
    Inquire,
    JobSpec,
    JobStatus,
    LogPart,
    LogRequest,
    Order,
    OrderRequest,
    Refused,
    Register,
    Returned,
    Submit,
    SubmitReply,
    Verdict,
    VerdictReply,
    VisitDone,
)
from packets.wire import PacketType
from tests.fake_fabric import World, run, small_plan

PLAN = small_plan()
GOOD = {"broad": 0.9, "per_group": {"cardiology": 0.97}}
POOR = {"broad": 0.6, "per_group": {"cardiology": 0.4}}
SPEC = JobSpec(task="vignettes", expert_group="cardiology", expert_accuracy=0.95, max_visits=4, deadline_s=100)


def one_step_plan(request: Request, view: JobView, options: Sequence[Option], load: Load | None = None) -> Plan:
    """Visit data nodes in the order of K-AS, each once; what the real MTRCE decides is its own tests' matter."""
    done = {v.handle for v in view.visits}
    left = sorted((o for o in options if o.handle not in done and not o.move_bytes), key=lambda o: (o.kas, o.handle))
    if not left:
        raise EngineError("no rendezvous is left")
    hyper = Hyper(epochs=2, batch_size=32, learning_rate=1e-3, group_weights={"cardiology": 2.0})
    steps = [
        Step(option=left[0], hyper=hyper, expected={}, cost_s=1, cost_bytes=1, verify=True, reason="next in order")
    ]
    return Plan(steps=steps, expected_broad=0.9, expected_expert=0.9, total_s=1, total_bytes=1)


def admit(request: Request, options: Sequence[Option], mpvus: int) -> Assessment:
    reasons = [] if options and mpvus == 2 and request.broad_accuracy < 0.99 else ["out of reach"]
    return Assessment(admitted=not reasons, reasons=reasons, nearest={"broad_accuracy": 0.9}, predicted={"broad": 0.9})


def judge(request: Request, before: Measured | None, after: Measured) -> tuple[bool, str]:
    worse = before is not None and after.broad < before.broad
    return not worse, "worse" if worse else "better"


def engines(plan: Callable[..., Plan] = one_step_plan) -> Engines:
    return Engines.of(tfam=admit, mtrce=plan, gate=judge)


class Life:
    """Plays every terminal's part in a job, and records its journey."""

    def __init__(self, world: World) -> None:
        self.world, self.object_id, self.at, self.visit = world, 0, "owner1", 0
        self.journey: list[tuple[str, str]] = []
        self.verdicts: list[VerdictReply] = []

    async def begin(self, spec: JobSpec = SPEC) -> SubmitReply:
        await self.world.start()
        for host in PLAN.hosts:
            attributes = {"samples": 100, "group_shares": {"cardiology": 0.5, "neurology": 0.5}, "quality": 1.0}
            attributes |= {"compute_samples_per_s": 100.0, "trust": 0.9}
            message = Register(name=host.name, role=host.role, address=host.address, attributes=attributes)
            assert isinstance(await self.world.tell(host.name, message), Ack)
        reply = await self.world.tell("owner1", Submit(name="owner1", spec=spec))
        assert isinstance(reply, SubmitReply)
        self.object_id = reply.object_id
        return reply

    async def hop(self) -> Order:
        """Launch, arrive, get the order."""
        reached = await self.world.launch(self.at, self.object_id, self.visit)
        assert len(reached) == 1, f"visit {self.visit} from {self.at} reached {reached}"
        self.at = reached[0]
        order = await self.world.tell(self.at, OrderRequest(name=self.at, object_id=self.object_id, visit=self.visit))
        assert isinstance(order, Order), order
        self.journey.append((order.action, self.at))
        return order

    async def train(self, order: Order, seconds: float = 1.0, **changes: object) -> None:
        self.world.now_s += seconds
        done = {"samples": 100, "epochs": order.epochs, "loss": 0.5, "train_s": seconds, **changes}
        message = VisitDone(
            name=self.at, object_id=self.object_id, visit=self.visit, data_node=order.data_node or self.at, **done
        )  # type: ignore[arg-type]
        assert isinstance(await self.world.tell(self.at, message), Ack)
        self.visit += 1

    async def verify(self, found: dict[str, object]) -> VerdictReply:
        message = Verdict(name=self.at, object_id=self.object_id, visit=self.visit, samples=100, eval_s=0.1, **found)  # type: ignore[arg-type]
        reply = await self.world.tell(self.at, message)
        assert isinstance(reply, VerdictReply)
        self.verdicts.append(reply)
        self.visit += 1
        return reply

    async def play(self, *found: dict[str, object]) -> None:
        """Go on until home, an MPVU measuring what is given, in turn (the last for ever)."""
        measures = list(found)
        for _ in range(30):
            order = await self.hop()
            if order.action == "home":
                returned = Returned(name=self.at, object_id=self.object_id, size_bytes=1)
                assert isinstance(await self.world.tell(self.at, returned), Ack)
                return
            if order.action == "train":
                await self.train(order)
            else:
                await self.verify(measures.pop(0) if len(measures) > 1 else measures[0])
        raise AssertionError(f"never home: {self.journey}")

    @property
    def finished(self) -> dict[str, object]:
        (data,) = self.world.of("job.finished")
        return data


def test_a_job_is_trained_verified_confirmed_and_brought_home() -> None:
    async def work() -> None:
        life = Life(World(PLAN, engines=engines()))
        reply = await life.begin()
        assert reply.admitted and home_kas(reply.object_id) == 1
        await life.play(POOR, GOOD)
        actions = [a for a, _ in life.journey]
        assert actions == ["train", "verify", "train", "verify", "verify", "home"]
        places = [p for _, p in life.journey]
        assert places[1] == places[3] == "mpvu2" and places[4] == "mpvu4", "confirmed where no verdict was given"
        assert places[-1] == "owner1"
        assert life.finished["state"] == "finished" and life.finished["visits"] == 2
        assert not life.world.of("error") and not life.world.of("warning")
        rows = life.world.by_kas[1].services.store.rows("jobs")
        assert [(r["state"], r["broad"]) for r in rows] == [("finished", 0.9)]
        assert len(life.world.by_kas[1].services.store.rows("decisions")) == 6

    run(work)


def test_a_model_that_is_trained_already_is_measured_before_anything_else() -> None:
    async def work() -> None:
        life = Life(World(PLAN, engines=engines()))
        await life.begin(msgspec.structs.replace(SPEC, trained=True))
        await life.play(POOR, GOOD)
        assert [a for a, _ in life.journey] == ["verify", "train", "verify", "verify", "home"]
        assert life.verdicts[0].accepted and life.finished["visits"] == 1
        assert not life.world.of("error") and not life.world.of("warning")

    run(work)


def test_a_rejected_job_gets_every_reason_and_no_identity() -> None:
    async def work() -> None:
        life = Life(World(PLAN, engines=engines()))
        reply = await life.begin(JobSpec(task="vignettes", broad_accuracy=0.99))
        assert (reply.admitted, reply.object_id, reply.reasons) == (False, 0, ["out of reach"])
        assert reply.nearest == {"broad_accuracy": 0.9}
        assert life.world.by_kas[1].services.store.rows("jobs")[0]["state"] == "rejected"

    run(work)


def test_orders_carry_hyper_parameters_and_whose_data_without_telling_other_k_as() -> None:
    async def work() -> None:
        life = Life(World(PLAN, engines=engines()))
        await life.begin()
        order = await life.hop()
        assert (order.epochs, order.batch_size, order.learning_rate) == (2, 32, 1e-3)
        assert order.group_weights == {"cardiology": 2.0} and order.task == "vignettes"
        assert order.data_node == life.at and order.data_address == life.world.hosts[life.at].address
        decided = life.world.of("job.decided")[0]
        words = set(re.findall(r"\w+", str(decided)))
        assert words.isdisjoint(h.name for h in PLAN.hosts), "a decision names K-AS and handles, no node"

    run(work)


def test_a_rejected_visit_rolls_back_and_is_not_counted_for_accuracy() -> None:
    async def work() -> None:
        life = Life(World(PLAN, engines=engines()))
        await life.begin()
        middling = {"broad": 0.7, "per_group": {"cardiology": 0.7}}
        await life.play(middling, POOR, GOOD)
        assert [v.accepted for v in life.verdicts] == [True, False, True, True]
        job = life.world.by_kas[1].training.book.jobs[life.object_id]
        assert [v.accepted for v in job.visits] == [True, False, True]
        assert life.finished["broad"] == 0.9

    run(work)


def test_what_the_other_mpvu_does_not_confirm_goes_on_training() -> None:
    async def work() -> None:
        life = Life(World(PLAN, engines=engines()))
        await life.begin()
        await life.play(GOOD, POOR, GOOD)
        assert [a for a, _ in life.journey] == ["train", "verify", "verify", "train", "verify", "verify", "home"]
        assert life.verdicts[1].accepted, "a confirmation never rolls back"
        assert "not confirmed" in life.verdicts[1].reason

    run(work)


def test_the_budget_of_visits_ends_a_job_with_an_independent_measurement() -> None:
    async def work() -> None:
        life = Life(World(PLAN, engines=engines()))
        await life.begin()
        await life.play(POOR)
        assert [a for a, _ in life.journey].count("train") == SPEC.max_visits
        assert [p for _, p in life.journey][-2:] == ["mpvu4", "owner1"]
        assert life.finished["state"] == "failed" and "all 4 visits" in str(life.finished["reason"])

    run(work)


def test_the_deadline_brings_the_best_home_in_time() -> None:
    async def work() -> None:
        life = Life(World(PLAN, engines=engines()))
        await life.begin(JobSpec(task="vignettes", max_visits=50, deadline_s=10))
        for _ in range(30):
            order = await life.hop()
            if order.action == "home":
                break
            await (life.train(order, seconds=3.0) if order.action == "train" else life.verify(POOR))
        trained = [a for a, _ in life.journey].count("train")
        assert trained == 3, "a fourth visit of 3 s would end after the deadline of 10 s"
        assert life.world.now_s - 1000 <= 10

    run(work)


def test_no_rendezvous_left_brings_the_model_home() -> None:
    async def work() -> None:
        life = Life(World(PLAN, engines=engines()))
        await life.begin(JobSpec(task="vignettes", max_visits=50))
        await life.play(POOR)
        assert life.finished["state"] == "failed" and life.finished["reason"] == "no rendezvous is left"
        assert [a for a, _ in life.journey].count("train") == 8, "every hospital once"

    run(work)


def test_a_visit_that_came_to_nothing_is_not_repeated_there_nor_verified() -> None:
    async def work() -> None:
        life = Life(World(PLAN, engines=engines()))
        await life.begin()
        order = await life.hop()
        await life.train(order, samples=0, problem="no data")
        first = life.at
        await life.play(GOOD)
        assert life.journey[1][0] == "train" and first not in [p for _, p in life.journey[1:]]
        assert life.finished["visits"] == 1

    run(work)


def test_an_mpvu_without_samples_is_left_out_and_the_other_verifies() -> None:
    async def work() -> None:
        life = Life(World(PLAN, engines=engines()))
        await life.begin()
        await life.train(await life.hop())
        order = await life.hop()
        assert (order.action, life.at) == ("verify", "mpvu2")
        await life.train(order, samples=0, problem="no test samples here")
        await life.play(GOOD)
        assert life.journey[2] == ("verify", "mpvu4") and life.finished["state"] == "finished"

    run(work)


def test_a_lost_object_ends_its_job() -> None:
    async def work() -> None:
        life = Life(World(PLAN, engines=engines()))
        await life.begin()
        await life.train(await life.hop(), samples=0, problem="no model at all", lost=True)
        assert life.finished["state"] == "failed" and "lost" in str(life.finished["reason"])
        assert await life.world.launch(life.at, life.object_id, life.visit) == []

    run(work)


def test_a_rendezvous_that_dies_under_way_is_replaced_by_another() -> None:
    async def work() -> None:
        life = Life(World(PLAN, engines=engines()))
        await life.begin()
        (first,) = await life.world.launch("owner1", life.object_id, 0)
        life.world.fabric.unplug(first, life.world.hosts[first].switch)
        await life.world.settle()
        (second,) = await life.world.launch("owner1", life.object_id, 0)
        assert second != first
        life.at = "owner1"
        await life.play(GOOD)
        assert life.finished["state"] == "finished"

    run(work)


def test_a_repeated_verdict_or_report_changes_nothing() -> None:
    async def work() -> None:
        life = Life(World(PLAN, engines=engines()))
        await life.begin()
        order = await life.hop()
        await life.train(order)
        life.visit -= 1
        await life.train(order)
        await life.hop()
        await life.verify(POOR)
        life.visit -= 1
        await life.verify(POOR)
        job = life.world.by_kas[1].training.book.jobs[life.object_id]
        assert len(job.visits) == 1 and len(job.log) == 2

    run(work)


def test_only_the_rendezvous_of_the_visit_gets_orders_and_gives_verdicts() -> None:
    async def work() -> None:
        life = Life(World(PLAN, engines=engines()))
        await life.begin()
        await life.train(await life.hop())
        await life.hop()
        forged = Verdict(name="h21", object_id=life.object_id, visit=1, samples=9, broad=1.0, per_group={}, eval_s=0)
        assert isinstance(await life.world.tell("h21", forged), Refused)
        late = OrderRequest(name="mpvu2", object_id=life.object_id, visit=0)
        assert isinstance(await life.world.tell("mpvu2", late), Refused)

    run(work)


def test_the_owner_may_ask_and_gets_the_whole_log() -> None:
    async def work() -> None:
        life = Life(World(PLAN, engines=engines()))
        await life.begin(JobSpec(task="vignettes", max_visits=8, deadline_s=1000))
        await life.play(POOR)
        status = await life.world.tell("owner1", Inquire(name="owner1", object_id=life.object_id))
        assert isinstance(status, JobStatus) and (status.state, status.visits, status.broad) == ("failed", 8, 0.6)
        entries: list[dict[str, object]] = []
        while True:
            ask = LogRequest(name="owner1", object_id=life.object_id, first=len(entries))
            part = await life.world.tell("owner1", ask)
            assert isinstance(part, LogPart)
            if not part.entries:
                break
            entries += part.entries
        assert len(entries) == 17 and all(len(p.payload) < 1472 for p in life.world.fabric.inbox["owner1"])
        assert [e["visit"] for e in entries] == sorted(e["visit"] for e in entries)  # type: ignore[type-var]

    run(work)


def test_a_k_as_that_does_not_answer_is_left_out_of_the_options() -> None:
    async def work() -> None:
        world = World(PLAN, engines=engines())
        life = Life(world)
        await life.begin()
        world.mute.add(2)
        job = world.by_kas[1].training.book.jobs[life.object_id]
        offered = await world.by_kas[1].training.stops.options(job)
        assert {o.kas for o in offered} == {1, 3, 4}
        assert "K-AS 2" in world.of("warning")[0]["text"]

    run(work)


# --- announced objects


def test_test_samples_go_to_the_mpvu_of_their_copy() -> None:
    async def work() -> None:
        world = World(PLAN, engines=engines())
        await Life(world).begin()
        for name, copy, wanted in (("h11", 0, "mpvu2"), ("h11", 1, "mpvu4"), ("h43", 0, "mpvu2"), ("h21", 1, "mpvu4")):
            message = AnnounceObject(name=name, kind="test_sample", task="vignettes", size_bytes=9, copy=copy)
            reply = await world.tell(name, message)
            assert isinstance(reply, AnnounceReply)
            assert await world.launch(name, reply.object_id, 0, PacketType.DATA_SHARD) == [wanted]
            order = await world.tell(wanted, OrderRequest(name=wanted, object_id=reply.object_id, visit=0))
            assert isinstance(order, Order) and order.action == "keep_test_sample" and order.data_node == ""

    run(work)


def test_data_moves_only_to_the_facility_of_a_visit_that_needs_it() -> None:
    def to_facility(request: Request, view: JobView, options: Sequence[Option], load: Load | None = None) -> Plan:
        return one_step_plan(request, view, [_still(o) for o in options if o.move_bytes])

    def _still(option: Option) -> Option:
        import msgspec

        return msgspec.structs.replace(option, move_bytes=0)

    async def work() -> None:
        world = World(PLAN, engines=engines(to_facility))
        life = Life(world)
        await life.begin()
        announce = AnnounceObject(name="h13", kind="data", task="vignettes", size_bytes=9, for_object=life.object_id)
        assert isinstance(await world.tell("h13", announce), Refused), "no visit needs it yet"
        order = await life.hop()
        assert (life.at, order.data_node) == ("c1", "h13")
        assert order.data_address == world.hosts["h13"].address
        reply = await world.tell("h13", announce)
        assert isinstance(reply, AnnounceReply)
        other = AnnounceObject(name="h11", kind="data", task="vignettes", size_bytes=9, for_object=life.object_id)
        assert isinstance(await world.tell("h11", other), Refused), "h11's data is not wanted"
        assert await world.launch("h13", reply.object_id, 0, PacketType.DATA_SHARD) == ["c1"]
        use = await world.tell("c1", OrderRequest(name="c1", object_id=reply.object_id, visit=0))
        assert isinstance(use, Order) and (use.action, use.for_object) == ("use_data", life.object_id)
        await life.train(order)
        assert isinstance(await world.tell("h13", announce), AnnounceReply | Refused)
        await life.hop()
        assert isinstance(await world.tell("h13", announce), Refused), "the visit is over"

    run(work)


@pytest.mark.parametrize("busy, wanted", [("mdfp1", "mdfp3"), ("mdfp3", "mdfp1")])
def test_a_model_is_deployed_where_mdo_says_also_in_another_k_as(busy: str, wanted: str) -> None:
    async def work() -> None:
        world = World(PLAN, engines=engines())
        await Life(world).begin()
        host = world.hosts[busy]
        full = Register(name=busy, role=host.role, address=host.address, attributes={"load": 0.99})
        await world.tell(busy, full)
        accuracy = {"broad": 0.9}
        message = AnnounceObject(name="owner1", kind="deploy", task="vignettes", size_bytes=9, accuracy=accuracy)
        reply = await world.tell("owner1", message)
        assert isinstance(reply, AnnounceReply)
        assert await world.launch("owner1", reply.object_id, 0) == [wanted]
        order = await world.tell(wanted, OrderRequest(name=wanted, object_id=reply.object_id, visit=0))
        assert isinstance(order, Order) and (order.action, order.accuracy) == ("deploy", accuracy)
        assert await world.launch(wanted, reply.object_id, 1) == [], "it makes one journey"

    run(work)


def test_an_mpvu_is_told_to_merge_once_there_is_an_accepted_state() -> None:
    async def work() -> None:
        life = Life(World(PLAN, engines=engines()))
        await life.begin()
        orders: list[Order] = []
        for found in (POOR, POOR, GOOD, GOOD):
            while (order := await life.hop()).action == "train":
                await life.train(order)
            orders.append(order)
            await life.verify(found)
        first, second, third, confirm = orders
        assert first.merge == [] and confirm.merge == [], "nothing to merge with; a confirmation changes nothing"
        assert second.merge == third.merge == hpo.MERGE
        assert (second.broad_accuracy, second.expert_accuracy) == (SPEC.broad_accuracy, SPEC.expert_accuracy)

    run(work)


def test_without_merge_an_mpvu_keeps_all_or_nothing() -> None:
    async def work() -> None:
        life = Life(World(PLAN, engines=engines()))
        await life.begin(msgspec.structs.replace(SPEC, merge=False))
        for _ in range(2):
            await life.train(await life.hop())
            order = await life.hop()
            await life.verify(POOR)
        assert order.action == "verify" and order.merge == []

    run(work)


def test_a_job_that_trains_on_uses_its_budget_and_says_when_its_targets_were_met() -> None:
    async def work() -> None:
        world = World(PLAN, engines=engines())
        life = Life(world)
        await life.begin(msgspec.structs.replace(SPEC, train_on=True))
        await life.play(POOR, GOOD)
        actions = [action for action, _ in life.journey]
        assert actions.count("train") == SPEC.max_visits
        assert actions.count("verify") == SPEC.max_visits + 2, "each visit, when it is reached, and at the end"
        (reached,) = world.of("job.reached")
        assert (reached["visits"], reached["broad"]) == (2, 0.9)
        assert life.finished["state"] == "finished" and life.finished["visits"] == SPEC.max_visits

    run(work)


def test_trust_rests_on_the_model_as_it_came_not_on_what_was_kept_of_it() -> None:
    async def work() -> None:
        world = World(PLAN, engines=engines())
        life = Life(world)
        await life.begin()
        await life.train(await life.hop())
        await life.hop()
        await life.verify({"broad": 0.8, "per_group": {"cardiology": 0.8}})
        await life.train(await life.hop())
        await life.hop()
        kept = {"broad": 0.8, "per_group": {"cardiology": 0.8}, "share": 0.25, "whole": {"cardiology": 0.5}}
        await life.verify(kept)
        before, after = world.of("trust.changed")[-2:]
        assert after["trust"] < before["trust"] and "cost 0.30 accuracy" in after["why"]

    run(work)


def test_a_job_without_a_target_uses_its_budget() -> None:
    async def work() -> None:
        life = Life(World(PLAN, engines=engines()))
        await life.begin(JobSpec(task="vignettes", broad_accuracy=0.0, max_visits=3, deadline_s=100))
        await life.play(GOOD)
        assert [action for action, _ in life.journey].count("train") == 3

    run(work)


def test_an_mpvu_is_visited_as_often_as_the_owner_fixed() -> None:
    async def work() -> None:
        life = Life(World(PLAN, engines=engines()))
        await life.begin(msgspec.structs.replace(SPEC, hyper=Fixed(verify_every=2)))
        await life.play(POOR)
        actions = [action for action, _ in life.journey]
        assert actions[:6] == ["train", "train", "verify"] * 2, actions

    run(work)


@pytest.mark.parametrize("launched", [False, True])
def test_a_job_nobody_hears_of_is_failed_some_time_after_its_deadline(launched: bool) -> None:
    async def work() -> None:
        world = World(PLAN, engines=engines())
        life, overdue = Life(world), world.by_kas[1].table()["overdue jobs"][0]
        await life.begin()
        if launched:
            await life.hop()
        world.now_s += SPEC.deadline_s + OVERDUE_S - 1.0
        await overdue()
        assert not world.of("job.finished")
        world.now_s += 2.0
        await overdue()
        await overdue()
        (ended,) = world.of("job.finished")
        assert ended["object_id"] == life.object_id and ended["state"] == "failed"
        assert ("has not come home" if launched else "was never launched") in ended["reason"]

    run(work)
