"""Ways of inference that a scenario deploys beside its plain model, each a class of queries of its own.

::

    ways: [cached, split]
    queries: {way: cached, samples: 32}      # and `daitn query --way split`
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Sequence
from typing import Annotated

import msgspec

from experiments.errors import ScenarioError
from experiments.scenarios.queries import QueriesSpec
from hosts.learning.task_spec import TaskSpec
from packets.terms import JobSpec
from topologies.plan import NetworkPlan

NAMES = ("cached", "split", "collaborative", "switched", "multimodal")
WayName = Annotated[str, msgspec.Meta(max_length=24, extra_json_schema={"enum": list(NAMES)})]
BESIDE = {"switched": "cheap", "multimodal": "vitals"}  # the model that is trained for it
LEAST_MDFPS = {"split": 2, "switched": 2}


def check_ways(
    ways: list[str], queries: QueriesSpec | None, data: TaskSpec, plan: NetworkPlan, where: str,
    jobs: Sequence[JobSpec] = (),
) -> None:  # fmt: skip
    """Check that every way, and the model of every job, is one that this task and this network can have;
    ``ScenarioError`` in one line.
    """
    for job in jobs:
        check_model(job.model, ways, data, f"scenario {where}: jobs")
    for way, count in Counter(ways).items():
        if why := _why_not(way, data, plan) or ("it is named twice" if count > 1 else ""):
            raise ScenarioError(f"scenario {where}: ways: {way}: {why}")
    if queries is not None and queries.way and queries.way not in ways:
        there = f"`ways` has: {', '.join(ways)}" if ways else f"add `ways: [{queries.way}]`"
        raise ScenarioError(f"scenario {where}: queries: no way {queries.way!r} is deployed; {there}")


def check_model(model: str, ways: Sequence[str], data: TaskSpec, where: str) -> None:
    """Check that a job may train this model of a task, to be deployed as the plain one; ``ScenarioError``."""
    why = _why_no(model, data) or ("`ways` are made of the task's own model; leave it out" if ways else "")
    if not why and model == "vitals":
        why = "who asks the plain model has findings; leave it out, and add `ways: [multimodal]`"
    if model and why:
        raise ScenarioError(f"{where}: model {model}: {why}")


def _why_not(way: str, data: TaskSpec, plan: NetworkPlan) -> str:
    if way not in NAMES:
        near = difflib.get_close_matches(way, NAMES, 1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        return f"no way is called so; {hint}there are: {', '.join(NAMES)}"
    places, least = sum(h.role == "mdfp" for h in plan.hosts), LEAST_MDFPS.get(way, 1)
    if places < least:
        return f"it takes {least} MDFP, the network has {places}; add `mdfp: 1` to a K-AS"
    if way in BESIDE:
        return _why_no(BESIDE[way], data)
    return _why_not_cut(data) if way == "split" else ""


def _why_no(model: str, data: TaskSpec) -> str:
    return "" if data.name == "vignettes" else f"task {data.name} has no {model} model; the vignettes have one"


def _why_not_cut(data: TaskSpec) -> str:
    if data.name == "own":
        from hosts.learning.methods.split import cut_sizes  # bring PyTorch along: not for every command
        from hosts.learning.task import load_task

        whole = cut_sizes(load_task(data).new_model(0)) == (0, 0)
        return "the model of this task has no layers that are known, to cut between" if whole else ""
    if data.name != "vignettes" and not data.hidden:
        return f"the model of task {data.name} has one layer and cannot be cut; set `data: {{hidden: 32}}`"
    return ""
