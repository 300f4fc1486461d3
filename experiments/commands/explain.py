"""``daitn explain``: why a job went where it went, decision by decision, from the events of a run (live or finished).

For each decision: the attributes it rested on with their age at that moment, the alternatives with their predicted
cost, what was expected, and what came of it.  Home DCCs know handles, each K-AS knows its own nodes; only who runs the
testbed sees both, so only here are they put together.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table

from experiments.commands.words import shown
from experiments.errors import ExperimentError
from packets.events import Event, decode_event

Record = dict[str, Any]
JOB_KINDS = ("job.submitted", "job.assessed", "job.decided", "object.steered", "object.released", "visit.trained",
             "visit.verified", "job.finished", "trust.changed", "at.decided",
             "holder.decided", "engine.borrowed", "terminal.revoked", "terminal.restored")  # fmt: skip


def read_events(folder: Path, kinds: Sequence[str] = JOB_KINDS) -> list[Event]:
    """Return the events of some kinds of a run's folder, those of jobs if none are named; ``ExperimentError``."""
    file = folder / "events.jsonl"
    wanted = tuple(f'"kind":"{kind}"'.encode() for kind in kinds)
    try:
        lines = [line for line in file.read_bytes().splitlines() if any(w in line for w in wanted)]
    except OSError as error:
        raise ExperimentError(f"{file}: {error.strerror}; name the folder of a run with --folder") from None
    events = []
    for line in lines:
        try:
            events.append(decode_event(line))
        except msgspec.DecodeError:
            continue  # the last line of a run that is still writing
    return events


def jobs_of(events: list[Event]) -> list[int]:
    """Return the jobs, in the order of their submission."""
    return [int(e.data["object_id"]) for e in events if e.kind == "job.submitted"]


def choose_job(events: list[Event], wanted: str | None) -> int:
    """Return the job that is meant: by number (decimal or 0x...), the beginning of either, or the last submitted."""
    known = jobs_of(events)
    if not known:
        raise ExperimentError("no job was submitted in this run; submit one with `daitn submit`")
    if wanted is None:
        return known[-1]
    text = wanted.lower().removeprefix("0x")
    found = [k for k in known if f"{k:x}".startswith(text) or str(k).startswith(wanted)]
    if len(found) != 1:
        listed = ", ".join(f"{k:#x}" for k in known)
        raise ExperimentError(f"{'no' if not found else 'more than one'} job is called {wanted}; there are: {listed}")
    return found[0]


def explain(events: list[Event], object_id: int, places: Mapping[tuple[int, str], str] | None = None) -> Record:
    """Return all that is known of a job's decisions, as plain values.

    ``places``: {(K-AS, handle): place} from the K-AS's own cuts, so that alternatives have names, too.
    """
    mine = [e for e in events if e.data.get("object_id") == object_id]
    first = next((e.data for e in mine if e.kind == "job.submitted"), {})
    verdict = next((e for e in mine if e.kind == "job.assessed"), None)
    assessed = verdict.data if verdict else {}
    finished = next((e.data for e in mine if e.kind == "job.finished"), None)
    decisions = [_decision(e, mine) | {"hpo": _lent("hpo", e, events)} for e in mine if e.kind == "job.decided"]
    names = dict(places or {}) | {(d["kas"], d["handle"]): d["place"] for d in decisions if d["place"]}
    for decision in decisions:
        for other in decision["alternatives"]:
            other["place"] = names.get((other["kas"], other["handle"]), "")
    return {
        "job": f"{object_id:#x}",
        "owner": first.get("owner", ""),
        "spec": first.get("spec", {}),
        "admission": {k: assessed.get(k) for k in ("admitted", "reasons", "predicted", "nearest", "by")},
        "algorithm": assessed.get("algorithm"),
        "tag": _lent("tag", verdict, events) if verdict else None,
        "decisions": decisions,
        "revoked": _revoked(events, mine),
        "finished": finished,
    }


