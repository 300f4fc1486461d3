"""One job on a standing network, from its submission until its model is home and deployed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from experiments.report.report import Outcome, summarise
from experiments.run import come_home, deploy, deploy_all_ways, keep_model, submit
from experiments.testbed.testbed import Bed
from packets.messages import JobSpec


def run_job(
    bed: Bed, job: JobSpec, owner: str = "", known: Callable[[int], None] = lambda object_id: None
) -> dict[str, Any]:
    """Submit a job, wait for its model, deploy it where there is an MDFP; return what came of it, as a report has it.

    ``known`` is told the object's identity once there is one. ``RunFailed`` past its deadline.
    """
    outcome = Outcome(seed=job.seed, first_event=len(bed.events), spec=job)
    reply, folder = submit(bed, job, owner), None
    outcome.assessments.append(msgspec.to_builtins(job) | reply)
    outcome.object_id = reply["object_id"]
    known(outcome.object_id)
    if reply["admitted"]:
        come_home(bed, job, outcome)
        folder = keep_model(bed, f"{outcome.object_id:x}", owner, outcome.object_id)
        if bed.terminals("mdfp"):
            deploy(bed, outcome.object_id, owner)
            outcome.ways = deploy_all_ways(bed, outcome.object_id, job, owner)
    result = summarise(outcome, bed.events, {h.name: h.kas for h in bed.plan.hosts})
    return result | {"model": folder and str(folder)}
