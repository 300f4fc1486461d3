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
import random
import select
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from packets.checksums import TAG_BYTES
from packets.errors import PacketError, RequestTimeout, TransferRefused, TransportError
from packets.events import Emit, silent
from packets.labels import AI_PORT
from packets.parts import MESSAGE_ROOM, Unfinished, cut
from packets.security.seal import mac_matches, seal_with_mac
from packets.transfer.assembly import Feed, Rows
from packets.transfer.guard import Guard, Session
from packets.transfer.inbox import Inbox
from packets.transfer.pathmtu import BASE_MTU, ShardSize
from packets.transfer.receiver import Receiving, answer_to
from packets.transfer.sender import MAX_BATCH, Indices, Sending, remainder
from packets.transfer.udp import Arrivals, UdpSocket
from packets.transfer.workers import Workers
from packets.transfers import OutgoingObject, ReceivedObject, Transfer, TransferStats
from packets.wire import (
    DEFAULT_MTU,
    IP_UDP_BYTES,
    NO_FLAGS,
    SHARD_TYPES,
    SIGNED_BYTES,
    Flag,
    Header,
    PacketType,
    TrafficClass,
    decode,
    encode,
    payload_room,
)

__all__ = ["Counters", "Endpoint", "OutgoingObject", "ReceivedObject", "Transfer", "TransferStats"]

OBJECT_WORKERS = 4
MESSAGE_WORKERS = 2
QUEUE_LENGTH = 256
DRAIN = 4
BREATH_S, MAX_BREATH_S = 0.0004, 0.006
GATHER = 56  # packets of a turn: what a turn costs besides its packets is then little
GROWTH = 1.05  # of a breath, a turn: a start, whose rate doubles, is not slowed
TIDY_S = 1.0
IO_PRIORITY = -10  # as that of the switches and the delay lines
REQUEST_PAUSES_S = (0.2, 0.4, 0.8, 1.6)
REFUSALS_PER_S = 20
MASK_32 = 0xFFFF_FFFF

