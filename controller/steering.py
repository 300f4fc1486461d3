"""Steering: an object's first packet has no rule; decide once, install the whole path, then let the packet go.

Three sides of one object meet here: the DCC of the K-AS that *holds* it (``launch``), those on the way and of the
rendezvous (``announced``), and the home DCC, which decides (``jobs`` and ``objects``, asked by ``AskNextStop``).
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from controller.errors import BorderError, ControllerError, SteeringError
from controller.kit import Kit
from controller.openflow import PacketIn
from controller.places import Place, Places
from controller.protocol import Announce, AskNextStop, Lost, Stop, Withdraw, place_key
from controller.recent import Recent
from controller.tools.communication import Entry, Exit, LabelPath
from controller.tools.location import Arrival
from packets.labels import home_kas, object_label
from packets.wire import Header
from topologies.plan import HostPlan

TRIES = 4


@dataclass
class Steered:
    """The decision that a holder's launch was given, kept so that a repeated launch is simply released."""

    visit: int
    holder: str
    stop: Stop


@dataclass(frozen=True)
class Leg:
    """One object on one visit, as the events tell of it."""

    object_id: int
    visit: int
    action: str
    packet_type: str
    from_node: str = ""

    @property
    def label(self) -> int:
        return object_label(self.object_id)


