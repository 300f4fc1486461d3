"""Who is still there: terminals that fall silent or are cut off leave the map, and what was for them goes elsewhere."""

from __future__ import annotations

from collections.abc import Callable

from controller.access.gathering import Gathering
from controller.runtime.loop import Worker
from controller.services import Services
from controller.steering.resteer import Resteering
from packets.wire import Header, PacketType

WATCH_S = 0.25
SUSPECT_S = 6.0


class Liveness:
    """Watches over the terminals of one domain. ``on_dead(terminal)``: it is about to leave the map."""

    def __init__(self, services: Services, worker: Worker, gathering: Gathering, resteering: Resteering) -> None:
        self.services, self.worker, self.gathering, self.resteering = services, worker, gathering, resteering
        self.on_dead: Callable[[str], None] = lambda name: None

    def look(self) -> None:
        """Find terminals that are dead (periodic): silent for too long, or behind links that are down."""
        now_s = self.services.clock()
        for name in self.services.processes.dead(now_s):
            self.dead(name, "has fallen silent" if self.services.processes.reachable(name) else "is cut off")
        for name in self._awaited().intersection(self.services.krrm.stale(now_s, SUSPECT_S)):
            self.dead(name, "has fallen silent")

    def knock(self) -> None:
        """Knock where an object is awaited or worked on (periodic): a live agent takes no notice, a dead one's host
        says so.
        """
        for name in self._awaited():
            self.services.communication.answer(self.services.domain.hosts[name], Header(type=PacketType.PROBE), b"")

    def _awaited(self) -> set[str]:
        return {a.node for a in self.services.location.expected()}

    def agent_ended(self, name: str) -> None:
        """A host says that nobody listens at its AI port; news only of one that we count on."""
        if name in self.services.krrm or self.services.location.expected(name):
            self.dead(name, "has no agent any more")

    def dead(self, name: str, reason: str) -> None:
        """Take a terminal for dead: off the map, and what was on its way to it goes elsewhere."""
        if name in self.services.krrm:
            self.on_dead(name)
            self.gathering.gone(name)
            self.services.emit("agent.gone", name=name, reason=reason)
        self.worker.spawn(self.resteering.node_lost(name, reason), f"loss of {name}")
