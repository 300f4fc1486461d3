"""DRRT-O's ear and memory: push, pull, news in moderation, leaving, and whom to trust."""

from __future__ import annotations

import asyncio
import json

import pytest

from controller.access.gathering import NEWS_S
from controller.border.messages import Evidence
from controller.values.decisions import Measured
from packets.messages import Ack, Leave, Message, Pull, Refused, Register, Report, decode_message
from packets.wire import PacketType, decode
from tests.fake_fabric import World, run, small_plan

PLAN = small_plan()


async def joined(world: World, name: str = "h11", **attributes: object) -> None:
    host = world.hosts[name]
    message = Register(name=name, role=host.role, address=host.address, attributes=attributes)
    assert isinstance(await report(world, name, message), Ack)


async def report(world: World, name: str, message: Message) -> object:
    return await world.tell(name, message, PacketType.TELEMETRY)


def test_a_report_is_in_the_map_before_its_packet_is_let_go() -> None:
    async def work() -> None:
        world = World(PLAN)
        await world.start()
        await joined(world, samples=10)
        services = world.by_kas[1].services
        said = Report(name="h11", sequence=1, attributes={"queue": 3}, changed_unix_s=services.wall() - 0.002)
        assert isinstance(await report(world, "h11", said), Ack)
        assert services.krrm.node("h11").get("queue") == 3
        assert 2.0 <= services.freshness.lags_ms()["p50_ms"] < 2000
        assert services.freshness.cost("h11").reports == 2 and services.freshness.cost("h11").bytes > 200

    run(work)


def test_many_changes_are_many_entries_and_few_news() -> None:
    async def work() -> None:
        world = World(PLAN)
        await world.start()
        await joined(world, queue=0)
        for number in range(1, 21):
            world.now_s += NEWS_S / 10
            await report(world, "h11", Report(name="h11", sequence=number, attributes={"queue": number}))
        dcc = world.by_kas[1]
        assert dcc.services.krrm.node("h11").get("queue") == 20
        await dcc.gathering.tell()
        told = [d["attributes"]["queue"] for d in world.of("krrm.updated")]
        assert told[-1] == 20 and len(told) <= 5, "the last is told, not every one"
        row = next(r for r in dcc.services.store.rows("freshness") if r["name"] == "h11")
        assert json.loads(row["detail"])["attributes"]["queue"]["cost_bytes"] > 0

    run(work)


def test_a_terminal_has_no_say_in_its_own_trust() -> None:
    async def work() -> None:
        world = World(PLAN)
        await world.start()
        await joined(world, samples=10, trust=1.0)
        assert "trust" not in world.by_kas[1].services.krrm.node("h11").attributes

    run(work)


def test_what_is_stale_is_pulled_and_what_is_young_is_not() -> None:
    async def work() -> None:
        world = World(PLAN)
        await world.start()
        await joined(world, samples=10, queue=0)
        gathering = world.by_kas[1].gathering
        world.now_s += 2
        assert await gathering.freshen(["h11"], ("samples", "queue"), 3.0) == 0
        world.now_s += 2
        asked = asyncio.create_task(gathering.freshen(["h11"], ("samples", "queue", "load"), 3.0))
        await asyncio.sleep(0)
        header, payload = decode(world.fabric.pulls[-1].payload)
        assert header.type is PacketType.TELEMETRY
        assert decode_message(payload) == Pull(attributes=["samples", "queue"]), "what it never said is not asked for"
        await report(world, "h11", Report(name="h11", sequence=1, attributes={"samples": 10, "queue": 0}))
        assert await asked == 1
        assert world.by_kas[1].services.krrm.age_s("h11", "samples", world.now_s) == 0

    run(work)


def test_a_silent_terminal_does_not_hold_a_decision_up() -> None:
    async def work() -> None:
        world = World(PLAN)
        await world.start()
        await joined(world, samples=10)
        world.now_s += 9
        async with asyncio.timeout(2):
            assert await world.by_kas[1].gathering.freshen(["h11"], ("samples",), 3.0) == 1

    run(work)


def test_leaving_in_good_order_takes_a_terminal_off_the_map() -> None:
    async def work() -> None:
        world = World(PLAN)
        await world.start()
        await joined(world, samples=10)
        assert isinstance(await world.tell("h11", Leave(name="h11", reason="maintenance")), Ack)
        dcc = world.by_kas[1]
        assert "h11" not in dcc.services.krrm and not dcc.services.store.rows("nodes")
        assert [d["name"] for d in world.of("terminal.left")] == ["h11"]
        assert isinstance(await report(world, "h11", Report(name="h11", sequence=9)), Refused)
        await joined(world, samples=10)
        assert [d["name"] for d in world.of("terminal.joined")] == ["h11", "h11"]

    run(work)


def measured(cardiology: float) -> Measured:
    return Measured(broad=0.5, per_group={"cardiology": cardiology}, samples=100)


@pytest.mark.parametrize("after, falls", [(0.1, True), (0.95, False)])
def test_mpvu_evidence_from_another_kas_moves_trust(after: float, falls: bool) -> None:
    async def work() -> None:
        world = World(PLAN)
        await world.start()
        await joined(world, samples=10, group_shares={"cardiology": 1.0}, quality=0.9)
        dcc = world.by_kas[1]
        dcc.trusting.trained(77, 4, "h11")
        evidence = Evidence(kas=1, object_id=77, visit=4, before=measured(0.8), after=measured(after))
        await world.by_kas[2].services.must(evidence)
        trust = dcc.services.krrm.node("h11").get("trust")
        assert (trust < 0.5) is falls and (trust < 0.6) is falls
        (told,) = world.of("trust.changed")
        assert (told["name"], told["visit"], told["before"]) == ("h11", 4, 0.6) and "accuracy" in told["why"]
        assert dcc.services.store.rows("trust")[0]["trust"] == pytest.approx(trust, abs=1e-3)

    run(work)


def test_evidence_on_a_visit_that_was_not_here_moves_nobody() -> None:
    async def work() -> None:
        world = World(PLAN)
        await world.start()
        await joined(world, samples=10)
        evidence = Evidence(kas=1, object_id=77, visit=4, before=None, after=measured(0.0))
        await world.by_kas[2].services.must(evidence)
        assert not world.of("trust.changed")

    run(work)


def test_a_false_report_costs_trust_and_who_comes_back_has_it_still() -> None:
    async def work() -> None:
        world = World(PLAN)
        await world.start()
        await joined(world, samples=10)
        assert isinstance(await report(world, "h11", Report(name="h11", sequence=1, attributes={"queue": -1})), Refused)
        dcc = world.by_kas[1]
        lowered = dcc.services.krrm.node("h11").get("trust")
        assert lowered < 0.6
        await world.tell("h11", Leave(name="h11"))
        await joined(world, samples=10)
        assert dcc.services.krrm.node("h11").get("trust") == lowered

    run(work)
