"""OpenFlow 1.3 as neutral values: what the core decides, before anyone turns it into os-ken messages.

Field names are OXM's (``ipv4_dst``, ``udp_dst`` ...).  A match value is an int, an address, or a pair (value, mask).
The core builds these, ``controller.southbound.translate`` makes os-ken messages of them, and the fake flow table of the
tests applies them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

Value = int | str | tuple[str, str] | tuple[int, int]
Match = dict[str, Value]

PORT_IN = 0xFFFFFFF8
PORT_TABLE = 0xFFFFFFF9
PORT_CONTROLLER = 0xFFFFFFFD


@dataclass(frozen=True, slots=True)
class SetField:
    """Write a header field."""

    name: str
    value: int | str


@dataclass(frozen=True, slots=True)
class Move:
    """Copy a header field (or register) onto another of the same width in bits (Nicira extension)."""

    source: str
    target: str
    bits: int


@dataclass(frozen=True, slots=True)
class DecTtl:
    """Take one from the TTL; a packet whose TTL is spent goes no further."""


@dataclass(frozen=True, slots=True)
class Output:
    """Send the packet, as it is at this point, out of a port."""

    port: int


@dataclass(frozen=True, slots=True)
class ToGroup:
    """Hand the packet to a group."""

    group: int


Action = SetField | Move | DecTtl | Output | ToGroup


@dataclass(frozen=True, slots=True)
class FlowMod:
    """Add a flow (``delete=False``) or delete every flow of this table that matches and carries this cookie.

    ``strict``: delete this very flow, also where its match is empty.
    """

    table: int
    match: Match
    priority: int = 0
    actions: tuple[Action, ...] = ()
    goto: int | None = None
    meter: int | None = None
    cookie: int = 0
    delete: bool = False
    strict: bool = False


@dataclass(frozen=True, slots=True)
class Bucket:
    """One choice of a group. ``watch_port``: of a fast-failover group, good as long as this port is up."""

    weight: int
    actions: tuple[Action, ...]
    watch_port: int | None = None


@dataclass(frozen=True, slots=True)
class GroupMod:
    """Set (or delete) a select group; ``modify``: it is there, and its buckets change under its flows.

    ``failover``: the first bucket whose port is up takes all; set anew at any time, whether it is there or not.
    """

    group: int
    buckets: tuple[Bucket, ...] = ()
    delete: bool = False
    modify: bool = False
    failover: bool = False


@dataclass(frozen=True, slots=True)
class MeterMod:
    """Set a meter that drops what exceeds ``rate_pps`` packets a second (bursts of ``burst`` packets pass).

    ``modify``: it is there, and changes under its flows.
    """

    meter: int
    rate_pps: int
    burst: int
    modify: bool = False


@dataclass(frozen=True, slots=True)
class PacketOut:
    """Put a packet into a switch. ``in_port`` is the port it pretends to come from (for ``PORT_TABLE``)."""

    actions: tuple[Action, ...]
    data: bytes = field(repr=False)
    in_port: int = PORT_CONTROLLER


Mod = FlowMod | GroupMod | MeterMod | PacketOut


@dataclass
class Found:
    """What a switch says that it holds; ``unread``: flows that none of our values could have made."""

    flows: list[FlowMod] = field(default_factory=list)
    groups: list[GroupMod] = field(default_factory=list)
    meters: list[MeterMod] = field(default_factory=list)
    unread: int = 0


@dataclass(frozen=True, slots=True)
class PacketIn:
    """A packet that a switch handed to its DCC. ``table`` says which rule did it."""

    dpid: int
    in_port: int
    table: int
    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class PortCount:
    """What a port has carried since the switch started: bytes and packets out of it (tx) and into it (rx)."""

    port: int
    tx_bytes: int
    rx_bytes: int
    tx_packets: int
    rx_packets: int


@dataclass(frozen=True, slots=True)
class DropCount:
    """What one rule (or, without ``table``, one meter) has dropped so far; ``cookie`` names the rule's reason."""

    cookie: int
    table: int | None
    priority: int
    packets: int


class Southbound(Protocol):
    """How the core speaks to its switches. Never blocks for long; a switch that is not connected is skipped."""

    def send(self, dpid: int, mods: list[Mod]) -> None:
        """Send messages to a switch, in order; to one that is not connected, nothing."""

    async def barrier(self, dpid: int, timeout_s: float = 5.0) -> None:
        """Return when the switch has done all it was sent; ``SwitchTimeout`` when it does not answer."""

    async def found(self, dpid: int, *, meters: bool, timeout_s: float = 5.0) -> Found:
        """Return what a switch holds; ``SwitchTimeout`` when it does not say."""

    def ask_port_counts(self, dpid: int) -> None:
        """Ask for port counters; they come back as an event."""

    def ask_drop_counts(self, dpid: int) -> None:
        """Ask what rules and meters have dropped; where that is more than before, it comes back as an event."""
