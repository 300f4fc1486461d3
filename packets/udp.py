"""One non-blocking UDP socket: batches out (UDP_SEGMENT where the kernel takes it), no exception for weather."""

from __future__ import annotations

import contextlib
import errno
import socket
import struct

UDP_SEGMENT = 103
SO_SNDBUFFORCE = 32
SO_RCVBUFFORCE = 33
RECEIVE_BUFFER_BYTES = 8 << 20
SEND_BUFFER_BYTES = 4 << 20
MAX_DATAGRAM = 65_535
MAX_SEGMENTED_BYTES = 65_000
_BUSY = frozenset((errno.EAGAIN, errno.ENOBUFS))
_NO_SEGMENTS = frozenset((errno.EIO, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOPROTOOPT))


class UdpSocket:
    """A socket bound to one address. ``send_errors`` counts datagrams that the kernel refused for good."""

    def __init__(self, address: str, port: int, *, segments: bool = True) -> None:
        self.segments = segments
        self.send_errors = 0
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._buffer = bytearray(MAX_DATAGRAM)
        self._view = memoryview(self._buffer)
        self._enlarge()
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
    def address(self) -> tuple[str, int]:
        """The bound address and port."""
        name: tuple[str, int] = self._socket.getsockname()
        return name

    def close(self) -> None:
        self._socket.close()

    def receive(self) -> tuple[memoryview, tuple[str, int]] | None:
        """Return the next datagram (a view that the next call overwrites) and its source, or None if there is none."""
        try:
            size, peer = self._socket.recvfrom_into(self._buffer)
        except OSError:
            return None
        return self._view[:size], peer

    def send(self, data: bytes | memoryview, to: tuple[str, int]) -> bool:
        """Send one datagram; False when the kernel cannot take it now. Any other refusal counts as lost on the way."""
        try:
            self._socket.sendto(data, to)
        except OSError as error:
            if error.errno in _BUSY:
                return False
            self.send_errors += 1
        return True

    def send_batch(self, data: memoryview, size: int, to: tuple[str, int]) -> int:
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

    def _send_segmented(self, part: memoryview, size: int, to: tuple[str, int]) -> bool | None:
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
