"""What switches drop, by reason and port: their counters come in, the news of them goes out as ``frame.dropped``."""

from __future__ import annotations

from collections import Counter

from controller.domain import Domain
from controller.southbound.guard import read_cookie
from controller.southbound.openflow import DropCount
from packets.events import Emit
from topologies.plan import SwitchPlan

Rule = tuple[int, int, int | None, int]  # switch, cookie, table, priority


class Drops:
    """The drops of one domain. ``total``: frames by reason, since this control centre has looked."""

    def __init__(self, domain: Domain, emit: Emit) -> None:
        self.domain, self.emit = domain, emit
        self.total: Counter[str] = Counter()
        self._read: dict[Rule, int] = {}

    def counted(self, dpid: int, counts: list[DropCount]) -> None:
        """Take a switch's counters; what is more than before is told, by reason and port."""
        switch = self.domain.by_dpid.get(dpid)
        more: Counter[tuple[str, int]] = Counter()
        for count in counts:
            named, rule = read_cookie(count.cookie), (dpid, count.cookie, count.table, count.priority)
            if named is None or switch is None:
                continue
            before = self._read.get(rule, 0)
            more[named] += count.packets - before if count.packets >= before else count.packets  # it was made anew
            self._read[rule] = count.packets
        if switch is not None:
            for port in sorted({port for _, port in more}):
                self._tell(switch, port, {word: n for (word, at), n in more.items() if at == port and n})

    def _tell(self, switch: SwitchPlan, port: int, reasons: dict[str, int]) -> None:
        """One event a port, whatever it sends: listeners have room for a few at once."""
        if not reasons:
            return
        host = self.domain.host_at.get((switch.name, port))
        self.total.update(reasons)
        self.emit(
            "frame.dropped", switch=switch.name, port=port, node=host.name if host else "", kas=switch.kas,
            reasons=reasons, more=sum(reasons.values()), text=", ".join(sorted(reasons)),
        )  # fmt: skip
