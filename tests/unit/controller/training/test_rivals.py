"""What other jobs have booked is in a job's plan: it waits for a taken place, or goes around it."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import pytest

from controller.border.messages import Book, Done, No, Options
from controller.engines.routing import mtrce
from controller.plugins.engines import Engines
from controller.southbound.openflow import PortCount
from controller.training.jobs import Decision, Job
from controller.training.rivals import load_of, load_told
from controller.values.decisions import Assessment, Hyper, JobView, Load, Option, Plan, Request, Step
from packets.messages import Ack, JobSpec, Register, Submit, SubmitReply
from tests.fake_fabric import World, run
from topologies.build import Terminal, Wan, build_plan

REQUEST = Request(
    task="t", groups=["a", "b"], broad_accuracy=0.8, expert_group=None, expert_accuracy=0.0, max_visits=6,
    deadline_s=1000.0, trust_floor=0.0, model_bytes=1000, method="routed", seed=1,
)  # fmt: skip


def place(handle: str) -> Option:
    mix = {"a": 0.5, "b": 0.5}
    return Option(kas=1, handle=handle, mix=mix, samples=500, epoch_s=5.0, reach_s=0.1, place=f"at {handle}")


def job(number: int) -> Job:
    return Job(number, JobSpec(task="t"), REQUEST, "owner", 1, [], state="running")


def under_way(options: list[Option], decided_s: float) -> Job:
    rival = job(1)
    plan = mtrce.plan(REQUEST, JobView(visits=[], measured=None, elapsed_s=0.0, at_kas=1), options)
    step = plan.steps[0]
    rival.decisions[0] = Decision(0, "train", 1, step.option.handle, "", 1, decided_s, step=step, plan=plan)
    return rival


def next_of(options: list[Option], rivals: list[Job], now_s: float):  # type: ignore[no-untyped-def]
    load = load_of(rivals, job(2), now_s)
    return mtrce.plan(REQUEST, JobView(visits=[], measured=None, elapsed_s=0.0, at_kas=1), options, load=load).steps[0]


def test_the_second_job_waits_where_there_is_no_other_place() -> None:
    options = [place("x")]
    step = next_of(options, [under_way(options, 10.0)], 11.0)
    assert step.wait_s > 0 and "for other jobs" in step.reason
    assert next_of(options, [], 11.0).wait_s == 0


def test_the_second_job_goes_around_a_taken_place() -> None:
    options = [place("x"), place("y")]
    rival = under_way(options, 10.0)
    step = next_of(options, [rival], 11.0)
    assert step.option.handle != rival.decisions[0].handle and step.wait_s == 0


def test_what_is_over_concluded_or_overdue_books_nothing() -> None:
    options = [place("x")]
    rival = under_way(options, 10.0)
    assert load_of([rival], rival, 11.0).bookings == []
    assert load_of([rival], job(2), 1e4).bookings == []
    rival.decisions[0].concluded = True
    assert load_of([rival], job(2), 11.0).bookings == []
    rival.decisions[0].concluded, rival.state = False, "failed"
    assert load_of([rival], job(2), 11.0).bookings == []


# --- jobs of several homes, on the fake fabric


class Seen:
    """A planner that goes to the first place offered and remembers what it was told of other jobs."""

    def __init__(self) -> None:
        self.loads: dict[int, Load] = {}

    def plan(self, request: Request, view: JobView, options: Sequence[Option], load: Load | None = None) -> Plan:
        self.loads[request.seed] = load or Load()
        option = min((o for o in options if not o.move_bytes), key=lambda o: (o.kas, o.handle))
        step = Step(
            option=option, hyper=Hyper(epochs=1, batch_size=32, learning_rate=0.1, group_weights={}), expected={},
            cost_s=5.0, cost_bytes=1, verify=True, reason="first",
        )  # fmt: skip
        return Plan(steps=[step], expected_broad=0.9, expected_expert=0.9, total_s=5.0, total_bytes=1)


OWNERS = ("owner1", "owner3")


def two_homes(seen: Seen) -> World:
    kas = {
        k: [Terminal(f"h{k}1", "data"), Terminal(f"c{k}", "compute"), Terminal(f"mpvu{k}", "mpvu")] for k in (1, 2, 3)
    }
    kas[1].append(Terminal("owner1", "model_owner"))
    kas[3].append(Terminal("owner3", "model_owner"))
    return World(
        build_plan("fake", kas=kas, wan=[Wan(1, 2), Wan(2, 3)]), engines=Engines.of(tfam=admit, mtrce=seen.plan)
    )


async def submitted(world: World, **changes: object) -> list[int]:
    await world.start()
    for host in world.plan.hosts:
        about = {"samples": 100, "group_shares": {"cardiology": 1.0}, "compute_samples_per_s": 100.0, "trust": 0.9}
        message = Register(name=host.name, role=host.role, address=host.address, attributes=about)
        assert isinstance(await world.tell(host.name, message), Ack)
    made = []
    for number, owner in enumerate(OWNERS):
        spec = JobSpec(task="vignettes", max_visits=4, seed=number, **changes)  # type: ignore[arg-type]
        reply = await world.tell(owner, Submit(name=owner, spec=spec))
        assert isinstance(reply, SubmitReply) and reply.admitted, reply
        made.append(reply.object_id)
    return made


def admit(request: Request, options: Sequence[Option], mpvus: int) -> Assessment:
    return Assessment(admitted=True, reasons=[], nearest={}, predicted={})


def test_a_job_hears_of_the_places_that_jobs_of_other_homes_take_and_of_their_end() -> None:
    async def work() -> None:
        seen = Seen()
        world = two_homes(seen)
        first, second = await submitted(world)
        assert await world.launch("owner1", first, 0) == ["h11"]
        assert seen.loads[0] == Load()
        world.now_s += 2.0
        assert await world.launch("owner3", second, 0) == ["h11"]
        (booking,) = seen.loads[1].bookings
        offered = [o.place for o in await world.by_kas[1].places.options(second, REQUEST, 1)]
        assert (booking.start_s, booking.end_s) == (0.0, 3.0) and booking.place in offered
        assert "h11" not in booking.place  # what leaves a K-AS names no node
        (told,) = [d for d in world.of("job.decided") if d["object_id"] == second]
        assert told["booked"] == [{"kas": 1, "start_s": 0.0, "end_s": 3.0}]

    run(work)


def test_jobs_of_several_homes_are_verified_at_different_mpvus() -> None:
    async def work() -> None:
        world = two_homes(Seen())
        first, second = await submitted(world)
        ranks = [[m.kas for m in world.by_kas[k].training.book.jobs[j].mpvus] for k, j in ((1, first), (3, second))]
        assert ranks == [[1, 2, 3], [3, 2, 1]]

    run(work)


def test_a_visit_that_is_overdue_or_over_books_nothing_at_other_homes() -> None:
    async def work() -> None:
        seen = Seen()
        world = two_homes(seen)
        first, second = await submitted(world)
        await world.launch("owner1", first, 0)
        world.now_s += 6.0
        await world.launch("owner3", second, 0)
        assert seen.loads[1].bookings == []

    run(work)


def test_a_job_that_does_not_heed_others_is_told_of_none() -> None:
    async def work() -> None:
        seen = Seen()
        world = two_homes(seen)
        first, second = await submitted(world, heed_load=False)
        await world.launch("owner1", first, 0)
        await world.launch("owner3", second, 0)
        assert seen.loads[1] == Load()

    run(work)


def test_what_other_jobs_put_on_a_border_is_not_left_for_a_job() -> None:
    async def work() -> None:
        seen = Seen()
        world = two_homes(seen)
        first, second = await submitted(world)
        dcc = world.by_kas[2]
        ((name, port), border) = next(b for b in dcc.domain.borders.items() if b[1].neighbour_kas == 1)
        dpid, counted = dcc.domain.switches[name].dpid, [0]

        def count(share: float) -> None:
            counted.append(counted[-1] + int(border.rate_mbps * 1e6 / 8 * share))
            world.now_s += 1.0
            dcc.fabric.port_counts(dpid, [PortCount(port, 0, counted[-1], 0, 0)])

        def left(object_id: int) -> dict[int, float]:
            return dcc.rivals.share_left(2, object_id)

        count(0.0)
        count(0.9)
        assert left(first) == {}, "whatever it is, it is no other job"
        await world.launch("owner3", second, 0)  # from K-AS 3 over K-AS 2 to K-AS 1
        assert left(first) == {1: pytest.approx(0.5)} and left(second) == {}  # fair: half of it beside one other
        count(0.3)
        assert left(first) == {1: pytest.approx(0.7, abs=0.01)}
        world.now_s += 5.0
        assert left(first) == {}, "silence is no load"
        count(0.3)
        count(0.3)
        told = load_told(dcc.domain, {2: Options(options=[], share_left=left(first)), 3: Options(options=[])}, 1)
        assert told.way_share == {2: pytest.approx(0.7, abs=0.01), 3: pytest.approx(0.7, abs=0.01)}

    run(work)


async def place_at(world: World, kas: int, object_id: int) -> str:
    options = await world.by_kas[kas].places.options(object_id, REQUEST, kas)
    return next(o.handle for o in options if not o.move_bytes)


def test_of_two_jobs_that_decide_in_the_same_moment_one_looks_again() -> None:
    async def work() -> None:
        world = two_homes(Seen())
        first, second = await submitted(world)
        rivals, ask = world.by_kas[1].rivals, world.by_kas[3].serving.ask
        mine = Book(kas=1, object_id=first, visit=0, handle=await place_at(world, 1, first), wait_s=0.0, expected_s=5.0)
        theirs = msgspec.structs.replace(mine, object_id=second, handle=await place_at(world, 1, second))
        assert isinstance(await ask(mine), Done)
        assert isinstance(await ask(mine), Done), "its own booking is no obstacle"
        refused = await ask(theirs)
        assert isinstance(refused, No) and "taken for 5.0 s" in refused.reason
        assert isinstance(await ask(msgspec.structs.replace(theirs, wait_s=5.0)), Done), "it will wait"
        assert {b.end_s for b in rivals.bookings(1, first)} == {5.0}
        world.now_s += 6.0
        assert rivals.bookings(1, 0) == []

    run(work)


def test_a_booking_that_nobody_follows_lapses_and_one_that_is_followed_lasts_as_long_as_the_visit() -> None:
    async def work() -> None:
        world = two_homes(Seen())
        first, _ = await submitted(world)
        book = Book(
            kas=1, object_id=first, visit=0, handle=await place_at(world, 1, first), wait_s=0.0, expected_s=60.0
        )
        rivals = world.by_kas[1].rivals
        assert isinstance(await world.by_kas[1].serving.ask(book), Done)
        world.now_s += 5.5
        assert rivals.bookings(1, 0) == []
        await world.launch("owner1", first, 0)
        world.now_s += 4.0
        (booking,) = rivals.bookings(1, 0)
        assert booking.end_s == 1.0, "of the visit itself, once: five seconds"

    run(work)


def test_a_job_whose_place_is_taken_meanwhile_plans_again_with_that_in_view() -> None:
    async def work() -> None:
        seen = Seen()
        loads: list[Load] = []
        plan = seen.plan

        async def meanwhile(
            request: Request, view: JobView, options: Sequence[Option], load: Load | None = None
        ) -> Plan:
            """Another job takes the place while this one is being planned."""
            loads.append(load or Load())
            if len(loads) == 1:
                book = Book(
                    kas=1, object_id=first, visit=0, handle=await place_at(world, 1, first), wait_s=0, expected_s=9.0
                )
                await world.by_kas[1].rivals.book(book)
            return plan(request, view, options, load)

        seen.plan = meanwhile  # type: ignore[method-assign, assignment]
        world = two_homes(seen)
        first, second = await submitted(world)
        await world.launch("owner3", second, 0)
        assert [len(load.bookings) for load in loads] == [0, 1, 1], "it looks three times, then goes and waits"

    run(work)
