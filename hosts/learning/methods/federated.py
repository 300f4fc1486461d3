"""Federated averaging (McMahan et al., AISTATS 2017): all train on the same model at once, one place averages.

With ``compression`` a member sends a coded difference to the round's model and keeps what it left out for its next one
(error feedback); with ``secure`` it sends its weighted difference masked, and the aggregator learns the sum alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from torch import nn

from hosts.learning.compress import PLAIN, Compression, decode, encode, parse_spec
from hosts.learning.errors import LearningError
from hosts.learning.methods.masks import Masker, Words, add_up, from_words, to_words
from hosts.learning.methods.types import Ledger, MethodSettings, Parts
from hosts.learning.methods.updates import QuasiGlobalMomentum, State, average, minus, plus, scaled, state_of
from hosts.learning.spec import Samples, TrainResult, TrainSettings
from hosts.learning.task import Task

Teach = Callable[[nn.Module, Samples, TrainSettings], TrainResult]


class Member:
    """A data node's side: train on what the round's model is, answer with an update.

    ``teach``: what trains a model in place, where that is not the task's own way.
    """

    def __init__(self, task: Task, samples: Samples, how: Compression, teach: Teach | None = None) -> None:
        self.task, self.samples, self.how = task, samples, how
        self._teach = teach or task.train
        self.masker = Masker()
        self.seconds, self.loss = 0.0, 0.0
        self._left: State | None = None

    def train(self, start: State, settings: TrainSettings) -> State:
        """Return the state after local training from ``start``."""
        model = self.task.new_model(0)
        model.load_state_dict(start)
        result = self._teach(model, self.samples, settings)
        self.seconds, self.loss = result.seconds, result.loss
        return state_of(model)

    def update(self, start: State, after: State) -> bytes:
        """Return the update as bytes, a difference to ``start`` where it is coded."""
        base = start if self.how.kind != "none" else None
        data, self._left = encode(after, self.how, base=base, left=self._left)
        return data

    def masked(
        self, start: State, after: State, *, weight: float, keys: dict[int, bytes], mine: int, context: bytes
    ) -> Words:
        """Return the weighted difference, hidden."""
        words = to_words(scaled(minus(after, start), weight), len(keys))
        return self.masker.mask(words, keys, mine, context)


class Aggregator:
    """The compute facility's side: the model of the round, and what becomes of it."""

    def __init__(self, state: State, momentum: QuasiGlobalMomentum | None = None) -> None:
        self.state = state
        self._momentum = momentum or QuasiGlobalMomentum(0.0)

    def offer(self, how: Compression) -> bytes:
        """Return the model of the round as bytes; from now on it is what those will read who get them."""
        data, _ = encode(self.state, how if how.kind in ("int8", "lossless") else PLAIN)
        self.state = decode(data, self.state)
        return data

    def take(self, updates: Sequence[bytes], weights: Sequence[float]) -> None:
        """Average the members' updates into the next model; ``LearningError`` when one is no update of this round."""
        self._move(average([decode(u, self.state, base=self.state) for u in updates], weights))

    def take_masked(self, updates: Sequence[Words]) -> None:
        """Add the sum of masked, weighted differences (weights sum to 1 over all members) to the model."""
        if not updates:
            raise LearningError("a masked round without any update")
        self._move(plus(self.state, from_words(add_up(updates), self.state)))

    def _move(self, after: State) -> None:
        self.state = self._momentum.apply(self.state, after)


def train_federated(task: Task, parts: Parts, settings: MethodSettings, ledger: Ledger) -> nn.Module:
    """Run rounds of federated averaging; the model after the last."""
    how = parse_spec(settings.compression)
    if settings.secure and how.kind != "none":
        raise LearningError("secure aggregation sends masked numbers, which do not compress: give compression none")
    members = {name: Member(task, part.train, how) for name, part in parts.items()}
    model = task.new_model(settings.seed)
    aggregator = Aggregator(state_of(model), QuasiGlobalMomentum(settings.momentum))
    for number in range(settings.rounds):
        chosen = _chosen(list(members), settings, number)
        _round(aggregator, {n: members[n] for n in chosen}, settings, number, ledger)
        model.load_state_dict(aggregator.state)
        ledger.close(model, *chosen)
    return model


def _chosen(names: list[str], settings: MethodSettings, number: int) -> list[str]:
    count = max(1, round(settings.participation * len(names)))
    rng = np.random.default_rng([settings.seed, number, 11])
    return sorted(names[i] for i in rng.choice(len(names), count, replace=False))


def _round(
    aggregator: Aggregator, members: dict[str, Member], settings: MethodSettings, number: int, ledger: Ledger
) -> None:
    size = len(aggregator.offer(next(iter(members.values())).how))
    start, total = aggregator.state, sum(len(m.samples) for m in members.values())
    weights = [len(m.samples) / total for m in members.values()]
    states = [m.train(start, _local(settings, number, i)) for i, m in enumerate(members.values())]
    for _ in members:
        ledger.sent(size)
    if settings.secure:
        keys = {i: m.masker.public for i, m in enumerate(members.values())}
        hidden = [
            m.masked(start, states[i], weight=weights[i], keys=keys, mine=i, context=number.to_bytes(4, "big"))
            for i, m in enumerate(members.values())
        ]
        aggregator.take_masked(hidden)
        sizes = [4 * len(words) + 32 * len(keys) for words in hidden]
    else:
        updates = [m.update(start, state) for m, state in zip(members.values(), states, strict=True)]
        aggregator.take(updates, weights)
        sizes = [len(u) for u in updates]
    for update_size in sizes:
        ledger.sent(update_size)
    steps = sum(ledger.steps_of(m.samples) for m in members.values())
    ledger.trained(*(m.seconds for m in members.values()), steps=steps)


def _local(settings: MethodSettings, number: int, member: int) -> TrainSettings:
    return TrainSettings(
        epochs=settings.epochs, batch_size=settings.batch_size, learning_rate=settings.rate(number),
        seed=settings.seed * 10_007 + number * 101 + member,
    )  # fmt: skip
