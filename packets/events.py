"""The event stream: what every process of a testbed says of itself, as versioned JSON lines.

Core code never prints: it calls ``emit(kind, **data)``.  An emitter sends each event as one datagram to the
collector's unix socket (a path, so it works from every network namespace), never blocks, and counts what it had to
drop.  The collector gives each event its id, writes ``events.jsonl`` and hands it to the listeners (page, CLI, report).
"""

from __future__ import annotations

import contextlib
import socket
from typing import Any, Protocol

import msgspec

from packets.security.clock import unix_s

EVENT_VERSION = 1
MAX_EVENT_BYTES = 60_000
SO_SNDBUFFORCE = 32  # linux/asm-generic/socket.h; the socket module does not name it
SEND_BUFFER_BYTES = 4 << 20  # a burst of some thousand events waits here until the collector comes to it


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """One event. ``id`` is given by the collector; ``t_unix_s`` is the emitter's wall clock."""

    kind: str
    source: str
    t_unix_s: float
    data: dict[str, Any] = {}
    id: int = 0
    v: int = EVENT_VERSION


class Emit(Protocol):
    """What a component is given to speak with."""

    def __call__(self, kind: str, /, **data: Any) -> None: ...


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Event)


def encode_event(event: Event) -> bytes:
    """Return the event as one line of JSON, without its newline."""
    return _encoder.encode(event)


def decode_event(line: bytes) -> Event:
    """Parse one JSON line; ``msgspec.DecodeError`` (``ValidationError`` included) when it is no event."""
    try:
        return _decoder.decode(line)
    except (UnicodeDecodeError, RecursionError) as error:  # msgspec lets these two through
        raise msgspec.DecodeError(str(error)) from error


def silent(kind: str, /, **data: Any) -> None:
    """Emit nothing: the default where nobody listens."""


class Emitter:
    """Send events of one source to the collector; bounded by the socket buffer, drops counted, never blocks."""

    def __init__(self, source: str, collector_path: str) -> None:
        self.source = source
        self.dropped = 0
        self._path = collector_path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        with contextlib.suppress(OSError):  # without root the system's default has to do
            self._socket.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, SEND_BUFFER_BYTES)

    def __call__(self, kind: str, /, **data: Any) -> None:
        if self.dropped:
            data["dropped_before"] = self.dropped
        line = encode_event(Event(kind=kind, source=self.source, t_unix_s=unix_s(), data=data))
        try:
            if len(line) > MAX_EVENT_BYTES:
                raise OSError("event too large")
            self._socket.sendto(line, self._path)
            self.dropped = 0
        except OSError:
            self.dropped += 1

    def close(self) -> None:
        self._socket.close()
