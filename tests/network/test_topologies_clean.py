"""After kill -9: ``clean`` removes exactly what the dead run made."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers import wait_until
from tests.network.daitn import settings
from topologies import fig3
from topologies.machine.cgroups import create_group, run_groups
from topologies.machine.cleanup import clean, is_live, tagged_processes
from topologies.machine.ledger import RUN_BASE
from topologies.network import Network
from topologies.venv import ROOT
from topologies.wiring import group

pytestmark = pytest.mark.alone  # kernel settings are raised and put back on the machine itself

LEADER = """
import subprocess, sys
from topologies.network import Network
from topologies.fig3 import PLAN
net = Network(PLAN, sys.argv[1], {k: 6690 + k for k in PLAN.kas_numbers}, sys.argv[2])
net.start()
agent = net["h11"].popen(["sleep", "600"])
print("up", agent.pid, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def foreign() -> Iterator[None]:
    """What somebody else made: a bridge with a port, a named namespace, a pair of interfaces and a qdisc."""
    commands = [
        "ovs-vsctl add-br theirbr -- set bridge theirbr datapath_type=netdev external-ids:owner=them",
        "ip netns add theirs",
        "ip link add veth-t0 type veth peer name veth-t1",
        "ip link set veth-t1 netns theirs",
        "ip link set veth-t0 up",
        "ovs-vsctl add-port theirbr veth-t0",
        "tc qdisc replace dev veth-t0 root tbf rate 10mbit burst 20kb latency 10ms",
    ]
    for command in commands:
        subprocess.run(command.split(), check=True)
    yield
    for command in ("ovs-vsctl del-br theirbr", "ip link del veth-t0", "ip netns del theirs"):
        subprocess.run(command.split(), check=True)


def foreign_things() -> str:
    commands = [
        "ovs-vsctl list-ports theirbr",
        "ovs-vsctl get bridge theirbr external_ids",
        "ip netns list",
        "tc qdisc show dev veth-t0",
    ]
    return "".join(subprocess.run(c.split(), check=True, capture_output=True, text=True).stdout for c in commands)


def start_leader(run: str) -> tuple[subprocess.Popen[str], int]:
    leader = subprocess.Popen(
        [sys.executable, "-c", LEADER, run, str(RUN_BASE / run)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert leader.stdout is not None
    word, pid = leader.stdout.readline().split()
    assert word == "up"
    return leader, int(pid)


def ours_left(run: str) -> list[str]:
    names = set(os.listdir("/sys/class/net"))
    bridges = subprocess.run(["ovs-vsctl", "list-br"], capture_output=True, text=True, check=True).stdout.split()
    left = [s.name for s in fig3.PLAN.switches if s.name in bridges or s.name in names]
    left += [name for name in names if name.startswith(("k1", "k2", "k3", "k4", "h1"))]
    left += [f"process {record.pid}" for record, owner in tagged_processes() if owner == run]
    left += [str(RUN_BASE / run)] if (RUN_BASE / run).exists() else []
    return left + ([run] if run in run_groups() else [])


def test_kill_9_then_clean_then_again(foreign: None) -> None:
    theirs = foreign_things()
    before = settings()
    run = f"killed-{os.getpid()}"
    leader, agent = start_leader(run)
    group = create_group(run, "h11", 0.5)
    if group is not None:
        (group / "cgroup.procs").write_text(str(agent))
    try:
        assert is_live(run)
        report = clean()
        assert run in report.live, "a live run is not touched"
        assert Path(f"/proc/{agent}").exists()
    finally:
        leader.send_signal(signal.SIGKILL)
        leader.wait(timeout=10)
    assert ours_left(run)
    report = clean(run)
    assert report.left == []
    assert agent in report.processes
    assert len(report.bridges) == len(fig3.PLAN.switches)
    wait_until(lambda: not ours_left(run), 5, "nothing of ours")
    assert settings() == before
    assert foreign_things() == theirs
    assert str(clean(run)) == "nothing to remove"
    second = f"again-{os.getpid()}"
    with Network(fig3.PLAN, second, {}, RUN_BASE / second) as network:
        assert len(network.hosts) == 26, "22 terminals, 4 border speakers"
    assert foreign_things() == theirs


def test_force_ends_a_live_run() -> None:
    run = f"forced-{os.getpid()}"
    leader, _ = start_leader(run)
    try:
        report = clean(run, force=True)
        assert leader.pid in report.processes
        assert leader.wait(timeout=10) != 0
        wait_until(lambda: not ours_left(run), 5, "nothing of ours")
    finally:
        leader.kill()
        leader.wait(timeout=10)


def test_a_run_that_died_between_intent_and_making_is_cleaned() -> None:
    """The ledger names an interface that was born in the run's group, but not yet marked."""
    run = f"half-{os.getpid()}"
    code = (
        "from topologies.machine.ledger import Ledger; from pathlib import Path\n"
        f"Ledger(Path({str(RUN_BASE / run)!r}), {run!r})"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
    book = RUN_BASE / run / "ledger.json"
    book.write_text(book.read_text().replace('"interfaces":[]', '"interfaces":["half-eth1","half-eth2"]'))
    subprocess.run(f"ip link add half-eth1 group {group(run)} type veth peer name veth-x1".split(), check=True)
    subprocess.run(["ip", "link", "add", "half-eth2", "type", "veth", "peer", "name", "veth-x2"], check=True)
    try:
        assert clean(run).interfaces == ["half-eth1"]
        assert Path("/sys/class/net/half-eth2").exists(), "same name, but not from our group: not ours"
    finally:
        subprocess.run(["ip", "link", "del", "half-eth2"], check=True)
