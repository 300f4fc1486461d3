"""The AI packet's fast codec: what agents and controller use.  The layout is the table in packets/README.md.

``encode`` and ``decode`` know nothing of sockets.  ``decode`` is the only door for bytes from the network: whatever
they are, it returns a header and a payload that obey the table, or raises ``PacketError``, and nothing else.
"""

from __future__ import annotations

import enum
import socket
import struct
from collections.abc import Callable
from typing import Any, Final, TypeVar
from zlib import crc32

from packets.errors import PacketError
from packets.labels import object_label
from packets.options import (
    Acknowledgement,
    Authentication,
    Digest,
    DigestAlgorithm,
    ErrorCode,
    Mandate,
    Options,
    Requirements,
    decode_options,
    encode_options,
)

VERSION = 2
FIXED_BYTES = 64
IP_UDP_BYTES = 28
DEFAULT_MTU = 1500
AUTHENTICATION_BYTES = 8  # option Authentication without its tag
SIGNED_BYTES = 12 + AUTHENTICATION_BYTES + 64  # what a signed request carries beside its payload: Sent At, signature
_CHECKSUM_AT = 60
_NO_CHECKSUM = b"\0\0\0\0"

_FIXED: Final = struct.Struct("!BBHHHQ4sIIIQQHHIII")
_UNSUMMED: Final = struct.Struct("!BBHHHQ4sIIIQQHHII")
_U16: Final = struct.Struct("!H")

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")
MAX_REMEMBERED = 4096

Buffer = bytes | bytearray | memoryview


class PacketType(enum.IntEnum):
    """What an AI packet is."""

    MODEL_SHARD = 1
    DATA_SHARD = 2
    QUERY = 3
    RESPONSE = 4
    TELEMETRY = 5
    PROBE = 6
    ACK = 7
    ANNOUNCE = 8
    ERROR = 9


class Flag(enum.IntFlag, boundary=enum.KEEP):
    """Header flags; undefined bits are sent as 0 and ignored on receipt."""

    LAUNCH = 0x0001
    LAST = 0x0002
    REPLY = 0x0004
    COMPLETE = 0x0008
    REPEATED = 0x0010
    AUTONOMOUS = 0x0020
    END_TO_END = 0x0040
    ENCRYPTED = 0x0080
    HANDOVER = 0x0100
    ONE_TIME = 0x0200
    KEYED = 0x0400
    AGAIN = 0x0800


NO_FLAGS = Flag(0)
SEALED = Flag.ONE_TIME | Flag.KEYED  # of a shard: only who has its key can check the payload checksum


class TrafficClass(enum.IntEnum):
    """How a packet would like to be treated by schedulers; 3 to 15 are unassigned."""

    BULK = 0
    CONTROL = 1
    QUERY = 2


__all__ = [
    "Acknowledgement", "Authentication", "Buffer", "Digest", "DigestAlgorithm", "ErrorCode", "Flag", "Header",
    "Mandate", "Options", "PacketError", "PacketType", "Requirements", "TrafficClass", "authenticated", "decode",
    "encode", "payload_room", "seal", "write",
]  # fmt: skip

SHARD_TYPES = frozenset((PacketType.MODEL_SHARD, PacketType.DATA_SHARD))
_SHARD_NUMBERS: Final = frozenset(map(int, SHARD_TYPES))
_LAUNCH: Final = int(Flag.LAUNCH)
_SEALED: Final = int(SEALED)
_NO_OPTIONS: Final[dict[str, Any]] = {}
_TYPES: Final = {int(kind): kind for kind in PacketType}


class _Remembered(dict[_Key, _Value]):
    """A conversion that remembers its results, up to a bound: the small conversions are what a packet costs."""

    def __init__(self, convert: Callable[[_Key], _Value]) -> None:
        self._convert = convert

    def __missing__(self, key: _Key) -> _Value:
        if len(self) >= MAX_REMEMBERED:
            self.clear()
        value = self[key] = self._convert(key)
        return value


_FLAGS: Final = _Remembered[int, Flag](Flag)
_ADDRESSES: Final = _Remembered[bytes, str](socket.inet_ntoa)
_ADDRESS_BYTES: Final = _Remembered[str, bytes](socket.inet_aton)


class Header(Options, frozen=True, gc=False):
    """Everything in front of the payload; ``length`` and ``payload_checksum`` are filled in by ``encode``.

    The checksum of a sealed shard is its maker's to give.
    """

    type: PacketType
    version: int = VERSION
    flags: Flag = NO_FLAGS
    traffic_class: int = 0
    object_id: int = 0
    owner: str = "0.0.0.0"
    transfer_id: int = 0
    shard_index: int = 0
    shard_count: int = 0
    offset: int = 0
    length: int = 0
    total_length: int = 0
    visit: int = 0
    visit_limit: int = 0
    timestamp_us: int = 0
    payload_checksum: int = 0

    @property
    def label(self) -> int:
        """The 28-bit label of the object."""
        return object_label(self.object_id)


def payload_room(mtu: int = DEFAULT_MTU, options: Options | None = None) -> int:
    """Return how many payload bytes fit one IP packet of ``mtu`` bytes beside these options."""
    return mtu - IP_UDP_BYTES - FIXED_BYTES - (len(encode_options(options)) if options else 0)


def encode(header: Header, payload: Buffer = b"") -> bytes:
    """Return the bytes of a packet; ``PacketError`` (reason ``field``) when a value does not fit its field."""
    try:
        options = encode_options(header)
        return b"".join((_encode_fixed(header, payload, options), options, payload))
    except (struct.error, OverflowError, OSError, TypeError, ValueError) as error:
        raise PacketError("field", f"AI packet cannot be built: {error}") from error


