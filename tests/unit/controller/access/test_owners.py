"""A job, its log, its model are its owner's: whoever else asks about them is refused and counted, and told nothing."""

from __future__ import annotations

from typing import Any

import pytest

from controller.border.messages import Forward, No
from controller.training.jobs import Job, request_of
from packets.messages import (
    Ack,
    AnnounceObject,
    Change,
    Inquire,
    JobSpec,
    JobStatus,
    LogPart,
    LogRequest,
    Refused,
    Returned,
)
from packets.wire import PacketType
from tests.fake_fabric import World, run
from topologies.build import Terminal, Wan, build_plan
from topologies.plan import NetworkPlan

JOB = 7 << 28 | 1 << 20 | 5  # home: K-AS 1
SPEC = JobSpec(task="vignettes")


def plan() -> NetworkPlan:
    """Two model owners in one K-AS, a third and an asker in another."""
    kas = {
        1: [Terminal("owner1", "model_owner"), Terminal("owner2", "model_owner"), Terminal("h1", "data")],
        2: [Terminal("owner3", "model_owner"), Terminal("asker", "query_owner"), Terminal("mdfp", "mdfp")],
    }
    return build_plan("owners", kas=kas, wan=[Wan(1, 2)])


async def standing() -> World:
    world = World(plan())
    await world.start()
    job = Job(JOB, SPEC, request_of(SPEC, []), "owner1", 1, [], state="running")
    job.log.append({"visit": 0, "kas": 2, "samples": 10, "loss": 0.5})
    world.by_kas[1].training.book.put(job)
    return world


def asked(name: str) -> list[Any]:
    """Return all that one can ask about another's job and its model."""
    return [
        Inquire(name=name, object_id=JOB),
        LogRequest(name=name, object_id=JOB),
        Returned(name=name, object_id=JOB, size_bytes=1),
        Change(name=name, object_id=JOB, stop=True),
        AnnounceObject(name=name, kind="deploy", task="vignettes", size_bytes=1, for_object=JOB),
        AnnounceObject(name=name, kind="deploy", task="vignettes", size_bytes=1, replaces=JOB),
        AnnounceObject(name=name, kind="measure", task="vignettes", size_bytes=1, for_object=JOB),
    ]


@pytest.mark.parametrize("number", range(len(asked("x"))))
@pytest.mark.parametrize("name", ["owner2", "h1"])
def test_another_of_the_same_kas_is_refused_and_counted(name: str, number: int) -> None:
    async def work() -> None:
        world = await standing()
        answer = await world.tell(name, asked(name)[number])
        assert isinstance(answer, Refused), answer
        assert [(d["reason"], d["node"]) for d in world.of("packet.refused")] == [("not-owner", name)]
        job = world.by_kas[1].training.book.jobs[JOB]
        assert (job.state, job.stopped, job.spec) == ("running", False, SPEC)
        assert "0.5" not in answer.reason and "running" not in answer.reason

    run(work)


@pytest.mark.parametrize("number", range(3))
@pytest.mark.parametrize("name", ["owner3", "asker"])
def test_who_is_of_another_kas_is_no_owner_here(name: str, number: int) -> None:
    async def work() -> None:
        world = await standing()
        answer = await world.tell(name, asked(name)[number])
        assert isinstance(answer, Refused) and "home K-AS" in answer.reason
        forged = Forward(kas=1, from_kas=2, object_id=JOB, message=asked("-")[number])
        assert isinstance(await world.by_kas[1].serving.serve(forged), No)
        assert world.by_kas[1].training.book.jobs[JOB].state == "running"

    run(work)


def test_its_owner_is_told() -> None:
    async def work() -> None:
        world = await standing()
        status = await world.tell("owner1", Inquire(name="owner1", object_id=JOB))
        assert isinstance(status, JobStatus) and status.state == "running"
        part = await world.tell("owner1", LogRequest(name="owner1", object_id=JOB))
        assert isinstance(part, LogPart) and part.entries[0]["loss"] == 0.5
        changed = await world.tell("owner1", Change(name="owner1", object_id=JOB, stop=True))
        assert isinstance(changed, JobStatus) and world.by_kas[1].training.book.jobs[JOB].stopped
        assert not world.of("packet.refused")

    run(work)


def test_in_anothers_name_nobody_asks_at_all() -> None:
    async def work() -> None:
        world = await standing()
        answer = await world.tell("owner2", Inquire(name="owner1", object_id=JOB), PacketType.ANNOUNCE)
        assert isinstance(answer, Refused) and not isinstance(answer, Ack)
        assert [d["reason"] for d in world.of("packet.refused")] == ["holder"]

    run(work)
