"""Where deployed models' labels lead: laid once a model in every K-AS on the way to it, mended when links change."""

from __future__ import annotations

import asyncio
import contextlib

from controller.access.places import Places
from controller.border.messages import Lead
from controller.errors import ControllerError, SteeringError
from controller.services import Services
from controller.tools.exits import Exit

LEADS_KEPT = 1024


class Leads:
    """The leads of one domain. What another K-AS asks for is laid here as what this one needs."""

    def __init__(self, services: Services, places: Places) -> None:
        self.services, self.places = services, places
        self._laid = services.store.kept("leads to models", tuple[int, int], Lead, 2 * LEADS_KEPT)

    def leads(self, kas: int, label: int) -> bool:
        """Tell whether a model's label leads on in a K-AS of this domain."""
        return (label, kas) in self.services.communication.classes.leads

    async def lay(self, start: int, label: int, kas: int, handle: str) -> None:
        """Have a model's label lead to it from a K-AS, every switch confirmed; ``SteeringError``, ``BorderError``."""
        path = self.services.domain.kas_path(start, kas)
        if not path:
            raise SteeringError(f"no live path from K-AS {start} to K-AS {kas}")
        words = [Lead(kas=k, label=label, at_kas=kas, handle=handle) for k in path]
        await asyncio.gather(*(self.services.must(word) for word in words[1:]))
        await self.services.must(words[0])

    async def obey(self, word: Lead) -> None:
        """Lay, or take up, a lead in a K-AS of this domain; ``SteeringError`` when there is no way on."""
        communication, at = self.services.communication, (word.label, word.kas)
        if word.away:
            self._laid.pop(at, None)
            await communication.settle(communication.classes.unlead(*at))
            return
        self._laid.pop(at, None)
        self._laid[at] = word
        await communication.settle(communication.classes.lead(*at, self._exit(word)))
        if len(self._laid) > LEADS_KEPT:
            oldest = next(iter(self._laid))
            del self._laid[oldest]
            await communication.settle(communication.classes.unlead(*oldest))

    def restore(self) -> None:
        """Remember the leads of an earlier life; those that lead nowhere now are mended with the links."""
        for at, word in self._laid.items():
            with contextlib.suppress(ControllerError):
                self.services.communication.classes.lead(*at, self._exit(word))

    def _exit(self, word: Lead) -> Exit:
        if word.kas == word.at_kas:
            host = self.places.resolve(0, word.kas, word.handle).host
            return Exit(host.switch, host.port, host)
        path = self.services.domain.kas_path(word.kas, word.at_kas)
        border = self.services.domain.border(word.kas, path[1]) if path else None
        if border is None:
            raise SteeringError(f"K-AS {word.kas} has no live way to K-AS {word.at_kas}")
        return Exit(border.switch, border.port)

    async def mend(self) -> None:
        """Links changed: lead by the ways that are there now; a lead without one stays as it was."""
        for word in list(self._laid.values()):
            try:
                await self.lay(word.kas, word.label, word.at_kas, word.handle)
            except ControllerError as error:
                self.services.emit("warning", text=f"label {word.label:#x} in K-AS {word.kas}: {error}")

    async def gone(self, label: int) -> None:
        """A model of this domain serves no more: its label leads nowhere, in any K-AS."""
        await self.services.ask_all(lambda kas: Lead(kas=kas, label=label, at_kas=kas, handle="-", away=True))
