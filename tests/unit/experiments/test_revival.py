"""A control centre that dies is started again, a few times; whoever waits for it is told only when it stays dead."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from experiments.errors import RunFailed
from experiments.testbed.processes import Child
from experiments.testbed.revival import MOST, Revival
from topologies.machine.waiting import wait_until


def test_a_killed_process_is_started_again_and_told_of(tmp_path: Path) -> None:
    child = Child("dcc1", [sys.executable, "-c", "import time; time.sleep(60)"], tmp_path / "log", "t")
    said: list[str] = []
    revival = Revival([child], said.append)
    revival.start()
    try:
        first = child.process.pid
        os.kill(first, signal.SIGKILL)
        assert wait_until(lambda: bool(said), 5.0)
        child.check()
        assert child.process.pid != first and child.process.poll() is None
        assert "dcc1 ended with status -9 and is started again" in said[0]
    finally:
        revival.stop()
        child.stop()
    assert child.process.poll() is not None, "what is ended on purpose stays dead"


def test_one_that_cannot_be_started_just_now_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    child = Child("dcc1", [sys.executable, "-c", "import time; time.sleep(60)"], tmp_path / "log", "t")
    said: list[str] = []
    start, refused = child.start, iter([OSError("Cannot allocate memory")])

    def sometimes() -> None:
        for error in refused:
            raise error
        start()

    monkeypatch.setattr(child, "start", sometimes)
    revival = Revival([child], said.append)
    revival.start()
    try:
        child.process.kill()
        assert wait_until(lambda: len(said) > 1, 5.0)
        assert "cannot be started again: Cannot allocate memory" in said[0]
        assert child.process.poll() is None
    finally:
        revival.stop()
        child.stop()


def test_one_that_dies_at_once_is_left_dead(tmp_path: Path) -> None:
    child = Child("dcc1", [sys.executable, "-c", "print('no plan')"], tmp_path / "log", "t")
    said: list[str] = []
    revival = Revival([child], said.append)
    revival.start()
    try:
        assert wait_until(lambda: len(said) > MOST, 30.0)
        with pytest.raises(RunFailed, match="no plan"):
            child.check()
        assert "left dead (no plan)" in said[-1]
    finally:
        revival.stop()
        child.stop()


def test_what_is_ended_for_good_is_not_started_again(tmp_path: Path) -> None:
    sleep = [sys.executable, "-c", "import time; time.sleep(60)"]
    children = [Child(name, sleep, tmp_path / f"{name}.log", "t") for name in ("dcc1", "dcc2", "kbg1")]
    said: list[str] = []
    revival = Revival(children, said.append)
    revival.start()
    try:
        pids = [child.process.pid for child in children]
        assert revival.end(children[:2]) == pids[:2]
        assert [child.process.poll() for child in children] == [-signal.SIGKILL, -signal.SIGKILL, None]
        for child in children:
            child.check()
        assert not said and [child.process.pid for child in children] == pids
    finally:
        revival.stop()
        for child in children:
            child.stop()
