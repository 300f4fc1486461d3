"""Ordinary traffic beside a job: it flows at the rate that was asked for, the job is done, both are in the results."""

from __future__ import annotations

import json
from pathlib import Path

from experiments.scenarios.scenario import dump, load
from tests.network.daitn import assert_as_before, daitn, standing


def test_a_job_is_done_beside_background_traffic_and_what_came_through_is_measured(tmp_path: Path) -> None:
    before = standing()
    pairs = b"[{from: h11, to: h43, rate_mbps: 10}, {from: h12, to: h31, protocol: tcp, rate_mbps: 10}]"
    text = dump(load("healthcare")).replace(b"background: []", b"background: " + pairs)
    (tmp_path / "busy.yaml").write_bytes(text)
    said = daitn("run", "busy.yaml", "--seed", "1", "--no-page", "--run-dir", "run", cwd=tmp_path)
    assert said.status == 0, said
    found = json.loads((tmp_path / "run" / "manifest.json").read_text())["background"]
    assert [(f["from"], f["to"], f["protocol"]) for f in found] == [("h11", "h43", "udp"), ("h12", "h31", "tcp")]
    assert all(f["seconds"] >= 3 and 5 < f["mbps"] < 12 for f in found), found
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert report["port_counter_bytes"] > 1.5 * report["bytes_on_wire"]
    assert_as_before(before)
