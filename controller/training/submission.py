"""The home DCC's work on training jobs: what owners submit and change."""

from __future__ import annotations

from typing import Any

import msgspec

from controller.border.messages import AskFacilities, Facility, Interrupt
from controller.errors import ControllerError, Denied, SteeringError
from controller.runtime.identities import Identities
from controller.services import Services
from controller.training.book import JobBook
from controller.training.jobs import Job, request_of
from controller.training.method import choose_method
from controller.training.next_stop import Stops
from controller.training.outcomes import Reports
from controller.values.decisions import Assessment
from controller.values.errors import NoLender
from packets.messages import (
    Change,
    JobStatus,
    Submit,
    SubmitReply,
)
from topologies.plan import HostPlan

CHANGEABLE = ("broad_accuracy", "expert_accuracy", "trust_floor", "max_visits", "deadline_s")
REASON_CHARS = 100
ANSWERS_KEPT = 1024
FAR = 256  # more than any K-AS number
OVERDUE_S = 25.0  # after its deadline: time for a last verdict and the way home


class Training:
    """All jobs whose home is in this domain."""

    def __init__(self, services: Services, identities: Identities) -> None:
        self.services, self.identities = services, identities
        self.book = JobBook(services)
        self.stops = Stops(services, self.book)
        self.reports = Reports(services, self.book)
        self._answered = services.store.kept("answers to submissions", tuple[str, int], SubmitReply, ANSWERS_KEPT)

    async def submit(self, host: HostPlan, message: Submit) -> SubmitReply:
        """Ask T-FAM about a job, on the options of all K-AS; an admitted job gets its identity.

        Who asks twice (``token``), since no answer came, gets the same one.
        """
        if (answer := self._answered.get((host.name, message.token))) is not None:
            return answer
        if missing := self.services.intelligence.engines.missing(message.spec.engines):
            raise SteeringError(missing)
        object_id = self.identities.new(host.kas)
        request = request_of(message.spec, await self._groups(message.spec.task))
        mpvus = await self.services.facilities(lambda k: AskFacilities(kas=k, role="mpvu"))
        able = [m for m in mpvus if m.attributes.get("ready", True)]
        able = [m for m in able if m.attributes.get("test_samples", 1)] or able
        ready = sorted(able, key=lambda m: self._farness(host.kas, m))
        job = Job(object_id, message.spec, request, host.name, host.kas, ready, state="assessed")
        self.book.put(job)
        self.services.emit(
            "job.submitted", object_id=object_id, owner=host.name, spec=msgspec.to_builtins(message.spec)
        )
        algorithm, verdict = await self._assess(job)
        self.services.emit(
            "job.assessed",
            object_id=object_id,
            admitted=verdict.admitted,
            reasons=verdict.reasons,
            nearest=verdict.nearest,
            predicted=verdict.predicted,
            algorithm=algorithm,
            by=msgspec.to_builtins(verdict.by),
        )
        job.state, job.reason = ("submitted", "") if verdict.admitted else ("rejected", "; ".join(verdict.reasons))
        job.admitted_s = self.services.clock()
        self.book.save(job)
        if not verdict.admitted:
            del self.book.jobs[object_id]
        reply = SubmitReply(
            object_id=object_id if verdict.admitted else 0,
            admitted=verdict.admitted,
            reasons=[r[: REASON_CHARS * 2] for r in verdict.reasons[:5]],
            nearest=verdict.nearest,
            predicted=verdict.predicted,
        )
        self._answered[host.name, message.token] = reply
        return reply

    async def _assess(self, job: Job) -> tuple[dict[str, Any], Assessment]:
        """Let TAG say how a job trains, and T-FAM whether; where nobody lends one that is not here, it is not."""
        options, algorithm = await self.stops.options(job), dict[str, Any]()
        try:
            algorithm = await choose_method(self.services, job, options)
            admits = self.services.intelligence.admits
            return algorithm, await admits(job.request, options, len(job.mpvus), job.spec.engines)
        except NoLender as error:
            return algorithm, Assessment(admitted=False, reasons=[str(error)], nearest={}, predicted={})

    def _farness(self, home: int, mpvu: Facility) -> tuple[int, int, str]:
        """Rank the MPVUs of a job, whose first one gives all verdicts: the nearest to its home, of equals the next one
        round from there, so that jobs of several homes do not all queue at one.
        """
        path = self.services.domain.kas_path(home, mpvu.kas)
        return len(path) or FAR, (mpvu.kas - home) % FAR, mpvu.handle

    async def _groups(self, task: str) -> list[str]:
        """Return a task's groups: as the scenario declares them, else as the terminals of this domain report them."""
        declared = self.services.groups.get(task) or self.services.groups.get("")
        if declared:
            return declared
        return await self.services.intelligence.groups(self.services.clock())

    async def change(self, host: HostPlan, message: Change) -> JobStatus:
        """Do what a job's owner wants changed; its next decision heeds it. ``SteeringError`` for anyone else."""
        job = self.book.job(message.object_id)
        if job.owner != host.name:
            raise Denied("not-owner", f"job {job.object_id} is not {host.name}'s")
        if job.over:
            raise SteeringError(f"job {job.object_id} is over ({job.state})")
        changes = {k: v for k in CHANGEABLE if (v := getattr(message, k)) is not None}
        job.spec = msgspec.structs.replace(job.spec, **changes)
        job.request = request_of(job.spec, job.request.groups)
        job.stopped = job.stopped or message.stop
        self.services.emit("job.changed", object_id=job.object_id, owner=job.owner, stop=message.stop, changes=changes)
        self.book.save(job)
        if message.stop:
            await self._interrupt(job)
        return self.book.status(job)

    def disown(self, owner: str, why: str) -> None:
        """End the jobs of an owner that nobody is to believe any more."""
        for job in [j for j in self.book.jobs.values() if j.owner == owner and not j.over]:
            self.book.end(job, "stopped", f"its owner {owner} {why}")

    async def overdue(self) -> None:
        """Fail the jobs that are long past their deadline (periodic): nobody speaks for them any more."""
        now_s = self.services.clock()
        for job in [j for j in self.book.jobs.values() if not j.over and j.state != "assessed"]:
            late_s = now_s - job.admitted_s - job.spec.deadline_s
            if late_s > OVERDUE_S:
                what = "was never launched" if job.started_s is None else "has not come home"
                self.book.end(
                    job, "failed", f"it {what}, {OVERDUE_S:g} s after its deadline ({job.spec.deadline_s:g} s)"
                )

    async def _interrupt(self, job: Job) -> None:
        """Stop the training that is under way, if any is."""
        latest = job.decisions.get(max(job.decisions, default=-1))
        if latest is None or latest.action != "train" or latest.concluded:
            return
        word = Interrupt(
            kas=latest.kas, object_id=job.object_id, visit=latest.visit, reason="the job was stopped by its owner"
        )
        try:
            await self.services.must(word)
        except ControllerError as error:
            self.services.emit(
                "warning", text=f"visit {latest.visit} of job {job.object_id} goes on to its end: {error}"
            )
