"""Metrics of one's own that MDFPs report, as a scenario's ``cats:`` declares them.

::

    cats: {power_w: {source: "mine.py:power", category: computing, best: 20, worst: 200}}
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from controller.engines.inference.cats import RAW
from controller.values.metrics import OwnMetric
from experiments.errors import ScenarioError
from topologies.own.files import own_function
from topologies.plan import NetworkPlan

NAME = re.compile(r"[a-z][a-z0-9_]{0,31}")


def check(cats: Mapping[str, OwnMetric], plan: NetworkPlan, where: str) -> None:
    """Check that metrics can be called so, go from somewhere to somewhere, and are functions; ``ScenarioError``."""
    for name, metric in cats.items():
        at = f"scenario {where}: cats: metric {name}"
        if not NAME.fullmatch(name):
            raise ScenarioError(f"{at}: a name is 1 to 32 small letters, digits and _, a letter first: power_w")
        if name in RAW:
            raise ScenarioError(f"{at}: every model has a metric of that name; choose another")
        if metric.best == metric.worst:
            raise ScenarioError(f"{at}: best and worst are both {metric.best:g}; what counts 10 and what 0?")
        own_function(at, metric.source, ScenarioError)
    if cats and not any(h.role == "mdfp" for h in plan.hosts):
        raise ScenarioError(f"scenario {where}: cats: no K-AS has an mdfp to report them; add `mdfp: 1` to one")
