"""The life of a training job, seen from its home DCC: admit, plan, observe, replan, confirm, bring home.

Stops of a job: ``train`` (MTRCE's choice), ``verify`` (at the primary MPVU, which accepts or rolls back), ``confirm``
(at the other MPVU, whose samples no gate has seen), ``home``.  A job knows K-AS and handles, never a
foreign node's name.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import msgspec

from controller.border.messages import Facility, Lost, Stop
from controller.engines.training import gate, hpo
from controller.values.decisions import Hyper, JobView, Load, Measured, Option, Plan, Request, Step, Visit
from packets.messages import Fixed, JobSpec

MARGIN = 0.0  # a confirmation costs half a visit, and raises the bar when it fails
OVER = ("finished", "failed", "stopped", "rejected")


@dataclass(frozen=True)
class Group:
    """One visit of a job as a group: the order's action, the members' places, the leader's own place."""

    action: str
    members: list[str]
    place: str
    rounds: int
    secure: bool


@dataclass
class Decision:
    """One stop decided: where, why, and (for ``train``) the planned step; ``said``: of a verdict, accepted and why."""

    visit: int
    action: str
    kas: int
    handle: str
    reason: str
    holder_kas: int
    decided_s: float
    step: Step | None = None
    plan: Plan | None = None
    offers: dict[str, Option] = field(default_factory=dict)
    concluded: bool = False
    group: Group | None = None
    load: Load = field(default_factory=Load)
    arrived: bool = False
    released: bool = False
    said: tuple[bool, str] | None = None

    def moved_on(self, decisions: dict[int, Decision]) -> bool:
        """Tell whether the object has come in whole at a later stop."""
        return any(d.arrived for visit, d in decisions.items() if visit > self.visit)


@dataclass
class Job:
    """The state of one job at home. ``mending``: a stop of it was lost, and its holder is still to be told.

    Seconds are of the machine's monotonic clock, which goes on from life to life of a control centre.
    """

    object_id: int
    spec: JobSpec
    request: Request
    owner: str
    kas: int
    mpvus: list[Facility]
    state: str = "submitted"
    reason: str = ""
    admitted_s: float = 0.0
    started_s: float | None = None
    decisions: dict[int, Decision] = field(default_factory=dict)
    visits: list[Visit] = field(default_factory=list)
    measured: Measured | None = None
    pool: dict[str, Measured] = field(default_factory=dict)
    margin: float = MARGIN
    rules_in: set[int] = field(default_factory=set)
    log: list[dict[str, Any]] = field(default_factory=list)
    excluded: set[str] = field(default_factory=set)
    outbid: set[int] = field(default_factory=set)
    stopped: bool = False
    reached: bool = False
    mending: tuple[Lost, Decision] | None = None

    @property
    def goes_on(self) -> bool:
        """Whether the job trains on although its targets are met."""
        return self.spec.train_on and self.reached

    @property
    def aim(self) -> Request:
        """What to plan for: the targets, or all that the data can teach once they are met and the job goes on."""
        return gate.beyond(self.request) if self.goes_on else self.request

    @property
    def over(self) -> bool:
        """Whether nothing more is decided for the job."""
        return self.state in OVER

    def last(self, visit: int) -> Decision | None:
        """Return the stop decided before a visit, or None."""
        return self.decisions.get(visit - 1)

    def elapsed_s(self, now_s: float) -> float:
        """Return the seconds since the job's first launch (0: not launched yet)."""
        return 0.0 if self.started_s is None else now_s - self.started_s

    def view(self, now_s: float, at_kas: int) -> JobView:
        """Return the job as the planner sees it."""
        return JobView(visits=self.visits, measured=self.measured, elapsed_s=self.elapsed_s(now_s), at_kas=at_kas)

    def pooled(self) -> Measured | None:
        """Return the measurement over every MPVU that saw the accepted model, weighted by sample counts."""
        return gate.pooled(self.pool.values())

    def expert(self, measured: Measured | None) -> float:
        """Return the accuracy (0..1) in the job's expert group, 0 where nothing was measured or none is asked."""
        group = self.spec.expert_group
        return measured.per_group.get(group, 0.0) if measured and group else 0.0

    def undo(self, visit: int, place: str) -> None:
        """Take a stop back whose place is gone, with what was (perhaps) trained there and any stop decided after it."""
        for later in [v for v in self.decisions if v >= visit]:
            gone = self.decisions.pop(later)
            if gone.action == "train" and gone.concluded and self.visits:
                self.visits.pop()
        self.excluded.add(place)

    def spent(self, now_s: float) -> str:
        """Return why no more training is possible ('' when it is): the owner's word, budget of visits, deadline."""
        if self.stopped:
            return "stopped by its owner"
        if len(self.visits) >= self.spec.max_visits:
            return f"all {self.spec.max_visits} visits are used"
        trained = [d.decided_s for d in self.decisions.values() if d.action == "train"]
        cycle_s = (now_s - trained[0]) / len(trained) if trained else 0.0
        if self.elapsed_s(now_s) + cycle_s > self.spec.deadline_s:
            return f"the deadline of {self.spec.deadline_s:g} s leaves no time for another visit"
        return ""

    def trained(self, option: Option, samples: int, epochs: float) -> None:
        """Remember a visit, not yet verified."""
        self.visits.append(
            Visit(kas=option.kas, handle=option.handle, mix=option.mix, samples=samples, epochs=epochs, accepted=None)
        )

    def verified(self, handle: str, measured: Measured, accepted: bool) -> None:
        """Take an MPVU's verdict on everything trained since the last one."""
        self.visits = [v if v.accepted is not None else _with(v, accepted) for v in self.visits]
        if self.visits and self.visits[-1].found is None:
            self.visits[-1] = msgspec.structs.replace(self.visits[-1], found=measured)
        if accepted:
            self.measured = measured
            self.pool = {handle: measured}

    def request_stop(self, decision: Decision, path: list[int]) -> Stop:
        """Return the decision for the holder's DCC, and keep track of which K-AS hold rules."""
        clear = sorted(self.rules_in - set(path))
        self.rules_in = set(path)
        expected_s = decision.step.cost_s if decision.step else 0.0
        return Stop(
            action=decision.action, kas=decision.kas, handle=decision.handle, path=path, clear=clear,
            expected_s=expected_s,
        )  # fmt: skip


def _with(visit: Visit, accepted: bool) -> Visit:
    return Visit(
        kas=visit.kas, handle=visit.handle, mix=visit.mix, samples=visit.samples, epochs=visit.epochs, accepted=accepted
    )


def request_of(spec: JobSpec, groups: list[str]) -> Request:
    """Return an owner's specification as the engines read it."""
    return Request(
        task=spec.task,
        groups=groups,
        broad_accuracy=spec.broad_accuracy,
        expert_group=spec.expert_group,
        expert_accuracy=spec.expert_accuracy,
        max_visits=spec.max_visits,
        deadline_s=spec.deadline_s,
        trust_floor=spec.trust_floor,
        model_bytes=spec.model_bytes,
        method=spec.method,
        seed=spec.seed,
        train_on=spec.train_on,
    )


def hyper_of(decision: Decision, fixed: Fixed | None = None, visits: int = 0) -> Hyper:
    """Return the hyper-parameters of a training stop: HPO's, but for what the owner has ``fixed``."""
    assert decision.step is not None
    hyper = decision.step.hyper
    return hyper if fixed is None else hpo.settled(hyper, fixed, decision.step.option.mix, visits)
