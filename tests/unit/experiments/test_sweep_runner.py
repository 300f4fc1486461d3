"""Several runs at once: so many at a time, each heard of once; all ended when one cannot go on or a person stops."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from experiments.errors import ExperimentError
from experiments.sweeping.runner import How, Running, Task, measured, side_by_side
from experiments.testbed.processes import PROJECT, ChildStopped, run_child
from tests.helpers import wait_until
from topologies.sandbox.sandbox import sandboxed

SLEEPER = [sys.executable, "-c", "import time; print('asleep', flush=True); time.sleep(60)"]


def test_no_more_than_so_many_go_at_a_time_and_each_is_heard_of_once(tmp_path: Path) -> None:
    meet, heard, seen = threading.Barrier(2, timeout=10), dict[int, int](), list[Running]()
    at_once, most, lock = 0, 0, threading.Lock()

    def work(place: int) -> int:
        nonlocal at_once, most
        with lock:
            at_once += 1
            most = max(most, at_once)
        meet.wait()  # none gets past it alone
        with lock:
            at_once -= 1
        return place * place

    (tmp_path / "log").write_text("trained\n")
    tasks = [Task(f"run {i}", tmp_path / "log", lambda i=i: work(i)) for i in range(6)]  # type: ignore[misc]
    side_by_side(tasks, 2, threading.Event(), finished=heard.__setitem__, watch=seen.extend)
    assert heard == {i: i * i for i in range(6)}
    assert most == 2
    assert {r.words for r in seen} <= {"trained"}


def test_when_one_cannot_go_on_the_others_are_ended(tmp_path: Path) -> None:
    stop, ended = threading.Event(), list[str]()

    def sleeper() -> None:
        try:
            run_child(SLEEPER, tmp_path / "sleeper.log", 50, stop)
        except ChildStopped:
            ended.append("sleeper")

    def broken() -> None:
        wait_until(lambda: "asleep" in (tmp_path / "sleeper.log").read_text(), 10, "the sleeper")
        raise ExperimentError("Open vSwitch does not answer")

    (tmp_path / "sleeper.log").touch()
    tasks = [Task("a", tmp_path / "a", sleeper), Task("b", tmp_path / "b", broken), Task("c", tmp_path / "c", sleeper)]
    with pytest.raises(ExperimentError, match="does not answer"):
        side_by_side(tasks, 2, stop, finished=lambda place, result: None)
    assert ended == ["sleeper"], "the one that had begun was ended, the one that waited never began"


def test_ctrl_c_ends_all(tmp_path: Path) -> None:
    (tmp_path / "several.py").write_text(
        textwrap.dedent(f"""
        import pathlib, sys, threading
        from experiments.sweeping.runner import Task, side_by_side
        from experiments.testbed.processes import end_in_order, run_child
        end_in_order()
        here, stop = pathlib.Path({str(tmp_path)!r}), threading.Event()
        work = lambda name: lambda: run_child({SLEEPER!r}, here / name, 50, stop)
        try:
            side_by_side([Task(n, here / n, work(n)) for n in "abc"], 2, stop, finished=print)
        except KeyboardInterrupt:
            sys.exit(130)
        """)
    )
    parent = subprocess.Popen([sys.executable, str(tmp_path / "several.py")], env={"PYTHONPATH": str(PROJECT)})
    try:
        logs = [tmp_path / name for name in "ab"]
        wait_until(lambda: all(log.exists() and "asleep" in log.read_text() for log in logs), 15, "two runs")
        parent.send_signal(signal.SIGINT)
        assert parent.wait(15) == 130
    finally:
        parent.kill()
    assert not (tmp_path / "c").exists()
    assert "KeyboardInterrupt" in logs[0].read_text() and "KeyboardInterrupt" in logs[1].read_text()


def test_what_measured_nothing_is_tried_twice_and_what_lay_there_is_put_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = list[list[str]]()

    def child(command: list[str], log: Path, timeout_s: float, stop: object) -> int:
        said.append(command)
        (tmp_path / "cell").mkdir()
        log.write_text("no end in sight\n")
        return 1

    monkeypatch.setattr("experiments.sweeping.runner.run_child", child)
    (tmp_path / "cell").mkdir()
    how = How(threading.Event(), ["nice"], apart=True)
    assert measured(tmp_path / "cell", ["heart"], lambda: None, how) == (None, "no end in sight")
    assert len(list(tmp_path.glob("cell.failed-*"))) == 2
    assert said[0][:4] == ["nice", *sandboxed([])[:3]]
    assert said[0][said[0].index("run") :][:2] == ["run", "heart"]


def test_a_machine_that_is_not_ready_ends_it_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def child(command: list[str], log: Path, timeout_s: float, stop: object) -> int:
        log.write_text("error: Open vSwitch does not answer: start it\n")
        return 2

    monkeypatch.setattr("experiments.sweeping.runner.run_child", child)
    with pytest.raises(ExperimentError, match=r"^Open vSwitch does not answer"):
        measured(tmp_path / "cell", ["heart"], lambda: None, How(threading.Event()))
