"""The AI packet as a Scapy layer: what researchers script with.  The layout is the table in ``packets/README.md``.

>>> from packets.ai import *
>>> shard = AI(type="MODEL_SHARD", object_id=0x100001, shard_count=1, total_length=3) / b"abc"
>>> p = IP(src="10.1.1.1", dst="240.16.0.1") / UDP(sport=55831) / shard
>>> AI(bytes(p[AI])).refused() is None
True

Lengths and checksums that are left out are filled in; those that are given are kept, so broken packets can be made.
``AI.refused()`` judges a dissected packet as every receiver does.

This module imports Scapy, which is licensed under GPL-2.0-only: a program that imports it has to be compatible with
that when it is passed on.  Agents and controller do not import it; they use ``packets/wire.py``.
"""

from __future__ import annotations

import struct
import zlib
from itertools import pairwise
from typing import Any, ClassVar

from scapy.fields import (
    BitEnumField,
    BitField,
    ByteEnumField,
    FlagsField,
    IntField,
    IPField,
    LongField,
    PacketListField,
    ShortField,
    XIntField,
    XLongField,
)  # fmt: skip
from scapy.layers.inet import IP, UDP
from scapy.packet import Packet, Raw, bind_layers

from packets.ai_options import (
    AIAcknowledgement,
    AIAuthentication,
    AIBlocks,
    AIDigest,
    AIError,
    AIKeyShare,
    AIMandate,
    AIOption,
    AIRequirements,
    AISentAt,
    _names,
)
from packets.labels import AI_PORT, object_label
from packets.wire import SEALED, SHARD_TYPES, VERSION, Flag, PacketType, TrafficClass

FIXED_BYTES = 64
_FLAG_NAMES = [flag.name if (flag := Flag(1 << bit)) in set(Flag) else f"bit{bit}" for bit in range(16)]


class AI(Packet):
    """The AI header and its options."""

    name = "AI"
    fields_desc: ClassVar = [
        BitField("version", VERSION, 4),
        BitEnumField("traffic_class", TrafficClass.BULK, 4, _names(TrafficClass)),
        ByteEnumField("type", PacketType.MODEL_SHARD, _names(PacketType)),
        FlagsField("flags", 0, 16, _FLAG_NAMES),
        ShortField("header_length", None),
        ShortField("payload_length", None),
        XLongField("object_id", 0),
        IPField("owner", "0.0.0.0"),
        XIntField("transfer_id", 0),
        IntField("shard_index", 0),
        IntField("shard_count", 0),
        LongField("offset", 0),
        LongField("total_length", 0),
        ShortField("visit", 0),
        ShortField("visit_limit", 0),
        IntField("timestamp_us", 0),
        XIntField("payload_checksum", None),
        XIntField("header_checksum", None),
        PacketListField("options", [], AIOption, length_from=lambda ai: max(ai.header_length - FIXED_BYTES, 0)),
    ]

    def post_build(self, pkt: bytes, pay: bytes) -> bytes:
        """Fill in the lengths and checksums that were left out."""
        head = bytearray(pkt)
        if self.header_length is None:
            struct.pack_into("!H", head, 4, len(pkt))
        if self.payload_length is None:
            struct.pack_into("!H", head, 6, len(pay))
        if self.payload_checksum is None:
            struct.pack_into("!I", head, 56, zlib.crc32(pay))
        if self.header_checksum is None:
            struct.pack_into("!I", head, 60, header_checksum(bytes(head)))
        return bytes(head) + pay

    def do_dissect(self, s: bytes) -> bytes:
        """Dissect the header; what is too short for one stays payload, so that ``refused`` can say so."""
        if len(s) >= FIXED_BYTES:
            return bytes(super().do_dissect(s))
        untouched: dict[str, Any] = {}
        self.raw_packet_cache, self.raw_packet_cache_fields, self.explicit = b"", untouched, 1
        return s

    def extract_padding(self, s: bytes) -> tuple[bytes, bytes]:
        end = len(s) if self.payload_length is None else self.payload_length
        return s[:end], s[end:]

    def hashret(self) -> bytes:
        """For ``sr``: an answer repeats the transfer id (set ``conf.checkIPaddr = False``: it comes from a place)."""
        return struct.pack("!I", self.transfer_id)

    def answers(self, other: Packet) -> int:
        return int(isinstance(other, AI) and bool(self.flags.REPLY) and self.transfer_id == other.transfer_id)

    def holds(self, index: int) -> bool:
        """Tell of an acknowledgement whether it says that the receiver holds a shard."""
        acks = [option for option in self.options if isinstance(option, AIAcknowledgement)]
        return bool(acks) and acks[0].holds(index, self.shard_index)

    @property
    def label(self) -> int:
        """The 28-bit label of the object."""
        return object_label(self.object_id)

    @property
    def sealed(self) -> bool:
        """Whether this is a shard whose payload checksum only its receiver can check."""
        return self.type in SHARD_TYPES and bool(int(self.flags) & SEALED)

    def refused(self) -> str | None:
        """Return why receivers refuse this dissected packet (a reason of packets/README.md), or None."""
        data = self.original
        if len(data) < FIXED_BYTES:
            return "short"
        if self.version != VERSION:
            return "version"
        if self.header_length < FIXED_BYTES or self.header_length + self.payload_length != len(data):
            return "length"
        if header_checksum(data[: self.header_length]) != self.header_checksum:
            return "header-checksum"
        if self.type not in set(PacketType):
            return "type"
        if self._options_broken():
            return "option"
        if not self.sealed and zlib.crc32(data[self.header_length :]) != self.payload_checksum:
            return "payload-checksum"
        return "shard" if self._shard_broken() else None

    def _options_broken(self) -> bool:
        if any(not isinstance(option, AIOption) or option.broken() for option in self.options):
            return True
        types = [option.type for option in self.options]
        return any(later <= earlier for earlier, later in pairwise(types))

    def _shard_broken(self) -> bool:
        if self.type not in SHARD_TYPES:
            return False
        if self.flags.LAUNCH:
            digest = any(isinstance(option, AIDigest) for option in self.options)
            return self.payload_length > 0 or self.shard_count == 0 or not digest
        return bool(self.shard_index >= self.shard_count or self.offset + self.payload_length > self.total_length)

    def mysummary(self) -> str:
        shard = f" shard {self.shard_index}/{self.shard_count}" if self.shard_count else ""
        flags = f" [{self.flags}]" if self.flags else ""
        return f"{self.sprintf('AI %AI.type% %AI.object_id% visit %AI.visit%')}{shard}{flags}"


def header_checksum(header: bytes) -> int:
    """Return the CRC-32 of a header (fixed part and options), its checksum field taken as 0."""
    return zlib.crc32(header[:60] + bytes(4) + header[64:])


bind_layers(UDP, AI, sport=AI_PORT)
bind_layers(UDP, AI, dport=AI_PORT)
bind_layers(UDP, AI, sport=AI_PORT, dport=AI_PORT)

__all__ = [
    "AI", "AI_PORT", "IP", "UDP", "AIAcknowledgement", "AIAuthentication", "AIBlocks", "AIDigest", "AIError",
    "AIKeyShare", "AIMandate", "AIOption", "AIRequirements", "AISentAt", "Raw", "header_checksum",
]  # fmt: skip
