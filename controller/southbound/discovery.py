"""Verify the declared graph with LLDP: links are declared, and what the wire says is held against it.

LLDP alone finds nothing in half of other people's set-ups, so nothing here depends on it: a link that is seen is
confirmed, a link that is seen elsewhere than declared is a warning that names both ends.
"""

from __future__ import annotations

import struct

from controller.domain import Domain
from controller.errors import FrameError
from controller.southbound.frames import ETH_LLDP, ether_type, mac_bytes
from controller.southbound.openflow import Output, PacketOut, Southbound
from controller.southbound.pipeline import LLDP_GROUP
from packets.events import Emit
from topologies.plan import ROUTER_MAC

LOCAL = 7  # subtype "locally assigned"
PATIENCE_ROUNDS = 3
_ETHERNET = struct.Struct("!6s6sH")


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


def parse_lldp(frame: bytes) -> tuple[str, int, int]:
    """Return (switch name, dpid, port) of an LLDP frame of ours; ``FrameError`` for any other."""
    if ether_type(frame) != ETH_LLDP:
        raise FrameError("not an LLDP frame")
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
        return found[5].decode(), int(found[1][1:], 16), int(found[2][1:])
    except (KeyError, ValueError) as error:
        raise FrameError(f"LLDP frame is not ours: {error}") from error


class Discovery:
    """Sends LLDP over every declared trunk and border, and checks what arrives."""

    def __init__(self, domain: Domain, south: Southbound, emit: Emit) -> None:
        self.domain, self.south, self.emit = domain, south, emit
        self.confirmed: dict[tuple[str, int], tuple[str, int]] = {}
        self.peers: dict[tuple[str, int], str] = {}
        self._warned: set[tuple[str, int]] = set()
        self._rounds = 0

    def probe(self) -> None:
        """Send one round; after some rounds warn once of every link nothing came over."""
        self._rounds += 1
        ports = sorted({*self.domain.trunks, *self.domain.borders})
        for name, port in ports:
            dpid = self.domain.switches[name].dpid
            self.south.send(dpid, [PacketOut((Output(port),), build_lldp(name, dpid, port))])
        if self._rounds > PATIENCE_ROUNDS:
            for at in ports:
                if at not in self.confirmed and self.domain.is_up(*at):
                    self._warn(at, "declared, but nothing has come over it: is the link there?")

    def heard(self, dpid: int, in_port: int, frame: bytes) -> None:
        """Check one LLDP frame against the declared graph; raises ``FrameError``."""
        name, _, port = parse_lldp(frame)
        at = self.domain.by_dpid[dpid].name, in_port
        declared = self.domain.far_end(*at)
        if declared is None and at in self.domain.borders:
            declared = name, port  # the plan does not tell what lies beyond a border: believe it, and keep the name
        if declared != (name, port):
            self._warn(
                at, f"declared to end at {declared}, but {name} port {port} is there: check the cabling or the plan"
            )
            return
        self.peers[at] = name
        if at not in self.confirmed:
            self.confirmed[at] = name, port
            self.emit("link.confirmed", switch=at[0], port=in_port, far_switch=name, far_port=port)

    def _warn(self, at: tuple[str, int], text: str) -> None:
        if at not in self._warned:
            self._warned.add(at)
            self.emit("warning", text=f"link at {at[0]} port {at[1]}: {text}")
