"""The report of a run: ``report.json`` for programs, ``report.html`` with plots for people. All of it was measured.

Bytes are counted twice by different means: in the capture (AI frames, by original length) and by the switches' port
counters (everything); both stand in the report with their ratio. Without a capture the counters stand for both.
"""

from __future__ import annotations

import json
import statistics
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from experiments.report.curve import curve, reached
from experiments.report.placement import placement
from experiments.scenarios.kinds import all_kinds
from experiments.scenarios.scenario import Scenario
from experiments.testbed.capture import bytes_by_link
from experiments.testbed.folder import RunFolder
from packets.events import Event
from packets.messages import JobSpec
from packets.security.reasons import WORDS
from topologies.plan import NetworkPlan


@dataclass
class Outcome:
    """What one seed of a run came to; ``first_event``/``last_event`` cut its part out of the run's events."""

    seed: int
    first_event: int
    last_event: int | None = None
    object_id: int = 0
    spec: JobSpec | None = None
    assessments: list[dict[str, Any]] = field(default_factory=list)
    query: dict[str, Any] | None = None
    queries: dict[str, Any] | None = None
    ways: dict[str, Any] = field(default_factory=dict)
    pooled: dict[str, Any] | None = None
    train_bytes: int | None = None
    train_s: float | None = None


def summarise(outcome: Outcome, events: list[Event], kas_of: dict[str, int]) -> dict[str, Any]:
    """Return one seed's part of the report, from its events."""
    mine = [e for e in events[outcome.first_event : outcome.last_event] if e.data.get("object_id") == outcome.object_id]
    finished = next((e.data for e in reversed(mine) if e.kind == "job.finished"), {})
    accuracy = {"broad": finished.get("broad"), "expert": finished.get("expert")}
    return {
        "seed": outcome.seed,
        "state": finished.get("state", "rejected" if outcome.assessments and not outcome.object_id else "unknown"),
        "reason": finished.get("reason", ""),
        "targets_met": _met(outcome.spec, accuracy),
        "targets": outcome.spec
        and {"broad": outcome.spec.broad_accuracy, "expert": outcome.spec.expert_accuracy or None},
        "expert_group": outcome.spec and outcome.spec.expert_group,
        "accuracy": accuracy,
        "route": route(mine),
        "journey": journey(mine, kas_of),
        "resteers": resteers(mine),
        "time_lost_s": round(sum(e.data["lost_s"] for e in mine if e.kind == "job.recovered"), 3),
        "assessments": _assessments(outcome, events[outcome.first_event : outcome.last_event]),
        "query": outcome.query,
        "queries": outcome.queries,
        "ways": outcome.ways,
        "pooled": outcome.pooled,
        "train_bytes": outcome.train_bytes,
        "train_s": outcome.train_s,
        "reached": reached(events[outcome.first_event : outcome.last_event], outcome.object_id),
        "curve": curve(events[outcome.first_event : outcome.last_event], outcome.object_id),
    }


def _assessments(outcome: Outcome, events: list[Event]) -> list[dict[str, Any]]:
    """Return every verdict, with whose T-FAM it is (None: the home's own); a rejected job has no identity to know."""
    told = [e.data for e in events if e.kind == "job.assessed"]

    def of(verdict: dict[str, Any]) -> list[Any]:
        keys = ("object_id",) if verdict.get("object_id") else ("admitted", "predicted", "nearest")
        return [t.get("by") for t in told if all(t.get(k) == verdict.get(k) for k in keys)]

    return [verdict | {"by": (of(verdict) or [None])[-1]} for verdict in outcome.assessments]


def _met(spec: JobSpec | None, accuracy: dict[str, Any]) -> bool:
    if spec is None or accuracy["broad"] is None:
        return False
    expert = accuracy["expert"] if spec.expert_group else 1.0
    return bool(accuracy["broad"] >= spec.broad_accuracy and (expert or 0.0) >= spec.expert_accuracy)


def route(events: list[Event]) -> list[dict[str, Any]]:
    """Return the training visits in order, each with the accuracy that the next MPVU measured.

    ``visit`` counts trainings from 1; ``stop`` is the visit number in the AI header, which counts every rendezvous.
    """
    visits: list[dict[str, Any]] = []
    for event in events:
        data = event.data
        if event.kind == "visit.trained":
            place = {"visit": len(visits) + 1, "stop": data["visit"], "node": data["data_node"]}
            keys = ("data_node", "kas", "facility", "samples", "epochs", "loss", "seconds")
            visits.append({**place, **{k: data.get(k) for k in keys}, "accuracy": None, "accepted": None})
        elif event.kind == "visit.verified":
            for visit in visits:
                if visit["accuracy"] is None:
                    visit["accuracy"] = {
                        "broad": data["broad"],
                        "expert": data.get("expert"),
                        "per_group": data.get("per_group"),
                    }
                    visit |= {"accepted": data["accepted"], "verified_by": data["node"], "gate": data.get("reason", "")}
        elif event.kind == "job.recovered":
            visits = [v for v in visits if v["stop"] < data["visit"]]
    for visit in visits:
        decided = [e.data for e in events if e.kind == "job.decided" and e.data.get("visit") == visit["stop"]]
        visit["reason"] = decided[-1].get("reason", "") if decided else ""
    return visits


