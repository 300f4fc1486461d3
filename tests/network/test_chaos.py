"""A short fault campaign on a real network: each sort of target hit once, and all that must hold held."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from tests.network.daitn import daitn

SCENARIO = """
name: chaos-small
description: The least network with a border.
network:
  kas:
    1: {data: 1, compute: 1, mdfp: 1, model_owner: 1, mpvu: 1}
    2: {data: 1, mpvu: 1, query_owner: 1}
  wan:
    - {a: 1, b: 2, rate_mbps: 50}
data: {name: digits, partition: iid}
jobs:
  - {task: digits, broad_accuracy: 0.5, max_visits: 2, deadline_s: 20}
query: {group: digit 3}
"""


@pytest.mark.timeout(120)
def test_five_faults_and_all_that_must_hold_holds(tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text(SCENARIO)
    said = daitn(
        "chaos", "small.yaml", "--faults", "5", "--seconds", "15", "--kinds", "loss,corruption,pause,flapping",
        "--run-dir", "result", cwd=tmp_path, timeout_s=110,
    )  # fmt: skip
    assert said.status == 0, said
    told = json.loads((tmp_path / "result/chaos.json").read_text())
    assert told["violations"] == [] and told["faults"] == 5 and told["not_done"] == 0, told
    assert told["jobs"] >= 1 and told["work"]["parcels sent"] >= 1 and told["datagrams_received"] > 100
    with (tmp_path / "result/chaos.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["number"]) for row in rows] == [1, 2, 3, 4, 5] and rows[-1]["recovered_s"]
    assert "<svg" in (tmp_path / "result/chaos.html").read_text()
