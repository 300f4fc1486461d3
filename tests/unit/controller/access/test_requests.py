"""The terminals' line to their DCC: who may say what, answered once, whatever bytes come."""

from __future__ import annotations

import random

import pytest

from packets.labels import DCC_ADDRESS
from packets.messages import (
    Ack,
    AnnounceObject,
    Inquire,
    JobStatus,
    OrderRequest,
    Refused,
    Register,
    Report,
    encode_message,
)
from packets.wire import Header, PacketType, decode, encode
from tests.fake_fabric import World, run, small_plan, udp

PLAN = small_plan()


def register(world: World, name: str, **attributes: object) -> Register:
    host = world.hosts[name]
    return Register(name=name, role=host.role, address=host.address, attributes=attributes)


def test_a_terminal_registers_and_reports() -> None:
    async def work() -> None:
        world = World(PLAN)
        await world.start()
        assert isinstance(await world.tell("h11", register(world, "h11", samples=1500)), Ack)
        world.now_s += 3
        assert isinstance(await world.tell("h11", Report(name="h11", sequence=1, attributes={"queue": 2})), Ack)
        krrm = world.by_kas[1].services.krrm
        assert krrm.age_s("h11", "samples", world.now_s) == 3
        assert krrm.age_s("h11", "queue", world.now_s) == 0
        rows = world.by_kas[1].services.store.rows("nodes")
        assert [(r["name"], r["role"], r["kas"]) for r in rows] == [("h11", "data", 1)]
        assert [d["attributes"] for d in world.of("krrm.updated")] == [{"samples": 1500}, {"queue": 2}]

    run(work)


def test_a_report_without_registration_is_refused_so_that_the_agent_registers_again() -> None:
    async def work() -> None:
        world = World(PLAN)
        await world.start()
        answer = await world.tell("h11", Report(name="h11", sequence=1))
        assert isinstance(answer, Refused) and "register" in answer.reason

    run(work)


@pytest.mark.parametrize(
    "message, why",
    [
        (Register(name="h12", role="data", address="10.1.1.1"), "may not speak for"),
        (Register(name="h11", role="mpvu", address="10.1.1.1"), "declared as data"),
        (Register(name="h11", role="data", address="10.1.1.1", attributes={"queue": -1}), "queue"),
        (OrderRequest(name="h11", object_id=1 << 20, visit=0), "was steered to h11"),
        (Inquire(name="h11", object_id=1 << 20), "no job"),
        (AnnounceObject(name="h11", kind="gold", task="t", size_bytes=1), "kind"),
        (AnnounceObject(name="h11", kind="data", task="t", size_bytes=1, for_object=5), "no visit under way"),
        (AnnounceObject(name="h11", kind="deploy", task="t", size_bytes=1), "has no models"),
        (AnnounceObject(name="h11", kind="test_sample", task="t", size_bytes=1), "has not registered"),
        (JobStatus(state="x", visits=0, broad=0, expert=0), "may not speak for None"),
    ],
)
def test_what_is_not_right_is_refused_in_words(message: object, why: str) -> None:
    async def work() -> None:
        world = World(PLAN)
        await world.start()
        answer = await world.tell("h11", message)  # type: ignore[arg-type]
        assert isinstance(answer, Refused) and why in answer.reason
        assert not world.of("error")

    run(work)


@pytest.mark.parametrize("kind, events", [("gold", 1), ("test_sample", 0)])
def test_what_is_only_too_early_is_refused_without_an_event(kind: str, events: int) -> None:
    async def work() -> None:
        world = World(PLAN)
        await world.start()
        message = AnnounceObject(name="h11", kind=kind, task="t", size_bytes=1)
        assert isinstance(await world.tell("h11", message), Refused)
        assert len(world.of("request.refused")) == events

    run(work)


def test_a_repeated_request_is_handled_once_and_answered_every_time() -> None:
    async def work() -> None:
        world = World(PLAN)
        await world.start()
        packet = encode(
            Header(type=PacketType.TELEMETRY, transfer_id=9), encode_message(register(world, "h11", queue=1))
        )
        for _ in range(3):
            world.send("h11", DCC_ADDRESS, packet)
            await world.settle()
        assert len(world.of("krrm.updated")) == 1
        answers = [decode(p.payload) for p in world.fabric.inbox["h11"]]
        assert len(answers) == 3 and len({bytes(body) for _, body in answers}) == 1
        assert {p["ipv4_src"] for p in world.fabric.inbox["h11"]} == {DCC_ADDRESS}

    run(work)


