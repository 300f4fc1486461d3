"""Re-steer: what happens to objects under way, or at work, when their rendezvous, their way or their holder is gone.

Whoever notices tells the object's home DCC (``Lost``).  The home decides what that means for the object, and asks the
DCC of whoever launched it, where the next-best stop is asked for, its way laid before the old one goes, and the holder
told to launch again.  A withdrawn rendezvous that still lives hands over what it holds (``HandOver``).
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any

from controller.access.calls import Calls
from controller.border.messages import HandOver, LinkState, Lost, Release, place_key
from controller.errors import BorderError, ControllerError, SteeringError
from controller.runtime.bounded import Bounded
from controller.services import Services
from controller.steering.launch import Leg, Steered, Steering
from controller.tools.communication import LabelPath
from controller.tools.location import Arrival
from packets import messages
from packets.labels import home_kas
from packets.messages import LaunchAgain


class Resteering:
    """Moves objects of one domain; works on ``Steering``'s records."""

    def __init__(self, services: Services, steering: Steering, calls: Calls) -> None:
        self.services, self.steering, self.calls = services, steering, calls
        self._mending: set[tuple[int, int]] = set()
        self._leaving: Bounded[tuple[int, int], str] = Bounded()

    # --- what is noticed here

    async def node_lost(self, node: str, reason: str) -> None:
        """A terminal is dead: objects on their way to it, at work in it, or launched by it have to go elsewhere."""
        arrivals = self.services.location.expected(node)
        held = [
            Lost(kas=home_kas(s.header.object_id), object_id=s.header.object_id, visit=s.visit, holder=True,
                 reason=f"{node} launched it, and {reason}"[:200])
            for s in self.steering.launched_by(node)
        ]  # fmt: skip
        await self._tell_home([*(self._lost(a, f"{node} {reason}", alive=False) for a in arrivals), *held])

    async def withdrawn(self, node: str, reason: str) -> None:
        """A live terminal is not to be a rendezvous any more: what is on its way to it goes elsewhere."""
        arrivals = self.services.location.expected(node)
        for arrival in arrivals:
            self._leaving[arrival.object_id, arrival.visit] = node
        await self._tell_home([self._lost(a, reason, alive=True) for a in arrivals])

    def leave(self, lost: Lost) -> None:
        """The home thinks better of a place here: remember which terminal that is, for the hand-over."""
        arrival = self.services.location.arrival(lost.object_id)
        if arrival is not None and (arrival.visit, place_key(arrival.kas, arrival.handle)) == (lost.visit, lost.place):
            self._leaving[lost.object_id, lost.visit] = arrival.node

    async def repair(self) -> None:
        """Links changed: lead label paths around what is down; where there is no way (left), tell the home DCC."""
        new = [p for p in self.services.communication.broken() if (p.label, p.kas) not in self._mending]
        await asyncio.gather(*(self._repair_once(path) for path in new))

    async def _repair_once(self, path: LabelPath) -> None:
        """Both ends of a link tell of it: whoever comes second leaves it to the first."""
        self._mending.add((path.label, path.kas))
        try:
            await self._repair(path)
        except ControllerError as error:  # of one path: the others go on
            self.services.emit("warning", text=f"label {path.label:#x} in K-AS {path.kas} is not mended: {error}")
        finally:
            self._mending.discard((path.label, path.kas))

    async def _repair(self, path: LabelPath) -> None:
        leg, communication = self.steering.legs.get((path.label, path.kas)), self.services.communication
        started_s = self.services.clock()
        try:
            if not self.services.domain.leads_on(path.exit.switch, path.exit.port):
                what = path.exit.host.name if path.exit.host else "the way to the next K-AS"
                raise SteeringError(f"{what} is cut off")
            fresh = await communication.steer(path.label, path.kas, path.entry, path.exit)
        except ControllerError as error:
            await self._way_lost(path, leg, str(error))
            return
        if leg is not None:
            took_ms = round((self.services.clock() - started_s) * 1e3, 2)
            self.services.emit(
                "object.rerouted", object_id=leg.object_id, visit=leg.visit, kas=path.kas, reason="link down",
                switches=fresh.switches, reroute_ms=took_ms,
            )  # fmt: skip

    async def _way_lost(self, path: LabelPath, leg: Leg | None, reason: str) -> None:
        """No way through this K-AS: another way, or another place, is the home's to find; then these rules are void."""
        if leg is not None:
            arrival = self.services.location.arrival(leg.object_id)
            here = path.exit.host is not None and arrival is not None and arrival.visit == leg.visit
            place = place_key(arrival.kas, arrival.handle) if here and arrival else ""
            lost = Lost(kas=home_kas(leg.object_id), object_id=leg.object_id, visit=leg.visit, place=place,
                        reason=reason[:200])  # fmt: skip
            await self._tell_of_border(path, lost.kas)
            await self._tell_home([lost])
        if self.services.communication.paths.get((path.label, path.kas)) is path:
            await self.services.communication.withdraw(path.label, path.kas)

    async def _tell_of_border(self, path: LabelPath, home: int) -> None:
        """The home must know of a dead border before it looks for another way; its own news may be slower than ours."""
        border = self.services.domain.borders.get((path.exit.switch, path.exit.port))
        if border is None or self.services.domain.leads_on(path.exit.switch, path.exit.port):
            return
        if self.services.domain.border(path.kas, border.neighbour_kas) is not None:
            return  # another link joins the two
        try:
            now = self.services.wall()
            link = LinkState(kas=home, a_kas=path.kas, b_kas=border.neighbour_kas, up=False, at_unix_s=now)
            await self.services.must(link)
        except BorderError as error:
            self.services.emit("warning", text=str(error))

    @staticmethod
    def _lost(arrival: Arrival, reason: str, *, alive: bool) -> Lost:
        return Lost(
            kas=home_kas(arrival.object_id), object_id=arrival.object_id, visit=arrival.visit,
            place=place_key(arrival.kas, arrival.handle), alive=alive, reason=reason[:200],
        )  # fmt: skip

    async def _tell_home(self, lost: Iterable[Lost]) -> None:
        async def tell(one: Lost) -> None:
            try:
                await self.services.must(one)
            except BorderError as error:
                self.services.emit("warning", text=f"object {one.object_id} visit {one.visit} ({one.reason}): {error}")

        await asyncio.gather(*(tell(one) for one in lost))

    # --- the holder's side

    async def resteer(self, lost: Lost) -> None:
        """Lead an object that a terminal of this domain launched to another stop, or the same one by another way.

        ``SteeringError`` when that terminal cannot launch it any more: then the home has to look further back.
        """
        started_s = self.services.clock()
        async with self.steering.lock(lost.object_id):
            held = self.steering.steered(lost.object_id, lost.visit)
            if held is None:
                raise SteeringError(f"object {lost.object_id} was not launched from here on visit {lost.visit}")
            if lost.place and held.place != lost.place:
                return  # it has been led elsewhere since
            now = await self._elsewhere(held, lost)
        if now is None or now.place != held.place:
            await self._hand_on(held, now, lost)
        if now is not None:
            self._tell(held, now, lost, (self.services.clock() - started_s) * 1e3)

    async def _elsewhere(self, held: Steered, lost: Lost) -> Steered | None:
        if lost.place:
            self.steering.exclude(lost.object_id, lost.visit, lost.place)
        try:
            return await self.steering.again(held)
        except ControllerError as error:
            self.services.emit("warning", text=f"object {lost.object_id} visit {lost.visit} ({lost.reason}): {error}")
            await self.steering.give_up(held)
            return None

    async def _hand_on(self, held: Steered, now: Steered | None, lost: Lost) -> None:
        """The holder begins at the new place with what that place lacks; a live former place gives what it has."""
        lives = lost.alive and now is not None and bool(now.address)
        again = LaunchAgain(object_id=lost.object_id, visit=lost.visit, former_lives=lives)
        host, asked = self.services.domain.hosts[held.holder], list[Coroutine[Any, Any, object]]()
        if lives and now is not None:
            asked.append(self._ask_former(held, now))
        await asyncio.gather(*asked, self.calls.ask(host, again, lost.object_id))

    async def _ask_former(self, held: Steered, now: Steered) -> None:
        over = HandOver(kas=held.stop.kas, object_id=held.header.object_id, visit=held.visit, address=now.address)
        try:
            await self.services.must(over)
        except BorderError as error:
            text = f"object {over.object_id}: its former rendezvous hands nothing over ({error}); its holder sends all"
            self.services.emit("warning", text=text)

    def _tell(self, held: Steered, now: Steered, lost: Lost, took_ms: float) -> None:
        about = {"object_id": lost.object_id, "visit": lost.visit, "reason": lost.reason, "path": now.stop.path}
        if now.place == held.place:
            self.services.emit("object.rerouted", **about, reroute_ms=round(took_ms, 2))
            return
        self.services.emit(
            "object.resteered", **about, holder=held.holder, alive=lost.alive, from_kas=held.stop.kas,
            to_kas=now.stop.kas, from_node=self._name(held), to_node=self._name(now), resteer_ms=round(took_ms, 2),
        )  # fmt: skip

    def _name(self, steered: Steered) -> str:
        """A terminal of this domain by its name; elsewhere only its own DCC tells (``object.steered``)."""
        host = self.services.domain.host_by_address.get(steered.address)
        return host.name if host else ""

    # --- what other control centres ask

    async def hand_over(self, over: HandOver) -> None:
        """Have the withdrawn rendezvous of this domain pass on what it holds."""
        node = self._leaving.get((over.object_id, over.visit))
        if node is None:
            raise SteeringError(f"no terminal of K-AS {over.kas} was withdrawn from object {over.object_id}")
        message = messages.HandOver(object_id=over.object_id, visit=over.visit, address=over.address)
        await self.calls.ask(self.services.domain.hosts[node], message, over.object_id)

    async def release(self, release: Release) -> None:
        """Tell a holder of this domain that its copy of an object may go."""
        held = self.steering.steered(release.object_id, release.visit)
        if held is not None:
            self.steering.let_go(held)
            message = messages.Release(object_id=release.object_id, visit=release.visit)
            await self.calls.ask(self.services.domain.hosts[held.holder], message, release.object_id)
