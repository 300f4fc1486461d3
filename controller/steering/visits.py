"""Objects at the terminals of a domain, as the terminals speak of them; what concerns their home goes on to it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import msgspec

from controller.access.gathering import Gathering
from controller.border.messages import Forward, Forwarded, Interrupt, Withdraw
from controller.errors import Denied, SteeringError
from controller.runtime.loop import Worker
from controller.services import Services
from controller.tools.location import Arrival
from packets.labels import home_kas
from packets.messages import (
    Ack,
    Inquire,
    Leave,
    LogRequest,
    Message,
    Order,
    OrderRequest,
    Remeasured,
    Returned,
    Verdict,
    VisitDone,
)
from topologies.plan import HostPlan

UNDER_WAY = ("train", "verify", "confirm")
LINGER_S = {  # of the rules of an object that makes one journey; a piece of a group's round is answered along its track
    "keep_test_sample": 5.0, "keep_late_sample": 5.0, "use_data": 5.0, "deploy": 5.0, "measure": 5.0, "keep": 5.0,
    "home": 5.0, "exchange": 120.0,
}  # fmt: skip
LATEST_S = max(LINGER_S.values())
JOURNEY_ENDS = ("keep_test_sample", "keep_late_sample", "use_data", "deploy", "measure", "keep", "home")
OF_OWNERS = (Returned, Inquire, LogRequest)
ABOUT_A_VISIT = (OrderRequest, VisitDone, Verdict)
ObjectMessage = OrderRequest | VisitDone | Verdict | Returned | Inquire | LogRequest | Remeasured
ABOUT_AN_OBJECT: tuple[type[ObjectMessage], ...] = (*ABOUT_A_VISIT, Returned, Inquire, LogRequest, Remeasured)


class Visits:
    """Takes terminals' messages on the objects they hold or await.

    ``on_trained(object id, visit, data node)``: a visit has trained; ``on_leave(terminal, reason)``: a terminal goes;
    ``owner_of(object id)``: whose job it is ('': none of this domain).
    """

    def __init__(self, services: Services, worker: Worker, gathering: Gathering) -> None:
        self.services, self.worker, self.gathering = services, worker, gathering
        self.on_trained: Callable[[int, int, str], None] = lambda object_id, visit, data_node: None
        self.on_leave: Callable[[str, str], Awaitable[None]]
        self.owner_of: Callable[[int], str] = lambda object_id: ""
        self._done = services.store.kept("visits that are done", tuple[int, int], bool)
        self._lingering = services.store.kept("journeys that end", int, Arrival)

    async def leave(self, host: HostPlan, message: Leave) -> Message:
        """A terminal withdraws: not offered any more, what is on its way to it goes elsewhere, then off the map."""
        if host.name not in self.services.krrm:
            return Ack()
        self.gathering.noted(host.name, {"reachable": False})
        busy = [a for a in self.services.location.at(host.name) if a.action in UNDER_WAY and not self._concluded(a)]
        if busy and not message.force:
            first = busy[0]
            raise SteeringError(
                f"object {first.object_id:#x} is at {host.name}, or on its way; finish visit {first.visit}"
            )
        kind = "terminal.withdrawn" if message.stay else "terminal.left"
        if not message.stay:
            self.gathering.gone(host.name)
        self.services.emit(kind, name=host.name, kas=host.kas, reason=message.reason, objects=len(busy))
        await self.on_leave(host.name, message.reason or "withdrawn")
        return Ack()

    def _concluded(self, arrival: Arrival) -> bool:
        """Tell whether an object's visit ended and it moved on (or its job is over): no reason for its host to stay."""
        return (arrival.object_id, arrival.visit) in self._done

    async def about_object(self, host: HostPlan, message: ObjectMessage) -> Message:
        """Hand a terminal's message to the home of its object, and do here what the answer means here."""
        if isinstance(message, OF_OWNERS) and (owner := self.owner_of(message.object_id)) not in ("", host.name):
            raise Denied("not-owner", f"object {message.object_id:#x} is {owner}'s, not {host.name}'s")
        arrival = self._arrival(host, message) if isinstance(message, ABOUT_A_VISIT) else None
        if isinstance(message, Remeasured):
            self._check_measured(host, message)
        nameless = msgspec.structs.replace(message, name="-")
        if isinstance(message, VisitDone):
            nameless = msgspec.structs.replace(nameless, data_node="-")
        if isinstance(message, OrderRequest) and arrival is not None:
            nameless = msgspec.structs.replace(nameless, samples=self._met(arrival))
        home = home_kas(message.object_id)
        forward = Forward(kas=home, from_kas=host.kas, object_id=message.object_id, message=nameless)
        reply = await self.services.must(forward)
        if not isinstance(reply, Forwarded):
            raise SteeringError(f"K-AS {home} answered {type(reply).__name__} to a message on an object")
        if arrival is not None:
            self._note(arrival, message)
            if isinstance(reply.message, Order):
                if reply.message.action in JOURNEY_ENDS:
                    self.services.location.done(arrival)
                self._linger(arrival, reply.message.action)
                return self._local_order(arrival, reply.message)
        return reply.message

    def _met(self, arrival: Arrival) -> int:
        """Return how many samples an object meets, where an abstract terminal was offered (else 0)."""
        inside = arrival.data_node in self.services.intelligence.within and arrival.data_node in self.services.krrm
        return int(self.services.krrm.node(arrival.data_node).get("samples", 0)) if inside else 0

    def _linger(self, arrival: Arrival, action: str) -> None:
        """See to it that what led an object of one journey here is gone soon: not at once, its last words repeat."""
        if action in LINGER_S:
            self._lingering[arrival.object_id] = arrival
            self._end_after(LINGER_S[action], arrival)

    def _end_after(self, linger_s: float, arrival: Arrival) -> None:
        doing = f"end of the journey of object {arrival.object_id}"
        loop = asyncio.get_running_loop()
        loop.call_later(linger_s, lambda: self.worker.spawn(self.end_journey(arrival), doing))

    def resume(self) -> None:
        """End the journeys that an earlier life has seen to their place."""
        for arrival in self._lingering.values():
            self._end_after(LINGER_S.get(arrival.action, LATEST_S), arrival)

    async def end_journey(self, arrival: Arrival) -> None:
        """Take an object's rules and tracks out of every K-AS: it stays where it is."""
        words = [
            Withdraw(kas=k, object_id=arrival.object_id, before_visit=arrival.visit + 1) for k in self.services.all_kas
        ]
        await asyncio.gather(*(self.services.may(word) for word in words))
        self._lingering.pop(arrival.object_id, None)

    def _arrival(self, host: HostPlan, message: ObjectMessage) -> Arrival:
        arrival = self.services.location.arrival(message.object_id)
        visit = getattr(message, "visit", -1)
        if arrival is None or (arrival.node, arrival.visit) != (host.name, visit):
            raise SteeringError(f"no object {message.object_id} was steered to {host.name} for visit {visit}")
        return arrival

    def _check_measured(self, host: HostPlan, message: Remeasured) -> None:
        """Who measures a deployed model is where a copy of it was sent to be measured."""
        copy = self.services.location.arrival(message.copy)
        if copy is None or (copy.node, copy.action) != (host.name, "measure"):
            raise SteeringError(f"no copy {message.copy:#x} of a deployed model was sent to {host.name} to be measured")

    def _local_order(self, arrival: Arrival, order: Order) -> Order:
        """Fill in what only this DCC knows: whose data is meant, and where it is."""
        if order.action != "train":
            return order
        data = self.services.domain.hosts[arrival.data_node or arrival.node]
        return msgspec.structs.replace(order, data_node=data.name, data_address=data.address)

    def _note(self, arrival: Arrival, message: ObjectMessage) -> None:
        if isinstance(message, VisitDone | Verdict):
            self._done[message.object_id, message.visit] = True
            if isinstance(message, VisitDone) and message.samples:
                self.on_trained(message.object_id, message.visit, arrival.data_node)
            self.services.store.visit(
                message.object_id, message.visit, arrival.kas, arrival.action, arrival.node, arrival.data_node, message
            )

    async def interrupt(self, word: Interrupt) -> None:
        """End the training of an object that is here; ``SteeringError`` when it is not, or on another visit."""
        arrival = self.services.location.arrival(word.object_id)
        if arrival is None or arrival.visit != word.visit:
            raise SteeringError(f"object {word.object_id} is not here on visit {word.visit}")
        await self.services.processes.halt(arrival.node, word.object_id, word.reason)
