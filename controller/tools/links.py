"""The control links of the tools layer: all that the layers above may ask of each service manager."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, Protocol

from controller.southbound.openflow import PacketIn, PortCount
from controller.tools.location import Arrival
from packets.wire import Header
from topologies.plan import HostPlan


class LocationLink(Protocol):
    """Terminals by port, objects by rendezvous."""

    def host_behind(self, dpid: int, port: int) -> HostPlan | None:
        """Return the terminal declared at a port, or None."""

    def first_seen(self, node: str) -> bool:
        """Note a sign of life of a terminal; True the first time."""

    def expect(self, arrival: Arrival) -> None:
        """Note an object on its way to a terminal of this domain."""

    def expected(self, node: str) -> list[Arrival]:
        """Return the visits (of one terminal) that are on their way or under way."""

    def arrival(self, object_id: int) -> Arrival | None:
        """Return the latest visit of an object in this domain, or None."""

    def at(self, node: str) -> list[Arrival]:
        """Return the visits that a terminal is the place of, or whose data it holds."""

    def expect_not(self, arrival: Arrival, before: Arrival | None) -> None:
        """Take back that an object is on its way to a terminal."""

    def left(self, object_id: int, before_visit: int) -> None:
        """Forget where an object was before a visit."""

    def done(self, arrival: Arrival) -> None:
        """Note that an object's journey ended where it is."""


class CommunicationLink(Protocol):
    """Paths for labels and classes, packets to terminals."""

    south: Any
    connected: set[str]
    paths: dict[tuple[int, int], Any]
    classes: Any
    seal: Callable[[HostPlan, Header, bytes], bytes]
    own_source: bool
    closed: Collection[str]
    complete: Any

    def note_ports(self, name: str, ports: set[int], *, all_there: bool = False) -> None:
        """Take which ports of a switch are up."""

    def prepare(self, name: str, *, meters: bool) -> Any:
        """Have a switch hold all it needs; ``SwitchTimeout`` when it does not confirm."""

    def clear(self, name: str, change: Any) -> None:
        """Delete what was too much at a switch."""

    def resume(self) -> Any:
        """Lay to the end what an earlier life had begun to lay."""

    def lost(self, name: str) -> None:
        """Note that a switch's session broke."""

    def reroute(self) -> int:
        """Bring routes in line with the links that are up; returns how many rules changed."""

    def steer(self, *args: Any) -> Any:
        """Lay the path of a label through a K-AS, make before break; ``SwitchTimeout``, ``SteeringError``."""

    async def settle(self, names: list[str]) -> None:
        """Return when these switches have done what they were sent; ``SwitchTimeout``."""

    def withdraw(self, label: int, kas: int) -> Any:
        """Take a label's rules out of a K-AS."""

    def broken(self) -> list[Any]:
        """Return the label paths that lead over what is down."""

    def release(self, packet: PacketIn) -> None:
        """Put a packet that was handed up back where it was."""

    def answer(self, host: HostPlan, header: Header, payload: bytes, *, target_port: int = ...) -> None:
        """Seal an AI packet of the control centre and put it out of a terminal's own port."""


class SensingLink(Protocol):
    """Counters of the switches come in; the rate of a port goes out."""

    def counted(self, dpid: int, counts: list[PortCount], now_s: float, peers: dict[tuple[str, int], str]) -> None:
        """Take a switch's counters; ``now_s``: on the clock of the control centre."""

    def rate_mbps(self, switch: str, port: int, now_s: float) -> float:
        """Return what a port sends or takes now, whichever is more, in Mbit/s."""


class ProcessLink(Protocol):
    """Who works, on how much, and an end to it."""

    revoked: Collection[str]

    def dead(self, now_s: float) -> list[str]:
        """Return the terminals that have fallen silent or are cut off."""

    def reachable(self, node: str) -> bool:
        """Tell whether links that are up lead to a terminal."""

    def work(self, node: str, now_s: float) -> dict[str, Any]:
        """Return what a terminal says that it has to do."""

    async def halt(self, node: str, object_id: int, reason: str) -> None:
        """Have a terminal end its work on an object; ``SteeringError`` when it does not answer."""


LINKS: dict[str, type] = {
    "communication": CommunicationLink,
    "location": LocationLink,
    "sensing": SensingLink,
    "processes": ProcessLink,
}
