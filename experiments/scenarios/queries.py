"""A load of queries on the deployed models, as a scenario's ``queries:`` or ``daitn load`` says it.

::

    replicas: 2                                                       # deploy the model at so many MDFPs
    queries: {pattern: bursts, rate_per_s: 40, seconds: 20, policy: qirce, need: {broad_accuracy: 0.8}}
"""

from __future__ import annotations

import difflib
from typing import Annotated, Literal

import msgspec

from controller.engines.inference.policies import POLICIES
from experiments.errors import ExperimentError, ScenarioError
from packets.queries import Variant
from packets.terms import Member, Share
from topologies.plan import NetworkPlan

BY_GROUP = "group"
NAMES = (*POLICIES, BY_GROUP)
Positive = Annotated[float, msgspec.Meta(gt=0.0, le=1e6)]


class NeedSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What every query asks for: the least accuracies measured (0..1), until when its answer is of use
    (0: always); ``local``: it may not leave its K-AS.
    """

    broad_accuracy: Share = 0.0
    expert_group: Member = ""
    expert_accuracy: Share = 0.0
    deadline_ms: Annotated[int, msgspec.Meta(ge=0, le=3_600_000)] = 0
    local: bool = False


class QueriesSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A load: what all query owners ask together. ``policy``: who picks the model of each query, one of the names that
    ``daitn load --help`` lists, or ``file.py:Class``; ``group``: samples of one group alone; ``samples``: so many
    of them an asker, over and over; ``way``: asks for that way of inference, one of the scenario's ``ways``.

    ``pattern``: steady, a sine (its top ``peak`` times its bottom), bursts (``peak`` times as much for a tenth of each
    ``period_s``), or a hot spot (one K-AS asks ``peak`` times as much as each other, another one each ``period_s``).
    """

    rate_per_s: Positive = 20.0
    pattern: Literal["poisson", "diurnal", "bursts", "hot_spot"] = "poisson"
    peak: Annotated[float, msgspec.Meta(ge=1.0, le=1000.0)] = 4.0
    period_s: Positive = 20.0
    seconds: Annotated[float, msgspec.Meta(gt=0.0, le=86_400.0)] = 10.0
    policy: str = "qirce"
    way: Variant = ""
    group: str = ""
    samples: Annotated[int, msgspec.Meta(ge=1, le=4096)] = 512
    need: NeedSpec = NeedSpec()


def check_policy(name: str) -> None:
    """Check a policy's name; ``ExperimentError`` names the nearest. One of somebody's own is made once, to see."""
    if name in NAMES:
        return
    if ":" in name:
        _make(name)
        return
    near = difflib.get_close_matches(name, NAMES, 1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise ExperimentError(
        f"no policy is called {name!r}; {hint}there are: {', '.join(NAMES)}; or give your own as file.py:Class"
    )


def _make(name: str) -> None:
    import random

    from hosts.errors import BadCommand
    from hosts.inference.load import make_policy  # brings numpy along: not for every command

    try:
        make_policy(name, random.Random(0))
    except BadCommand as error:
        raise ExperimentError(str(error)) from None


def check(queries: QueriesSpec | None, replicas: int, plan: NetworkPlan, where: str) -> None:
    """Check that the network has who asks and where replicas go, and the policy's name; ``ScenarioError``."""
    places = sum(h.role == "mdfp" for h in plan.hosts)
    if replicas > max(places, 1):
        raise ScenarioError(f"scenario {where}: replicas: {replicas} are wanted, the network has {places} MDFP")
    if queries is None:
        return
    if not places or not any(h.role == "query_owner" for h in plan.hosts):
        lacks = "query_owner" if places else "mdfp"
        raise ScenarioError(f"scenario {where}: queries: no K-AS has a {lacks}; add `{lacks}: 1` to one")
    try:
        check_policy(queries.policy)
    except ExperimentError as error:
        raise ScenarioError(f"scenario {where}: queries: {error}") from None
