"""Sessions of switches in reserve: connected, greeted, and silent, until a control centre dies.

Open vSwitch waits a second before it connects again to a control centre that it has lost.  So each switch keeps a
second session (every control centre has two addresses), which whoever watches over the control centre's process holds
as a *slave* (OpenFlow 1.3, section 6.3.6): such a session is handed no packets.  The process that comes after one that
died takes these sessions over, in good order, since nothing was ever said on them but greetings and echoes.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import struct
from dataclasses import dataclass, field

VERSION = 4
HELLO, ECHO_REQUEST, ECHO_REPLY, ROLE_REQUEST = 0, 2, 3, 24
EQUAL, SLAVE = 1, 3
MOST_BYTES = 1 << 20  # of one message
MOST_SESSIONS = 4096
HEADER = struct.Struct("!BBHI")


def message(kind: int, xid: int, body: bytes = b"") -> bytes:
    """Return an OpenFlow message."""
    return HEADER.pack(VERSION, kind, HEADER.size + len(body), xid) + body


def role_request(role: int) -> bytes:
    """Return the request to be a slave, or an equal again, on a session."""
    return message(ROLE_REQUEST, 1, struct.pack("!IIQ", role, 0, 0))


@dataclass(eq=False)
class Spare:
    """One session: its socket, the switch's greeting (none yet: empty), and the beginning of a message to come."""

    socket: socket.socket
    hello: bytes = b""
    heard: bytearray = field(default_factory=bytearray)


def listen(address: str, port: int) -> socket.socket:
    """Return a socket at which switches connect."""
    server = socket.socket()
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.bind((address, port))
    server.listen(128)
    server.setblocking(False)
    return server


class Spares:
    """Holds the spare sessions of one control centre. ``selector`` is the caller's; what is ready goes to ``ready``."""

    def __init__(self, port: int, selector: selectors.BaseSelector) -> None:
        self.port, self._selector = port, selector
        self._server: socket.socket | None = None
        self._held: list[Spare] = []

    def open(self, address: str) -> None:
        """Take sessions at an address from now on; an address that is taken gives none."""
        with contextlib.suppress(OSError):
            self._server = listen(address, self.port)
            self._selector.register(self._server, selectors.EVENT_READ, self)

    def close(self) -> None:
        """Take no more."""
        if self._server is not None:
            self._selector.unregister(self._server)
            self._server.close()
            self._server = None

    def ready(self, about: object) -> None:
        """Do what is to be done at a socket that is ready (``about``: its data in the selector)."""
        if isinstance(about, Spare):
            self._hear(about)
        elif self._server is not None:
            with contextlib.suppress(OSError):
                self._greet(self._server.accept()[0])

    def _greet(self, connection: socket.socket) -> None:
        if len(self._held) >= MOST_SESSIONS:
            connection.close()
            return
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        spare = Spare(connection)
        self._held.append(spare)
        self._selector.register(connection, selectors.EVENT_READ, spare)
        self._send(spare, message(HELLO, 0))

    def _send(self, spare: Spare, data: bytes) -> None:
        try:
            spare.socket.sendall(data)
        except OSError:  # a switch that takes not even that
            self._drop(spare)

    def _drop(self, spare: Spare) -> None:
        if spare in self._held:
            self._held.remove(spare)
            self._selector.unregister(spare.socket)
            spare.socket.close()

    def _hear(self, spare: Spare) -> None:
        try:
            found = spare.socket.recv(1 << 14)
        except BlockingIOError:
            return
        except OSError:
            found = b""
        if not found:
            self._drop(spare)
            return
        spare.heard += found
        while len(spare.heard) >= HEADER.size:
            _, kind, length, xid = HEADER.unpack_from(spare.heard)
            if not HEADER.size <= length <= MOST_BYTES:
                self._drop(spare)
                return
            if len(spare.heard) < length:
                return
            whole = bytes(spare.heard[:length])
            del spare.heard[:length]
            if kind == HELLO and not spare.hello:
                spare.hello = whole
                self._send(spare, role_request(SLAVE))
            elif kind == ECHO_REQUEST:
                self._send(spare, message(ECHO_REPLY, xid, whole[HEADER.size :]))

    def take(self) -> list[Spare]:
        """Return the sessions that are in good order, which are the caller's from now on; the others are ended."""
        held, self._held = self._held, []
        for spare in held:
            self._selector.unregister(spare.socket)
            if not spare.hello:
                spare.socket.close()
        return [spare for spare in held if spare.hello]
