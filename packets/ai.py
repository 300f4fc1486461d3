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
    ByteField,
    FieldLenField,
    FlagsField,
    IntField,
    IPField,
    LongField,
    PacketListField,
    ShortEnumField,
    ShortField,
    XIntField,
    XLongField,
    XStrFixedLenField,
    XStrLenField,
)  # fmt: skip
from scapy.layers.inet import IP, UDP
from scapy.packet import Packet, Raw, bind_layers

from packets.labels import AI_PORT, object_label
from packets.options import TAG_BYTES, AuthenticationAlgorithm, DigestAlgorithm, ErrorCode, OptionType
from packets.wire import Flag, PacketType, TrafficClass

FIXED_BYTES = 64
_FLAG_NAMES = [flag.name if (flag := Flag(1 << bit)) in set(Flag) else f"bit{bit}" for bit in range(16)]
_SKIPPABLE = 0x8000
_NEEDS_ROOM: dict[int, tuple[int, int]] = {  # option type -> least and greatest length of its value
    OptionType.REQUIREMENTS: (16, 16),
    OptionType.DIGEST: (33, 33),
    OptionType.ACKNOWLEDGEMENT: (16, 16 + 1024),
    OptionType.ERROR: (2, 2),
    OptionType.MANDATE: (112, 112),
    OptionType.KEY_SHARE: (32, 32),
    OptionType.SENT_AT: (8, 8),
    OptionType.AUTHENTICATION: (4 + 8, 4 + 64),
}


def _names(enumeration: Any) -> dict[int, str]:
    return {int(member): member.name for member in enumeration}


class AIOption(Packet):
    """An option of a type, or of a length, that has no class of its own."""

    name = "AI option"
    fields_desc: ClassVar = [
        ShortEnumField("type", _SKIPPABLE, _names(OptionType)),
        FieldLenField("length", None, length_of="value"),
        XStrLenField("value", b"", length_from=lambda option: option.length),
    ]

    @classmethod
    def dispatch_hook(cls, _pkt: bytes | None = None, *_: Any, **__: Any) -> type[Packet]:
        """Choose the class of an option by its type, where its length is one that the type can have."""
        if _pkt is None or len(_pkt) < 4:
            return cls
        kind, length = struct.unpack_from("!HH", _pkt)
        least, most = _NEEDS_ROOM.get(kind, (1, 0))
        fits = least <= length <= most and length <= len(_pkt) - 4
        return _OPTION_CLASSES[kind] if fits else AIOption

    def extract_padding(self, s: bytes) -> tuple[bytes, bytes]:
        return b"", s

    def broken(self) -> bool:
        """Tell whether a receiver refuses this option."""
        return self.type < _SKIPPABLE or self.type in _NEEDS_ROOM or len(self.value) != self.length


class _KnownOption(AIOption):
    """Base of options with a class: ``length`` fills itself in."""

    def post_build(self, pkt: bytes, pay: bytes) -> bytes:
        if self.length is None:
            pkt = pkt[:2] + struct.pack("!H", len(pkt) - 4) + pkt[4:]
        return pkt + pay

    def broken(self) -> bool:
        return False


class AIRequirements(_KnownOption):
    """Summary of what the owner asks for; accuracies and trust in 1/10000."""

    name = "AI requirements"
    fields_desc: ClassVar = [
        ShortEnumField("type", OptionType.REQUIREMENTS, _names(OptionType)),
        ShortField("length", None),
        XIntField("task_class", 0),
        ShortField("broad_accuracy", 0),
        ShortField("expert_accuracy", 0),
        ShortField("trust_floor", 0),
        ShortField("expert_group", 0),
        IntField("deadline_ms", 0),
    ]

    def broken(self) -> bool:
        return bool(max(self.broad_accuracy, self.expert_accuracy, self.trust_floor) > 10_000)


class AIDigest(_KnownOption):
    """Digest of the whole object."""

    name = "AI digest"
    fields_desc: ClassVar = [
        ShortEnumField("type", OptionType.DIGEST, _names(OptionType)),
        ShortField("length", None),
        ByteEnumField("algorithm", DigestAlgorithm.SHA256, _names(DigestAlgorithm)),
        XStrFixedLenField("value", bytes(32), 32),
    ]

    def broken(self) -> bool:
        return self.algorithm not in set(DigestAlgorithm)


