"""A hierarchical K-AS (paper, Fig. 3): tier 1 sees abstract terminals, in each a tier-2 control centre decides.

Both tiers are the same intelligence, placed differently: tier 2's has the map of its members and is alone in hearing
them; tier 1's has one terminal in their place, and what it orders there is resolved by tier 2.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from typing import Any

from controller.intelligence import Inside, Intelligence
from controller.placement.aggregate import aggregate, insides, outside
from controller.plugins.engines import Engines
from controller.runtime.bounded import Bounded
from controller.topology.drrt import MsDrrt, Rendezvous, place_of
from controller.topology.errors import UnknownNode
from controller.topology.krrm import Krrm
from controller.values.decisions import Booking, JobView, Load, Option, Request, Visit
from controller.values.knowledge import Attribute, Node
from topologies.plan import DomainPlan, HostPlan


class Tier2:
    """The control centre of one abstract terminal: what is met there is its word."""

    def __init__(self, name: str, plan: DomainPlan, engines: Engines, salt: bytes) -> None:
        self.name, self.mind = name, Intelligence(plan, engines, salt=salt)
        self._movable = {h.name for h in plan.hosts if h.data_may_move}
        self._chosen: Bounded[int, tuple[Option, Rendezvous]] = Bounded()
        self._visits: Bounded[int, list[Visit]] = Bounded()
        self._losses: Bounded[int, int] = Bounded()

    def as_one(self) -> dict[str, Attribute]:
        """Return what tier 1 is told: the members' attributes as those of one terminal ({}: there is none to meet)."""
        return aggregate(self.mind.map.nodes(), self._movable)

    def chosen(self, object_id: int) -> Rendezvous | None:
        """Return what an object's visit here meets; None before that is decided."""
        held = self._chosen.get(object_id)
        return held[1] if held else None

    async def decide(
        self, object_id: int, request: Request, now_s: float, without: Collection[str], taken: Mapping[str, float]
    ) -> Inside | None:
        """Choose what an object meets (None: it is chosen, and on offer still); ``EngineError`` when there is nothing.

        ``taken``: {terminal: seconds for which other objects take it}.
        """
        self.losses(object_id, request, now_s, without)
        if object_id in self._chosen:
            return None
        options = self.mind.offers(object_id, request, now_s, without).options
        view = JobView(visits=self._visits.get(object_id, []), at_kas=self.mind.domain.hosts[0].kas)
        plan = await self.mind.next_visits(request, view, options, self._load(taken))
        if object_id in self._chosen:
            return None  # a piece of the same training came meanwhile: it goes where that one went
        step = plan.steps[0]
        met = self.mind.place(object_id, step.option.handle)
        assert met is not None, "a plan goes to what is on offer"
        self._chosen[object_id] = step.option, met
        return Inside(
            at=self.name, data_node=met.data_node, facility=met.facility, offers=len(options), reason=step.reason
        )

    def losses(self, object_id: int, request: Request, now_s: float, without: Collection[str]) -> int:
        """Return how often what an object was to meet here went off offer before it was trained on."""
        held = self._chosen.get(object_id)
        if held is not None:
            options = self.mind.offers(object_id, request, now_s, without).options
            if all(o.handle != held[0].handle for o in options):
                del self._chosen[object_id]
                self._losses[object_id] = self._losses.get(object_id, 0) + 1
        return self._losses.get(object_id, 0)

    def _load(self, taken: Mapping[str, float]) -> Load:
        here = {h.name for h in self.mind.domain.hosts}.intersection(taken)
        places = {name: place_of(self.mind.salt, name) for name in sorted(here)}
        return Load(bookings=[Booking(place=p, start_s=0.0, end_s=taken[name]) for name, p in places.items()])

    def trained(self, object_id: int) -> None:
        """An object was trained here: its next visit is another decision, which knows of this one."""
        held = self._chosen.pop(object_id, None)
        if held is None:
            return
        option = held[0]
        visit = Visit(kas=option.kas, handle=option.handle, mix=option.mix, samples=option.samples, epochs=1.0)
        self._visits[object_id] = [*self._visits.get(object_id, []), visit]

    def taken_for(self, taken: Mapping[str, float]) -> float | None:
        """Return for how many seconds every place here is taken (None: one is free)."""
        able = [n.name for n in self.mind.map.nodes() if n.get("compute_samples_per_s", 0.0) > 0]
        return min(taken[name] for name in able) if able and all(name in taken for name in able) else None


