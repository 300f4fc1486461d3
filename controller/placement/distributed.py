"""A distributed K-AS (paper, Fig. 3): its terminals hold DRRT-O and MTRCE, told of one another by gossip.

The control centre has no map of data and compute and no MTRCE.  It asks a live terminal, another one where that is
silent, believes nothing that it can check (places, roles, who is alive, trust, handles, bounds), and keeps what each
handle stands for.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from typing import TypeVar

import msgspec

from controller.errors import ControllerError, SteeringError
from controller.intelligence import Intelligence
from controller.intelligence.intelligence import CUTS_KEPT
from controller.plugins.engines import Chosen, Engines
from controller.topology.drrt import (
    DATA_BASIS,
    FACILITY_BASIS,
    UNKNOWN_SHARE,
    Meeting,
    MsDrrt,
    Rendezvous,
    handle_of,
    place_of,
    usable,
)
from controller.topology.errors import BadReport
from controller.topology.krrm import Krrm
from controller.values.decisions import JobView, Lender, Load, Option, Plan, Request
from controller.values.distributed import Brief, Known, Meets, Offered, Question, Standing
from controller.values.errors import EngineError, NoLender
from controller.values.knowledge import Attribute, Node
from packets.distributed.asking import ROOM_BYTES, AskOffers, AskPlan, Offers, Planned
from packets.events import Emit
from packets.messages import Message
from topologies.plan import DomainPlan, HostPlan

ASKED = 3  # terminals, one after the other
AWAY_S = 10.0  # who gave no answer is asked after all others for so long
MET = ("data", "compute")
MOST = 1e12
TOLERANCE = 0.02
Answer = TypeVar("Answer", bound=Message)
Ask = Callable[[HostPlan, Message, int], Awaitable[Message]]


async def _nobody(host: HostPlan, message: Message, object_id: int) -> Message:
    raise SteeringError(f"{host.name} cannot be asked: this control centre has no line to its terminals")


class Distributed(Intelligence):
    """``ask``: asks a terminal; ``busy``: the terminals at which objects are, to be asked after others."""

    def __init__(
        self, domain: DomainPlan, engines: Engines | None = None, *, salt: bytes, emit: Emit,
        clock: Callable[[], float],
    ) -> None:  # fmt: skip
        super().__init__(domain, engines, salt=salt)
        self.ask: Ask = _nobody
        self.busy: Callable[[], Collection[str]] = lambda: ()
        self._emit, self._clock = emit, clock
        self._hosts = {h.name: h for h in domain.hosts}
        self._turn = 0
        self._away_until_s: dict[str, float] = {}

    # --- it is asked

    async def offered(self, object_id: int, request: Request, now_s: float, without: Collection[str] = ()) -> MsDrrt:
        """Return the topology of a job as a terminal has cut it, as far as it could be verified.

        Where one has not heard of all others yet, more are asked: the topology is of who has heard of most.
        """
        found = await self._cut(object_id, request, without)
        cut = self._verified(object_id, request, found)
        self._cuts.pop(object_id, None)
        self._cuts[object_id] = cut
        while len(self._cuts) > CUTS_KEPT:
            del self._cuts[next(iter(self._cuts))]
        return cut

    async def groups(self, now_s: float) -> list[str]:
        """Return the groups of all data that a terminal knows of."""
        nothing = Request(task="", groups=[], broad_accuracy=0.0, trust_floor=1.0)
        return sorted((await self._cut(0, nothing, ())).groups)

    async def next_visits(
        self,
        request: Request,
        view: JobView,
        options: list[Option],
        load: Load | None = None,
        chosen: Chosen | None = None,
    ) -> Plan:
        """Have a terminal say where a job goes from here on; ``NoLender`` where none answers: nothing decides here."""
        from controller.engines.routing.mtrce import follow  # a control centre that only routes does not load it

        brief = Brief(object_id=0, request=request, view=view, options=options, load=load or Load())
        began_s, before = self._clock(), list[str]()
        async for _, said in self.planned(brief, before):
            if said.none:
                raise EngineError(said.none)
            known = {o.handle for o in options}
            if not said.handles or not known.issuperset(said.handles):
                continue
            ms = round((self._clock() - began_s) * 1e3, 1)
            by = Lender(kas=self.domain.kas[0], ms=ms, before=before, terminal="other")
            plan = follow(request, view, options, said.handles, load)
            return msgspec.structs.replace(plan, alternatives=said.scores, by=by)
        told = "; ".join(before) or "none is there"
        raise NoLender(f"no terminal of K-AS {self.domain.kas[0]} says where it goes: {told}")

    def planned(
        self, brief: Brief, before: list[str], without: Collection[str] = ()
    ) -> AsyncIterator[tuple[str, Planned]]:
        """Ask terminals in turn where a job goes next; ``before``: gets who was asked in vain."""
        message = AskPlan(object_id=brief.object_id, brief=fitted(brief))
        return self._answers(message, Planned, before, without)

    def standing(self, without: Collection[str]) -> Standing:
        """Return what only this control centre knows of its terminals; ``without``: the links that are down."""
        here = {h.name: self.map.node(h.name) for h in self._met() if h.name in self.map}
        return Standing(
            trust={name: n.get("trust") for name, n in here.items() if n.get("trust") is not None},
            without=sorted(without),
            gone=[h.name for h in self._met() if h.name not in here or not here[h.name].get("reachable", True)],
        )

    def trained(self, object_id: int, data_node: str) -> None:
        """An object was trained on a terminal's data: what an MPVU then finds is judged by what was offered of it."""
        cut = self._cuts.get(object_id)
        told = next((m.basis for m in cut.meetings if m.rendezvous.data_node == data_node), {}) if cut else {}
        held = {a: told[key].value for a in ("group_shares", "quality") if (key := f"{data_node}.{a}") in told}
        if held and data_node in self.map:
            self.map.note(data_node, held, self._clock())

    # --- whom it asks

    def _met(self) -> list[HostPlan]:
        return [h for h in self.domain.hosts if h.role in MET]

    def _in_turn(self, without: Collection[str]) -> list[HostPlan]:
        """Return the live terminals, another one first each time; those that are at work, or were silent, last."""
        live = [h for h in self.domain.hosts if h.name in self.map and h.name not in without]
        if not live:
            return []
        self._turn = (self._turn + 1) % len(live)
        turned = live[self._turn :] + live[: self._turn]
        now_s, busy = self._clock(), self.busy()
        return sorted(turned, key=lambda h: (self._away_until_s.get(h.name, now_s) > now_s, h.name in busy))

    async def _answers(
        self, message: Message, expect: type[Answer], before: list[str], without: Collection[str] = ()
    ) -> AsyncIterator[tuple[str, Answer]]:
        for host in self._in_turn(without)[:ASKED]:
            try:
                answer = await self.ask(host, message, getattr(message, "object_id", 0))
            except ControllerError as error:
                self._away_until_s[host.name] = self._clock() + AWAY_S
                before.append(" ".join(str(error).split())[:70])
                continue
            self._away_until_s.pop(host.name, None)
            if isinstance(answer, expect):
                yield host.name, answer

    async def _cut(self, object_id: int, request: Request, without: Collection[str]) -> Offered:
        question = msgspec.msgpack.encode(Question(request=request, standing=self.standing(without)))
        found, heard, before = Offered(), False, list[str]()
        able = sum(h.name in self.map for h in self._met())
        async for name, said in self._answers(AskOffers(object_id=object_id, question=question), Offers, before):
            try:
                told = msgspec.msgpack.decode(said.found, type=Offered)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                self._refuse(object_id, name, f"that is no topology: {error}")
                continue
            found, heard = max(found, told, key=lambda t: (t.terminals, len(t.meetings))), True
            if told.terminals >= able:
                break
        if not heard:
            told_of = "; ".join(before) or "none is there"
            self._emit("warning", text=f"no terminal of K-AS {self.domain.kas[0]} says what it offers: {told_of}"[:400])
        return found

    # --- what it believes

    def _verified(self, object_id: int, request: Request, found: Offered) -> MsDrrt:
        now_s = self._clock()
        known, faults = self._known(found.known, now_s), list[str]()
        meetings = dict[str, Meeting]()
        for met in found.meetings:
            fault = self._fault(request, met, known)
            if fault:
                faults.append(fault)
            else:
                meetings[met.option.handle] = self._meeting(met, known)
        if faults:
            self._refuse(object_id, "", f"{len(faults)} of {len(found.meetings)} offers, the first because {faults[0]}")
        involved = {n for m in meetings.values() for n in (m.rendezvous.data_node, m.rendezvous.facility)}
        mpvus = [n for n in self.map.nodes("mpvu") if usable(n, request.trust_floor)]
        members = [known.node(name) for name in sorted(involved)]
        return MsDrrt(self.domain, list(meetings.values()), mpvus, [*members, *mpvus], now_s)

    def _known(self, told: Known, now_s: float) -> Krrm:
        """Return a map of what a terminal says of others, as far as it could be true."""
        known = Krrm()
        for name, attributes in told.items():
            host = self._hosts.get(name)
            if host is None:
                continue
            for age_s in sorted({age for _, age in attributes.values() if 0 <= age < MOST}, reverse=True):
                of_age = {a: value for a, (value, age) in attributes.items() if age == age_s}
                try:
                    known.update(name, host.role, host.kas, host.address, of_age, now_s - age_s)
                except BadReport:
                    continue
        return known

    def _fault(self, request: Request, met: Meets, known: Krrm) -> str:
        """Say why an offer cannot be ('': it can)."""
        option, data, facility = met.option, self._hosts.get(met.data_node), self._hosts.get(met.facility)
        if data is None or facility is None or data.role != "data":
            return f"{met.data_node[:40]!r} at {met.facility[:40]!r} are no data node and facility here"
        moves = data.name != facility.name
        if moves and (facility.role != "compute" or not data.data_may_move):
            return f"the data of {data.name} does not go to {facility.name}"
        for host in (data, facility):
            if host.name not in self.map or not usable(self.map.node(host.name), request.trust_floor):
                return f"{host.name} is not there, or not trusted enough"
            if host.name not in known:
                return f"nothing is told of {host.name}"
        named = handle_of(self.salt, request.task, data.name, facility.name), place_of(self.salt, facility.name)
        if (option.handle, option.place) != named or option.kas != data.kas:
            return f"the handle {option.handle[:20]!r} does not stand for {data.name} at {facility.name}"
        return _figures(request, option, moves=moves)

    def _meeting(self, met: Meets, known: Krrm) -> Meeting:
        """Return a verified offer; trust is what this control centre holds it to be."""
        trust = min(self.map.node(name).get("trust", UNKNOWN_SHARE) for name in (met.data_node, met.facility))
        basis = _basis(known.node(met.data_node), DATA_BASIS) | _basis(known.node(met.facility), FACILITY_BASIS)
        rendezvous = Rendezvous(data_node=met.data_node, facility=met.facility, move_data=met.data_node != met.facility)
        return Meeting(option=msgspec.structs.replace(met.option, trust=trust), rendezvous=rendezvous, basis=basis)

    def _refuse(self, object_id: int, name: str, why: str) -> None:
        self._emit("offers.refused", object_id=object_id, kas=self.domain.kas[0], node=name, reason=why[:300])