class AIAcknowledgement(_KnownOption):
    """What a receiver holds."""

    name = "AI acknowledgement"
    fields_desc: ClassVar = [
        ShortEnumField("type", OptionType.ACKNOWLEDGEMENT, _names(OptionType)),
        ShortField("length", None),
        IntField("base", 0),
        IntField("echo_us", 0),
        IntField("delay_us", 0),
        IntField("window", 0),
        XStrLenField("bitmap", b"", length_from=lambda option: option.length - 16),
    ]

    def holds(self, index: int, first: int = 0) -> bool:
        """Tell whether the receiver holds a shard; ``first``: the Shard Index of the packet's header."""
        byte, bit = divmod(index - max(self.base, first), 8)
        return index < self.base or (0 <= byte < len(self.bitmap) and bool(self.bitmap[byte] >> bit & 1))


class AIError(_KnownOption):
    """Why an ERROR packet was sent; its text is the payload."""

    name = "AI error"
    fields_desc: ClassVar = [
        ShortEnumField("type", OptionType.ERROR, _names(OptionType)),
        ShortField("length", None),
        ShortEnumField("code", ErrorCode.MALFORMED, _names(ErrorCode)),
    ]


class AIMandate(_KnownOption):
    """The owner's word for the object: what it was at first, and how long the word holds (ms since 1970)."""

    name = "AI mandate"
    fields_desc: ClassVar = [
        ShortEnumField("type", OptionType.MANDATE, _names(OptionType)),
        ShortField("length", None),
        LongField("issued_ms", 0),
        LongField("expires_ms", 0),
        XStrFixedLenField("digest", bytes(32), 32),
        XStrFixedLenField("signature", bytes(64), 64),
    ]


class AIKeyShare(_KnownOption):
    """X25519 public key of one side of a transfer."""

    name = "AI key share"
    fields_desc: ClassVar = [
        ShortEnumField("type", OptionType.KEY_SHARE, _names(OptionType)),
        ShortField("length", None),
        XStrFixedLenField("public_key", bytes(32), 32),
    ]


class AISentAt(_KnownOption):
    """The sender's wall clock, ms since 1970."""

    name = "AI sent at"
    fields_desc: ClassVar = [
        ShortEnumField("type", OptionType.SENT_AT, _names(OptionType)),
        ShortField("length", None),
        LongField("sent_at_ms", 0),
    ]


class AIAuthentication(_KnownOption):
    """A MAC or a signature over everything before it and the payload."""

    name = "AI authentication"
    fields_desc: ClassVar = [
        ShortEnumField("type", OptionType.AUTHENTICATION, _names(OptionType)),
        ShortField("length", None),
        ByteEnumField("algorithm", AuthenticationAlgorithm.KEYED_BLAKE2B, _names(AuthenticationAlgorithm)),
        ByteField("reserved", 0),
        ShortField("key_id", 0),
        XStrLenField("tag", bytes(8), length_from=lambda option: option.length - 4),
    ]

    def broken(self) -> bool:
        least, most = TAG_BYTES.get(self.algorithm, (0, -1))
        return bool(self.reserved) or not least <= len(self.tag) <= most


_OPTION_CLASSES: dict[int, type[Packet]] = {
    OptionType.REQUIREMENTS: AIRequirements,
    OptionType.DIGEST: AIDigest,
    OptionType.ACKNOWLEDGEMENT: AIAcknowledgement,
    OptionType.ERROR: AIError,
    OptionType.MANDATE: AIMandate,
    OptionType.KEY_SHARE: AIKeyShare,
    OptionType.SENT_AT: AISentAt,
    OptionType.AUTHENTICATION: AIAuthentication,
}


class AI(Packet):
    """The AI header and its options."""

    name = "AI"
    fields_desc: ClassVar = [
        BitField("version", 1, 4),
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

    def refused(self) -> str | None:
        """Return why receivers refuse this dissected packet (a reason of packets/README.md), or None."""
        data = self.original
        if len(data) < FIXED_BYTES:
            return "short"
        if self.version != 1:
            return "version"
        if self.header_length < FIXED_BYTES or self.header_length + self.payload_length != len(data):
            return "length"
        if header_checksum(data[: self.header_length]) != self.header_checksum:
            return "header-checksum"
        if self.type not in set(PacketType):
            return "type"
        if self._options_broken():
            return "option"
        if zlib.crc32(data[self.header_length :]) != self.payload_checksum:
            return "payload-checksum"
        return "shard" if self._shard_broken() else None

    def _options_broken(self) -> bool:
        if any(not isinstance(option, AIOption) or option.broken() for option in self.options):
            return True
        types = [option.type for option in self.options]
        return any(later <= earlier for earlier, later in pairwise(types))

    def _shard_broken(self) -> bool:
        if self.type not in (PacketType.MODEL_SHARD, PacketType.DATA_SHARD):
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
    "AI", "AI_PORT", "IP", "UDP", "AIAcknowledgement", "AIAuthentication", "AIDigest", "AIError", "AIKeyShare",
    "AIMandate", "AIOption", "AIRequirements", "AISentAt", "Raw", "header_checksum",
]  # fmt: skip
