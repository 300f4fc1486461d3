"""AATS on the real network: every control centre is dead, and a model finds its own way by ordinary routing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest
import yaml

from experiments import Testbed
from experiments.errors import RunFailed
from experiments.scenarios.scenario import SCENARIO_FOLDER
from packets.events import Event
from packets.labels import AI_PORT, LABEL_NETWORK
from tests.network.daitn import ROOT, Running, assert_as_before, running, standing
from topologies.fig3 import PLAN

ROLE = {h.name: h.role for h in PLAN.hosts}
NAME = {h.address: h.name for h in PLAN.hosts}
OWNER = next(h.name for h in PLAN.hosts if h.role == "model_owner")
FIELDS = ("ip.src", "ip.dst", "ai.type", "ai.flags", "ai.object_id", "ai.visit")
MODEL_SHARD, PROBE = 1, 6
AUTONOMOUS, END_TO_END = 0x20, 0x40


def scenario(folder: Path, **job: Any) -> str:
    """Write healthcare with little data and no control centre; return the file's path."""
    content = yaml.safe_load((SCENARIO_FOLDER / "healthcare.yaml").read_text())
    content["without_control"] = True
    content["data"] |= {"train_per_node": 500, "test_per_node": 60, "alpha": 1.0}
    content["jobs"] = [
        {"task": "vignettes", "broad_accuracy": 0.6, "max_visits": 8, "deadline_s": 120, "steering": "aats"} | job
    ]
    (folder / "small.yaml").write_text(yaml.safe_dump(content))
    return str(folder / "small.yaml")


