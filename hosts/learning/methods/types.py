"""What every training method takes and gives: one interface, so that they can be exchanged and compared."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from torch import nn

from hosts.learning.spec import Evaluation, NodeData, Samples, concat_samples
from hosts.learning.task import Task

Parts = Mapping[str, NodeData]
SLOWEST = 0.1


class MethodSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of all methods; each uses what concerns it.

    ``rounds``: visits (sequential methods), rounds over all nodes (federated, gossip), passes over all nodes (split),
    or passes over the pooled data (central). ``epochs`` are local ones, per visit or round. The learning rate falls by
    ``rate_decay`` a round, not below a tenth. ``compression``: see ``compress.parse_spec``. ``secure``: federated
    updates are masked, the aggregator sees sums alone. ``momentum``: quasi-global momentum's weight (0: none).
    ``participation``: share of the nodes in each federated round. ``cut``: where split learning cuts the model (0: at
    its last place).
    ``gate``: an MPVU's verdict after each visit, with rollback (sequential methods); ``merge``: it may keep part of a
    visit. ``expert_group`` and the targets
    steer the routed order and, with ``stop_at_targets``, end the training.
    """

    rounds: int = 8
    epochs: float = 2.0
    batch_size: int = 64
    learning_rate: float = 2e-3
    rate_decay: float = 0.8
    seed: int = 0
    compression: str = "none"
    secure: bool = False
    momentum: float = 0.0
    participation: float = 1.0
    cut: int = 0
    gate: bool = True
    merge: bool = True
    broad_accuracy: float = 0.8
    expert_group: str | None = None
    expert_accuracy: float = 0.0
    stop_at_targets: bool = False

    def rate(self, number: int) -> float:
        """Return the learning rate of round (or visit) ``number``, 0 the first."""
        return self.learning_rate * max(SLOWEST, self.rate_decay**number)


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """What has been spent when a round (or visit) ended; all but ``round`` and ``nodes`` are sums since the start.

    ``bytes``: payload bytes that were sent from one place to another. ``bottleneck_bytes``: of these, what had to pass
    one after the other (through one place's link), so time on a network is about ``seconds`` + 8 *
    ``bottleneck_bytes`` / its rate. ``seconds``: computing, parallel work counted once (its slowest node);
    ``core_seconds``: all of it. ``steps``: optimiser steps, all nodes together. ``broad`` and ``per_group``: accuracy
    of the model at that time, on the test samples of both copies.
    """

    round: int
    nodes: tuple[str, ...]
    bytes: int
    bottleneck_bytes: int
    seconds: float
    core_seconds: float
    steps: int
    broad: float | None = None
    per_group: dict[str, float] = {}


class MethodResult(msgspec.Struct, frozen=True, kw_only=True):
    """The trained model and how it came about."""

    model: nn.Module
    log: list[Entry]

    @property
    def bytes(self) -> int:
        return self.log[-1].bytes if self.log else 0

    @property
    def steps(self) -> int:
        return self.log[-1].steps if self.log else 0

    @property
    def seconds(self) -> float:
        return self.log[-1].seconds if self.log else 0.0


Method = Callable[[Task, Parts, MethodSettings, "Ledger"], nn.Module]


class Stop(Exception):
    """The targets are met: train no further."""


class Ledger:
    """Keeps the account of a run; ``measure`` False leaves the accuracies out (and saves their time)."""

    def __init__(self, task: Task, parts: Parts, settings: MethodSettings, *, measure: bool = True) -> None:
        self.task, self.settings, self.measure = task, settings, measure
        self.log: list[Entry] = []
        self._tests = concat_samples([copy for part in parts.values() for copy in part.test])
        self._sums: dict[str, Any] = {
            "bytes": 0, "bottleneck_bytes": 0, "seconds": 0.0, "core_seconds": 0.0, "steps": 0
        }  # fmt: skip

    def sent(self, size: int, *, alone: bool = True) -> None:
        """Count a transfer; ``alone`` False: beside others, over links of its own."""
        self._sums["bytes"] += size
        self._sums["bottleneck_bytes"] += size if alone else 0

    def trained(self, *seconds: float, steps: int) -> None:
        """Count training, of several nodes at the same time when several figures are given."""
        self._sums["seconds"] += max(seconds)
        self._sums["core_seconds"] += sum(seconds)
        self._sums["steps"] += steps

    def steps_of(self, samples: Samples) -> int:
        """Return the optimiser steps of one visit's local epochs."""
        return max(1, round(self.settings.epochs * len(samples) / self.settings.batch_size))

    def close(self, model: nn.Module, *nodes: str) -> None:
        """End a round; raises ``Stop`` (which ``run_method`` takes) when targets are met and that is the end."""
        found = self.task.evaluate(model, self._tests) if self.measure or self.settings.stop_at_targets else None
        told: dict[str, Any] = {"broad": round(found.broad, 4), "per_group": found.per_group} if found else {}
        self.log.append(Entry(round=len(self.log), nodes=nodes, **self._sums, **told))
        if found and self.settings.stop_at_targets and self.met(found):
            raise Stop

    def met(self, found: Evaluation, margin: float = 0.0) -> bool:
        """Tell whether a measurement reaches both targets."""
        settings = self.settings
        expert = found.per_group.get(settings.expert_group or "", 0.0) if settings.expert_group else 1.0
        return found.broad >= settings.broad_accuracy + margin and expert >= min(1.0, settings.expert_accuracy + margin)