def _revoked(events: list[Event], mine: list[Event]) -> list[Record]:
    """Return who was revoked while the job was under way, or before (and not let in again)."""
    last, out = max((e.t_unix_s for e in mine), default=0.0), dict[str, Record]()
    for event in events:
        if event.t_unix_s <= last and event.kind in ("terminal.revoked", "terminal.restored"):
            out.pop(event.data["name"], None)
            if event.kind == "terminal.revoked":
                out[event.data["name"]] = {k: event.data.get(k) for k in ("name", "kas", "reason")}
    return list(out.values())


def _lent(engine: str, told: Event, events: list[Event]) -> Record | None:
    """Return who lent the engine for what was told (None: nobody). A loan names no job: of the control centre that
    told it, it is the last one since it told the like.
    """
    lent: Record | None = None
    for event in events:
        if event is told:
            break
        if event.source != told.source:
            continue
        if event.kind == told.kind:
            lent = None
        elif event.kind == "engine.borrowed" and event.data["engine"] == engine and event.data["lender"]:
            loan = event.data
            lent = {"kas": loan["lender"], "ms": loan["took_ms"], "own": loan["own"], "before": loan["before"]}
    return lent


def _decision(event: Event, mine: list[Event]) -> Record:
    data = event.data
    visit, action = data["visit"], data["action"]
    steered = [e.data for e in mine if e.kind == "object.steered" and e.data["visit"] == visit and e.data["node"]]
    steered = [s for s in steered if s["purpose"] == action]
    there = steered[-1] if steered else {}
    waited = [e.data["waited_ms"] for e in mine if e.kind == "object.released" and e.data["visit"] == visit]
    return {
        "visit": visit,
        "t_unix_s": event.t_unix_s,
        "action": action,
        "kas": data["kas"],
        "handle": data["handle"],
        "place": _place(there) or data.get("to", ""),
        "inside": _inside(data["handle"], there, mine),
        "reason": data["reason"],
        "by": _by(data, mine),
        "cost_s": data.get("cost_s"),
        "cost_bytes": data.get("cost_bytes"),
        "expected": data.get("expected", {}),
        "offers": data.get("offers", 0),
        "booked": data.get("booked", []),
        "way_share": data.get("way_share", {}),
        "attributes": [
            {"attribute": key, "value": about["value"], "age_s": about["age_s"]}
            for key, about in (there.get("basis") or {}).items()
        ],
        "alternatives": [dict(a) if isinstance(a, dict) else _old(a) for a in data.get("alternatives", [])],
        "waited_ms": waited[0] if waited else None,
        "outcome": _outcome(visit, mine),
    }


def _by(decided: Record, mine: list[Event]) -> Record | None:
    """Return who decided, where it was not the job's own K-AS; a terminal has a name inside its own K-AS only."""
    by = decided.get("by")
    if not by or not by.get("terminal"):
        return by
    said = [e.data for e in mine if e.kind == "holder.decided" and e.data["visit"] == decided["visit"]]
    said = [d for d in said if d["handle"] == decided["handle"]]
    return {**by, "node": said[-1]["node"] if said else ""}


def _old(pair: Any) -> Record:
    """An alternative as runs of earlier versions wrote it."""
    return {"handle": pair[0], "score": pair[1], "kas": 0}


def _place(steered: Record) -> str:
    if not steered:
        return ""
    node, data_node = steered["node"], steered.get("data_node", "")
    return node if data_node in ("", node) else f"{node} with data of {data_node}"


def _inside(handle: str, steered: Record, mine: list[Event]) -> Record | None:
    """Return what an abstract terminal's own control centre decided of a stop (None: it is in none)."""
    before = mine[: next((i for i, e in enumerate(mine) if e.data is steered), 0)]
    said = [e.data for e in before if e.kind == "at.decided" and e.data["handle"] == handle]
    found = [d for d in said if d["facility"] == steered["node"]]
    return {k: found[-1][k] for k in ("at", "offers", "reason")} if found else None


def _outcome(visit: int, mine: list[Event]) -> Record:
    found: Record = {}
    for event in mine:
        if event.data.get("visit") != visit:
            continue
        keys = {
            "visit.trained": ("samples", "epochs", "loss", "seconds"),
            "visit.verified": ("broad", "expert", "accepted", "share", "reason"),
        }
        found |= {k: event.data[k] for k in keys.get(event.kind, ()) if k in event.data}
    return found


