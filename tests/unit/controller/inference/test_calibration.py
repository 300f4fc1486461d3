"""Deployed models that fall behind: measured on late samples, trained on by their owner, put in their own places."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from controller.values.decisions import Measured
from packets.labels import label_address
from packets.messages import (
    Ack,
    AnnounceObject,
    AnnounceReply,
    Copy,
    Message,
    Order,
    OrderRequest,
    Recalibrate,
    Refused,
    Register,
    Remeasured,
    Report,
    Retire,
    Way,
    encode_message,
)
from packets.wire import Header, PacketType, encode
from tests.fake_fabric import World, run, small_plan

JOB, NEW_JOB = 0x1_0100001, 0x1_0100002
AT_1, AT_3, NEW_3 = 0x110_0001, 0x130_0001, 0x130_0002
VERIFIED = Measured(broad=0.86, per_group={"cardiology": 0.96}, samples=2000)


def model(label: int, job: int = JOB) -> dict[str, Any]:
    return {"task": "vignettes", "label": label, "accuracy": {"broad": 0.86}, "service_ms": 5.0, "job": job}


def told(world: World, kind: type[Message]) -> list[tuple[str, Any]]:
    return [(name, m) for name, m in world.asked if isinstance(m, kind)]


async def reports(world: World, name: str, **attributes: Any) -> None:
    """A terminal reports by itself, whatever else is going on."""
    report = Report(name=name, sequence=1, attributes=attributes)
    world.send(name, label_address(1), encode(Header(type=PacketType.TELEMETRY), encode_message(report)))


async def standing() -> World:
    """A job's model is deployed at two places."""
    world = World(small_plan())
    await world.start()
    for name, attributes in (
        ("mdfp1", {"models": [model(AT_1)], "memory_mib": 500.0, "load": 0.0}),
        ("mdfp3", {"models": [model(AT_3)], "memory_mib": 500.0, "load": 0.0}),
        ("mpvu2", {"test_samples": 100, "late_samples": 0}), ("mpvu4", {}), ("owner1", {}),
    ):  # fmt: skip
        host = world.hosts[name]
        attributes |= {"trust": 0.9}
        await world.tell(name, Register(name=name, role=host.role, address=host.address, attributes=attributes))
    world.by_kas[1].calibration.verified = {JOB: (VERIFIED, 100.0)}.get
    message = AnnounceObject(name="owner1", kind="deploy", task="vignettes", size_bytes=1000, for_object=JOB)
    assert isinstance(await world.tell("owner1", message), AnnounceReply)
    return world


async def look(world: World) -> None:
    world.now_s += 1.0
    world.by_kas[1].deployment.queries.models.forget()
    await world.by_kas[1].calibration.look()
    await world.settle()


async def copy_measured(world: World) -> int:
    """Late samples come in; the copy that is then asked for travels, and gets its order."""
    await world.tell("mpvu2", Report(name="mpvu2", sequence=2, attributes={"late_samples": 480}))
    await look(world)
    await look(world)
    ((name, word),) = told(world, Copy)
    assert (word.to, word.measure) == ("2:@mpvu/0", True)
    message = AnnounceObject(
        name=name, kind="measure", task="vignettes", size_bytes=1000, for_object=JOB, target=word.to
    )  # fmt: skip
    reply = await world.tell(name, message)
    assert isinstance(reply, AnnounceReply)
    assert await world.launch(name, reply.object_id, 0) == ["mpvu2"]
    order = await world.tell("mpvu2", OrderRequest(name="mpvu2", object_id=reply.object_id, visit=0))
    assert isinstance(order, Order) and (order.action, order.for_object) == ("measure", JOB)
    return reply.object_id


def announced(world: World) -> int:
    """Return the label of what was announced last."""
    return list(world.by_kas[1].objects.announced)[-1] & 0xFFF_FFFF


def remeasured(copy: int, broad: float, cardiology: float, by: str = "mpvu2") -> Remeasured:
    return Remeasured(
        name=by, object_id=JOB, copy=copy, samples=480, broad=broad, per_group={"cardiology": cardiology},
        group_samples={"cardiology": 60},
    )  # fmt: skip


def test_nothing_travels_before_late_samples_have_come_in() -> None:
    async def work() -> None:
        world = await standing()
        await look(world)
        await look(world)
        assert told(world, Copy) == []
        await world.tell("mpvu2", Report(name="mpvu2", sequence=2, attributes={"late_samples": 100}))
        await look(world)
        await world.tell("mpvu2", Report(name="mpvu2", sequence=3, attributes={"late_samples": 480}))
        await look(world)
        assert told(world, Copy) == [], "they still come"
        await look(world)
        await look(world)
        assert len(told(world, Copy)) == 1, "one copy for what there is"

    run(work)


def test_a_model_that_holds_is_left_alone() -> None:
    async def work() -> None:
        world = await standing()
        copy = await copy_measured(world)
        assert await world.tell("mpvu2", remeasured(copy, 0.85, 0.95)) == Ack()
        assert world.of("model.remeasured")[0]["broad"] == 0.85
        assert told(world, Recalibrate) == [] and not world.of("model.drifted")

    run(work)


