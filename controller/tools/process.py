"""Compute and process management: who is alive and reachable, on how much each works, and how work is stopped."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from typing import Any

from controller.domain import Domain
from controller.errors import SteeringError
from controller.topology.krrm import Krrm
from packets.messages import Halt, Message
from topologies.plan import HostPlan

SILENT_S = 15.0
WORK = ("queue", "load", "memory_mib", "compute_samples_per_s")
Tell = Callable[[HostPlan, Message, int], Awaitable[Message]]


async def _nobody(host: HostPlan, message: Message, object_id: int) -> Message:
    raise SteeringError(f"{host.name} cannot be told anything: this control centre has no line to its terminals")


class Processes:
    """The terminals of a domain as processes, from their reports and from the state of their ports.

    ``tell`` asks a terminal and returns its answer (``controller.access.calls``).
    """

    def __init__(self, domain: Domain, krrm: Krrm, *, silent_s: float = SILENT_S) -> None:
        self.domain, self.krrm, self.silent_s = domain, krrm, silent_s
        self.tell: Tell = _nobody
        self.revoked: Collection[str] = ()

    def dead(self, now_s: float) -> list[str]:
        """Return the terminals on the map whose port is down, or that have been silent for too long."""
        unplugged = {h.name for at, h in self.domain.host_at.items() if at in self.domain.down and h.name in self.krrm}
        return sorted(unplugged.union(self.krrm.stale(now_s, self.silent_s)))

    def reachable(self, node: str) -> bool:
        """Tell whether a declared terminal's port is up, and it may be reached."""
        host = self.domain.hosts.get(node)
        return host is not None and node not in self.revoked and (host.switch, host.port) not in self.domain.down

    def work(self, node: str, now_s: float) -> dict[str, Any]:
        """Return what a terminal works on: {"queue": {"value": 1, "age_s": 0.2}, ...}; empty where it is not known."""
        if node not in self.krrm:
            return {}
        held = self.krrm.node(node).attributes
        return {
            a: {"value": held[a].value, "age_s": round(max(0.0, now_s - held[a].t_s), 3)} for a in WORK if a in held
        }

    async def halt(self, node: str, object_id: int, reason: str) -> None:
        """Have a terminal stop working on an object; ``SteeringError`` when it refuses, or is not ours."""
        host = self.domain.hosts.get(node)
        if host is None:
            raise SteeringError(f"{node} is no terminal of this domain")
        await self.tell(host, Halt(object_id=object_id, reason=reason), object_id)
