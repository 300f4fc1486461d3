"""The TLV options of an AI packet: values, and their bytes.  The registry is the table in ``packets/README.md``.

Type and length are 16 bits each; options stand in ascending order of type, each at most once.  Types from 0x8000 on may
be skipped by who does not know them; an unknown type below that is an error, since its sender counts on it.
"""

from __future__ import annotations

import enum
import hashlib
import struct
import zlib
from collections.abc import Callable
from typing import Any, Final

import msgspec

from packets.errors import PacketError
from packets.labels import class_label

SKIPPABLE = 0x8000
ACCURACY_SCALE = 10_000
MAX_BITMAP_BYTES = 1024
HASH_BYTES = 32
MAX_BLOCKS = 24  # a launch with as many hashes still fits any path

_TLV: Final = struct.Struct("!HH")
_REQUIREMENTS: Final = struct.Struct("!IHHHHI")
_ACK: Final = struct.Struct("!IIII")
_AUTHENTICATION: Final = struct.Struct("!BBH")
_MANDATE: Final = struct.Struct("!QQ32s64s")


class OptionType(enum.IntEnum):
    """Registered option types."""

    REQUIREMENTS = 0x0001
    DIGEST = 0x0002
    ACKNOWLEDGEMENT = 0x0003
    ERROR = 0x0004
    MANDATE = 0x0005
    KEY_SHARE = 0x0006
    SENT_AT = 0x0007
    BLOCKS = 0x0008
    AUTHENTICATION = 0xFFFF


class DigestAlgorithm(enum.IntEnum):
    """How the digest of a whole object is made; all give 32 bytes."""

    SHA256 = 1
    BLAKE2B_256 = 2
    SHA256_TREE = 3  # SHA-256 of the hashes in option Blocks


class AuthenticationAlgorithm(enum.IntEnum):
    """How a packet is authenticated: a MAC of 8 to 32 bytes (RFC 7693, keyed), or a signature of 64 (RFC 8032)."""

    KEYED_BLAKE2B = 1
    ED25519 = 2


TAG_BYTES: Final[dict[int, tuple[int, int]]] = {
    AuthenticationAlgorithm.KEYED_BLAKE2B: (8, 32),
    AuthenticationAlgorithm.ED25519: (64, 64),
}


class ErrorCode(enum.IntEnum):
    """Why an ERROR packet was sent."""

    MALFORMED = 1
    VERSION = 2
    TOO_LARGE = 3
    BUSY = 4
    DIGEST = 5
    UNKNOWN_TRANSFER = 6
    NO_ROUTE = 7
    REFUSED = 8
    EXPIRED = 9
    UNAUTHENTICATED = 10


class Requirements(msgspec.Struct, frozen=True, kw_only=True):
    """Summary of what the object's owner asks for. Accuracies and trust in 1/10000; ``deadline_ms`` 0: none."""

    task_class: int
    broad_accuracy: int = 0
    expert_accuracy: int = 0
    trust_floor: int = 0
    expert_group: int = 0
    deadline_ms: int = 0

    @classmethod
    def of(
        cls,
        task: str,
        *,
        broad_accuracy: float = 0.0,
        expert_group: str | None = None,
        expert_accuracy: float = 0.0,
        trust_floor: float = 0.0,
        deadline_s: float = 0.0,
    ) -> Requirements:
        """Build the summary from names, shares of 1 and seconds."""
        return cls(
            task_class=class_label(task),
            broad_accuracy=round(broad_accuracy * ACCURACY_SCALE),
            expert_accuracy=round(expert_accuracy * ACCURACY_SCALE),
            trust_floor=round(trust_floor * ACCURACY_SCALE),
            expert_group=group_number(expert_group),
            deadline_ms=round(deadline_s * 1000),
        )


class Digest(msgspec.Struct, frozen=True):
    """Digest of a whole object, ``value`` 32 bytes."""

    value: bytes
    algorithm: DigestAlgorithm = DigestAlgorithm.SHA256

    @classmethod
    def of(cls, payload: bytes | bytearray | memoryview, algorithm: DigestAlgorithm = DigestAlgorithm.SHA256) -> Digest:
        """Compute the digest of an object."""
        if algorithm is DigestAlgorithm.SHA256:
            return cls(hashlib.sha256(payload).digest(), algorithm)
        return cls(hashlib.blake2b(payload, digest_size=32).digest(), algorithm)


