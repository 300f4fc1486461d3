"""A terminal's line to those it trains a model with: pieces go out as announced objects, those that come in wait here.

A piece is announced at the DCC (kind ``exchange``: for which object, to which place), which gives it an identity and
steers it by its label like everything else; a place in another K-AS is an opaque handle that only its own DCC resolves.
Who has got a labelled piece knows its sender's address: what then has to go to and fro at a high rate (split learning)
travels straight to that address, under the same object's identity, its visit number counting the pieces.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from time import monotonic

from hosts.errors import LaunchFailed
from hosts.methods.envelope import Envelope, Kind, pack, unpack
from hosts.terminal.terminal import LAUNCH_ATTEMPTS, TRANSFER_TIMEOUT_S, Terminal
from packets.errors import TransportError
from packets.messages import AnnounceObject, AnnounceReply
from packets.transport import OutgoingObject, ReceivedObject
from packets.wire import Flag, PacketType

MAX_PIECES = 1024
MAX_BYTES = 256 << 20
MAX_DIRECT = 256
Key = tuple[int, str, int, int]


@dataclass(frozen=True)
class Piece:
    """What came in: from which address, as which object."""

    envelope: Envelope
    body: bytes
    sender: str
    object_id: int


class Exchange:
    """Thread-safe. Bounded: what nobody took is dropped, oldest first."""

    def __init__(self, terminal: Terminal) -> None:
        self.terminal = terminal
        self._changed = threading.Condition()
        self._pieces: OrderedDict[Key, Piece] = OrderedDict()
        self._bytes = 0
        self._direct: OrderedDict[int, None] = OrderedDict()

    # --- out ---

    def send(self, envelope: Envelope, body: bytes, *, target: str, about: int, straight: bool = False) -> int:
        """Announce and launch a piece to a place; returns its object id once it is there.

        ``about``: the object at hand that this is about. ``straight``: its identity then serves pieces to addresses.
        """
        payload = pack(envelope, body)
        message = AnnounceObject(
            name=self.terminal.name, kind="exchange", task=self.terminal.task.name, size_bytes=len(payload),
            for_object=about, target=target,
        )  # fmt: skip
        reply = self.terminal.dcc.ask(message, AnnounceReply, object_id=about)
        if straight:
            self.open_straight(reply.object_id)
        self._deliver(self._object(reply.object_id, payload, 0, None))
        return reply.object_id

    def send_straight(self, envelope: Envelope, body: bytes, *, to: str, object_id: int, visit: int) -> None:
        """Send a piece to the address of one that a labelled piece came from."""
        self._deliver(self._object(object_id, pack(envelope, body), visit, to))

    def _object(self, object_id: int, payload: bytes, visit: int, to: str | None) -> OutgoingObject:
        flags = Flag.AUTONOMOUS if to else Flag(0)
        return OutgoingObject(
            object_id=object_id, type=PacketType.DATA_SHARD, payload=payload, owner=self.terminal.plan.address,
            visit=visit, visit_limit=0, flags=flags, to=to,
        )  # fmt: skip

    def _deliver(self, obj: OutgoingObject) -> None:
        why = ""
        for attempt in range(LAUNCH_ATTEMPTS):
            try:
                self.terminal.network.send_object(obj).result(TRANSFER_TIMEOUT_S)
            except TransportError as error:
                why = " ".join(str(error).split())
            else:
                return
            if self.terminal.stopping.wait(2.0**attempt / 4):
                break
        raise LaunchFailed(f"piece {obj.object_id:#x} did not leave {self.terminal.name}: {why}")

    # --- in ---

    def open_straight(self, object_id: int) -> None:
        """Take pieces under this identity without an order: who sends them knows it from a labelled piece."""
        with self._changed:
            self._direct[object_id] = None
            while len(self._direct) > MAX_DIRECT:
                self._direct.popitem(last=False)

    def is_straight(self, object_id: int) -> bool:
        return object_id in self._direct

    def arrived(self, obj: ReceivedObject) -> Piece:
        """Unpack what came; ``LearningError`` when it is no piece."""
        envelope, body = unpack(obj.payload)
        return Piece(envelope, body, obj.sender, obj.object_id)

    def keep(self, piece: Piece) -> None:
        """Put a piece where ``take`` finds it; the first of its kind, number and member counts."""
        key = (piece.envelope.job, piece.envelope.kind, piece.envelope.number, piece.envelope.member)
        with self._changed:
            if key not in self._pieces:
                self._pieces[key] = piece
                self._bytes += len(piece.body)
            while len(self._pieces) > MAX_PIECES or (self._bytes > MAX_BYTES and len(self._pieces) > 1):
                _, old = self._pieces.popitem(last=False)
                self._bytes -= len(old.body)
            self._changed.notify_all()

    def take(
        self, job: int, kinds: tuple[Kind, ...], number: int, members: set[int], timeout_s: float
    ) -> dict[int, Piece]:
        """Wait for one piece of each member (of any of the kinds); returns those that came in time."""
        end, found = monotonic() + timeout_s, dict[int, Piece]()
        with self._changed:
            while True:
                for member in members - found.keys():
                    for kind in kinds:
                        piece = self._pieces.pop((job, kind, number, member), None)
                        if piece is not None:
                            found[member] = piece
                            self._bytes -= len(piece.body)
                left_s = end - monotonic()
                if found.keys() >= members or left_s <= 0 or self.terminal.stopping.is_set():
                    return found
                self._changed.wait(min(left_s, 0.5))
