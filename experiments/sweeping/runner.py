"""Many runs, so many at a time: each a ``daitn run`` in a process of its own, where several go at once in a sandbox.

``daitn compare`` and ``daitn sweep`` both stand on this.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

from experiments.errors import ExperimentError
from experiments.testbed.processes import ChildStopped, ChildTimeout, Stop, last_words, python, run_child, undisturbed
from topologies.sandbox.sandbox import sandboxed

T = TypeVar("T")
ATTEMPTS = 2
NOT_READY = 2
RUN_TIMEOUT_S = 400.0
LOOK_S = 0.5


class How(NamedTuple):
    """How runs are made. ``prefix``: words before each; ``apart``: each in a sandbox; ``stop``: set, all end."""

    stop: Stop
    prefix: Sequence[str] = ()
    timeout_s: float = RUN_TIMEOUT_S
    apart: bool = False


class Task(NamedTuple, Generic[T]):
    """One thing to do; ``log`` tells meanwhile how far it is."""

    label: str
    log: Path
    work: Callable[[], T]


class Running(NamedTuple):
    """A task that is being done."""

    label: str
    seconds: float
    words: str


def measured(folder: Path, words: Sequence[str], read: Callable[[], T | None], how: How) -> tuple[T | None, str]:
    """Carry out ``daitn run`` with these words into a folder until ``read`` finds a measurement, twice at most.

    Return what was found, and the run's last words. ``ExperimentError``: the machine is not ready for any.
    """
    fault = ""
    for attempt in range(ATTEMPTS):
        fault = run_once(folder, words, attempt, how)
        found = read()
        if found is not None:
            return found, fault
    return None, fault


def run_once(folder: Path, words: Sequence[str], attempt: int, how: How) -> str:
    """Carry out ``daitn run`` once; what lies in its folder from before is put aside. Return its last words."""
    if folder.exists():
        folder.rename(folder.with_name(f"{folder.name}.failed-{int(time.time())}-{attempt}"))
    log = log_of(folder)
    command = python("experiments.cli", "run", *words, "--run-dir", str(folder), "--no-page", "--no-capture")
    command = [*how.prefix, *(sandboxed(command) if how.apart else command)]
    with contextlib.suppress(ChildTimeout):  # its report, if there is one, tells what came of it
        if run_child(command, log, how.timeout_s, how.stop) == NOT_READY:
            raise ExperimentError(last_words(log).removeprefix("error: "))
    return last_words(log)


def log_of(folder: Path) -> Path:
    """Return where the words of a run into a folder go."""
    return folder.with_name(f"{folder.name}.log")


def side_by_side(
    tasks: Sequence[Task[T]], jobs: int, stop: threading.Event, *,
    finished: Callable[[int, T], None], watch: Callable[[Sequence[Running]], None] = lambda running: None,
) -> None:  # fmt: skip
    """Do all tasks, ``jobs`` at a time; ``finished`` hears of each, by its place, as it ends.

    The first error, or Ctrl-C, sets ``stop``, which every task heeds, and waits until all have taken down what stood.
    """
    began: dict[int, float] = {}

    def do(place: int) -> T:
        if stop.is_set():
            raise ChildStopped
        began[place] = time.monotonic()
        try:
            return tasks[place].work()
        except BaseException:
            stop.set()  # here: this thread takes the next task before anybody hears of it
            raise

    pool = ThreadPoolExecutor(jobs, thread_name_prefix="run")
    try:
        places = {pool.submit(do, place): place for place in range(len(tasks))}
        pending = set(places)
        while pending:
            done, pending = wait(pending, LOOK_S, FIRST_COMPLETED)
            for future in done:
                if not isinstance(future.exception(), ChildStopped):  # because of another, which says why
                    finished(places[future], future.result())
            now, busy = time.monotonic(), sorted(places[f] for f in pending if f.running())
            watch([Running(tasks[i].label, now - began.get(i, now), _words(tasks[i].log)) for i in busy])
    finally:
        stop.set()
        with undisturbed():
            pool.shutdown(wait=True, cancel_futures=True)


def _words(log: Path) -> str:
    return last_words(log) if log.exists() and log.stat().st_size else "starting"
