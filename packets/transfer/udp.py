"""One non-blocking UDP socket: batches out (UDP_SEGMENT) and in (recvmmsg), with a plain way where there is none."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import socket
import struct
import sys
import time
from typing import Any

import numpy as np
import numpy.typing as npt

UDP_SEGMENT = 103
SO_SNDBUFFORCE = 32
SO_RCVBUFFORCE = 33
RECEIVE_BUFFER_BYTES = 8 << 20
SEND_BUFFER_BYTES = 4 << 20
DATAGRAM_BYTES = 1536
BATCH_DATAGRAMS = 128
MAX_SEGMENTED_BYTES = 65_000
MSG_DONTWAIT = 0x40
TOS_BYTES, TOS_AT = 24, 16  # room of a control message with the type of service, and where it stands in it
_BUSY = frozenset((errno.EAGAIN, errno.ENOBUFS))
_NO_SEGMENTS = frozenset((errno.EIO, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOPROTOOPT))

Bytes = npt.NDArray[np.uint8]
Numbers = npt.NDArray[np.int64]
MASK_32 = 0xFFFF_FFFF
Peer = tuple[str, int]


class _IoVector(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class _Header(ctypes.Structure):
    """``struct msghdr`` of recvmsg(2)."""

    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint32),
        ("vector", ctypes.c_void_p),
        ("vectors", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class _Message(ctypes.Structure):
    """``struct mmsghdr`` of recvmmsg(2)."""

    _fields_ = (("header", _Header), ("size", ctypes.c_uint32))


class Arrivals:
    """Room for a batch of datagrams, used again and again.

    ``frames``: (datagrams, bytes) uint8, ``sizes``: (datagrams,) bytes, ``peers``: (datagrams,) one number a source,
    ``services``: (datagrams,) the type of service of its IP header (0: not told).
    """

    def __init__(self, datagrams: int = BATCH_DATAGRAMS, stride: int = DATAGRAM_BYTES) -> None:
        self.frames: Bytes = np.zeros((datagrams, stride), np.uint8)
        self.sizes: Numbers = np.zeros(datagrams, np.int64)
        self.peers: npt.NDArray[np.uint64] = np.zeros(datagrams, np.uint64)
        self.view = self.frames.data.cast("B")
        self.stride = stride
        self._names: Bytes = np.zeros((datagrams, 16), np.uint8)
        self._controls: Bytes = np.zeros((datagrams, TOS_BYTES), np.uint8)
        self.services: Bytes = np.zeros(datagrams, np.uint8)
        self._vectors = (_IoVector * datagrams)()
        self._messages = (_Message * datagrams)()
        for row in range(datagrams):
            self._vectors[row].base, self._vectors[row].length = self.frames.ctypes.data + row * stride, stride
            message = self._messages[row].header
            message.name, message.name_length = self._names.ctypes.data + row * 16, 16
            message.vector, message.vectors = ctypes.addressof(self._vectors[row]), 1
            message.control, message.control_length = self._controls.ctypes.data + row * TOS_BYTES, TOS_BYTES
        words = np.frombuffer(memoryview(self._messages), np.uint32).reshape(datagrams, ctypes.sizeof(_Message) // 4)
        self._sizes = words[:, _Message.size.offset // 4]
        self._control_lengths = words[:, _Header.control_length.offset // 4]
        self._addresses = self._names.view(np.uint64)[:, 0]  # family, port, address: 8 bytes

    def fill(self, call: Any, descriptor: int) -> int:
        """Take what waits at a socket by ``recvmmsg``; the number of datagrams, 0: none, -1: the kernel has no such."""
        self._control_lengths[:] = TOS_BYTES  # the kernel writes here what it used
        got = int(call(descriptor, self._messages, len(self.sizes), MSG_DONTWAIT, None))
        if got < 0:
            return -1 if ctypes.get_errno() in (errno.ENOSYS, errno.EPERM, errno.EOPNOTSUPP) else 0
        self.sizes[:got] = self._sizes[:got]
        self.peers[:got] = self._addresses[:got]
        self.services[:got] = np.where(self._control_lengths[:got] > TOS_AT, self._controls[:got, TOS_AT], 0)
        return got

    def frame(self, row: int) -> memoryview:
        """Return one datagram; the next batch overwrites it."""
        return self.view[row * self.stride : row * self.stride + int(self.sizes[row])]

    def peer(self, row: int) -> Peer:
        """Return the source of one datagram."""
        return peer_of(int(self.peers[row]))


def peer_number(peer: Peer) -> int:
    """Return a source as one number: the first 8 bytes of its ``sockaddr_in``."""
    packed = struct.pack("=H", socket.AF_INET) + struct.pack("!H", peer[1]) + socket.inet_aton(peer[0])
    return int.from_bytes(packed, sys.byteorder)


def peer_of(number: int) -> Peer:
    """Return address and port of a source; the inverse of ``peer_number``."""
    packed = number.to_bytes(8, sys.byteorder)
    return socket.inet_ntoa(packed[4:8]), int.from_bytes(packed[2:4], "big")


def _find_recvmmsg() -> Any:
    """Return libc's ``recvmmsg``, or None where it has none."""
    try:
        call = ctypes.CDLL(None, use_errno=True).recvmmsg
    except (OSError, AttributeError):
        return None
    call.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int, ctypes.c_void_p)
    call.restype = ctypes.c_int
    return call