def fitted(brief: Brief) -> bytes:
    """Return a brief as it travels: of the options those that are quickest, as many as a message holds."""
    quickest = sorted(brief.options, key=lambda o: o.epoch_s + o.reach_s + o.move_s)
    while len(body := msgspec.msgpack.encode(brief)) > ROOM_BYTES and quickest:
        quickest = quickest[: len(quickest) * 3 // 4]
        brief = msgspec.structs.replace(brief, options=quickest)
    return body


def _figures(request: Request, option: Option, *, moves: bool) -> str:
    """Say which figure of an offer cannot be."""
    amounts = (option.samples, option.epoch_s, option.reach_s, option.move_s, option.move_bytes)
    if not all(0 <= amount < MOST for amount in amounts) or not 0 <= option.quality <= 1 or not option.available_s >= 0:
        return "an amount is negative, too much or no number"
    if bool(option.move_bytes) != moves:
        return "what has to be moved does not fit the place"
    if any(g not in request.groups for g in option.mix if request.groups):
        return "it has groups that were not asked for"
    shares = list(option.mix.values())
    if not all(0 <= s <= 1 for s in shares) or not math.isclose(sum(shares), 1.0, abs_tol=TOLERANCE):
        return "its shares are none"
    return ""


def _basis(node: Node, attributes: Collection[str]) -> dict[str, Attribute]:
    return {f"{node.name}.{a}": node.attributes[a] for a in attributes if a in node.attributes}