class Acknowledgement(msgspec.Struct, frozen=True, kw_only=True):
    """What a receiver holds: every shard below ``base``, and shard ``base + i`` where bit i of ``bitmap`` is set.

    Bit 0 is the least significant of the first byte.  ``echo_us`` repeats the timestamp of the packet that is answered,
    ``delay_us`` says how long the answer was held back, ``window`` how many shards from ``base`` on the receiver takes.
    """

    base: int
    echo_us: int = 0
    delay_us: int = 0
    window: int = 0
    bitmap: bytes = b""


class Mandate(msgspec.Struct, frozen=True, kw_only=True):
    """The owner's word for an object: times in ms since 1970, SHA-256 of the original, Ed25519 signature (64 bytes)."""

    issued_ms: int
    expires_ms: int
    digest: bytes
    signature: bytes


class Authentication(msgspec.Struct, frozen=True, kw_only=True):
    """A keyed MAC or a signature over everything before it and the payload (``wire.authenticated``)."""

    algorithm: int
    key_id: int
    tag: bytes


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """All options of one packet (a ``Header`` is one).

    ``blocks``: the blocks' hashes end to end; ``others``: skippable options of unknown type, (type, value).
    """

    requirements: Requirements | None = None
    digest: Digest | None = None
    ack: Acknowledgement | None = None
    error: int | None = None
    mandate: Mandate | None = None
    key_share: bytes | None = None
    sent_at_ms: int | None = None
    authentication: Authentication | None = None
    blocks: bytes | None = None
    others: tuple[tuple[int, bytes], ...] = ()


def group_number(group: str | None) -> int:
    """Return the 16-bit number of an expert group's name (0: no group)."""
    return 0 if group is None else zlib.crc32(group.encode()) % 0xFFFF + 1


def encode_options(options: Options) -> bytes:
    """Return the options' bytes in ascending order of type; ``struct.error`` when a value does not fit its field."""
    values: list[tuple[int, bytes]] = []
    if (need := options.requirements) is not None:
        values.append((OptionType.REQUIREMENTS, _encode_requirements(need)))
    if (digest := options.digest) is not None:
        values.append((OptionType.DIGEST, bytes((digest.algorithm,)) + _exactly(32, digest.value)))
    if (ack := options.ack) is not None:
        fixed = _ACK.pack(ack.base, ack.echo_us, ack.delay_us, ack.window)
        values.append((OptionType.ACKNOWLEDGEMENT, fixed + ack.bitmap))
    if options.error is not None:
        values.append((OptionType.ERROR, options.error.to_bytes(2, "big")))
    if (word := options.mandate) is not None:
        fixed = _MANDATE.pack(
            word.issued_ms, word.expires_ms, _exactly(32, word.digest), _exactly(64, word.signature)
        )  # fmt: skip
        values.append((OptionType.MANDATE, fixed))
    if options.key_share is not None:
        values.append((OptionType.KEY_SHARE, _exactly(32, options.key_share)))
    if options.sent_at_ms is not None:
        values.append((OptionType.SENT_AT, options.sent_at_ms.to_bytes(8, "big")))
    if options.blocks is not None:
        values.append((OptionType.BLOCKS, options.blocks))
    values.extend(sorted(options.others))
    if (auth := options.authentication) is not None:
        fixed = _AUTHENTICATION.pack(auth.algorithm, 0, auth.key_id)
        values.append((OptionType.AUTHENTICATION, fixed + auth.tag))
    return b"".join(_TLV.pack(kind, len(value)) + value for kind, value in values)


def decode_options(data: memoryview) -> dict[str, Any]:
    """Parse the option area of a header into fields of ``Options``; ``PacketError`` (reason ``option``) if broken."""
    found: dict[str, Any] = {}
    others: list[tuple[int, bytes]] = []
    position, last = 0, -1
    while position < len(data):
        if len(data) - position < _TLV.size:
            raise PacketError("option", f"option header cut off at byte {position} of the option area")
        kind, length = _TLV.unpack_from(data, position)
        position += _TLV.size
        if kind <= last:
            raise PacketError("option", f"option {kind:#06x} repeated or out of order")
        if length > len(data) - position:
            raise PacketError("option", f"option {kind:#06x} of {length} bytes leaves the header")
        value = bytes(data[position : position + length])
        if known := _DECODERS.get(kind):
            found[known[0]] = known[1](value)
        else:
            _check(kind >= SKIPPABLE, f"unknown option {kind:#06x} that must be understood")
            others.append((kind, value))
        position, last = position + length, kind
    if others:
        found["others"] = tuple(others)
    return found


