"""The jobs whose home is in this domain, and what is told and kept of each."""

from __future__ import annotations

import msgspec

from controller.border.messages import place_key
from controller.engines.training import gate
from controller.errors import SteeringError
from controller.services import Services
from controller.training.jobs import Decision, Job
from controller.values.decisions import Measured
from packets.messages import (
    JobStatus,
)

REASON_CHARS = 100
JOBS_KEPT = 1024
DIED = "its control centre died while it was looked at, and looks at it again"


class JobBook:
    """All jobs of this domain by object id; keeps the store abreast of them."""

    def __init__(self, services: Services) -> None:
        self.services = services
        self.jobs = services.store.kept("jobs", int, Job, JOBS_KEPT)

    def job(self, object_id: int) -> Job:
        """Return a job of this domain; ``SteeringError`` when no job has this object."""
        job = self.jobs.get(object_id)
        if job is None:
            raise SteeringError(f"no job has object {object_id}")
        return job

    def put(self, job: Job) -> None:
        """Take a job in; the oldest that is over makes room. ``SteeringError``: as many as are kept are under way."""
        if len(self.jobs) >= JOBS_KEPT:
            over = next((i for i, j in self.jobs.items() if j.over), None)
            if over is None:
                raise SteeringError(f"{JOBS_KEPT} jobs are under way here already; submit it again when one is over")
            del self.jobs[over]
        self.jobs[job.object_id] = job

    def owner(self, object_id: int) -> str:
        """Return whose job an object is ('': none of this domain)."""
        job = self.jobs.get(object_id)
        return job.owner if job is not None else ""

    def met(self, job: Job, margin: float) -> bool:
        """Tell whether the accepted model meets the job's targets by ``margin`` (0..1) over all MPVUs that saw it."""
        pooled = job.pooled()
        return pooled is not None and gate.targets_met(job.request, pooled, margin)

    def verified(self, object_id: int) -> tuple[Measured, float] | None:
        """Return what MPVUs measured of a job's model, and its deadline in seconds; None: there is no such job."""
        job = self.jobs.get(object_id)
        pooled = job.pooled() if job is not None else None
        return (pooled, job.spec.deadline_s) if job is not None and pooled is not None else None

    def end(self, job: Job, state: str, reason: str) -> None:
        """End a job in one of the states ``jobs.OVER``, and tell with what accuracy."""
        pooled = job.pooled()
        job.state, job.reason = state, reason
        self.services.emit(
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

    def resume(self) -> list[Job]:
        """Return the jobs that an earlier life of this control centre left under way.

        Of one that it had not answered yet its owner asks again: that one is no more.
        """
        for job in [j for j in self.jobs.values() if j.state == "assessed"]:
            self.end(job, "rejected", DIED)
        return [job for job in self.jobs.values() if not job.over]

    def status(self, job: Job) -> JobStatus:
        """Return what a job's owner is told of it."""
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
        """Write a job down as it is now."""
        if self.jobs.get(job.object_id) is job:
            self.jobs[job.object_id] = job
        pooled = job.pooled()
        broad, expert = (pooled.broad if pooled else 0.0), job.expert(pooled)
        self.services.store.job(
            job.object_id, job.owner, job.state, msgspec.to_builtins(job.spec), broad, expert, job.reason
        )


def key_of(decision: Decision) -> str:
    """Return the key among all K-AS of the place of a stop."""
    return place_key(decision.kas, decision.handle)
