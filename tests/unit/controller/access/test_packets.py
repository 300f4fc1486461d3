"""The walk of a packet through a control centre: read once, handed on as a value, to the room that is to have it."""

from __future__ import annotations

from typing import Any

import pytest

from controller.border.messages import AskModels, Done, Models, No, Reply
from controller.border.serving import Serving
from controller.runtime.loop import Worker
from controller.southbound import arrivals, frames
from controller.southbound.lldp import build_lldp
from controller.southbound.openflow import PacketIn
from controller.southbound.pipeline import LABEL
from packets.labels import AI_PORT, DCC_ADDRESS
from packets.messages import Leave, Message, Register, encode_message
from packets.parts import cut
from packets.wire import Header, PacketType, encode
from tests.fake_fabric import World, run, small_plan
from topologies.plan import ROUTER_MAC

PLAN = small_plan()
HOST = next(h for h in PLAN.hosts if h.role == "data")


def ai_frame(message: Message, kind: PacketType) -> bytes:
    payload = encode(Header(type=kind, transfer_id=9), encode_message(message))
    return frames.build_udp(frames.Datagram(HOST.mac, ROUTER_MAC, HOST.address, DCC_ADDRESS, AI_PORT, AI_PORT, payload))


def packet(world: World, frame: bytes) -> PacketIn:
    return PacketIn(world.by_kas[HOST.kas].domain.switches[HOST.switch].dpid, HOST.port, LABEL, frame)


@pytest.mark.parametrize(
    "frame",
    [
        ai_frame(Register(name=HOST.name, role="data", address=HOST.address), PacketType.TELEMETRY),
        ai_frame(Leave(name=HOST.name), PacketType.ANNOUNCE),
        build_lldp("k1s1", 0x101, 1),
        b"short",
    ],
    ids=["telemetry", "request", "lldp", "malformed"],
)
def test_a_packet_in_has_its_ethernet_type_read_once(frame: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bytes] = []

    def counted(data: bytes) -> int:
        seen.append(data)
        return frames.ether_type(data)

    async def work() -> None:
        world = World(PLAN)
        await world.start()
        monkeypatch.setattr(arrivals, "ether_type", counted)
        monkeypatch.setattr(world.fabric, "send", lambda dpid, mods: None)
        world.by_kas[HOST.kas].fabric.packet_in(packet(world, frame))
        await world.settle()
        assert seen == [frame]

    run(work)


def test_a_registration_larger_than_a_packet_is_taken_once_its_parts_are_there() -> None:
    shares = {f"Certain conditions originating in the perinatal period {i}": 1 / 64 for i in range(64)}
    message = encode_message(
        Register(name=HOST.name, role="data", address=HOST.address, attributes={"group_shares": shares})
    )
    parts = [encode(part, piece) for part, piece in cut(Header(type=PacketType.TELEMETRY, transfer_id=9), message)]
    assert len(parts) > 3

    async def work() -> None:
        world = World(PLAN)
        await world.start()
        dcc = world.by_kas[HOST.kas]
        for payload in reversed(parts):
            assert HOST.name not in dcc.services.krrm
            datagram = frames.Datagram(HOST.mac, ROUTER_MAC, HOST.address, DCC_ADDRESS, AI_PORT, AI_PORT, payload)
            dcc.fabric.packet_in(packet(world, frames.build_udp(datagram)))
            await world.settle()
        assert dcc.services.krrm.node(HOST.name).attributes["group_shares"].value == shares

    run(work)


def test_a_message_that_no_room_registered_for_is_refused_by_name() -> None:
    async def work() -> None:
        world = World(PLAN)
        await world.start()
        dcc = world.by_kas[HOST.kas]
        dcc.terminals._handlers.pop(Leave)
        dcc.fabric.packet_in(packet(world, ai_frame(Leave(name=HOST.name), PacketType.ANNOUNCE)))
        await world.settle()
        assert [d["reason"] for d in world.of("request.refused")] == ["a DCC takes no Leave"]

    run(work)


def test_requests_between_control_centres_go_to_who_registered() -> None:
    async def nobody(kas: int, body: Any) -> Reply:
        raise AssertionError("it is for ourselves")

    async def work() -> None:
        world = World(PLAN)
        said: list[str] = []
        worker = Worker(lambda kind, /, **data: said.append(kind))
        serving = Serving(world.by_kas[1].domain, worker, nobody)
        ask = AskModels(kas=1, task="vignettes")
        assert await serving.ask(ask) == No(reason="a DCC answers no AskModels")
        serving.on(AskModels, lambda a: Models(models=[]))
        assert await serving.ask(ask) == Models(models=[])
        serving.on(AskModels, lambda a: None)
        assert await serving.ask(ask) == Done()
        serving.on(AskModels, lambda a: 1 / 0)
        assert "failed in the DCC of K-AS 1" in (await serving.ask(ask)).reason  # type: ignore[union-attr]
        assert said == ["error"], "told, and only that request lost"

    run(work)
