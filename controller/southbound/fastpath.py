"""Packet-in, packet-out and flow-mod of OpenFlow 1.3 in bytes, for the messages that come by the thousand.

os-ken builds an object for every field of a packet-in and hands it through its event system (some 150 us); what the
core needs of it is four values.  ``read_packet_in`` reads just those, ``packet_out`` writes a message of one output,
``flow_mod`` puts a flow together from its match and instructions; everything else stays with os-ken.
"""

from __future__ import annotations

import struct

from controller.southbound.openflow import PORT_CONTROLLER, FlowMod, Output, PacketIn, PacketOut

OFPT_PACKET_IN, OFPT_PACKET_OUT, OFPT_FLOW_MOD = 10, 13, 14
ADD, DELETE, DELETE_STRICT = 0, 3, 4
ANY, ALL_BITS = 0xFFFFFFFF, 0xFFFFFFFFFFFFFFFF
NO_BUFFER, NO_MAX_LENGTH = 0xFFFFFFFF, 0xFFFF
_IN = struct.Struct("!HHIIHBBQHH")  # version, type | length | xid | buffer, total, reason, table, cookie | match
_OXM_IN_PORT = struct.Struct("!II")
_OXM_IN_PORT_HEADER = 0x80000004  # OpenFlow basic class, field 0, four bytes
_FLOW = struct.Struct("!BBHIQQBBHHHIIIH2x")  # header | cookie, mask | table, command | timeouts, priority | buffer ...
_OUT = struct.Struct("!BBHIIIH6xHHIH6x")  # header | buffer, in_port, actions length, pad | one output action


def read_packet_in(dpid: int, message: bytes | bytearray) -> PacketIn | None:
    """Return what a packet-in message says; None where its match does not begin with the port (os-ken may read it)."""
    if len(message) < 42:
        return None
    _, _, _, _, total, _, table, _, match_type, match_length = _IN.unpack_from(message)
    oxm, port = _OXM_IN_PORT.unpack_from(message, 28)
    if match_type != 1 or oxm != _OXM_IN_PORT_HEADER:
        return None
    start = 24 + (match_length + 7) // 8 * 8 + 2
    data = bytes(message[start : start + total])
    return PacketIn(dpid, port, table, data) if len(data) == total else None


def packet_out(xid: int, out: PacketOut) -> bytes | None:
    """Return the message of a packet-out whose only action is an output; None for any other."""
    if len(out.actions) != 1 or not isinstance(out.actions[0], Output):
        return None
    port, length = out.actions[0].port, _OUT.size + len(out.data)
    in_port = out.in_port or PORT_CONTROLLER
    head = _OUT.pack(4, OFPT_PACKET_OUT, length, xid, NO_BUFFER, in_port, 16, 0, 16, port, NO_MAX_LENGTH)
    return head + out.data


def flow_mod(xid: int, mod: FlowMod, match: bytes, instructions: bytes) -> bytes:
    """Return the message of a flow whose match and instructions are bytes already."""
    command = ADD
    if mod.delete:
        command = DELETE_STRICT if mod.match or mod.strict else DELETE
    mask = ALL_BITS if mod.delete and mod.cookie else 0
    length = _FLOW.size + len(match) + len(instructions)
    head = _FLOW.pack(
        4, OFPT_FLOW_MOD, length, xid, mod.cookie, mask, mod.table, command, 0, 0, mod.priority, NO_BUFFER, ANY, ANY, 0
    )
    return head + match + instructions
