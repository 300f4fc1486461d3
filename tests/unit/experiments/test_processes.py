"""Children of a benchmark: whoever is asked to end first lets its child take down what it built."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from experiments.testbed.processes import PROJECT

CHILD = """
    import pathlib, signal, sys, time
    here = pathlib.Path(sys.argv[1])
    def end(*_):
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        time.sleep(0.8)
        (here / "taken down").touch()
        sys.exit(130)
    signal.signal(signal.SIGINT, end)
    (here / "standing").touch()
    time.sleep(60)
"""
PARENT = """
    import pathlib, signal, sys
    from experiments.testbed.processes import run_child
    here = pathlib.Path(sys.argv[1])
    def end(*_):
        raise KeyboardInterrupt
    signal.signal(signal.SIGTERM, end)
    try:
        run_child([sys.executable, str(here / "child.py"), str(here)], here / "log", 50)
    except KeyboardInterrupt:
        sys.exit(130)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_who_is_asked_to_end_twice_still_waits_for_its_child(tmp_path: Path, number: signal.Signals) -> None:
    for name, text in (("child.py", CHILD), ("parent.py", PARENT)):
        (tmp_path / name).write_text(textwrap.dedent(text))
    parent = subprocess.Popen(
        [sys.executable, str(tmp_path / "parent.py"), str(tmp_path)], env=os.environ | {"PYTHONPATH": str(PROJECT)}
    )
    try:
        end = time.monotonic() + 20
        while not (tmp_path / "standing").exists():
            assert time.monotonic() < end and parent.poll() is None
            time.sleep(0.02)
        for _ in range(3):
            parent.send_signal(number)
            time.sleep(0.2)
        assert parent.wait(20) == 130
    finally:
        parent.kill()
    assert (tmp_path / "taken down").exists()
