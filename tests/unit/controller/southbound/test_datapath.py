"""A switch's session in the core's loop: messages come whole and in order, and so does what is sent."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from os_ken.ofproto import ofproto_v1_3 as of

from controller.southbound.openflow import PacketIn
from controller.southbound.session.datapath import UNSENT_BYTES, LoopDatapath
from tests.unit.controller.southbound.test_fastpath import packet_in

PATIENCE_S = 5.0


@contextmanager
def wired() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two ends of a TCP connection on the loopback: the controller's, the switch's."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        switch = socket.create_connection(server.getsockname(), timeout=PATIENCE_S)
        ours, _ = server.accept()
    with ours, switch:
        yield ours, switch


class Core:
    """What the session speaks to."""

    def __init__(self) -> None:
        self.taken: list[PacketIn] = []
        self.complaints: list[str] = []
        self.then: Callable[[PacketIn], Any] = lambda packet: None

    def take(self, packet: PacketIn) -> None:
        self.taken.append(packet)
        self.then(packet)

    def complain(self, dpid: int, text: str) -> None:
        self.complaints.append(text)


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not true():
            await asyncio.sleep(0.001)


def run(scene: Callable[[LoopDatapath, socket.socket, Core], Awaitable[None]]) -> Core:
    """Play a scene with a session whose switch has said who it is (7); the session's thread ends with it."""
    core = Core()

    async def play() -> None:
        with wired() as (ours, switch):
            loop = asyncio.get_running_loop()
            session = LoopDatapath(ours, None, loop=loop, take=core.take, complain=core.complain)
            session.id = 7
            thread = threading.Thread(target=session._recv_loop)
            thread.start()
            await until(lambda: session._attached)
            try:
                await scene(session, switch, core)
            finally:
                session.close()
                await loop.run_in_executor(None, thread.join, PATIENCE_S)
            assert not thread.is_alive()

    asyncio.run(play())
    return core


@settings(max_examples=10, deadline=None)
@given(st.lists(st.integers(0, 3000), min_size=1, max_size=12), st.lists(st.integers(1, 40_000), max_size=8))
def test_packet_ins_in_any_pieces_come_whole_and_in_order(sizes: list[int], cuts: list[int]) -> None:
    stream = b"".join(packet_in(bytes([i]) * size, in_port=i + 1) for i, size in enumerate(sizes))

    async def scene(session: LoopDatapath, switch: socket.socket, core: Core) -> None:
        edges = [0, *sorted(c for c in cuts if c < len(stream)), len(stream)]
        for start, end in pairwise(edges):
            switch.sendall(stream[start:end])
            await asyncio.sleep(0)
        await until(lambda: len(core.taken) == len(sizes))

    core = run(scene)
    assert [(p.dpid, p.in_port, len(p.data)) for p in core.taken] == [(7, i + 1, s) for i, s in enumerate(sizes)]
    assert not core.complaints


def test_what_is_said_to_one_batch_goes_out_together_and_in_order() -> None:
    async def scene(session: LoopDatapath, switch: socket.socket, core: Core) -> None:
        core.then = lambda packet: session.send(b"%03d" % packet.in_port)
        switch.sendall(b"".join(packet_in(b"x", in_port=i) for i in range(1, 51)))
        await until(lambda: len(core.taken) == 50)
        got = switch.recv(4096)
        assert got == b"".join(b"%03d" % i for i in range(1, 51)), "one segment"

    run(scene)


def test_a_switch_that_reads_late_gets_all_and_nobody_waits_for_it() -> None:
    pieces = [struct.pack("!I", i) * 20_000 for i in range(100)]

    async def scene(session: LoopDatapath, switch: socket.socket, core: Core) -> None:
        began = time.monotonic()
        assert all(session.send(piece) for piece in pieces)
        assert time.monotonic() - began < PATIENCE_S / 2, "a sender waited for the switch"
        assert session._unsent, "the test is of no use: the kernel took it all"
        loop, got, size = asyncio.get_running_loop(), bytearray(), sum(map(len, pieces))
        while len(got) < size:
            got += await loop.run_in_executor(None, switch.recv, 1 << 16)
        assert bytes(got) == b"".join(pieces)
        await until(lambda: not session._waits)

    run(scene)


def test_a_switch_that_takes_nothing_is_given_up() -> None:
    async def scene(session: LoopDatapath, switch: socket.socket, core: Core) -> None:
        piece = bytes(8 << 20)
        sent = [session.send(piece) for _ in range(UNSENT_BYTES // len(piece) + 4)]
        assert sent[0] and not sent[-1]
        await until(session._ended.is_set)

    run(scene)


def test_messages_of_many_threads_stay_whole() -> None:
    async def scene(session: LoopDatapath, switch: socket.socket, core: Core) -> None:
        loop = asyncio.get_running_loop()

        def say(number: int) -> None:
            for _ in range(300):
                session.send(bytes([number]) * 100)

        work = asyncio.gather(*(loop.run_in_executor(None, say, n) for n in range(4)))
        got = bytearray()
        while len(got) < 4 * 300 * 100:
            got += await loop.run_in_executor(None, switch.recv, 1 << 16)
        await work
        assert all(len(set(got[i : i + 100])) == 1 for i in range(0, len(got), 100))

    run(scene)


def test_a_message_that_cannot_be_read_ends_the_session_and_is_told() -> None:
    async def scene(session: LoopDatapath, switch: socket.socket, core: Core) -> None:
        switch.sendall(struct.pack("!BBHI", 99, of.OFPT_HELLO, 8, 1))  # no such version
        await until(session._ended.is_set)

    assert len(run(scene).complaints) == 1


def test_a_message_without_its_body_is_passed_over() -> None:
    async def scene(session: LoopDatapath, switch: socket.socket, core: Core) -> None:
        switch.sendall(struct.pack("!BBHI", of.OFP_VERSION, of.OFPT_FEATURES_REPLY, 8, 1) + packet_in(b"x", in_port=1))
        await until(lambda: len(core.taken) == 1)

    assert not run(scene).complaints


def test_a_mistake_of_the_core_does_not_cost_the_switch() -> None:
    mistakes: list[dict[str, Any]] = []

    async def scene(session: LoopDatapath, switch: socket.socket, core: Core) -> None:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: mistakes.append(context))
        core.then = lambda packet: 1 // (packet.in_port - 1)
        switch.sendall(packet_in(b"x", in_port=1) + packet_in(b"x", in_port=2))
        await until(lambda: len(core.taken) == 2)
        assert not session._ended.is_set()

    run(scene)
    assert [type(m["exception"]) for m in mistakes] == [ZeroDivisionError]


@pytest.mark.parametrize("rude", [True, False])
def test_a_switch_that_goes_ends_its_session(rude: bool) -> None:
    async def scene(session: LoopDatapath, switch: socket.socket, core: Core) -> None:
        if rude:
            switch.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset
        switch.close()
        await until(session._ended.is_set)
        assert not session.send(b"x")

    run(scene)
