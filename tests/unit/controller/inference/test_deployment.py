"""Models that move: the copy serves before the old one is passed by, and nobody is led to one that has ended."""

from __future__ import annotations

import asyncio
from typing import Any

from controller.inference.deployment import Deployment
from controller.values.placement import PlacementSettings
from packets.labels import class_label, label_address
from packets.messages import (
    Ack,
    AnnounceObject,
    AnnounceReply,
    Ask,
    Copy,
    MoveModel,
    Refused,
    Register,
    Report,
    Retire,
    Way,
    encode_message,
)
from packets.wire import Header, PacketType, encode
from tests.fake_fabric import World, run, small_plan

PLAN = small_plan()
OLD, NEW, OTHER = 0x110_0001, 0x130_0009, 0x140_0001
LABEL = label_address(class_label("vignettes"))


def model(label: int, **more: Any) -> dict[str, Any]:
    known = {"service_ms": 10.0, "in_flight": 0, "arrivals_per_s": 1.0, "asked_by": {"4": 1.0}}
    return {"task": "vignettes", "label": label, "accuracy": {"broad": 0.9}} | known | more


async def joined(world: World, name: str, *models: dict[str, Any]) -> None:
    host = world.hosts[name]
    attributes = {"models": list(models), "memory_mib": 500.0, "trust": 0.9, "load": 0.0}
    await world.tell(name, Register(name=name, role=host.role, address=host.address, attributes=attributes))


async def standing() -> World:
    world = World(PLAN)
    await world.start()
    await joined(world, "mdfp1", model(OLD))
    await joined(world, "mdfp3")
    return world


def query() -> bytes:
    header = Header(type=PacketType.QUERY, transfer_id=1, object_id=class_label("vignettes"))
    return encode(header, encode_message(Ask(task="vignettes", sample=[1.0])))


def told(world: World, kind: type) -> list[tuple[str, Any]]:
    return [(name, m) for name, m in world.asked if isinstance(m, kind)]


async def arrives(world: World, name: str, label: int) -> None:
    """Once a copy was asked for, it is there."""
    while not told(world, Copy):
        await asyncio.sleep(0.01)
    report = Report(name=name, sequence=9, attributes={"models": [model(label)]})
    header = Header(type=PacketType.TELEMETRY, transfer_id=77)
    world.send(name, label_address(1), encode(header, encode_message(report)))


def test_a_model_moves_by_make_before_break() -> None:
    async def work() -> None:
        world = await standing()
        assert world.send("asker4", LABEL, query()).punted == 1
        await world.settle()
        assert world.send("asker4", LABEL, query()).ends == ["mdfp1"]
        message = MoveModel(name="owner1", task="vignettes", label=OLD, to="3:@mdfp/0")
        refused = await world.tell("owner1", message)
        assert isinstance(refused, Refused) and "not deployed by owner1" in refused.reason
        assert [d["reason"] for d in world.of("packet.refused")] == ["not-owner"]
        deploy = AnnounceObject(name="owner1", kind="deploy", task="vignettes", size_bytes=1000, target="1:@mdfp/0")
        assert isinstance(await world.tell("owner1", deploy), AnnounceReply)
        coming = asyncio.ensure_future(arrives(world, "mdfp3", NEW))
        assert isinstance(await world.tell("owner1", message), Ack)
        await coming
        await world.settle()
        assert told(world, Copy) == [("mdfp1", Copy(label=OLD, to="3:@mdfp/0"))]
        assert told(world, Retire) == [("mdfp1", Retire(label=OLD))]
        journey = world.send("asker4", LABEL, query())
        assert (journey.punted, journey.ends) == (0, ["mdfp3"])
        kinds = [k for _, k, _ in world.events if k.startswith("model.")]
        assert kinds == ["model.moved", "model.retired"]
        assert world.send("asker4", label_address(OLD), query()).ends == [], "its label leads nowhere any more"

    run(work)


def test_what_is_no_deployed_model_is_not_moved() -> None:
    async def work() -> None:
        world = await standing()
        answer = await world.tell("owner1", MoveModel(name="owner1", task="vignettes", label=0x999_9999))
        assert isinstance(answer, Refused) and "no deployed model" in answer.reason

    run(work)


