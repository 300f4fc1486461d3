"""Which place a handle stands for in this domain, and which places it offers to others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from controller.border.messages import AskFacilities, Facilities, Facility
from controller.errors import SteeringError
from controller.services import Services
from controller.values.decisions import Option, Request
from controller.values.errors import EngineError
from controller.values.handles import read_member
from topologies.plan import HostPlan

FIXED_BASIS = ("reachable", "test_samples", "queue", "load", "trust")
SHARED_ATTRIBUTES = (
    "memory_mib", "load", "models", "trust", "reachable", "test_samples", "late_samples", "metrics",
)  # fmt: skip


@dataclass(frozen=True)
class Place:
    """A handle, resolved: the terminal at which the object arrives, and whose data it meets there."""

    host: HostPlan
    data_node: str = ""
    move_data: bool = False


class Places:
    """What the intelligence offers and orders, as places of this domain.

    Fixed places have handles of their own: ``@mpvu/0`` is the first declared MPVU of the K-AS, ``@node/x`` a terminal
    by name (used inside a domain only).
    """

    def __init__(self, services: Services) -> None:
        self.services = services

    async def options(self, object_id: int, request: Request, kas: int) -> list[Option]:
        """Return what one K-AS of this domain offers a job now."""
        now_s, down = self.services.clock(), self.services.domain.down_links()
        view = await self.services.intelligence.offered(object_id, request, now_s, down)
        self.services.store.cut(object_id, kas, view.describe(now_s))
        return [o for o in view.options if o.kas == kas]

    def wants(self, kas: int) -> tuple[list[str], tuple[str, ...]]:
        """Return whose attributes, and which, a cut in a K-AS rests on and changes without being told of in time."""
        names = [n.name for role in ("data", "compute") for n in self.services.krrm.nodes(role) if n.kas == kas]
        return names, ("queue", "load", "samples")

    def explain(self, object_id: int, handle: str) -> dict[str, Any]:
        """Return the attributes, with their ages, that a rendezvous on offer (or a fixed place) rests on."""
        fixed = next((p for k in sorted(self.services.domain.kas) if (p := self._fixed(k, handle))), None)
        if handle.startswith("@") and fixed is not None:
            return self._known_of(fixed.host.name)
        return self.services.intelligence.explain(object_id, handle, self.services.clock())

    def _known_of(self, name: str) -> dict[str, Any]:
        if name not in self.services.krrm:
            return {}
        node, now_s = self.services.krrm.node(name), self.services.clock()
        held = {a: node.attributes[a] for a in FIXED_BASIS if a in node.attributes}
        return {f"{name}.{a}": {"value": v.value, "age_s": round(max(0.0, now_s - v.t_s), 3)} for a, v in held.items()}

    def answer(self, ask: AskFacilities) -> Facilities:
        """Say which places of a role a K-AS of this domain has."""
        return Facilities(facilities=self.facilities(ask.kas, ask.role))

    def facilities(self, kas: int, role: str) -> list[Facility]:
        """Return the declared terminals of a role, nameless; ``ready``: registered, reachable, and not withdrawn."""
        declared, hidden = enumerate(self._declared(kas, role)), self.services.intelligence.within
        return [self._facility(kas, f"@{role}/{i}", host) for i, host in declared if host.name not in hidden]

    def _facility(self, kas: int, handle: str, host: HostPlan) -> Facility:
        ready = host.name in self.services.krrm and self.services.processes.reachable(host.name)
        node = self.services.krrm.node(host.name) if host.name in self.services.krrm else None
        ready = ready and node is not None and bool(node.get("reachable", True))
        shared = {a: node.get(a) for a in SHARED_ATTRIBUTES if a in node.attributes} if node else {}
        return Facility(kas=kas, handle=handle, attributes={**shared, "ready": ready})

    def _declared(self, kas: int, role: str) -> list[HostPlan]:
        return sorted((h for h in self.services.domain.hosts_of(kas) if h.role == role), key=lambda h: h.name)

    def handle(self, node: str) -> str:
        """Return the handle of a terminal that has a fixed one by its role."""
        host = self.services.domain.hosts[node]
        return f"@{host.role}/{self._declared(host.kas, host.role).index(host)}"

    async def settle(self, object_id: int, handle: str, taken: Mapping[str, float]) -> None:
        """Have decided what a handle stands for, where an abstract terminal's own control centre decides that.

        ``taken``: {terminal: seconds for which other objects take it}; ``SteeringError`` when nothing is left there.
        """
        services = self.services
        if handle.startswith("@"):
            role, _, which = handle[1:].partition("/")
            if role != "of":
                return
            object_id, handle = read_member(which)
        try:
            inside = await services.intelligence.settle(
                object_id, handle, services.clock(), services.domain.down_links(), taken
            )
        except EngineError as error:
            raise SteeringError(str(error)) from error
        if inside is not None:
            services.emit("at.decided", object_id=object_id, handle=handle, **msgspec.structs.asdict(inside))

    def resolve(self, object_id: int, kas: int, handle: str) -> Place:
        """Return the place behind a handle; ``SteeringError`` when there is none, or it cannot be reached."""
        place = self._fixed(kas, handle) if handle.startswith("@") else self._meeting(object_id, handle)
        if place is None or place.host.kas != kas:
            raise SteeringError(f"K-AS {kas} offers no place {handle} (any more)")
        if not self.services.processes.reachable(place.host.name):
            raise SteeringError(f"the place behind {handle} in K-AS {kas} is not reachable")
        return place

    def _fixed(self, kas: int, handle: str) -> Place | None:
        role, _, which = handle[1:].partition("/")
        if role == "of":
            return self._meeting(*read_member(which))
        if role == "node":
            host = self.services.domain.hosts.get(which)
            return Place(host) if host else None
        declared = self._declared(kas, role)
        index = int(which) if which.isdecimal() else len(declared)
        return Place(declared[index]) if index < len(declared) else None

    def _meeting(self, object_id: int, handle: str) -> Place | None:
        met = self.services.intelligence.place(object_id, handle)
        if met is None or met.facility not in self.services.domain.hosts:
            return None
        return Place(self.services.domain.hosts[met.facility], met.data_node, met.move_data)
