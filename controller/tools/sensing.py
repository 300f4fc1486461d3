"""Sensing: what the network's own counters say, as the load of every link."""

from __future__ import annotations

from typing import Any

from controller.domain import Domain
from controller.southbound.openflow import PortCount
from packets.events import Emit
from topologies.plan import KBG_ROLE

RECENT_S = 2.5  # counters are read once a second


class Sensing:
    """Turns port counters into ``link.load`` events: bytes from ``a`` to ``b`` (tx) and back (rx), and rates."""

    def __init__(self, domain: Domain, emit: Emit) -> None:
        self.domain, self.emit = domain, emit
        self._last: dict[tuple[str, int], tuple[float, PortCount]] = {}
        self._rate: dict[tuple[str, int], tuple[float, float]] = {}

    def counted(self, dpid: int, counts: list[PortCount], now_s: float, peers: dict[tuple[str, int], str]) -> None:
        """Take one switch's counters. A link is reported by the switch at its ``a`` end, a host's by its switch."""
        switch = self.domain.by_dpid[dpid].name
        for count in counts:
            named = self._link(switch, count.port, peers)
            if named is not None:
                self._report(switch, count, now_s, *named)

    def rate_mbps(self, switch: str, port: int, now_s: float) -> float:
        """Return the rate of a port's busier direction as last counted; silence since then is no load."""
        counted_s, rate = self._rate.get((switch, port), (-RECENT_S, 0.0))
        return rate if now_s - counted_s < RECENT_S else 0.0

    def _link(self, switch: str, port: int, peers: dict[tuple[str, int], str]) -> tuple[str, bool, int | None] | None:
        """Return (link name, whether the switch is its ``a`` end, the K-AS beyond a border)."""
        host = self.domain.host_at.get((switch, port))
        if host is not None:
            return None if host.role == KBG_ROLE else (f"{host.name}-{switch}", False, None)
        link = self.domain.trunks.get((switch, port))
        if link is not None:
            return (link.name, True, None) if (link.a, link.a_port) == (switch, port) else None
        border = self.domain.borders.get((switch, port))
        if border is None:
            return None
        own = self.domain.switches[switch].kas
        is_a = any((k.a_kas, k.b_kas) == (own, border.neighbour_kas) for k in self.domain.plan.kas_links)
        far = peers.get((switch, port), f"kas{border.neighbour_kas}")
        return (f"{switch}-{far}" if is_a else f"{far}-{switch}"), is_a, border.neighbour_kas

    def _report(self, switch: str, count: PortCount, now_s: float, link: str, is_a: bool, beyond: int | None) -> None:
        before = self._last.get((switch, count.port))
        self._last[switch, count.port] = now_s, count
        if before is not None and before[1] == count:
            return
        tx, rx = (count.tx_bytes, count.rx_bytes) if is_a else (count.rx_bytes, count.tx_bytes)
        sent, got = self._rates(before, count, now_s)
        self._rate[switch, count.port] = now_s, max(sent, got)
        tx_mbps, rx_mbps = (sent, got) if is_a else (got, sent)
        extra: dict[str, Any] = {"neighbour_kas": beyond} if beyond is not None else {}
        self.emit(
            "link.load",
            kas=self.domain.switches[switch].kas,
            link=link,
            switch=switch,
            port=count.port,
            tx_bytes=tx,
            rx_bytes=rx,
            tx_packets=count.tx_packets if is_a else count.rx_packets,
            rx_packets=count.rx_packets if is_a else count.tx_packets,
            tx_mbps=round(tx_mbps, 3),
            rx_mbps=round(rx_mbps, 3),
            **extra,
        )

    @staticmethod
    def _rates(before: tuple[float, PortCount] | None, count: PortCount, now_s: float) -> tuple[float, float]:
        if before is None or now_s <= before[0]:
            return 0.0, 0.0
        seconds = now_s - before[0]
        sent, got = count.tx_bytes - before[1].tx_bytes, count.rx_bytes - before[1].rx_bytes
        return max(0, sent) * 8e-6 / seconds, max(0, got) * 8e-6 / seconds
