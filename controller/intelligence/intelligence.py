"""The intelligence of a K-AS (paper, section IV): the topology orchestrator and the engines behind one small interface.

It *hears* what terminals report, *is asked* what a job or a class of queries may hope for and where it goes, and what
it *orders* is a value: a plan whose handles the house turns into places, rules and words.  It knows no OpenFlow, no
socket and no clock of its own (``now_s`` is the house's), so a control centre can house it, and as well a second-tier
one, an abstract terminal, a terminal that decides for itself, or a K-AS that lends its engines to another.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Mapping
from typing import Any

import msgspec

from controller.engines.inference.qfam import least_ms, satisfying
from controller.plugins.engines import Chosen, Engines
from controller.topology.drrt import DrrtA, MsDrrt, Rendezvous
from controller.topology.errors import UnknownHandle
from controller.topology.krrm import Krrm
from controller.topology.qrrt import qs_qrrt
from controller.values.decisions import Assessment, JobView, Load, Option, Plan, Request
from controller.values.knowledge import ModelAt
from packets.queries import Need
from topologies.plan import DomainPlan, HostPlan

CUTS_KEPT = 64


class Inside(msgspec.Struct, frozen=True, kw_only=True):
    """What is met in an abstract terminal, as its own control centre decided, of how many offers, and why."""

    at: str
    data_node: str
    facility: str
    offers: int
    reason: str


class Intelligence:
    """Map, topology orchestrator and engines for the terminals of ``domain``.

    ``salt``: the secret that makes handles opaque, 16 random bytes or more; two houses with one salt give one handle.
    ``known``: every terminal as the tools layer looks after it; ``within``: {terminal: the abstract one it is in}
    (``controller.placement.tiers``: here there are none).
    """

    within: Mapping[str, str] = {}

    def __init__(self, domain: DomainPlan, engines: Engines | None = None, *, salt: bytes) -> None:
        self.domain, self.salt = domain, salt
        self.engines = engines or Engines()
        self.map = self.known = Krrm()
        self._cutters: OrderedDict[int, DrrtA] = OrderedDict()
        self._cuts: dict[int, MsDrrt] = {}

    # --- it hears

    def hear(self, host: HostPlan, attributes: Mapping[str, Any], now_s: float, size_bytes: int = 0) -> list[str]:
        """Take a registration, a report or a heartbeat of a terminal; return the attributes that changed.

        ``size_bytes``: of the frame that brought it. ``BadReport`` when it cannot be true; then nothing is taken.
        """
        return self.map.update(host.name, host.role, host.kas, host.address, attributes, now_s, size_bytes)

    def know(self, name: str, attributes: Mapping[str, Any], now_s: float) -> list[str]:
        """Take what the house itself found out of a terminal (trust, reachability); ``UnknownNode``."""
        return self.map.note(name, attributes, now_s)

    def forget(self, name: str) -> None:
        """Take a terminal off the map; unknown names are no error."""
        self.map.forget(name)

    # --- it is asked

    def offers(self, object_id: int, request: Request, now_s: float, without: Collection[str] = ()) -> MsDrrt:
        """Return the topology of a job (MS-DRRT) as the map has it now, and keep it, to know its handles again.

        ``without``: the links that are down. The oldest cut goes once there are more than ``CUTS_KEPT`` jobs.
        """
        cutter = self._cutters.get(object_id)
        if cutter is None:
            cutter = self._cutters[object_id] = DrrtA(self.map, self.domain, request, salt=self.salt)
            if len(self._cutters) > CUTS_KEPT:
                old, _ = self._cutters.popitem(last=False)
                self._cuts.pop(old, None)
        cut = self._cuts[object_id] = cutter.refresh(now_s, without=without)
        return cut

    async def offered(self, object_id: int, request: Request, now_s: float, without: Collection[str] = ()) -> MsDrrt:
        """Return ``offers`` of whoever holds DRRT-O: here this very one."""
        return self.offers(object_id, request, now_s, without)

    async def groups(self, now_s: float) -> list[str]:
        """Return the groups of all data that is known of."""
        return sorted({g for node in self.known.nodes() for g in node.get("group_shares", {})})

    async def admits(
        self, request: Request, options: list[Option], verifiers: int, chosen: Chosen | None = None
    ) -> Assessment:
        """Say whether a job can be met by what is on offer (T-FAM); ``verifiers``: MPVUs that are ready."""
        return await self.engines.assess(request, options, verifiers, chosen or {})

    async def next_visits(
        self,
        request: Request,
        view: JobView,
        options: list[Option],
        load: Load | None = None,
        chosen: Chosen | None = None,
    ) -> Plan:
        """Say where a job goes from here on (MTRCE), the first step first; ``EngineError`` when nowhere.

        ``load``: what other jobs take; ``chosen``: the engines that the job asks for.
        """
        return await self.engines.plan(request, view, options, load, chosen or {})

    def models(self, task: str, now_s: float) -> list[ModelAt]:
        """Return the deployed models that can be asked about a task (QS-QRRT)."""
        return qs_qrrt(self.map, self.domain, task, now_s).models

    async def answerers(
        self, task: str, models: list[ModelAt], need: Need, path_ms: dict[str, float]
    ) -> tuple[Assessment, list[tuple[str, int]]]:
        """Say whether a class of queries is served (Q-FAM), and by whom with which weights (QIRCE).

        ``path_ms``: {model's node: delay of the way there}, infinite where it may not be asked.
        """
        verdict = await self.engines.assess_query(task, models, need, path_ms)
        if not verdict.admitted:
            return verdict, []
        good = satisfying(models, need.floors)
        in_time = [m for m in good if not need.deadline_ms or least_ms(m, path_ms[m.node]) <= need.deadline_ms]
        return verdict, await self.engines.choose(in_time, path_ms)

    # --- what its orders mean

    async def settle(
        self,
        object_id: int,
        handle: str,
        now_s: float,
        without: Collection[str] = (),
        taken: Mapping[str, float] | None = None,
    ) -> Inside | None:
        """Have decided what a handle stands for where that is left to another (here: nowhere); ``EngineError``.

        ``taken``: {terminal: seconds for which other objects take it}. None: it is decided.
        """
        return None

    def trained(self, object_id: int, data_node: str) -> None:
        """An object was trained on a terminal's data."""

    def taken(self, nodes: Mapping[str, float]) -> dict[str, float]:
        """Return which places are taken, and for how many seconds, by the names that offers are made for."""
        return dict(nodes)

    def place(self, object_id: int, handle: str) -> Rendezvous | None:
        """Return what a handle of an offer stands for; None when it is not on offer (any more)."""
        cut = self._cuts.get(object_id)
        try:
            return cut.resolve(handle) if cut else None
        except UnknownHandle:
            return None

    def explain(self, object_id: int, handle: str, now_s: float) -> dict[str, Any]:
        """Return the attributes, with their ages, that an offer rests on; {} when it is none."""
        try:
            return self._cuts[object_id].explain(handle, now_s)
        except (KeyError, UnknownHandle):
            return {}
