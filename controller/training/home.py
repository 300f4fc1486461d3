"""The home of objects: where they go next, what becomes of them, what the places they visit say of them.

Of an object that a terminal announced ``steering.announced`` knows all, of a job's ``training``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from controller.border.holding import AskBriefing, Briefing
from controller.border.messages import AskNextStop, Forward, Forwarded, Lost, Stop
from controller.errors import ControllerError, Denied, SteeringError
from controller.services import Services
from controller.steering.announced import Objects
from controller.steering.resteer import Resteering
from controller.steering.visits import ABOUT_AN_OBJECT, OF_OWNERS
from controller.training.recovery import Custody
from controller.training.submission import Training
from packets.messages import Ack, OrderRequest, Remeasured, Verdict
from packets.queries import SINGLE


class Home:
    """Answers for all objects whose home is in this domain."""

    def __init__(
        self, services: Services, objects: Objects, training: Training, custody: Custody, resteering: Resteering
    ) -> None:
        self.services, self.objects, self.training = services, objects, training
        self.custody, self.resteering = custody, resteering
        self.on_remeasured: Callable[[Remeasured], Awaitable[None]]

    async def forwarded(self, forward: Forward) -> Forwarded:
        """Handle a message that another K-AS's DCC passes on to us, the home of its object."""
        message = forward.message
        if isinstance(message, OrderRequest) and message.object_id in self.objects.announced:
            return Forwarded(message=self.objects.order(message))
        if isinstance(message, Remeasured):
            await (self._tell_owner(message) if message.way != SINGLE else self.on_remeasured(message))
            return Forwarded(message=Ack())
        if isinstance(message, OF_OWNERS) and forward.from_kas not in self.services.domain.kas:
            raise Denied("not-owner", f"the owner of object {message.object_id:#x} is of its home K-AS")
        if not isinstance(message, ABOUT_AN_OBJECT):
            raise SteeringError(f"{type(message).__name__} is not for the home of an object")
        if isinstance(message, OrderRequest) and message.samples:
            await self.training.stops.met(message)
        evidence = self.training.reports.evidence(message) if isinstance(message, Verdict) else []
        answer = await self.training.reports.handle(message)
        for item in evidence:
            try:
                await self.services.must(item)
            except ControllerError as error:
                self.services.emit("warning", text=f"no evidence for K-AS {item.kas}: {error}")
        return Forwarded(message=answer)

    async def _tell_owner(self, message: Remeasured) -> None:
        """What an MPVU learned for a way of inference goes to who sent it the models."""
        owner = self.services.domain.hosts[self.training.book.job(message.object_id).owner]
        await self.services.processes.tell(owner, message, message.object_id)

    async def briefing(self, ask: AskBriefing) -> Briefing:
        """Tell who holds a job's object what it needs to say where that goes; ``SteeringError`` for another owner."""
        self._check_owner(ask)
        return Briefing() if ask.object_id in self.objects.announced else await self.training.stops.briefing(ask)

    async def next_stop(self, ask: AskNextStop) -> Stop | Briefing:
        """Decide where an object goes next; ``SteeringError`` when there is nowhere, or another owner asks."""
        known = ask.object_id in self.objects.announced
        self._check_owner(ask)
        return await (self.objects.next_stop(ask) if known else self.training.stops.next_stop(ask))

    def _check_owner(self, ask: AskNextStop | AskBriefing) -> None:
        """An object's owner is who submitted or announced it, whoever else may have signed a mandate for it."""
        announced, job = self.objects.announced.get(ask.object_id), self.training.book.jobs.get(ask.object_id)
        name = announced.holder.name if announced else job.owner if job else ""
        owner = self.services.domain.hosts.get(name)
        if ask.owner and owner is not None and ask.owner != owner.address:
            raise SteeringError(f"owner: the object is not that of {ask.owner}")

    async def lost(self, lost: Lost) -> None:
        """A rendezvous, a way or a holder is gone: lead the object elsewhere, whoever's it is."""
        if lost.to_holder:
            await self.resteering.resteer(lost)
        elif lost.leaving:
            self.resteering.leave(lost)
        elif lost.object_id in self.objects.announced:
            if (to_holder := self.objects.lost(lost)) is not None:
                await self.resteering.resteer(to_holder)
        else:
            await self.custody.lost(lost)