@pytest.mark.parametrize("by", ["mpvu4", "owner1"])
def test_only_who_was_sent_the_copy_may_say_how_it_does(by: str) -> None:
    async def work() -> None:
        world = await standing()
        copy = await copy_measured(world)
        answer = await world.tell(by, remeasured(copy, 0.1, 0.1, by))
        assert isinstance(answer, Refused) and "to be measured" in answer.reason
        assert told(world, Recalibrate) == []

    run(work)


def test_what_is_learned_for_a_cascade_is_told_to_its_owner_and_to_nobody_else() -> None:
    async def work() -> None:
        world = await standing()
        home = world.by_kas[1].home
        dict.__setitem__(home.training.book.jobs, JOB, SimpleNamespace(owner="owner1"))  # type: ignore[arg-type]
        way = Way(kind="switched", model="cheap", asks=["large"])
        message = AnnounceObject(
            name="owner1", kind="measure", task="vignettes", size_bytes=1000, for_object=JOB, way=way
        )  # fmt: skip
        reply = await world.tell("owner1", message)
        assert isinstance(reply, AnnounceReply)
        (mpvu,) = await world.launch("owner1", reply.object_id, 0)
        order = await world.tell(mpvu, OrderRequest(name=mpvu, object_id=reply.object_id, visit=0))
        assert isinstance(order, Order) and (order.action, order.way) == ("measure", way)
        learned = msgspec.structs.replace(remeasured(reply.object_id, 0.8, 0.8, mpvu), way=Way(threshold=0.6))
        other = next(n for n in ("mpvu2", "mpvu4") if n != mpvu)
        assert isinstance(await world.tell(other, msgspec.structs.replace(learned, name=other)), Refused)
        assert await world.tell(mpvu, learned) == Ack()
        ((owner, word),) = told(world, Remeasured)
        assert owner == "owner1" and (word.copy, word.way.threshold) == (reply.object_id, 0.6)
        assert not world.of("model.remeasured") and not told(world, Recalibrate)

    run(work)


def test_a_model_that_has_fallen_is_trained_on_and_takes_all_its_places() -> None:
    async def work() -> None:
        world = await standing()
        copy = await copy_measured(world)
        await world.tell("mpvu2", remeasured(copy, 0.78, 0.45))
        await world.settle()
        ((owner, word),) = told(world, Recalibrate)
        assert owner == "owner1" and (word.object_id, word.broad) == (JOB, 0.78) and "cardiology" in word.reason
        await world.tell("mpvu2", remeasured(copy, 0.78, 0.45))
        await world.settle()
        assert len(told(world, Recalibrate)) == 1, "it is being trained on"

        world.by_kas[1].calibration.verified = {JOB: (VERIFIED, 100.0), NEW_JOB: (VERIFIED, 100.0)}.get
        message = AnnounceObject(
            name="owner1", kind="deploy", task="vignettes", size_bytes=1000, for_object=NEW_JOB, replaces=JOB
        )  # fmt: skip
        world.asked.clear()

        async def terminals() -> None:
            """The new model comes to the first place; then a copy of it to the second."""
            await asyncio.sleep(0.05)
            await reports(world, "mdfp1", models=[model(announced(world), NEW_JOB)])
            while not told(world, Copy):
                await asyncio.sleep(0.01)
            await reports(world, "mdfp3", models=[model(NEW_3, NEW_JOB)])

        acting = asyncio.ensure_future(terminals())
        reply = await world.tell("owner1", message)
        assert isinstance(reply, AnnounceReply)
        await acting
        await world.settle()
        new = announced(world)
        assert told(world, Copy) == [("mdfp1", Copy(label=new, to="3:@mdfp/0"))]
        assert sorted(m.label for _, m in told(world, Retire)) == [AT_1, AT_3]
        done = world.of("model.redeployed")[0]
        assert (done["replaces"], done["replaced"], done["labels"]) == (JOB, [AT_1, AT_3], [new, NEW_3])
        assert list(world.by_kas[1].deployment.lines) == [("vignettes", NEW_JOB)]

    run(work)


def test_what_replaces_goes_to_a_place_of_what_it_replaces() -> None:
    async def work() -> None:
        world = await standing()
        await reports(world, "mdfp1", models=[model(AT_1) | {"in_flight": 9}])
        await world.settle()
        world.by_kas[1].deployment.queries.models.forget()
        message = AnnounceObject(
            name="owner1", kind="deploy", task="vignettes", size_bytes=1, for_object=2, replaces=JOB
        )
        assert await world.by_kas[1].calibration.place_of(message) == "3:@mdfp/0"

    run(work)


def test_an_owner_that_is_silent_is_asked_again_with_the_next_late_samples() -> None:
    async def work() -> None:
        world = await standing()
        copy = await copy_measured(world)
        world.speechless.add("owner1")
        await world.tell("mpvu2", remeasured(copy, 0.78, 0.45))
        await world.settle()
        assert any("stays as it is" in e["text"] for e in world.of("warning"))
        world.speechless.clear()
        await world.tell("mpvu2", remeasured(copy, 0.78, 0.45))
        await world.settle()
        assert len(told(world, Recalibrate)) == 1

    run(work)
