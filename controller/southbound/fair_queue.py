"""Packet-ins wait port by port, and the ports have their turns: a terminal that floods delays itself alone."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable

from controller.southbound.openflow import PacketIn

ROOM = 64  # packets of one port: more is a flood, or a control centre that is late
SLICE_S = 0.002  # other work has its turn after it
Port = tuple[int, int]


class FairQueue:
    """``take`` gets the packets, one of each port in turn (round robin); ``refuse`` those that a port has no room for.

    A port costs memory while its packets wait, and no longer.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        take: Callable[[PacketIn], None],
        refuse: Callable[[PacketIn], None],
        *,
        room: int = ROOM,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._loop, self._take, self._refuse, self._room, self._clock = loop, take, refuse, room, clock
        self._waiting: dict[Port, deque[PacketIn]] = {}
        self._turns: deque[Port] = deque()
        self._due = False

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    def put(self, packet: PacketIn) -> None:
        """Take a packet in; it has its turn soon (any that came with it first, see ``serve``)."""
        port = packet.dpid, packet.in_port
        waiting = self._waiting.get(port)
        if waiting is None:
            waiting = self._waiting[port] = deque()
            self._turns.append(port)
        if len(waiting) >= self._room:
            self._refuse(packet)
            return
        waiting.append(packet)
        if not self._due:
            self._due = True
            self._loop.call_soon(self._again)

    def serve(self) -> None:
        """Hand packets on, for a slice of time; the rest follows by itself."""
        end_s = self._clock() + SLICE_S
        while self._turns:
            port = self._turns.popleft()
            waiting = self._waiting[port]
            packet = waiting.popleft()
            if waiting:
                self._turns.append(port)
            else:
                del self._waiting[port]
            try:
                self._take(packet)
            except Exception as error:  # the core's own mistake is no reason to lose the switch
                self._loop.call_exception_handler({"message": "packet-in", "exception": error})
            if self._clock() >= end_s:
                return

    def _again(self) -> None:
        self._due = False
        self.serve()
        if self._turns:
            self._due = True
            self._loop.call_soon(self._again)
