"""Control centres that die are started again: the switches keep forwarding meanwhile, the terminals register anew."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

from experiments.testbed.processes import Child, last_words
from topologies.machine.ledger import ProcessRecord, start_time
from topologies.machine.waiting import wait_until

LOOK_S = 0.25
PAUSE_S = 0.25  # before the second life; twice that before each later one
MOST, WITHIN_S = 5, 60.0  # one that dies more often than that has a reason that a new life does not mend


def forked_by(pid: int) -> list[int]:
    """Return the children of a process; none where it is gone."""
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def life_of(pid: int) -> int:
    """Return the process in which a control centre serves, of the parent that was started."""
    return next(iter(forked_by(pid)), pid)


class Revival:
    """Watches processes from a thread of its own, from ``start`` to ``stop``; ``warn`` gets one line about a death."""

    def __init__(self, children: Sequence[Child], warn: Callable[[str], None]) -> None:
        self._children, self._warn = children, warn
        self._deaths: dict[str, deque[float]] = {child.name: deque() for child in children}
        self._not_before: dict[str, float] = {child.name: 0.0 for child in children}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="revival", daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        for child in self._children:
            child.mortal = True
        self._thread.start()

    def stop(self) -> None:
        """Let what dies from now on stay dead."""
        self._over.set()
        self._thread.join(5.0)

    def end(self, children: Sequence[Child]) -> list[int]:
        """Kill some of these for good, and let what dies from now on stay dead; return the ids of all that died.

        What they have forked (a control centre's life) dies with them: it is waited for, too.
        """
        self.stop()
        pids = [pid for child in children for pid in forked_by(child.process.pid)]
        forked = [ProcessRecord(pid, start_time(pid) or 0) for pid in pids]
        for child in children:
            child.process.kill()
            child.process.wait(5.0)
        wait_until(lambda: not any(record.alive() for record in forked), 5.0)
        return [child.process.pid for child in children] + pids

    def _watch(self) -> None:
        while not self._over.wait(LOOK_S):
            for child in self._children:
                due = time.monotonic() >= self._not_before[child.name]
                if child.mortal and due and child.process.poll() is not None:
                    self._revive(child)

    def _revive(self, child: Child) -> None:
        status, words, now_s = child.process.returncode, last_words(child.log), time.monotonic()
        deaths = self._deaths[child.name]
        deaths.append(now_s)
        while deaths[0] < now_s - WITHIN_S:
            deaths.popleft()
        if len(deaths) > MOST:
            child.mortal = False  # whoever waits for it is told
            self._warn(f"{child.name} ended with status {status} for the {len(deaths)}th time: left dead ({words})")
            return
        self._not_before[child.name] = now_s + PAUSE_S * 2 ** len(deaths)
        try:
            child.start()
        except OSError as error:  # no memory, no files: it may be better in a moment, and this thread goes on
            self._warn(f"{child.name} ended with status {status} and cannot be started again: {error}")
            return
        self._warn(f"{child.name} ended with status {status} and is started again ({words}; log: {child.log})")