class Steering:
    """Steers objects into, through and out of one domain."""

    def __init__(self, kit: Kit, places: Places) -> None:
        self.kit, self.places = kit, places
        self._steered: Recent[int, Steered] = Recent()
        self._locks: Recent[int, asyncio.Lock] = Recent()
        self._legs: dict[tuple[int, int], Leg] = {}
        self._avoid: Recent[tuple[int, int], list[str]] = Recent()
        self._holders: Recent[int, tuple[int, str]] = Recent()
        self._over: Recent[int, int] = Recent()

    # --- the holder's side

    async def launch(self, packet: PacketIn, host: HostPlan, header: Header) -> None:
        """Steer the object that a terminal launches (once), and release the packet; ``SteeringError`` says why not."""
        if header.object_id not in self._locks:
            self._locks[header.object_id] = asyncio.Lock()
        async with self._locks[header.object_id]:
            if not self._known(host, header):
                await self._decide(host, header)
        self.kit.communication.release(packet)

    def _known(self, host: HostPlan, header: Header) -> bool:
        held = self._steered.get(header.object_id)
        now = max(self._over.get(header.object_id, 0), held.visit if held else 0)
        if header.visit < now:
            raise SteeringError(f"visit {header.visit} of the object is over, it is on visit {now}")
        if held is not None and held.visit == header.visit:
            if held.holder != host.name:
                raise SteeringError(f"{host.name} does not hold the object on visit {header.visit}")
            # without its rules a released packet would only come back
            path = self.kit.communication.paths.get((header.label, host.kas))
            return path is not None and path.entry == Entry(host.switch, host.port)
        if header.visit and not self._holds(host, header):
            raise SteeringError(f"{host.name} does not hold the object before visit {header.visit}")
        self._holders[header.object_id] = header.visit, host.name
        return False

    def _holds(self, host: HostPlan, header: Header) -> bool:
        if self._holders.get(header.object_id) == (header.visit, host.name):
            return True
        arrival = self.kit.location.arrival(header.object_id)
        return arrival is not None and arrival.visit == header.visit - 1 and arrival.node == host.name

    async def _decide(self, host: HostPlan, header: Header) -> None:
        object_id, visit = header.object_id, header.visit
        avoid = self._avoid.get((object_id, visit), [])
        for _ in range(TRIES):
            ask = AskNextStop(
                kas=home_kas(object_id), object_id=object_id, visit=visit, holder_kas=host.kas, exclude=list(avoid)
            )
            stop = await self.kit.must(ask)
            if not isinstance(stop, Stop):
                raise BorderError(f"K-AS {ask.kas} answered {type(stop).__name__} to a next stop")
            try:
                leg = Leg(object_id, visit, stop.action, header.type.name.lower(), host.name)
                await self._prepare(leg, host, stop)
            except ControllerError as error:
                self.kit.emit("warning", text=f"stop {stop.handle} in K-AS {stop.kas} is not possible: {error}")
                avoid = self._exclude(object_id, visit, stop)
                continue
            self._steered[object_id] = Steered(visit, host.name, stop)
            self._avoid.pop((object_id, visit), None)
            return
        raise SteeringError(f"no next stop worked in {TRIES} tries")

    def _exclude(self, object_id: int, visit: int, stop: Stop) -> list[str]:
        """Remember that a stop is not possible on this visit; returns all such."""
        self._avoid[object_id, visit] = [*self._avoid.get((object_id, visit), []), place_key(stop.kas, stop.handle)]
        return self._avoid[object_id, visit]

    async def _prepare(self, leg: Leg, host: HostPlan, stop: Stop) -> None:
        """Everything along the path, the far end first in mind: nothing is released before all of it is confirmed."""
        place = None
        if len(stop.path) == 1:
            place = self._place(leg, stop.kas, stop.handle)
        await asyncio.gather(*(self.kit.must(self._withdrawal(leg, kas)) for kas in stop.clear))
        await asyncio.gather(*(self.kit.must(a) for a in self._announcements(leg, stop)))
        entry = Entry(host.switch, host.port)
        if place is not None:
            await self._into(leg, stop.kas, stop.handle, entry, place)
        else:
            await self._through(leg, stop.path[0], entry, stop.path[1])

    @staticmethod
    def _withdrawal(leg: Leg, kas: int) -> Withdraw:
        return Withdraw(kas=kas, object_id=leg.object_id, before_visit=leg.visit)

    @staticmethod
    def _announcements(leg: Leg, stop: Stop) -> list[Announce]:
        onward = [*stop.path[2:], 0]
        return [
            Announce(
                kas=kas,
                object_id=leg.object_id,
                visit=leg.visit,
                action=leg.action,
                packet_type=leg.packet_type,
                from_kas=before,
                to_kas=after,
                handle="" if after else stop.handle,
            )
            for before, kas, after in zip(stop.path, stop.path[1:], onward, strict=False)
        ]

    # --- on the way, and at the rendezvous

    async def announced(self, a: Announce) -> None:
        """Another K-AS sends an object here: have its flows ready; ``SteeringError`` when that is not possible."""
        self._over[a.object_id] = a.visit
        leg = Leg(a.object_id, a.visit, a.action, a.packet_type)
        border = self.kit.domain.border(a.kas, a.from_kas)
        if border is None:
            raise SteeringError(f"K-AS {a.kas} has no live border to K-AS {a.from_kas}")
        entry = Entry(border.switch, border.port)
        if a.to_kas:
            await self._through(leg, a.kas, entry, a.to_kas)
        else:
            await self._into(leg, a.kas, a.handle, entry, self._place(leg, a.kas, a.handle))

    def _place(self, leg: Leg, kas: int, handle: str) -> Place:
        place = self.places.resolve(leg.object_id, kas, handle)
        if place.host.name == leg.from_node:
            raise SteeringError("the object is there already")
        return place

    async def _into(self, leg: Leg, kas: int, handle: str, entry: Entry, place: Place) -> None:
        host = place.host
        path = await self.kit.communication.steer(leg.label, kas, entry, Exit(host.switch, host.port, host))
        data_node = place.data_node or (host.name if leg.action == "train" else "")
        self.kit.location.expect(
            Arrival(leg.object_id, leg.visit, leg.action, kas, handle, host.name, data_node, place.move_data)
        )
        self._tell(leg, path, host.name, data_node, self.places.explain(leg.object_id, handle))
        self.kit.store.visit(leg.object_id, leg.visit, kas, leg.action, host.name, data_node, {"handle": handle})

    async def _through(self, leg: Leg, kas: int, entry: Entry, next_kas: int) -> None:
        border = self.kit.domain.border(kas, next_kas)
        if border is None:
            raise SteeringError(f"K-AS {kas} has no live border to K-AS {next_kas}")
        path = await self.kit.communication.steer(leg.label, kas, entry, Exit(border.switch, border.port))
        self.kit.location.left(leg.object_id, leg.visit)
        self._tell(leg, path, "", "", {})

    def _tell(self, leg: Leg, path: LabelPath, node: str, data_node: str, basis: dict[str, object]) -> None:
        self._legs[leg.label, path.kas] = leg
        self.kit.emit(
            "object.steered",
            object_id=leg.object_id,
            visit=leg.visit,
            type=leg.packet_type,
            purpose=leg.action,
            kas=path.kas,
            node=node,
            facility=node if leg.action == "train" else "",
            data_node=data_node,
            from_node=leg.from_node,
            switches=path.switches,
            flows=len(path.rules),
            basis=basis,
        )

    # --- what changes

    async def withdraw(self, request: Withdraw) -> None:
        """Take out an object's rules of earlier visits."""
        self._over[request.object_id] = request.before_visit
        leg = self._legs.get((object_label(request.object_id), request.kas))
        if leg is not None and leg.object_id == request.object_id and leg.visit < request.before_visit:
            del self._legs[leg.label, request.kas]
            await self.kit.communication.withdraw(leg.label, request.kas)
        self.kit.location.left(request.object_id, request.before_visit)

    async def forget(self, lost: Lost) -> None:
        """The rendezvous of an object we hold is gone: take its rules out, so that its next launch asks anew."""
        held = self._steered.get(lost.object_id)
        if held is None or held.visit != lost.visit:
            return
        del self._steered[lost.object_id]
        self._exclude(lost.object_id, lost.visit, held.stop)
        await self.kit.communication.withdraw(object_label(lost.object_id), lost.kas)

    async def repair(self) -> None:
        """Links changed: lead label paths around what is down; where there is no way (left), tell the home DCC."""
        communication = self.kit.communication
        for path in communication.broken():
            leg = self._legs.get((path.label, path.kas))
            try:
                await communication.steer(path.label, path.kas, path.entry, self._live_exit(path))
            except ControllerError as error:
                await communication.withdraw(path.label, path.kas)
                if leg is not None:
                    await self._report_lost(leg, str(error))

    def _live_exit(self, path: LabelPath) -> Exit:
        if not self.kit.domain.is_up(path.exit.switch, path.exit.port):
            what = path.exit.host.name if path.exit.host else "the way to the next K-AS"
            raise SteeringError(f"{what} is cut off")
        return path.exit

    async def _report_lost(self, leg: Leg, reason: str) -> None:
        self.kit.emit("warning", text=f"object {leg.object_id} visit {leg.visit}: {reason}; steering anew")
        lost = Lost(kas=home_kas(leg.object_id), object_id=leg.object_id, visit=leg.visit)
        await self.kit.must(lost)
