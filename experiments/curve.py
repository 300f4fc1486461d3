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


def curve(events: Sequence[Event], object_id: int) -> list[Point]:
    """Return a point for each verdict on a job's model: seconds and bytes since it was submitted, and the accuracy of
    the state that was kept. Empty when nothing was measured.
    """
    mine = [e for e in events if e.data.get("object_id") == object_id]
    start = next((e.t_unix_s for e in mine if e.kind == "job.submitted"), None)
    if start is None:
        return []
    counters = Counters(events)
    base, points = counters.at(start), list[Point]()
    for event in mine:
        if event.kind != "visit.verified":
            continue
        kept = event.data if event.data["accepted"] or not points else points[-1]
        points.append(
            {
                "seconds": round(event.t_unix_s - start, 2),
                "bytes": round(counters.at(event.t_unix_s) - base),
                "broad": kept["broad"],
                "expert": kept.get("expert"),
            }
        )
    return points