def say(told: Record, console: Console) -> None:
    """Print an explanation as tables a person can read."""
    spec, admission = told["spec"], told["admission"]
    goal = f"broad {spec.get('broad_accuracy', 0):.2f}"
    if spec.get("expert_group"):
        goal += f", {shown(spec['expert_group'])} {spec.get('expert_accuracy', 0):.2f}"
    verdict = ("admitted" if admission["admitted"] else "rejected") + borrowed(admission["by"], "T-FAM")
    verdict += "" if admission["admitted"] else f": {shown('; '.join(admission['reasons'] or []))}"
    console.print(f"[bold]job {told['job']}[/] of {told['owner']} ({goal}): {verdict}", highlight=False, soft_wrap=True)
    expert = spec.get("expert_group") or ""
    if admission["predicted"]:
        told_of = _predicted(admission["predicted"], expert)
        console.print(f"  T-FAM predicted {shown(told_of)}", highlight=False, soft_wrap=True)
    if told["algorithm"]:
        _say_algorithm(told["algorithm"], console)
    if by := borrowed(told["tag"], "TAG"):
        console.print(f"  which way to train was said{by}", highlight=False, soft_wrap=True)
    for decision in told["decisions"]:
        _say_decision(decision, console, expert)
    for out in told["revoked"]:
        why = f": {shown(out['reason'])}" if out["reason"] else ""
        console.print(f"{shown(out['name'])} of K-AS {out['kas']} was revoked{why}", highlight=False, soft_wrap=True)
    if told["finished"]:
        end = told["finished"]
        known = f"broad {end['broad']:.3f}" + (f", {shown(expert)} {end['expert']:.3f}" if expert else "")
        after = f"after {end['visits']} visits; {shown(end['reason'])}"
        console.print(f"[bold]{end['state']}[/]: {known} {after}", highlight=False, soft_wrap=True)


def borrowed(by: Record | None, engine: str) -> str:
    """Say whose engine decided, where it was not of the job's own K-AS ('': it was)."""
    if not by:
        return ""
    own = " (one of its own)" if by["own"] else ""
    asked = f"; asked before, {shown('; '.join(by['before']))}" if by["before"] else ""
    if who := by.get("terminal"):
        name = f"{shown(by['node'])}, which held it" if by.get("node") else "the terminal that held it"
        name = name if who == "holder" else "another terminal"
        return f" by {name}, of K-AS {by['kas']}, after {by['ms']:.0f} ms{asked}"
    return f" by K-AS {by['kas']}'s {engine}{own}, borrowed, after {by['ms']:.0f} ms{asked}"


def _say_algorithm(told: Record, console: Console) -> None:
    """Say how the job trains, what TAG made of it, and every method's prospect."""
    by = "as TAG chose" if told["asked"] == "auto" else f"as its owner wants; TAG would choose {told['chosen']}"
    console.print(f"  trains [bold]{told['method']}[/], {by}: {shown(told['reason'])}", highlight=False, soft_wrap=True)
    if not told["prospects"]:
        return
    table = Table("method", "accuracy", "rounds", "a round", "bytes", box=None, padding=(0, 2, 0, 2))
    for p in told["prospects"]:
        figures = f"{p['accuracy']:.3f}", str(p["rounds"]), f"{p['round_s']:.2f} s", _mb(p["bytes"])
        table.add_row(p["method"], *figures)
    console.print(table)


