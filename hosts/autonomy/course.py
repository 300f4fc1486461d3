"""How a journey stands, read from its trail alone: what the engines need to know of it, and what it wants next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec

from controller.engines.training import gate, hpo
from controller.topology import trust
from controller.values.decisions import JobView, Measured, Request, Visit
from packets.aats.journey import Action, Stop
from packets.terms import JobSpec

LAST_STOPS = 4  # launches that a last visit takes: there, to an MPVU, to another one, home
MARGIN = 0.01  # by which a confirmation that fails raises the bar


@dataclass
class Course:
    """A journey as far as it has come. ``pool``: what each MPVU measured of the accepted model, whose ``digest`` it is;
    ``gatekeeper``: the MPVU that keeps it; ``bad``: addresses where a stop came to nothing; ``claims``: the
    quality that data is said to have; ``route``: addresses chosen at the start.
    """

    spec: JobSpec
    request: Request
    elapsed_s: float = 0.0
    visits: list[Visit] = field(default_factory=list)
    measured: Measured | None = None
    pool: dict[str, Measured] = field(default_factory=dict)
    digest: bytes = b""
    gatekeeper: str = ""
    margin: float = 0.0
    reached: bool = False
    bad: set[str] = field(default_factory=set)
    claims: dict[str, float] = field(default_factory=dict)
    trusted: trust.Ledger = field(default_factory=trust.Ledger)
    last: Stop | None = None
    route: list[str] = field(default_factory=list)

    @property
    def view(self) -> JobView:
        """The journey as MTRCE sees a job."""
        return JobView(visits=self.visits, measured=self.measured, elapsed_s=self.elapsed_s)

    @property
    def aim(self) -> Request:
        """What to go for: the targets, or all that the data can teach where they are met and it trains on."""
        return gate.beyond(self.request) if self.goes_on else self.request

    @property
    def goes_on(self) -> bool:
        """Whether it trains on although its targets are met."""
        return self.spec.train_on and self.reached

    @property
    def unverified(self) -> int:
        """How many visits no MPVU has looked at yet."""
        return sum(v.accepted is None for v in self.visits)

    def met(self, margin: float = 0.0) -> bool:
        """Tell whether the accepted model meets the targets over all MPVUs that measured it."""
        pooled = gate.pooled(self.pool.values())
        return pooled is not None and gate.targets_met(self.request, pooled, margin)

    def spent(self, stops_left: int) -> str:
        """Return why no more training is possible ('' when it is): budget, hops, deadline."""
        if len(self.visits) >= self.spec.max_visits:
            return f"all {self.spec.max_visits} visits are used"
        if stops_left < LAST_STOPS:
            return f"{stops_left} stops are left, another visit takes {LAST_STOPS}"
        cycle_s = self.elapsed_s / len(self.visits) if self.visits else 0.0
        if self.elapsed_s + cycle_s > self.spec.deadline_s:
            return f"the deadline of {self.spec.deadline_s:g} s leaves no time for another visit"
        return ""

    def wanted(self, stops_left: int) -> tuple[Action, str]:
        """Return what the next stop is for, and why; ``stops_left``: launches that the visit limit still allows."""
        last, spent = self.last, self.spent(stops_left)
        action = last.action if last is not None else "start"
        if stops_left <= 1:
            return "home", spent
        if self._wants_verdict(bool(spent)):
            return "verify", "see what the visit brought" if self.visits else "see how it stands"
        done = gate.has_target(self.request) and self.met(self.margin) and not self.goes_on
        if action == "verify" and done:
            return "confirm", f"{gate.met_in_words(self.request)}: confirm at the other MPVU"
        if action == "confirm" and ((self.met() and not self.goes_on) or spent):
            return self.home(spent)
        return self.wrap_up(spent) if spent else ("train", "")

    def _wants_verdict(self, spent: bool) -> bool:
        last = self.last
        if last is not None and last.problem and last.action == "verify":
            return True
        if last is not None and last.action == "start" and self.spec.trained:
            return True
        due = self.unverified >= (self.spec.hyper.verify_every or hpo.VERIFY_EVERY)
        return bool(self.unverified) and (spent or (self.spec.gate and due))

    def wrap_up(self, why: str) -> tuple[Action, str]:
        """Training is over: one last, independent measurement, then home with the best there is."""
        return ("confirm", f"{why}: last measurement") if self.pool else self.home(why)

    def home(self, why: str) -> tuple[Action, str]:
        """Return the way home, and what came of the journey."""
        return "home", gate.met_in_words(self.request) if self.met() else why

    # --- what the stops brought

    def take(self, stop: Stop) -> None:
        """Take one more entry of the trail."""
        self.last = stop
        self.route = stop.route or self.route
        if stop.problem:
            self.bad.add(stop.address)
        elif stop.action == "train":
            self.claims[stop.address] = stop.quality
            self.visits.append(
                Visit(kas=stop.kas, handle=stop.address, mix=stop.mix, samples=stop.samples, epochs=stop.epochs)
            )
        elif stop.action == "verify":
            self._verified(stop)
        elif stop.action == "confirm":
            self._confirmed(stop)

    def _verified(self, stop: Stop) -> None:
        found = Measured(broad=stop.broad, per_group=stop.per_group, samples=stop.samples)
        self._judge_visits(stop)
        accepted = stop.accepted
        self.visits = [
            v if v.accepted is not None else msgspec.structs.replace(v, accepted=accepted) for v in self.visits
        ]
        if self.visits and self.visits[-1].found is None:
            self.visits[-1] = msgspec.structs.replace(self.visits[-1], found=found)
        if stop.accepted:
            self.measured, self.pool, self.digest = found, {stop.address: found}, stop.digest
            self.gatekeeper = stop.address

    def _judge_visits(self, stop: Stop) -> None:
        """What an MPVU saw is evidence for or against those whose data was met, as for a control centre."""
        new = [v for v in self.visits if v.accepted is None]
        if not self.spec.gate:
            return
        after = Measured(broad=stop.broad, per_group=stop.whole or stop.per_group, samples=stop.samples)
        for visit in new:
            claimed = self.claims[visit.handle]
            seen = trust.seen(visit.mix, claimed, self.measured, after, latest=len(new) == 1)
            self.trusted.take(visit.handle, seen.shared(1 / len(new)))

    def _confirmed(self, stop: Stop) -> None:
        first = stop.address not in self.pool
        self.pool[stop.address] = Measured(broad=stop.broad, per_group=stop.per_group, samples=stop.samples)
        if self.met():
            self.reached = True
        elif first:
            self.margin += MARGIN


def course_of(spec: JobSpec, trail: Sequence[Stop], groups: Sequence[str], elapsed_s: float) -> Course:
    """Return how a journey stands after these stops; ``groups``: those of its task."""
    shared = {name: getattr(spec, name) for name in Request.__struct_fields__ if name in spec.__struct_fields__}
    course = Course(spec, Request(groups=list(groups), **shared), elapsed_s)
    for stop in trail:
        course.take(stop)
    return course
