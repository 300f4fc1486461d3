"""Timed events of a scenario: what happens while models travel, at its second after the first launch, or to the world
while the deployed one is asked (``phase: queries``), at its second after that load began.

::

    events:
      - {at_s: 3, do: collect, node: h11, count: 300, group: cardiology}   # new samples come in
      - {at_s: 5, do: leave, node: h22}                                    # withdraws in good order
      - {at_s: 8, do: join, node: h43}                                     # was not there from the start
      - {at_s: 9, do: crash, node: h31}                                    # its process is killed
      - {at_s: 9, do: crash, node: k2g}                                    # a switch loses its power
      - {at_s: 10, do: down, link: k1g-k2g}                                # a link is cut
      - {at_s: 20, do: up, link: k1g-k2g}                                  # and mended
      - {at_s: 25, do: change, link: k3g-k4g, rate_mbps: 5}                # or has another rate, delay, loss
      - {at_s: 40, do: drift, phase: queries, group: cardiology}           # its diseases show differently from now on

A node whose first event is ``join`` is not started with the others.  A ``drift`` is the world's: queries ask about what
it is now, and each data node collects ``count`` samples of it, of which ``LATE_SHARE`` go to MPVUs as test samples.
"""

from __future__ import annotations

import contextlib
import difflib
import os
import signal
import threading
import time
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec

from experiments.errors import ExperimentError, RunFailed, ScenarioError
from topologies.errors import TopologyError
from topologies.plan import NetworkPlan

if TYPE_CHECKING:
    from experiments.testbed.testbed import Bed

LEAVE_TIMEOUT_S = 60.0


