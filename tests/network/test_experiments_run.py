"""One whole healthcare run, as ``make demo`` does it, held against its own capture, counters and files."""

from __future__ import annotations

import json
import re
import struct
import subprocess
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest

from packets.events import Event
from packets.labels import AI_PORT, LABEL_NETWORK, label_address, object_label
from tests.network.daitn import ROOT, Said, assert_as_before, read_json, running, standing
from topologies.fig3 import PLAN
from topologies.plan import interface_name

SEED = 1
MODEL_SHARD, DATA_SHARD = 1, 2
FIELDS = ("frame.time_epoch", "frame.interface_name", "frame.len", "ip.dst", "ai.type", "ai.object_id", "ai.visit")


@dataclass
class Frame:
    """One AI packet on one link."""

    at_s: float
    interface: str
    size: int
    target: str
    type: int
    object_id: int
    visit: int


@dataclass
class Ended:
    """A run that is over, and all it wrote."""

    said: Said
    folder: Path
    before: set[str]
    events: list[Event]

    @property
    def report(self) -> dict[str, Any]:
        return read_json(self.folder / "report.json")

    @property
    def model(self) -> int:
        """Identity of the job's model."""
        admitted = [e.data for e in self.events if e.kind == "job.assessed" and e.data["admitted"]]
        return int(admitted[0]["object_id"])


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ended]:
    folder = tmp_path_factory.mktemp("run")
    before = standing()
    with running(folder, "--seed", str(SEED)) as started:
        said = started.ended(240)
        yield Ended(said, started.result, before, started.events())


@pytest.fixture(scope="module")
def frames(run: Ended) -> list[Frame]:
    """Every frame on the AI port as tshark reads it with our dissector; one without an AI header has no type."""
    words = ["tshark", "-X", f"lua_script:{ROOT}/packets/ai.lua", "-r", str(run.folder / "capture.pcapng")]
    words += ["-Y", f"udp.port == {AI_PORT}", "-T", "fields", *(x for f in FIELDS for x in ("-e", f))]
    rows = subprocess.run(words, capture_output=True, text=True, check=True, timeout=120).stdout.splitlines()
    return [_frame(row.split("\t")) for row in rows]


def _frame(cells: list[str]) -> Frame:
    at, interface, size, target, kind, object_id, visit = cells
    assert kind, f"no AI header in a frame on {interface} to {target}"
    return Frame(float(at), interface, int(size), target, int(kind), int(object_id, 0), int(visit))


HOST_OF = {host.address: host.name for host in PLAN.hosts}
ACCESS = {link.a: interface_name(link.b, link.b_port) for link in PLAN.links if link.a in HOST_OF.values()}


def test_it_ends_well_and_says_so(run: Ended) -> None:
    assert run.said.status == 0, run.said
    assert run.said.err == ""
    assert "targets met" in run.said.out and "torn down" in run.said.out


def test_the_targets_are_met_on_test_data_of_both_mpvus(run: Ended) -> None:
    report = run.report
    assert report["accuracy"]["broad"] >= 0.80
    assert report["accuracy"]["expert"] >= 0.95
    finished = next(e.data for e in run.events if e.kind == "job.finished")
    assert (report["accuracy"]["broad"], report["accuracy"]["expert"]) == (finished["broad"], finished["expert"])
    assert {e.data["node"] for e in run.events if e.kind == "visit.verified"} == {"mpvu2", "mpvu4"}


def test_the_report_says_where_the_model_was_and_what_that_brought(run: Ended) -> None:
    report = run.report
    assert report["seed"] == SEED
    roles = {host.name: host.role for host in PLAN.hosts}
    kas = {host.name: host.kas for host in PLAN.hosts}
    assert 1 <= len(report["route"]) <= 10
    for visit in report["route"]:
        assert roles[visit["node"]] == "data" and visit["kas"] == kas[visit["node"]]
        assert roles[visit["facility"]] == "compute" or visit["facility"] == visit["node"]
        assert 0 <= visit["accuracy"]["broad"] <= 1 and 0 <= visit["accuracy"]["expert"] <= 1
    assert len({stop["kas"] for stop in report["journey"]}) >= 2
    assert report["journey"][-1]["node"] == "owner1"
    assert report["wall_s"] <= 180
    assert report["query"]["answer"] == report["query"]["expected"]
    assert 0 < report["query"]["latency_ms"] < 1000


def test_phases_and_memory_are_within_the_budget(run: Ended) -> None:
    report = run.report
    phases = report["phases_s"]
    print({k: report[k] for k in ("wall_s", "phases_s", "peak_memory_mib", "port_counter_ratio", "accuracy")})
    assert set(phases) == {"network", "calibrate", "agents", "gather", "submit", "train", "deploy", "query"}
    assert phases["network"] + phases["agents"] <= 25  # 15 on a quiet machine
    assert report["wall_s"] >= sum(phases.values())
    assert 300 < report["peak_memory_mib"] <= 4096


