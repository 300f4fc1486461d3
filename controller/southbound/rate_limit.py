"""Rate limits on what switches hand up, per port, so that one terminal cannot keep a control centre busy."""

from __future__ import annotations

from collections.abc import Callable

from controller.southbound.openflow import PacketIn
from packets.events import Emit

RATE_PPS = 400.0
BURST = 200.0


class Limiter:
    """A token bucket per (switch, port); what is refused is counted, and told once a second at most."""

    def __init__(
        self, clock: Callable[[], float], emit: Emit, *, rate_pps: float = RATE_PPS, burst: float = BURST
    ) -> None:
        self.clock, self.emit, self.rate_pps, self.burst = clock, emit, rate_pps, burst
        self.refused = self.overflows = 0
        self._buckets: dict[tuple[int, int], tuple[float, float]] = {}
        self._told = self._told_overflows = 0

    def allow(self, dpid: int, port: int) -> bool:
        """Take one token; False when there is none."""
        now = self.clock()
        tokens, before = self._buckets.get((dpid, port), (self.burst, now))
        tokens = min(self.burst, tokens + (now - before) * self.rate_pps)
        allowed = tokens >= 1.0
        self._buckets[dpid, port] = (tokens - 1.0 if allowed else tokens, now)
        self.refused += not allowed
        return allowed

    def overflowed(self, packet: PacketIn) -> None:
        """Count a packet whose port has too many waiting."""
        self.overflows += 1

    def tell(self) -> None:
        """Report what was refused since the last call (periodic)."""
        if self.refused > self._told:
            more = self.refused - self._told
            self.emit("packet.refused", reason="packet-in rate", more=more, count=more, total=self.refused)
            self._told = self.refused
        if self.overflows > self._told_overflows:
            more = self.overflows - self._told_overflows
            self.emit("packet.refused", reason="packet-in queue", more=more, total=self.overflows)
            self._told_overflows = self.overflows