class TimedEvent(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One event. ``count`` and ``group`` ('' for the node's own mix) are those of ``collect``; ``drift`` has each data
    node collect, and changes one ``group`` ('' for all). ``phase``: what ``at_s`` counts from the beginning of.
    """

    at_s: Annotated[float, msgspec.Meta(ge=0, le=3600)]
    do: Literal["crash", "leave", "join", "collect", "drift", "down", "up", "change"]
    phase: Literal["train", "queries"] = "train"
    node: str = ""
    link: str = ""
    rate_mbps: Annotated[float, msgspec.Meta(gt=0)] | None = None
    delay_ms: Annotated[float, msgspec.Meta(ge=0)] | None = None
    loss_percent: Annotated[float, msgspec.Meta(ge=0, lt=100)] | None = None
    count: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = 200
    group: str = ""

    @property
    def subject(self) -> str:
        """The link or node that it happens to, the group of a drift."""
        return self.link or self.node or (self.group or "the world" if self.do == "drift" else "")

    @property
    def changes(self) -> dict[str, float]:
        """What ``change`` changes: {field of ``LinkPlan``: value}."""
        said = {"rate_mbps": self.rate_mbps, "delay_ms": self.delay_ms, "loss_percent": self.loss_percent}
        return {key: value for key, value in said.items() if value is not None}


OF_LINKS = ("down", "up", "change")
LATE_SHARE = 0.2


def check(
    events: Sequence[TimedEvent], plan: NetworkPlan, where: str, *, drifts: bool = True, loads: bool = True
) -> None:
    """Check that events name what is there: terminals, switches (``crash``), data nodes (``collect``), links;
    ``ScenarioError``.

    ``drifts``: the task's world can; ``loads``: there is a load of queries, in whose phase something can happen.
    """
    roles = {h.name: h.role for h in plan.hosts}
    for event in events:
        what = f"scenario {where}: event {event.do} names {event.subject or 'nothing'}"
        if event.do in OF_LINKS:
            one_of(event.link, [x.name for x in plan.links], f"{what}, which is no link", "link: k1g-k2g")
            if event.do == "change" and not event.changes:
                raise ScenarioError(f"{what} and no change: give rate_mbps, delay_ms or loss_percent")
        elif event.do == "crash":
            one_of(event.node, [*roles, *(s.name for s in plan.switches)], f"{what}, which is no terminal or switch")
        elif event.do != "drift":
            one_of(event.node, list(roles), f"{what}, which is no terminal")
        if event.phase == "queries" and not loads:
            raise ScenarioError(f"{what} in phase queries; there is no load, add `queries: {{rate_per_s: 20}}`")
        if event.do == "drift" and not drifts:
            raise ScenarioError(f"scenario {where}: event drift: only the world of task vignettes drifts")
        if event.do == "collect" and roles[event.node] != "data":
            raise ScenarioError(f"scenario {where}: {event.node} is no data node, it cannot collect samples")


def one_of(name: str, known: Sequence[str], what: str, example: str = "") -> None:
    """Check that a name is one of those known; ``ScenarioError`` that begins with ``what`` and names the nearest."""
    if name in known:
        return
    near = difflib.get_close_matches(name, known, 1)
    hint = f"did you mean {near[0]!r}? " if near else f"for example {example}; " if example else ""
    raise ScenarioError(f"{what}; {hint}there are {', '.join(sorted(known))}")


def late(events: Sequence[TimedEvent]) -> set[str]:
    """Return the terminals that are not there from the start."""
    first: dict[str, str] = {}
    for event in sorted(events, key=lambda e: (e.phase != "train", e.at_s)):
        if event.node:
            first.setdefault(event.node, event.do)
    return {node for node, do in first.items() if do == "join"}


class Timeline:
    """Carries a phase's events out on a thread of its own, from ``start`` on; what fails is a warning event."""

    def __init__(self, bed: Bed, events: Sequence[TimedEvent], phase: str = "train") -> None:
        self.bed = bed
        self._events = sorted((e for e in events if e.phase == phase), key=lambda e: e.at_s)
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
            except (RunFailed, ExperimentError, TopologyError) as error:
                self.bed.hub.emit("warning", text=f"{event.do} of {event.subject} failed: {error}")


def carry_out(bed: Bed, event: TimedEvent) -> None:
    """Let one event happen."""
    bed.hub.emit("timed.event", do=event.do, node=event.subject, at_s=event.at_s)
    if bed.hand_over(event):
        return
    if event.do in OF_LINKS:
        _change(bed, event)
    elif event.do == "drift":
        _drift(bed, event)
    elif event.do == "collect":
        bed.tell(event.node, "collect", count=event.count, group=event.group)
    elif event.do == "leave":
        bed.tell(event.node, "leave", LEAVE_TIMEOUT_S)
    elif event.do == "join":
        bed.start_agent(event.node)
    else:
        crash(bed, event.node)


def _drift(bed: Bed, event: TimedEvent) -> None:
    """Have all who sense the world, or ask about it, see it as it is from now on."""
    seed = zlib.crc32(f"{event.group}/{event.at_s}".encode())
    there = [*bed.terminals("data"), *bed.terminals("query_owner")]

    def tell(name: str) -> None:
        bed.tell(name, "drift", LEAVE_TIMEOUT_S, group=event.group, seed=seed, count=event.count, tests=LATE_SHARE)

    with ThreadPoolExecutor(max(1, len(there))) as pool:
        list(pool.map(tell, there))


def _change(bed: Bed, event: TimedEvent) -> None:
    from topologies.changes import change_link, set_link  # brings Mininet along: not for every command

    if event.do == "change":
        change_link(bed.network, event.link, **event.changes)
    else:
        set_link(bed.network, event.link, up=event.do == "up")


def crash(bed: Bed, node: str) -> None:
    """Kill a terminal's process, or a switch, as a power cut would."""
    if any(s.name == node for s in bed.plan.switches):
        from topologies.changes import kill_switch

        kill_switch(bed.network, node)
        return
    pids = [e.data["pid"] for e in bed.events if e.kind == "agent.ready" and e.data.get("name") == node]
    if not pids:
        raise RunFailed(f"{node} has no process to kill")
    with contextlib.suppress(ProcessLookupError):
        os.kill(int(pids[-1]), signal.SIGKILL)
