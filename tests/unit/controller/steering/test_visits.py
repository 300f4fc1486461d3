"""The end of a journey: what led an object of one journey to its place goes, so that a long run stays flat."""

from __future__ import annotations

import asyncio

import pytest

from controller.steering import visits
from controller.steering.visits import LINGER_S
from packets.messages import Ack, AnnounceObject, AnnounceReply, Order, OrderRequest, Refused, Register
from packets.wire import PacketType
from tests.fake_fabric import World, run, small_plan

PLAN = small_plan()
SAMPLES = 20
SAMPLE = AnnounceObject(name="h11", kind="test_sample", task="vignettes", size_bytes=9, copy=1)
PARCEL = AnnounceObject(name="h11", kind="parcel", task="compute", size_bytes=9)
MODEL = AnnounceObject(name="owner1", kind="deploy", task="vignettes", size_bytes=9, accuracy={"broad": 0.9})


async def registered() -> World:
    world = World(PLAN)
    await world.start()
    for host in PLAN.hosts:
        message = Register(name=host.name, role=host.role, address=host.address)
        assert isinstance(await world.tell(host.name, message), Ack)
    return world


def held(world: World) -> dict[str, int]:
    """How much the switches and the control centres hold of objects."""
    services_of_all = [dcc.services for dcc in world.dccs]
    return {
        "rules": sum(len(s.flows) for s in world.fabric.switches.values()),
        "paths": sum(len(services.communication.paths) for services in services_of_all),
        "legs": sum(len(dcc.steering.legs) for dcc in world.dccs),
        "arrivals": sum(len(services.location._arrivals) for services in services_of_all),
    }


async def journey(world: World, message: AnnounceObject) -> Order:
    """One object goes from where it is announced to where it is needed, and is told what to do there."""
    reply = await world.tell(message.name, message)
    assert isinstance(reply, AnnounceReply)
    kind = PacketType.MODEL_SHARD if message.kind == "deploy" else PacketType.DATA_SHARD
    (reached,) = await world.launch(message.name, reply.object_id, 0, kind)
    order = await world.tell(reached, OrderRequest(name=reached, object_id=reply.object_id, visit=0))
    assert isinstance(order, Order)
    return order


@pytest.mark.parametrize("message", [SAMPLE, PARCEL, MODEL], ids=lambda m: m.kind)
def test_a_long_run_of_single_journeys_stays_flat(message: AnnounceObject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(visits, "LINGER_S", dict.fromkeys(LINGER_S, 0.0))

    async def work() -> None:
        world = await registered()
        before = held(world)
        assert before["rules"] > 0 and (before["paths"], before["legs"], before["arrivals"]) == (0, 0, 0)
        for _ in range(SAMPLES):
            await journey(world, message)
            await asyncio.sleep(0.005)
            await world.settle()
        assert held(world) == before
        assert not world.of("warning") and not world.of("error")

    run(work)


def test_the_way_stays_for_a_while_in_which_last_words_are_repeated() -> None:
    async def work() -> None:
        world = await registered()
        before = held(world)
        await journey(world, SAMPLE)
        await world.settle()
        assert held(world)["rules"] > before["rules"] and held(world)["arrivals"] == 1

    run(work)


def test_while_the_home_of_an_object_is_out_of_reach_its_holder_is_to_ask_again() -> None:
    async def work() -> None:
        world = await registered()
        reply = await world.tell("h11", SAMPLE)
        assert isinstance(reply, AnnounceReply)
        (reached,) = await world.launch("h11", reply.object_id, 0, PacketType.DATA_SHARD)
        assert world.hosts[reached].kas != 1
        question = OrderRequest(name=reached, object_id=reply.object_id, visit=0)
        world.mute.add(1)
        away = await world.tell(reached, question)
        world.mute.clear()
        back = await world.tell(reached, question)
        stranger = await world.tell("h11", OrderRequest(name="h11", object_id=reply.object_id, visit=0))
        assert isinstance(away, Refused) and away.again and "K-AS 1 did not answer" in away.reason
        assert isinstance(back, Order) and back.action == "keep_test_sample"
        assert isinstance(stranger, Refused) and not stranger.again

    run(work)
