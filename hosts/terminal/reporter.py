"""Telemetry of one terminal: register with the DCC, then report what changed when it changes (``Terminal.touch``).

What changes by itself (load, memory) is looked at twice a second, and every two seconds there is a heartbeat. Where
the DCC answers late, changes gather before they are reported (``pace``). The DCC may ask for values out of turn
(``pull``): they go out with the next report, changed or not, and without such a pause.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Protocol

from hosts.errors import DccRefused, DccSilent
from hosts.terminal.dcc_line import DccLine
from hosts.terminal.pace import Pace
from packets.events import Emit
from packets.messages import Ack, Register, Report
from packets.wire import PacketType
from topologies.plan import HostPlan

LOOK_S = 0.5
HEARTBEAT_S = 2.0
GLANCE_S = 0.05  # how late a pull may be noticed in a pause
_ABSOLUTE = 0.05
_RELATIVE = 0.1

Attributes = dict[str, Any]


class Reporting(Protocol):
    """The part of ``hosts.terminal.terminal.Terminal`` that reports: it needs no PyTorch."""

    plan: HostPlan
    dcc: DccLine
    emit: Emit
    stopping: threading.Event
    changed: threading.Event
    changed_unix_s: float

    @property
    def name(self) -> str: ...

    @property
    def clock(self) -> Callable[[], float]: ...


def differs(old: object, new: object) -> bool:
    """Tell whether a value changed enough to be worth a packet; floats by 0.05 and a tenth, everything else exactly."""
    if isinstance(old, float) and isinstance(new, float):
        return abs(new - old) > max(_ABSOLUTE, _RELATIVE * abs(old))
    return old != new


class Reporter:
    """Speaks for one terminal. ``attributes`` returns present values; what the DCC acknowledged is not said again."""

    def __init__(self, terminal: Reporting, attributes: Callable[[], Attributes]) -> None:
        self.terminal = terminal
        self.registered = False
        self._attributes = attributes
        self.known: Attributes = {}
        self._sequence = 0
        self._spoke_at = terminal.clock()
        self._silent = False
        self._wanted: set[str] = set()
        self.pace = Pace()

    def pull(self, names: list[str]) -> None:
        """The DCC wants these attributes fresh (none named: all)."""
        self._wanted |= set(names or self.known)
        self.terminal.changed.set()

    def run(self, when_registered: Callable[[], None]) -> None:
        """Register, then report until the terminal stops; a DCC that restarts is registered with again."""
        terminal = self.terminal
        while not terminal.stopping.is_set():
            if self.registered:
                terminal.changed.wait(LOOK_S)
                self._gather()
                terminal.changed.clear()
                self.look()
            elif self.register():
                when_registered()
            else:
                terminal.stopping.wait(LOOK_S)

    def _gather(self) -> None:
        """Let changes gather while the DCC is busy; what it asked for itself goes at once."""
        terminal = self.terminal
        while (left_s := self.pace.pause_s(terminal.clock())) and not self._wanted and not terminal.stopping.is_set():
            terminal.stopping.wait(min(left_s, GLANCE_S))

    def register(self) -> bool:
        """Introduce the terminal with all its attributes; False when the DCC does not take it (yet)."""
        plan, now = self.terminal.plan, self._attributes()
        message = Register(name=plan.name, role=plan.role, address=plan.address, attributes=now)
        self.registered = self._tell(message)
        if self.registered:
            self.known = now
        return self.registered

    def look(self) -> None:
        """Report what changed since the last acknowledged report; nothing but a heartbeat when that is due."""
        since, self.terminal.changed_unix_s = self.terminal.changed_unix_s, 0.0
        wanted, self._wanted = self._wanted, set()
        now = self._attributes()
        changed = {k: v for k, v in now.items() if k not in self.known or differs(self.known[k], v)}
        said = {k: v for k, v in now.items() if k in changed or k in wanted}
        if not said and self.terminal.clock() - self._spoke_at < HEARTBEAT_S:
            return
        self._sequence += 1
        when = since if changed else 0.0
        report = Report(name=self.terminal.name, sequence=self._sequence, attributes=said, changed_unix_s=when)
        if self._tell(report):
            self.known |= said

    def _tell(self, message: Register | Report) -> bool:
        asked_s = self.terminal.clock()
        try:
            self.terminal.dcc.ask(message, Ack, type=PacketType.TELEMETRY, attempts=1, timeout_s=2.0)
        except DccRefused as error:
            before, self.registered = self.registered, False
            if before:  # it has a new life: it is told who is here, and that is all there is to say
                return False
            self._note(f"DCC of K-AS {self.terminal.plan.kas} refused the report of {self.terminal.name}: {error}")
            return False
        except DccSilent as error:
            self._note(str(error))
            return False
        finally:
            self._spoke_at = self.terminal.clock()
        self.pace.answered(asked_s, self._spoke_at)
        self._silent = False
        return True

    def _note(self, text: str) -> None:
        """Say it once per silence, not once per attempt."""
        if not self._silent:
            self._silent = True
            self.terminal.emit("warning", text=text, node=self.terminal.name)
