"""A listener's side of a run's events: a bounded queue, which never makes the collector wait."""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator

from packets.events import Event

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


def listen(subscription: Subscription, listener: Listener) -> None:
    """Call a listener with every event of its queue until that is closed; what it raises is counted (``errors``)."""
    for event in subscription:
        try:
            listener(event)
        except Exception:  # a listener's mistake is its own: counted, shown in the metrics, the stream goes on
            subscription.errors += 1