def test_nobody_speaks_with_the_address_of_another() -> None:
    async def work() -> None:
        world = World(PLAN)
        await world.start()
        packet = encode(
            Header(type=PacketType.TELEMETRY, transfer_id=9), encode_message(register(world, "h11", queue=1))
        )
        forged = udp(world.hosts["h11"], DCC_ADDRESS, packet, port=55831).with_(ipv4_src=world.hosts["h13"].address)
        world.fabric.inject(world.hosts["h11"], forged)
        await world.settle()
        assert "address of another" in world.of("packet.refused")[0]["text"]
        assert not world.of("krrm.updated")

    run(work)


def test_garbage_is_counted_and_changes_nothing() -> None:
    async def work() -> None:
        world = World(PLAN)
        await world.start()
        rng = random.Random(5)
        good = encode(Header(type=PacketType.TELEMETRY, transfer_id=9), encode_message(register(world, "h11", queue=1)))
        for length in range(0, 150):
            world.send("h11", DCC_ADDRESS, rng.randbytes(length))
            broken = bytearray(good)
            broken[rng.randrange(len(broken))] ^= 1 << rng.randrange(8)
            world.send("h11", DCC_ADDRESS, bytes(broken))
        await world.settle()
        assert not world.of("error") and not world.of("krrm.updated")
        assert world.of("packet.refused")

    run(work)


def test_a_noisy_terminal_is_rationed_by_its_own_port() -> None:
    async def work() -> None:
        world = World(PLAN)
        await world.start()
        limiter = world.by_kas[1].limiter
        packet = encode(Header(type=PacketType.TELEMETRY, transfer_id=1), b"")
        for _ in range(1000):
            world.send("h11", DCC_ADDRESS, packet)
        await world.settle()
        assert limiter.refused == 1000 - limiter.burst
        assert isinstance(await world.tell("h13", register(world, "h13")), Ack), "others are served"
        limiter.tell()
        assert world.of("packet.refused")[-1]["count"] == limiter.refused
        world.now_s += 1
        assert isinstance(await world.tell("h11", register(world, "h11")), Ack), "and so is h11, a second later"

    run(work)


def test_who_is_silent_or_unplugged_leaves_the_map() -> None:
    async def work() -> None:
        world = World(PLAN)
        await world.start()
        for name in ("h11", "h13", "c1"):
            await world.tell(name, register(world, name))
        dcc = world.by_kas[1]
        world.fabric.unplug("h13", world.hosts["h13"].switch)
        await world.settle()
        assert [d["name"] for d in world.of("agent.gone")] == ["h13"]
        world.now_s += 10
        await world.tell("c1", Report(name="c1", sequence=1))
        world.now_s += 10
        dcc.liveness.look()
        assert [d["name"] for d in world.of("agent.gone")] == ["h13", "h11"]
        assert [n.name for n in dcc.services.krrm.nodes()] == ["c1"]

    run(work)


def test_an_error_in_one_request_is_an_event_and_the_next_is_served() -> None:
    async def work() -> None:
        world = World(PLAN)
        await world.start()
        dcc = world.by_kas[1]
        take, calls = dcc.services.krrm.update, []

        def broken(*args: object, **kwargs: object) -> list[str]:
            calls.append(args)
            if len(calls) == 1:
                raise RuntimeError("bug")
            return take(*args, **kwargs)  # type: ignore[arg-type]

        dcc.services.krrm.update = broken  # type: ignore[method-assign,assignment]
        packet = encode(Header(type=PacketType.TELEMETRY, transfer_id=9), encode_message(register(world, "h11")))
        world.send("h11", DCC_ADDRESS, packet)
        await world.settle()
        assert "bug" in world.of("error")[0]["text"] and "h11" in world.of("error")[0]["text"]
        world.send("h11", DCC_ADDRESS, packet)
        await world.settle()
        assert len(world.of("krrm.updated")) == 1, "the repeated request is tried again"

    run(work)
