"""KBGP on the wire: a fixed header, then msgpack; every field bounded (``packets/kbgp.md`` is the one source).

``split`` judges a header before a byte of its body is read, ``decode`` the body.  Both raise ``KbgpError``, which
carries what the NOTIFICATION has to say, and nothing else.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import Annotated

import msgspec

from packets.errors import DaitnError
from packets.kbgp.knowledge import MAX_KNOWLEDGE_BYTES, Count, Kas, Knowledge, Signature, Word

PORT = 55833  # of speakers, TCP with TLS 1.3
MARKER = b"KBGP"
VERSION = 1
HEADER = struct.Struct("!4sBBHI")  # marker, version, type, reserved, length of the whole message
MAX_BODY_BYTES = 1 << 20  # of what is relayed
MAX_PATH = 32
MAX_HOPS = 16
ADVERTISEMENTS = 8  # of one UPDATE
MIN_HOLD_MS, MAX_HOLD_MS = 300, 240_000

Path = Annotated[list[Kas], msgspec.Meta(min_length=1, max_length=MAX_PATH)]
Trail = Annotated[list[Kas], msgspec.Meta(min_length=1, max_length=MAX_HOPS)]
Id = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
Byte = Annotated[int, msgspec.Meta(ge=0, le=255)]
Text = Annotated[str, msgspec.Meta(max_length=200)]
Body = Annotated[bytes, msgspec.Meta(max_length=MAX_BODY_BYTES)]
Milliseconds = Annotated[int, msgspec.Meta(ge=0, le=600_000)]


class Type(IntEnum):
    """Message types."""

    OPEN = 1
    UPDATE = 2
    NOTIFICATION = 3
    KEEPALIVE = 4
    END_OF_RIB = 5
    ANNOUNCE = 6
    REQUEST = 7
    REPLY = 8


class Code(IntEnum):
    """Error codes of a NOTIFICATION."""

    HEADER = 1
    OPEN = 2
    UPDATE = 3
    HOLD_TIMER = 4
    STATE = 5
    CEASE = 6
    RELAY = 7


class Sub(IntEnum):
    """Subcodes; what code each belongs to says ``kbgp.md``."""

    NONE = 0
    MARKER = 1
    VERSION = 2
    LENGTH = 3
    TYPE = 4
    MALFORMED = 5
    PEER = 6
    HOLD_TIME = 7
    SHUTDOWN = 8
    COLLISION = 9
    RESOURCES = 10


class Answer(IntEnum):
    """How a request ended."""

    ANSWERED = 0
    UNREACHABLE = 1
    HOP_LIMIT = 2
    TIMEOUT = 3
    OVERLOADED = 4
    ABSENT = 5
    REFUSED = 6
    CUT = 7


class KbgpError(DaitnError):
    """A message that breaks the protocol; ``code`` and ``sub`` are those of the NOTIFICATION that answers it."""

    def __init__(self, code: Code, sub: Sub, message: str) -> None:
        super().__init__(message)
        self.code, self.sub = code, sub


class Said(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of all messages."""


class Open(Said, frozen=True, kw_only=True):
    """First message of both sides. ``boot_ms`` tells one life of a speaker from the next, ``link`` parallel sessions.

    ``restart_s``: how long its knowledge is to be kept while it restarts (0: not at all); ``restarting``: it just did.
    """

    versions: Annotated[list[Byte], msgspec.Meta(min_length=1, max_length=8)]
    kas: Kas
    gateway: Word
    link: Word
    hold_ms: Annotated[int, msgspec.Meta(ge=0, le=MAX_HOLD_MS)]
    boot_ms: Count
    restart_s: Annotated[int, msgspec.Meta(ge=0, le=4095)] = 0
    restarting: bool = False
    capabilities: Annotated[list[Word], msgspec.Meta(max_length=16)] = []


class Keepalive(Said, frozen=True, kw_only=True):
    """Still here."""


class EndOfRib(Said, frozen=True, kw_only=True):
    """All that was to be told at the start of the session is told."""


class Advertisement(Said, frozen=True, kw_only=True):
    """Knowledge of one K-AS and the way it came: ``path`` from the speaker's neighbour to its origin.

    ``signature``: of the origin's control centre, over the knowledge (empty: an open network).
    """

    path: Path
    knowledge: Knowledge
    signature: Signature = b""

    @property
    def origin(self) -> int:
        """The K-AS that it is about."""
        return self.path[-1]


