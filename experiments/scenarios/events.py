"""Timed events of a scenario: what happens to terminals while models travel, at its second after the first launch.

::

    events:
      - {at_s: 3, do: collect, node: h11, count: 300, group: cardiology}   # new samples come in
      - {at_s: 5, do: leave, node: h22}                                    # withdraws in good order
      - {at_s: 8, do: join, node: h43}                                     # was not there from the start
      - {at_s: 9, do: crash, node: h31}                                    # its process is killed

A node whose first event is ``join`` is not started with the others.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec

from experiments.errors import ExperimentError, RunFailed, ScenarioError

if TYPE_CHECKING:
    from experiments.testbed.testbed import Testbed

LEAVE_TIMEOUT_S = 60.0


class TimedEvent(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One event. ``count`` and ``group`` ('' for the node's own mix) are those of ``collect``."""

    at_s: Annotated[float, msgspec.Meta(ge=0, le=3600)]
    do: Literal["crash", "leave", "join", "collect"]
    node: str
    count: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = 200
    group: str = ""


def check(events: Sequence[TimedEvent], roles: dict[str, str], where: str) -> None:
    """Check that events name terminals, and collect at data nodes; ``ScenarioError``."""
    for event in events:
        if event.node not in roles:
            known, what = ", ".join(sorted(roles)), f"event {event.do} names {event.node}"
            raise ScenarioError(f"scenario {where}: {what}, which is no terminal; there are {known}")
        if event.do == "collect" and roles[event.node] != "data":
            raise ScenarioError(f"scenario {where}: {event.node} is no data node, it cannot collect samples")


def late(events: Sequence[TimedEvent]) -> set[str]:
    """Return the terminals that are not there from the start."""
    first: dict[str, str] = {}
    for event in sorted(events, key=lambda e: e.at_s):
        first.setdefault(event.node, event.do)
    return {node for node, do in first.items() if do == "join"}


class Timeline:
    """Carries events out on a thread of its own, from ``start`` on; what fails is a warning event."""

    def __init__(self, bed: Testbed, events: Sequence[TimedEvent]) -> None:
        self.bed = bed
        self._events = sorted(events, key=lambda e: e.at_s)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="timeline", daemon=True)

    def __enter__(self) -> Timeline:
        if self._events:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()

    def _run(self) -> None:
        began = time.monotonic()
        for event in self._events:
            if self._over.wait(max(0.0, began + event.at_s - time.monotonic())):
                return
            try:
                carry_out(self.bed, event)
            except (RunFailed, ExperimentError) as error:
                self.bed.hub.emit("warning", text=f"{event.do} of {event.node} failed: {error}")


def carry_out(bed: Testbed, event: TimedEvent) -> None:
    """Let one event happen."""
    bed.hub.emit("timed.event", do=event.do, node=event.node, at_s=event.at_s)
    if event.do == "collect":
        bed.tell(event.node, "collect", count=event.count, group=event.group)
    elif event.do == "leave":
        bed.tell(event.node, "leave", LEAVE_TIMEOUT_S)
    elif event.do == "join":
        bed.start_agent(event.node)
    else:
        crash(bed, event.node)


def crash(bed: Testbed, node: str) -> None:
    """Kill a terminal's process, as a power cut would."""
    pids = [e.data["pid"] for e in bed.events if e.kind == "agent.ready" and e.data.get("name") == node]
    if not pids:
        raise RunFailed(f"{node} has no process to kill")
    with contextlib.suppress(ProcessLookupError):
        os.kill(int(pids[-1]), signal.SIGKILL)
