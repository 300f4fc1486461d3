"""One switch's OpenFlow session, read and written by the core's own loop.

os-ken gives every switch two threads: one that reads (eight bytes, then the rest, for every message) and one that
writes.  A report of a terminal then waits for three threads to be scheduled before the map has it, and each of them
for the interpreter's lock.  ``LoopDatapath`` is os-ken's datapath with these two loops replaced: the core's loop reads
what has come in one call, takes packet-ins itself, hands everything else to os-ken's parsers and handlers, and sends
what was said meanwhile in one call.  The handshake, echoes and states stay os-ken's.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from typing import Any

from os_ken.base import app_manager  # noqa: F401  os-ken must load it before its controller
from os_ken.controller import controller, ofp_event
from os_ken.controller.handler import DEAD_DISPATCHER
from os_ken.ofproto import ofproto_parser

from controller.southbound.fastpath import OFPT_PACKET_IN, read_packet_in
from controller.southbound.openflow import PacketIn
from controller.southbound.session.spares import EQUAL, HELLO, Spare, role_request
from controller.southbound.session.tls import Handshakes

READ_BYTES = 1 << 14  # some sixty reports: other work has its turn after them; no record of TLS holds more
UNSENT_BYTES = 64 << 20  # a switch that takes nothing for so long is given up
_HEADER = struct.Struct("!BBHI")

Take = Callable[[PacketIn], None]
Complain = Callable[[int, str], None]


class LoopDatapath(controller.Datapath):  # type: ignore[misc,unused-ignore]  # os-ken has no types
    """A datapath whose socket belongs to ``loop``; ``take`` gets its packet-ins, ``complain`` what ended it.

    ``taken`` is called when it has got all that came together, before what was said in answer goes out.
    """

    def __init__(
        self, sock: Any, address: Any, *, loop: asyncio.AbstractEventLoop, take: Take, complain: Complain,
        taken: Callable[[], None] = lambda: None, spare: Spare | None = None,
    ) -> None:  # fmt: skip
        self._loop, self._take, self._complain, self._taken = loop, take, complain, taken
        self._ended, self._lock = threading.Event(), threading.Lock()
        self._heard, self._unsent = bytearray(), bytearray()
        self._corked = self._waits = self._attached = False
        super().__init__(sock, address)
        self.socket.setblocking(False)
        self._greeted = spare is not None
        if spare is not None:  # what has been said on it is said: the switch's greeting is heard now, ours not sent
            self._heard += spare.hello + spare.heard
            self._unsent += role_request(EQUAL)

    # --- os-ken's threads

    def _recv_loop(self) -> None:
        """Wait in os-ken's thread for the end of the session, which the loop serves."""
        self._call(self._attach)
        self._ended.wait()
        self.socket.close()

    def _send_loop(self) -> None:
        """Return at once: ``send`` writes."""

    def close(self) -> None:
        """End the session (any thread)."""
        super().close()
        self._call(self._end)

    def _call(self, method: Callable[[], None]) -> None:
        try:
            self._loop.call_soon_threadsafe(method)
        except RuntimeError:  # the loop is closed: the control centre ends
            self._ended.set()

    # --- reading, in the loop

    def _attach(self) -> None:
        if not self._ended.is_set():
            self._attached = True
            self._loop.add_reader(self.socket.fileno(), self._readable)
            self._hear()

    def _readable(self) -> None:
        """Take what has come."""
        try:
            with self._lock:  # a TLS session is not read and written at the same time
                found = self.socket.recv(READ_BYTES)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return
        except OSError:
            found = b""
        if not found:
            self._end()
            return
        self._heard += found
        self._hear()

    def _hear(self) -> None:
        """Do what whole messages say; what is said in answer goes out together."""
        self._corked = True
        try:
            for kind, message in self._messages():
                self._handle(kind, message)
            self._taken()
        except Exception as error:
            self._complain(self.id or 0, f"message that cannot be read, session ended: {error!r}")
            self._end()
        finally:
            self._corked = False
            self.flush()

    def _messages(self) -> Iterator[tuple[int, bytes]]:
        """Cut what has been heard into whole messages; the rest waits."""
        heard, at = bytes(self._heard), 0
        while len(heard) - at >= _HEADER.size:
            _, kind, length, _ = _HEADER.unpack_from(heard, at)
            end = at + max(length, _HEADER.size)
            if end > len(heard):
                break
            yield kind, heard[at:end]
            at = end
        del self._heard[:at]

    def _handle(self, kind: int, message: bytes) -> None:
        packet = read_packet_in(self.id, message) if kind == OFPT_PACKET_IN and self.id else None
        if packet is None:
            self._give_to_os_ken(message)
            return
        try:
            self._take(packet)
        except Exception as error:  # the core's own mistake is no reason to lose the switch
            self._loop.call_exception_handler({"message": "packet-in", "exception": error})

    def _give_to_os_ken(self, message: bytes) -> None:
        version, kind, length, xid = ofproto_parser.header(message)
        read = ofproto_parser.msg(self, version, kind, length, xid, message)
        if not read or self.ofp_brick is None:
            return
        event = ofp_event.ofp_msg_to_ev(read)
        self.ofp_brick.send_event_to_observers(event, self.state)
        for handler in self.ofp_brick.get_handlers(event):
            if self.state in handler.callers[event.__class__].dispatchers:
                handler(event)

    # --- writing, from any thread

    def send(self, buf: bytes, close_socket: bool = False) -> bool:
        """Send a message, or keep it until the switch takes more; False when the session is over."""
        if self.state == DEAD_DISPATCHER or self._ended.is_set():
            return False
        if self._greeted and buf[1] == HELLO:
            self._greeted = False
            return True
        with self._lock:
            self._unsent += buf
            if len(self._unsent) > UNSENT_BYTES:
                self._call(self._end)
                return False
        if not self._corked:
            self.flush()
        if close_socket:
            self._close_write()
        return True

    def flush(self) -> None:
        """Write what the socket takes; the rest when it takes more."""
        with self._lock, contextlib.suppress(OSError):
            if self._unsent:
                del self._unsent[: self.socket.send(self._unsent)]
        if bool(self._unsent) != self._waits:
            self._call(self._watch)

    def _watch(self) -> None:
        """Have the loop call ``flush`` when the socket takes more, as long as something waits."""
        if not self._attached or bool(self._unsent) == self._waits:
            return
        self._waits = not self._waits
        if self._waits:
            self._loop.add_writer(self.socket.fileno(), self.flush)
        else:
            self._loop.remove_writer(self.socket.fileno())

    def _end(self) -> None:
        if self._ended.is_set():
            return
        if self._attached:
            self._loop.remove_reader(self.socket.fileno())
            self._loop.remove_writer(self.socket.fileno())
            self._attached = False
        self.send_q = None  # os-ken's echo loop ends by it
        self._ended.set()


def serve_in(
    loop: asyncio.AbstractEventLoop, take: Take, complain: Complain, taken: Callable[[], None] = lambda: None,
    handshakes: Handshakes | None = None,
) -> Callable[[Spare], None]:  # fmt: skip
    """Have os-ken make its sessions of this kind from now on, each beginning with one of the ``handshakes``; returns
    what takes a session over from another process (in a thread of its own, until it ends).
    """

    def session(sock: Any, address: Any, spare: Spare | None = None) -> None:
        if spare is None and handshakes is not None and (sock := handshakes.greet(sock, address)) is None:
            return
        made = LoopDatapath(sock, address, loop=loop, take=take, complain=complain, taken=taken, spare=spare)
        with contextlib.closing(made) as datapath:
            datapath.serve()

    controller.datapath_connection_factory = session
    return lambda spare: session(spare.socket, spare.socket.getpeername(), spare)
