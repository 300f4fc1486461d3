"""A sweep over machines with Dask: one of them dies whole in the midst of a run, and every cell comes home once."""

from __future__ import annotations

import contextlib
import csv
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers import wait_until
from tests.network.daitn import command, environment
from tests.network.machines import NET, SSHD, machines
from topologies.machine import shell

pytest.importorskip("distributed", reason="needs the optional package distributed")
pytestmark = [
    pytest.mark.skipif(not Path(SSHD).exists(), reason="needs sshd: apt install openssh-server"),
    pytest.mark.timeout(300),
]

SCENARIO = """
name: small
network:
  kas:
    1: {data: 1, model_owner: 1, compute: 1, mpvu: 1}
data: {name: digits, partition: iid}
jobs: [{task: digits, broad_accuracy: 0.5, max_visits: 2, deadline_s: 30}]
"""
SCHEDULER = f"tcp://{NET}.1:8786"


def test_a_machine_that_dies_whole_costs_no_cell_and_doubles_none(tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text(SCENARIO)
    patience = {"DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL": "10s"}  # until a machine that says nothing is given up
    dask = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", f"{NET}.1", "--no-dashboard"]
    sweep = command("sweep", "small.yaml", "--seeds", "1-4", "--cluster", SCHEDULER, "--out", "sweep")
    with machines(["a", "b", "c"]) as there, (tmp_path / "log").open("w+") as log, contextlib.ExitStack() as begun:

        def begin(machine: str, *words: str) -> subprocess.Popen[bytes]:
            there_words = there.words(machine, "env", "-C", str(tmp_path), *words)
            process = subprocess.Popen(there_words, env=environment() | patience, stdout=log, stderr=log)
            begun.callback(process.wait, 10)
            begun.callback(process.terminate)
            return process

        def said() -> str:
            return (tmp_path / "log").read_text()

        begin("a", *dask)
        workers = {machine: begin(machine, *command("worker", SCHEDULER)) for machine in ("b", "c")}
        sweeping = begin("a", *sweep)
        assert wait_until(lambda: running(workers["b"].pid) or sweeping.poll() is not None, 90.0, "a run on b")
        assert sweeping.poll() is None, said()
        shell.must("ip", "link", "set", "to-b", "down")  # a machine without power says no farewell
        os.kill(there.boxes["b"].pid, signal.SIGKILL)
        assert sweeping.wait(200) == 0, said()
    with (tmp_path / "sweep/sweep.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert sorted(row["seed"] for row in rows) == ["1", "2", "3", "4"]
    assert len(list((tmp_path / "sweep").glob("*.json"))) >= 4
    assert len({row["machine"] for row in rows}) in (1, 2), rows


def running(worker: int) -> bool:
    """Tell whether a run is up below a worker: there is a zygote (in a sandbox within)."""
    found = subprocess.run(["ps", "-eo", "pid=,ppid=,args="], capture_output=True, text=True, check=True).stdout
    rows = [line.split(maxsplit=2) for line in found.splitlines()]
    below = {str(worker)}
    while more := {pid for pid, parent, *_ in rows if parent in below} - below:
        below |= more
    return any("hosts.process.zygote" in row[-1] for row in rows if row[0] in below)