class UdpSocket:
    """A socket bound to one address. ``send_errors`` counts datagrams that the kernel refused for good.

    ``segments`` and ``batches`` tell whether UDP_SEGMENT and recvmmsg are used; each is given up where it is refused.
    """

    def __init__(self, address: str, port: int, *, segments: bool = True, batches: bool = True) -> None:
        self.segments = segments
        self.send_errors = 0
        self._receive_many = _find_recvmmsg() if batches else None
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._enlarge()
        self._socket.setsockopt(socket.IPPROTO_IP, socket.IP_RECVTOS, 1)
        try:
            self._socket.bind((address, port))
        except OSError:
            self._socket.close()
            raise

    def _enlarge(self) -> None:
        """Ask for large buffers: by force where we may, else as much as the system's limit gives."""
        for force, polite, size in (
            (SO_RCVBUFFORCE, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES),
            (SO_SNDBUFFORCE, socket.SO_SNDBUF, SEND_BUFFER_BYTES),
        ):
            try:
                self._socket.setsockopt(socket.SOL_SOCKET, force, size)
            except OSError:
                with contextlib.suppress(OSError):
                    self._socket.setsockopt(socket.SOL_SOCKET, polite, size)

    def fileno(self) -> int:
        return self._socket.fileno()

    @property
    def batches(self) -> bool:
        return self._receive_many is not None

    @property
    def address(self) -> Peer:
        """The bound address and port."""
        name: Peer = self._socket.getsockname()
        return name

    def close(self) -> None:
        self._socket.close()

    def receive(self, into: Arrivals) -> int:
        """Take datagrams that wait into ``into``; return how many (0: none waits)."""
        if self._receive_many is not None:
            got = into.fill(self._receive_many, self._socket.fileno())
            if got >= 0:
                return got
            self._receive_many = None
        return self._receive_each(into)

    def _receive_each(self, into: Arrivals) -> int:
        for row in range(len(into.sizes)):
            room = into.view[row * into.stride : (row + 1) * into.stride]
            try:
                into.sizes[row], told, _, peer = self._socket.recvmsg_into([room], TOS_BYTES)
            except OSError:
                return row
            into.services[row] = told[0][2][0] if told else 0
            into.peers[row] = peer_number(peer)
        return len(into.sizes)

    def send(self, data: bytes | memoryview, to: Peer) -> bool:
        """Send one datagram; False when the kernel cannot take it now. Any other refusal counts as lost on the way."""
        try:
            self._socket.sendto(data, to)
        except OSError as error:
            if error.errno in _BUSY:
                return False
            self.send_errors += 1
        return True

    def send_batch(self, data: memoryview, size: int, to: Peer) -> int:
        """Send datagrams of ``size`` bytes each (the last may be shorter) that lie end to end; return how many left."""
        count = -(-len(data) // size)
        sent = 0
        while sent < count:
            step = min(MAX_SEGMENTED_BYTES // size, count - sent)
            part = data[sent * size : (sent + step) * size]
            if self.segments and step > 1:
                left = self._send_segmented(part, size, to)
                if left is None:
                    continue
                if not left:
                    return sent
                sent += step
            else:
                left = self.send(part[:size], to)
                if not left:
                    return sent
                sent += 1
        return count

    def _send_segmented(self, part: memoryview, size: int, to: Peer) -> bool | None:
        """Like ``send`` for a whole batch; None when the kernel has no UDP_SEGMENT here (then none is tried again)."""
        try:
            self._socket.sendmsg([part], [(socket.IPPROTO_UDP, UDP_SEGMENT, struct.pack("=H", size))], 0, to)
        except OSError as error:
            if error.errno in _BUSY:
                return False
            if error.errno in _NO_SEGMENTS:
                self.segments = False
                return None
            self.send_errors += -(-len(part) // size)
        return True


def now_us() -> int:
    """Return the time that packets carry: this machine's monotonic clock in microseconds, modulo 2**32."""
    return time.monotonic_ns() // 1000 & MASK_32
