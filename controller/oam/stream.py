"""Server-sent events of the page: a picture first, then what changes, then each event; resumable, bounded, kept alive.

Messages: ``state`` (the whole picture, on opening), ``patch`` (changed records; ``null``: removed), ``event`` (one
event, with its id, which a browser sends back as ``Last-Event-ID``), ``ping`` (nothing new) and ``bye`` (the server
ends).  A stream holds no queue: it remembers a version and an event id and asks the state for what came since, so a
slow reader costs nothing.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Iterator

import msgspec

from controller.oam.state.run import NetworkState

MIN_INTERVAL_S = 0.1
FIRST_EVENTS = 200
RETRY_MS = 1000
WAKE_S = 0.5


class EventStreams:
    """All open streams of one page server, at most ``limit`` of them."""

    def __init__(self, state: NetworkState, *, limit: int, keep_alive_s: float) -> None:
        self.limit = limit
        self.count = 0
        self._state = state
        self._keep_alive_s = keep_alive_s
        self._run = secrets.token_hex(4)  # ids of another run or server must not be resumed from
        self._lock = threading.Lock()
        self._closed = threading.Event()

    def open(self, last_event_id: str = "") -> Iterator[bytes] | None:
        """Return a new stream's body, or ``None`` when there are too many."""
        with self._lock:
            if self.count >= self.limit or self._closed.is_set():
                return None
            self.count += 1
        return _Body(self, self._messages(self._resume_from(last_event_id)))

    def close(self) -> None:
        """End every stream."""
        self._closed.set()

    def released(self) -> None:
        """One stream less."""
        with self._lock:
            self.count -= 1

    def _resume_from(self, last_event_id: str) -> int:
        run, _, number = last_event_id.rpartition(".")
        known = number.isdigit() and len(number) < 18 and run in ("", self._run)
        return int(number) if known else 0

    def _messages(self, seen_event: int) -> Iterator[bytes]:
        picture = self._state.snapshot()
        version: int = picture["version"]
        yield f"retry: {RETRY_MS}\n".encode() + _message("state", picture)
        seen_event, said = self._events(seen_event)
        yield said
        last_said = time.monotonic()
        while not self._closed.is_set():
            if self._state.wait(version, min(WAKE_S, self._keep_alive_s)):
                version, patch = self._state.patch_since(version)
                seen_event, said = self._events(seen_event)
                yield _message("patch", patch) + said
                last_said = time.monotonic()
                self._closed.wait(MIN_INTERVAL_S)
            elif time.monotonic() - last_said >= self._keep_alive_s:
                yield _message("ping", {})
                last_said = time.monotonic()
        yield _message("bye", {})

    def _events(self, after: int) -> tuple[int, bytes]:
        """Return the id of the last event after ``after``, and all of them as messages."""
        events = self._state.events_after(after, FIRST_EVENTS)
        said = b"".join(_message("event", event, f"{self._run}.{event['id']}") for event in events)
        return (events[-1]["id"] if events else after), said


class _Body:
    """The body of one response; gives its place back however it ends."""

    def __init__(self, streams: EventStreams, messages: Iterator[bytes]) -> None:
        self._streams = streams
        self._messages = messages
        self._open = True

    def __iter__(self) -> _Body:
        return self

    def __next__(self) -> bytes:
        return next(self._messages)

    def close(self) -> None:
        if self._open:
            self._open = False
            self._streams.released()


def _message(name: str, data: object, event_id: str = "") -> bytes:
    head = f"id: {event_id}\n" if event_id else ""
    return f"{head}event: {name}\ndata: ".encode() + msgspec.json.encode(data) + b"\n\n"