def write(buffer: bytearray, at: int, header: Header, payload: Buffer, options: bytes = b"") -> int:
    """Write a packet into ``buffer`` at ``at`` and return the position after it: ``encode`` without a copy."""
    header_end = at + FIXED_BYTES + len(options)
    end = header_end + len(payload)
    buffer[at:header_end] = _encode_fixed(header, payload, options) + options
    buffer[header_end:end] = payload
    return end


def seal(header: Header, payload: Buffer, tag: Callable[[bytes, Buffer], bytes]) -> bytes:
    """Return the bytes of a packet whose Authentication is filled in on the way: encoded once, nothing read again.

    ``header.authentication`` comes with a blank tag of the right size; ``tag`` is given what it covers, as
    ``authenticated`` would: all before the option (checksum as 0), and the payload.  ``PacketError`` as ``encode``.
    """
    try:
        options = encode_options(header)
        unsummed = _encode_fixed(header, payload, options)[:_CHECKSUM_AT]
    except (struct.error, OverflowError, OSError, TypeError, ValueError) as error:
        raise PacketError("field", f"AI packet cannot be built: {error}") from error
    if header.authentication is None:
        raise PacketError("option", "AI packet without an Authentication option")
    size = len(header.authentication.tag)
    covered = unsummed + _NO_CHECKSUM + options[: len(options) - AUTHENTICATION_BYTES - size]
    options = options[: len(options) - size] + tag(covered, payload)
    return b"".join((unsummed, _header_checksum(unsummed, options), options, payload))


def _header_checksum(unsummed: bytes, options: bytes) -> bytes:
    return crc32(options, crc32(_NO_CHECKSUM, crc32(unsummed))).to_bytes(4, "big")


def _encode_fixed(header: Header, payload: Buffer, options: bytes) -> bytes:
    sealed = header.flags & _SEALED and header.type in SHARD_TYPES
    unsummed = _UNSUMMED.pack(
        (header.version & 0xF) << 4 | (header.traffic_class & 0xF), header.type, header.flags,
        FIXED_BYTES + len(options), len(payload), header.object_id, _ADDRESS_BYTES[header.owner], header.transfer_id,
        header.shard_index, header.shard_count, header.offset, header.total_length, header.visit, header.visit_limit,
        header.timestamp_us, header.payload_checksum if sealed else crc32(payload),
    )  # fmt: skip
    return unsummed + _header_checksum(unsummed, options)


def authenticated(packet: Buffer) -> tuple[bytes, memoryview]:
    """Return what the Authentication of a good packet covers: all before the option (checksum as 0), the payload."""
    view = memoryview(packet)
    header_length = _U16.unpack_from(view, 4)[0]
    auth = decode_options(view[FIXED_BYTES:header_length]).get("authentication")
    if auth is None:
        raise PacketError("option", "AI packet without an Authentication option")
    end = header_length - AUTHENTICATION_BYTES - len(auth.tag)
    return bytes(view[:_CHECKSUM_AT]) + _NO_CHECKSUM + bytes(view[FIXED_BYTES:end]), view[header_length:]


def decode(data: Buffer) -> tuple[Header, memoryview]:
    """Parse one datagram into header and payload (a view of ``data``); ``PacketError`` only, when it is none."""
    view = memoryview(data)
    size = len(view)
    if size < FIXED_BYTES:
        raise PacketError("short", f"AI packet of {size} bytes, its fixed header alone has {FIXED_BYTES}")
    (
        first, kind, flags, header_length, length, object_id, owner, transfer_id, index, count, offset, total, visit,
        visit_limit, timestamp_us, payload_checksum, header_checksum,
    ) = _FIXED.unpack_from(view)  # fmt: skip
    if first >> 4 != VERSION:
        raise PacketError("version", f"AI packet of version {first >> 4}, this codec speaks {VERSION}")
    if header_length < FIXED_BYTES or header_length + length != size:
        text = f"header {header_length} + payload {length} is not the datagram's {size} bytes"
        raise PacketError("length", text)
    options: dict[str, Any] = _NO_OPTIONS
    seen = crc32(_NO_CHECKSUM, crc32(data[:_CHECKSUM_AT]))
    if header_length > FIXED_BYTES:
        seen = crc32(view[FIXED_BYTES:header_length], seen)
    if seen != header_checksum:
        raise PacketError("header-checksum", "header does not match its checksum: altered on the way")
    if kind not in _TYPES:
        raise PacketError("type", f"AI packet of unknown type {kind}")
    if header_length > FIXED_BYTES:
        options = decode_options(view[FIXED_BYTES:header_length])
    payload = view[header_length:]
    if crc32(payload) != payload_checksum and not (flags & _SEALED and kind in _SHARD_NUMBERS):
        raise PacketError("payload-checksum", f"payload of {length} bytes does not match its checksum")
    if kind in _SHARD_NUMBERS:
        if flags & _LAUNCH:
            if length or count == 0 or "digest" not in options:
                raise PacketError("shard", "launch with a payload, without shards or without a digest")
        elif index >= count or offset + length > total:
            raise PacketError("shard", f"shard {index} of {count} lies outside its object")
    fixed = (
        _TYPES[kind], VERSION, _FLAGS[flags], first & 0xF, object_id, _ADDRESSES[owner], transfer_id, index, count,
        offset, length, total, visit, visit_limit, timestamp_us, payload_checksum,
    )  # fmt: skip
    return Header(*fixed, **options) if options else Header(*fixed), payload