def controllers() -> list[int]:
    """Return the processes on this machine that are control centres of a run."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0") if entry.name.isdigit() else []
        except OSError:
            continue
        if b"controller" in words and b"--openflow-port" in words:
            found.append(int(entry.name))
    return found


@dataclass
class Ended:
    """A run that is over; ``pids``: of the control centres, ``alive``: those of them, and any other, seen later."""

    folder: Path
    status: int
    events: list[Event]
    pids: list[int]
    alive: list[int]

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [e.data for e in self.events if e.kind == kind]

    @property
    def report(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / "report.json").read_text())
        return found


def carried_out(started: Running) -> Ended:
    """Follow a run to its end; look for control centres when they have been ended, and while the model travels."""
    pids = started.wait_for("control.ended").data["pids"]
    alive = controllers()
    started.wait_for("visit.trained")
    alive += controllers()
    started.wait_for("visit.verified")
    alive += controllers()
    said = started.ended(200)
    return Ended(started.result, said.status, started.events(), pids, alive)


@pytest.fixture(scope="module", params=["greedy", "end-to-end"])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Ended]]:
    folder, before = tmp_path_factory.mktemp("aats"), standing()
    with running(folder, "--seed", "1", scenario=scenario(folder, policy=request.param)) as started:
        ended = carried_out(started)
    yield request.param, ended
    assert_as_before(before)


def test_it_meets_its_target_with_every_control_centre_dead(run: tuple[str, Ended]) -> None:
    _, ended = run
    assert len(ended.pids) == 8 and ended.alive == [], "killed with who would start them again"
    assert ended.status == 0 and ended.report["targets_met"]
    assert ended.report["accuracy"]["broad"] >= 0.6 and ended.report["state"] == "finished"
    (over,) = [i for i, e in enumerate(ended.events) if e.kind == "control.ended"]
    assert [e for e in ended.events[over:] if e.source.startswith("dcc")] == []
    assert ended.of("error") == []


def test_the_model_is_deployed_and_asked_without_control_centres_too(run: tuple[str, Ended]) -> None:
    _, ended = run
    (deployed,) = ended.of("model.deployed")
    assert ROLE[deployed["node"]] == "mdfp" and deployed["accuracy"]["broad"] >= 0.6
    query = ended.report["query"]
    assert query["answered_by"] == deployed["node"] and query["answer"] and query["latency_ms"] < 3000


def test_the_report_has_its_route_and_who_decided(run: tuple[str, Ended]) -> None:
    policy, ended = run
    route, journey = ended.report["route"], ended.report["journey"]
    assert route and all(ROLE[v["node"]] == "data" and v["reason"].startswith(policy) for v in route)
    assert all(v["accuracy"] for v in route)
    assert [ROLE[stop["node"]] for stop in journey[-2:]] == ["model_owner", "mdfp"]
    assert {ROLE[stop["node"]] for stop in journey[:-2]} == {"data", "mpvu"}
    assert ended.report["seeds"][0]["train_bytes"] > 0
    decided = {d["visit"]: d for d in ended.of("job.decided")}
    assert [decided[stop["visit"]]["to"] for stop in journey] == [stop["node"] for stop in journey]
    assert decided[0]["node"] == OWNER and decided[1]["node"] == journey[0]["node"], "each holder decides the next stop"
    trail = json.loads((ended.folder / "model" / "trail.json").read_text())["trail"]
    assert [NAME[stop["to"]] for stop in trail] == [stop["node"] for stop in journey[:-1]]


def test_the_wire_shows_autonomous_shards_to_real_addresses(run: tuple[str, Ended]) -> None:
    policy, ended = run
    words = ["tshark", "-X", f"lua_script:{ROOT}/packets/ai.lua", "-r", str(ended.folder / "capture.pcapng")]
    words += ["-Y", f"udp.port == {AI_PORT}", "-T", "fields", *(x for f in FIELDS for x in ("-e", f))]
    rows = subprocess.run(words, capture_output=True, text=True, check=True, timeout=120).stdout.splitlines()
    frames = [dict(zip(FIELDS, row.split("\t"), strict=True)) for row in rows]
    (job,) = [a["object_id"] for a in ended.of("job.assessed")]
    shards = [f for f in frames if f["ai.type"] == str(MODEL_SHARD)]
    assert len(shards) > 500 and {int(f["ai.object_id"], 0) for f in shards} == {job}
    for frame in shards:
        assert frame["ip.dst"] in NAME and IPv4Address(frame["ip.dst"]) not in LABEL_NETWORK
        flags = int(frame["ai.flags"], 0)
        assert flags & AUTONOMOUS and bool(flags & END_TO_END) is (policy == "end-to-end")
    hops = {(int(f["ai.visit"]), NAME[f["ip.dst"]]) for f in shards}
    assert hops == {(stop["visit"], stop["node"]) for stop in ended.report["journey"]}
    asked = {NAME[f["ip.dst"]] for f in frames if f["ai.type"] == str(PROBE)}
    assert {n for n, role in ROLE.items() if role in ("data", "mpvu")} <= asked


def test_a_holder_that_dies_with_the_model_is_passed_by(tmp_path: Path) -> None:
    before = standing()
    job = {"hyper": {"epochs": 10.0}}  # long enough to die meanwhile
    with running(tmp_path, "--seed", "1", scenario=scenario(tmp_path, **job)) as started:
        name = started.wait_for("job.decided", visit=0).data["to"]
        started.wait_for("object.arrived", visit=0, node=name)
        os.kill(started.wait_for("agent.ready", name=name).data["pid"], signal.SIGKILL)
        started.wait_for("object.resteered", 30.0, visit=0)
        started.wait_for("visit.trained", 60.0)
        started.end(signal.SIGINT)
        events = started.events()
    trained = [e.data["node"] for e in events if e.kind == "visit.trained"]
    assert trained and name not in trained
    assert_as_before(before)


def test_a_query_finds_a_model_with_every_control_centre_dead(tmp_path: Path) -> None:
    """One that finds its own way may be led before: control centres deploy the model, then they die."""
    before = standing()
    content = yaml.safe_load(Path(scenario(tmp_path)).read_text())
    (tmp_path / "led.yaml").write_text(yaml.safe_dump(content | {"without_control": False}))
    with Testbed(str(tmp_path / "led.yaml"), seed=1, results=tmp_path / "result", capture=False) as bed:
        assert bed.submit().targets_met, "its own way beside control centres"
        assert len(controllers()) == 8, "one that serves, and one that would start the next, of each K-AS"
        bed.bed.end_control()
        assert controllers() == []
        answers = [bed.query("cardiology", aats=True, broad_accuracy=0.5) for _ in range(5)]
        assert {ROLE[a["answered_by"]] for a in answers} == {"mdfp"}
        assert all(a["answer"] and a["latency_ms"] < 2000 for a in answers)
        with pytest.raises(RunFailed, match=r"no model heard of has .*: the best on offer is"):
            bed.query("cardiology", aats=True, broad_accuracy=0.999)
    assert_as_before(before)
