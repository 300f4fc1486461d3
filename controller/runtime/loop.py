"""One loop, one worker: every event, message and periodic duty of a control centre runs here, one after another.

Periodic work is one table ``{name: (method, period)}``.  An error in handling one thing is an error event, never the
end.  A watchdog thread looks from outside whether the loop still turns, and ends the program loudly when it does not.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Coroutine
from typing import Any

from controller.errors import ControllerError
from packets.events import Emit

Table = dict[str, tuple[Callable[[], Any], float]]
STUCK_S = 60.0


class Worker:
    """Runs coroutines and the periodic table on the current asyncio loop."""

    def __init__(self, emit: Emit) -> None:
        self.emit = emit
        self.beat_s = time.monotonic()
        self._tasks: set[asyncio.Task[None]] = set()

    def spawn(self, work: Coroutine[Any, Any, Any], doing: str) -> None:
        """Start some work; whatever it raises becomes an error event that says what was being done."""
        task = asyncio.get_running_loop().create_task(self._guard(work, doing))
        self._tasks.add(task)

        def done(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            work.close()  # where it was cancelled before it began

        task.add_done_callback(done)

    async def _guard(self, work: Coroutine[Any, Any, Any], doing: str) -> None:
        try:
            await work
        except Exception as error:
            self.report(error, doing)

    def report(self, error: Exception, doing: str) -> None:
        """Tell of an error; one that is none of ours comes with its place in the code."""
        where = "" if isinstance(error, ControllerError) else _place(error)
        self.emit("error", text=f"{doing}: {error or type(error).__name__}{where}")

    def every(self, table: Table) -> None:
        """Start the periodic table."""
        for name, (method, period_s) in table.items():
            self.spawn(self._repeat(name, method, period_s), name)

    async def _repeat(self, name: str, method: Callable[[], Any], period_s: float) -> None:
        while True:
            await asyncio.sleep(period_s)
            self.beat_s = time.monotonic()
            try:
                result = method()
                if asyncio.iscoroutine(result):
                    await result
            except Exception as error:
                self.report(error, name)

    async def idle(self) -> None:
        """Return when no work is left but the periodic (for tests without a table)."""
        while self._tasks:
            await asyncio.wait(set(self._tasks))

    def stop(self) -> None:
        """Cancel all work that is under way."""
        for task in self._tasks:
            task.cancel()

    def watch(self, stuck_s: float = STUCK_S) -> threading.Thread:
        """Start the watchdog."""
        thread = threading.Thread(target=self._watch, args=(stuck_s,), daemon=True, name="watchdog")
        thread.start()
        return thread

    def _watch(self, stuck_s: float) -> None:
        pause = threading.Event()
        while time.monotonic() - self.beat_s < stuck_s:
            pause.wait(stuck_s / 10)
        text = f"control centre stuck for {stuck_s:g} s: ending"
        self.emit("error", text=text)
        sys.stderr.write(text + "\n")
        os._exit(3)


def _place(error: Exception) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    return (
        f" ({type(error).__name__} at {frames[-1].filename.rsplit('/', 1)[-1]}:{frames[-1].lineno})" if frames else ""
    )
