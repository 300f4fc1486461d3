"""What a switch hands up, read once into a value: LLDP of our own, a notice of the access rules, or an AI packet."""

from __future__ import annotations

from dataclasses import dataclass

from controller.errors import FrameError
from controller.southbound.frames import (
    ETH_IPV4,
    ETH_LLDP,
    Datagram,
    ether_type,
    read_ipv4_source,
    read_udp,
    read_unreachable,
)
from controller.southbound.lldp import Lldp, read_lldp
from controller.southbound.openflow import PacketIn
from controller.southbound.pipeline import CLASSIFY


@dataclass(frozen=True, slots=True)
class Notice:
    """A copy of an IPv4 packet that the access rules send up: whose address it bears, and what it says is closed.

    ``closed``: (address, UDP port) at which nobody listens, of an ICMP "port unreachable" (RFC 792); else None.
    """

    source: str
    closed: tuple[str, int] | None


Arrival = Lldp | Notice | Datagram


def read(packet: PacketIn) -> Arrival:
    """Read a packet-in; ``FrameError`` for what our pipeline cannot have sent, and for what is cut short."""
    kind = ether_type(packet.data)
    if kind == ETH_LLDP:
        return read_lldp(packet.data)
    if kind != ETH_IPV4:
        raise FrameError(f"frame of type {kind:#06x} is not IPv4")
    if packet.table == CLASSIFY:
        return Notice(read_ipv4_source(packet.data), read_unreachable(packet.data))
    return read_udp(packet.data)
