"""Child processes of a run: started with the run's tag in their environment, logged to a file, ended by pid."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

from experiments.errors import RunFailed

PROJECT = Path(__file__).resolve().parents[2]
RUN_VARIABLE = "DAITN_RUN"
TEARDOWN_S = 60.0
LOOK_S = 0.2
ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stop(Protocol):
    """Tells whether all are to end: an event of threads, or of whoever else knows."""

    def is_set(self) -> bool: ...


class ChildTimeout(Exception):
    """A child did not end within its time limit and was ended, with all that it had started in its session."""


def end_in_order(*, once: bool = False) -> None:
    """Make a request to end this process a ``KeyboardInterrupt``, so that what it built is taken down.

    ``once``: who asks twice gets no other end (timeout(1) sends SIGTERM to its child and to the child's group).
    """

    def interrupt(*_: object) -> None:
        if once:
            for number in ENDINGS:
                signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    for number in ENDINGS:
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # nohup stays nohup
            signal.signal(number, interrupt)


class ChildStopped(Exception):
    """A child was ended before its time, because all were to end."""


class Child:
    """One process of ours. ``stop`` asks (TERM), waits, then insists (KILL).

    ``mortal``: its death is no failure, somebody starts it again (``revival``).
    """

    def __init__(self, name: str, command: list[str], log: Path, run_id: str) -> None:
        self.name = name
        self.log = log
        self.mortal = False
        self._command, self._run_id = command, run_id
        self.start()

    def start(self) -> None:
        """Start the process, for the first time or again."""
        environment = os.environ | {RUN_VARIABLE: self._run_id, "PYTHONPATH": str(PROJECT), "OMP_NUM_THREADS": "1"}
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=environment,
                cwd=PROJECT,
                start_new_session=True,
            )

    def check(self) -> None:
        """Raise ``RunFailed`` with the process's last words when it has ended."""
        if self.process.poll() is not None and not self.mortal:
            raise RunFailed(
                f"{self.name} ended with status {self.process.returncode}: {last_words(self.log)} (log: {self.log})"
            )

    def ask_to_stop(self) -> None:
        """Send TERM and do not wait."""
        if self.process.poll() is None:
            self.process.terminate()

    def stop(self, timeout_s: float = 3.0) -> None:
        """End the process, whatever it does; returns when it is gone."""
        self.ask_to_stop()
        try:
            self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(5)


def run_child(command: Sequence[str], log: Path, timeout_s: float, stop: Stop | None = None) -> int:
    """Run a command to its end, its words into ``log``; return its exit status.

    Ctrl-C and the time limit first ask it to take down what it built (SIGINT), then end its session: ``ChildTimeout``.
    So does ``stop``, where others run beside it: ``ChildStopped``.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=PROJECT, start_new_session=True
        )
        try:
            return child.wait(timeout_s) if stop is None else _wait(child, timeout_s, stop)
        except subprocess.TimeoutExpired:
            raise ChildTimeout(f"no end after {timeout_s:.0f} s; log: {log}") from None
        finally:
            _end(child)


def _wait(child: subprocess.Popen[bytes], timeout_s: float, stop: Stop) -> int:
    end = time.monotonic() + timeout_s
    while not stop.is_set():
        with contextlib.suppress(subprocess.TimeoutExpired):
            return child.wait(min(LOOK_S, max(0.0, end - time.monotonic())))
        if time.monotonic() > end:
            raise subprocess.TimeoutExpired(child.args, timeout_s)
    raise ChildStopped


def _end(child: subprocess.Popen[bytes]) -> None:
    with undisturbed():  # who asks twice gets no other end: a network left standing bars the next run
        for number, patience_s in ((signal.SIGINT, TEARDOWN_S), (signal.SIGKILL, 5.0)):
            if child.poll() is not None:
                return
            os.killpg(child.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(patience_s)


def python(module: str, *arguments: str) -> list[str]:
    """Return the command that runs a module of this project with this interpreter."""
    return [sys.executable, "-m", module, *arguments]


def last_words(log: Path) -> str:
    """Return the last line of a log that says something."""
    try:
        lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    except OSError:
        return "no log"
    return lines[-1] if lines else "it said nothing"


def wait_for(what: str, ready: Callable[[], bool], timeout_s: float, meanwhile: Callable[[], None]) -> None:
    """Wait until ``ready()`` is true; ``meanwhile`` may raise, ``RunFailed`` names what was waited for."""
    end = time.monotonic() + timeout_s
    while not ready():
        meanwhile()
        if time.monotonic() > end:
            raise RunFailed(f"{what}: not there after {timeout_s:.0f} s")
        time.sleep(0.02)


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Ignore requests to end meanwhile, here and (inherited) in the tools that are called: half a teardown is none."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, signal.SIG_IGN) for number in ENDINGS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
