"""What callers of the transport hold in their hands: an object to send, a received one, the handle on a transfer."""

from __future__ import annotations

import threading

import msgspec

from packets.errors import TransportError
from packets.labels import label_address, object_label
from packets.wire import NO_FLAGS, Flag, Mandate, PacketType, Requirements


class OutgoingObject(msgspec.Struct, frozen=True, kw_only=True):
    """An object to launch. ``to`` left out: to the object's own label (an autonomous object names an address).

    ``mandate``: its owner's word, as it came with the object; left out, the holder is the owner and gives it.
    ``receiver_roles``: only a terminal of these roles may answer (with ``Flag.ENCRYPTED``: and can read it).
    """

    object_id: int
    type: PacketType
    payload: bytes | memoryview
    owner: str
    visit: int = 0
    visit_limit: int = 0
    requirements: Requirements | None = None
    traffic_class: int = 0
    flags: Flag = NO_FLAGS
    to: str | None = None
    mandate: Mandate | None = None
    receiver_roles: tuple[str, ...] = ()

    @property
    def destination(self) -> str:
        return self.to or label_address(object_label(self.object_id))


class ReceivedObject(msgspec.Struct, frozen=True, kw_only=True):
    """A whole object whose digest was right. ``seconds`` run from its launch packet to its last shard."""

    object_id: int
    type: PacketType
    payload: bytes | memoryview
    owner: str
    visit: int
    visit_limit: int
    requirements: Requirements | None
    sender: str
    transfer_id: int
    seconds: float
    packets: int
    duplicates: int
    mandate: Mandate | None = None
    flags: Flag = NO_FLAGS


class TransferStats(msgspec.Struct, frozen=True, kw_only=True):
    """What a finished transfer cost. ``bytes`` are the object's; ``seconds``: from the launch's answer to the end.

    ``losses``: shards thought lost (some of the ``retransmissions`` ask after a silence); ``rtt_ms``: the shortest.
    """

    bytes: int
    packets: int
    retransmissions: int
    losses: int = 0
    seconds: float
    launch_seconds: float
    rtt_ms: float
    smoothed_rtt_ms: float = 0.0
    goodput_mbps: float
    receiver: str


class Transfer:
    """A caller's handle on an object under way; safe to use from any thread.

    ``delivered_bytes``: what its receiver is known to hold.
    """

    def __init__(self, name: str, transfer_id: int) -> None:
        self.transfer_id = transfer_id
        self.cancelled = False
        self.delivered_bytes = 0
        self._name = name
        self._done = threading.Event()
        self.stats: TransferStats | None = None
        self.error: TransportError | None = None

    @property
    def done(self) -> bool:
        return self._done.is_set()

    def result(self, timeout_s: float | None = None) -> TransferStats:
        """Wait for the end; ``TransportError`` when the transfer failed or is not over within ``timeout_s``."""
        if not self._done.wait(timeout_s):
            raise TransportError(f"{self._name} is still under way after {timeout_s:g} s: wait longer or cancel it")
        if self.error is not None:
            raise self.error
        assert self.stats is not None
        return self.stats

    def cancel(self) -> None:
        """Give the transfer up; ``result`` then raises."""
        self.cancelled = True

    def finish(self, stats: TransferStats) -> None:
        """Called by the transport at the end."""
        if not self._done.is_set():
            self.stats = stats
            self._done.set()

    def fail(self, error: TransportError) -> None:
        """Called by the transport when there is no hope."""
        if not self._done.is_set():
            self.error = error
            self._done.set()
