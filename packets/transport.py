"""AI packets over UDP: whole objects to wherever the network steers them, requests and replies; one I/O thread.

An object is launched (one packet, repeated until a rendezvous answers), then sent shard by shard (``sender.py``,
``congestion.py``) and put together at the other end (``inbox.py``, ``receiver.py``, ``assembly.py``).  Callbacks run on
worker threads, may take as long as they like, and may send and request themselves.  Malformed input is an event
``packet.refused`` and a counter; a transfer that ends is an event ``object.sent``.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import secrets
import select
import threading
import time
from collections.abc import Callable
from typing import TypeVar

import msgspec

from packets.errors import TransportError
from packets.events import Emit, silent
from packets.labels import AI_PORT
from packets.parts import MESSAGE_ROOM
from packets.security.checksums import TAG_BYTES
from packets.security.seal import seal_with_mac
from packets.transfer.breath import MOST_S, Breath
from packets.transfer.guard import Guard, Session
from packets.transfer.inbox import QUESTIONS_PER_S, STRANGERS_PER_S, Inbox
from packets.transfer.incoming import Incoming
from packets.transfer.outgoing import Outgoing, remainder
from packets.transfer.pathmtu import ShardSize
from packets.transfer.receiver import Receiving, answer_to
from packets.transfer.refusals import Counters, Refusals
from packets.transfer.requests import Requests
from packets.transfer.sender import Sending
from packets.transfer.udp import Arrivals, Peer, UdpSocket, now_us
from packets.transfer.workers import Workers
from packets.transfers import OutgoingObject, ReceivedObject, Transfer, TransferStats
from packets.wire import (
    DEFAULT_MTU,
    IP_UDP_BYTES,
    NO_FLAGS,
    SHARD_TYPES,
    SIGNED_BYTES,
    Header,
    PacketType,
    encode,
    payload_room,
)

__all__ = ["Counters", "Endpoint", "OutgoingObject", "ReceivedObject", "Transfer", "TransferStats"]

OBJECT_WORKERS = 4
MESSAGE_WORKERS = 2
QUEUE_LENGTH = 256
DRAIN = 4
TIDY_S = 1.0
IO_PRIORITY = -10  # as that of the switches and the delay lines
T = TypeVar("T")
_log = logging.getLogger(__name__)


class Endpoint:
    """The AI port of one terminal. ``on_object`` gets whole, checked objects; ``on_message`` every other request.

    ``max_object_bytes`` bounds one object, ``max_total_bytes`` and ``max_objects`` all objects on their way in: what is
    over them is refused with an ERROR packet before a byte is stored.  ``on_query``, if any, gets queries and probes on
    the I/O thread: it must not wait. ``only_steered``: as of ``Incoming``, where switches mark what they steer.
    """

    def __init__(
        self,
        address: str,
        *,
        on_object: Callable[[ReceivedObject], None],
        on_message: Callable[[Header, bytes, Peer], None],
        emit: Emit = silent,
        port: int = AI_PORT,
        mtu: int = DEFAULT_MTU,
        max_object_bytes: int = 256 << 20,
        max_total_bytes: int = 512 << 20,
        max_objects: int = 32,
        guard: Guard | None = None,
        on_query: Callable[[Header, bytes, Peer], None] | None = None,
        only_steered: bool = False,
    ) -> None:
        self.address, self.port = address, port
        self.counters = Counters()
        self._emit, self._guard = emit, guard
        self._refusals = Refusals(self.counters, emit)
        self._requests = Requests(address, self._send, min(payload_room(mtu) - SIGNED_BYTES, MESSAGE_ROOM))
        self.say_again = self._requests.say_again  # to repeat at once all requests that wait for an answer
        self._shard_size = ShardSize(mtu)
        try:
            self._socket = UdpSocket(address, port)
        except OSError as error:
            text = f"cannot bind {address}:{port}: {error.strerror}; is another agent running?"
            raise TransportError(text) from error
        self.port = self._socket.address[1]
        self._wake, self._poked = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC), threading.Event()
        self._lock = threading.Lock()
        self._new: list[Sending] = []
        self._outgoing = Outgoing(
            self._socket, guard, self._shard_size, mtu - IP_UDP_BYTES, self.counters, self._refusals, emit
        )
        self._arrivals = Arrivals(stride=max(mtu - IP_UDP_BYTES + 64, 1536))
        self._errands: list[Callable[[], None]] = []
        self._receiving = Receiving(
            send=self._answer, deliver=self._deliver, refused=self._refusals.of_header,
            max_object_bytes=max_object_bytes, max_total_bytes=max_total_bytes, max_objects=max_objects,
            waiting_bytes=lambda: self._objects.waiting_bytes,
        )  # fmt: skip
        self._objects = Workers(
            "object", OBJECT_WORKERS, _settled(on_object), self._callback_failed, length=max_objects
        )
        self._messages = Workers("message", MESSAGE_WORKERS, on_message, self._callback_failed, length=QUEUE_LENGTH)
        incoming = Incoming(
            self._receiving, self._outgoing, self._requests, self._messages, guard, self.counters, self._refusals,
            on_query, only_steered=only_steered,
        )  # fmt: skip
        self._inbox = Inbox(incoming, STRANGERS_PER_S if on_query is None else QUESTIONS_PER_S)
        self._closing = False
        self._thread = threading.Thread(target=self._run, name=f"ai-io-{address}", daemon=True)
        self._tidy_at, self._breath = 0.0, Breath()

    @property
    def refusals(self) -> dict[str, int]:
        """Packets that were refused, by reason."""
        return self._refusals.by_reason

    # --- for callers ----------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to receive."""
        self._thread.start()

    def close(self) -> None:
        """End: transfers under way fail, callbacks that run are not waited for."""
        if self._closing:
            return
        self._closing = self._requests.closing = True
        self._poke()
        if self._thread.ident is not None:
            self._thread.join(2.0)
        self._objects.close()
        self._messages.close()
        for sending in [*self._outgoing.sendings.values(), *self._new]:
            sending.handle.fail(TransportError(f"{sending.name} ended: the endpoint was closed"))
        self._socket.close()
        os.close(self._wake)

    def __enter__(self) -> Endpoint:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def send_object(self, obj: OutgoingObject) -> Transfer:
        """Launch an object; returns at once with the handle to wait on."""
        if obj.type not in SHARD_TYPES:
            raise TransportError(f"an object travels as shards, not as {obj.type.name}: use request for that")
        now = time.monotonic()
        return self._begin(Sending(obj, secrets.randbits(32), self._shard_size.now(now), now))

    def hand_over(self, object_id: int, visit: int, to: str, *, timeout_s: float = 5.0) -> Transfer | None:
        """Send on to an address what is here of an object that will never be whole here; None when that is nothing.

        The object is forgotten here: its own sender, when it asks, is told to launch it again.
        """
        assembly = self._on_io_thread(lambda: self._receiving.withdraw(object_id, visit), timeout_s)
        if assembly is None or not assembly.held.any():
            return None
        return self._begin(remainder(assembly, to, secrets.randbits(32), time.monotonic()))

    def relaunch(self, object_id: int, visit: int, *, former_lives: bool = False, timeout_s: float = 5.0) -> bool:
        """Launch an object under way again, since it is steered elsewhere now; False when none such is under way.

        ``former_lives``: its rendezvous so far hands over what it holds, so that need not be sent from here.
        """

        def launch(sending: Sending) -> bool:
            return sending.relaunch(time.monotonic(), former_lives=former_lives)

        return bool(self._on_io_thread(lambda: self._outgoing.each_named(object_id, visit, launch), timeout_s))

    def _on_io_thread(self, work: Callable[[], T], timeout_s: float) -> T | None:
        """Return what ``work`` says, done where nothing else touches the transfers; None when that took too long."""
        results: queue.SimpleQueue[T] = queue.SimpleQueue()
        with self._lock:
            self._errands.append(lambda: results.put(work()))
        self._poke()
        try:
            return results.get(timeout=timeout_s)
        except queue.Empty:
            return None

    def _begin(self, sending: Sending) -> Transfer:
        with self._lock:
            if self._closing:
                raise TransportError(f"{sending.name} cannot be sent: the endpoint is closed")
            self._new.append(sending)
        self._poke()
        return sending.handle

    def request(
        self, payload: bytes, *, to: str, type: PacketType, timeout_s: float = 10.0, object_id: int = 0
    ) -> tuple[Header, bytes]:
        """Send a packet and repeat it until the reply with its transfer id comes; ``RequestTimeout`` when none does.

        The other side must handle a repeated request once (same source, same transfer id). An ERROR reply raises
        ``TransferRefused``; a payload over the declared bound (``parts.py``) raises ``TransportError``.
        """
        return self._requests.ask(payload, to=to, type=type, timeout_s=timeout_s, object_id=object_id)

    def reply(self, header: Header, payload: bytes, peer: Peer, *, type: PacketType) -> None:
        """Answer a request that ``on_message`` got."""
        answer = msgspec.structs.replace(answer_to(header, type, NO_FLAGS, now_us()), shard_count=0)
        self._requests.send(answer, payload, peer)

    # --- the I/O thread -------------------------------------------------------------------------------------------

    def _run(self) -> None:
        _favour_this_thread()
        poll = select.epoll()
        poll.register(self._socket.fileno(), select.EPOLLIN)
        poll.register(self._wake, select.EPOLLIN)
        with contextlib.closing(poll):
            while not self._closing:
                try:
                    self._turn(poll)
                except Exception as error:  # the thread must outlive any surprise; the event says that there was one
                    _log.exception("transport turn failed")
                    self._emit("error", text=f"transport of {self.address}: {error!r}")

    def _turn(self, poll: select.epoll) -> None:
        """One turn: wait, take what came, answer it, send what may be sent."""
        now = time.monotonic()
        wait_s = max(self._wake_at(now) - now, 0.0)
        poll.poll(min(wait_s, 1.0), 4)
        dense = time.monotonic() - now < MOST_S  # what comes after a silence is alone, and may be urgent
        if dense and (self._receiving.busy or self._outgoing.sendings):  # one turn for many packets
            self._poked.wait(self._breath.pause_s(self._outgoing.sendings.values(), receiving=self._receiving.busy))
        else:
            self._breath.idle()
        self._poked.clear()
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._wake)
        self._take_new()
        self._take_in()
        now = time.monotonic()
        self._receiving.answer(now, now_us())
        self._outgoing.advance_all(now)
        if now >= self._tidy_at:
            self._tidy(now)

    def _wake_at(self, now: float) -> float:
        return min(self._receiving.wake_at(), self._tidy_at, self._outgoing.wake_at(now))

    def _take_in(self) -> None:
        before = self.counters.packets_in
        self._drain()
        self._breath.note_arrivals(self.counters.packets_in - before)

    def _drain(self) -> None:
        for _ in range(DRAIN):
            count = self._socket.receive(self._arrivals)
            if count:
                self.counters.packets_in += count
                self.counters.bytes_in += int(self._arrivals.sizes[:count].sum())
                self._inbox.sort(self._arrivals, count, time.monotonic())
            if count < len(self._arrivals.sizes):
                return

    def _take_new(self) -> None:
        with self._lock:
            fresh, self._new = self._new, []
            errands, self._errands = self._errands, []
        for errand in errands:
            errand()
        for sending in fresh:
            self._outgoing.put(sending)

    def _tidy(self, now: float) -> None:
        self._tidy_at = now + TIDY_S
        self._refusals.tell()
        for assembly in self._receiving.tidy(now):
            object_id, sender = assembly.launch.object_id, assembly.peer[0]
            self._emit("warning", text=f"object {object_id:#x} from {sender} was never completed")

    def _deliver(self, received: ReceivedObject) -> bool:
        if not self._objects.put(received, size=len(received.payload)):
            self.counters.overruns += 1
            return False
        self.counters.objects_in += 1
        return True

    def _callback_failed(self, error: Exception) -> None:
        self.counters.callback_errors += 1
        self._emit("error", text=f"callback at {self.address} failed: {error!r}")

    # --- out ------------------------------------------------------------------------------------------------------

    def _send(self, header: Header, payload: bytes, peer: Peer) -> None:
        """Send a packet that belongs to no transfer."""
        sign = self._guard.sign_request if self._guard is not None else None
        self._send_raw(sign(header, payload, peer[0]) if sign else encode(header, payload), peer)

    def _answer(self, header: Header, payload: bytes, peer: Peer, session: Session | None, first: bool) -> None:
        """Send what the receiving side has to say about a transfer."""
        if session is None or self._guard is None:
            self._send(header, payload, peer)
        elif first:
            self._send_raw(self._guard.answer(header, session), peer)
        else:
            self._send_raw(seal_with_mac(header, payload, session.send_key, session.key_id, TAG_BYTES), peer)

    def _send_raw(self, data: bytes, peer: Peer) -> None:
        self.counters.left(1, len(data))
        self._socket.send(data, peer)

    def _poke(self) -> None:
        self._poked.set()
        with contextlib.suppress(OSError):
            os.eventfd_write(self._wake, 1)


def _favour_this_thread() -> None:
    """Go before what computes on the same cores, where that is allowed: this thread sleeps most of the time."""
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), IO_PRIORITY)


def _settled(on_object: Callable[[ReceivedObject], None]) -> Callable[[ReceivedObject], None]:
    """Give callbacks bytes: the copy is made on their thread, not on the one that everything waits for."""

    def call(received: ReceivedObject) -> None:
        on_object(msgspec.structs.replace(received, payload=bytes(received.payload)))

    return call
