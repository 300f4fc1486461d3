"""Every training method on the emulated network: ten nodes, one class each, a few visits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from experiments.scenarios.scenario import SCENARIO_FOLDER
from packets.events import Event, decode_event
from tests.network.daitn import ROOT, assert_as_before, daitn, standing

VISITS = 3
SMALL = {"max_visits: 120": f"max_visits: {VISITS}"}
DEEP = {**SMALL, "partition: one_class": "partition: one_class\n  hidden: 16"}


def run(folder: Path, method: str, changes: dict[str, str] = SMALL) -> tuple[dict[str, Any], list[Event]]:
    """Run the digits scenario with a method; return its report and events."""
    text = (SCENARIO_FOLDER / "digits.yaml").read_text()
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    (folder / "small.yaml").write_text(text)
    before = standing()
    words = ["run", "small.yaml", "--method", method, "--seed", "1", "--run-dir", "result", "--no-page", "--no-capture"]
    said = daitn(*words, cwd=folder, timeout_s=180)
    assert said.status == 0, said
    assert_as_before(before)
    lines = (folder / "result" / "events.jsonl").read_bytes().splitlines(keepends=True)
    return json.loads((folder / "result" / "report.json").read_text()), [decode_event(line) for line in lines]


@pytest.mark.parametrize("method", ["cycle", "tramfl"])
def test_baseline_orders_visit_node_after_node(tmp_path: Path, method: str) -> None:
    report, _ = run(tmp_path, method)
    assert len({v["node"] for v in report["route"]}) == VISITS
    assert report["seeds"][0]["train_bytes"] > 0 and len(report["seeds"][0]["curve"]) > VISITS


FAIR = f"{ROOT / 'examples/method_fair.py'}:Fair"


@pytest.mark.parametrize("method", ["federated", "secure", "gossip", "central", FAIR])
def test_all_members_train_together_and_an_mpvu_looks_at_the_model(tmp_path: Path, method: str) -> None:
    report, events = run(tmp_path, method)
    trained = [e.data for e in events if e.kind == "visit.trained"]
    assert len(trained) == VISITS and {t["members"] for t in trained} == {10}
    assert all(t["samples"] > 1000 for t in trained)
    assert {v["facility"] for v in report["route"]} <= {"c1", "c2", "c3", "c4"}
    assert [e.data for e in events if e.kind in ("error", "packet.refused")] == []
    assert report["accuracy"]["broad"] > 0.1


def test_a_split_model_learns_over_straight_transfers(tmp_path: Path) -> None:
    _, events = run(tmp_path, "split", DEEP)
    trained = [e.data for e in events if e.kind == "visit.trained"]
    assert len(trained) == VISITS and all(t["loss"] > 0 for t in trained)
    announced = [e for e in events if e.kind == "object.steered" and e.data["purpose"] == "exchange"]
    arrived = [e for e in events if e.kind == "object.arrived" and e.data["visit"] > 0 and e.data["node"][0] == "h"]
    assert announced and len(arrived) >= VISITS * 10  # gradients, straight to the nodes' addresses


def test_what_crosses_borders_names_no_foreign_node(tmp_path: Path) -> None:
    """The leader learns places, not names: an order's members are handles that only their own K-AS resolves."""
    _, events = run(tmp_path, "federated")
    steered = [e.data for e in events if e.kind == "object.steered" and e.data["purpose"] == "exchange"]
    assert {d["kas"] for d in steered if d["node"].startswith("h")} == {1, 2, 3, 4}
    for data in steered:
        assert not data["node"] or data["node"][1] == str(data["kas"])


def test_a_method_of_ones_own_that_fails_is_told_of_and_the_model_comes_home(tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text(
        "from hosts.learning.methods.own import OwnMethod\n"
        "class Bad(OwnMethod):\n"
        "    def combine(self, state, updates):\n"
        "        return {n: t / 0 for n, t in state.items()}\n"
    )
    words = [
        "run",
        "digits",
        "--method",
        "bad.py:Bad",
        "--seed",
        "1",
        "--run-dir",
        "result",
        "--no-page",
        "--no-capture",
    ]
    said = daitn(*words, cwd=tmp_path, timeout_s=180)
    assert said.out.count("method Bad: combine left layers.0") >= 4 and "Traceback" not in said.out + said.err, said
    report = json.loads((tmp_path / "result" / "report.json").read_text())
    assert report["seeds"][0]["reason"] == "no compute facility of 4 is ready to lead a group"
