"""Sequential learning: one model visits node after node. What differs is who chooses the next one.

``routed``: MTRCE, from what nodes publish and what an MPVU measured (the testbed's own engine); ``learned``: MTRCE by
reinforcement learning. ``random``: a shuffled
round of all nodes, then the same again. ``cycle``: the nodes in turn. ``tramfl``: Tram-FL's rule (Maejima et al.,
2023): carry per-group counts of the samples used, go where the histogram would be most even afterwards.
With ``gate`` all five get what the network gives: an MPVU's verdict after each visit, on one of two test copies, a
rollback to the last accepted state and, with ``merge``, part of a visit kept where that is better.
"""

from __future__ import annotations

import time

from torch import nn

from controller.engines.routing import mtrce
from controller.engines.training import gate, hpo
from controller.values.decisions import JobView, Measured, Option, Request, Step, Visit
from hosts.learning.compress import decode, encode, travelling
from hosts.learning.methods.merging import as_measured, merge
from hosts.learning.methods.types import Ledger, MethodSettings, Parts
from hosts.learning.methods.updates import QuasiGlobalMomentum, State, state_of
from hosts.learning.spec import Samples, TrainSettings, concat_samples
from hosts.learning.task import Task

EPOCH_S = 0.45
ORDERS = ("routed", "learned", "random", "cycle", "tramfl")


def offers(task: Task, parts: Parts, seed: int) -> list[Option]:
    """Return what the nodes would publish of themselves: private histograms, sample counts, quality."""
    return [
        Option(
            kas=number // 3 + 1, handle=name, mix=task.describe(part.train, seed), samples=len(part.train),
            epoch_s=EPOCH_S, reach_s=0.2, quality=round(task.quality_probe(part.train, seed), 3),
        )
        for number, (name, part) in enumerate(parts.items())
    ]  # fmt: skip


class Journey:
    """One model on its way; ``order`` is one of ``ORDERS``."""

    def __init__(self, task: Task, parts: Parts, settings: MethodSettings, ledger: Ledger, order: str) -> None:
        self.task, self.parts, self.settings, self.ledger = task, parts, settings, ledger
        self.options = offers(task, parts, settings.seed)
        self.how = travelling(settings.compression)
        self.model = task.new_model(settings.seed)
        self.view = JobView()
        self.request = self._request(order)
        self._momentum = QuasiGlobalMomentum(settings.momentum)
        self._tests: Samples = concat_samples([part.test[0] for part in parts.values()])

    def _request(self, order: str) -> Request:
        settings = self.settings
        size = sum(t.numel() * t.element_size() for t in self.model.state_dict().values())
        return Request(
            task=self.task.name, groups=self.task.groups, broad_accuracy=settings.broad_accuracy,
            expert_group=settings.expert_group, expert_accuracy=settings.expert_accuracy, method=order,
            max_visits=settings.rounds, deadline_s=1e9, model_bytes=size, seed=settings.seed,
        )  # fmt: skip

    def visit(self, number: int) -> None:
        """Go to the next node, train there, have it judged."""
        step = mtrce.plan(self.request, self.view, self.options).steps[0]
        before = state_of(self.model)
        self._travel()
        data = self.parts[step.option.handle].train
        result = self.task.train(self.model, data, self._local(step, number))
        self.model.load_state_dict(self._momentum.apply(before, state_of(self.model)))
        self.ledger.trained(result.seconds, steps=self.ledger.steps_of(data))
        accepted, found = self._judge(step, before) if self.settings.gate else (None, None)
        self.view = self._seen(step, accepted, found)
        self.ledger.close(self.model, step.option.handle)

    def _travel(self) -> None:
        """One journey between two places, as it would be on the wire."""
        data, _ = encode(state_of(self.model), self.how)
        self.model.load_state_dict(decode(data, state_of(self.model)))
        self.ledger.sent(len(data))

    def _local(self, step: Step, number: int) -> TrainSettings:
        return TrainSettings(
            epochs=self.settings.epochs, batch_size=self.settings.batch_size, learning_rate=self.settings.rate(number),
            group_weights=step.hyper.group_weights, seed=self.settings.seed * 1000 + number,
        )  # fmt: skip

    def _judge(self, step: Step, before: State) -> tuple[bool, Measured]:
        """Have the MPVU measure; roll back what it rejects. Counts the way to it and its time."""
        self._travel()
        started = time.perf_counter()
        known = before if self.view.measured and self.settings.merge else None
        merged = merge(self.task, self._tests, known, self.model, hpo.MERGE, self.request)
        after = as_measured(merged.kept)
        accepted, _ = gate.judge(self.request, self.view.measured, after)
        self.ledger.trained(time.perf_counter() - started, steps=0)
        if accepted:
            self.view = JobView(visits=self.view.visits, measured=after)
        self.model.load_state_dict(merged.state if accepted else before)
        return accepted, after

    def _seen(self, step: Step, accepted: bool | None, found: Measured | None) -> JobView:
        option = step.option
        visit = Visit(
            kas=option.kas, handle=option.handle, mix=option.mix, samples=option.samples,
            epochs=self.settings.epochs, accepted=accepted, found=found,
        )  # fmt: skip
        return JobView(visits=[*self.view.visits, visit], measured=self.view.measured)


def train_sequential(order: str, task: Task, parts: Parts, settings: MethodSettings, ledger: Ledger) -> nn.Module:
    """Make ``rounds`` visits; the model after the last (the last accepted one, with ``gate``)."""
    journey = Journey(task, parts, settings, ledger, order)
    for number in range(settings.rounds):
        journey.visit(number)
    return journey.model