Peer = tuple[str, int]
T = TypeVar("T")
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
        guard: Guard | None = None,
    ) -> None:
        self.address, self.port = address, port
        self.counters = Counters()
        self._emit, self._guard = emit, guard
        self._message_room = min(payload_room(mtu) - SIGNED_BYTES, MESSAGE_ROOM)
        self._unfinished: Unfinished[None] = Unfinished()
        self._shard_size = ShardSize(mtu, sealed=guard is not None)
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
        self._batch = bytearray((mtu - IP_UDP_BYTES) * MAX_BATCH)
        self._arrivals = Arrivals(stride=max(mtu - IP_UDP_BYTES + 64, 1536))
        self._inbox = Inbox(self)
        self._errands: list[Callable[[], None]] = []
        self._receiving = Receiving(
            send=self._answer,
            deliver=self._deliver,
            refused=self._refuse_header,
            max_object_bytes=max_object_bytes,
            max_total_bytes=max_total_bytes,
            max_objects=max_objects,
            waiting_bytes=lambda: self._objects.waiting_bytes,
        )
        self._objects = Workers(
            "object", OBJECT_WORKERS, _settled(on_object), self._callback_failed, length=max_objects
        )
        self._messages = Workers("message", MESSAGE_WORKERS, on_message, self._callback_failed, length=QUEUE_LENGTH)
        self._closing = False
        self._thread = threading.Thread(target=self._run, name=f"ai-io-{address}", daemon=True)
        self._random = random.SystemRandom()
        self.refusals: dict[str, int] = {}
        self._refusals, self._refusals_since = 0, 0.0
        self._tidy_at, self._breath_s = 0.0, BREATH_S
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
        now = time.monotonic()
        return self._begin(Sending(obj, self._random.getrandbits(32), self._shard_size.now(now), now))

    def hand_over(self, object_id: int, visit: int, to: str, *, timeout_s: float = 5.0) -> Transfer | None:
        """Send on to an address what is here of an object that will never be whole here; None when that is nothing.

        The object is forgotten here: its own sender, when it asks, is told to launch it again.
        """
        assembly = self._on_io_thread(lambda: self._receiving.withdraw(object_id, visit), timeout_s)
        if assembly is None or not assembly.held.any():
            return None
        return self._begin(remainder(assembly, to, self._random.getrandbits(32), time.monotonic()))

    def relaunch(self, object_id: int, visit: int, *, former_lives: bool = False, timeout_s: float = 5.0) -> bool:
        """Launch an object under way again, since it is steered elsewhere now; False when none such is under way.

        ``former_lives``: its rendezvous so far hands over what it holds, so that need not be sent from here.
        """

        def errand() -> bool:
            named = [s for s in self._sendings.values() if (s.object.object_id, s.object.visit) == (object_id, visit)]
            return any([sending.relaunch(time.monotonic(), former_lives=former_lives) for sending in named])

        return bool(self._on_io_thread(errand, timeout_s))

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
        answer = msgspec.structs.replace(answer_to(header, type, NO_FLAGS, _now_us()), shard_count=0)
        self._send_message(answer, payload, peer)

    def _repeat(
        self, header: Header, payload: bytes, to: str, pending: _Pending, deadline: float, timeout_s: float
    ) -> tuple[Header, bytes]:
        tries = 0
        while (left := deadline - time.monotonic()) > 0 and not self._closing:
            flags = Flag.REPEATED if tries else NO_FLAGS
            again = msgspec.structs.replace(header, flags=flags, timestamp_us=_now_us())
            self._send_message(again, payload, (to, AI_PORT))
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
        if self._receiving.busy or self._sendings:
            time.sleep(self._breath())  # one turn for a bunch of packets, and the interpreter for others meanwhile
        else:
            self._breath_s = BREATH_S
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._wake)
        self._take_new()
        self._take_in()
        now = time.monotonic()
        self._receiving.answer(now, _now_us())
        self._advance_all(now)
        if now >= self._tidy_at:
            self._tidy(now)

    def _breath(self) -> float:
        """Return how long packets may gather: about ``GATHER`` of them, in or out, in 6 ms at most."""
        wanted = min((s.gather_s(GATHER) for s in self._sendings.values()), default=MAX_BREATH_S)
        return max(min(self._breath_s if self._receiving.busy else MAX_BREATH_S, wanted), BREATH_S)

    def _note_arrivals(self, count: int) -> None:
        """Let the next breath be longer where few packets came in this one, and shorter where many did."""
        if count < GATHER:
            self._breath_s = min(self._breath_s * GROWTH, MAX_BREATH_S)
        elif count > 2 * GATHER:
            self._breath_s = max(self._breath_s / 2, BREATH_S)

    def _wake_at(self, now: float) -> float:
        due = min(self._receiving.wake_at(), self._tidy_at)
        for sending in self._sendings.values():
            due = min(due, sending.wake_at(now))
        return due

    def _take_in(self) -> None:
        before = self.counters.packets_in
        self._drain()
        self._note_arrivals(self.counters.packets_in - before)

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
            self._sendings[sending.transfer_id] = sending

    def _tidy(self, now: float) -> None:
        self._tidy_at = now + TIDY_S
        for assembly in self._receiving.tidy(now):
            object_id, sender = assembly.launch.object_id, assembly.peer[0]
            self._emit("warning", text=f"object {object_id:#x} from {sender} was never completed")

    # --- in -------------------------------------------------------------------------------------------------------

    def feed(self, peer: Peer, transfer_id: int) -> Feed | None:
        """Return a transfer that is on its way in (for the inbox, as the next four)."""
        return self._receiving.feed(peer, transfer_id)

    def expects(self, transfer_id: int) -> bool:
        """Tell whether a packet of this transfer id is awaited."""
        return transfer_id in self._sendings or transfer_id in self._pending

    def take_shards(self, rows: Rows, raw: memoryview, peer: Peer) -> None:
        """Take shards of one transfer."""
        self._receiving.on_shards(rows, decode(raw)[0], peer, time.monotonic(), _now_us())

    def take_one(self, raw: memoryview, peer: Peer) -> None:
        """Take a datagram, whatever it is."""
        try:
            header, payload = decode(raw)
        except PacketError as error:
            self._refuse(error.reason, peer, text=str(error))
            return
        if header.type in SHARD_TYPES:
            self._take_shard(header, payload, raw, peer)
        elif header.type in (PacketType.ACK, PacketType.ERROR) and header.transfer_id in self._sendings:
            self._take_answer(header, payload, raw, peer)
        elif self._guard is not None and (reason := self._guard.check_request(header, raw, peer)) is not None:
            self._refuse_header(reason, header, peer)
        elif header.type in (PacketType.ACK, PacketType.ERROR) and self._awaiting(header) is None:
            self.counters.ignored += 1
        else:
            self._take_message(header, bytes(payload), peer)

    def _take_message(self, header: Header, payload: bytes, peer: Peer) -> None:
        """Take a packet of a message: an answer that somebody waits for, or a question; whole ones are handed on."""
        try:
            whole = self._unfinished.take(peer, header, payload, None)
        except PacketError as error:
            self._refuse(error.reason, peer, text=str(error))
            return
        if whole is None:
            return
        pending = self._awaiting(header)
        if pending is not None:
            pending.put(header, whole[0])
        else:
            self.counters.messages_in += 1
            if not self._messages.put(header, whole[0], peer):
                self.counters.overruns += 1

    def ignore(self, peer: Peer, count: int) -> None:
        """Note shards of an unknown transfer: stragglers where everybody is believed, else an attempt."""
        if self._guard is None:
            self.counters.ignored += count
        else:
            self._refuse("unknown-transfer", peer, count)

    def refuse(self, reason: str, peer: Peer, count: int) -> None:
        """Note datagrams that were refused."""
        self._refuse(reason, peer, count)

    def _awaiting(self, header: Header) -> _Pending | None:
        return self._pending.get(header.transfer_id) if header.flags & Flag.REPLY else None

    def _take_shard(self, header: Header, payload: memoryview, raw: memoryview, peer: Peer) -> None:
        """Take a launch or a single shard, if the guard lets it pass."""
        session: Session | None = None
        if header.flags & Flag.LAUNCH and self._guard is not None:
            found = self._guard.accept(header, raw, peer)
            if isinstance(found, str):
                self._refuse_header(found, header, peer)
                return
            session = found
        elif not self._is_sealed(header, raw, peer):
            self._refuse_header("mac", header, peer)
            return
        if header.flags & Flag.LAUNCH:
            self._receiving.on_launch(header, peer, time.monotonic(), _now_us(), session)
            return
        if not self._receiving.knows(peer, header.transfer_id):
            self.ignore(peer, 1)
        self._receiving.on_packet(header, payload, peer, time.monotonic(), _now_us())

    def _is_sealed(self, header: Header, raw: memoryview, peer: Peer) -> bool:
        """Tell whether a shard has the MAC of its transfer, if that one has a key."""
        feed = self._receiving.feed(peer, header.transfer_id)
        key = feed.session.receive_key if feed is not None and feed.session is not None else None
        return key is None or mac_matches(header, raw, key, TAG_BYTES)

    def _take_answer(self, header: Header, payload: memoryview, raw: memoryview, peer: Peer) -> None:
        """Take an acknowledgement or an error about a transfer of ours."""
        sending = self._sendings[header.transfer_id]
        if sending.object.object_id != header.object_id:
            self.counters.ignored += 1
            return
        reason = self._doubt(sending, header, raw, peer)
        if reason is not None:
            self._refuse_header(reason, header, peer)
        elif header.type is PacketType.ACK:
            sending.on_ack(header, peer[0], time.monotonic(), _now_us())
        else:
            sending.on_error(header, bytes(payload).decode(errors="replace"), time.monotonic())

    def _doubt(self, sending: Sending, header: Header, raw: memoryview, peer: Peer) -> str | None:
        """Return why an answer is not believed; take its sender's keys when it is the first to a launch."""
        if self._guard is None:
            return None
        if sending.answers_launch(header):
            found = self._guard.confirm(header, raw, peer)
            if isinstance(found, str):
                if found == "role":  # signed by who it says it is, but not whom the object is for
                    sending.handle.fail(TransportError(f"{sending.name}: {getattr(found, 'text', found)}"))
                return found
            sending.session = found
            return None
        if sending.session is not None and mac_matches(header, raw, sending.session.receive_key, TAG_BYTES):
            return None
        if header.type is PacketType.ERROR:
            return self._guard.check_request(header, raw, peer)
        return None if sending.answered(header) else "mac"

    def _deliver(self, received: ReceivedObject) -> bool:
        if not self._objects.put(received, size=len(received.payload)):
            self.counters.overruns += 1
            return False
        self.counters.objects_in += 1
        return True

    def _refuse_header(self, reason: str, header: Header, peer: Peer, count: int = 1) -> None:
        facts: dict[str, Any] = {"text": text} if (text := getattr(reason, "text", "")) else {}
        self._refuse(str(reason), peer, count, object_id=header.object_id, transfer_id=header.transfer_id, **facts)

    def _refuse(self, reason: str, peer: Peer, count: int = 1, **data: Any) -> None:
        """Count refused packets and say so, but not more often than listeners can bear."""
        self.counters.refused += count
        self.refusals[reason] = self.refusals.get(reason, 0) + count
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
        """Send a packet that belongs to no transfer."""
        sign = self._guard.sign_request if self._guard is not None else None
        self._send_raw(sign(header, payload, peer[0]) if sign else encode(header, payload), peer)

    def _send_message(self, header: Header, payload: bytes, peer: Peer) -> None:
        for part, piece in cut(header, payload, self._message_room):
            self._send(part, piece, peer)

    def _answer(self, header: Header, payload: bytes, peer: Peer, session: Session | None, first: bool) -> None:
        """Send what the receiving side has to say about a transfer."""
        if session is None or self._guard is None:
            self._send(header, payload, peer)
        elif first:
            self._send_raw(self._guard.answer(header, session), peer)
        else:
            self._send_raw(seal_with_mac(header, payload, session.send_key, session.key_id, TAG_BYTES), peer)

    def _send_raw(self, data: bytes, peer: Peer) -> None:
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
            self._end(sending)
            return
        if sending.in_black_hole(now) and sending.shard_bytes > self._shard_size.least:
            self._go_narrower(sending, now)
            return
        launch = sending.launch(now, _now_us())
        if launch is not None:
            try:
                data = encode(launch) if self._guard is None else self._guard.launch(sending.object, launch)
            except TransportError as error:  # an object of somebody else without his word for it
                sending.handle.fail(error)
                return
            self._send_raw(data, (sending.destination, AI_PORT))
        while (indices := sending.take(now)).size:
            left = self._send_shards(sending, indices)
            sending.sent(indices[:left], now)
            if left < len(indices):
                sending.put_back(indices[left:])
                break

    def _go_narrower(self, sending: Sending, now: float) -> None:
        """Launch an object again in smaller packets: full-sized ones do not get through."""
        self._shard_size.narrow(now)
        del self._sendings[sending.transfer_id]
        narrow = sending.narrower(self._random.getrandbits(32), self._shard_size.least, now)
        self._sendings[narrow.transfer_id] = narrow
        self._emit(
            "warning", object_id=sending.object.object_id,
            text=f"{sending.name}: its launch is answered, but no packet of {sending.frame_bytes + IP_UDP_BYTES} bytes "
            f"arrives: some port on the way has a smaller MTU; it goes on in packets of {BASE_MTU}",
        )  # fmt: skip

    def _end(self, sending: Sending) -> None:
        self.counters.objects_out += 1
        del self._sendings[sending.transfer_id]
        obj, handle = sending.object, sending.handle
        facts = dict(object_id=obj.object_id, visit=obj.visit, to=sending.destination)
        if handle.stats is not None:
            self._emit("object.sent", ok=True, **facts, **msgspec.structs.asdict(handle.stats))
        else:
            self._emit("object.sent", ok=False, **facts, bytes=0, reason=str(handle.error))

    def _send_shards(self, sending: Sending, indices: Indices) -> int:
        """Send shards as one train; return how many left."""
        end, size = sending.write(self._batch, indices, _now_us()), sending.frame_bytes
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


def _favour_this_thread() -> None:
    """Go before what computes on the same cores, where that is allowed: this thread sleeps most of the time."""
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), IO_PRIORITY)


def _settled(on_object: Callable[[ReceivedObject], None]) -> Callable[[ReceivedObject], None]:
    """Give callbacks bytes: the copy is made on their thread, not on the one that everything waits for."""

    def call(received: ReceivedObject) -> None:
        on_object(msgspec.structs.replace(received, payload=bytes(received.payload)))

    return call


def _now_us() -> int:
    return time.monotonic_ns() // 1000 & MASK_32
