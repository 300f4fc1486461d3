"""What became of a load of queries: figures by model, for each second, and how latencies are spread."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from hosts.inference import asked
from hosts.inference.asked import Row

MODEL_KEYS = ("answered", "p50_ms", "p95_ms", "p99_ms", "accuracy")
SPREAD = range(0, 101, 2)  # percentiles
JUDGED = 150  # answers to a point: its standard error is 0.03 at an accuracy of 0.85
MOST_SECONDS = 600  # of a long load, several seconds are told as one


def summarise(rows: Sequence[Row], deadline_ms: float, nodes: Mapping[int, tuple[str, str]]) -> dict[str, Any]:
    """Return counts, percentiles (ms), shares; the same of each model; ``per_step``; ``spread`` of latency.

    ``nodes``: (MDFP, task) by label; what no label stands for was answered elsewhere, unseen by its asker.
    """
    found = asked.summary(rows, deadline_ms)
    del found["by_model"]
    answered = [r for r in rows if r.outcome == "answered"]
    models, names = [], _names({r.model for r in answered}, nodes)
    for label, count in Counter(r.model for r in answered).most_common():
        mine = [r for r in answered if r.model == label]
        about = asked.summary(mine, deadline_ms)
        node, task = nodes.get(label, ("", ""))
        models.append({
            "label": label, "node": node, "name": names[label], "task": task, "share": round(count / len(answered), 5),
            **{k: about[k] for k in MODEL_KEYS}, "deadline_hits": about["deadline_hits"], "spread_ms": spread(mine),
        })  # fmt: skip
    return found | {"models": models, "spread_ms": spread(answered), **per_step(rows), "right": right(rows)}


def _names(labels: Collection[int], nodes: Mapping[int, tuple[str, str]]) -> dict[int, str]:
    """Return what each model is called: by its MDFP, and numbered where others were there before it."""
    names = {label: f"label {label:#x}" if label else "not told" for label in labels}
    at: Counter[str] = Counter()
    for label, (node, _) in nodes.items():  # in the order of their deployment
        if label in names:
            at[node] += 1
            names[label] = f"{node} ({at[node]})" if at[node] > 1 else node
    return names


def spread(rows: Sequence[Row]) -> list[float]:
    """Return latencies (ms) at every second percentile; empty of nothing."""
    values = [r.latency_ms for r in rows]
    return [round(v, 2) for v in np.percentile(values, list(SPREAD)).tolist()] if values else []


def right(rows: Sequence[Row]) -> dict[str, Any]:
    """Return ``step_s`` and the share of right answers to the queries due in each step (None: none that can be judged);
    a step is as long as it takes for ``JUDGED`` of them, and at least a second.
    """
    judged = [r for r in rows if r.outcome == "answered" and r.right >= 0]
    last_s = max((r.at_s for r in judged), default=0.0)
    step_s = max(1, math.ceil(JUDGED * last_s / len(judged))) if judged else 1
    count = int(last_s / step_s) + 1 if judged else 0
    found: list[list[int]] = [[] for _ in range(count)]
    for row in judged:
        found[int(row.at_s / step_s)].append(row.right)
    return {"step_s": step_s, "share": [round(sum(f) / len(f), 4) if f else None for f in found]}


def per_step(rows: Sequence[Row]) -> dict[str, Any]:
    """Return ``step_s`` and, for each step of that many seconds, queries a second: asked, refused, lost when they were
    due, answered when they were, by model.
    """
    last_s = max((r.at_s + r.latency_ms / 1e3 for r in rows), default=0.0)
    step_s = max(1, math.ceil(last_s / MOST_SECONDS))
    count = int(last_s / step_s) + 1 if rows else 0
    series = {name: [0] * count for name in ("asked", "refused", "lost")}
    models: dict[str, list[int]] = {}
    for row in rows:
        due, done = int(row.at_s / step_s), int((row.at_s + row.latency_ms / 1e3) / step_s)
        series["asked"][due] += 1
        if row.outcome == "answered":
            models.setdefault(str(row.model), [0] * count)[done] += 1
        else:
            series[row.outcome][due] += 1
    rate = {name: [round(n / step_s, 3) for n in counts] for name, counts in series.items()}
    by_model = {label: [round(n / step_s, 3) for n in counts] for label, counts in models.items()}
    return {"step_s": step_s, "per_step": rate | {"answered_by": by_model}}
