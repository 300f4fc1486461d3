"""AI packets over UDP: whole objects to wherever the network steers them, requests and replies; one I/O thread.

An object is launched (one packet, repeated until a rendezvous answers), then sent shard by shard (``sender.py``,
``congestion.py``) and put together at the other end (``receiver.py``).  Callbacks run on worker threads, may take as
long as they like, and may send and request themselves.  Malformed input is an event ``packet.refused`` and a counter.
"""

from __future__ import annotations

import contextlib
import logging
import os
import random
import select
import threading
import time
from collections.abc import Callable
from typing import Any

import msgspec

from packets.errors import PacketError, RequestTimeout, TransferRefused, TransportError
from packets.events import Emit, silent
from packets.labels import AI_PORT
from packets.receiver import Receiving, answer_to
from packets.sender import Sending
from packets.transfers import OutgoingObject, ReceivedObject, Transfer, TransferStats
from packets.udp import UdpSocket
from packets.wire import (
    DEFAULT_MTU,
    NO_FLAGS,
    SHARD_TYPES,
    Flag,
    Header,
    PacketType,
    TrafficClass,
    decode,
    encode,
    payload_room,
    write,
)
from packets.workers import Workers

__all__ = ["Counters", "Endpoint", "OutgoingObject", "ReceivedObject", "Transfer", "TransferStats"]

OBJECT_WORKERS = 4
MESSAGE_WORKERS = 2
QUEUE_LENGTH = 256
DRAIN = 256
BREATH_S = 0.0008
TIDY_S = 1.0
REQUEST_PAUSES_S = (0.2, 0.4, 0.8, 1.6)
REFUSALS_PER_S = 20
MASK_32 = 0xFFFF_FFFF

Peer = tuple[str, int]
_log = logging.getLogger(__name__)


class Counters(msgspec.Struct):
    """What an endpoint counts over its life."""

    packets_in: int = 0
    packets_out: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    refused: int = 0
    ignored: int = 0
    objects_in: int = 0
    objects_out: int = 0
    messages_in: int = 0
    overruns: int = 0
    callback_errors: int = 0


