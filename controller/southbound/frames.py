"""Ethernet, IPv4 and UDP as the control centre needs them: read what a switch hands up, build what a switch puts out.

Only what our own pipeline can send here is understood (no VLAN, no IP fragments); anything else is a ``FrameError``.
"""

from __future__ import annotations

import functools
import ipaddress
import socket
import struct
from dataclasses import dataclass, field

from controller.errors import FrameError

ETH_ARP = 0x0806
ETH_IPV4 = 0x0800
ETH_LLDP = 0x88CC
UDP = 17
TCP = 6
ICMP = 1
_ETHERNET = struct.Struct("!6s6sH")
_IPV4 = struct.Struct("!BBHHHBBH4s4s")
_UDP = struct.Struct("!HHHH")
_PSEUDO = struct.Struct("!4s4sBBH")


@dataclass(frozen=True, slots=True)
class Datagram:
    """A UDP datagram in its Ethernet frame; addresses as text."""

    eth_src: str
    eth_dst: str
    source: str
    target: str
    source_port: int
    target_port: int
    payload: bytes = field(repr=False)
    ttl: int = 64


@functools.lru_cache(maxsize=4096)
def ip_bytes(address: str) -> bytes:
    """Return the four bytes of an address; ``OSError`` when it is none (strictly: four numbers)."""
    return socket.inet_pton(socket.AF_INET, address)


@functools.lru_cache(maxsize=4096)
def mac_bytes(mac: str) -> bytes:
    """Return the six bytes of ``aa:bb:cc:dd:ee:ff``."""
    return bytes.fromhex(mac.replace(":", ""))


def mac_text(mac: bytes) -> str:
    """Return six bytes as ``aa:bb:cc:dd:ee:ff``."""
    return mac.hex(":")


def checksum(data: bytes) -> int:
    """Return the Internet checksum (RFC 1071) of some bytes."""
    if len(data) % 2:
        data += b"\0"
    number = int.from_bytes(data, "big")  # 2**16 is 1 modulo 0xFFFF: the ones' complement sum is a remainder
    return 0xFFFF - (number % 0xFFFF or 0xFFFF) if number else 0xFFFF


def ether_type(frame: bytes) -> int:
    """Return the EtherType of a frame; ``FrameError`` when it is too short to have one."""
    if len(frame) < _ETHERNET.size:
        raise FrameError(f"frame of {len(frame)} bytes is shorter than an Ethernet header")
    return int.from_bytes(frame[12:14], "big")


def build_udp(datagram: Datagram) -> bytes:
    """Return the frame of a UDP datagram, both checksums filled in."""
    source = ip_bytes(datagram.source)
    target = ip_bytes(datagram.target)
    length = _UDP.size + len(datagram.payload)
    bare = _UDP.pack(datagram.source_port, datagram.target_port, length, 0) + datagram.payload
    udp_sum = checksum(_PSEUDO.pack(source, target, 0, UDP, length) + bare) or 0xFFFF
    header = _IPV4.pack(0x45, 0, _IPV4.size + length, 0, 0x4000, datagram.ttl, UDP, 0, source, target)
    header = header[:10] + checksum(header).to_bytes(2, "big") + header[12:]
    ethernet = _ETHERNET.pack(mac_bytes(datagram.eth_dst), mac_bytes(datagram.eth_src), ETH_IPV4)
    return ethernet + header + bare[:6] + udp_sum.to_bytes(2, "big") + datagram.payload


def read_unreachable(frame: bytes) -> tuple[str, int] | None:
    """Read an ICMP "port unreachable" (RFC 792): the address that sent it and the UDP port at which nobody listens.

    ``frame``: of type ``ETH_IPV4``. None for every other packet, and where the quoted datagram was not sent to that
    address.
    """
    try:
        first, _, _, _, _, _, protocol, _, source, _ = _IPV4.unpack_from(frame, _ETHERNET.size)
        at = _ETHERNET.size + (first & 0xF) * 4
        quoted, _, _, _, _, _, inner, _, _, target = _IPV4.unpack_from(frame, at + 8)
        _, port, _, _ = _UDP.unpack_from(frame, at + 8 + (quoted & 0xF) * 4)
    except struct.error:
        return None
    if protocol != ICMP or frame[at : at + 2] != b"\x03\x03" or inner != UDP or source != target:
        return None
    return socket.inet_ntoa(source), port


def read_ipv4_source(frame: bytes) -> str:
    """Return the source address of a frame of type ``ETH_IPV4``; ``FrameError`` for one cut short."""
    start = _ETHERNET.size
    if len(frame) < start + _IPV4.size:
        raise FrameError(f"frame of {len(frame)} bytes is no IPv4 packet")
    return str(ipaddress.IPv4Address(frame[start + 12 : start + 16]))


def parse_udp(frame: bytes) -> Datagram:
    """Read a UDP datagram; ``FrameError`` for any other frame and for one cut short."""
    if ether_type(frame) != ETH_IPV4:
        raise FrameError(f"frame of type {ether_type(frame):#06x} is not IPv4")
    return read_udp(frame)


def read_udp(frame: bytes) -> Datagram:
    """Read the UDP datagram of a frame of type ``ETH_IPV4``; ``FrameError`` for any other and for one cut short."""
    try:
        eth_dst, eth_src, _ = _ETHERNET.unpack_from(frame)
        first, _, total, _, fragment, ttl, protocol, _, source, target = _IPV4.unpack_from(frame, _ETHERNET.size)
        start = _ETHERNET.size + (first & 0xF) * 4
        source_port, target_port, length, _ = _UDP.unpack_from(frame, start)
    except struct.error as error:
        raise FrameError(f"frame of {len(frame)} bytes is cut short: {error}") from error
    if first >> 4 != 4 or protocol != UDP or fragment & 0x3FFF:
        raise FrameError("not a whole UDP datagram over IPv4")
    end = start + length
    if length < _UDP.size or end > len(frame) or end > _ETHERNET.size + total:
        raise FrameError(f"UDP length {length} does not fit a frame of {len(frame)} bytes")
    return Datagram(
        eth_src=mac_text(eth_src),
        eth_dst=mac_text(eth_dst),
        source=socket.inet_ntoa(source),
        target=socket.inet_ntoa(target),
        source_port=source_port,
        target_port=target_port,
        payload=frame[start + _UDP.size : end],
        ttl=ttl,
    )
