"""The sockets of an asker: queries and probes out, signed; what answers them in, checked.

Each query has a source port out of a few, so that a select group that shares by the hash of addresses and ports shares
one asker's queries.
"""

from __future__ import annotations

import contextlib
import select
import socket
from collections.abc import Callable, Iterator

import msgspec

from packets.errors import PacketError
from packets.events import Emit
from packets.labels import AI_PORT, label_address
from packets.messages import Message, Refused, decode_message
from packets.parts import MESSAGE_ROOM, Unfinished, cut
from packets.security.keeper import Keeper
from packets.wire import Flag, Header, decode, encode

PORTS = 16
RECEIVE_BYTES = 1 << 20
AT_ONCE = 64  # datagrams of one socket before the others have their turn
Peer = tuple[str, int]
Heard = tuple[Header, Message, Peer]


class Ports:
    """``awaited`` tells whether a transfer id is one that is waited for; all else that comes in is left aside.

    ``to``: an address that gets all of it, instead of the labels (what a label costs is measured so).
    """

    def __init__(self, address: str, guard: Keeper | None, emit: Emit, awaited: Callable[[int], bool]) -> None:
        self._guard, self._emit, self._awaited = guard, emit, awaited
        self._unfinished: Unfinished[None] = Unfinished()
        self._sockets = [_socket(address) for _ in range(PORTS)]
        self._by_number = {s.fileno(): s for s in self._sockets}
        self._poll = select.epoll()
        for number in self._by_number:
            self._poll.register(number, select.EPOLLIN)
        self.to = ""
        self._listeners: dict[int, list[str]] = {}
        self._expected: dict[int, int] = {}

    def close(self) -> None:
        self._poll.close()
        for one in self._sockets:
            one.close()

    def answers(self, label: int, address: str) -> None:
        """Note who answers for a label: keys that are shared are cheaper than a signature."""
        known = self._listeners.setdefault(label, [])
        if address not in known:
            known.append(address)

    def expect(self, label: int, listeners: int) -> None:
        """Note how many answer for a label: until all of them are known, what goes there is signed."""
        self._expected[label] = listeners

    def forget(self, label: int | None = None) -> None:
        """Who answers for a label (any, where none is given) is not known any more."""
        if label is None:
            self._listeners.clear()
        else:
            self._listeners.pop(label, None)

    def _signed(self, guard: Keeper, header: Header, piece: bytes, label: int) -> bytes:
        """Sign for those that are known to answer; what goes again, for anybody: another may answer now."""
        known = self._listeners.get(label, [])
        if header.flags & Flag.REPEATED or len(known) < max(1, self._expected.get(label, 1)):
            return guard.sign_request(header, piece, label_address(label))
        return guard.sign_request(header, piece, known[0]) if len(known) == 1 else guard.sign_for(header, piece, known)

    def send(self, header: Header, payload: bytes, label: int) -> None:
        """Send a message to a label, from the port that its transfer id has."""
        out, to = self._sockets[header.transfer_id % PORTS], self.to or label_address(label)
        full = msgspec.structs.replace(header, total_length=len(payload))
        for part, piece in cut(full, payload, MESSAGE_ROOM):
            data = self._signed(self._guard, part, piece, label) if self._guard else None
            with contextlib.suppress(OSError):  # a full buffer is a lost packet: the query goes again
                out.sendto(encode(part, piece) if data is None else data, (to, AI_PORT))

    def wait(self, timeout_s: float) -> Iterator[Heard]:
        """Wait for what comes in; yield whole messages that are awaited."""
        for number, _ in self._poll.poll(max(0.0, timeout_s)):
            yield from self._drain(self._by_number[number])

    def _drain(self, one: socket.socket) -> Iterator[Heard]:
        for _ in range(AT_ONCE):
            try:
                data, peer = one.recvfrom(65536)
            except BlockingIOError:
                return
            except OSError:
                continue
            if (heard := self._read(data, peer)) is not None:
                yield heard

    def _read(self, data: bytes, peer: Peer) -> Heard | None:
        try:
            header, payload = decode(data)
        except PacketError as error:
            self._emit("packet.refused", reason=error.reason, sender=peer[0])
            return None
        if not header.flags & Flag.REPLY or not self._awaited(header.transfer_id):
            return None
        if self._guard is not None and (refusal := self._guard.check_request(header, data, peer)) is not None:
            self._emit("packet.refused", reason=str(refusal), sender=peer[0])
            return None
        try:
            whole = self._unfinished.take(peer, header, bytes(payload), None)
            return None if whole is None else (header, decode_message(whole[0]), peer)
        except (PacketError, msgspec.DecodeError):
            return header, Refused(reason=bytes(payload)[:200].decode(errors="replace")), peer


def _socket(address: str) -> socket.socket:
    one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BYTES)
    one.setblocking(False)
    one.bind((address, 0))
    return one
