"""The options of the AI packet as Scapy layers (``packets/ai.py``, whose licence note holds here, too)."""

from __future__ import annotations

import struct
from typing import Any, ClassVar

from scapy.fields import (
    ByteEnumField,
    ByteField,
    FieldLenField,
    IntField,
    LongField,
    ShortEnumField,
    ShortField,
    XIntField,
    XStrFixedLenField,
    XStrLenField,
)  # fmt: skip
from scapy.packet import Packet

from packets.options import (
    HASH_BYTES,
    MAX_BLOCKS,
    TAG_BYTES,
    AuthenticationAlgorithm,
    DigestAlgorithm,
    ErrorCode,
    OptionType,
)

_SKIPPABLE = 0x8000
_NEEDS_ROOM: dict[int, tuple[int, int]] = {  # option type -> least and greatest length of its value
    OptionType.REQUIREMENTS: (16, 16),
    OptionType.DIGEST: (33, 33),
    OptionType.ACKNOWLEDGEMENT: (16, 16 + 1024),
    OptionType.ERROR: (2, 2),
    OptionType.MANDATE: (112, 112),
    OptionType.KEY_SHARE: (32, 32),
    OptionType.SENT_AT: (8, 8),
    OptionType.BLOCKS: (2 * HASH_BYTES, MAX_BLOCKS * HASH_BYTES),
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


class AIBlocks(_KnownOption):
    """SHA-256 of each block of the object, end to end."""

    name = "AI blocks"
    fields_desc: ClassVar = [
        ShortEnumField("type", OptionType.BLOCKS, _names(OptionType)),
        ShortField("length", None),
        XStrLenField("hashes", bytes(2 * HASH_BYTES), length_from=lambda option: option.length),
    ]

    def broken(self) -> bool:
        return bool(len(self.hashes) % HASH_BYTES)


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
    OptionType.BLOCKS: AIBlocks,
    OptionType.AUTHENTICATION: AIAuthentication,
}
