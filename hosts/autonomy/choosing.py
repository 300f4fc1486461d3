"""The next stop of an object that is here: what it wants, who could give it that, and whom its policy chooses."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from controller.values.decisions import Option
from hosts.autonomy.course import Course
from hosts.autonomy.policies import POLICIES, Policy, greedy
from hosts.autonomy.probing import Heard, ask_all, options_of
from hosts.errors import LaunchFailed
from hosts.terminal.terminal import Terminal
from packets.aats.journey import Action
from packets.transport import OutgoingObject


@dataclass(frozen=True)
class Next:
    """A stop chosen. ``options``: what there was to choose from; ``route``: of all visits, where it is chosen here."""

    action: Action
    address: str
    why: str
    options: Sequence[Option] = ()
    heard: int = 0
    route: Sequence[str] = ()


class Chooser:
    """Chooses for the objects at one terminal. ``policies``: by name, those that the run has."""

    def __init__(self, terminal: Terminal, policies: Mapping[str, Policy]) -> None:
        self.terminal, self.policies = terminal, policies

    def choose(self, course: Course, onward: OutgoingObject, refused: set[str]) -> Next:
        """Return the next stop; ``refused``: addresses that did not take the object just now. ``LaunchFailed``: a model
        that is to be deployed finds no MDFP.
        """
        rng = random.Random(f"{course.spec.seed}/{onward.visit}/{len(refused)}")
        if course.last is not None and course.last.action == "home":
            return self._place(course, onward, refused, rng)
        without = course.bad | refused
        action, why = course.wanted(onward.visit_limit - onward.visit + 1)
        if action == "train":
            found = self._data(course, onward, without, rng)
            if isinstance(found, Next):
                return found
            action, why = course.wrap_up(found)
        if action in ("verify", "confirm"):
            places = self.heard("mpvu", onward.object_id, without, rng)
            places = [p for p in places if action == "verify" or p.address not in course.pool]
            if places:
                best = min(places, key=lambda p: (p.address != course.gatekeeper, p.rtt_s, p.address))
                return Next(action, best.address, why, heard=len(places))
            _, why = course.home("no MPVU is left to verify at" if action == "verify" else why)
        return Next("home", onward.owner, why)

    def heard(self, role: str, object_id: int, without: set[str], rng: random.Random) -> list[Heard]:
        """Ask the terminals of a role that are known here."""
        away = without | {self.terminal.plan.address}
        members = [m for m in self.terminal.members if m.role == role and m.address and m.address not in away]
        return ask_all(self.terminal, members, object_id, rng)

    def _place(self, course: Course, onward: OutgoingObject, refused: set[str], rng: random.Random) -> Next:
        """Return where a model that was home is deployed: where its task has the fewest models, at the least loaded."""
        task, heard = course.spec.task, self.heard("mdfp", onward.object_id, refused, rng)
        if not heard:
            raise LaunchFailed("no MDFP answers that would take it")
        held = {h.address: sum(m.task == task for m in h.reply.models) for h in heard}
        best = min(heard, key=lambda h: (held[h.address], h.reply.queue, h.rtt_s, h.address))
        why = f"of {len(heard)} MDFP: it has {held[best.address]} models of {task}, {best.reply.queue} in its queue"
        return Next("deploy", best.address, why, heard=len(heard))

    def options(self, course: Course, heard: Sequence[Heard]) -> list[Option]:
        """Return the data heard of that is trusted enough."""
        at_kas = next((m.kas for m in self.terminal.members if m.address == course.gatekeeper), self.terminal.plan.kas)
        found = options_of(heard, course.request.groups, course.trusted, at_kas)
        return [o for o in found if o.trust >= course.spec.trust_floor]

    def _data(self, course: Course, onward: OutgoingObject, without: set[str], rng: random.Random) -> Next | str:
        """Return whose data comes next, by the object's policy, or why nobody's does."""
        heard = self.heard("data", onward.object_id, without, rng)
        options = self.options(course, heard)
        if not options:
            return f"none of {len(heard)} data nodes that answered may be visited"
        policy = self.policies.get(course.spec.policy) or self._unknown(course.spec.policy)
        kept = policy.whole and onward.visit > 0
        ahead = ahead_on(course) if kept else self._asked(policy, course, options, rng)
        by_address = {o.handle: o for o in options}
        address = next((a for a in ahead if a in by_address), None)
        if address is None:
            return "its route is at its end" if kept else f"policy {policy.name} knows no way on in time"
        option = by_address[address]
        reason = f"{policy.name}: {option.samples} samples {1e3 * option.reach_s:.0f} ms away, of {len(options)} offers"
        route = [] if kept or not policy.whole else ahead
        return Next("train", address, reason, options, len(heard), route)

    def _asked(self, policy: Policy, course: Course, options: list[Option], rng: random.Random) -> list[str]:
        """Ask the policy; where it fails, or names nobody that was heard of, greedy chooses."""
        request, view, known = course.aim, course.view, {o.handle for o in options}
        try:
            found = [str(handle) for handle in policy.choose(request, view, options, rng, **course.spec.parameters)]
            if not found or known.intersection(found):
                return found
            why = f"it names {found[0][:40]!r}, which was not on offer"
        except Exception as error:
            why = f"{type(error).__name__}: {error}"
        self.terminal.complain(f"policy {policy.name} failed at {self.terminal.name}, greedy chooses: {why}")
        return greedy(request, view, options, rng)

    def _unknown(self, name: str) -> Policy:
        self.terminal.complain(f"{self.terminal.name} has no policy {name[:40]!r}: greedy chooses")
        return POLICIES["greedy"]


def ahead_on(course: Course) -> list[str]:
    """Return what of a route that was computed at the start is still ahead."""
    at = 0
    for visit in course.visits:
        if visit.handle in course.route[at:]:
            at = course.route.index(visit.handle, at) + 1
    return course.route[at:]
