"""What became of queries: one row each, and what they come to."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

OUTCOMES = ("answered", "refused", "lost")


class Row(NamedTuple):
    """A query. ``at_s``: when it was due, since the load's start; ``latency_ms``: from then to its answer, or its end;
    ``model``: label of the one that answered; ``right``: 1, 0, or -1 where nobody knows the right answer; ``cached``: 1
    for an answer from memory.
    """

    at_s: float
    latency_ms: float
    outcome: str
    model: int
    tries: int
    right: int
    cached: int = 0


def write(path: Path, rows: Iterable[Row]) -> None:
    """Write rows as CSV."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(Row._fields)
        writer.writerows((f"{r.at_s:.4f}", f"{r.latency_ms:.3f}", *r[2:]) for r in rows)


def read(path: Path) -> list[Row]:
    """Read what ``write`` wrote."""
    with path.open(newline="") as file:
        return [
            Row(
                float(r["at_s"]),
                float(r["latency_ms"]),
                r["outcome"],
                int(r["model"]),
                int(r["tries"]),
                int(r["right"]),
                int(r.get("cached") or 0),
            )
            for r in csv.DictReader(file)
        ]


def summary(rows: Sequence[Row], deadline_ms: float = 0.0) -> dict[str, Any]:
    """Return counts, latency percentiles (ms) of the answered, shares of the deadline hit and of right answers (of all
    that were asked, of those whose answer is known).
    """
    counts = Counter(r.outcome for r in rows)
    answered = np.array([r.latency_ms for r in rows if r.outcome == "answered"])
    judged = [r.right for r in rows if r.outcome == "answered" and r.right >= 0]
    percentiles = np.percentile(answered, [50, 95, 99]).tolist() if len(answered) else [0.0, 0.0, 0.0]
    hits = int(np.count_nonzero(answered <= deadline_ms)) if deadline_ms else len(answered)
    return {
        "asked": len(rows), **{name: counts.get(name, 0) for name in OUTCOMES}, "cached": sum(r.cached for r in rows),
        **{f"p{p}_ms": round(v, 3) for p, v in zip((50, 95, 99), percentiles, strict=True)},
        "mean_ms": round(float(answered.mean()), 3) if len(answered) else 0.0,
        "deadline_hits": round(hits / len(rows), 5) if rows else 0.0,
        "accuracy": round(sum(judged) / len(judged), 5) if judged else None,
        "by_model": {f"{label:#x}": n for label, n in sorted(Counter(
            r.model for r in rows if r.outcome == "answered").items())},
    }  # fmt: skip
