"""Gossip: no centre. Every node trains, then averages with a few others; news spreads in a logarithm of rounds.

In round r node i sends its model to node i + 2**(r mod log2 n): the one-peer exponential graph (Ying et al., NeurIPS
2021), which averages n nodes exactly in log2 n rounds where n is a power of two, and nearly so otherwise. What comes
out is the mean of all nodes' models.
"""

from __future__ import annotations

import math

from torch import nn

from hosts.learning.compress import decode, encode, travelling
from hosts.learning.methods.federated import Member
from hosts.learning.methods.types import Ledger, MethodSettings, Parts
from hosts.learning.methods.updates import QuasiGlobalMomentum, State, average, state_of
from hosts.learning.spec import TrainSettings
from hosts.learning.task import Task


def distance(number: int, nodes: int) -> int:
    """Return how far along the ring a model is sent in round ``number`` (0 for a single node)."""
    hops = max(1, math.ceil(math.log2(nodes))) if nodes > 1 else 1
    return 2 ** (number % hops) % nodes if nodes > 1 else 0


def target(member: int, number: int, nodes: int) -> int:
    """Return who gets member number ``member``'s model in a round."""
    return (member + distance(number, nodes)) % nodes


def source(member: int, number: int, nodes: int) -> int:
    """Return whose model member number ``member`` gets in a round."""
    return (member - distance(number, nodes)) % nodes


def train_gossip(task: Task, parts: Parts, settings: MethodSettings, ledger: Ledger) -> nn.Module:
    """Run rounds of gossip; the mean of all nodes' models."""
    how = travelling(settings.compression)
    members = [Member(task, part.train, how) for part in parts.values()]
    model = task.new_model(settings.seed)
    states = [state_of(model) for _ in members]
    momenta = [QuasiGlobalMomentum(settings.momentum) for _ in members]
    for number in range(settings.rounds):
        before = states
        trained = [m.train(states[i], _local(settings, number, i)) for i, m in enumerate(members)]
        sent = [encode(state, how)[0] for state in trained]
        for i, data in enumerate(sent):
            ledger.sent(len(data), alone=not i)  # all at once, each over its own link
        states = [_mixed(trained, sent, i, number) for i in range(len(members))]
        states = [m.apply(b, s) for m, b, s in zip(momenta, before, states, strict=True)]
        ledger.trained(*(m.seconds for m in members), steps=sum(ledger.steps_of(m.samples) for m in members))
        model.load_state_dict(average(states, [1.0] * len(states)))
        ledger.close(model, *parts)
    return model


def _mixed(trained: list[State], sent: list[bytes], member: int, number: int) -> State:
    other = source(member, number, len(trained))
    return average([trained[member], decode(sent[other], trained[member])], [0.5, 0.5])


def _local(settings: MethodSettings, number: int, member: int) -> TrainSettings:
    return TrainSettings(
        epochs=settings.epochs, batch_size=settings.batch_size, learning_rate=settings.rate(number),
        seed=settings.seed * 10_007 + number * 101 + member,
    )  # fmt: skip