class Tiered(Intelligence):
    """Tier 1, and the tier-2 control centres of its abstract terminals; ``groups``: {name: its members}."""

    def __init__(
        self, domain: DomainPlan, engines: Engines | None = None, *, salt: bytes, groups: Mapping[str, Collection[str]]
    ) -> None:
        super().__init__(outside(domain, groups), engines, salt=salt)
        plans = insides(domain, groups)
        self.tiers = {n: Tier2(n, plans[n], self.engines, _salt(salt, n)) for n in groups}
        self.within = {member: name for name, members in groups.items() for member in members}
        self.known = Terminals(self.map, {name: tier.mind.map for name, tier in self.tiers.items()}, self.within)
        self._as_hosts = {h.name: h for h in self.domain.hosts if h.name in groups}
        self._news: set[str] = set()
        self._requests: Bounded[int, Request] = Bounded()

    # --- it hears

    def hear(self, host: HostPlan, attributes: Mapping[str, Any], now_s: float, size_bytes: int = 0) -> list[str]:
        """Take what a terminal says; of a member its tier-2 control centre does, and nobody else."""
        tier = self._tier_of(host.name)
        if tier is None:
            return super().hear(host, attributes, now_s, size_bytes)
        return tier.mind.hear(host, attributes, now_s, size_bytes)

    def know(self, name: str, attributes: Mapping[str, Any], now_s: float) -> list[str]:
        """Take what the house found out of a terminal, a member too; ``UnknownNode``."""
        tier = self._tier_of(name)
        return super().know(name, attributes, now_s) if tier is None else tier.mind.know(name, attributes, now_s)

    def forget(self, name: str) -> None:
        """Take a terminal off the map that holds it."""
        tier = self._tier_of(name)
        if tier is None:
            super().forget(name)
        else:
            tier.mind.forget(name)

    def _tier_of(self, name: str) -> Tier2 | None:
        """Return whose member a terminal is, of which there will be news for tier 1."""
        at = self.within.get(name)
        if at is None:
            return None
        self._news.add(at)
        return self.tiers[at]

    def gather(self) -> None:
        """Enter what the abstract terminals have become since this was last done."""
        for name in sorted(self._news):
            self._enter(name, self.tiers[name].as_one())
        self._news.clear()

    def _enter(self, name: str, told: Mapping[str, Attribute]) -> None:
        if name in self.map and not told.keys() >= self.map.node(name).attributes.keys():
            self.map.forget(name)
        for t_s in sorted({a.t_s for a in told.values()}):
            super().hear(self._as_hosts[name], {key: a.value for key, a in told.items() if a.t_s == t_s}, t_s)

    # --- it is asked

    def offers(self, object_id: int, request: Request, now_s: float, without: Collection[str] = ()) -> MsDrrt:
        """Return the topology of a job as tier 1 sees it: an abstract terminal is one place.

        It has another handle after each loss in it: a home that goes on without the one may still take the other.
        """
        self.gather()
        self._requests[object_id] = request
        cut = super().offers(object_id, request, now_s, without)
        for option in list(cut.options):
            tier = self.tiers.get(cut.resolve(option.handle).facility)
            if tier is not None and (losses := tier.losses(object_id, request, now_s, without)):
                cut.rename(option.handle, _again(self.salt, option.handle, losses))
        return cut

    # --- what its orders mean

    async def settle(
        self,
        object_id: int,
        handle: str,
        now_s: float,
        without: Collection[str] = (),
        taken: Mapping[str, float] | None = None,
    ) -> Inside | None:
        """Have the tier-2 control centre behind a handle decide what is met there; ``EngineError``: nothing is."""
        tier, request = self._behind(object_id, handle), self._requests.get(object_id)
        if tier is None or request is None:
            return None
        return await tier.decide(object_id, request, now_s, without, taken or {})

    def place(self, object_id: int, handle: str) -> Rendezvous | None:
        """Return what a handle of an offer stands for, in an abstract terminal what ``settle`` had decided."""
        tier = self._behind(object_id, handle)
        return super().place(object_id, handle) if tier is None else tier.chosen(object_id)

    def _behind(self, object_id: int, handle: str) -> Tier2 | None:
        met = super().place(object_id, handle)
        return self.tiers.get(met.facility) if met else None

    def trained(self, object_id: int, data_node: str) -> None:
        """An object was trained on a member's data: tier 2 remembers it."""
        at = self.within.get(data_node)
        if at is not None:
            self.tiers[at].trained(object_id)

    def taken(self, nodes: Mapping[str, float]) -> dict[str, float]:
        """Return what is taken as tier 1 sees it: an abstract terminal once every place in it is."""
        found = {name: for_s for name, for_s in nodes.items() if name not in self.within}
        full = {name: tier.taken_for(nodes) for name, tier in self.tiers.items()}
        return found | {name: for_s for name, for_s in full.items() if for_s is not None}


class Terminals(Krrm):
    """Every terminal of the K-AS, whichever tier's map holds it, as the tools layer looks after them; to be read only.

    ``within``: {member: its abstract terminal}.
    """

    def __init__(self, tier1: Krrm, tiers: Mapping[str, Krrm], within: Mapping[str, str]) -> None:
        super().__init__()
        self._tier1, self._tiers, self._within = tier1, tiers, within

    def __contains__(self, name: object) -> bool:
        return name not in self._tiers and name in self._map_of(str(name))

    def __len__(self) -> int:
        return len(self.nodes())

    def node(self, name: str) -> Node:
        """Return a terminal; ``UnknownNode`` when no map holds it, and for an abstract one."""
        if name in self._tiers:
            raise UnknownNode(f"{name} is an abstract terminal; its members are on the map of its own control centre")
        return self._map_of(name).node(name)

    def nodes(self, role: str | None = None) -> list[Node]:
        """Return the terminals (of one role), sorted by name."""
        real = [n for n in self._tier1.nodes(role) if n.name not in self._tiers]
        return sorted([*real, *(n for m in self._tiers.values() for n in m.nodes(role))], key=lambda n: n.name)

    def stale(self, now_s: float, limit_s: float) -> list[str]:
        """Return the names of terminals that gave no sign of life for longer than ``limit_s``, sorted."""
        return sorted(n.name for n in self.nodes() if now_s - n.heard_s > limit_s)

    def _map_of(self, name: str) -> Krrm:
        at = self._within.get(name)
        return self._tier1 if at is None else self._tiers[at]


def _again(salt: bytes, handle: str, losses: int) -> str:
    return hashlib.blake2b(f"{handle}/{losses}".encode(), key=salt[:64], digest_size=8, person=b"again").hexdigest()


def _salt(salt: bytes, name: str) -> bytes:
    """Return a secret of an abstract terminal's own: its handles tell tier 1 nothing."""
    return hashlib.blake2b(name.encode(), key=salt[:64], digest_size=32, person=b"tier 2").digest()
