"""The home DCC's work on training jobs: every message and question about a job ends here."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from typing import Any

import msgspec

from controller import choosing, rounds
from controller.brains import Brains
from controller.engines.errors import EngineError
from controller.engines.evidence import visit_s
from controller.engines.types import Measured, Option, Step
from controller.errors import ControllerError, SteeringError
from controller.jobs import Decision, Job, hyper_of, request_of
from controller.kit import Kit
from controller.protocol import (
    AskFacilities,
    AskNextStop,
    AskOptions,
    Evidence,
    Interrupt,
    Options,
    Stop,
    place_key,
)
from packets.labels import MAX_SEQUENCE, SEQUENCE_BITS, make_object_id
from packets.messages import (
    Ack,
    Change,
    Inquire,
    JobStatus,
    LogPart,
    LogRequest,
    Order,
    OrderRequest,
    Refused,
    Returned,
    Submit,
    SubmitReply,
    Verdict,
    VerdictReply,
    VisitDone,
    encode_message,
)
from topologies.plan import HostPlan

LOG_BYTES = 900
CHANGEABLE = ("broad_accuracy", "expert_accuracy", "trust_floor", "max_visits", "deadline_s")
TOLD = 8  # alternatives told of with a decision
REASON_CHARS = 100
JobAnswer = Ack | Refused | Order | VerdictReply | JobStatus | LogPart
JobMessage = OrderRequest | VisitDone | Verdict | Returned | Inquire | LogRequest


class Identities:
    """Gives out object identities of the K-AS of this domain.

    Never repeatable, whatever the seed: a DCC that starts again must not name new objects like those of its last life,
    whose rules other K-AS may still hold and whose bytes terminals remember.
    """

    def __init__(self) -> None:
        self._random = random.SystemRandom()
        self._count = itertools.count(self._random.getrandbits(SEQUENCE_BITS))

    def new(self, kas: int) -> int:
        return make_object_id(kas, next(self._count) & MAX_SEQUENCE, self._random.getrandbits(36))


class Training:
    """All jobs whose home is in this domain."""

    def __init__(self, kit: Kit, identities: Identities, brains: Brains) -> None:
        self.kit, self.identities, self.brains = kit, identities, brains
        self.jobs: dict[int, Job] = {}
        self.on_arrival: Callable[[Job, int], None] = lambda job, visit: None

    # --- admission

    async def submit(self, host: HostPlan, message: Submit) -> SubmitReply:
        """Ask T-FAM about a job, on the options of all K-AS; an admitted job gets its identity."""
        object_id = self.identities.new(host.kas)
        request = request_of(message.spec, self._groups(message.spec.task))
        mpvus = await self.kit.facilities(lambda k: AskFacilities(kas=k, role="mpvu"))
        ready = [m for m in mpvus if m.attributes.get("ready", True)]
        job = Job(object_id, message.spec, request, host.name, host.kas, ready)
        self.kit.emit("job.submitted", object_id=object_id, owner=host.name, spec=msgspec.to_builtins(message.spec))
        options = await self.options(job)
        algorithm = await choosing.choose_method(self.kit, job, options)
        verdict = self.brains.assess(job.request, options, len(ready))
        self.kit.emit(
            "job.assessed",
            object_id=object_id,
            admitted=verdict.admitted,
            reasons=verdict.reasons,
            nearest=verdict.nearest,
            predicted=verdict.predicted,
            algorithm=algorithm,
        )
        job.state, job.reason = ("submitted", "") if verdict.admitted else ("rejected", "; ".join(verdict.reasons))
        if verdict.admitted:
            self.jobs[object_id] = job
        self.save(job)
        return SubmitReply(
            object_id=object_id if verdict.admitted else 0,
            admitted=verdict.admitted,
            reasons=[r[: REASON_CHARS * 2] for r in verdict.reasons[:5]],
            nearest=verdict.nearest,
            predicted=verdict.predicted,
        )

    def _groups(self, task: str) -> list[str]:
        """Return a task's groups: as the scenario declares them, else as the terminals of this domain report them."""
        declared = self.kit.groups.get(task) or self.kit.groups.get("")
        if declared:
            return declared
        return sorted({g for node in self.kit.krrm.nodes() for g in node.get("group_shares", {})})

    async def options(self, job: Job) -> list[Option]:
        """Return what all K-AS offer a job now, less what has turned out impossible."""
        replies = await self.kit.ask_all(lambda k: AskOptions(kas=k, object_id=job.object_id, request=job.request))
        offered = [o for r in replies if isinstance(r, Options) for o in r.options]
        return [o for o in offered if o.handle not in job.excluded]

    # --- the next stop

    async def next_stop(self, ask: AskNextStop) -> Stop:
        """Decide where a job's object goes (once per visit; again when its stop turned out impossible)."""
        job = self.job(ask.object_id)
        if job.state in ("finished", "failed"):
            raise SteeringError(f"job {job.object_id} is over ({job.state})")
        if job.started_s is None:
            job.started_s, job.state = self.kit.clock(), "running"
        for _ in range(len(self.kit.all_kas) + 1):
            decision = job.decisions.get(ask.visit)
            if decision is None or _key(decision) in ask.exclude:
                decision = await self._decide(job, ask)
                job.decisions[ask.visit] = decision
                self._tell_decision(job, decision)
            path = self.kit.domain.kas_path(ask.holder_kas, decision.kas)
            if path:
                return job.request_stop(decision, path)
            ask = msgspec.structs.replace(ask, exclude=[*ask.exclude, _key(decision)])
        raise SteeringError(f"no live path from K-AS {ask.holder_kas} to any place that is left")

    async def _decide(self, job: Job, ask: AskNextStop) -> Decision:
        last = job.last(ask.visit)
        if last is not None and last.action == "train" and last.concluded and self._wants_verdict(job, last):
            return self._verify(job, ask)
        if last is not None and last.action == "verify" and not last.concluded:
            return self._verify(job, ask)
        if last is not None and last.action == "verify" and self._met(job, job.margin):
            return self._confirm(job, ask, "both targets met: confirm at the other MPVU")
        if last is not None and last.action == "confirm" and (job.reason or self._met(job, 0.0)):
            return self._home(job, ask, job.reason)
        return await self._train(job, ask)

    def _met(self, job: Job, margin: float) -> bool:
        pooled = job.pooled()
        return pooled is not None and self.brains.targets_met(job.request, pooled, margin)

    def _wants_verdict(self, job: Job, last: Decision) -> bool:
        spent = bool(job.spent(self.kit.clock()))
        return spent or (job.spec.gate and (last.step is None or last.step.verify))

    async def _train(self, job: Job, ask: AskNextStop) -> Decision:
        """Plan with MTRCE and take the first step; wrap up when budget, time or rendezvous are used up."""
        now_s = self.kit.clock()
        spent = job.spent(now_s)
        if spent:
            return self._wrap_up(job, ask, spent)
        options = [o for o in await self.options(job) if o.handle not in ask.exclude]
        try:
            if job.spec.method in rounds.ACTIONS:
                return await self._group(job, ask, options)
            plan = self.brains.plan(job.request, job.view(now_s, ask.holder_kas), options)
        except EngineError as error:
            return self._wrap_up(job, ask, str(error))
        step = plan.steps[0]
        decision = self._decision(ask, "train", step.option.kas, step.option.handle, step.reason)
        decision.step, decision.plan, decision.offers = step, plan, {o.handle: o for o in options}
        return decision

    async def _group(self, job: Job, ask: AskNextStop, options: list[Option]) -> Decision:
        """The visit is some rounds of a group (``controller/rounds.py``)."""
        led = await rounds.decide(self.kit, job.request, job.object_id, len(job.visits), options, ask)
        step = led.plan.steps[0]
        decision = self._decision(ask, "train", led.kas, led.handle, step.reason)
        decision.step, decision.plan, decision.group = step, led.plan, led.group
        return decision

    def _verify(self, job: Job, ask: AskNextStop) -> Decision:
        usable = [m for m in job.mpvus if m.handle_key not in job.excluded.union(ask.exclude)]
        if not usable:
            return self._home(job, ask, "no MPVU is left to verify at")
        return self._decision(ask, "verify", usable[0].kas, usable[0].handle, "see what the visit brought")

    def _confirm(self, job: Job, ask: AskNextStop, reason: str) -> Decision:
        """Measure on samples that no verdict rested on, where there is an MPVU that holds such."""
        spoken_for = job.excluded.union(ask.exclude, job.pool)
        others = [m for m in job.mpvus if m.handle_key not in spoken_for]
        if not others:
            return self._home(job, ask, job.reason)
        return self._decision(ask, "confirm", others[0].kas, others[0].handle, reason)

    def _wrap_up(self, job: Job, ask: AskNextStop, reason: str) -> Decision:
        """Training is over without the targets: one last, independent measurement, then home with the best there is."""
        job.reason = reason
        return self._confirm(job, ask, f"{reason}: last measurement") if job.pool else self._home(job, ask, reason)

    def _home(self, job: Job, ask: AskNextStop, reason: str) -> Decision:
        owner = self.kit.domain.hosts[job.owner]
        job.reason = "both targets met" if self._met(job, 0.0) else reason
        return self._decision(ask, "home", owner.kas, f"@node/{owner.name}", job.reason)

    def _decision(self, ask: AskNextStop, action: str, kas: int, handle: str, reason: str) -> Decision:
        return Decision(ask.visit, action, kas, handle, reason, ask.holder_kas, self.kit.clock())

    def _tell_decision(self, job: Job, decision: Decision) -> None:
        step, plan = decision.step, decision.plan
        steps = (
            [{"kas": s.option.kas, "handle": s.option.handle, "verify": s.verify} for s in plan.steps] if plan else []
        )
        alternatives = self._alternatives(job, decision)
        ages = {step.option.handle: step.option.age_s} if step else {}
        ages |= {a["handle"]: a["age_s"] for a in alternatives if "age_s" in a}
        self.kit.emit(
            "job.decided",
            object_id=job.object_id,
            visit=decision.visit,
            action=decision.action,
            kas=decision.kas,
            handle=decision.handle,
            reason=decision.reason,
            alternatives=alternatives,
            offers=len(decision.offers),
            cost_s=round(step.cost_s, 3) if step else None,
            cost_bytes=step.cost_bytes if step else None,
            expected=step.expected if step else {},
            plan=steps,
            ages=ages,
        )
        self.kit.store.decision(
            job.object_id, decision.visit, decision.action, decision.kas, decision.handle, decision.reason, ages, steps
        )
        self.save(job)

    @staticmethod
    def _alternatives(job: Job, decision: Decision) -> list[dict[str, Any]]:
        """Return what could have been chosen instead, and what each was predicted to cost (best first)."""
        if decision.plan is None:
            others = [m for m in job.mpvus if m.handle_key != _key(decision)]
            wanted = decision.action in ("verify", "confirm")
            return [{"kas": m.kas, "handle": m.handle, "attributes": m.attributes} for m in others if wanted]
        found = []
        for handle, score in decision.plan.alternatives[:TOLD]:
            offer = decision.offers.get(handle)
            if offer is not None:
                cost = {"cost_s": round(visit_s(offer), 3), "cost_bytes": job.spec.model_bytes + offer.move_bytes}
                about = {"samples": offer.samples, "trust": round(offer.trust, 3), "age_s": offer.age_s}
                found.append({"kas": offer.kas, "handle": handle, "score": round(score, 4), **cost, **about})
        return found

    # --- what owners change

    async def change(self, host: HostPlan, message: Change) -> JobStatus:
        """Do what a job's owner wants changed; its next decision heeds it. ``SteeringError`` for anyone else."""
        job = self.job(message.object_id)
        if job.owner != host.name:
            raise SteeringError(f"job {job.object_id} is not {host.name}'s")
        if job.state in ("finished", "failed"):
            raise SteeringError(f"job {job.object_id} is over ({job.state})")
        changes = {k: v for k in CHANGEABLE if (v := getattr(message, k)) is not None}
        job.spec = msgspec.structs.replace(job.spec, **changes)
        job.request = request_of(job.spec, job.request.groups)
        job.stopped = job.stopped or message.stop
        self.kit.emit("job.changed", object_id=job.object_id, owner=job.owner, stop=message.stop, changes=changes)
        self.save(job)
        if message.stop:
            await self._interrupt(job)
        return self._status(job)

    async def _interrupt(self, job: Job) -> None:
        """Stop the training that is under way, if any is."""
        latest = job.decisions.get(max(job.decisions, default=-1))
        if latest is None or latest.action != "train" or latest.concluded:
            return
        word = Interrupt(
            kas=latest.kas, object_id=job.object_id, visit=latest.visit, reason="the job was stopped by its owner"
        )
        try:
            await self.kit.must(word)
        except ControllerError as error:
            self.kit.emit("warning", text=f"visit {latest.visit} of job {job.object_id} goes on to its end: {error}")

    # --- what terminals report

    async def handle(self, message: JobMessage) -> JobAnswer:
        """Answer a terminal's message on one of our jobs (which may come from another K-AS)."""
        job = self.job(message.object_id)
        match message:
            case OrderRequest():
                order = self._order(job, message)
                self.on_arrival(job, message.visit)
                return order
            case VisitDone():
                return self._visit_done(job, message)
            case Verdict():
                return self._verdict(job, message)
            case Returned():
                return self._returned(job)
            case Inquire():
                return self._status(job)
            case LogRequest():
                return LogPart(entries=_fitting(job.log[message.first :]))

    def job(self, object_id: int) -> Job:
        """Return a job of this domain; ``SteeringError`` when no job has this object."""
        job = self.jobs.get(object_id)
        if job is None:
            raise SteeringError(f"no job has object {object_id}")
        return job

    def _decided(self, job: Job, visit: int, *actions: str) -> Decision:
        decision = job.decisions.get(visit)
        if decision is None or decision.action not in actions:
            raise SteeringError(f"visit {visit} of job {job.object_id} is no {' or '.join(actions)} stop")
        return decision

    def _order(self, job: Job, message: OrderRequest) -> JobAnswer:
        decision = self._decided(job, message.visit, "train", "verify", "confirm", "home")
        decision.arrived = True
        common: dict[str, Any] = {
            "object_id": job.object_id,
            "visit": decision.visit,
            "task": job.spec.task,
            "expert_group": job.spec.expert_group or "",
        }
        if decision.action == "train":
            hyper = hyper_of(decision, job.spec.hyper, len(job.visits))
            group = decision.group
            together: dict[str, Any] = (
                {"members": group.members, "place": group.place, "rounds": group.rounds, "secure": group.secure}
                | {"momentum": job.spec.hyper.momentum}
                if group
                else {}
            )
            return Order(
                action=group.action if group else "train",
                compression=rounds.encoding_of(job.spec.compression, decision),
                **together,
                epochs=hyper.epochs,
                batch_size=hyper.batch_size,
                learning_rate=hyper.learning_rate,
                group_weights=hyper.group_weights,
                **common,
            )
        if decision.action == "home":
            pooled = job.pooled()
            return Order(
                action="home",
                log=_fitting(job.log),
                log_length=len(job.log),
                accuracy=_accuracy(job, pooled) if pooled else {},
                **common,
            )
        return Order(action="verify", **common)

    def _visit_done(self, job: Job, message: VisitDone) -> JobAnswer:
        decision = self._decided(job, message.visit, "train", "verify", "confirm")
        if decision.concluded:
            return Ack()
        if message.lost:
            self._end(job, "failed", f"the object was lost on visit {message.visit}: {message.problem}")
        elif message.problem or decision.action != "train":
            job.excluded.add(_key(decision))
            self.kit.emit(
                "warning", text=f"job {job.object_id} visit {message.visit} came to nothing: {message.problem}"
            )
        else:
            decision.concluded = True
            step: Step = decision.step  # type: ignore[assignment]  # a train decision has one
            job.trained(step.option, message.samples, message.epochs)
            entry = {
                "visit": message.visit,
                "kas": decision.kas,
                "samples": message.samples,
                "loss": round(message.loss, 3),
            }
            job.log.append(entry)
        self.save(job)
        return Ack()

    def evidence(self, message: Verdict) -> list[Evidence]:
        """Return what an MPVU's first word on some visits says of the nodes that were visited, for their K-AS."""
        job = self.jobs.get(message.object_id)
        decision = job.decisions.get(message.visit) if job else None
        if job is None or not job.spec.gate or decision is None or decision.action != "verify" or decision.concluded:
            return []
        visits: list[Decision] = []
        while last := job.decisions.get(message.visit - 1 - len(visits)):
            if last.action != "train" or not last.concluded:
                break
            visits.append(last)
        after = Measured(broad=message.broad, per_group=message.per_group, samples=message.samples)
        return [
            Evidence(
                kas=visit.kas, object_id=job.object_id, visit=visit.visit, before=job.measured, after=after,
                share=1 / len(visits),
            )
            for visit in visits
        ]  # fmt: skip

    def _verdict(self, job: Job, message: Verdict) -> JobAnswer:
        decision = self._decided(job, message.visit, "verify", "confirm")
        after = Measured(broad=message.broad, per_group=message.per_group, samples=message.samples)
        if decision.action == "confirm":
            accepted, reason = True, self._confirmed(job, decision, after)
        elif not job.spec.gate:
            accepted, reason = True, "no gate: kept as it is"
            if not decision.concluded:
                job.verified(_key(decision), after, accepted)
        else:
            accepted, reason = self.brains.judge(job.request, job.measured, after)
            if not decision.concluded:
                job.verified(_key(decision), after, accepted)
        if not decision.concluded:
            entry = {"visit": message.visit, "kas": decision.kas, "broad": round(message.broad, 4)}
            entry |= {"expert": round(job.expert(after), 4), "accepted": accepted}
            job.log.append(entry)
        decision.concluded = True
        self.save(job)
        return VerdictReply(accepted=accepted, reason=reason[:REASON_CHARS])

    def _confirmed(self, job: Job, decision: Decision, after: Measured) -> str:
        """Pool the other MPVU's measurement; one that does not confirm raises the bar for the next attempt."""
        first = _key(decision) not in job.pool
        job.pool[_key(decision)] = after
        if self._met(job, 0.0):
            return "confirmed on samples no earlier verdict saw"
        job.margin += 0.01 if first else 0.0
        return "not confirmed on the other MPVU's samples"

    def _returned(self, job: Job) -> JobAnswer:
        if job.state not in ("finished", "failed"):
            met = self._met(job, 0.0)
            self._end(job, "finished" if met else "failed", job.reason)
        return Ack()

    def _end(self, job: Job, state: str, reason: str) -> None:
        pooled = job.pooled()
        job.state, job.reason = state, reason
        self.kit.emit(
            "job.finished",
            object_id=job.object_id,
            state=state,
            broad=pooled.broad if pooled else 0.0,
            expert=job.expert(pooled),
            visits=len(job.visits),
            samples=pooled.samples if pooled else 0,
            reason=reason,
        )
        self.save(job)

    def _status(self, job: Job) -> JobStatus:
        pooled = job.pooled()
        broad = pooled.broad if pooled else 0.0
        return JobStatus(
            state=job.state,
            visits=len(job.visits),
            broad=broad,
            expert=job.expert(pooled),
            reason=job.reason[:REASON_CHARS],
        )

    def save(self, job: Job) -> None:
        pooled = job.pooled()
        broad, expert = (pooled.broad if pooled else 0.0), job.expert(pooled)
        self.kit.store.job(
            job.object_id, job.owner, job.state, msgspec.to_builtins(job.spec), broad, expert, job.reason
        )


def refusal(error: Exception) -> Refused:
    """Return an error as words for a terminal."""
    return Refused(reason=str(error)[:400])


def _key(decision: Decision) -> str:
    return place_key(decision.kas, decision.handle)


def _accuracy(job: Job, pooled: Measured) -> dict[str, float]:
    known = {"broad": round(pooled.broad, 4)}
    if job.spec.expert_group:
        known |= {"expert": round(job.expert(pooled), 4), job.spec.expert_group: round(job.expert(pooled), 4)}
    return known


def _fitting(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the first entries of a log, as many as fit one packet."""
    count = min(len(entries), 64)
    while count and len(encode_message(LogPart(entries=entries[:count]))) > LOG_BYTES:
        count -= 1
    return entries[:count]
