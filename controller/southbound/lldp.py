"""LLDP frames (IEEE 802.1AB) by which the declared graph is verified: built, and read back."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from controller.errors import FrameError
from controller.southbound.frames import ETH_LLDP, mac_bytes
from controller.southbound.pipeline import LLDP_GROUP
from topologies.plan import ROUTER_MAC

LOCAL = 7  # subtype "locally assigned"
_ETHERNET = struct.Struct("!6s6sH")


@dataclass(frozen=True, slots=True)
class Lldp:
    """What a frame of ours says: it was put out of ``port`` of switch ``name`` (``dpid``)."""

    name: str
    dpid: int
    port: int


def build_lldp(name: str, dpid: int, port: int) -> bytes:
    """Return an LLDP frame (IEEE 802.1AB) that says: this is switch ``name`` (``dpid``), port ``port``."""
    values = [
        (1, bytes([LOCAL]) + f"{dpid:x}".encode()),
        (2, bytes([LOCAL]) + str(port).encode()),
        (3, (10).to_bytes(2, "big")),
        (5, name.encode()),
        (0, b""),
    ]
    body = b"".join(struct.pack("!H", kind << 9 | len(value)) + value for kind, value in values)
    return (_ETHERNET.pack(mac_bytes(LLDP_GROUP), mac_bytes(ROUTER_MAC), ETH_LLDP) + body).ljust(60, b"\0")


def read_lldp(frame: bytes) -> Lldp:
    """Read a frame of type ``ETH_LLDP``; ``FrameError`` when it is none of ours."""
    found: dict[int, bytes] = {}
    offset = _ETHERNET.size
    while offset + 2 <= len(frame):
        (head,) = struct.unpack_from("!H", frame, offset)
        kind, length = head >> 9, head & 0x1FF
        if kind == 0:
            break
        found[kind] = frame[offset + 2 : offset + 2 + length]
        offset += 2 + length
    try:
        return Lldp(found[5].decode(), int(found[1][1:], 16), int(found[2][1:]))
    except (KeyError, ValueError) as error:
        raise FrameError(f"LLDP frame is not ours: {error}") from error
