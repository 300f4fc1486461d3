"""The collector of a run's events: one unix datagram socket in, a numbered log and bounded listeners out.

Two threads, so that senders (who never wait) seldom find the kernel's short datagram queue full: one only reads the
socket, the other parses, numbers, writes and hands on.  Nothing here blocks a sender, and whatever is lost is counted
(``EventHub.stats``).
"""

from __future__ import annotations

import contextlib
import os
import queue
import select
import socket
import threading
import time
from pathlib import Path
from typing import Any

import msgspec

from controller.oam.errors import CollectorError
from controller.oam.event_socket import MAX_DATAGRAM_BYTES, open_socket
from controller.oam.state.fields import whole
from controller.oam.subscription import Listener, Subscription, listen
from packets.events import EVENT_VERSION, Event, decode_event, encode_event
from packets.security.clock import unix_s


class EventHub:
    """Collect, number, log and distribute the events of one run.

    ``socket_path``: where emitters send (made, owner-only); ``log_path``: JSON lines are appended (``None``: no log).
    ``CollectorError`` from ``start`` when the path cannot be bound or the log not opened.
    """

    def __init__(
        self,
        socket_path: str | os.PathLike[str],
        log_path: str | os.PathLike[str] | None = None,
        *,
        source: str = "main",
        inbox_limit: int = 20_000,
        listener_limit: int = 10_000,
    ) -> None:
        self.source = source
        self.socket_path = Path(socket_path)
        self.log_path = Path(log_path) if log_path is not None else None
        self.received = self.malformed = self.dropped = self.dropped_upstream = self.log_errors = 0
        self.last_id = 0
        self._inbox: queue.Queue[bytes | Event | None] = queue.Queue()
        self._inbox_limit = inbox_limit
        self._listener_limit = listener_limit
        self._subscriptions: list[Subscription] = []
        self._listener_threads: list[threading.Thread] = []
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._closing = False
        self._socket: socket.socket | None = None
        self._log: Any = None
        self._wake_r, self._wake_w = -1, -1

    def start(self) -> EventHub:
        """Bind, open the log, start collecting; returns itself."""
        self._open_log()
        self._socket = open_socket(self.socket_path)
        self._wake_r, self._wake_w = os.pipe()
        for target, name in ((self._read, "events-read"), (self._work, "events-work")):
            thread = threading.Thread(target=target, name=name, daemon=True)
            thread.start()
            self._threads.append(thread)
        return self

    def __enter__(self) -> EventHub:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    def emit(self, kind: str, /, **data: Any) -> None:
        """Say something in the name of this process (``packets.events.Emit``)."""
        self._take(Event(kind=kind, source=self.source, t_unix_s=unix_s(), data=data))

    def hear(self, event: Event) -> None:
        """Take an event that a collector on another machine handed on."""
        self._take(event)

    def subscribe(self, name: str = "subscriber", limit: int | None = None) -> Subscription:
        """Return a bounded queue of all events from now on; close it when done."""
        subscription = Subscription(name, limit or self._listener_limit)
        with self._lock:
            if self._closing:
                subscription.close()
            else:
                self._subscriptions.append(subscription)
        return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        """Forget a subscription and close it."""
        with self._lock, contextlib.suppress(ValueError):
            self._subscriptions.remove(subscription)
        subscription.close()

    def add_listener(self, listener: Listener, name: str = "") -> Subscription:
        """Call ``listener`` with every event, on a thread of its own; what it raises is counted (``errors``)."""
        subscription = self.subscribe(name or getattr(listener, "__qualname__", type(listener).__name__))
        subscription.listener = listener
        label = f"events-{subscription.name}"
        thread = threading.Thread(target=listen, args=(subscription, listener), name=label, daemon=True)
        self._listener_threads.append(thread)
        thread.start()
        return subscription

    def stats(self) -> dict[str, Any]:
        """Return the counters: received, malformed, dropped (here, before arrival, per listener), errors."""
        with self._lock:
            listeners = {s.name: {"dropped": s.dropped, "errors": s.errors} for s in self._subscriptions}
        return {
            "received": self.received,
            "malformed": self.malformed,
            "dropped": self.dropped,
            "dropped_upstream": self.dropped_upstream,
            "log_errors": self.log_errors,
            "listeners": listeners,
        }

    def close(self, timeout_s: float = 5.0) -> None:
        """Take what is already in the socket and the queues, hand it on, write it, and end; safe to call twice."""
        with self._lock:
            if self._closing:
                return
            self._closing = True
        deadline = time.monotonic() + timeout_s
        if self._socket is not None:
            os.write(self._wake_w, b"x")
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        for subscription in self._subscriptions:
            subscription.close()
        for thread in self._listener_threads:
            if thread is not threading.current_thread():
                thread.join(max(0.0, deadline - time.monotonic()))
        self._release()

    # --- inside ---

    def _open_log(self) -> None:
        if self.log_path is None:
            return
        try:
            self._log = open(self.log_path, "ab")  # noqa: SIM115 - lives as long as the hub
        except OSError as error:
            raise CollectorError(f"event log {self.log_path}: {error.strerror}; make its folder first") from error

    def _take(self, item: bytes | Event) -> None:
        if self._inbox.qsize() >= self._inbox_limit:
            self.dropped += 1
        else:
            self._inbox.put(item)

    def _read(self) -> None:
        """Move datagrams from the socket to the inbox until woken by ``close``; then empty the socket and leave."""
        assert self._socket is not None
        sources: list[Any] = [self._socket, self._wake_r]
        ending = False
        while True:
            ready = select.select(sources, [], [], 0 if ending else None)[0]
            if self._socket in ready:
                self._take(self._socket.recv(MAX_DATAGRAM_BYTES))
            elif ending:
                self._inbox.put(None)
                return
            ending = ending or self._wake_r in ready

    def _work(self) -> None:
        while (item := self._inbox.get()) is not None:
            event = item if isinstance(item, Event) else self._parse(item)
            if event is not None:
                self._publish(event)
            if self._inbox.empty():
                self._flush()
        self._flush()

    def _parse(self, line: bytes) -> Event | None:
        try:
            event = decode_event(line)
        except (msgspec.DecodeError, RecursionError):
            event = None
        if event is None or event.v != EVENT_VERSION:
            self.malformed += 1
            return None
        self.dropped_upstream += max(0, whole(event.data, "dropped_before"))
        return event

    def _publish(self, event: Event) -> None:
        """Number, log, distribute.  Data that JSON cannot carry (``emit`` may bring it) is malformed."""
        numbered = msgspec.structs.replace(event, id=self.last_id + 1)
        try:
            line = encode_event(numbered)
        except (TypeError, ValueError, msgspec.MsgspecError):
            self.malformed += 1
            return
        self.last_id += 1
        self.received += 1
        self._write(line + b"\n")
        with self._lock:
            listeners = list(self._subscriptions)
        for subscription in listeners:
            subscription.put(numbered)

    def _write(self, line: bytes) -> None:
        if self._log is not None:
            try:
                self._log.write(line)
            except OSError:  # a full disk must not end the run; the count says that the log has holes
                self.log_errors += 1

    def _flush(self) -> None:
        if self._log is not None:
            try:
                self._log.flush()
            except OSError:
                self.log_errors += 1

    def _release(self) -> None:
        if self._socket is not None:
            self._socket.close()
            with contextlib.suppress(OSError):
                self.socket_path.unlink()
            os.close(self._wake_r)
            os.close(self._wake_w)
            self._socket = None
        if self._log is not None:
            with contextlib.suppress(OSError):
                self._log.close()