def _exactly(size: int, value: bytes) -> bytes:
    if len(value) != size:
        raise ValueError(f"{len(value)} bytes where an option has {size}")
    return value


def _encode_requirements(need: Requirements) -> bytes:
    shares = (need.broad_accuracy, need.expert_accuracy, need.trust_floor)
    return _REQUIREMENTS.pack(need.task_class, *shares, need.expert_group, need.deadline_ms)


def _decode_requirements(value: bytes) -> Requirements:
    _check(len(value) == _REQUIREMENTS.size, "requirements option is not 16 bytes")
    task, broad, expert, trust, group, deadline = _REQUIREMENTS.unpack(value)
    _check(max(broad, expert, trust) <= ACCURACY_SCALE, "requirements option asks for more than 1.0")
    return Requirements(
        task_class=task,
        broad_accuracy=broad,
        expert_accuracy=expert,
        trust_floor=trust,
        expert_group=group,
        deadline_ms=deadline,
    )


def _decode_digest(value: bytes) -> Digest:
    _check(len(value) == 33, "digest option is not 33 bytes")
    _check(1 <= value[0] <= len(DigestAlgorithm), f"unknown digest algorithm {value[0]}")
    return Digest(value[1:], DigestAlgorithm(value[0]))


def _decode_ack(value: bytes) -> Acknowledgement:
    _check(_ACK.size <= len(value) <= _ACK.size + MAX_BITMAP_BYTES, "acknowledgement option has a wrong length")
    base, echo, delay, window = _ACK.unpack_from(value)
    return Acknowledgement(base=base, echo_us=echo, delay_us=delay, window=window, bitmap=value[_ACK.size :])


def _decode_error(value: bytes) -> int:
    _check(len(value) == 2, "error option is not 2 bytes")
    return int.from_bytes(value, "big")


def _decode_key_share(value: bytes) -> bytes:
    _check(len(value) == 32, "key share option is not 32 bytes")
    return value


def _decode_sent_at(value: bytes) -> int:
    _check(len(value) == 8, "sent-at option is not 8 bytes")
    return int.from_bytes(value, "big")


def _decode_blocks(value: bytes) -> bytes:
    _check(len(value) % HASH_BYTES == 0, f"blocks option is not hashes of {HASH_BYTES} bytes")
    _check(2 <= len(value) // HASH_BYTES <= MAX_BLOCKS, f"blocks option has not 2 to {MAX_BLOCKS} hashes")
    return value


def _decode_mandate(value: bytes) -> Mandate:
    _check(len(value) == _MANDATE.size, "mandate option is not 112 bytes")
    issued, expires, digest, signature = _MANDATE.unpack(value)
    return Mandate(issued_ms=issued, expires_ms=expires, digest=digest, signature=signature)


def _decode_authentication(value: bytes) -> Authentication:
    _check(len(value) >= _AUTHENTICATION.size, "authentication option has a wrong length")
    algorithm, reserved, key_id = _AUTHENTICATION.unpack_from(value)
    _check(reserved == 0, "authentication option has a reserved byte that is not 0")
    tag = value[_AUTHENTICATION.size :]
    least, most = TAG_BYTES.get(algorithm, (0, -1))
    _check(least <= len(tag) <= most, f"authentication option: tag of {len(tag)} bytes for algorithm {algorithm}")
    return Authentication(algorithm=algorithm, key_id=key_id, tag=tag)


def _check(condition: bool, message: str) -> None:
    if not condition:
        raise PacketError("option", message)


_DECODERS: Final[dict[int, tuple[str, Callable[[bytes], Any]]]] = {
    OptionType.REQUIREMENTS: ("requirements", _decode_requirements),
    OptionType.DIGEST: ("digest", _decode_digest),
    OptionType.ACKNOWLEDGEMENT: ("ack", _decode_ack),
    OptionType.ERROR: ("error", _decode_error),
    OptionType.MANDATE: ("mandate", _decode_mandate),
    OptionType.KEY_SHARE: ("key_share", _decode_key_share),
    OptionType.SENT_AT: ("sent_at_ms", _decode_sent_at),
    OptionType.BLOCKS: ("blocks", _decode_blocks),
    OptionType.AUTHENTICATION: ("authentication", _decode_authentication),
}
