"""Custody of jobs, the home's side: whose hands a model is in, and where it goes on when those hands are gone.

Whoever launched it keeps a copy until it has come in whole one stop further on (``Release``): two terminals hold
it at any time.  A stop whose place dies is undone, with what was trained there, and the model launched again from the
last holder that lives.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

import msgspec

from controller.border.messages import Lost, Release, place_key
from controller.engines.training.evidence import visit_s
from controller.errors import BorderError, ControllerError
from controller.services import Services
from controller.training.jobs import Decision, Job
from controller.training.submission import Training
from controller.values.errors import EngineError

UNDER_WAY_S = 1.0
MUCH_BETTER = 2.0
WORTH_S = 2.0
Spawn = Callable[[Coroutine[Any, Any, None], str], None]


class Custody:
    """Looks after the jobs of ``training`` while they are in other hands."""

    def __init__(self, services: Services, training: Training, spawn: Spawn) -> None:
        self.services, self.training = services, training
        training.reports.on_arrival = lambda job, visit: spawn(self._let_go(job, visit), f"release of {job.object_id}")

    # --- what is lost

    async def lost(self, lost: Lost) -> None:
        """A job's rendezvous, the way to it, or who launched it is gone: it goes on from the last holder that lives."""
        job = self.training.book.job(lost.object_id)
        decision = job.decisions.get(lost.visit)
        if decision is None or not self._matters(job, decision, lost):
            return
        await self._mend(job, decision, lost)

    async def resume(self, job: Job) -> None:
        """Go on with a job that an earlier life left: what was lost then may not have been told to its holder."""
        if job.mending is not None:
            lost, decision = job.mending
            await self._mend(job, decision, lost)

    async def _mend(self, job: Job, decision: Decision, lost: Lost) -> None:
        holder_lives = not lost.holder
        while not (holder_lives and await self._launch_again(job, decision, lost)):
            before = job.decisions.get(lost.visit - 1)
            if before is None:
                self.services.emit(
                    "warning", text=f"job {job.object_id}: its owner does not answer, and may launch by itself"
                )
                break
            lost = msgspec.structs.replace(lost, visit=lost.visit - 1, place=key(before), alive=False, holder=False)
            decision, holder_lives = before, True
        job.mending = None
        self.training.book.save(job)

    @staticmethod
    def _matters(job: Job, decision: Decision, lost: Lost) -> bool:
        """Tell whether a loss is one: the object may be further on, or have been led elsewhere, by now."""
        if job.over or decision.moved_on(job.decisions):
            return False
        if lost.holder:
            return not decision.arrived
        return lost.place in ("", key(decision))

    async def _launch_again(self, job: Job, decision: Decision, lost: Lost) -> bool:
        """Undo a stop and have its holder launch again; False when that terminal cannot."""
        now_s = self.services.clock()
        job.mending = lost, decision
        if lost.place:
            job.undo(decision.visit, key(decision))
        self.training.book.save(job)
        try:
            await self.services.must(msgspec.structs.replace(lost, kas=decision.holder_kas, to_holder=True))
        except BorderError as error:
            self.services.emit(
                "warning", text=f"job {job.object_id} visit {decision.visit}: {error}; looking further back"
            )
            return False
        if decision.arrived and lost.place:
            self._tell_lost_work(job, decision, lost, now_s)
        self.training.book.save(job)
        return True

    def _tell_lost_work(self, job: Job, decision: Decision, lost: Lost, since_s: float) -> None:
        job.log.append({"visit": decision.visit, "kas": decision.kas, "lost": lost.reason[:80]})
        self.services.emit(
            "job.recovered", object_id=job.object_id, visit=decision.visit, kas=decision.kas, action=decision.action,
            reason=lost.reason, lost_s=round(since_s - decision.decided_s, 3),
            resumed_ms=round((self.services.clock() - since_s) * 1e3, 2),
        )  # fmt: skip

    async def _let_go(self, job: Job, visit: int) -> None:
        """An object has come in whole: what was launched for the stop before need not be kept any more."""
        before = job.decisions.get(visit - 1)
        if before is None or before.released:
            return
        before.released = True
        self.training.book.save(job)
        try:
            await self.services.must(Release(kas=before.holder_kas, object_id=job.object_id, visit=before.visit))
        except BorderError as error:
            self.services.emit("warning", text=f"job {job.object_id}: {error}")

    # --- second thoughts

    async def reconsider(self) -> None:
        """Look again at where models are on their way to (periodic): is the place still on offer, and still good?"""
        now_s = self.services.clock()
        for job in list(self.training.book.jobs.values()):
            decision = job.decisions.get(max(job.decisions, default=-1))
            if job.state != "running" or decision is None or decision.action != "train" or decision.step is None:
                continue
            if not decision.arrived and now_s - decision.decided_s >= UNDER_WAY_S:
                await self._reconsider(job, decision)

    async def _reconsider(self, job: Job, decision: Decision) -> None:
        try:
            why = await self._why_not(job, decision)
        except (ControllerError, EngineError):
            return  # no better idea
        if why and not decision.arrived and job.decisions.get(decision.visit) is decision:
            place = key(decision)
            lost = Lost(kas=job.kas, object_id=job.object_id, visit=decision.visit, place=place, alive=True, reason=why)
            away = msgspec.structs.replace(lost, kas=decision.kas, leaving=True)
            await self.services.must(away)
            await self.lost(lost)

    async def _why_not(self, job: Job, decision: Decision) -> str:
        """Return why a model should turn to another place in mid-transfer ('': it should not)."""
        options, load = await self.training.stops.look(job, decision.holder_kas)
        now = next((o for o in options if o.handle == decision.handle), None)
        if now is None:
            return "the place is no longer on offer" if options else ""
        if decision.plan and decision.plan.by and decision.plan.by.terminal:
            return ""  # a terminal said that it goes there, and none is asked again as long as it can
        plan = await self.training.stops.plan(job, decision.holder_kas, options, load)
        best = plan.steps[0].option
        if best.handle != now.handle and visit_s(now) > MUCH_BETTER * visit_s(best) + WORTH_S:
            return f"a visit there takes {visit_s(now):.1f} s now, elsewhere {visit_s(best):.1f} s"
        return ""


def key(decision: Decision) -> str:
    """Return the place of a decision, among all K-AS."""
    return place_key(decision.kas, decision.handle)
