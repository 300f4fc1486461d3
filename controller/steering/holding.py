"""In a distributed K-AS (paper, Fig. 3) who holds an object says where it trains next: here its control centre carries
the question to the object's home, and back what the holder proposes.

What is proposed is verified at the home (``controller.training.proposals``). Where the holder says nothing, or nothing
that can be, another terminal is asked; where none answers, nothing decides in its place.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import msgspec

from controller.border.holding import AskBriefing, Briefing
from controller.border.messages import AskNextStop, Reply, Stop
from controller.errors import BorderError, ControllerError, SteeringError
from controller.placement.distributed import Distributed, fitted
from controller.runtime.bounded import Bounded
from controller.services import Services
from controller.steering.launch import Steering
from controller.values.decisions import Booking
from controller.values.distributed import Brief, Proposal
from packets.distributed.asking import AskBrief, AskPlan, Briefed, Planned, Propose
from packets.labels import home_kas
from packets.messages import Ack
from topologies.plan import HostPlan

LOOKS = 3  # proposals for one stop
Bookings = Callable[[int, int], list[Booking]]


class Holding:
    """Stands between holders and homes. ``bookings(kas, object id)``: which places here other objects take."""

    def __init__(self, services: Services, minds: Distributed, steering: Steering, bookings: Bookings) -> None:
        self.services, self.minds, self.steering, self.bookings = services, minds, steering, bookings
        self._proposed: Bounded[tuple[int, int], tuple[str, Proposal]] = Bounded()
        steering.asks = self.next_stop

    # --- what the holder asks, and says

    async def brief(self, host: HostPlan, message: AskBrief) -> Briefed:
        """Tell a holder what it needs to know to say where its object goes; ``SteeringError``: it holds nothing."""
        self._check_holds(host, message.object_id, message.visit)
        ask = AskBriefing(
            kas=home_kas(message.object_id), object_id=message.object_id, visit=message.visit, holder_kas=host.kas,
            owner="" if message.visit else host.address,
        )  # fmt: skip
        reply = await self.services.must(ask)
        if not isinstance(reply, Briefing):
            raise BorderError(f"K-AS {ask.kas} answered {type(reply).__name__} to a holder's question")
        return Briefed(brief=fitted(self._whole(host.kas, reply.brief)) if reply.brief else b"")

    def propose(self, host: HostPlan, message: Propose) -> Ack:
        """Keep what a holder proposes until it launches its object."""
        self._check_holds(host, message.object_id, message.visit)
        said = Proposal(handles=message.handles, scores=message.scores, ms=message.took_ms)
        self._proposed[message.object_id, message.visit] = host.name, said
        return Ack()

    def _check_holds(self, host: HostPlan, object_id: int, visit: int) -> None:
        if visit and not self.steering.holds(host, object_id, visit):
            raise SteeringError(f"holder: {host.name} does not hold the object before visit {visit}")

    # --- what is asked on its behalf

    async def next_stop(self, host: HostPlan, ask: AskNextStop) -> Reply:
        """Ask the home for an object's next stop, with what its holder proposes; ask again what cannot be."""
        name, proposal = self._proposed.pop((ask.object_id, ask.visit), ("", None))
        if name != host.name:
            proposal = None
        ask = msgspec.structs.replace(ask, held=True)
        before = list[str]()
        for looks_left in reversed(range(LOOKS)):
            reply = await self.services.must(msgspec.structs.replace(ask, proposal=proposal))
            if not isinstance(reply, Briefing):
                self._tell(host, ask, reply, proposal)
                return reply
            if reply.why:
                self._refused(host, ask, proposal, reply.why)
                before.append(reply.why)
            if not looks_left or reply.brief is None:
                break
            others = [host.name] if reply.why and looks_left < LOOKS - 1 else []
            proposal = await self._asked(host, ask, reply.brief, before, others)
            if proposal is None:
                break
        silent = f"no terminal of K-AS {host.kas} says where it goes: {'; '.join(before)}"[:300]
        return await self.services.must(msgspec.structs.replace(ask, silent=silent))

    async def _asked(
        self, host: HostPlan, ask: AskNextStop, brief: Brief, before: list[str], without: list[str]
    ) -> Proposal | None:
        """Ask the holder, or (``without`` it, or where it says nothing) another terminal; None: nobody says."""
        whole = self._whole(host.kas, brief)
        if host.name not in without:
            message = AskPlan(object_id=ask.object_id, brief=fitted(whole))
            try:
                said = await self.minds.ask(host, message, ask.object_id)
                if isinstance(said, Planned) and said.handles:
                    return _proposal(said, "holder")
                before.append(getattr(said, "none", "") or f"{host.name} answered {type(said).__name__}")
            except ControllerError as error:
                before.append(" ".join(str(error).split())[:70])
        async for name, planned in self.minds.planned(whole, before, [host.name]):
            if planned.handles:
                return _proposal(planned, "other")
            before.append(planned.none or f"{name} says nothing")
            break
        return None

    def _whole(self, kas: int, brief: Brief) -> Brief:
        """Return a home's brief with what is known here: of terminals and links, and what other objects take."""
        bookings = [*brief.load.bookings, *self.bookings(kas, brief.object_id)]
        return msgspec.structs.replace(
            brief, kas=kas, standing=self.minds.standing(self.services.domain.down_links()),
            load=msgspec.structs.replace(brief.load, bookings=bookings),
        )  # fmt: skip

    # --- what is told

    def _tell(self, host: HostPlan, ask: AskNextStop, reply: Reply, proposal: Proposal | None) -> None:
        if proposal is None or not isinstance(reply, Stop) or reply.action != "train":
            return
        node = host.name if proposal.by == "holder" else ""
        self.services.emit(
            "holder.decided", object_id=ask.object_id, visit=ask.visit, kas=host.kas, node=node, holder=host.name,
            handle=reply.handle, took_ms=proposal.ms,
        )  # fmt: skip

    def _refused(self, host: HostPlan, ask: AskNextStop, proposal: Proposal | None, why: str) -> None:
        handle = proposal.handles[0] if proposal else ""
        text = f"what a terminal of K-AS {host.kas} proposed for visit {ask.visit} cannot be: {why}"
        self.services.emit(
            "proposal.refused", object_id=ask.object_id, visit=ask.visit, kas=host.kas, node=host.name, handle=handle,
            reason=why, text=text,
        )  # fmt: skip


def _proposal(said: Planned, by: Literal["holder", "other"]) -> Proposal:
    return Proposal(handles=said.handles, scores=said.scores, ms=said.took_ms, by=by)
