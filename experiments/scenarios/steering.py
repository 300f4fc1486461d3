"""Jobs that find their own way (AATS): ``steering: aats`` with a policy; and networks without control centres.

::

    without_control: true                       # every control centre is ended once test samples are at the MPVUs
    jobs:
      - {task: vignettes, broad_accuracy: 0.8, steering: aats, policy: random-walk, parameters: {jump: 0.3}}
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from experiments.errors import ExperimentError, ScenarioError
from packets.terms import JobSpec
from topologies.own.files import absolute

GREEDY = "greedy"  # the policy of a job that names none


def rooted(jobs: Sequence[JobSpec], folder: Path) -> list[JobSpec]:
    """Return jobs whose policies of one's own, ``file.py:function``, are found from ``folder``."""
    return [msgspec.structs.replace(job, policy=absolute(job.policy, folder)) for job in jobs]


def own_policies(jobs: Sequence[JobSpec]) -> list[str]:
    """Return the policies of one's own that jobs name, each once."""
    return sorted({job.policy for job in jobs if job.steering == "aats" and ":" in job.policy})


def check_job(job: JobSpec, known: Sequence[str], method: str) -> None:
    """Check that a job can find its own way as it says; ``ExperimentError``. ``known``: policies of one's own."""
    from hosts.autonomy.policies import find_policy, load_policies  # brings the engines along: not for every command
    from hosts.errors import HostError

    if job.steering != "aats":
        if job.parameters or job.policy != GREEDY:
            raise ExperimentError(unheeded("parameters" if job.parameters else "policy"))
        return
    try:
        find_policy(job.policy, job.parameters, load_policies(known))
    except HostError as error:
        raise ExperimentError(str(error)) from None
    if method != "routed" or job.engines:
        what = f"method {method}" if method != "routed" else "engines of its own"
        raise ExperimentError(f"{what}: with `steering: aats` a model travels alone, by the engines of the terminals")
    if job.compression == "auto":
        raise ExperimentError(
            "compression auto: a control centre chooses it, with `steering: aats` none does; name one: int8, lossless"
        )


def unheeded(key: str) -> str:
    """Return why a key of a job that control centres steer says nothing."""
    return f"{key}: only a job that finds its own way heeds it; add `steering: aats`, or leave it out"


def check_said(jobs: Any, where: str) -> None:
    """Check that jobs, as they are written, say nothing of a policy without a word of steering; ``ScenarioError``."""
    for number, job in enumerate(jobs if isinstance(jobs, list) else []):
        said = [key for key in ("parameters", "policy") if isinstance(job, Mapping) and key in job]
        if said and "steering" not in job:
            raise ScenarioError(f"scenario {where}: jobs[{number}]: {unheeded(said[0])}")


def check_steering(
    jobs: Sequence[JobSpec], where: str, left_out: Sequence[str], method: str | None = None, *, without_control: bool
) -> None:
    """Check the jobs of a scenario; ``left_out``: its keys that nobody could heed without control centres."""
    for job in jobs:
        try:
            check_job(job, own_policies(jobs), method or job.method)
        except ExperimentError as error:
            raise ScenarioError(f"scenario {where}: jobs: {error}") from None
        if without_control and job.steering != "aats":
            raise ScenarioError(f"scenario {where}: without_control: nobody would steer the jobs; add `steering: aats`")
    if without_control and left_out:
        raise ScenarioError(f"scenario {where}: without_control: {left_out[0]} needs control centres; leave one out")