class Endpoint:
    """The AI port of one terminal. ``on_object`` gets whole, checked objects; ``on_message`` every other request.

    ``max_object_bytes`` bounds one object, ``max_total_bytes`` and ``max_objects`` all objects on their way in: what is
    over them is refused with an ERROR packet before a byte is stored.
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
    ) -> None:
        self.address, self.port = address, port
        self.counters = Counters()
        self._emit = emit
        self._room = payload_room(mtu)
        try:
            self._socket = UdpSocket(address, port)
        except OSError as error:
            text = f"cannot bind {address}:{port}: {error.strerror}; is another agent running?"
            raise TransportError(text) from error
        self.port = self._socket.address[1]
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._lock = threading.Lock()
        self._new: list[Sending] = []
        self._sendings: dict[int, Sending] = {}
        self._pending: dict[int, _Pending] = {}
        self._batch = bytearray((self._room + 64) * 48)
        self._receiving = Receiving(
            send=self._send,
            deliver=self._deliver,
            refused=self._refuse_header,
            max_object_bytes=max_object_bytes,
            max_total_bytes=max_total_bytes,
            max_objects=max_objects,
            waiting_bytes=lambda: self._objects.waiting_bytes,
        )
        self._objects = Workers("object", OBJECT_WORKERS, on_object, self._callback_failed, length=max_objects)
        self._messages = Workers("message", MESSAGE_WORKERS, on_message, self._callback_failed, length=QUEUE_LENGTH)
        self._closing = False
        self._thread = threading.Thread(target=self._run, name=f"ai-io-{address}", daemon=True)
        self._random = random.SystemRandom()
        self._refusals, self._refusals_since = 0, 0.0
        self._tidy_at = 0.0
        self._first = 0

    # --- for callers ----------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to receive."""
        self._thread.start()

    def close(self) -> None:
        """End: transfers under way fail, callbacks that run are not waited for."""
        if self._closing:
            return
        self._closing = True
        self._poke()
        if self._thread.ident is not None:
            self._thread.join(2.0)
        self._objects.close()
        self._messages.close()
        for sending in [*self._sendings.values(), *self._new]:
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
        sending = Sending(obj, self._random.getrandbits(32), self._room, time.monotonic())
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
        ``TransferRefused``; a payload that does not fit one packet raises ``TransportError``.
        """
        if len(payload) > self._room:
            raise TransportError(f"request of {len(payload)} bytes to {to}: at most {self._room} fit one packet")
        pending = _Pending()
        transfer_id = self._random.getrandbits(32)
        header = Header(
            type=type, traffic_class=TrafficClass.CONTROL, object_id=object_id, owner=self.address,
            transfer_id=transfer_id, total_length=len(payload),
        )  # fmt: skip
        self._pending[transfer_id] = pending
        try:
            return self._repeat(header, payload, to, pending, time.monotonic() + timeout_s, timeout_s)
        finally:
            self._pending.pop(transfer_id, None)

    def reply(self, header: Header, payload: bytes, peer: Peer, *, type: PacketType) -> None:
        """Answer a request that ``on_message`` got."""
        if len(payload) > self._room:
            raise TransportError(f"reply of {len(payload)} bytes to {peer[0]}: at most {self._room} fit one packet")
        self._send(msgspec.structs.replace(answer_to(header, type, NO_FLAGS, _now_us()), shard_count=0), payload, peer)

    def _repeat(
        self, header: Header, payload: bytes, to: str, pending: _Pending, deadline: float, timeout_s: float
    ) -> tuple[Header, bytes]:
        tries = 0
        while (left := deadline - time.monotonic()) > 0 and not self._closing:
            flags = Flag.REPEATED if tries else NO_FLAGS
            self._send(msgspec.structs.replace(header, flags=flags, timestamp_us=_now_us()), payload, (to, AI_PORT))
            pause = REQUEST_PAUSES_S[min(tries, len(REQUEST_PAUSES_S) - 1)]
            tries += 1
            if pending.event.wait(min(pause, left)):
                assert pending.answer is not None
                answer, body = pending.answer
                if answer.type is PacketType.ERROR:
                    text = body.decode(errors="replace")
                    raise TransferRefused(answer.error or 0, f"{header.type.name} request to {to} was refused: {text}")
                return answer, body
        raise RequestTimeout(f"{to} did not answer a {header.type.name} request within {timeout_s:g} s ({tries} tries)")

    # --- the I/O thread -------------------------------------------------------------------------------------------

    def _run(self) -> None:
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
        if self._receiving.busy or self._sendings:
            time.sleep(BREATH_S)  # one turn for a bunch of packets, and the interpreter for others meanwhile
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._wake)
        self._take_new()
        for _ in range(DRAIN):
            got = self._socket.receive()
            if got is None:
                break
            self._on_datagram(*got)
        now = time.monotonic()
        self._receiving.answer(now, _now_us())
        self._advance_all(now)
        if now >= self._tidy_at:
            self._tidy(now)

    def _wake_at(self, now: float) -> float:
        due = min(self._receiving.wake_at(), self._tidy_at)
        for sending in self._sendings.values():
            due = min(due, sending.wake_at(now))
        return due

    def _take_new(self) -> None:
        with self._lock:
            fresh, self._new = self._new, []
        for sending in fresh:
            self._sendings[sending.transfer_id] = sending

    def _tidy(self, now: float) -> None:
        self._tidy_at = now + TIDY_S
        for assembly in self._receiving.tidy(now):
            object_id, sender = assembly.launch.object_id, assembly.peer[0]
            self._emit("warning", text=f"object {object_id:#x} from {sender} was never completed")

    # --- in -------------------------------------------------------------------------------------------------------

    def _on_datagram(self, data: memoryview, peer: Peer) -> None:
        self.counters.packets_in += 1
        self.counters.bytes_in += len(data)
        try:
            header, payload = decode(data)
        except PacketError as error:
            self._refuse(error.reason, peer, text=str(error))
            return
        if header.type in SHARD_TYPES:
            self._receiving.on_packet(header, payload, peer, time.monotonic(), _now_us())
        elif header.flags & Flag.REPLY and (pending := self._pending.get(header.transfer_id)) is not None:
            pending.put(header, bytes(payload))
        elif header.type in (PacketType.ACK, PacketType.ERROR):
            self._on_answer(header, payload, peer)
        else:
            self.counters.messages_in += 1
            if not self._messages.put(header, bytes(payload), peer):
                self.counters.overruns += 1

    def _on_answer(self, header: Header, payload: memoryview, peer: Peer) -> None:
        sending = self._sendings.get(header.transfer_id)
        if sending is None or sending.object.object_id != header.object_id:
            self.counters.ignored += 1
        elif header.type is PacketType.ACK:
            sending.on_ack(header, peer[0], time.monotonic(), _now_us())
        else:
            sending.on_error(header, bytes(payload).decode(errors="replace"), time.monotonic())

    def _deliver(self, received: ReceivedObject) -> bool:
        if not self._objects.put(received, size=len(received.payload)):
            self.counters.overruns += 1
            return False
        self.counters.objects_in += 1
        return True

    def _refuse_header(self, reason: str, header: Header, peer: Peer) -> None:
        self._refuse(reason, peer, object_id=header.object_id, transfer_id=header.transfer_id)

    def _refuse(self, reason: str, peer: Peer, **data: Any) -> None:
        """Count a refused packet and say so, but not more often than listeners can bear."""
        self.counters.refused += 1
        now = time.monotonic()
        if now - self._refusals_since > 1.0:
            self._refusals, self._refusals_since = 0, now
        self._refusals += 1
        if self._refusals <= REFUSALS_PER_S:
            self._emit("packet.refused", reason=reason, sender=peer[0], count=self.counters.refused, **data)

    def _callback_failed(self, error: Exception) -> None:
        self.counters.callback_errors += 1
        self._emit("error", text=f"callback at {self.address} failed: {error!r}")

    # --- out ------------------------------------------------------------------------------------------------------

    def _send(self, header: Header, payload: bytes, peer: Peer) -> None:
        data = encode(header, payload)
        self._count_out(1, len(data))
        self._socket.send(data, peer)

    def _count_out(self, packets: int, size: int) -> None:
        self.counters.packets_out += packets
        self.counters.bytes_out += size

    def _advance_all(self, now: float) -> None:
        """Give every transfer its turn, each time beginning with another one: the kernel's buffer may not hold all."""
        order = list(self._sendings.values())
        self._first = (self._first + 1) % max(len(order), 1)
        for sending in order[self._first :] + order[: self._first]:
            self._advance(sending, now)

    def _advance(self, sending: Sending, now: float) -> None:
        """Send what one transfer may send now; forget it when it is over."""
        sending.check(now)
        if sending.handle.done:
            self.counters.objects_out += 1
            del self._sendings[sending.transfer_id]
            return
        launch = sending.launch(now, _now_us())
        if launch is not None:
            self._send(launch, b"", (sending.destination, AI_PORT))
        while indices := sending.take(now):
            left = self._send_shards(sending, indices)
            sending.sent(indices[:left], now)
            if left < len(indices):
                sending.put_back(indices[left:])
                break

    def _send_shards(self, sending: Sending, indices: list[int]) -> int:
        """Send shards in runs of equal size; return how many left."""
        end, size, now_us = 0, self._room + 64, _now_us()
        for index in indices:
            header, payload = sending.shard(index, now_us)
            end = write(self._batch, end, header, payload)
            if len(payload) < self._room:
                break
        with memoryview(self._batch) as view, view[:end] as frames:
            left = self._socket.send_batch(frames, size, (sending.destination, AI_PORT))
        self._count_out(left, min(left * size, end))
        return left

    def _poke(self) -> None:
        with contextlib.suppress(OSError):
            os.eventfd_write(self._wake, 1)


class _Pending:
    """A request that waits for its reply."""

    def __init__(self) -> None:
        self.event = threading.Event()
        self.answer: tuple[Header, bytes] | None = None

    def put(self, header: Header, payload: bytes) -> None:
        if not self.event.is_set():
            self.answer = (header, payload)
            self.event.set()


def _now_us() -> int:
    return time.monotonic_ns() // 1000 & MASK_32
