"""Central pooling: all data goes to one place and is trained on there. The ceiling, and what hospitals may not do."""

from __future__ import annotations

from torch import nn

from hosts.learning.methods.types import Ledger, MethodSettings, Parts
from hosts.learning.safe_bytes import samples_to_bytes
from hosts.learning.spec import TrainSettings, concat_samples
from hosts.learning.task import Task


def train_central(task: Task, parts: Parts, settings: MethodSettings, ledger: Ledger) -> nn.Module:
    """Move all training data once, then train ``rounds`` times ``epochs`` passes over it."""
    for part in parts.values():
        ledger.sent(len(samples_to_bytes(part.train)))
    pooled = concat_samples([part.train for part in parts.values()])
    model = task.new_model(settings.seed)
    for number in range(settings.rounds):
        local = TrainSettings(
            epochs=settings.epochs, batch_size=settings.batch_size, learning_rate=settings.rate(number),
            seed=settings.seed * 10_007 + number,
        )  # fmt: skip
        ledger.trained(task.train(model, pooled, local).seconds, steps=ledger.steps_of(pooled))
        ledger.close(model, "central")
    return model
