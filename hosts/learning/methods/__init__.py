"""Training methods behind one interface, in plain PyTorch: they run alone on a laptop.

>>> task = load_task(TaskSpec())
>>> parts = partition(task, [f"h{i}" for i in range(12)], seed=0)
>>> result = run_method("federated", task, parts, MethodSettings(rounds=8))
>>> result.log[-1].broad, result.bytes, result.steps

On the network the same arithmetic runs between terminals (``hosts/roles``); the bytes here are payload bytes, each
transfer counted once, so a comparison does not depend on a topology. ``python -m hosts.learning.methods`` runs some.
"""

from __future__ import annotations

import contextlib
from functools import partial

from torch import nn

from hosts.learning.errors import LearningError, shown
from hosts.learning.methods.central import train_central
from hosts.learning.methods.federated import train_federated
from hosts.learning.methods.gossip import train_gossip
from hosts.learning.methods.sequential import ORDERS, train_sequential
from hosts.learning.methods.split import train_split
from hosts.learning.methods.types import Entry, Ledger, Method, MethodResult, MethodSettings, Parts, Stop
from hosts.learning.task import Task

__all__ = ["METHODS", "Entry", "MethodResult", "MethodSettings", "run_method"]

METHODS: dict[str, Method] = {
    **{order: partial(train_sequential, order) for order in ORDERS},
    "federated": train_federated,
    "gossip": train_gossip,
    "split": train_split,
    "central": train_central,
}


def run_method(name: str, task: Task, parts: Parts, settings: MethodSettings, *, measure: bool = True) -> MethodResult:
    """Train by a method; ``LearningError`` names the methods there are. ``measure``: accuracy after every round."""
    if name not in METHODS:
        raise LearningError(f"no method is called {shown(name)!r}; there are: {', '.join(METHODS)}")
    ledger = _Last(task, parts, settings, measure=measure)
    with contextlib.suppress(Stop):
        ledger.model = METHODS[name](task, parts, settings, ledger)
    return MethodResult(model=ledger.model, log=ledger.log)


class _Last(Ledger):
    """Remembers the model of the last round, for a run that ends early."""

    model: nn.Module

    def close(self, model: nn.Module, *nodes: str) -> None:
        self.model = model
        super().close(model, *nodes)
