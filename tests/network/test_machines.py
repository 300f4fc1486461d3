"""One network over two machines, each with its own Open vSwitch, reached by ssh: a job crosses, nothing is left."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from experiments.testbed.capture import frames
from packets.events import Event, decode_event
from tests.helpers import wait_until
from tests.network.daitn import command, environment
from tests.network.machines import SSHD, Machines, machines

SCENARIO = """
name: two-machines
network:
  kas:
    1: {data: 1, model_owner: 1}
    2: {data: 1, compute: 1, mpvu: 1}
  wan: [{a: 1, b: 2, rate_mbps: 50, delay_ms: 5}]
data: {name: vignettes, alpha: 0.5}
jobs: [{task: vignettes, broad_accuracy: 0.05, max_visits: 1, deadline_s: 60}]
"""
STRANGER = "openssl s_client -connect 127.0.0.1:6653 -tls1_3 </dev/null"

pytestmark = pytest.mark.skipif(
    not Path(SSHD).exists(), reason="needs sshd: apt install openssh-server, or scripts/provision.sh"
)


def test_a_job_crosses_two_machines_a_switch_without_certificate_is_refused_and_nothing_is_left(tmp_path: Path) -> None:
    (tmp_path / "two.yaml").write_text(SCENARIO)
    result = tmp_path / "result"
    run = command("run", "two.yaml", "--servers", "a,b", "--no-page", "--run-dir", str(result))
    with machines(["a", "b"]) as there:
        log = (tmp_path / "log").open("w+")
        with log, subprocess.Popen(
            there.words("a", "env", "-C", str(tmp_path), *run), env=environment(), stdout=log, stderr=log, text=True
        ) as process:  # fmt: skip
            assert wait_until(lambda: heard(result, "network.up") or process.poll() is not None, 60.0, "network.up")
            assert process.poll() is None, (tmp_path / "log").read_text()
            refused_and_encrypted(there)
            assert process.wait(120) == 0, (tmp_path / "log").read_text()
        assert {name: there.left(name) for name in "ab"} == {"a": "", "b": ""}
    assert heard(result, "switch.refused")[0].data["kas"] == 1
    assert {e.data["link"] for e in heard(result, "link.tunnel")} == {"k1g-k2g"}
    assert json.loads((result / "manifest.json").read_text())["mtu"] == 1450
    assert json.loads((result / "report.json").read_text())["targets_met"]
    captured = list(frames(result / "capture.pcapng"))
    assert {"k1s1", "k2s1"} <= {interface.partition("-")[0] for interface, _, _ in captured}
    assert max(length for _, length, _ in captured) <= 1450 + 14
    tunnel = next(x for x in json.loads((result / "manifest.json").read_text())["links"] if x["link"] == "k1g-k2g")
    assert tunnel["measured_mbps"] > 0 and tunnel["measured_delay_ms"] >= 4
    assert [(result / f"dcc{kas}.sqlite").exists() for kas in (1, 2)] == [True, True]
    assert all((result / f"servers/{name}/logs/zygote.log").exists() for name in "ab")


def refused_and_encrypted(there: Machines) -> None:
    """Knock at a control centre without a certificate; its own switches speak TLS to it."""
    subprocess.run(there.words("a", "sh", "-c", STRANGER), capture_output=True, check=False)
    targets = subprocess.run(
        there.words("b", "ovs-vsctl", "--columns=target", "--no-headings", "--format=csv", "list", "Controller"),
        capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    assert targets and {target.strip('"').partition(":")[0] for target in targets} == {"ssl"}


def heard(result: Path, kind: str) -> list[Event]:
    log = result / "events.jsonl"
    lines = log.read_bytes().splitlines(keepends=True) if log.exists() else []
    return [e for line in lines if line.endswith(b"\n") and (e := decode_event(line)).kind == kind]
