"""The state of a run, folded from its event stream: what the page, the API and the metrics show.

``NetworkState.apply`` never raises: an unknown kind or odd data is counted and the rest goes on.  The fold is
deterministic (it reads no clock: times are the events' own) and idempotent per event id, so it gives the same picture
live and from a finished run's log.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from controller.oam.state import fold_jobs, fold_network, fold_objects, fold_placement, fold_queries
from controller.oam.state.canvas import Canvas, Patch, Record, copy_json
from controller.oam.state.fields import web_safe
from packets.events import Event

Fold = Callable[[Canvas, Event], None]

FOLDS: dict[str, Fold] = {**fold_network.FOLDS, **fold_jobs.FOLDS, **fold_objects.FOLDS, **fold_queries.FOLDS}
QUIET_KINDS = frozenset(
    {"link.load", "krrm.updated", "map.fresh", "load.second", "load.progress"}
)  # many a second: folded, not listed


class NetworkState:
    """Fold of the event stream; thread-safe. ``recent_limit``: how many of the last events are kept for reading."""

    def __init__(self, *, recent_limit: int = 1000) -> None:
        self._canvas = Canvas()
        self._recent: deque[Record] = deque(maxlen=recent_limit)
        self._changed = threading.Condition(threading.RLock())
        self._last_id = 0
        self._closed = False
        self._faded_s = 0.0

    @property
    def version(self) -> int:
        """The number of changes so far."""
        return self._canvas.version

    @property
    def last_id(self) -> int:
        """The id of the last event applied."""
        return self._last_id

    @property
    def closed(self) -> bool:
        """True once ``close`` was called."""
        return self._closed

    def apply(self, event: Event) -> None:
        """Take one event. Never raises; an event id that was applied before is passed over."""
        with self._changed:
            if 0 < event.id <= self._last_id:
                return
            self._last_id = event.id or self._last_id + 1  # one that no collector numbered is the next
            self._count(event, self._fold(event))
            self._fade(event.t_unix_s)
            if event.kind not in QUIET_KINDS:
                self._recent.append(_shown(event, self._last_id))
            self._changed.notify_all()

    def snapshot(self) -> dict[str, Any]:
        """Return the whole state as JSON-able data (a copy), with ``version`` and ``last_id``."""
        with self._changed:
            return {**self._canvas.snapshot(), "last_id": self._last_id}

    def section(self, name: str) -> dict[str, Record]:
        """Return a copy of one section, e.g. ``jobs``; ``KeyError`` when there is none of that name."""
        with self._changed:
            copied: dict[str, Record] = copy_json(self._canvas.sections[name])
            return copied

    def patch_since(self, version: int) -> tuple[int, Patch]:
        """Return the present version and the records changed after ``version`` (``None``: removed)."""
        with self._changed:
            return self._canvas.version, self._canvas.patch_since(version)

    def events_after(self, event_id: int, limit: int = 200) -> list[Record]:
        """Return the last ``limit`` kept events with a greater id, oldest first."""
        with self._changed:
            newer = [event for event in self._recent if event["id"] > event_id]
        return newer[-limit:] if limit > 0 else []

    def wait(self, version: int, timeout_s: float) -> bool:
        """Wait until the state is newer than ``version`` or closed; tell whether it is newer."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._canvas.version > version, timeout_s)
            return self._canvas.version > version

    def close(self) -> None:
        """Wake everyone who waits: no more will come."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _fold(self, event: Event) -> str:
        """Fold one event; return what to count it as: "", "unknown" or "odd"."""
        fold = FOLDS.get(event.kind)
        if fold is None:
            return "unknown"
        try:
            fold(self._canvas, event)
            if event.kind in fold_placement.FOLDS:
                fold_placement.FOLDS[event.kind](self._canvas, event)
        except (TypeError, ValueError, KeyError, AttributeError, IndexError, RecursionError):
            return "odd"
        return ""

    def _fade(self, now_s: float) -> None:
        """Once a second of the events' own time, let old link loads go."""
        if abs(now_s - self._faded_s) >= 1.0:
            self._faded_s = now_s
            fold_network.fade(self._canvas, now_s)

    def _count(self, event: Event, oddity: str) -> None:
        counts = self._canvas.touch("run", "counts", events=0, unknown=0, odd=0, first_unix_s=event.t_unix_s)
        counts["events"] += 1
        counts["last_unix_s"] = max(event.t_unix_s, counts.get("last_unix_s", 0.0))
        if oddity:
            counts[oddity] += 1


def _shown(event: Event, event_id: int) -> Record:
    said = {"kind": event.kind[:64], "source": event.source[:64], "t_unix_s": event.t_unix_s}
    return {"id": event_id, **said, "data": web_safe(event.data)}
