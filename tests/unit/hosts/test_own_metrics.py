"""Metrics of one's own at a terminal: whatever the functions do, what is reported is a number or nothing."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from controller.values.metrics import OwnMetric
from hosts.terminal import own_metrics
from hosts.terminal.metric_worker import measure
from hosts.terminal.own_metrics import NEWS, STRIKES, OwnMetrics
from tests.helpers import wait_until

SOURCE = """
import os, time
count = 0

def power(about):
    print("to whom it concerns")
    return 20 + 180 * about["load"]

def whole(about): return 7
def raises(about): raise ValueError("no such sensor")
def leaves(about): raise SystemExit(3)
def words(about): return "warm"
def truth(about): return True
def nothing(about): return None
def nan(about): return float("nan")
def endless(about): return float("inf")
def huge(about): return 1e16
def hangs(about): time.sleep(60)
def ends(about): os._exit(3)
def asks(about): return about["no such thing"]

def seldom(about):
    global count
    count += 1
    if count == 1:
        raise OSError("busy")
    return 5.0

NUMBER = 5
"""
BAD = {
    "raises": "no such sensor", "leaves": "SystemExit: 3", "words": "'warm', which is no number",
    "truth": "True, which is no number", "nothing": "None, which is no number", "nan": "nan, which is no number within",
    "endless": "inf, which is no number within", "huge": "1e+16, which is no number within", "asks": "no such thing",
    "NUMBER": "has no function 'NUMBER'", "absent": "has no function 'absent'",
}  # fmt: skip
Make = Callable[..., OwnMetrics]


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def make(tmp_path: Path, told: list[str]) -> Iterator[Make]:
    file, made = tmp_path / "mine.py", list[OwnMetrics]()
    file.write_text(SOURCE)

    def maker(*names: str, limit_s: float = 5.0, path: Path = file) -> OwnMetrics:
        declared = {n: OwnMetric(source=f"{path}:{n}", category="computing", best=20.0, worst=200.0) for n in names}
        made.append(OwnMetrics(declared, told.append, limit_s))
        made[-1].about = {"name": "mdfp1", "load": 0.5}
        return made[-1]

    yield maker
    for one in made:
        one.end()


def test_a_figure_is_what_the_function_makes_of_what_the_terminal_reports(make: Make, told: list[str]) -> None:
    metrics = make("power", "whole")
    metrics.round()
    assert metrics.values == {"power": 110.0, "whole": 7.0} and told == []
    metrics.about = {"load": 0.5 + 0.9 * NEWS}
    metrics.round()
    assert metrics.values["power"] == 110.0, "a little is no news"
    metrics.about = {"load": 0.6}
    metrics.round()
    assert metrics.values["power"] == pytest.approx(128.0)


def test_what_is_no_figure_is_told_once_and_left_out(make: Make, told: list[str]) -> None:
    metrics = make("power", *BAD)
    metrics.round()
    metrics.round()
    assert metrics.values == {"power": 110.0}
    assert len(told) == len(BAD)
    for name, words in BAD.items():
        assert any(f"metric {name}: " in t and words in t and t.endswith("it is left out") for t in told), (name, told)


def test_one_that_fails_at_first_counts_once_it_works(make: Make, told: list[str]) -> None:
    metrics = make("seldom")
    metrics.round()
    assert metrics.values == {}
    metrics.round()
    assert metrics.values == {"seldom": 5.0} and len(told) == 1


@pytest.mark.parametrize(("name", "words"), [("hangs", "no figure within 0.3 s"), ("ends", "its process ended")])
def test_one_that_hangs_or_ends_its_process_is_not_asked_for_long(
    make: Make, told: list[str], name: str, words: str
) -> None:
    metrics = make("power", name, limit_s=0.3)
    began_s = time.monotonic()
    for _ in range(STRIKES + 1):
        metrics.round()
    assert time.monotonic() - began_s < 20 and metrics.values == {"power": 110.0}
    assert len(told) == 2 and words in told[0] and "not asked for any more" in told[1], told


def test_a_file_that_is_not_there_or_does_not_load_costs_nothing_else(
    make: Make, told: list[str], tmp_path: Path
) -> None:
    metrics = make("power", path=tmp_path / "none.py")
    metrics.round()
    assert metrics.values == {} and "there is no file" in told[0]
    (tmp_path / "bad.py").write_text("import nothing_of_that_name")
    metrics = make("power", path=tmp_path / "bad.py")
    metrics.round()
    assert metrics.values == {} and "nothing_of_that_name" in told[1] and "bad.py, line 1" in told[1]


def test_its_thread_measures_and_ends_with_its_process(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own_metrics, "EVERY_S", 0.02)
    metrics, stopping = make("power"), threading.Event()
    metrics.start(stopping)
    wait_until(lambda: metrics.values.get("power") == 110.0, 20.0, "the first figure")
    process = metrics._process
    assert process is not None
    metrics.about = {"load": 1.0}
    wait_until(lambda: metrics.values.get("power") == 200.0, 20.0, "a new figure")
    stopping.set()
    wait_until(lambda: metrics._process is None, 5.0, "its end")
    assert process.poll() is not None and not os.path.exists(f"/proc/{process.pid}")


def test_a_function_that_hangs_does_not_outlive_its_terminal(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("def hangs(about):\n    while True:\n        pass\n")
    terminal = subprocess.Popen([sys.executable, "-c", TERMINAL, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert terminal.stdout is not None
    worker = int(terminal.stdout.readline())
    assert "hosts.terminal.metric_worker" in Path(f"/proc/{worker}/cmdline").read_text()
    terminal.kill()
    terminal.wait()
    wait_until(lambda: not alive(worker), 5.0, "the end of the worker")


TERMINAL = """
import sys, threading, time
from controller.values.metrics import OwnMetric
from hosts.terminal.own_metrics import OwnMetrics
hangs = OwnMetric(source=f"{sys.argv[1]}/mine.py:hangs", category="computing", best=0, worst=1)
metrics = OwnMetrics({"hangs": hangs}, print, limit_s=60.0)
metrics.start(threading.Event())
while metrics._process is None:
    time.sleep(0.01)
time.sleep(0.5)
print(metrics._process.pid, flush=True)
time.sleep(60)
"""


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_without_a_metric_nothing_runs(make: Make) -> None:
    metrics = make()
    before = threading.active_count()
    metrics.start(threading.Event())
    assert threading.active_count() == before and metrics._process is None


def test_numbers_of_other_kinds_count() -> None:
    import numpy as np

    assert measure(lambda about: np.float32(2.5), {}).value == 2.5
    assert measure(lambda about: np.array([1.0]), {}).fault
