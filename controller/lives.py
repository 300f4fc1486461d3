"""The lives of a control centre: one process serves, its parent waits; where it dies, the next is there at once.

The parent has loaded all that a control centre needs, and forks: a life begins with nothing to import, and shares its
memory with the parent until it writes.  What the life before it knew is in the database, its switches' spare sessions
(``southbound.session.spares``) are in the parent's hands.  A life that got as far as to have its switches counts as
progress: deaths after that are made good at once, without end.  One that dies before, time and again, has a reason that
a new life does not mend: each is waited for longer, and after ``MOST`` the parent gives up.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import selectors
import signal
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from controller.southbound.session.spares import Spare, Spares
from topologies.plan import OPENFLOW_ADDRESSES

MOST = 5
PAUSE_S = 0.1  # after the second fruitless life; twice that after each later one
LIVED_S = 1.0  # with its switches: that long is progress
COULD_NOT_START = 2
PR_SET_PDEATHSIG = 1
ENDINGS = (signal.SIGINT, signal.SIGTERM)


@dataclass
class Life:
    """One life: where it listens, the sessions that it takes over, and how it says that it has its switches."""

    number: int
    address: str
    spares: list[Spare] = field(default_factory=list)
    pipe: int = -1

    def ready(self) -> None:
        """Say that all switches are there."""
        if self.pipe >= 0:
            with contextlib.suppress(OSError):
                os.write(self.pipe, b"r")


class Lives:
    """Runs ``serve`` in one process after the other, until one ends of itself. ``warn`` hears of deaths.

    ``addresses``: lives listen at them by turns, the parent takes spare sessions at the next one; one: there are none.
    """

    def __init__(
        self,
        port: int,
        serve: Callable[[Life], int],
        warn: Callable[[str], None],
        addresses: Sequence[str] = OPENFLOW_ADDRESSES,
    ) -> None:
        self._serve, self._warn, self._addresses = serve, warn, addresses
        self._selector = selectors.DefaultSelector()
        self._spares = Spares(port, self._selector)
        self._asked_to_end = False
        self._child = 0
        self._signals, self._wake = os.pipe()  # a signal that comes just before a wait ends that wait, too
        os.set_blocking(self._signals, False)
        os.set_blocking(self._wake, False)
        self._selector.register(self._signals, selectors.EVENT_READ, "signals")

    def run(self) -> int:
        """Return the exit status of the last life."""
        number = fruitless = 0
        for ending in ENDINGS:
            signal.signal(ending, self._pass_on)
        signal.set_wakeup_fd(self._wake)
        while True:
            status, lived_s = self._live(number)
            if self._asked_to_end or not status or (status == COULD_NOT_START and not number):
                return status
            number += 1
            fruitless = 0 if lived_s >= LIVED_S else fruitless + 1
            if fruitless > MOST:
                self._warn(f"it ended with status {status} for the {fruitless}th time before its switches were there")
                return status if status > 0 else 128 - status
            self._warn(f"it ended with status {status} and goes on in another process")
            self._wait(PAUSE_S * 2 ** (fruitless - 2) if fruitless > 1 else 0.0)

    def _live(self, number: int) -> tuple[int, float]:
        """Have one life; return how it ended, and for how many seconds it had its switches."""
        life = Life(number, self._address(number), self._spares.take())
        self._spares.close()
        reading, life.pipe = os.pipe()
        parent = os.getpid()
        self._child = child = os.fork()
        if not child:
            self._be(life, parent)
        os.close(life.pipe)
        for spare in life.spares:
            spare.socket.close()
        if self._asked_to_end:  # in the moment before there was anybody to tell
            os.kill(child, signal.SIGTERM)
        if (other := self._address(number + 1)) != life.address:
            self._spares.open(other)
        try:
            return self._watch(child, reading)
        finally:
            self._child = 0
            os.close(reading)

    def _address(self, number: int) -> str:
        return self._addresses[number % len(self._addresses)]

    def _be(self, life: Life, parent: int) -> None:
        """Be the child; does not return."""
        status = 1
        try:
            signal.set_wakeup_fd(-1)
            for ending in ENDINGS:
                signal.signal(ending, signal.SIG_DFL)
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # no life without somebody to start the next
            self._selector.close()
            if os.getppid() == parent:
                status = self._serve(life)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)

    def _watch(self, child: int, reading: int) -> tuple[int, float]:
        os.set_blocking(reading, False)
        ready_s = None
        watched = os.pidfd_open(child)
        self._selector.register(watched, selectors.EVENT_READ, "child")
        self._selector.register(reading, selectors.EVENT_READ, "pipe")
        try:
            while True:
                for key, _ in self._selector.select():
                    if key.data == "pipe":
                        if os.read(reading, 16):
                            ready_s = ready_s or time.monotonic()
                        else:
                            self._selector.unregister(reading)
                    elif key.data == "child":
                        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
                        return status, time.monotonic() - ready_s if ready_s else 0.0
                    else:
                        self._do(key.data)
        finally:
            self._selector.unregister(watched)
            os.close(watched)
            with contextlib.suppress(KeyError):
                self._selector.unregister(reading)

    def _wait(self, pause_s: float) -> None:
        """Pause, with an eye on the spare sessions."""
        end_s = time.monotonic() + pause_s
        while (left_s := end_s - time.monotonic()) > 0 and not self._asked_to_end:
            for key, _ in self._selector.select(left_s):
                self._do(key.data)

    def _do(self, about: object) -> None:
        if about == "signals":
            os.read(self._signals, 16)
        else:
            self._spares.ready(about)

    def _pass_on(self, number: int, _frame: object) -> None:
        self._asked_to_end = True
        if self._child:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._child, number)
