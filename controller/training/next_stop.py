"""Where a job goes next: train, verify, confirm or home, decided at its home DCC."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Collection, Mapping
from typing import Any

import msgspec

from controller.border.holding import AskBriefing, Briefing
from controller.border.messages import AskNextStop, AskOptions, Book, Done, Options, Stop
from controller.engines.routing.bookings import joined, place_of
from controller.engines.training import gate, hpo
from controller.engines.training.evidence import visit_s
from controller.errors import BorderError, SteeringError
from controller.services import Services
from controller.training import groups, proposals, rivals
from controller.training.book import JobBook, key_of
from controller.training.jobs import Decision, Job
from controller.values.decisions import Load, Option, Plan, Step
from controller.values.distributed import Brief
from controller.values.errors import EngineError
from packets.messages import OrderRequest

LOOKS = 3  # at what is on offer, where jobs decide in the same moment
TOLD = 8  # alternatives told of with a decision


class Stops:
    """Decides the stops of the jobs in ``book``, on what all K-AS offer."""

    def __init__(self, services: Services, book: JobBook) -> None:
        self.services, self.book = services, book

    async def options(self, job: Job) -> list[Option]:
        """Return what all K-AS offer a job now, less what has turned out impossible."""
        return self._usable(job, await self._offers(job))

    async def look(self, job: Job, holder_kas: int) -> tuple[list[Option], Load]:
        """Return what is on offer to a job now, and what other jobs take of it and of the links."""
        offers = await self._offers(job)
        return self._usable(job, offers), self._load(job, offers, holder_kas)

    async def _offers(self, job: Job, but: int = 0) -> dict[int, Options]:
        others = [k for k in self.services.all_kas if k != but]
        made = [AskOptions(kas=k, object_id=job.object_id, request=job.request) for k in others]
        replies = await asyncio.gather(*(self.services.may(ask) for ask in made))
        return {ask.kas: r for ask, r in zip(made, replies, strict=True) if isinstance(r, Options)}

    def _usable(self, job: Job, offers: Mapping[int, Options], exclude: Collection[str] = ()) -> list[Option]:
        offered = [o for r in offers.values() for o in r.options]
        return [self._placed(job, o) for o in offered if o.handle not in job.excluded.union(exclude)]

    def _load(self, job: Job, offers: Mapping[int, Options], holder_kas: int) -> Load:
        """Return what other jobs take: of this home's what was decided, of all what each K-AS says."""
        if not job.spec.heed_load:
            return Load()
        told = rivals.load_told(self.services.domain, offers, holder_kas)
        return joined([rivals.load_of(self.book.jobs.values(), job, self.services.clock()), told])

    def _placed(self, job: Job, option: Option) -> Option:
        """Return an option with its distance from where the job is verified."""
        path = self.services.domain.kas_path(job.mpvus[0].kas, option.kas) if job.mpvus else []
        return msgspec.structs.replace(option, borders=max(0, len(path) - 1)) if path else option

    async def briefing(self, ask: AskBriefing) -> Briefing:
        """Tell the holder of a job's object what it needs to say where that trains next; nothing, where it does not."""
        job = self.book.job(ask.object_id)
        if job.over or job.spec.method in groups.ACTIONS or job.spent(self.services.clock()):
            return Briefing()
        if self._wanted(job, ask.visit, ahead=True)[0] != "train":
            return Briefing()
        return Briefing(brief=await self._brief(job, ask.visit, ask.holder_kas, []))

    async def _brief(self, job: Job, visit: int, holder_kas: int, exclude: Collection[str]) -> Brief:
        """Return what a terminal of the holder's K-AS, which knows what that offers, has to know besides."""
        offers = await self._offers(job, holder_kas)
        view = proposals.ahead(job, job.view(self.services.clock(), holder_kas), visit)
        path = self.services.domain.kas_path(job.mpvus[0].kas, holder_kas) if job.mpvus else []
        return Brief(
            object_id=job.object_id, request=job.aim, view=view, options=self._usable(job, offers, exclude),
            load=self._load(job, offers, holder_kas), excluded=sorted(job.excluded.union(exclude)),
            borders=max(0, len(path) - 1) if path else 1,
        )  # fmt: skip

    async def next_stop(self, ask: AskNextStop) -> Stop | Briefing:
        """Decide where a job's object goes (once per visit; again when its stop turned out impossible); where its
        holder is to say that, and has not, tell what it needs for that.
        """
        job = self.book.job(ask.object_id)
        if job.over:
            raise SteeringError(f"job {job.object_id} is over ({job.state})")
        if job.started_s is None:
            job.started_s, job.state = self.services.clock(), "running"
        for _ in range(len(self.services.all_kas) + 1):
            decision = job.decisions.get(ask.visit)
            if decision is None or key_of(decision) in ask.exclude:
                try:
                    decision = await self._decide(job, ask)
                except proposals.Undecided as why:
                    brief = await self._brief(job, ask.visit, ask.holder_kas, ask.exclude)
                    return Briefing(brief=brief, why=str(why))
                job.decisions[ask.visit] = decision
                self._tell_decision(job, decision)
            path = self.services.domain.kas_path(ask.holder_kas, decision.kas)
            if path:
                stop = job.request_stop(decision, path)
                self.book.save(job)
                return stop
            ask = msgspec.structs.replace(ask, exclude=[*ask.exclude, key_of(decision)])
        raise SteeringError(f"no live path from K-AS {ask.holder_kas} to any place that is left")

    async def _decide(self, job: Job, ask: AskNextStop) -> Decision:
        action, why = self._wanted(job, ask.visit)
        match action:
            case "verify":
                return self._verify(job, ask, why)
            case "confirm":
                return self._confirm(job, ask, why)
            case "home":
                return self._home(job, ask, why)
        return await self._train(job, ask)

    def _wanted(self, job: Job, visit: int, *, ahead: bool = False) -> tuple[str, str]:
        """Return what comes on a visit, and why; ``ahead``: the visit before it is taken for over."""
        last = job.last(visit)
        if last is None:
            return ("verify", "see how it stands") if job.spec.trained and not visit else ("train", "")
        if last.action == "train" and (last.concluded or ahead) and self._wants_verdict(job, last):
            return "verify", "see what the visit brought"
        if last.action == "verify" and not last.concluded:
            return "verify", "see what the visit brought"
        done = gate.has_target(job.request) and self.book.met(job, job.margin) and not job.goes_on
        if last.action == "verify" and done:
            return "confirm", f"{gate.met_in_words(job.request)}: confirm at the other MPVU"
        reached = self.book.met(job, 0.0) and not job.goes_on
        if last.action == "confirm" and (job.reason or reached):
            return "home", job.reason
        return "train", ""

    def _wants_verdict(self, job: Job, last: Decision) -> bool:
        spent = bool(job.spent(self.services.clock()))
        unverified = sum(v.accepted is None for v in job.visits) + (not last.concluded)
        due = unverified >= (job.spec.hyper.verify_every or hpo.VERIFY_EVERY)
        return spent or (job.spec.gate and due and (last.step is None or last.step.verify))

    async def _train(self, job: Job, ask: AskNextStop) -> Decision:
        """Plan with MTRCE and take the first step; wrap up when budget, time or rendezvous are used up."""
        now_s = self.services.clock()
        spent = job.spent(now_s)
        if spent:
            return self._wrap_up(job, ask, spent)
        if ask.silent:
            return self._wrap_up(job, ask, ask.silent)
        try:
            if job.spec.method in groups.ACTIONS:
                return await self._group(job, ask, self._usable(job, await self._offers(job), ask.exclude))
            return await self._routed(job, ask)
        except EngineError as error:
            return self._wrap_up(job, ask, str(error))

    async def _routed(self, job: Job, ask: AskNextStop) -> Decision:
        """Plan, and book the first place; where another job has taken it meanwhile, look again."""
        for tries_left in reversed(range(LOOKS)):
            offers = await self._offers(job)
            options, load = self._usable(job, offers, ask.exclude), self._load(job, offers, ask.holder_kas)
            plan = await self._planned(job, ask, options, load)
            step = plan.steps[0]
            if await self._booked(job, ask.visit, step) or not tries_left:
                break
            if ask.held and ask.visit not in job.outbid:
                job.outbid.add(ask.visit)  # whoever proposes the next place knows of it, and may wait there
                raise proposals.Undecided("others take the place for longer than was reckoned with")
        decision = self._decision(ask, "train", step.option.kas, step.option.handle, step.reason)
        decision.step, decision.plan = await self._tuned(job, step), plan
        decision.offers = {o.handle: o for o in options}
        decision.load = load
        return decision

    async def _planned(self, job: Job, ask: AskNextStop, options: list[Option], load: Load) -> Plan:
        """Return the plan of whoever is to say where a job trains next: here, or a terminal where it is held."""
        if not ask.held:
            return await self.plan(job, ask.holder_kas, options, load)
        view = job.view(self.services.clock(), ask.holder_kas)
        return proposals.followed(job, view, ask.proposal, options, load, ask.holder_kas)

    async def plan(self, job: Job, holder_kas: int, options: list[Option], load: Load) -> Plan:
        """Plan a job from here on, on what is on offer and what others take: the one way, also for second thoughts.

        ``EngineError`` when nothing may be visited any more.
        """
        view = job.view(self.services.clock(), holder_kas)
        return await self.services.intelligence.next_visits(job.aim, view, options, load, job.spec.engines)

    async def _tuned(self, job: Job, step: Step) -> Step:
        """Return a planned step with HPO's word on it."""
        asked = step.hyper, job.request, len(job.visits), step.option.samples, job.spec.engines
        return msgspec.structs.replace(step, hyper=await self.services.intelligence.engines.tuned(*asked))

    async def met(self, message: OrderRequest) -> None:
        """Have HPO look again, where other samples are met than were offered (an abstract terminal is many)."""
        job = self.book.job(message.object_id)
        decision = job.decisions.get(message.visit)
        if decision is None or decision.step is None or decision.group or decision.concluded:
            return
        asked = job.request, len(job.visits), message.samples
        with contextlib.suppress(EngineError):  # nobody to say so: as was planned
            hyper = await self.services.intelligence.engines.tuned(hpo.hyper(*asked), *asked, job.spec.engines)
            decision.step = msgspec.structs.replace(decision.step, hyper=hyper)
            self.book.save(job)

    async def _booked(self, job: Job, visit: int, step: Step) -> bool:
        """Have the K-AS keep the place for the job; False when others take it for longer than was planned with."""
        if not job.spec.heed_load:
            return True
        word = Book(
            kas=step.option.kas, object_id=job.object_id, visit=visit, handle=step.option.handle,
            wait_s=step.wait_s, expected_s=step.cost_s,
        )  # fmt: skip
        try:
            return isinstance(await self.services.ask(word), Done)
        except BorderError:
            return True  # whether it can be reached at all, its announcement will tell

    async def _group(self, job: Job, ask: AskNextStop, options: list[Option]) -> Decision:
        """The visit is some rounds of a group (``controller/training/groups.py``)."""
        ask = msgspec.structs.replace(ask, exclude=[*job.excluded.union(ask.exclude)])
        led = await groups.decide(self.services, job.request, job.object_id, len(job.visits), options, ask)
        step = led.plan.steps[0]
        decision = self._decision(ask, "train", led.kas, led.handle, step.reason)
        decision.step, decision.plan, decision.group = await self._tuned(job, step), led.plan, led.group
        return decision

    def _verify(self, job: Job, ask: AskNextStop, why: str = "see what the visit brought") -> Decision:
        usable = [m for m in job.mpvus if m.handle_key not in job.excluded.union(ask.exclude)]
        if not usable:
            return self._home(job, ask, "no MPVU is left to verify at")
        return self._decision(ask, "verify", usable[0].kas, usable[0].handle, why)

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
        owner = self.services.domain.hosts[job.owner]
        job.reason = gate.met_in_words(job.request) if self.book.met(job, 0.0) else reason
        return self._decision(ask, "home", owner.kas, f"@node/{owner.name}", job.reason)

    def _decision(self, ask: AskNextStop, action: str, kas: int, handle: str, reason: str) -> Decision:
        return Decision(ask.visit, action, kas, handle, reason, ask.holder_kas, self.services.clock())

    def _tell_decision(self, job: Job, decision: Decision) -> None:
        step, plan = decision.step, decision.plan
        steps = (
            [{"kas": s.option.kas, "handle": s.option.handle, "verify": s.verify} for s in plan.steps] if plan else []
        )
        alternatives = self._alternatives(job, decision)
        ages = {step.option.handle: step.option.age_s} if step else {}
        ages |= {a["handle"]: a["age_s"] for a in alternatives if "age_s" in a}
        self.services.emit(
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
            booked=_booked(decision),
            way_share={str(kas): round(share, 3) for kas, share in sorted(decision.load.way_share.items())},
            ages=ages,
            by=msgspec.to_builtins(plan.by) if plan else None,
        )
        decision.offers = {}  # told; what a decision goes on knowing of it is its plan
        self.services.store.decision(
            job.object_id, decision.visit, decision.action, decision.kas, decision.handle, decision.reason, ages, steps
        )
        self.book.save(job)

    @staticmethod
    def _alternatives(job: Job, decision: Decision) -> list[dict[str, Any]]:
        """Return what could have been chosen instead, and what each was predicted to cost (best first)."""
        if decision.plan is None:
            others = [m for m in job.mpvus if m.handle_key != key_of(decision)]
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


def _booked(decision: Decision) -> list[dict[str, Any]]:
    """Return the places on offer that other jobs had taken: K-AS, and seconds from the decision."""
    at = {place_of(o): o.kas for o in decision.offers.values()}
    mine = [b for b in decision.load.bookings if b.place in at]
    return [{"kas": at[b.place], "start_s": round(b.start_s, 3), "end_s": round(b.end_s, 3)} for b in mine]
