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
import stat
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from controller.oam.errors import CollectorError
from controller.oam.state.fields import whole
from packets.events import EVENT_VERSION, Event, decode_event, encode_event

MAX_DATAGRAM_BYTES = 1 << 16
MAX_UNIX_PATH = 107
RECEIVE_BUFFER_BYTES = 8 << 20
QUEUE_SETTING = Path("/proc/sys/net/unix/max_dgram_qlen")
DATAGRAM_QUEUE = 4096

Listener = Callable[[Event], object]


class Subscription:
    """One listener's bounded queue: iterate (ends when closed) or ``get``; what found no room is ``dropped``."""

    def __init__(self, name: str, limit: int) -> None:
        self.name = name
        self.dropped = 0
        self.errors = 0
        self.closed = False
        self.listener: Listener | None = None
        self._queue: queue.Queue[Event | None] = queue.Queue()
        self._limit = limit

    def put(self, event: Event) -> None:
        """Offer an event; counts a drop instead of waiting."""
        if self.closed or self._queue.qsize() >= self._limit:
            self.dropped += not self.closed
            return
        self._queue.put(event)

    def get(self, timeout_s: float | None = None) -> Event | None:
        """Return the next event, or ``None`` when closed and empty or when ``timeout_s`` has passed."""
        if self.closed and self._queue.empty():
            return None
        try:
            return self._queue.get(timeout=timeout_s)
        except queue.Empty:
            return None

    def __iter__(self) -> Iterator[Event]:
        while (event := self.get()) is not None:
            yield event

    def close(self) -> None:
        """Take no more; what is queued is still handed out."""
        if not self.closed:
            self.closed = True
            self._queue.put(None)


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
        self._socket = _bind(self.socket_path)
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
        self._take(Event(kind=kind, source=self.source, t_unix_s=time.time(), data=data))

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
        thread = threading.Thread(target=_listen, args=(subscription, listener), name=label, daemon=True)
        self._listener_threads.append(thread)
        thread.start()
        return subscription

    def remove_listener(self, listener: Listener) -> None:
        """Call ``listener`` no more (one that was never added: nothing happens)."""
        with self._lock:
            mine = [s for s in self._subscriptions if s.listener == listener]
        for subscription in mine:
            self.unsubscribe(subscription)

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


def _listen(subscription: Subscription, listener: Listener) -> None:
    for event in subscription:
        try:
            listener(event)
        except Exception:  # a listener's mistake is its own: counted, shown in the metrics, the stream goes on
            subscription.errors += 1


def _bind(path: Path) -> socket.socket:
    if len(os.fsencode(path)) > MAX_UNIX_PATH:
        raise CollectorError(
            f"event socket {path}: longer than {MAX_UNIX_PATH} bytes; choose a shorter runtime directory"
        )
    _remove_stale(path)
    with _longer_datagram_queue():
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
    try:
        sock.bind(os.fspath(path))
        os.chmod(path, 0o600)
    except OSError as error:
        sock.close()
        raise CollectorError(f"event socket {path}: {error.strerror}; make its directory or choose another") from error
    return sock


@contextlib.contextmanager
def _longer_datagram_queue() -> Iterator[None]:
    """Let sockets made inside hold ``DATAGRAM_QUEUE`` datagrams: Linux's default is 10, less than one burst of a DCC.

    A socket keeps the limit it was born with, so the setting is put back at once; without root it stays as it is.
    """
    try:
        before = QUEUE_SETTING.read_text().strip()
        if int(before) < DATAGRAM_QUEUE:
            QUEUE_SETTING.write_text(str(DATAGRAM_QUEUE))
    except (OSError, ValueError):
        before = ""
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            if before:
                QUEUE_SETTING.write_text(before)


def _remove_stale(path: Path) -> None:
    """Unlink a socket that nobody reads any more; a live one, or a file that is no socket, is an error."""
    try:
        mode = path.lstat().st_mode
    except OSError:
        return
    if not stat.S_ISSOCK(mode):
        raise CollectorError(f"event socket {path}: a file of that name is in the way; move it")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(os.fspath(path))
        except ConnectionRefusedError:
            path.unlink()
            return
        except OSError:
            return
    raise CollectorError(f"event socket {path}: another collector is listening; end that run first (daitn down)")
