"""Test frames on one link: raw sockets at both ends, stamped by the sender and by the receiving kernel.

The frames carry the local-experimental ethertype 0x88B5, which no host and no switch of ours forwards: they cross
exactly one link.
"""

from __future__ import annotations

import ctypes
import socket
import struct
import time
from dataclasses import dataclass

from topologies.machine import netns
from topologies.wiring import FRAME_BYTES

ETHERTYPE = 0x88B5
ETH_P_ALL = 0x0003
SOL_PACKET = 263
PACKET_IGNORE_OUTGOING = 23
SO_ATTACH_FILTER = 26
SO_RCVBUFFORCE = 33
SO_TIMESTAMPNS = 35
OUTSTANDING_FRAMES = 80  # less than any link's queue holds: the sender waits for the link, nothing is dropped
TRUE_SIZE = 2304  # what the kernel charges a socket for one full frame
_HEADER = struct.Struct("!6s6sHIQ")  # destination, source, ethertype, sequence number, nanoseconds of sending
_HERE, _THERE = bytes.fromhex("02dacafe0001"), bytes.fromhex("02dacafe0002")


@dataclass(frozen=True)
class Arrival:
    """One frame that crossed: its number, when it was sent and when it arrived (ns, one clock)."""

    sequence: int
    sent_ns: int
    arrived_ns: int


class End:
    """One end of a link: sends test frames, and collects those of the other end."""

    def __init__(self, interface: str, pid: int | None) -> None:
        self.interface = interface
        self._socket = netns.inside(pid, self._open) if pid else self._open()

    def _open(self) -> socket.socket:
        packet = socket.socket(
            socket.AF_PACKET, socket.SOCK_RAW, 0
        )  # protocol 0: nothing arrives before the filter is set
        packet.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, _only_ours())
        packet.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
        packet.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        packet.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 16 * 1024 * 1024)
        packet.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, OUTSTANDING_FRAMES * TRUE_SIZE // 2)
        packet.bind((self.interface, ETH_P_ALL))
        return packet

    def close(self) -> None:
        self._socket.close()

    def send(self, first: int, count: int, size: int = FRAME_BYTES) -> None:
        """Send ``count`` frames as fast as the link takes them."""
        buffer = bytearray(size)
        for sequence in range(first, first + count):
            _HEADER.pack_into(buffer, 0, _THERE, _HERE, ETHERTYPE, sequence, time.clock_gettime_ns(time.CLOCK_REALTIME))
            self._socket.send(buffer)

    def collect(self, count: int, timeout_s: float) -> list[Arrival]:
        """Return what arrived, in that order: ``count`` frames, or fewer when nothing has come for ``timeout_s``."""
        self._socket.settimeout(timeout_s)
        found: list[Arrival] = []
        while len(found) < count:
            try:
                data, ancillary, _, _ = self._socket.recvmsg(_HEADER.size, 64)
            except TimeoutError:
                break
            if ancillary:
                seconds, nanoseconds = struct.unpack_from("qq", ancillary[0][2])
                _, _, _, sequence, sent_ns = _HEADER.unpack_from(data)
                found.append(Arrival(sequence, sent_ns, seconds * 1_000_000_000 + nanoseconds))
        self._socket.settimeout(None)
        return found

    def drain(self) -> None:
        """Forget what a former measurement left in the socket."""
        self._socket.setblocking(False)
        try:
            while True:
                self._socket.recv(1)
        except BlockingIOError:
            self._socket.setblocking(True)


_INSTRUCTIONS = ((0x28, 0, 0, 12), (0x15, 0, 1, ETHERTYPE), (0x06, 0, 0, 0xFFFF), (0x06, 0, 0, 0))
_PROGRAM = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in _INSTRUCTIONS))


def _only_ours() -> bytes:
    """Return a ``sock_fprog`` whose filter keeps our ethertype: load half-word 12, compare, accept or drop."""
    return struct.pack("HP", len(_INSTRUCTIONS), ctypes.addressof(_PROGRAM))
