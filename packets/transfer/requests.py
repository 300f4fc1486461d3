"""Messages: a request is repeated until it is answered; whole ones that come in are handed on."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable

import msgspec

from packets.errors import RequestTimeout, TransferRefused
from packets.labels import AI_PORT
from packets.parts import Unfinished, cut
from packets.transfer.udp import Peer, now_us
from packets.wire import NO_FLAGS, Flag, Header, PacketType, TrafficClass

PAUSES_S = (0.2, 0.4, 0.8, 1.6)
Send = Callable[[Header, bytes, Peer], None]


class Requests:
    """Requests of an endpoint that wait for their replies, and messages that come in.

    ``send`` puts out one packet, ``room`` is what its payload holds.
    """

    def __init__(self, address: str, send: Send, room: int) -> None:
        self._address, self._send, self._room = address, send, room
        self._pending: dict[int, _Pending] = {}
        self._unfinished: Unfinished[None] = Unfinished()
        self.closing = False

    def __contains__(self, transfer_id: int) -> bool:
        return transfer_id in self._pending

    def awaits(self, header: Header) -> bool:
        """Tell whether a packet answers a request of ours."""
        return bool(header.flags & Flag.REPLY) and header.transfer_id in self._pending

    def ask(
        self, payload: bytes, *, to: str, type: PacketType, timeout_s: float, object_id: int
    ) -> tuple[Header, bytes]:
        """Send a message and repeat it until the reply with its transfer id comes (``Endpoint.request``)."""
        pending = _Pending()
        transfer_id = secrets.randbits(32)
        header = Header(
            type=type, traffic_class=TrafficClass.CONTROL, object_id=object_id, owner=self._address,
            transfer_id=transfer_id, total_length=len(payload),
        )  # fmt: skip
        self._pending[transfer_id] = pending
        try:
            return self._repeat(header, payload, to, pending, timeout_s)
        finally:
            self._pending.pop(transfer_id, None)

    def say_again(self) -> None:
        """Repeat at once what waits for an answer: whoever is asked may have come back."""
        for pending in list(self._pending.values()):
            pending.event.set()

    def send(self, header: Header, payload: bytes, peer: Peer) -> None:
        """Send a message in as many packets as it needs."""
        for part, piece in cut(header, payload, self._room):
            self._send(part, piece, peer)

    def take(self, header: Header, payload: bytes, peer: Peer) -> bytes | None:
        """Take a packet of a message; return a whole one that answers nothing. ``PacketError`` where parts lie."""
        whole = self._unfinished.take(peer, header, payload, None)
        if whole is None:
            return None
        pending = self._pending.get(header.transfer_id) if header.flags & Flag.REPLY else None
        if pending is None:
            return whole[0]
        pending.put(header, whole[0])
        return None

    def _repeat(
        self, header: Header, payload: bytes, to: str, pending: _Pending, timeout_s: float
    ) -> tuple[Header, bytes]:
        tries, deadline = 0, time.monotonic() + timeout_s
        while (left := deadline - time.monotonic()) > 0 and not self.closing:
            flags = Flag.REPEATED if tries else NO_FLAGS
            self.send(msgspec.structs.replace(header, flags=flags, timestamp_us=now_us()), payload, (to, AI_PORT))
            pause = PAUSES_S[min(tries, len(PAUSES_S) - 1)]
            tries += 1
            if pending.event.wait(min(pause, left)):
                pending.event.clear()
                if pending.answer is None:
                    continue  # ``say_again``
                answer, body = pending.answer
                if answer.type is PacketType.ERROR:
                    text = body.decode(errors="replace")
                    raise TransferRefused(answer.error or 0, f"{header.type.name} request to {to} was refused: {text}")
                return answer, body
        raise RequestTimeout(f"{to} did not answer a {header.type.name} request within {timeout_s:g} s ({tries} tries)")


class _Pending:
    """A request that waits for its reply."""

    def __init__(self) -> None:
        self.event = threading.Event()
        self.answer: tuple[Header, bytes] | None = None

    def put(self, header: Header, payload: bytes) -> None:
        if self.answer is None:
            self.answer = (header, payload)
            self.event.set()
