"""Folds of queries: single ones, classes and who answers them, models that are out, and loads second by second."""

from __future__ import annotations

from collections import Counter
from typing import Any

from controller.oam.state.canvas import Canvas, Record
from controller.oam.state.fields import MAX_COUNT, Data, buckets, figures, mapping, number, text, whole
from packets.events import Event
from packets.labels import label_address
from packets.terms import MAX_METRICS

KEPT_S = 180  # seconds of a load that are kept
LATENCY_S = 10  # of which latencies are kept, and shown together
COUNTS = ("asked", "answered", "refused", "lost")
MODEL_FIGURES = ("weight", "kas", "path_ms", "service_ms", "in_flight", "accuracy", "age_s")
NEEDS = ("broad_accuracy", "expert_accuracy", "deadline_ms")
MOST_MODELS = 16
MOST_BUCKETS = 200
MOST_ASKERS = 5000
STEPS = 16  # buckets of latency to a factor of ten, as askers tell it


def query_sent(canvas: Canvas, event: Event) -> None:
    """A query left its owner."""
    key = text(event.data, "id")
    record = canvas.touch("queries", key, id=key, state="sent")
    record.update(node=text(event.data, "node"), task=text(event.data, "task"), sent_unix_s=event.t_unix_s)


def query_answered(canvas: Canvas, event: Event) -> None:
    """A query was answered: by whom, after how many milliseconds, and whether rightly."""
    key, data = text(event.data, "id"), event.data
    record = canvas.touch("queries", key, id=key, sent_unix_s=None)
    record.update(state="answered", answered_unix_s=event.t_unix_s, latency_ms=number(data, "latency_ms"))
    record.update({name: text(data, name) for name in ("answered_by", "answer", "expected")})
    record["node"] = text(data, "node") or record.get("node", "")
    if record["expected"]:
        record["right"] = record["answer"] == record["expected"]


def query_classed(canvas: Canvas, event: Event) -> None:
    """Of which class a query was, and why it was refused, if it was."""
    key, refused = text(event.data, "id"), text(event.data, "refused")
    record = canvas.touch("queries", key, id=key, state="sent", sent_unix_s=None)
    record.update(node=text(event.data, "node"), task=text(event.data, "task"))
    if refused:
        record.update(state="refused", reason=refused)


def class_steered(canvas: Canvas, event: Event) -> None:
    """The queries of a class that come in in a K-AS go to these models from now on, by weight."""
    data, models = event.data, []
    listed = data.get("models")
    for told in listed[:MOST_MODELS] if isinstance(listed, list) else []:
        model: Record = {k: figure for k in MODEL_FIGURES if (figure := number(told, k)) is not None}
        metrics, score = figures(told, "metrics", MAX_METRICS), number(mapping(told, "cats"), "score")
        models.append(model | {"label": str(whole(told, "label")), "metrics": metrics, "score": score})
    record = _class(canvas, data)
    record.update(models=models, unserved="", t_unix_s=event.t_unix_s)
    record["changes"] += 1


def class_unserved(canvas: Canvas, event: Event) -> None:
    """Nobody can answer a class any more."""
    _class(canvas, event.data).update(models=[], unserved=text(event.data, "reason"), t_unix_s=event.t_unix_s)


def _class(canvas: Canvas, data: Data) -> Record:
    kas, label = whole(data, "kas"), whole(data, "label")
    record = canvas.touch("classes", f"{kas}/{label}", changes=0, models=[], unserved="", need={})
    record.update(kas=kas, label=str(label), address=label_address(label), task=text(data, "task"))
    if "need" in data:
        need = mapping(data, "need")
        floors = {k: figure for k in NEEDS if (figure := number(need, k)) is not None}
        record["need"] = floors | {"expert_group": text(need, "expert_group"), "local": need.get("local") is True}
    return record


def model_out(canvas: Canvas, event: Event) -> None:
    """A node that serves models fell silent: nobody is sent there until it is heard of again."""
    _at(canvas, event.data)["out"] = text(event.data, "reason") or "silent"


def model_back(canvas: Canvas, event: Event) -> None:
    """A node that was out is heard of again."""
    _at(canvas, event.data)["out"] = ""


def model_retired(canvas: Canvas, event: Event) -> None:
    """An MDFP serves a model no more: it has moved, or was stopped."""
    record = _at(canvas, event.data)
    labels = {label: task for label, task in record.get("labels", {}).items() if label != text(event.data, "label")}
    record["labels"] = labels
    record["models"] = [task for task in record["models"] if task in labels.values()]


