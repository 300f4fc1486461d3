"""Objects that are no travelling jobs: test samples on their way to an MPVU, data that a visit needs, models to deploy.

Each is announced by its holder at the DCC of its own K-AS, which becomes its home, and makes one journey.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

import msgspec

from controller.access.places import Places
from controller.border.messages import AskFacilities, AskNextStop, Facility, Lost, Stop, place_key
from controller.errors import Denied, NotYet, SteeringError
from controller.runtime.identities import Identities
from controller.services import Services
from controller.values.errors import EngineError
from controller.values.handles import read_place, read_site
from controller.values.knowledge import Attribute, Node
from packets.messages import AnnounceObject, AnnounceReply, Order, OrderRequest
from topologies.plan import HostPlan

KEPT = 4096
ORDERS = {
    "test_sample": "keep_test_sample",
    "late_sample": "keep_late_sample",
    "data": "use_data",
    "deploy": "deploy",
    "measure": "measure",
    "parcel": "keep",
    "exchange": "exchange",
}


@dataclass(frozen=True)
class Announced:
    """An object that a terminal of this domain announced."""

    object_id: int
    holder: HostPlan
    message: AnnounceObject
    arrived: bool = False


class Objects:
    """All announced objects whose home is in this domain.

    ``on_deploy(object id, who, what it said)``; ``place_of(what it said)``: where MDO has to put it ('': anywhere);
    ``owner_of(object id)``: whose job it is ('': nobody's that is known).
    """

    def __init__(self, services: Services, identities: Identities, places: Places) -> None:
        self.services, self.identities, self.places = services, identities, places
        self.announced = services.store.kept("announced objects", int, Announced, KEPT)
        self.on_deploy: Callable[[int, HostPlan, AnnounceObject], None] = lambda object_id, host, message: None
        self.place_of: Callable[[AnnounceObject], Awaitable[str]] = _anywhere
        self.owner_of: Callable[[int], str] = lambda object_id: ""

    async def announce(self, host: HostPlan, message: AnnounceObject) -> AnnounceReply:
        """Give an object its identity; ``SteeringError`` when there is nowhere it is needed."""
        if message.kind not in ORDERS:
            raise SteeringError(f"an object of kind {message.kind!r} cannot be announced; kinds: {', '.join(ORDERS)}")
        self._check_owner(host, message)
        object_id = self.identities.new(host.kas)
        entry = Announced(object_id, host, message)
        await self._target(entry, [])
        self.announced[object_id] = entry
        if message.kind == "deploy":
            self.on_deploy(object_id, host, message)
        return AnnounceReply(object_id=object_id)

    def _check_owner(self, host: HostPlan, message: AnnounceObject) -> None:
        """A model is its owner's to deploy, measure and replace; who serves it may pass it on."""
        if message.kind not in ("deploy", "measure") or host.role == "mdfp":
            return
        if host.role != "model_owner":
            raise Denied("not-owner", f"{host.name} is a {host.role}, it has no models to {message.kind}")
        for object_id in (message.for_object, message.replaces):
            if object_id and (owner := self.owner_of(object_id)) not in ("", host.name):
                raise Denied("not-owner", f"object {object_id:#x} is {owner}'s, not {host.name}'s")

    async def next_stop(self, ask: AskNextStop) -> Stop:
        """Return the one stop of an announced object."""
        entry = self._entry(ask.object_id)
        if ask.visit or ask.holder_kas != entry.holder.kas:
            raise SteeringError("an announced object makes one journey, from the terminal that announced it")
        kas, handle = await self._target(entry, ask.exclude)
        path = self.services.domain.kas_path(entry.holder.kas, kas)
        if not path:
            raise SteeringError(f"no live path from K-AS {entry.holder.kas} to K-AS {kas}")
        return Stop(action=ORDERS[entry.message.kind], kas=kas, handle=handle, path=path)

    async def _target(self, entry: Announced, exclude: list[str]) -> tuple[int, str]:
        match entry.message.kind:
            case "test_sample" | "late_sample":
                return await self._test_target(entry.message.copy)
            case "data":
                return self._data_target(entry)
            case "exchange":
                return self._exchange_target(entry)
            case "parcel":
                return await self._parcel_target(entry, exclude)
            case "measure":
                target = entry.message.target
                return read_site(target, "mpvu") if target else await self._test_target(entry.message.copy)
            case _:
                return await self._deploy_target(entry, exclude)

    async def _test_target(self, copy: int) -> tuple[int, str]:
        """MPVU number ``copy`` of the whole network; every K-AS must have answered, or the count would shift."""
        asked = [AskFacilities(kas=k, role="mpvu") for k in self.services.all_kas]
        answers = await asyncio.gather(*(self.services.must(a) for a in asked))
        mpvus = sorted((f for a in answers for f in getattr(a, "facilities", [])), key=lambda f: (f.kas, f.handle))
        if not mpvus:
            raise SteeringError("there is no MPVU to send test samples to")
        chosen = mpvus[copy % len(mpvus)]
        if not chosen.attributes.get("ready"):
            raise NotYet(f"MPVU number {copy} has not registered yet")
        return chosen.kas, chosen.handle

    def _data_target(self, entry: Announced) -> tuple[int, str]:
        """Data goes to the facility of a visit that is under way and needs it, and nowhere else."""
        visit = self.services.location.arrival(entry.message.for_object)
        if visit is None or visit.data_node != entry.holder.name or not visit.move_data:
            raise SteeringError(f"no visit under way needs the data of {entry.holder.name}")
        return visit.kas, f"@node/{visit.node}"

    def _exchange_target(self, entry: Announced) -> tuple[int, str]:
        """A piece of training together goes where its sender's order says, from a place that has such an order."""
        about = self.services.location.arrival(entry.message.for_object)
        if about is None or about.node != entry.holder.name or about.action not in ("train", "exchange"):
            raise SteeringError(f"{entry.holder.name} is in no group for object {entry.message.for_object}")
        return read_place(entry.message.target)

    async def _parcel_target(self, entry: Announced, exclude: list[str]) -> tuple[int, str]:
        """A parcel goes to the nearest terminal of its role (``task``): fewest K-AS away, then least loaded."""
        home, role = entry.holder.kas, entry.message.task
        found = await self.services.facilities(lambda k: AskFacilities(kas=k, role=role))
        own = f"{home}:{self.places.handle(entry.holder.name)}"
        fit = [f for f in found if f.attributes.get("ready") and f.handle_key not in (own, *exclude)]
        near = sorted(
            (len(path), float(f.attributes.get("load") or 0.0) > 0.5, f.kas, f.handle)
            for f in fit
            if (path := self.services.domain.kas_path(home, f.kas))
        )
        if not near:
            raise SteeringError(f"no {role} terminal is ready to take it")
        return near[0][2], near[0][3]

    async def _deploy_target(self, entry: Announced, exclude: list[str]) -> tuple[int, str]:
        """A model goes to the place that is named, to that of one that it replaces, or where MDO sees fit."""
        if target := entry.message.target or await self.place_of(entry.message):
            return read_site(target)
        found = await self.services.facilities(lambda k: AskFacilities(kas=k, role="mdfp"))
        by_key = {f.handle_key: f for f in found if f.attributes.get("ready") and f.handle_key not in exclude}
        nodes = [_as_node(f, self.services.clock()) for f in by_key.values()]
        try:
            engines = self.services.intelligence.engines
            chosen = by_key[await engines.place(entry.message.task, entry.message.size_bytes, nodes)]
        except EngineError as error:
            raise SteeringError(str(error)) from error
        return chosen.kas, chosen.handle

    def order(self, message: OrderRequest) -> Order:
        """Return what the place at which an announced object arrived does with it."""
        entry = self._entry(message.object_id)
        self.announced[message.object_id] = replace(entry, arrived=True)
        announced = entry.message
        return Order(
            action=ORDERS[announced.kind],
            object_id=message.object_id,
            visit=message.visit,
            for_object=announced.for_object,
            task=announced.task,
            accuracy=announced.accuracy,
            variant=announced.variant,
            way=announced.way,
        )

    def _entry(self, object_id: int) -> Announced:
        entry = self.announced.get(object_id)
        if entry is None:
            raise SteeringError(f"object {object_id} was not announced here")
        return entry

    def lost(self, lost: Lost) -> Lost | None:
        """Return what to tell the DCC of an object's holder (None: its journey is over, or its holder is gone)."""
        entry = self._entry(lost.object_id)
        if entry.arrived or lost.holder:
            return None
        return msgspec.structs.replace(lost, kas=entry.holder.kas, to_holder=True)


async def _anywhere(message: AnnounceObject) -> str:
    return ""


def _as_node(facility: Facility, now_s: float) -> Node:
    """Return a place on offer as the engines read nodes; its name is its key among all K-AS."""
    attributes = {name: Attribute(value, now_s) for name, value in facility.attributes.items()}
    key = place_key(facility.kas, facility.handle)
    return Node(name=key, role="mdfp", kas=facility.kas, address="", attributes=attributes, heard_s=now_s)
