"""The time of a run is not moved by whoever sets the machine's clock."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from packets.security import clock
from packets.security.replay import Memory
from packets.security.seal import now_ms

ROOT = Path(__file__).parents[3]
HOUR_S = 3600.0


@pytest.mark.parametrize("step_s", [-HOUR_S, HOUR_S])
def test_a_step_of_the_clock_moves_nothing(monkeypatch: pytest.MonkeyPatch, step_s: float) -> None:
    real, memory, sent_ms = time.time, Memory(now_ms()), now_ms() + 1
    before = clock.unix_s()
    monkeypatch.setattr(time, "time", lambda: real() + step_s)
    monkeypatch.setattr(time, "time_ns", lambda: int((real() + step_s) * 1e9))
    assert 0 <= clock.unix_s() - before < 5
    assert memory.judge(1, "a", sent_ms, now_ms()) == "", "a packet is as old as it was"
    assert memory.judge(1, "b", now_ms() + 1, now_ms()) == "", "and what is said now is news"


def test_the_processes_of_a_run_count_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    def counted(said: dict[str, str]) -> float:
        words = [sys.executable, "-c", "from packets.security import clock; print(clock.OFFSET_S)"]
        done = subprocess.run(words, env=os.environ | said, cwd=ROOT, capture_output=True, text=True, check=True)
        return float(done.stdout)

    now_s = clock.OFFSET_S
    monkeypatch.setattr(clock, "OFFSET_S", now_s - HOUR_S)
    assert counted(clock.environment()) == now_s - HOUR_S, "what the machine's clock says since is not asked"
    assert abs(counted({clock.CLOCK_VARIABLE: "noon"}) - now_s) < 60, "nonsense is not believed"


def test_nobody_else_asks_the_machine_for_the_time_of_day() -> None:
    asks, mine = re.compile(r"\btime\.time(_ns)?\b"), {"packets/security/clock.py"}
    others = {"controller/runtime/database.py", "experiments/sweeping/runner.py", "experiments/commands/netmap.py"}
    found = {
        str(path.relative_to(ROOT))
        for package in ("packets", "hosts", "controller", "experiments")
        for path in (ROOT / package).rglob("*.py")
        if asks.search(path.read_text())
    }
    assert found - others == mine, "these name files, or tell a person how long ago it was"
