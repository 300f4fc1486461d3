"""``daitn explain QUERY``: why a query was answered where it was, from the events of a run (live or finished).

Its class names what was wanted; its asker's K-AS had shared that class among models by what it knew of each.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from experiments.commands.explain import read_events
from experiments.commands.words import shown
from experiments.errors import ExperimentError
from packets.events import Event
from packets.labels import label_address, object_label

Record = dict[str, Any]
KINDS = ("network.up", "model.deployed", "model.out", "model.back", "query.sent", "query.classed", "query.answered",
         "query.steered", "query.unserved")  # fmt: skip
COLUMNS = ("could answer", "K-AS", "share", "weight", "way ms", "service ms", "in flight", "expected ms", "accuracy",
           "age")  # fmt: skip
LAST = "last"
NAMED = re.compile(r"[^/]*[a-z][^/]*-\d+")
LATER_S = 0.5  # two processes tell: what was decided before the answer may be told a little after it


def is_query(word: str) -> bool:
    """Tell a query's name from the beginning of a job's number."""
    return word == LAST or NAMED.fullmatch(word) is not None


def read(folder: Path) -> list[Event]:
    """Return what a run's events say of queries; ``ExperimentError`` when there are none to read."""
    return read_events(folder, KINDS)


def explain(events: Sequence[Event], wanted: str) -> Record:
    """Return all that is known of a query, as plain values; ``ExperimentError`` when none is called so."""
    sent = _choose(events, wanted)
    mine = [e for e in events if e.data.get("id") == sent.data["id"]]
    classed, answer = _of(mine, "query.classed"), next((e for e in mine if e.kind == "query.answered"), None)
    asker, task = str(sent.data["node"]), str(sent.data["task"])
    kas, label = _kas(events, asker), classed.get("label")
    until_s = (answer.t_unix_s if answer else mine[-1].t_unix_s) + LATER_S
    before = [e for e in events if e.t_unix_s <= until_s]
    steered = _decided(before, task, kas, label)
    taken = steered.data if steered else {}
    labels = labels_of(before)
    return {
        "query": sent.data["id"], "asker": asker, "kas": kas, "task": task,
        "need": taken.get("need") or classed.get("need") or {}, "label": taken.get("label", label),
        "group": classed.get("group", ""), "refused": classed.get("refused") or _unserved(before, task, kas),
        "decided_s_before": round(sent.t_unix_s - steered.t_unix_s, 3) if steered else None,
        "took_ms": taken.get("took_ms") if taken.get("first") else None,
        "models": _models(taken, labels), "out": _out(before),
        "answer": answer.data if answer else None,
    }  # fmt: skip


def _choose(events: Sequence[Event], wanted: str) -> Event:
    sent = [e for e in events if e.kind == "query.sent"]
    if not sent:
        raise ExperimentError("no query was put in this run; put one with `daitn query`")
    before_loads = {e.data["id"] for e in events if e.kind == "query.classed" and e.data.get("of_load")}
    asked = [e for e in sent if e.data["id"] not in before_loads] or sent
    found = asked[-1] if wanted == LAST else next((e for e in reversed(sent) if e.data["id"] == wanted), None)
    if found is None:
        known = ", ".join(str(e.data["id"]) for e in sent[-8:])
        raise ExperimentError(f"no query is called {wanted}; there are: {known}")
    return found


def _of(mine: Sequence[Event], kind: str) -> Record:
    return next((e.data for e in mine if e.kind == kind), {})


def _kas(events: Sequence[Event], name: str) -> int:
    hosts: list[Record] = next((e.data["plan"]["hosts"] for e in events if e.kind == "network.up"), [])
    return next((int(h["kas"]) for h in hosts if h["name"] == name), 0)


def _decided(before: Sequence[Event], task: str, kas: int, label: int | None) -> Event | None:
    """Return the decision that held when a query was answered: of its class where that is known, else of its task."""
    mine = [e for e in before if e.kind == "query.steered" and (e.data["kas"], e.data["task"]) == (kas, task)]
    return next((e for e in reversed(mine) if label is None or e.data["label"] == label), None)


def labels_of(events: Sequence[Event]) -> dict[int, str]:
    """Return the MDFP of each deployed model, by its label."""
    deployed = [e.data for e in events if e.kind == "model.deployed"]
    return {object_label(int(d["object_id"])): str(d["node"]) for d in deployed}


def _models(taken: Record, labels: dict[int, str]) -> list[Record]:
    models = [dict(m) | {"node": labels.get(m["label"], "")} for m in taken.get("models", [])]
    total = sum(m["weight"] for m in models) or 1
    return [m | {"share": round(m["weight"] / total, 4), "expected_ms": _expected_ms(m)} for m in models]


def _expected_ms(model: Record) -> float:
    """There and back, and all that it holds before this one."""
    waiting_ms = (int(model["in_flight"]) + 1) * float(model["service_ms"])
    return round(2 * float(model["path_ms"]) + waiting_ms, 3)


