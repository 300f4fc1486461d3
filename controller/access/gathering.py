"""DRRT-O's ear: what terminals push goes into the map at once; what a decision needs younger is pulled.

A report is entered while its packet is still in hand: no task, no disk.  The *news* of it (event, store) is told at
most five times a second and terminal, later changes together with earlier ones, so that a terminal that changes often
costs the control centre an entry in the map and little more.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Collection
from typing import Any

import msgspec

from controller.services import Services
from controller.topology.errors import BadReport
from controller.values.knowledge import Node
from packets.messages import Message, Pull, Report, encode_message
from packets.wire import Header, PacketType, TrafficClass
from topologies.plan import KBG_ROLE, HostPlan

NEWS_S = 0.2
NEWS_AT_ONCE = 100  # terminals told of in one round: at 1,000 that change all the time, each is told of every 2 s
SLICE = 5  # rows between two looks at what came in
PULL_WAIT_S = 0.15
MAX_LAG_S = 60.0
NO_AGENTS = ("host", KBG_ROLE)
NOT_ITS_OWN = frozenset({"trust"})  # what a terminal may not say of itself: the DCC holds it, by MPVU evidence


class Gathering:
    """Feeds the map of one control centre. ``on_bad``: called with a terminal's name when it reported what is false."""

    def __init__(self, services: Services) -> None:
        self.services = services
        self.on_bad: Callable[[str, str], None] = lambda name, why: None
        self.on_join: Callable[[str], None] = lambda name: None
        self.pulls = 0
        self._told_s: dict[str, float] = {}
        self._news: dict[str, set[str]] = {}
        self._waiting: dict[str, list[asyncio.Event]] = {}
        self._numbers = random.SystemRandom().getrandbits(32)  # terminals remember those of an earlier life
        self.restored: set[str] = set()
        self._counted = 0

    # --- push

    def restore(self) -> None:
        """Take the map as an earlier life has written it down. Who is on it is ``restored`` until it registers anew."""
        for row in self.services.store.rows("nodes"):
            host, held = self.services.domain.hosts.get(row["name"]), msgspec.json.decode(row["attributes"])
            if host is not None:
                own = {a: v for a, v in held.items() if a not in NOT_ITS_OWN}
                with contextlib.suppress(BadReport):
                    self.services.intelligence.hear(host, own, self.services.clock())
                    self.restored.add(host.name)
                    self.on_join(host.name)

    def call(self, switch: str) -> None:
        """Have the terminals at a switch register anew, all that wait for an answer say so again."""
        for host in self.services.domain.plan.hosts:
            if host.switch == switch and host.role not in NO_AGENTS:
                self._ask(host, Pull(attributes=[]))

    def joined(self, host: HostPlan, attributes: dict[str, Any], size_bytes: int) -> None:
        """A terminal registered: it joins, or comes back."""
        self.restored.discard(host.name)
        new = host.name not in self.services.krrm
        self._news.setdefault(host.name, set()).update(self._enter(host, attributes, size_bytes, None))
        self.on_join(host.name)
        self._tell(host.name)
        if new:
            self.services.emit("terminal.joined", name=host.name, role=host.role, kas=host.kas)

    def reported(self, host: HostPlan, report: Report, size_bytes: int) -> None:
        """A terminal reported changes, or that it is alive."""
        changed = self._enter(host, report.attributes, size_bytes, report.changed_unix_s)
        if changed:
            self._news.setdefault(host.name, set()).update(changed)
            if len(self._news) == 1 and self.services.clock() - self._told_s.get(host.name, -NEWS_S) >= NEWS_S:
                self._tell(host.name)

    def _enter(self, host: HostPlan, said: dict[str, Any], size_bytes: int, changed_unix_s: float | None) -> list[str]:
        services = self.services
        attributes = {a: v for a, v in said.items() if a not in NOT_ITS_OWN} if NOT_ITS_OWN & said.keys() else said
        now_s = services.clock()
        try:
            changed = services.intelligence.hear(host, attributes, now_s, size_bytes)
        except BadReport as error:
            self.on_bad(host.name, str(error))
            raise
        lag = max(0.0, services.wall() - changed_unix_s) if changed_unix_s and attributes else None
        services.freshness.note(host.name, size_bytes, now_s, lag if lag is None or lag < MAX_LAG_S else None)
        if host.name in self._waiting:
            for waiting in self._waiting.pop(host.name):
                waiting.set()
        return changed

    # --- news of it

    def noted(self, name: str, attributes: dict[str, Any]) -> None:
        """Enter what the DCC itself found out about a terminal (trust, reachability), and tell it."""
        if name in self.services.krrm and (
            changed := self.services.intelligence.know(name, attributes, self.services.clock())
        ):
            self._news.setdefault(name, set()).update(changed)
            self._tell(name)

    async def tell(self) -> None:
        """Tell what changed and was not told yet (periodic), those that have waited longest first."""
        names = list(self._news)[:NEWS_AT_ONCE]
        for start in range(0, len(names), SLICE):
            for name in names[start : start + SLICE]:
                self._tell(name, save=False)
            await self._save(names[start : start + SLICE])

    async def tell_cost(self) -> None:
        """Say what keeping the map fresh costs now, and write down its ages (periodic, when anybody reported)."""
        services = self.services
        if services.freshness.reports == self._counted:
            return
        self._counted = services.freshness.reports
        summary = services.freshness.summary(services.clock())
        services.emit(
            "map.fresh", kas=sorted(services.domain.kas), terminals=len(services.krrm), pulls=self.pulls, **summary
        )
        names = [node.name for node in services.krrm.nodes()][:NEWS_AT_ONCE]
        for start in range(0, len(names), SLICE):
            await self._save(names[start : start + SLICE])

    def _tell(self, name: str, *, save: bool = True) -> None:
        services, changed = self.services, self._news.pop(name, set())
        if name not in services.krrm:
            return
        node = services.krrm.node(name)
        self._told_s[name] = services.clock()
        shown = {a: node.get(a) for a in sorted(changed)}
        services.emit("krrm.updated", name=name, kas=node.kas, role=node.role, attributes=shown)
        if save:
            self._write([node])

    async def _save(self, names: list[str]) -> None:
        self._write([self.services.krrm.node(n) for n in names if n in self.services.krrm])
        await asyncio.sleep(0)  # reports that came in meanwhile go first

    def _write(self, nodes: list[Node]) -> None:
        with self.services.store.together():
            for node in nodes:
                held = {a: v.value for a, v in node.attributes.items()}
                self.services.store.node(node.name, node.role, node.kas, node.address, held)
                self.services.store.freshness(self.freshness_of(node))

    def freshness_of(self, node: Node) -> dict[str, Any]:
        """Return what is known of a terminal's freshness: age and cost of every attribute."""
        now_s, cost = self.services.clock(), self.services.freshness.cost(node.name)
        attributes = {
            a: {"age_s": round(now_s - v.t_s, 3), "cost_bytes": round(v.cost_bytes)} for a, v in node.attributes.items()
        }
        return {
            "name": node.name,
            "kas": node.kas,
            "heard_s_ago": round(now_s - node.heard_s, 3),
            "reports": cost.reports,
            "bytes": cost.bytes,
            "bytes_per_s": round(cost.bytes_per_s(now_s), 1),
            "attributes": attributes,
        }

    def gone(self, name: str) -> None:
        """A terminal left, or is taken for dead: off the map."""
        self.restored.discard(name)
        self.services.intelligence.forget(name)
        self.services.freshness.forget(name)
        self.services.store.node_gone(name)
        self._told_s.pop(name, None)
        self._news.pop(name, None)
        self._waiting.pop(name, None)

    # --- pull

    async def freshen(self, names: Collection[str], attributes: Collection[str], max_age_s: float) -> int:
        """Pull what is older than ``max_age_s`` and wait a moment for it; return how many terminals were asked.

        A terminal that does not answer in time keeps its old values, whose age says so.
        """
        services, now_s, asked = self.services, self.services.clock(), list[asyncio.Event]()
        for name in names:
            node = services.krrm.node(name)
            old = [a for a in attributes if a in node.attributes and now_s - node.attributes[a].t_s > max_age_s]
            if old and name in services.domain.hosts:
                answered = asyncio.Event()
                self._waiting.setdefault(name, []).append(answered)
                asked.append(answered)
                self._ask(services.domain.hosts[name], Pull(attributes=old))
        if asked:
            self.pulls += len(asked)
            await asyncio.wait([asyncio.ensure_future(a.wait()) for a in asked], timeout=PULL_WAIT_S)
        return len(asked)

    def _ask(self, host: HostPlan, message: Message) -> None:
        payload = encode_message(message)
        self._numbers = (self._numbers + 1) & 0xFFFF_FFFF
        header = Header(
            type=PacketType.TELEMETRY, traffic_class=TrafficClass.CONTROL, transfer_id=self._numbers,
            total_length=len(payload),
        )  # fmt: skip
        self.services.communication.answer(host, header, payload)