def test_a_deployment_goes_where_its_owner_says() -> None:
    async def work() -> None:
        world = await standing()
        message = AnnounceObject(name="owner1", kind="deploy", task="vignettes", size_bytes=1000, target="3:@mdfp/0")
        assert isinstance(await world.tell("owner1", message), AnnounceReply)
        wrong = AnnounceObject(name="owner1", kind="deploy", task="vignettes", size_bytes=1000, target="3:@node/h31")
        answer = await world.tell("owner1", wrong)
        assert isinstance(answer, Refused) and "names no MDFP" in answer.reason
        cache = AnnounceObject(
            name="owner1", kind="deploy", task="vignettes", size_bytes=5, target="3:@mdfp/0", variant="cached",
            way=Way(kind="cached", asks=[""]),
        )  # fmt: skip
        assert isinstance(await world.tell("owner1", cache), AnnounceReply)
        lines = [line.task for d in world.dccs for line in d.deployment.lines.values()]
        assert lines == ["vignettes"], "MDO moves no cache"

    run(work)


def test_demand_that_stays_moves_a_model_to_where_it_comes_from() -> None:
    async def work() -> None:
        world = await standing()
        deployment = world.by_kas[1].deployment
        message = AnnounceObject(name="owner1", kind="deploy", task="vignettes", size_bytes=1000, target="1:@mdfp/0")
        await world.tell("owner1", message)
        deployment.every_s, deployment.settings = 1.0, PlacementSettings(replica_ms=50.0)
        report = Report(name="mdfp1", sequence=2, attributes={"models": [model(OLD, asked_by={"3": 20.0})]})
        await world.tell("mdfp1", report)
        await deployment.round()
        assert told(world, Copy) == [], "demand that passes by moves nothing"
        coming = asyncio.ensure_future(arrives(world, "mdfp3", NEW))
        world.now_s += 2.0
        await deployment.round()
        await coming
        await world.settle()
        assert [m.to for _, m in told(world, Copy)] == ["3:@mdfp/0"] and len(told(world, Retire)) == 1
        assert "3:@mdfp/0" in world.of("model.moved")[0]["to"] and world.of("model.moved")[0]["reason"]

    run(work)


async def placing(world: World) -> Deployment:
    """Have MDO look by itself at a model that is deployed at mdfp1, of an owner in K-AS 1."""
    message = AnnounceObject(name="owner1", kind="deploy", task="vignettes", size_bytes=1000, target="1:@mdfp/0")
    await world.tell("owner1", message)
    deployment = world.by_kas[1].deployment
    deployment.every_s = 1.0
    return deployment


async def looks(world: World, times: int, **models: dict[str, Any]) -> None:
    """Let MDO look so many times, each time told anew of these models by MDFP."""
    for _ in range(times):
        for name, about in models.items():
            await world.tell(name, Report(name=name, sequence=5, attributes={"models": [about]}))
        world.now_s += 1.0
        await world.by_kas[1].deployment.round()
    await world.settle()


def test_one_look_is_chance_two_are_demand() -> None:
    async def work() -> None:
        world = await standing()
        await placing(world)
        burst, calm = model(OLD, asked_by={"3": 90.0}), model(OLD, asked_by={})
        for about in (burst, calm, calm, burst, calm, calm):
            await looks(world, 1, mdfp1=about)
        assert told(world, Copy) == []
        coming = asyncio.ensure_future(arrives(world, "mdfp3", NEW))
        await looks(world, 1, mdfp1=burst)
        assert told(world, Copy) == []
        await looks(world, 1, mdfp1=burst)
        await coming
        assert [m.to for _, m in told(world, Copy)] == ["3:@mdfp/0"]

    run(work)


def test_a_copy_that_was_not_asked_yet_is_there_nevertheless() -> None:
    async def work() -> None:
        world = await standing()
        await placing(world)
        await joined(world, "mdfp3", model(OTHER, service_ms=0.0, arrivals_per_s=0.0, asked_by={}))
        await looks(world, 3, mdfp1=model(OLD, asked_by={"1": 20.0, "3": 20.0}))
        assert told(world, Copy) == [] and told(world, Retire) == []

    run(work)


def test_what_nobody_asks_for_goes_after_a_while_but_for_the_last() -> None:
    async def work() -> None:
        world = await standing()
        await placing(world)
        await joined(world, "mdfp3", model(OTHER))
        asked = {"mdfp1": model(OLD, asked_by={"1": 20.0}), "mdfp3": model(OTHER, asked_by={"3": 20.0})}
        await looks(world, 4, **asked)
        assert told(world, Retire) == []
        calm = {name: about | {"asked_by": {}, "arrivals_per_s": 0.0} for name, about in asked.items()}
        await looks(world, 2, **calm)
        await looks(world, 1, **asked)  # it was a pause
        assert told(world, Retire) == []
        await looks(world, 9, **calm)
        assert len(told(world, Retire)) == 1 and len(world.of("model.scaled")) == 1

    run(work)


