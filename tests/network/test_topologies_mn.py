"""The topology files under plain ``mn``, as a researcher uses them, with our control centre."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import msgspec

from tests.helpers import wait_until
from tests.network.topologies_support import output
from topologies import single
from topologies.machine.preflight import port_owner
from topologies.venv import ROOT


def mn(*arguments: str, timeout_s: float = 180) -> subprocess.CompletedProcess[str]:
    """Run ``mn`` from another directory, outside the project's environment."""
    clean = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/root"), "TERM": "dumb"}
    return subprocess.run(["mn", *arguments], capture_output=True, text=True, cwd="/", env=clean, timeout=timeout_s)


def dropped(text: str) -> tuple[int, int, int]:
    """Return (percent dropped, received, sent) of a pingall."""
    found = re.search(r"Results: (\d+)% dropped \((\d+)/(\d+) received\)", text)
    assert found, text[-2000:]
    return int(found[1]), int(found[2]), int(found[3])


def test_pingall_on_fig3_loses_nothing() -> None:
    done = mn(
        "--custom", str(ROOT / "topologies/fig3.py"), "--topo", "fig3", "--controller", "dcc", "--test", "pingall"
    )
    assert done.returncode == 0
    assert dropped(done.stdout + done.stderr) == (0, 650, 650)
    assert port_owner(6653) == "", "the control centre ended with mn"


def test_pingall_with_a_remote_controller(tmp_path: Path) -> None:
    plan = tmp_path / "all.json"
    plan.write_bytes(msgspec.json.encode(single.PLAN.domain()))
    command = [sys.executable, "-m", "controller", "--plan", str(plan), "--openflow-port", "6653"]
    with (tmp_path / "log").open("wb") as log, subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log) as dcc:
        try:
            wait_until(lambda: port_owner(6653) or dcc.poll() is not None, 30, "the control centre listens")
            arguments = ("--custom", str(ROOT / "topologies/single.py"), "--topo", "single", "--controller", "remote")
            done = mn(*arguments, "--pre", _ready(tmp_path), "--test", "pingall")
            assert dropped(done.stdout + done.stderr)[0] == 0
        finally:
            dcc.terminate()
            dcc.wait(timeout=10)


def _ready(tmp_path: Path) -> str:
    """A CLI script that does nothing: ``--pre`` takes a file."""
    script = tmp_path / "pre"
    script.write_text("\n")
    return str(script)


def test_a_bridge_of_the_same_name_is_one_clear_line_and_stays() -> None:
    subprocess.run(["ovs-vsctl", "add-br", "k1s1", "--", "set", "bridge", "k1s1", "datapath_type=netdev"], check=True)
    try:
        done = mn("--custom", str(ROOT / "topologies/single.py"), "--topo", "single", "--controller", "dcc")
        assert done.returncode == 2
        assert "error: bridge k1s1 exists already" in done.stderr
        assert "k1s1" in output("ovs-vsctl", "list-br").split()
    finally:
        subprocess.run(["ovs-vsctl", "del-br", "k1s1"], check=True)


def test_a_taken_openflow_port_is_one_clear_line() -> None:
    with socket.create_server(("127.0.0.1", 6653)):
        done = mn("--custom", str(ROOT / "topologies/single.py"), "--topo", "single", "--controller", "dcc")
    assert done.returncode == 2
    assert "TCP port 6653 is taken" in done.stderr