def test_the_bytes_agree_with_the_port_counters_and_with_tshark(run: Ended, frames: list[Frame]) -> None:
    report = run.report
    assert report["bytes_on_wire"] == sum(link["bytes"] for link in report["links"]) == sum(f.size for f in frames)
    assert abs(report["port_counter_ratio"] - 1) <= 0.02
    assert report["bytes_on_wire"] > len(report["journey"]) * 900_000


def test_every_link_was_measured(run: Ended) -> None:
    measured = {link["link"]: link for link in read_json(run.folder / "manifest.json")["links"]}
    assert set(measured) == {link.name for link in PLAN.links}
    for link in PLAN.links:
        found = measured[link.name]
        assert (found["rate_mbps"], found["delay_ms"]) == (link.rate_mbps, link.delay_ms)
        assert found["measured_mbps"] > 0 and found["measured_delay_ms"] >= 0
    off = [name for name, link in measured.items() if not link["ok"]]
    warned = " ".join(run.report["warnings"])
    assert [name for name in off if name not in warned] == []


def test_shards_name_the_object_on_every_link_but_the_last(run: Ended, frames: list[Frame]) -> None:
    shards = [f for f in frames if f.type in (MODEL_SHARD, DATA_SHARD)]
    assert sum(f.type == MODEL_SHARD for f in shards) > 1000
    for frame in shards:
        if frame.target in HOST_OF:
            assert frame.interface == ACCESS[HOST_OF[frame.target]], f"{frame}: an address before the last link"
        else:
            assert frame.target == label_address(object_label(frame.object_id)), f"{frame}: another object's label"
            assert IPv4Address(frame.target) in LABEL_NETWORK


def test_every_journey_crosses_links_destinationless_and_ends_at_an_address(frames: list[Frame]) -> None:
    journeys: dict[tuple[int, int], set[tuple[str, bool]]] = defaultdict(set)
    for frame in frames:
        if frame.type == MODEL_SHARD:
            journeys[frame.object_id, frame.visit].add((frame.interface, frame.target in HOST_OF))
    for (object_id, visit), links in journeys.items():
        last = [interface for interface, addressed in links if addressed]
        assert len(last) == 1, f"object {object_id:#x} visit {visit}: delivered on {last}"
        assert len(links) >= 2, f"object {object_id:#x} visit {visit}: not seen before its last link"


def test_the_journey_can_be_read_off_the_capture(run: Ended, frames: list[Frame]) -> None:
    seen: dict[int, str] = {}
    for frame in sorted(frames, key=lambda frame: frame.at_s):
        if (frame.object_id, frame.type) == (run.model, MODEL_SHARD) and frame.target in HOST_OF:
            seen.setdefault(frame.visit, HOST_OF[frame.target])
    assert list(seen) == sorted(seen), "visits were made out of order"
    assert list(seen.items()) == [(stop["visit"], stop["node"]) for stop in run.report["journey"]]


def test_the_html_report_needs_nothing_but_itself(run: Ended) -> None:
    text = (run.folder / "report.html").read_text()
    assert text.count("<svg") >= 3
    assert "<script" not in text and "@import" not in text
    references = re.findall(r"(?:src|href|action|data)\s*=\s*[\"']([^\"']*)|url\(\s*[\"']?([^)\"']*)", text)
    assert [a or b for a, b in references if not (a or b).startswith(("#", "data:"))] == []
    for word in ("owner1", "mpvu2", "cardiology", str(run.report["route"][0]["node"])):
        assert word in text


def test_the_model_came_home_with_its_log(run: Ended) -> None:
    data = (run.folder / "model" / "model.safetensors").read_bytes()
    (length,) = struct.unpack_from("<Q", data)
    tensors = {k: v for k, v in json.loads(data[8 : 8 + length]).items() if k != "__metadata__"}
    assert tensors and 8 + length + max(t["data_offsets"][1] for t in tensors.values()) == len(data)
    log = read_json(run.folder / "model" / "training-log.json")
    assert len(json.dumps(log)) > 100


def test_the_event_log_is_whole_and_the_folder_repeatable(run: Ended) -> None:
    lines = (run.folder / "events.jsonl").read_bytes().splitlines()
    assert len(run.events) == len(lines) > 100
    assert [e.id for e in run.events] == sorted({e.id for e in run.events})
    assert [e.data for e in run.events if e.kind == "error"] == []
    assert not any("dropped_before" in e.data for e in run.events)
    agents = {e.data["name"] for e in run.events if e.kind == "agent.ready"}
    assert agents == {host.name for host in PLAN.hosts}
    manifest = read_json(run.folder / "manifest.json")
    assert {"kernel", "cores", "packages", "open_vswitch", "seed", "git"} <= manifest.keys()
    assert "cardiology" in (run.folder / "scenario.yaml").read_text()


def test_nothing_is_left_on_the_machine(run: Ended) -> None:
    assert_as_before(run.before)
