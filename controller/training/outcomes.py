"""What terminals ask and report about jobs: orders, visits done, verdicts, the way home."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from controller.border.messages import Evidence
from controller.engines.training import hpo
from controller.errors import SteeringError
from controller.services import Services
from controller.training import groups
from controller.training.book import JobBook, key_of
from controller.training.jobs import Decision, Job, hyper_of
from controller.values.decisions import Measured, Step
from packets.messages import (
    Ack,
    Inquire,
    JobStatus,
    LogPart,
    LogRequest,
    Order,
    OrderRequest,
    Refused,
    Returned,
    Verdict,
    VerdictReply,
    VisitDone,
    encode_message,
)

LOG_BYTES = 900
REASON_CHARS = 100
JobMessage = OrderRequest | VisitDone | Verdict | Returned | Inquire | LogRequest
JobAnswer = Ack | Refused | Order | VerdictReply | JobStatus | LogPart


class Reports:
    """Answers terminals about the jobs in ``book``."""

    def __init__(self, services: Services, book: JobBook) -> None:
        self.services, self.book = services, book
        self.on_arrival: Callable[[Job, int], None] = lambda job, visit: None

    async def handle(self, message: JobMessage) -> JobAnswer:
        """Answer a terminal's message on one of our jobs (which may come from another K-AS)."""
        job = self.book.job(message.object_id)
        match message:
            case OrderRequest():
                order = self._order(job, message)
                self.book.save(job)
                self.on_arrival(job, message.visit)
                return order
            case VisitDone():
                return self._visit_done(job, message)
            case Verdict():
                return await self._verdict(job, message)
            case Returned():
                return self._returned(job)
            case Inquire():
                return self.book.status(job)
            case LogRequest():
                return LogPart(entries=_fitting(job.log[message.first :]))

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
            "model": job.spec.model,
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
                compression=groups.encoding_of(job.spec.compression, decision),
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
        return Order(action="verify", **self._merging(job, decision), **common)

    def _visit_done(self, job: Job, message: VisitDone) -> JobAnswer:
        decision = self._decided(job, message.visit, "train", "verify", "confirm")
        if decision.concluded:
            return Ack()
        if message.lost:
            self.book.end(job, "failed", f"the object was lost on visit {message.visit}: {message.problem}")
        elif message.problem or decision.action != "train":
            job.excluded.add(key_of(decision))
            self.services.emit(
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
        self.book.save(job)
        return Ack()

    def evidence(self, message: Verdict) -> list[Evidence]:
        """Return what an MPVU's first word on some visits says of the nodes that were visited, for their K-AS."""
        job = self.book.jobs.get(message.object_id)
        decision = job.decisions.get(message.visit) if job else None
        if job is None or not job.spec.gate or decision is None or decision.action != "verify" or decision.concluded:
            return []
        visits: list[Decision] = []
        while last := job.decisions.get(message.visit - 1 - len(visits)):
            if last.action != "train" or not last.concluded:
                break
            visits.append(last)
        as_it_came = message.whole or message.per_group  # what part of it is kept is no merit of the node
        after = Measured(broad=message.broad, per_group=as_it_came, samples=message.samples)
        return [
            Evidence(
                kas=visit.kas, object_id=job.object_id, visit=visit.visit, before=job.measured, after=after,
                share=1 / len(visits),
            )
            for visit in visits
        ]  # fmt: skip

    async def _verdict(self, job: Job, message: Verdict) -> JobAnswer:
        decision = self._decided(job, message.visit, "verify", "confirm")
        if decision.said is not None:  # it is repeated: the answer did not come through
            accepted, reason = decision.said
            return VerdictReply(accepted=accepted, reason=reason)
        after = Measured(broad=message.broad, per_group=message.per_group, samples=message.samples)
        if decision.action == "confirm":
            accepted, reason = True, self._confirmed(job, decision, after)
        elif not job.spec.gate:
            accepted, reason = True, "no gate: kept as it is"
            if not decision.concluded:
                job.verified(key_of(decision), after, accepted)
        else:
            engines = self.services.intelligence.engines
            accepted, reason = await engines.judge(job.request, job.measured, after, job.spec.engines)
            if not decision.concluded:
                job.verified(key_of(decision), after, accepted)
        if not decision.concluded:
            entry = {"visit": message.visit, "kas": decision.kas, "broad": round(message.broad, 4)}
            entry |= {"expert": round(job.expert(after), 4), "accepted": accepted, "share": message.share}
            job.log.append(entry)
        decision.concluded, decision.said = True, (accepted, reason[:REASON_CHARS])
        self.services.store.audit(
            "job.verdict", key_of(decision), job.object_id,
            {"visit": message.visit, "accepted": accepted, "reason": reason, "broad": after.broad},
        )  # fmt: skip
        self.book.save(job)
        return VerdictReply(accepted=accepted, reason=reason[:REASON_CHARS])

    def _confirmed(self, job: Job, decision: Decision, after: Measured) -> str:
        """Pool the other MPVU's measurement; one that does not confirm raises the bar for the next attempt."""
        first = key_of(decision) not in job.pool
        job.pool[key_of(decision)] = after
        if self.book.met(job, 0.0):
            self._reached(job, decision)
            return "confirmed on samples no earlier verdict saw"
        job.margin += 0.01 if first else 0.0
        return "not confirmed on the other MPVU's samples"

    def _reached(self, job: Job, decision: Decision) -> None:
        """Say once that the targets are met, on the samples of every MPVU that was asked."""
        pooled = job.pooled()
        if job.reached or pooled is None:
            return
        job.reached = True
        about = {"visit": decision.visit, "visits": len(job.visits), "samples": pooled.samples}
        self.services.emit(
            "job.reached", object_id=job.object_id, broad=pooled.broad, expert=job.expert(pooled), **about
        )

    def _returned(self, job: Job) -> JobAnswer:
        if not job.over:
            met = self.book.met(job, 0.0)
            self.book.end(job, "finished" if met else "stopped" if job.stopped else "failed", job.reason)
            self.on_arrival(job, max(job.decisions, default=0) + 1)  # whoever launched it home lets go of it, too
        return Ack()

    @staticmethod
    def _merging(job: Job, decision: Decision) -> dict[str, Any]:
        """Return what an MPVU may keep of a visit: at a verdict, once there is an accepted state to keep a part of."""
        trained = [d for d in job.decisions.values() if d.action == "train" and d.visit < decision.visit]
        if decision.action != "verify" or not (job.spec.merge and job.spec.gate and job.measured and trained):
            return {}
        return {
            "merge": hpo.MERGE,
            "broad_accuracy": job.spec.broad_accuracy,
            "expert_accuracy": job.spec.expert_accuracy,
            "compression": groups.encoding_of(job.spec.compression, trained[-1]),
        }


def _accuracy(job: Job, pooled: Measured) -> dict[str, float]:
    known = {"broad": round(pooled.broad, 4)}
    if job.spec.expert_group:
        known |= {"expert": round(job.expert(pooled), 4), job.spec.expert_group: round(job.expert(pooled), 4)}
    return known


def _fitting(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the first entries of a log, as many as fit one packet, and one at least: an empty part ends a log."""
    count = min(len(entries), 64)
    while count > 1 and len(encode_message(LogPart(entries=entries[:count]))) > LOG_BYTES:
        count -= 1
    return entries[:count]
