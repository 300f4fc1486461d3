"""Where models served while they were asked, and from where: from a run's events, of a finished run as well."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from typing import Any

from controller.oam.state.canvas import Canvas
from controller.oam.state.fold_placement import FOLDS
from experiments.report.load import MOST_SECONDS
from packets.events import Event
from topologies.plan import NetworkPlan

KINDS = (*FOLDS, "load.second")
Record = dict[str, Any]


def placement(events: Sequence[Event], plan: NetworkPlan) -> Record | None:
    """Return a row each MDFP; ``bars``, a replica each; ``outs``; queries a second by K-AS of their asker; None where
    there was no load.

    Seconds are since the load began. ``came``: ``deployed``, ``moved`` or ``copied`` (``came_from`` an MDFP); ``went``:
    ``moved``, ``scaled`` (there were too many), ``replaced``, ``gone`` (its terminal), ``retired``, or '': it stayed.
    """
    told = [e for e in events if e.kind == "load.second"]
    if not told:
        return None
    kas_of = {h.name: h.kas for h in plan.hosts}
    mdfps = sorted((h.kas, h.name) for h in plan.hosts if h.role == "mdfp")
    begin_s, canvas = min(e.t_unix_s for e in told) - 1.0, Canvas()  # a second is told when it is over
    for event in events:
        if event.kind in FOLDS:
            with contextlib.suppress(TypeError, ValueError, KeyError, AttributeError):
                FOLDS[event.kind](canvas, event)
    end_s = round(max(e.t_unix_s for e in events if e.kind in KINDS) - begin_s, 3)

    def since(t_unix_s: float | None) -> float:
        return end_s if t_unix_s is None else round(max(0.0, t_unix_s - begin_s), 3)

    bars = [
        {"node": r["node"], "label": int(r["label"]), "task": r["task"], "from_s": since(r["from_unix_s"]),
         "to_s": since(r["to_unix_s"]), **{k: r[k] for k in ("came", "came_from", "came_why", "went", "went_why")}}
        for r in canvas.sections["placed"].values()
        if since(r["to_unix_s"]) > 0
    ]  # fmt: skip
    outs = [
        {"node": r["node"], "from_s": since(a), "to_s": since(b)}
        for r in canvas.sections["outs"].values()
        for a, b in r["spans"]
        if since(b) > 0
    ]
    rows = [{"kas": kas, "node": name} for kas, name in mdfps]
    return {"end_s": end_s, "rows": rows, "bars": bars, "outs": outs, **_asked(told, kas_of, begin_s)}


def _asked(told: Sequence[Event], kas_of: dict[str, int], begin_s: float) -> Record:
    """Return ``step_s`` and, for each K-AS, the queries a second that its askers put in each step."""
    last_s = max(e.t_unix_s for e in told) - begin_s
    step_s = max(1, math.ceil(last_s / MOST_SECONDS))
    count = int((last_s - 0.5) / step_s) + 1
    asked: dict[int, list[float]] = {}
    for event in told:
        step = int((event.t_unix_s - begin_s - 0.5) / step_s)
        rates = asked.setdefault(kas_of.get(str(event.data.get("node")), 0), [0.0] * count)
        rates[step] += int(event.data.get("asked", 0)) / step_s
    rounded = {str(kas): [round(r, 3) for r in rates] for kas, rates in sorted(asked.items())}
    return {"step_s": step_s, "asked_by_kas": rounded}
