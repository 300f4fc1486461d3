"""One port's flood delays itself alone: the ports have their turns, and a port has so much room."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable

import pytest

from controller.southbound.fair_queue import ROOM, SLICE_S, FairQueue
from controller.southbound.openflow import PacketIn

FLOODER, BYSTANDER = 1, 2


def packet(port: int, number: int = 0) -> PacketIn:
    return PacketIn(1, port, 3, number.to_bytes(4, "big"))


def queue_of(loop: asyncio.AbstractEventLoop, taken: list[int], refused: list[int]) -> FairQueue:
    def note(into: list[int]) -> Callable[[PacketIn], None]:
        return lambda p: into.append(p.in_port)

    return FairQueue(loop, note(taken), note(refused), clock=lambda: 0.0)


def test_a_bystander_waits_for_one_packet_of_a_flood_and_no_more() -> None:
    async def work() -> None:
        taken, refused = list[int](), list[int]()
        queue = queue_of(asyncio.get_running_loop(), taken, refused)
        for number in range(1000):
            queue.put(packet(FLOODER, number))
        queue.put(packet(BYSTANDER))
        assert len(queue) == ROOM + 1 and len(refused) == 1000 - ROOM, "memory is bounded, the rest is counted"
        queue.serve()
        assert taken.index(BYSTANDER) == 1 and len(taken) == ROOM + 1 and len(queue) == 0

    asyncio.run(work())


def test_ports_have_their_turns_and_each_its_order() -> None:
    async def work() -> None:
        got = list[tuple[int, bytes]]()
        queue = FairQueue(asyncio.get_running_loop(), lambda p: got.append((p.in_port, p.data)), lambda p: None)
        for port, number in itertools.product((1, 2, 3), range(4)):
            queue.put(packet(port, number))
        await asyncio.sleep(0)
        assert [p for p, _ in got] == [1, 2, 3] * 4
        assert [d for p, d in got if p == 2] == [n.to_bytes(4, "big") for n in range(4)]

    asyncio.run(work())


def test_a_slice_of_time_ends_and_the_rest_follows_by_itself() -> None:
    async def work() -> None:
        now = itertools.count()
        taken = list[int]()
        queue = FairQueue(
            asyncio.get_running_loop(), lambda p: taken.append(p.in_port), lambda p: None,
            clock=lambda: next(now) * SLICE_S,
        )  # fmt: skip
        for port in range(8):
            queue.put(packet(port))
        queue.serve()
        assert len(taken) == 1, "time was up after one"
        for _ in range(20):
            await asyncio.sleep(0)
        assert taken == list(range(8))

    asyncio.run(work())


def test_a_mistake_of_the_core_costs_one_packet(caplog: pytest.LogCaptureFixture) -> None:
    async def work() -> None:
        loop, taken = asyncio.get_running_loop(), list[int]()

        def take(p: PacketIn) -> None:
            taken.append(p.in_port)
            if p.in_port == FLOODER:
                raise RuntimeError("our mistake")

        queue = FairQueue(loop, take, lambda p: None, clock=lambda: 0.0)
        queue.put(packet(FLOODER))
        queue.put(packet(BYSTANDER))
        queue.serve()
        assert taken == [FLOODER, BYSTANDER]

    asyncio.run(work())
    assert "our mistake" in caplog.text
