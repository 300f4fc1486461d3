"""Location management: which terminal is behind a port or an address, and where every object is."""

from __future__ import annotations

from dataclasses import dataclass

from controller.domain import Domain
from controller.store import Store
from topologies.plan import HostPlan


@dataclass(frozen=True)
class Arrival:
    """An object's rendezvous in this domain for one visit: where it arrives, what meets there, and until when (on the
    clock of the control centre) the place is taken by it, as was foreseen.
    """

    object_id: int
    visit: int
    action: str
    kas: int
    handle: str
    node: str
    data_node: str
    move_data: bool
    until_s: float = 0.0


class Location:
    """Terminals by port (declared), those seen, and the objects that are in, or on their way into, this domain."""

    def __init__(self, domain: Domain, store: Store) -> None:
        self.domain = domain
        self._seen: set[str] = set()
        self._arrivals = store.kept("arrivals", int, Arrival)
        self._done = store.kept("arrivals that are over", int, int)

    def host_behind(self, dpid: int, port: int) -> HostPlan | None:
        """Return the declared terminal at a port, if there is one."""
        switch = self.domain.by_dpid.get(dpid)
        return self.domain.host_at.get((switch.name, port)) if switch else None

    def first_seen(self, node: str) -> bool:
        """Note a sign of life at a terminal's declared place; True the first time (declared, and now verified)."""
        known = node in self._seen
        self._seen.add(node)
        return not known

    def expect(self, arrival: Arrival) -> None:
        """An object is being steered to a terminal of this domain."""
        self._arrivals[arrival.object_id] = arrival

    def arrival(self, object_id: int) -> Arrival | None:
        """Return the latest rendezvous of an object in this domain."""
        return self._arrivals.get(object_id)

    def at(self, node: str) -> list[Arrival]:
        """Return the rendezvous that a terminal is the place of, or whose data it holds."""
        return [a for a in self._arrivals.values() if node in (a.node, a.data_node)]

    def expect_not(self, arrival: Arrival, before: Arrival | None) -> None:
        """There was no way there: what was expected ``before`` is so again."""
        if self._arrivals.get(arrival.object_id) is arrival:
            self._arrivals.pop(arrival.object_id)
            if before is not None:
                self._arrivals[before.object_id] = before

    def left(self, object_id: int, before_visit: int, kas: int = 0) -> None:
        """An object has moved on: forget where it was on an earlier visit (``kas``: only if that was in this K-AS)."""
        arrival = self._arrivals.get(object_id)
        if arrival is not None and arrival.visit < before_visit and kas in (0, arrival.kas):
            del self._arrivals[object_id]

    def done(self, arrival: Arrival) -> None:
        """An object's journey ended where it is: it stays there, and nobody waits for it any more."""
        self._done[arrival.object_id] = arrival.visit

    def expected(self, node: str = "") -> list[Arrival]:
        """Return the rendezvous (of one terminal) that an object is on its way to, or is being worked on at."""
        waiting = [a for a in self._arrivals.values() if self._done.get(a.object_id) != a.visit]
        return [a for a in waiting if node in ("", a.node)]