def _say_decision(decision: Record, console: Console, expert: str) -> None:
    where = decision["place"] or decision["handle"]
    cost = f", predicted {decision['cost_s']:.2f} s, {_mb(decision['cost_bytes'])}" if decision["cost_s"] else ""
    console.print(
        f"\n[bold]visit {decision['visit']}: {decision['action']}[/] at {where} (K-AS {decision['kas']}){cost}",
        highlight=False,
    )
    by = borrowed(decision["by"], "MTRCE")
    console.print(f"  because {shown(decision['reason'])}{by and f' (decided{by})'}", highlight=False, soft_wrap=True)
    if by := borrowed(decision["hpo"], "HPO"):
        console.print(f"  hyper-parameters{by}", highlight=False, soft_wrap=True)
    if decision["waited_ms"] is not None:
        console.print(f"  decided and its way laid in {decision['waited_ms']:.1f} ms", highlight=False)
    if inside := decision["inside"]:
        told = f"  in {inside['at']}, of {inside['offers']} on offer there: {shown(inside['reason'])}"
        console.print(told, highlight=False, soft_wrap=True)
    if others := _others(decision):
        console.print(f"  other jobs: {others}", highlight=False, soft_wrap=True)
    if decision["attributes"]:
        console.print(_attribute_table(decision["attributes"]))
    if decision["alternatives"]:
        console.print(_alternative_table(decision["alternatives"]))
    if outcome := {k: v for k, v in decision["outcome"].items() if k != "expert" or expert}:
        console.print(f"  came of it: {shown(_figures(outcome))}", highlight=False, soft_wrap=True)


def _others(decision: Record) -> str:
    """Say what other jobs had taken when a stop was decided."""
    taken = [f"a place in K-AS {b.get('kas', '?')} taken for {b['end_s']:.1f} s more" for b in decision["booked"]]
    narrow = [f"{share:.0%} left of the way into K-AS {kas}" for kas, share in decision["way_share"].items()]
    return "; ".join([*taken, *narrow])


def _attribute_table(attributes: list[Record]) -> Table:
    table = Table("rested on", "value", "age", box=None, padding=(0, 2, 0, 2))
    for held in attributes:
        table.add_row(shown(held["attribute"]), shown(_short(held["value"])), f"{held['age_s']:.2f} s")
    return table


def _alternative_table(others: list[Record]) -> Table:
    table = Table(
        "instead of", "K-AS", "score", "predicted cost", "samples", "trust", "age", box=None, padding=(0, 2, 0, 2)
    )
    for other in others:
        cost = f"{other['cost_s']:.2f} s, {_mb(other['cost_bytes'])}" if "cost_s" in other else ""
        age = f"{other['age_s']:.2f} s" if "age_s" in other else ""
        score = f"{other['score']:.3f}" if "score" in other else ""
        about = (str(other.get("samples", "")), f"{other['trust']:.2f}" if "trust" in other else "")
        table.add_row(other.get("place") or other["handle"], str(other.get("kas", "")), score, cost, *about, age)
    return table


def _mb(size: Any) -> str:
    return f"{(size or 0) / 1e6:.2f} MB"


def _predicted(figures: Record, expert: str) -> str:
    """Return T-FAM's forecast with units, each figure with the range it may well come out in."""
    units = {"visits": " visits", "seconds": " s", "bytes": " MB"}
    said = []
    for name in (n for n in figures if not n.endswith(("_low", "_high")) and (n != "expert" or expert)):
        scale, form = 1e6 if name == "bytes" else 1, ".1f" if name in units else ".2f"
        low, high = figures.get(f"{name}_low"), figures.get(f"{name}_high")
        value = _short(figures[name]) if name == "visits" else f"{figures[name] / scale:{form}}"
        text = value + units[name] if name in units else f"{expert if name == 'expert' else name} {value}"
        between = "" if low is None or high is None else f" ({low / scale:{form}} to {high / scale:{form}})"
        said.append(text + between)
    return ", ".join(said)


def _short(value: Any) -> str:
    if isinstance(value, dict):
        top = sorted(value.items(), key=lambda item: -item[1])
        text = ", ".join(f"{group} {share:.2f}" for group, share in top[:3] if share >= 0.005)
        return text + (f", {len(top) - 3} more" if len(top) > 3 else "")
    return f"{value:.3f}".rstrip("0").rstrip(".") if isinstance(value, float) else json.dumps(value)


def _figures(values: Record) -> str:
    return ", ".join(f"{k} {_short(v) if not isinstance(v, str) else v}" for k, v in values.items())
