"""What a terminal of a distributed K-AS houses: the intelligence of its K-AS (DRRT-O, MTRCE) over the map that gossip
brought it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, TypeVar

import msgspec

import controller.engines.routing.mtrce  # noqa: F401  loaded once, before terminals are forked
from controller.intelligence import Intelligence
from controller.topology.drrt import DATA_BASIS, FACILITY_BASIS, MsDrrt
from controller.topology.errors import BadReport
from controller.values.decisions import Option, Plan
from controller.values.distributed import MAX_HANDLES, MAX_MEETINGS, Brief, Known, Meets, Offered, Question, Standing
from controller.values.errors import EngineError
from hosts.errors import HostError
from packets.distributed.asking import ROOM_BYTES, Offers, Planned
from topologies.plan import DomainPlan

MET = ("data", "compute")
TOLD = (*DATA_BASIS, *FACILITY_BASIS, "epsilon", "data_age_s", "sample_bytes")
Body = TypeVar("Body", bound=msgspec.Struct)
NOT_ITS_OWN = "trust"  # the control centre's to say


class House:
    """Answers for one K-AS from what was heard; safe from any thread. ``salt``: what its terminals and its control
    centre share, so that their handles agree.
    """

    def __init__(self, domain: DomainPlan, salt: bytes, clock: Callable[[], float]) -> None:
        self.mind = Intelligence(domain, salt=salt)
        self.hosts = {h.name: h for h in domain.hosts}
        self._clock = clock
        self._lock = threading.Lock()
        self.refused = 0

    # --- it hears

    def hear(self, name: str, attributes: bytes, t_s: float) -> None:
        """Take what a terminal said of itself at ``t_s``; what cannot be true is counted and left aside."""
        host = self.hosts.get(name)
        with self._lock:
            try:
                said = msgspec.msgpack.decode(attributes, type=dict[str, Any])
                if host is not None:
                    self.mind.hear(host, {a: v for a, v in said.items() if a != NOT_ITS_OWN}, t_s)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, BadReport):
                self.refused += 1

    def keep(self, names: Mapping[str, object]) -> None:
        """Forget whoever is not among these: nobody has heard of it for long."""
        with self._lock:
            for node in self.mind.map.nodes():
                if node.name not in names:
                    self.mind.forget(node.name)

    # --- it is asked

    def offers(self, object_id: int, body: bytes) -> Offers:
        """Cut what this K-AS offers a job (DRRT-O)."""
        question = _read(body, Question)
        with self._lock:
            now_s = self._clock()
            self._learn(question.standing, now_s)
            cut = self.mind.offers(object_id, question.request, now_s, question.standing.without)
            nodes = [n for n in self.mind.map.nodes() if n.role in MET]
            groups = sorted({g for n in nodes for g in n.get("group_shares", {})})[:64]
            return Offers(found=self._fitting(cut, set(question.standing.gone), len(nodes), groups, now_s))

    def plan(self, body: bytes) -> Planned:
        """Say where a job goes next (MTRCE), with what this K-AS offers among the rest."""
        brief = _read(body, Brief)
        began_s = self._clock()
        options = [*brief.options, *(self._own(brief) if brief.kas else [])]
        try:
            plan = _now(self.mind.next_visits(brief.request, brief.view, options, brief.load))
        except EngineError as error:
            return Planned(none=str(error)[:400])
        return Planned(
            handles=[step.option.handle for step in plan.steps][:MAX_HANDLES], scores=plan.alternatives[:16],
            took_ms=round((self._clock() - began_s) * 1e3, 1),
        )  # fmt: skip

    def _own(self, brief: Brief) -> list[Option]:
        """Return what the brief leaves out: what its own K-AS offers."""
        with self._lock:
            now_s = self._clock()
            self._learn(brief.standing, now_s)
            cut = self.mind.offers(brief.object_id, brief.request, now_s, brief.standing.without)
        gone, excluded = set(brief.standing.gone), set(brief.excluded)
        return [
            msgspec.structs.replace(m.option, age_s=round(m.age_s(now_s), 3), borders=brief.borders)
            for m in cut.meetings
            if m.option.handle not in excluded and not gone & {m.rendezvous.data_node, m.rendezvous.facility}
        ]

    def _learn(self, standing: Standing, now_s: float) -> None:
        """Take the trust in which the control centre holds terminals."""
        for name, trust in standing.trust.items():
            if name in self.mind.map and 0 <= trust <= 1:
                self.mind.know(name, {NOT_ITS_OWN: trust}, now_s)

    def _fitting(self, cut: MsDrrt, gone: set[str], terminals: int, groups: list[str], now_s: float) -> bytes:
        """Return a cut as it travels: the quickest meetings, as many as one message holds."""
        meetings = [m for m in cut.meetings if not gone & {m.rendezvous.data_node, m.rendezvous.facility}]
        meetings = sorted(meetings, key=lambda m: m.option.epoch_s + m.option.move_s)[:MAX_MEETINGS]
        while True:
            met = [Meets(m.option, m.rendezvous.data_node, m.rendezvous.facility) for m in meetings]
            known = self._known({n for m in met for n in (m.data_node, m.facility)}, now_s)
            found = msgspec.msgpack.encode(Offered(meetings=met, known=known, terminals=terminals, groups=groups))
            if len(found) <= ROOM_BYTES or not meetings:
                return found
            meetings = meetings[: len(meetings) * 3 // 4]

    def _known(self, names: set[str], now_s: float) -> Known:
        held = {name: self.mind.map.node(name).attributes for name in sorted(names)}
        return {
            name: {a: (v.value, round(max(0.0, now_s - v.t_s), 3)) for a, v in attributes.items() if a in TOLD}
            for name, attributes in held.items()
        }


def _now(work: Coroutine[Any, Any, Plan]) -> Plan:
    """Return what the default engines answer at once: they wait for nothing."""
    try:
        work.send(None)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]
    work.close()
    raise HostError("this terminal's engines are not the default ones")


def _read(body: bytes, kind: type[Body]) -> Body:
    try:
        return msgspec.msgpack.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise HostError(f"that is no {kind.__name__.lower()}: {' '.join(str(error).split())[:200]}") from None
