"""What must hold whatever fails: judged on made snapshots alike, so that a unit test can show that each fault is found.

No loop, no black hole, no lost object, no bad packet accepted, no process that died by itself.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, Literal

import msgspec

from controller.southbound.pipeline import CLASS_COOKIE, LABEL_COOKIE
from experiments.chaos.flows import End, Tables, Walker, labelled, ordinary
from packets.events import Event
from packets.labels import label_address, object_label
from topologies.plan import HostPlan, NetworkPlan

What = Literal["loop", "black hole", "lost object", "bad packet", "dead process", "misdelivery", "growth"]
START_TTL: Final = 64
MOST_SHOWN: Final = 300


class Violation(msgspec.Struct, frozen=True):
    """Something that must not be. ``fault``: the number of the last one before it (0: none)."""

    what: What
    evidence: str
    t_s: float = 0.0
    fault: int = 0

    def __str__(self) -> str:
        return f"{self.what} at {self.t_s:.1f} s, after fault {self.fault}: {self.evidence[:MOST_SHOWN]}"


# --- by the rules of all switches


def astray(plan: NetworkPlan, tables: Tables, away: Iterable[str] = ()) -> dict[str, What]:
    """Follow ordinary frames between all terminals, and every label from every terminal: {what was found: its kind}.

    ``away``: terminals that are not there to be reached. A label goes up to the control centre where it has no rule,
    and from a terminal that is not its holder it is nobody's: only loops are told of it.
    """
    walker, found = Walker(plan, tables), dict[str, What]()
    there = [h for h in plan.hosts if h.name not in set(away)]
    for sender in there:
        for to in there:
            if to is not sender:
                ends = walker.walk(sender.switch, sender.port, ordinary(sender, to.address))
                found |= _of_pair(sender, to, ends)
    steered = [r for rules in tables.rules.values() for r in rules if r.cookie & (LABEL_COOKIE | CLASS_COOKIE)]
    labels = {r.match["nw_dst"] for r in steered if "nw_dst" in r.match}
    for label in sorted(labels):
        for sender in there:
            ends = walker.walk(sender.switch, sender.port, labelled(sender, label))
            found |= {f"label {label} from {sender.name}: {end}": "loop" for end in ends if end.how == "loop"}
    return found


def _of_pair(sender: HostPlan, to: HostPlan, ends: Sequence[End]) -> dict[str, What]:
    pair = f"{sender.name} to {to.name}"
    found: dict[str, What] = {f"{pair}: {end}": "loop" for end in ends if end.how == "loop"}
    reached = {end.where for end in ends if end.how == "host"}
    if not found and to.name not in reached:
        found[f"{pair}: {ends[0]}"] = "black hole"
    if wrong := reached - {to.name}:
        found[f"{pair} comes to {', '.join(sorted(wrong))}"] = "misdelivery"
    return found


def label_ways(plan: NetworkPlan, tables: Tables, under_way: Mapping[int, tuple[str, str]]) -> dict[str, What]:
    """Follow the labels of objects on their way, {object: (who launched it, where it is led)}, to their rendezvous.

    With the control centre is as good: it will be asked.
    """
    walker, found = Walker(plan, tables), dict[str, What]()
    hosts = {h.name: h for h in plan.hosts}
    for object_id, (launcher, rendezvous) in under_way.items():
        sender = hosts[launcher]
        ends = walker.walk(sender.switch, sender.port, labelled(sender, label_address(object_label(object_id))))
        if not any(end.how == "controller" or (end.how, end.where) == ("host", rendezvous) for end in ends):
            found[f"object {object_id:x} from {launcher} to {rendezvous}: {ends[0]}"] = "black hole"
    return found


def lasting(before: Mapping[str, What], after: Mapping[str, What]) -> dict[str, What]:
    """Return what two looks have in common: rules that were read while they changed show what never was."""
    return {text: what for text, what in after.items() if before.get(text) == what}


def gathered(found: Mapping[str, What]) -> dict[str, What]:
    """Return findings that differ in their two terminals alone as one."""
    alike = defaultdict[tuple[What, str], list[str]](list)
    for text, what in found.items():
        pair, _, rest = text.partition(": ")
        alike[what, rest].append(pair)
    others = {key: f" and {len(pairs) - 1} pairs more" if len(pairs) > 1 else "" for key, pairs in alike.items()}
    return {f"{pairs[0]}{others[what, rest]}: {rest}": what for (what, rest), pairs in alike.items()}


# --- by what was said


class Ledger:
    """What became of every object that was admitted, and of every parcel, by the events of a run."""

    def __init__(self) -> None:
        self.admitted: dict[int, float] = {}
        self.ended: dict[int, str] = {}
        self.returned: dict[int, list[str]] = {}
        self.sent: dict[int, str] = {}
        self.kept: dict[int, list[tuple[str, str]]] = {}
        self.under_way: dict[int, tuple[str, str]] = {}
        self.complained: set[int] = set()
        self._deadline_s: dict[int, float] = {}
        self._launched_unix_s: dict[int, float] = {}

    def hear(self, event: Event) -> None:
        """Take an event in."""
        data, object_id = event.data, int(event.data.get("object_id") or 0)
        match event.kind:
            case "job.submitted":
                self._deadline_s[object_id] = float(data["spec"].get("deadline_s", 0.0))
            case "job.assessed" if data.get("admitted"):
                self.admitted.setdefault(object_id, event.t_unix_s)
            case "job.finished":
                self.ended[object_id] = f"{data.get('state')}: {data.get('reason') or ''}"
            case "object.returned":
                self.returned.setdefault(object_id, []).append(str(data.get("node")))
            case "error" | "warning" if object_id:
                self.complained.add(object_id)
            case "parcel.kept":
                self.kept.setdefault(object_id, []).append((str(data.get("node")), str(data.get("sha256"))))
            case "object.launched":
                self.under_way[object_id] = (str(data.get("node")), "")
                self._launched_unix_s[object_id] = event.t_unix_s
            case "object.steered" if data.get("node") and object_id in self.under_way:
                self.under_way[object_id] = (self.under_way[object_id][0], str(data["node"]))
            case "object.arrived":
                self.under_way.pop(object_id, None)
                self._launched_unix_s.pop(object_id, None)

    def settled(self, before_unix_s: float) -> dict[int, tuple[str, str]]:
        """Return the jobs' objects that are on their way since before then to a place that is known."""
        return {
            i: way
            for i, way in list(self.under_way.items())
            if i in self.admitted and i not in self.ended and way[1] and self._launched_unix_s[i] < before_unix_s
        }

    def lost(self, now_unix_s: float, grace_s: float) -> dict[str, What]:
        """Return the jobs that are past their deadline and of which nobody has said how they ended."""
        found: dict[str, What] = {}
        for object_id, t_unix_s in list(self.admitted.items()):
            over_s = now_unix_s - t_unix_s - self._deadline_s.get(object_id, 0.0) - grace_s
            end = self.ended.get(object_id)
            if object_id in self.returned or (end and end.partition(": ")[2]):
                continue
            if end:
                found[f"job {object_id:x} ended as {end!r}, without a reason"] = "lost object"
            elif over_s > 0:
                found[f"job {object_id:x} is past deadline and grace: neither home nor failed"] = "lost object"
        return found

    def in_two_places(self) -> dict[str, What]:
        """Return the objects that came home, or were kept, at more than one terminal."""
        ends = {i: set(nodes) for i, nodes in list(self.returned.items())}
        ends |= {i: {node for node, _ in kept} for i, kept in list(self.kept.items())}
        return {f"object {i:x} ended at {', '.join(sorted(n))}": "misdelivery" for i, n in ends.items() if len(n) > 1}

    def bad(self) -> dict[str, What]:
        """Return the parcels that were taken with other bytes than those that were sent."""
        return {
            f"parcel {i:x} taken by {node} with SHA-256 {sha256[:16]}, sent as {self.sent[i][:16]}": "bad packet"
            for i, kept in list(self.kept.items())
            for node, sha256 in kept
            if i in self.sent and sha256 != self.sent[i]
        }


def unheard(ledger: Ledger) -> int:
    """Count the parcels of which nothing was heard again: not kept, and nobody complained. They have no custody: a
    sender or a rendezvous that is killed takes them along."""
    return sum(i not in ledger.kept and i not in ledger.complained for i in list(ledger.sent))


def died(names: Mapping[int, str], living: set[int], killed: set[int]) -> dict[str, What]:
    """Return the processes of ours that ended and that nobody had ended: {process id: name} of the latest of each."""
    gone = {pid: name for pid, name in names.items() if pid not in living and pid not in killed}
    return {f"{name} (process {pid}) has ended by itself": "dead process" for pid, name in gone.items()}
