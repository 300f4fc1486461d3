"""What a border speaker and its own control centre say to each other, over a unix socket of this machine."""

from __future__ import annotations

import asyncio
from typing import Annotated

import msgspec

from controller.border.messages import MAX_FRAME_BYTES
from controller.errors import BorderError
from packets.kbgp.knowledge import Kas, Knowledge, Signature
from packets.kbgp.messages import Body, Byte, Id, Milliseconds, Path, Text, Trail

MAX_LOCAL_BYTES = MAX_FRAME_BYTES + 4096


class Local(msgspec.Struct, frozen=True, kw_only=True, tag_field="l", forbid_unknown_fields=True):
    """Base of what is said."""


class Own(Local, frozen=True, kw_only=True, tag="own"):
    """DCC: what our K-AS tells of itself; the first thing it says."""

    knowledge: Knowledge
    signature: Signature = b""


class Ways(Local, frozen=True, kw_only=True, tag="ways"):
    """Speaker: the chosen ways that have changed; ``gone`` K-AS have none any more."""

    kas: Kas
    found: list[Way] = []
    gone: list[Kas] = []


class Way(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The chosen way to a K-AS, and what that tells of itself. ``stale``: who told it is restarting."""

    path: Path
    knowledge: Knowledge
    stale: bool = False


class Question(Local, frozen=True, kw_only=True, tag="ask"):
    """DCC: ask another K-AS. Speaker: another K-AS asks (``trail``: the way it came)."""

    id: Id
    to_kas: Kas
    left_ms: Milliseconds
    body: Body
    trail: Trail | None = None
    object_id: Annotated[int, msgspec.Meta(ge=0)] | None = None
    visit: Annotated[int, msgspec.Meta(ge=0, le=0xFFFF)] = 0


class Down(Local, frozen=True, kw_only=True, tag="down"):
    """DCC: the neighbouring K-AS to which no link of this gateway is up; all others are reached."""

    kas: Annotated[list[Kas], msgspec.Meta(max_length=255)]


class Leave(Local, frozen=True, kw_only=True, tag="leave"):
    """DCC: it ends, and is not being started again."""


class Result(Local, frozen=True, kw_only=True, tag="reply"):
    """The answer to a question, either way. ``code``: an ``Answer``."""

    id: Id
    code: Byte
    reason: Text = ""
    body: Body = b""


Word = Own | Ways | Question | Down | Leave | Result
_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Word] = msgspec.msgpack.Decoder(Word)


def frame(word: Word) -> bytes:
    """Return one frame: a length of four bytes, then the word."""
    data = _encoder.encode(word)
    return len(data).to_bytes(4, "big") + data


async def read(reader: asyncio.StreamReader) -> Word:
    """Read one frame; ``BorderError`` when it is malformed, ``IncompleteReadError`` at the end."""
    size = int.from_bytes(await reader.readexactly(4), "big")
    if size > MAX_LOCAL_BYTES:
        raise BorderError(f"local border frame of {size} bytes is larger than {MAX_LOCAL_BYTES}")
    try:
        return parse(await reader.readexactly(size))
    except msgspec.DecodeError as error:
        raise BorderError(f"local border frame of {size} bytes is no message: {error}") from error


def parse(data: bytes) -> Word:
    """Parse a frame without its length; ``msgspec.DecodeError`` when it is none."""
    try:
        return _decoder.decode(data)
    except (UnicodeDecodeError, RecursionError) as error:  # msgspec lets these two through
        raise msgspec.DecodeError(str(error)) from error
