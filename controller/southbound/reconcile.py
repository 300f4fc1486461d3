"""What a switch holds against what it should hold: the least that makes the one the other, with no gap on the way.

A flow that is there and right is not touched, one that is there and wrong is overwritten (which switches do at once),
groups and meters that flows lead to are changed under them: to delete one would delete its flows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from controller.southbound.openflow import FlowMod, Found, GroupMod, MeterMod, Mod

FlowKey = tuple[int, int, tuple[tuple[str, object], ...]]


@dataclass
class Change:
    """What to send first, what once nothing depends on what it deletes; ``kept``: flows that are right as they are."""

    first: list[Mod]
    last: list[Mod]
    kept: int


def key(flow: FlowMod) -> FlowKey:
    """Return what makes a flow one of its table: no two have the same."""
    return flow.table, flow.priority, tuple(sorted(flow.match.items()))


def reconcile(found: Found, wanted: Iterable[Mod], spare: Callable[[FlowMod], bool] = lambda flow: False) -> Change:
    """Return what makes a switch hold what is ``wanted``; flows that are too many stay where ``spare`` says so."""
    wanted = list(wanted)
    flows = {key(m): m for m in wanted if isinstance(m, FlowMod)}
    groups = {m.group: m for m in wanted if isinstance(m, GroupMod)}
    meters = {m.meter: m for m in wanted if isinstance(m, MeterMod)}
    there = {key(f): f for f in found.flows}
    held, metered = {g.group: g for g in found.groups}, {m.meter: m for m in found.meters}
    first: list[Mod] = [replace(m, modify=n in metered) for n, m in meters.items() if metered.get(n) != m]
    first += [replace(g, modify=n in held) for n, g in groups.items() if n not in held or held[n].buckets != g.buckets]
    first += [f for k, f in flows.items() if there.get(k) != f]
    gone = [f for k, f in there.items() if k not in flows and not spare(f)]
    last: list[Mod] = [FlowMod(f.table, f.match, f.priority, cookie=f.cookie, delete=True, strict=True) for f in gone]
    if len(gone) == len(there.keys() - flows.keys()):  # a flow that is spared may lead to one
        last += [GroupMod(n, delete=True) for n in held if n not in groups]
    return Change(first, last, sum(there.get(k) == f for k, f in flows.items()))
