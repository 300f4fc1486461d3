"""Accuracy of a job against bytes on the wire and time: what the MPVUs measured, laid over the port counters."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import Any

from packets.events import Event

Point = dict[str, Any]


class Counters:
    """Bytes that had crossed all links at any moment, from the switches' once-a-second reports (linear in between)."""

    def __init__(self, events: Sequence[Event]) -> None:
        self._seen: dict[str, tuple[int, list[float], list[int]]] = {}
        for event in events:
            if event.kind == "link.load":
                self._note(event)

    def _note(self, event: Event) -> None:
        data = event.data
        link, kas = str(data["link"]), int(data["kas"])
        held = self._seen.get(link)
        if held is None or kas < held[0]:  # both ends of a border count it
            held = self._seen[link] = (kas, [], [])
        if kas == held[0]:
            held[1].append(event.t_unix_s)
            held[2].append(int(data["tx_bytes"]) + int(data["rx_bytes"]))

    def at(self, t_unix_s: float) -> float:
        """Return the bytes on all links together at a moment."""
        return sum(_between(times, counts, t_unix_s) for _, times, counts in self._seen.values())


def _between(times: list[float], counts: list[int], t: float) -> float:
    at = bisect_left(times, t)
    if at == 0:
        return float(counts[0])
    if at == len(times):
        return float(counts[-1])
    share = (t - times[at - 1]) / max(times[at] - times[at - 1], 1e-9)
    return counts[at - 1] + share * (counts[at] - counts[at - 1])


class _Clock:
    """Seconds and bytes since a job was submitted."""

    def __init__(self, events: Sequence[Event], start_unix_s: float) -> None:
        self._counters, self._start = Counters(events), start_unix_s
        self._base = self._counters.at(start_unix_s)

    def at(self, event: Event) -> Point:
        seconds, size = event.t_unix_s - self._start, self._counters.at(event.t_unix_s) - self._base
        return {"seconds": round(seconds, 2), "bytes": round(size)}


def _of(events: Sequence[Event], object_id: int) -> tuple[list[Event], _Clock | None]:
    mine = [e for e in events if e.data.get("object_id") == object_id]
    start = next((e.t_unix_s for e in mine if e.kind == "job.submitted"), None)
    return mine, None if start is None else _Clock(events, start)


def curve(events: Sequence[Event], object_id: int) -> list[Point]:
    """Return a point for each verdict on a job's model: seconds and bytes since it was submitted, and the accuracy of
    the state that was kept. Empty when nothing was measured.
    """
    mine, clock = _of(events, object_id)
    points = list[Point]()
    for event in mine if clock else ():
        if clock and event.kind == "visit.verified":
            kept = event.data if event.data["accepted"] or not points else points[-1]
            points.append(clock.at(event) | {"broad": kept["broad"], "expert": kept.get("expert")})
    return points


def reached(events: Sequence[Event], object_id: int) -> Point | None:
    """Return where a job's targets were first met, as confirmed by every MPVU asked: seconds and bytes since it was
    submitted, training visits, accuracies; ``None`` where they never were.
    """
    mine, clock = _of(events, object_id)
    event = next((e for e in mine if e.kind == "job.reached"), None)
    if clock is None or event is None:
        return None
    return clock.at(event) | {k: event.data[k] for k in ("visits", "broad", "expert")}