class Update(Said, frozen=True, kw_only=True):
    """What is new or changed, and what is gone."""

    withdrawn: Annotated[list[Kas], msgspec.Meta(max_length=255)] = []
    advertised: Annotated[list[Advertisement], msgspec.Meta(max_length=ADVERTISEMENTS)] = []


class Notification(Said, frozen=True, kw_only=True):
    """Why the session ends; last message of its sender."""

    code: Byte
    sub: Byte = 0
    reason: Text = ""


class Request(Said, frozen=True, kw_only=True):
    """A question of one control centre to another, hop by hop. ``id``: of this hop alone; ``trail``: K-AS so far."""

    id: Id
    to_kas: Kas
    trail: Trail
    left_ms: Milliseconds
    body: Body


class Announce(Said, frozen=True, kw_only=True):
    """A request that announces an object ahead of its data."""

    id: Id
    to_kas: Kas
    trail: Trail
    left_ms: Milliseconds
    body: Body
    object_id: Annotated[int, msgspec.Meta(ge=0)]
    visit: Annotated[int, msgspec.Meta(ge=0, le=0xFFFF)]


class Reply(Said, frozen=True, kw_only=True):
    """The answer, the same way back. ``code``: an ``Answer``; ``reason`` where it is none."""

    id: Id
    code: Byte
    reason: Text = ""
    body: Body = b""


Message = Open | Update | Notification | Keepalive | EndOfRib | Announce | Request | Reply

CLASSES: dict[Type, type[Said]] = {
    Type.OPEN: Open, Type.UPDATE: Update, Type.NOTIFICATION: Notification, Type.KEEPALIVE: Keepalive,
    Type.END_OF_RIB: EndOfRib, Type.ANNOUNCE: Announce, Type.REQUEST: Request, Type.REPLY: Reply,
}  # fmt: skip
TYPES = {kind: number for number, kind in CLASSES.items()}
_RELAYED = MAX_BODY_BYTES + 2048
LIMITS = {
    Type.OPEN: 1024, Type.UPDATE: ADVERTISEMENTS * (MAX_KNOWLEDGE_BYTES + 512) + 1024, Type.NOTIFICATION: 1024,
    Type.KEEPALIVE: 0, Type.END_OF_RIB: 0, Type.ANNOUNCE: _RELAYED, Type.REQUEST: _RELAYED, Type.REPLY: _RELAYED,
}  # fmt: skip
BLAME = {
    Type.OPEN: Code.OPEN, Type.UPDATE: Code.UPDATE, Type.ANNOUNCE: Code.RELAY, Type.REQUEST: Code.RELAY,
    Type.REPLY: Code.RELAY,
}  # fmt: skip
_encoder = msgspec.msgpack.Encoder()
_decoders = {number: msgspec.msgpack.Decoder(kind) for number, kind in CLASSES.items()}


def encode(message: Message) -> bytes:
    """Return one message, header and body."""
    number = TYPES[type(message)]
    body = _encoder.encode(message) if LIMITS[number] else b""
    return HEADER.pack(MARKER, VERSION, number, 0, HEADER.size + len(body)) + body


def split(header: bytes) -> tuple[Type, int]:
    """Return the type, and how many bytes of body follow a header; ``KbgpError`` when it is none that we accept."""
    marker, version, number, reserved, length = HEADER.unpack(header)
    if marker != MARKER or reserved:
        raise KbgpError(Code.HEADER, Sub.MARKER, "no KBGP header")
    if version != VERSION:
        raise KbgpError(Code.HEADER, Sub.VERSION, f"KBGP version {version}, we speak {VERSION}")
    if number not in Type._value2member_map_:
        raise KbgpError(Code.HEADER, Sub.TYPE, f"message type {number} is unassigned")
    size, kind = length - HEADER.size, Type(number)
    if not (0 <= size <= LIMITS[kind]) or (size == 0) != (LIMITS[kind] == 0):
        raise KbgpError(Code.HEADER, Sub.LENGTH, f"{kind.name} of {length} bytes")
    return kind, size


def decode(kind: Type, body: bytes) -> Message:
    """Parse a body; ``KbgpError`` when it is not one of that type."""
    if not LIMITS[kind] and not body:
        return CLASSES[kind]()  # type: ignore[return-value]
    try:
        return _decoders[kind].decode(body)  # type: ignore[return-value]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        why = " ".join(str(error).split())[:150]
        raise KbgpError(BLAME.get(kind, Code.HEADER), Sub.MALFORMED, f"{kind.name}: {why}") from None
