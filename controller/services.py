"""What every part of a control centre is given: the domain, a clock, a voice, a memory, and a way to ask other K-AS."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from controller.border.messages import Ask, Facilities, Facility, No, Reply
from controller.border.serving import AskBorder
from controller.domain import Domain
from controller.errors import BorderError
from controller.intelligence import Intelligence
from controller.placement.borrowing import Borrowing
from controller.placement.distributed import Distributed
from controller.placement.kinds import Housing, salt_of
from controller.placement.tiers import Tiered
from controller.plugins.engines import Engines
from controller.runtime.loop import Worker
from controller.southbound.openflow import Southbound
from controller.store import Store
from controller.tools.communication import Communication
from controller.tools.location import Location
from controller.tools.process import Processes
from controller.topology.freshness import Freshness
from controller.topology.krrm import Krrm
from packets.events import Emit
from packets.security.clock import unix_s
from packets.security.keeper import Keeper

AskKas = Callable[[Ask], Awaitable[Reply]]


@dataclass
class Means:
    """What a control centre is given to work with. ``seed`` None: handles are not repeatable."""

    south: Southbound
    worker: Worker
    store: Store
    clock: Callable[[], float]
    emit: Emit
    ask_border: AskBorder
    seed: int | None = None
    groups: dict[str, list[str]] | None = None
    engines: Engines | None = None
    keeper: Keeper | None = None
    any_source: bool = False
    housing: Housing = field(default_factory=Housing)


@dataclass
class Services:
    """Injected collaborators. ``ask`` reaches the DCC of any K-AS, also this one.

    ``clock`` is monotonic seconds, ``wall`` those since 1970, which terminals tell their changes by.
    """

    domain: Domain
    clock: Callable[[], float]
    emit: Emit
    store: Store
    intelligence: Intelligence
    communication: Communication
    location: Location
    processes: Processes
    ask: AskKas
    groups: dict[str, list[str]] = field(default_factory=dict)
    wall: Callable[[], float] = unix_s
    freshness: Freshness = field(default_factory=Freshness)

    @property
    def krrm(self) -> Krrm:
        """The map of this domain's terminals."""
        return self.intelligence.known

    @property
    def salt(self) -> bytes:
        """The secret that makes this domain's handles opaque."""
        return self.intelligence.salt

    @property
    def all_kas(self) -> list[int]:
        """Every K-AS there is, by number."""
        return sorted(self.domain.kas.union(*((k.a_kas, k.b_kas) for k in self.domain.plan.kas_links)))

    async def ask_all(self, make: Callable[[int], Ask]) -> list[Reply]:
        """Ask every K-AS, side by side; those that do not answer are left out, with a warning."""
        replies = await asyncio.gather(*(self.may(make(kas)) for kas in self.all_kas))
        return [r for r in replies if r is not None]

    async def may(self, body: Ask) -> Reply | None:
        """Ask one K-AS; None, with a warning, when it says No, or nothing."""
        try:
            return await self.must(body)
        except BorderError as error:
            self.emit("warning", text=str(error))
            return None

    async def must(self, body: Ask) -> Reply:
        """Ask one K-AS; ``BorderError`` when it says No, or nothing."""
        reply = await self.ask(body)
        if isinstance(reply, No):
            raise BorderError(reply.reason)
        return reply

    async def facilities(self, make: Callable[[int], Ask]) -> list[Facility]:
        """Return the places of a role in all K-AS, ordered by K-AS and handle."""
        found = [f for r in await self.ask_all(make) if isinstance(r, Facilities) for f in r.facilities]
        return sorted(found, key=lambda f: (f.kas, f.handle))


def make_kit(domain: Domain, means: Means, ask: AskKas) -> Services:
    """Return the collaborators of one control centre; ``ask`` is how they reach others."""
    numbers, salt = sorted(domain.kas), means.housing.salt or salt_of(means.seed, domain.kas)
    engines, kind = means.engines or Engines(), means.housing.kind
    if kind.borrows:
        borrowing = Borrowing(numbers[0], kind.borrows, kind.timeout_s, ask, means.clock, means.emit)
        engines = engines.without(dict.fromkeys(kind.borrows, borrowing.decide))
    engines.emit = means.emit
    intelligence = Intelligence(domain.plan, engines, salt=salt)
    if kind.abstract_terminals:
        intelligence = Tiered(domain.plan, engines, salt=salt, groups=kind.abstract_terminals)
    if kind.kind == "distributed":
        intelligence = Distributed(domain.plan, engines, salt=salt, emit=means.emit, clock=means.clock)
    return Services(
        domain=domain,
        clock=means.clock,
        emit=means.emit,
        store=means.store,
        intelligence=intelligence,
        communication=Communication(domain, means.south, means.emit, means.store),
        location=Location(domain, means.store),
        processes=Processes(domain, intelligence.known),
        ask=ask,
        groups=means.groups or {},
    )
