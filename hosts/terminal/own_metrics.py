"""Metrics of one's own at a terminal: measured beside its work, in a process that is ended when it hangs.

A function that raises, returns no number, or takes too long is told of once; its metric is left out until there is a
figure again. One that hung ``STRIKES`` times in a row is not asked any more. Nothing that it does holds up a report or
a query.
"""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from controller.values.metrics import OwnMetric
from hosts.terminal.metric_worker import Said

EVERY_S = 0.5  # as often as reports are looked at
LIMIT_S = 1.0  # of one figure
START_S = 30.0  # of loading a file, and whatever that imports
STRIKES = 3
MAX_LINE_BYTES = 4096
NEWS = 1 / 200  # of the way from best to worst; less is not worth a report
Tell = Callable[[str], None]


class OwnMetrics:
    """``values``: what is known now, by name. ``about``: what the functions are given; its owner keeps it true."""

    def __init__(self, declared: Mapping[str, OwnMetric], tell: Tell, limit_s: float = LIMIT_S) -> None:
        self.declared, self.limit_s = dict(declared), limit_s
        self.values: dict[str, float] = {}
        self.about: dict[str, Any] = {}
        self._asked = list(declared)
        self._tell, self._told = tell, set[str]()
        self._strikes: Counter[str] = Counter()
        self._process: subprocess.Popen[bytes] | None = None
        self._rest = b""

    def start(self, stopping: threading.Event) -> None:
        """Measure from now on, in a thread of its own, until ``stopping``."""
        if self.declared:
            threading.Thread(target=self._work, args=(stopping,), name="metrics", daemon=True).start()

    def _work(self, stopping: threading.Event) -> None:
        try:
            while self._asked:
                self.round()
                if stopping.wait(EVERY_S):
                    break
        finally:
            self.end()

    def round(self) -> None:
        """Ask every function once."""
        try:
            if self._process is None and not self._start():
                return
            self._say(self.about)
        except OSError as error:
            self.end()
            self._failed(self._asked[0], f"its process is gone: {error}", strike=True)
            return
        for name in list(self._asked):
            if (said := self._hear(name, self.limit_s)) is None:
                return
            if said.fault:
                self._failed(name, said.fault)
            else:
                self._measured(name, said.value)

    def _start(self) -> bool:
        """Start the process and return whether it is there; what cannot be loaded is not asked."""
        self._rest = b""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "hosts.terminal.metric_worker"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self._say({name: self.declared[name].source for name in self._asked})
        for name in list(self._asked):
            if (said := self._hear(name, START_S)) is None:
                return False
            if said.fault:
                self._asked.remove(name)
                self._failed(name, said.fault)
        return True

    def _say(self, words: Mapping[str, Any]) -> None:
        assert self._process is not None and self._process.stdin is not None
        self._process.stdin.write(msgspec.json.encode(words) + b"\n")
        self._process.stdin.flush()

    def _hear(self, name: str, limit_s: float) -> Said | None:
        """Return what came of a function; None, and no process, when it did not say in time."""
        assert self._process is not None and self._process.stdout is not None
        end_s, number = time.monotonic() + limit_s, self._process.stdout.fileno()
        while b"\n" not in self._rest:
            left_s = end_s - time.monotonic()
            ready = select.select([number], [], [], max(0.0, left_s))[0]
            data = os.read(number, MAX_LINE_BYTES) if ready else b""
            self._rest += data
            if not data or len(self._rest) > 2 * MAX_LINE_BYTES:
                self.end()
                self._failed(name, "its process ended" if ready else f"no figure within {limit_s:g} s", strike=True)
                return None
        line, _, self._rest = self._rest.partition(b"\n")
        with contextlib.suppress(msgspec.DecodeError):
            return msgspec.json.decode(line, type=Said)
        return Said(fault="what it said cannot be read")

    def _measured(self, name: str, value: float) -> None:
        self._strikes[name] = 0
        about, held = self.declared[name], self.values.get(name)
        if held is None or abs(value - held) > NEWS * abs(about.worst - about.best):
            self.values = self.values | {name: value}

    def _failed(self, name: str, fault: str, *, strike: bool = False) -> None:
        self.values = {n: value for n, value in self.values.items() if n != name}
        self._strikes[name] += strike
        if name not in self._told:
            self._told.add(name)
            self._tell(f"metric {name}: {fault}; it is left out")
        if strike and self._strikes[name] >= STRIKES and name in self._asked:
            self._asked.remove(name)
            self._tell(f"metric {name}: {fault}, {STRIKES} times in a row; it is not asked for any more")

    def end(self) -> None:
        """End the process."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout):
                with contextlib.suppress(OSError):
                    assert stream is not None
                    stream.close()