def _at(canvas: Canvas, data: Data) -> Record:
    name = text(data, "node")
    if canvas.get("terminals", name) is None:
        raise ValueError("a model at a terminal that is not there")
    return canvas.touch("terminals", name)


def load_second(canvas: Canvas, event: Event) -> None:
    """What one asker did in a second; seconds of all askers add up."""
    load, data = _load(canvas), event.data
    if load["over"]:
        load.update(over=False, total=dict.fromkeys(COUNTS, 0))
    second = _second(load, int(event.t_unix_s))
    for name in COUNTS:
        count = _count(data, name)
        for sums in (second, load["total"], load["ever"]):
            sums[name] += count
    kas = str((canvas.get("terminals", text(data, "node")) or {}).get("kas", 0))
    second["by_kas"][kas] = second["by_kas"].get(kas, 0) + _count(data, "asked")
    second["buckets"] = _added(second["buckets"], buckets(data, "latency_buckets"))
    load.update(policy=text(data, "policy"), t_unix_s=event.t_unix_s)
    if len(load["under_way"]) < MOST_ASKERS:
        load["under_way"][text(data, "node")] = _count(data, "under_way")
    load |= _latency(load["seconds"])


def _count(data: Data, name: str) -> int:
    return min(MAX_COUNT, max(0, whole(data, name)))


def _added(held: dict[str, int], told: dict[float, int]) -> dict[str, int]:
    """Return counts by upper bound (ms) with more of them, least bound first."""
    counts = Counter({float(bound): count for bound, count in held.items()})
    counts.update(told)
    return {f"{bound:.6g}": count for bound, count in sorted(counts.items())[:MOST_BUCKETS]}


def load_over(canvas: Canvas, event: Event) -> None:
    """One asker is done."""
    load = _load(canvas)
    load["under_way"].pop(text(event.data, "node"), None)
    load["over"] = not load["under_way"]


def _load(canvas: Canvas) -> Record:
    return canvas.touch(
        "load", "now", seconds=[], total=dict.fromkeys(COUNTS, 0), ever=dict.fromkeys(COUNTS, 0), under_way={},
        policy="", over=False, p50_ms=None, p95_ms=None, histogram=[],
    )  # fmt: skip


def _second(load: Record, t: int) -> Record:
    """Return a second's record; seconds stay in order, and as many are kept as are shown."""
    seconds: list[Record] = load["seconds"]
    for known in reversed(seconds):
        if known["t"] == t:
            return known
    made: Record = {"t": t, **dict.fromkeys(COUNTS, 0), "by_kas": {}, "buckets": {}}
    seconds.append(made)
    seconds.sort(key=lambda second: int(second["t"]))
    del seconds[: max(0, len(seconds) - KEPT_S)]
    for old in seconds[:-LATENCY_S]:
        old["buckets"] = {}
    return made


def _latency(seconds: list[Record]) -> dict[str, Any]:
    """Return percentiles (ms) and counts by upper bound of the last seconds."""
    counts: Counter[float] = Counter()
    for second in seconds[-LATENCY_S:]:
        counts.update({float(le): n for le, n in second["buckets"].items()})
    histogram = sorted(counts.items())
    found = {f"p{p}_ms": _percentile(histogram, p / 100) for p in (50, 95)}
    return {**found, "histogram": [list(pair) for pair in histogram]}


def _percentile(histogram: list[tuple[float, int]], share: float) -> float | None:
    wanted, seen = share * sum(n for _, n in histogram), 0
    for bound, count in histogram:
        seen += count
        if seen >= wanted and count > 0:
            return round(bound * 10 ** ((wanted - seen) / count / STEPS), 2)
    return None


def noted(canvas: Canvas, event: Event) -> None:
    """What is folded from other events already."""


FOLDS = {
    "query.sent": query_sent,
    "query.answered": query_answered,
    "query.classed": query_classed,
    "query.steered": class_steered,
    "query.unserved": class_unserved,
    "model.out": model_out,
    "model.back": model_back,
    "model.retired": model_retired,
    "load.second": load_second,
    "load.over": load_over,
    "load.progress": noted,
    "model.moved": noted,
    "model.copied": noted,
    "model.scaled": noted,
    "model.remeasured": noted,
    "model.drifted": noted,
    "model.recalibrating": noted,
    "model.redeployed": noted,
    "way.deployed": noted,
    "threshold.learned": noted,
    "fusion.learned": noted,
}
