"""Steering: an object's first packet has no rule; decide once, install the whole path, then let the packet go.

Three sides of one object meet here: the DCC of the K-AS that *holds* it (``launch``), those on the way and of the
rendezvous (``announced``), and the home DCC, which decides (``jobs`` and ``objects``, asked by ``AskNextStop``).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from controller.access.packets import AiPacket
from controller.access.places import Place, Places
from controller.border.messages import Announce, AskNextStop, Ready, Reply, Stop, Withdraw, place_key
from controller.errors import BorderError, ControllerError, SteeringError
from controller.runtime.bounded import Bounded
from controller.services import Services
from controller.tools.communication import LabelPath
from controller.tools.exits import Entry, Exit
from controller.tools.location import Arrival
from packets.labels import home_kas, object_label
from packets.wire import Header
from topologies.plan import HostPlan

TRIES = 4


@dataclass(frozen=True)
class Steered:
    """The decision that a holder's launch was given, kept so that a repeated launch is simply released.

    ``address``: where the object is put together, as the DCC of that place told.
    """

    visit: int
    holder: str
    stop: Stop
    header: Header
    address: str = ""

    @property
    def place(self) -> str:
        """The rendezvous among all K-AS."""
        return place_key(self.stop.kas, self.stop.handle)


@dataclass(frozen=True)
class Leg:
    """One object on one visit, as the events tell of it."""

    object_id: int
    visit: int
    action: str
    packet_type: str
    from_node: str = ""
    expected_s: float = 0.0

    @property
    def label(self) -> int:
        """The 28-bit label under which switches know the object."""
        return object_label(self.object_id)


class Steering:
    """Steers objects into, through and out of one domain. ``asks``: how a next stop is asked for, for a terminal."""

    def __init__(self, services: Services, places: Places) -> None:
        self.services, self.places = services, places
        kept = services.store.kept
        self._steered = kept("launches", int, Steered)
        self._past = kept("launches so far", tuple[int, int], Steered)
        self._locks: Bounded[int, asyncio.Lock] = Bounded()
        self.legs = kept("legs", tuple[int, int], Leg)
        self._avoid = kept("places that are avoided", tuple[int, int], list[str])
        self._holders = kept("holders", int, tuple[int, str])
        self._over = kept("visits that are over", int, int)
        self.asks: Callable[[HostPlan, AskNextStop], Awaitable[Reply]] = lambda host, ask: services.must(ask)

    # --- the holder's side

    async def launch(self, ai: AiPacket) -> None:
        """Steer the object that a terminal launches (once), and release the packet; ``SteeringError`` says why not."""
        async with self.lock(ai.header.object_id):
            if not self._known(ai.host, ai.header):
                began_s = self.services.clock()
                held = await self._decide(ai.host, ai.header)
                self.services.emit(
                    "object.released", object_id=ai.header.object_id, visit=ai.header.visit, kas=ai.host.kas,
                    to_kas=held.stop.kas, waited_ms=round(1e3 * (self.services.clock() - began_s), 3),
                )  # fmt: skip
        self.services.communication.release(ai.packets)

    def lock(self, object_id: int) -> asyncio.Lock:
        """Return the lock under which an object's next stop is decided here."""
        if object_id not in self._locks:
            self._locks[object_id] = asyncio.Lock()
        return self._locks[object_id]

    def _known(self, host: HostPlan, header: Header) -> bool:
        held = self._steered.get(header.object_id)
        now = max(self._over.get(header.object_id, 0), held.visit if held else 0)
        if header.visit < now:
            raise SteeringError(f"visit {header.visit} of the object is over, it is on visit {now}")
        if held is not None and held.visit == header.visit:
            if held.holder != host.name:
                raise SteeringError(f"holder: {host.name} does not hold the object on visit {header.visit}")
            # without its rules a released packet would only come back
            path = self.services.communication.paths.get((header.label, host.kas))
            return path is not None and path.laid and path.entry == Entry(host.switch, host.port)
        if header.visit and not self.holds(host, header.object_id, header.visit):
            raise SteeringError(f"holder: {host.name} does not hold the object before visit {header.visit}")
        self._holders[header.object_id] = header.visit, host.name
        return False

    def holds(self, host: HostPlan, object_id: int, visit: int) -> bool:
        """Tell whether a terminal is the one to launch an object on a visit other than its first."""
        if self._holders.get(object_id) == (visit, host.name):
            return True
        arrival = self.services.location.arrival(object_id)
        return arrival is not None and arrival.visit == visit - 1 and arrival.node == host.name

    async def again(self, held: Steered) -> Steered:
        """Decide anew for an object that was steered (maybe some visits ago), and lay the new way before the old goes.

        Call under ``lock``. Places that were ``exclude``d are not taken.
        """
        object_id = held.header.object_id
        self._over[object_id], self._holders[object_id] = held.visit, (held.visit, held.holder)
        try:
            return await self._decide(self.services.domain.hosts[held.holder], held.header, held.stop)
        finally:
            self._over[object_id] = held.visit

    def steered(self, object_id: int, visit: int) -> Steered | None:
        """Return what was decided for the launch of an object from this domain."""
        return self._past.get((object_id, visit))

    def launched_by(self, node: str) -> list[Steered]:
        """Return the objects whose latest launch from this domain was a terminal's."""
        return [s for s in self._steered.values() if s.holder == node]

    def let_go(self, held: Steered) -> None:
        """Its holder need not launch an object again."""
        latest = self._steered.get(held.header.object_id)
        if latest is not None and latest.visit == held.visit:
            del self._steered[held.header.object_id]

    async def give_up(self, held: Steered) -> None:
        """Take an object's rules out of its holder's K-AS: its next packet asks anew."""
        self._steered.pop(held.header.object_id, None)
        await self.services.communication.withdraw(held.header.label, self.services.domain.hosts[held.holder].kas)

    async def _decide(self, host: HostPlan, header: Header, before: Stop | None = None) -> Steered:
        object_id, visit = header.object_id, header.visit
        avoid = self._avoid.get((object_id, visit), [])
        for _ in range(TRIES):
            ask = AskNextStop(
                kas=home_kas(object_id), object_id=object_id, visit=visit, holder_kas=host.kas, exclude=list(avoid),
                owner=header.owner if header.mandate else "",
            )  # fmt: skip
            stop = await self.asks(host, ask)
            if not isinstance(stop, Stop):
                raise BorderError(f"K-AS {ask.kas} answered {type(stop).__name__} to a next stop")
            try:
                leg = Leg(object_id, visit, stop.action, header.type.name.lower(), host.name, stop.expected_s)
                return await self._prepare(leg, host, stop, before, header)
            except ControllerError as error:
                self.services.emit("warning", text=f"stop {stop.handle} in K-AS {stop.kas} is not possible: {error}")
                avoid = [*avoid, place_key(stop.kas, stop.handle)]  # for now: it may be possible at the next launch
        raise SteeringError(f"no next stop worked in {TRIES} tries")

    def exclude(self, object_id: int, visit: int, place: str) -> list[str]:
        """Remember that a place is not possible on this visit; returns all such."""
        self._avoid[object_id, visit] = [*self._avoid.get((object_id, visit), []), place]
        return self._avoid[object_id, visit]

    async def _prepare(self, leg: Leg, host: HostPlan, stop: Stop, before: Stop | None, header: Header) -> Steered:
        """Everything along the path: nothing is released before all of it is confirmed.

        ``before``: packets of this visit are under way by an older path: the new one is laid from its far end, and the
        K-AS that are no longer on it are told last.
        """
        place = None
        if len(stop.path) == 1:
            place = await self._place(leg, stop.kas, stop.handle)
        entry, replies = Entry(host.switch, host.port), list[Reply]()
        announcements = self._announcements(leg, stop)
        if before is None:
            await self._clear(leg, stop.clear, leg.visit)
            replies = await asyncio.gather(*(self.services.must(a) for a in announcements))
        else:
            for announcement in reversed(announcements):
                replies.insert(0, await self.services.must(announcement))
        address = place.host.address if place else getattr(replies[-1], "address", "")
        steered = Steered(leg.visit, host.name, stop, header, address)
        former = self._steered.get(leg.object_id), self._past.get((leg.object_id, leg.visit))
        self._note(leg, steered, steered)  # with the first rule: a packet that finds one is one that we know of
        try:
            if place is not None:
                await self._into(leg, stop.kas, stop.handle, entry, place)
            else:
                await self._through(leg, stop.path[0], entry, stop.path[1])
        except ControllerError:
            self._note(leg, *former)
            raise
        self._avoid.pop((leg.object_id, leg.visit), None)
        if before is not None:
            await self._clear_late(leg, sorted({*stop.clear, *before.path} - set(stop.path)))
        return steered

    def _note(self, leg: Leg, latest: Steered | None, of_visit: Steered | None) -> None:
        """Remember what was decided for a launch (None: that nothing was)."""
        self._steered.pop(leg.object_id, None)
        self._past.pop((leg.object_id, leg.visit), None)
        if latest is not None:
            self._steered[leg.object_id] = latest
        if of_visit is not None:
            self._past[leg.object_id, leg.visit] = of_visit

    async def _clear(self, leg: Leg, kas: list[int], before_visit: int) -> None:
        clear = [Withdraw(kas=k, object_id=leg.object_id, before_visit=before_visit) for k in kas]
        await asyncio.gather(*(self.services.must(w) for w in clear))

    async def _clear_late(self, leg: Leg, kas: list[int]) -> None:
        """Rules that lead nowhere any more; a K-AS that cannot be told drops them with the object's next visit."""
        try:
            await self._clear(leg, kas, leg.visit + 1)
        except BorderError as error:
            self.services.emit("warning", text=f"old rules of object {leg.object_id}: {error}")

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
                expected_s=leg.expected_s,
            )
            for before, kas, after in zip(stop.path, stop.path[1:], onward, strict=False)
        ]

    # --- on the way, and at the rendezvous

    async def announced(self, a: Announce) -> Ready:
        """Another K-AS sends an object here: have its flows ready; ``SteeringError`` when that is not possible."""
        self._over[a.object_id] = a.visit
        leg = Leg(a.object_id, a.visit, a.action, a.packet_type, expected_s=a.expected_s)
        border = self.services.domain.border(a.kas, a.from_kas)
        if border is None:
            raise SteeringError(f"K-AS {a.kas} has no live border to K-AS {a.from_kas}")
        entry = Entry(border.switch, border.port)
        if a.to_kas:
            await self._through(leg, a.kas, entry, a.to_kas)
            return Ready()
        place = await self._place(leg, a.kas, a.handle)
        await self._into(leg, a.kas, a.handle, entry, place)
        return Ready(address=place.host.address)

    async def _place(self, leg: Leg, kas: int, handle: str) -> Place:
        now_s = self.services.clock()
        others = [a for a in self.services.location.expected() if a.object_id != leg.object_id and a.until_s > now_s]
        await self.places.settle(leg.object_id, handle, {a.node: a.until_s - now_s for a in others})
        place = self.places.resolve(leg.object_id, kas, handle)
        if place.host.name == leg.from_node:
            raise SteeringError("the object is there already")
        return place

    async def _into(self, leg: Leg, kas: int, handle: str, entry: Entry, place: Place) -> None:
        host, location = place.host, self.services.location
        data_node = place.data_node or (host.name if leg.action == "train" else "")
        until_s = self.services.clock() + leg.expected_s
        arrival = Arrival(
            leg.object_id, leg.visit, leg.action, kas, handle, host.name, data_node, place.move_data, until_s
        )
        before = location.arrival(leg.object_id)
        location.expect(arrival)  # with the first rule, as all that is known of its way
        try:
            path = await self._lay(leg, kas, entry, Exit(host.switch, host.port, host))
        except ControllerError:
            location.expect_not(arrival, before)
            raise
        self._tell(leg, path, host.name, data_node, self.places.explain(leg.object_id, handle))
        self.services.store.visit(leg.object_id, leg.visit, kas, leg.action, host.name, data_node, {"handle": handle})

    async def _through(self, leg: Leg, kas: int, entry: Entry, next_kas: int) -> None:
        border = self.services.domain.border(kas, next_kas)
        if border is None:
            raise SteeringError(f"K-AS {kas} has no live border to K-AS {next_kas}")
        path = await self._lay(leg, kas, entry, Exit(border.switch, border.port))
        self.services.location.left(leg.object_id, leg.visit)
        self.services.location.left(leg.object_id, leg.visit + 1, kas)
        self._tell(leg, path, "", "", {})

    async def _lay(self, leg: Leg, kas: int, entry: Entry, leave: Exit) -> LabelPath:
        former = self.legs.get((leg.label, kas))
        self.legs[leg.label, kas] = leg
        try:
            return await self.services.communication.steer(leg.label, kas, entry, leave)
        except ControllerError:
            self.legs.pop((leg.label, kas), None)
            if former is not None:
                self.legs[leg.label, kas] = former
            raise

    def _tell(self, leg: Leg, path: LabelPath, node: str, data_node: str, basis: dict[str, object]) -> None:
        self.services.emit(
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

    async def withdraw(self, request: Withdraw) -> None:
        """Take out an object's rules of earlier visits."""
        self._over[request.object_id] = request.before_visit
        leg = self.legs.get((object_label(request.object_id), request.kas))
        if leg is not None and leg.object_id == request.object_id and leg.visit < request.before_visit:
            del self.legs[leg.label, request.kas]
            await self.services.communication.withdraw(leg.label, request.kas)
        self.services.location.left(request.object_id, request.before_visit, request.kas)