def test_a_model_of_another_job_is_no_replica() -> None:
    async def work() -> None:
        world = await standing()
        await placing(world)
        await joined(world, "mdfp3", model(OTHER, job=7))
        calm = {"asked_by": {}, "arrivals_per_s": 0.0}
        await looks(world, 9, mdfp1=model(OLD, **calm), mdfp3=model(OTHER, job=7, **calm))
        assert told(world, Copy) == [] and told(world, Retire) == []

    run(work)


def test_a_replica_that_is_silent_is_not_sent_another_copy() -> None:
    async def work() -> None:
        world = await standing()
        await placing(world)
        await joined(world, "mdfp3", model(OTHER, asked_by={"3": 20.0}))
        world.by_kas[3].queries.models.out.add("mdfp3")
        world.by_kas[1].queries.models.forget()
        await looks(world, 4, mdfp1=model(OLD, asked_by={"3": 20.0}))
        assert told(world, Copy) == []

    run(work)


def test_while_nothing_is_heard_of_any_replica_all_stay_where_they_are() -> None:
    async def work() -> None:
        world = await standing()
        await placing(world)
        asked = {"mdfp1": model(OLD, asked_by={"3": 20.0})}
        world.by_kas[1].queries.models.out.add("mdfp1")
        await looks(world, 4, **asked)
        assert told(world, Copy) == []

    run(work)


def test_a_copy_is_looked_after_where_its_model_was_deployed() -> None:
    async def work() -> None:
        world = await standing()
        message = AnnounceObject(name="mdfp3", kind="deploy", task="vignettes", size_bytes=1000, target="1:@mdfp/0")
        assert isinstance(await world.tell("mdfp3", message), AnnounceReply)
        assert world.by_kas[3].deployment.lines == {}

    run(work)


def test_a_model_that_falls_silent_is_asked_by_nobody_until_it_is_heard_of_again() -> None:
    async def work() -> None:
        world = await standing()
        await joined(world, "mdfp3", model(OTHER))
        world.send("asker4", LABEL, query())
        await world.settle()
        world.speechless.add("mdfp1")
        world.now_s += 0.1
        await world.tell("mdfp3", Report(name="mdfp3", sequence=1))
        health = world.by_kas[1].health
        health.look()
        await world.settle()
        assert [e["node"] for e in world.of("model.out")] == ["mdfp1"]
        for number in (0, 1):
            for switch in world.fabric.switches.values():
                switch.choose = lambda count, n=number: min(n, count - 1)
            assert world.send("asker4", LABEL, query()).ends == ["mdfp3"]
        assert "mdfp1" in world.by_kas[1].services.krrm, "silent, not given up"
        world.now_s += 0.3
        await world.tell("mdfp1", Report(name="mdfp1", sequence=2))
        health.look()
        await world.settle()
        assert [e["node"] for e in world.of("model.back")] == ["mdfp1"]
        ends = set()
        for number in (0, 1):
            for switch in world.fabric.switches.values():
                switch.choose = lambda count, n=number: min(n, count - 1)
            ends |= set(world.send("asker4", LABEL, query()).ends)
        assert ends == {"mdfp1", "mdfp3"}

    run(work)


def test_where_all_models_are_silent_they_are_asked_all_the_same() -> None:
    async def work() -> None:
        world = await standing()
        world.send("asker4", LABEL, query())
        await world.settle()
        world.speechless.add("mdfp1")
        world.now_s += 5.0
        world.by_kas[1].health.look()
        await world.settle()
        assert [e["node"] for e in world.of("model.out")] == ["mdfp1"]
        assert world.send("asker4", LABEL, query()).ends == ["mdfp1"] and not world.of("query.unserved")

    run(work)


def test_a_model_that_answers_a_knock_is_not_out() -> None:
    async def work() -> None:
        world = await standing()
        world.now_s += 5.0
        world.by_kas[1].health.look()
        await world.settle()
        assert world.of("model.out") == [] and any(name == "mdfp1" for name, _ in world.asked)

    run(work)


def test_what_a_dead_node_served_leads_nowhere() -> None:
    async def work() -> None:
        world = await standing()
        await joined(world, "mdfp3", model(OTHER))
        world.send("asker4", LABEL, query())
        await world.settle()
        world.fabric.unplug("mdfp1", world.hosts["mdfp1"].switch)
        await world.settle()
        assert world.send("asker4", label_address(OLD), query()).ends == []
        for number in (0, 1):
            for switch in world.fabric.switches.values():
                switch.choose = lambda count, n=number: min(n, count - 1)
            assert world.send("asker4", LABEL, query()).ends == ["mdfp3"]

    run(work)