def resteers(events: list[Event]) -> list[dict[str, Any]]:
    """Return each time the model was led elsewhere, or had to go on from an earlier state, with why and what it cost.

    No control centre knows the terminals of another K-AS; here, where all events meet, they are filled in.
    """
    found, at = list[dict[str, Any]](), dict[int, list[str]]()
    for event in events:
        data = event.data
        nodes = at.setdefault(data.get("visit", -1), [])
        if event.kind == "object.steered" and data.get("node"):
            nodes.append(data["node"])
        elif event.kind == "object.resteered":
            before, now = (["", "", *nodes])[-2:]
            row = {k: data.get(k) for k in ("visit", "reason", "holder", "alive", "from_kas", "to_kas", "resteer_ms")}
            found.append(row | {"from_node": data.get("from_node") or before, "to_node": data.get("to_node") or now})
        elif event.kind == "job.recovered" and found and found[-1]["visit"] == data["visit"]:
            found[-1] |= {"lost_s": data["lost_s"], "at_work": data["action"]}
    return found


def journey(events: list[Event], kas_of: dict[str, int]) -> list[dict[str, Any]]:
    """Return every stop of the model in order: training visits, MPVUs, and home."""
    keys = ("visit", "node", "sender", "bytes", "seconds", "goodput_mbps", "retransmissions")
    stops = [{k: e.data.get(k) for k in keys} for e in events if e.kind == "object.arrived"]
    return [stop | {"kas": kas_of.get(str(stop["node"]))} for stop in stops]


def write_report(
    folder: RunFolder,
    scenario: Scenario,
    *,
    method: str,
    plan: NetworkPlan,
    events: list[Event],
    outcomes: list[Outcome],
    links_by_interface: dict[str, str],
    counted_bytes: dict[str, int],
    phases_s: dict[str, float],
    started_s: float,
    peak_memory_mib: float,
) -> dict[str, Any]:
    """Write ``report.json`` and ``report.html``; return the former."""
    kas_of = {h.name: h.kas for h in plan.hosts}
    seeds = [
        summarise(o, events, kas_of) | {"placement": placement(events[o.first_event : o.last_event], plan)}
        for o in outcomes
    ]
    has_capture = folder.capture.exists()
    captured = bytes_by_link(folder.capture, links_by_interface) if has_capture else counted_bytes
    links = [
        {"link": link.name, "rate_mbps": link.rate_mbps, "delay_ms": link.delay_ms,
         "bytes": captured.get(link.name, 0), "port_counter_bytes": counted_bytes.get(link.name, 0)}
        for link in plan.links
    ]  # fmt: skip
    on_wire, by_ports = sum(captured.values()), sum(counted_bytes.values())
    report: dict[str, Any] = {
        "version": 1,
        "scenario": scenario.name,
        "method": method,
        "kinds": all_kinds(scenario.kas, plan),
        **_headline(seeds, outcomes[0].spec),
        "bytes_on_wire": on_wire,
        "port_counter_bytes": by_ports,
        "port_counter_ratio": round(by_ports / on_wire, 4) if on_wire and has_capture else None,
        "links": links,
        "calibration": [e.data for e in events if e.kind == "link.calibrated"],
        "warnings": _warnings(events),
        "refused": refused(events),
        "peak_memory_mib": round(peak_memory_mib, 1),
        "phases_s": {k: round(v, 3) for k, v in phases_s.items()},
        "seeds": seeds,
    }
    report["wall_s"] = round(time.monotonic() - started_s, 3)
    from experiments.report.page import (
        render,  # brings the plotting library along: seconds that only a finished run needs
    )

    folder.report_html.write_text(render(report, plan))
    report["wall_s"] = round(time.monotonic() - started_s, 3)
    folder.report_json.write_text(json.dumps(report, indent=2) + "\n")
    return report


def _headline(seeds: list[dict[str, Any]], spec: JobSpec | None) -> dict[str, Any]:
    """Return the top of the report: the one seed's figures, or means over several and whether they meet the targets."""
    first = seeds[0]
    if len(seeds) == 1:
        return {k: first[k] for k in first if k not in ("pooled", "curve", "reached")} | {
            "pooled_accuracy": _pooled(first)
        }
    accuracy = {k: _mean([s["accuracy"][k] for s in seeds]) for k in ("broad", "expert")}
    return {
        "seed": first["seed"],
        "accuracy": accuracy,
        "pooled_accuracy": _mean([_pooled(s) for s in seeds]),
        "targets_met": _met(spec, accuracy),
        "targets": first["targets"],
        "expert_group": first["expert_group"],
        "state": first["state"],
        "reason": first["reason"],
        "route": first["route"],
        "journey": first["journey"],
        "resteers": first["resteers"],
        "time_lost_s": first["time_lost_s"],
        "assessments": first["assessments"],
        "query": first["query"],
        "queries": first["queries"],
        "placement": first["placement"],
    }


def _pooled(seed: dict[str, Any]) -> float | None:
    return seed["pooled"]["broad"] if seed["pooled"] else None


def _mean(values: list[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return round(statistics.fmean(known), 4) if known else None


def refused(events: list[Event]) -> dict[str, dict[str, int]]:
    """Return what was kept out, by reason: frames dropped by switches, packets refused by those who read them."""
    frames, packets = Counter[str](), Counter[str]()
    for event in events:
        if event.kind == "frame.dropped":
            frames.update(event.data["reasons"])
        elif event.kind == "packet.refused":
            reason = str(event.data.get("reason"))
            packets[reason if reason in WORDS else "steering"] += int(event.data.get("more", 1))
    return {"frames": dict(sorted(frames.items())), "packets": dict(sorted(packets.items()))}


def _warnings(events: list[Event]) -> list[str]:
    texts = [str(e.data.get("text", e.data)) for e in events if e.kind in ("warning", "error", "engine.failed")]
    for event in events:
        if event.kind == "link.calibrated" and not event.data.get("ok", True):
            data = event.data
            texts.append(
                f"link {data['link']}: measured {data['measured_mbps']:.1f} of {data['rate_mbps']:.1f} Mbit/s, "
                f"{data['measured_delay_ms']:.1f} of {data['delay_ms']:.1f} ms: more than 15 % off"
            )
    return list(dict.fromkeys(texts))
