"""What an endpoint refuses: counted by reason, told no more often than listeners can bear."""

from __future__ import annotations

import time
from typing import Any

import msgspec

from packets.events import Emit
from packets.transfer.udp import Peer
from packets.wire import Header

REFUSALS_PER_S = 20


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

    def left(self, packets: int, size: int) -> None:
        """Count packets that left, and their bytes."""
        self.packets_out += packets
        self.bytes_out += size


class Refusals:
    """Counts refused packets into ``counters`` and ``by_reason``; each is an event, up to so many a second."""

    def __init__(self, counters: Counters, emit: Emit) -> None:
        self.by_reason: dict[str, int] = {}
        self._counters, self._emit = counters, emit
        self._told, self._since = 0, 0.0
        self._untold: dict[str, int] = {}

    def of_header(self, reason: str, header: Header, peer: Peer, count: int = 1) -> None:
        """Refuse packets of a transfer or conversation that their header names."""
        facts: dict[str, Any] = {"text": text} if (text := getattr(reason, "text", "")) else {}
        self.of(str(reason), peer, count, object_id=header.object_id, transfer_id=header.transfer_id, **facts)

    def of(self, reason: str, peer: Peer, count: int = 1, **data: Any) -> None:
        """Refuse packets."""
        self._counters.refused += count
        self.by_reason[reason] = self.by_reason.get(reason, 0) + count
        now = time.monotonic()
        if now - self._since > 1.0:
            self._told, self._since = 0, now
        self._told += 1
        if self._told <= REFUSALS_PER_S:
            facts = data if count == 1 else {**data, "more": count}
            self._emit("packet.refused", reason=reason, sender=peer[0], count=self._counters.refused, **facts)
        else:
            self._untold[reason] = self._untold.get(reason, 0) + count

    def tell(self) -> None:
        """Tell of those that were too many to tell one by one (periodic)."""
        untold, self._untold = self._untold, {}
        for reason, more in untold.items():
            self._emit("packet.refused", reason=reason, more=more, count=self._counters.refused)
