"""A hospital with wrong labels, and terminals that come and go, on the whole network; then the map and the reasons."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from packets.events import Event, decode_event
from tests.network.daitn import ROOT, daitn

SCENARIO = ROOT / "experiments" / "scenarios" / "flipped.yaml"
BAD, FLOOR = "h13", 0.5


def events_of(folder: Path) -> list[Event]:
    return [decode_event(line) for line in (folder / "events.jsonl").read_bytes().splitlines()]


def run(folder: Path, scenario: Path) -> tuple[dict[str, Any], list[Event]]:
    words = ("run", str(scenario), "--seed", "0", "--no-page", "--no-capture", "--run-dir", str(folder / "result"))
    said = daitn(*words, cwd=folder, timeout_s=240)
    assert said.status in (0, 1), said
    return json.loads((folder / "result" / "report.json").read_text()), events_of(folder / "result")


@pytest.mark.timeout(400)
def test_with_the_gate_targets_are_met_and_nobody_goes_there_again(tmp_path: Path) -> None:
    report, events = run(tmp_path, SCENARIO)
    assert report["targets_met"], report["reason"]
    trust = [e.data["trust"] for e in events if e.kind == "trust.changed" and e.data["name"] == BAD]
    assert trust and trust[-1] < FLOOR
    fell = next(e for e in events if e.kind == "trust.changed" and e.data["name"] == BAD and e.data["trust"] < FLOOR)
    later = [e.data for e in events if e.kind == "visit.trained" and e.t_unix_s > fell.t_unix_s]
    assert later and BAD not in {visit["data_node"] for visit in later}
    _terminals_came_and_went(events)
    _explained(tmp_path)


def _terminals_came_and_went(events: list[Event]) -> None:
    (collected,) = (e.data for e in events if e.kind == "data.collected")
    told = [e.data["attributes"]["samples"] for e in events
            if e.kind == "krrm.updated" and e.data["name"] == "h12" and "samples" in e.data["attributes"]]  # fmt: skip
    assert collected["samples"] == told[-1] == told[0] + 300
    left = next(e for e in events if e.kind == "terminal.left")
    assert left.data["name"] == "h23"
    joined = next(e for e in events if e.kind == "terminal.joined" and e.data["name"] == "h22")
    first = next(e for e in events if e.kind == "object.launched" and e.data["visit"] == 0)
    assert joined.t_unix_s > first.t_unix_s
    assert not [e for e in events if e.kind == "error"]


def _explained(folder: Path) -> None:
    said = daitn("explain", "--folder", "result", "--json", cwd=folder)
    told = json.loads(said.out)
    trained = [d for d in told["decisions"] if d["action"] == "train"]
    assert trained and all(d["attributes"] and d["cost_s"] > 0 for d in trained)
    assert all({"cost_s", "age_s"} <= a.keys() for d in trained for a in d["alternatives"])
    found = json.loads(daitn("map", "--folder", "result", "--json", cwd=folder).out)
    assert {t["name"]: t for t in found["terminals"]}[BAD]["attributes"]["trust"]["value"] < FLOOR


@pytest.mark.timeout(400)
def test_without_the_gate_they_are_missed(tmp_path: Path) -> None:
    words = SCENARIO.read_text()
    assert "trust_floor: 0.5}" in words
    (tmp_path / "open.yaml").write_text(words.replace("trust_floor: 0.5}", "trust_floor: 0.5, gate: false}"))
    report, events = run(tmp_path, tmp_path / "open.yaml")
    assert not report["targets_met"]
    assert not [e for e in events if e.kind == "trust.changed"]
