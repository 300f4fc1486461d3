"""Runs on networks of their own, side by side on one machine: they end as one after the other, and leave nothing."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

from tests.helpers import wait_until
from tests.network.daitn import assert_as_before, command, daitn, environment, standing
from topologies.machine.cleanup import clean, known_runs
from topologies.machine.ledger import RUN_BASE
from topologies.sandbox.sandbox import Sandbox, join

SMALL = """
name: small
network:
  kas:
    1: {data: 2, compute: 1, mpvu: 1, model_owner: 1}
    2: {data: 2, mpvu: 1}
  wan: [{a: 1, b: 2}]
data: {name: digits}
jobs: [{task: digits, broad_accuracy: 0.8, max_visits: 3, deadline_s: 60}]
"""


def route(folder: Path) -> list[object]:
    """Return where a run's model went, and what it was worth there."""
    report = json.loads((folder / "report.json").read_text())
    return [(v["data_node"], v["facility"], v["loss"], v["accuracy"], v["accepted"]) for v in report["route"]]


def first_process(name: str) -> int:
    """Return the first process of the sandbox of this keeper, 0 as long as there is none."""
    words = subprocess.run(["pgrep", "-f", f"topologies.sandbox.first --name {name}"], capture_output=True, text=True)
    return int((words.stdout.split() or ["0"])[-1])


def test_two_runs_at_once_end_like_one_after_the_other_and_a_killed_one_leaves_nothing(tmp_path: Path) -> None:
    before = standing()
    (tmp_path / "small.yaml").write_text(SMALL)
    compare = ("compare", "small.yaml", "--seeds", "1", "--methods")
    together = subprocess.Popen(
        command(*compare, "routed,random", "--jobs", "2", "--out", "together"), cwd=tmp_path, env=environment(),
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    alone = daitn(*compare, "routed", "--out", "alone", cwd=tmp_path, timeout_s=200)  # beside them: they do not meet
    said, _ = together.communicate(timeout=200)
    assert (together.returncode, alone.status) == (0, 0), said + alone.out + alone.err
    assert route(tmp_path / "together" / "seed-000-routed") == route(tmp_path / "alone" / "seed-000-routed")
    assert route(tmp_path / "together" / "seed-000-random") != route(tmp_path / "alone" / "seed-000-routed")
    assert_as_before(before)

    with (tmp_path / "words").open("wb") as words:
        run = subprocess.Popen(
            command("run", "small.yaml", "--sandbox", "--run-dir", "killed", "--page-port", "0"), cwd=tmp_path,
            env=environment(), stdout=words, stderr=words,
        )  # fmt: skip
    try:
        url = wait_until(
            lambda: (tmp_path / "words").read_text().partition("http")[2].partition("\n")[0], 60, "the page"
        )
        assert urllib.request.urlopen(f"http{url}", timeout=10).status == 200, "seen from outside"
        (name,) = [path.name for path in RUN_BASE.glob("box-*")]
        first = first_process(name)
        assert clean().live == [name], "a clean of this machine leaves it alone"
        assert Path(f"/proc/{first}").exists()
    finally:
        run.send_signal(signal.SIGKILL)
        run.wait(10)
    wait_until(lambda: not first_process(name), 5, "the end of all that lived inside")
    assert name in known_runs()
    assert clean().left == []
    assert_as_before(before)


def test_sandboxes_are_joined_by_a_cable_and_end_with_who_started_them() -> None:
    before = standing()
    with Sandbox() as one, Sandbox() as two:
        join(one, "10.99.0.1/24", two, "10.99.0.2/24")
        assert "1 received" in two.must("ping", "-c", "1", "-W", "5", "10.99.0.1")
        one.must("ovs-vsctl", "add-br", "s1", "--", "set", "bridge", "s1", "datapath_type=netdev")
        assert two.must("ovs-vsctl", "list-br") == ""
    assert_as_before(before)
    started = "from topologies.sandbox.sandbox import Sandbox; import sys\n" \
        "with Sandbox(sys.argv[1]) as box: print(box.pid, flush=True); sys.stdin.read()"  # fmt: skip
    parent = subprocess.Popen(
        [sys.executable, "-c", started, "box-orphan"], env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert parent.stdout is not None
        first = int(parent.stdout.readline())
    finally:
        parent.kill()
        parent.wait(10)
    wait_until(lambda: not Path(f"/proc/{first}").exists(), 5, "the end of its first process")
    assert clean().runs == ["box-orphan"]
    assert_as_before(before)