def _out(before: Sequence[Event]) -> list[Record]:
    """Return the models that were out, with why."""
    out: dict[str, Record] = {}
    for event in before:
        if event.kind == "model.out":
            out[str(event.data["node"])] = event.data
        elif event.kind == "model.back":
            out.pop(str(event.data["node"]), None)
    return list(out.values())


def _unserved(before: Sequence[Event], task: str, kas: int) -> str:
    """Return why nobody can answer such queries, where that is the last that was said of them."""
    said = [e for e in before if e.kind in ("query.unserved", "query.steered")]
    mine = [e for e in said if (e.data["kas"], e.data["task"]) == (kas, task)]
    return str(mine[-1].data["reason"]) if mine and mine[-1].kind == "query.unserved" else ""


# --- for people ------------------------------------------------------------------------------------------------------


def say(told: Record, console: Console) -> None:
    """Print an explanation as a person can read it."""
    where = f" (K-AS {told['kas']})" if told["kas"] else ""
    console.print(f"[bold]query {shown(told['query'])}[/] of {told['asker']}{where}", highlight=False)
    label = f"; label {label_address(told['label'])}" if told["label"] else ""
    console.print(f"  class: {shown(told['task'])}, {shown(need_in_words(told['need']))}{label}", highlight=False)
    if told["models"]:
        console.print(f"  {_decision(told)}", highlight=False, soft_wrap=True)
        console.print(_table(told))
    for model in told["out"]:
        console.print(f"  out: {model['node']}, {shown(model['reason'])}", highlight=False, soft_wrap=True)
    console.print(f"  {_end(told)}", highlight=False, soft_wrap=True)


def need_in_words(need: Record) -> str:
    """Return what a class needs, in words."""
    words = []
    if need.get("broad_accuracy"):
        words.append(f"accuracy from {need['broad_accuracy']:g}")
    if need.get("expert_group"):
        words.append(f"{need['expert_group']} from {need.get('expert_accuracy', 0):g}")
    if need.get("deadline_ms"):
        words.append(f"within {need['deadline_ms']} ms")
    if need.get("local"):
        words.append("not out of its K-AS")
    return ", ".join(words) or "no needs"


def _decision(told: Record) -> str:
    since = told["decided_s_before"]
    when = f"decided {since:.1f} s before" if since is not None and since >= 0 else "decided for it"
    took = f" (the first of its class here, {told['took_ms']:.1f} ms)" if told["took_ms"] else ""
    models = told["models"]
    if len(models) == 1:
        return f"{when}{took}: one model could answer"
    return f"{when}{took}: {len(models)} models could answer, shared so that the mean time is least (QIRCE)"


def _table(told: Record) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 2))
    more = sorted({name for m in told["models"] for name in m.get("metrics", {})})
    more = ["score", *more] if any("cats" in m for m in told["models"]) else more
    for number, column in enumerate([*COLUMNS, *more]):
        table.add_column(column, justify="left" if not number else "right")
    by = (told["answer"] or {}).get("answered_by")
    for m in told["models"]:
        name = f"[bold]{m['node']}[/]" if by and m["node"] == by else shown(m["node"] or m["model"])
        table.add_row(
            name, str(m["kas"]), f"{m['share']:.0%}", str(m["weight"]), f"{m['path_ms']:.2f}",
            _measured(m["service_ms"]), str(m["in_flight"]), f"{m['expected_ms']:.1f}", f"{m['accuracy']:.3f}",
            f"{m['age_s']:.2f} s", *(_figure(m.get("metrics", {}) | m.get("cats", {}), n) for n in more),
        )  # fmt: skip
    return table


def _figure(known: Record, name: str) -> str:
    return f"{known[name]:.4g}" if name in known else "–"


def _measured(service_ms: float) -> str:
    """What a query takes a model; one that was not asked yet has not measured it."""
    return f"{service_ms:.2f}" if service_ms else "–"


def _end(told: Record) -> str:
    answer = told["answer"]
    if answer is None:
        return f"refused: {shown(told['refused'])}" if told["refused"] else "no answer"
    if not answer["answer"]:
        return f"taken in {answer['latency_ms']:.1f} ms; the answer went to {shown(answer['answered_by'])}"
    right = "" if not answer["expected"] else ", right" if answer["answer"] == answer["expected"] else ", wrong"
    share = next((m["share"] for m in told["models"] if m["node"] == answer["answered_by"]), None)
    drawn = f", which had {share:.0%} of the class" if share is not None and len(told["models"]) > 1 else ""
    memory = ", from memory" if answer.get("cached") else ""
    by = f"{answer['answered_by']}{memory}{drawn}, in {answer['latency_ms']:.1f} ms"
    return f"answered {shown(answer['answer'])}{right}, by {by}"
