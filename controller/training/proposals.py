"""Where the holder's K-AS is distributed (paper, Fig. 3) a terminal there says where a job trains next: here, at the
job's home, what that has to rest on, and what of it is believed, which is the order of places and nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from controller.training.jobs import Job
from controller.values.decisions import JobView, Lender, Load, Option, Plan, Visit
from controller.values.distributed import Proposal
from controller.values.errors import EngineError


class Undecided(Exception):
    """It is a terminal's to say, and what one has said, if anything, cannot be; ``str``: why ('': none has)."""


def followed(
    job: Job, view: JobView, proposal: Proposal | None, options: Sequence[Option], load: Load, holder_kas: int
) -> Plan:
    """Return a proposal as a plan whose every figure is this home's own; ``Undecided`` when it cannot be.

    ``options``: on offer now, asked for anew, without what is excluded.
    """
    from controller.engines.routing.mtrce import follow  # a control centre that only routes does not load it

    if proposal is None:
        raise Undecided("")
    offered, first = {o.handle: o for o in options}, proposal.handles[0]
    if first not in offered:
        raise Undecided("the place is not on offer, or is excluded for this job")
    if offered[first].trust < job.request.trust_floor:
        raise Undecided("the place is not trusted enough for this job")
    try:
        plan = follow(job.aim, view, options, [h for h in proposal.handles if h in offered], load)
    except EngineError as error:
        raise Undecided(str(error)[:300]) from None
    if plan.steps[0].option.handle != first:
        raise Undecided("a visit there does not fit into the time that is left")
    by = Lender(kas=holder_kas, ms=proposal.ms, terminal=proposal.by)
    passed_by = [(handle, score) for handle, score in proposal.scores if handle in offered and handle != first]
    return msgspec.structs.replace(plan, alternatives=passed_by, by=by)


def ahead(job: Job, view: JobView, visit: int) -> JobView:
    """Return the job as it will stand when the visit before ``visit`` is over, where that is under way."""
    last = job.last(visit)
    if last is None or last.step is None or last.concluded:
        return view
    option = last.step.option
    under_way = Visit(
        kas=option.kas, handle=option.handle, mix=option.mix, samples=option.samples, epochs=last.step.hyper.epochs
    )
    return msgspec.structs.replace(view, visits=[*view.visits, under_way])
