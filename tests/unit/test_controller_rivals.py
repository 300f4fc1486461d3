"""What other jobs have booked is in a job's plan: it waits for a taken place, or goes around it."""

from __future__ import annotations

from controller.engines import mtrce
from controller.engines.types import JobView, Option, Request
from controller.jobs import Decision, Job
from controller.rivals import load_of
from packets.messages import JobSpec

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
