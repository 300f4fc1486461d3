"""HPO: epochs, batch size and learning rate of one visit.

Early visits learn fast; the learning rate then falls with the visits made, so that late visits polish without wiping
out what earlier hospitals taught. A node with few samples makes more passes over them, in smaller batches; a model of
a few kilobytes (a table's) takes larger steps than a transformer. Every method of ordering visits gets the same
values: what a comparison of routes compares is the route.
"""

from __future__ import annotations

import msgspec

from controller.values.decisions import Hyper, Mix, Request
from packets.terms import Fixed

EPOCHS = 2.0
MORE_EPOCHS = 6.0  # where samples are few
LEAST_STEPS = 40  # optimiser steps of a visit: fewer leave a small model where it was (tables: mean 0.87 -> 0.95)
MAX_EPOCHS = 60.0
SAMPLES_PER_VISIT = 3000
BATCH_SIZE = 64
SMALL_BATCH = 16
LEARNING_RATE = 2e-3
SMALL_MODEL_RATE = 5e-3
SMALL_MODEL_BYTES = 64 << 10
RATE_DECAY = 0.8
LOWEST_PACE = 0.1
HEAVIEST = 8.0  # of a group's weight in the loss: a handful of samples must not rule a visit
VERIFY_EVERY = 1  # visits: an MPVU keeps the good part of each; two unverified ones in a row lost what the first taught
MERGE = [0.75, 0.5, 0.25, 0.1]  # shares of a visit's move that an MPVU tries besides all of it


def hyper(request: Request, visit: int, samples: int) -> Hyper:
    """Return the hyper-parameters of training visit number ``visit`` (0 is the first) at data of so many samples."""
    small = 0 < request.model_bytes < SMALL_MODEL_BYTES
    return Hyper(
        epochs=epochs(samples),
        batch_size=BATCH_SIZE if samples >= BATCH_SIZE * SMALL_BATCH else SMALL_BATCH,
        learning_rate=round((SMALL_MODEL_RATE if small else LEARNING_RATE) * pace(visit), 6),
    )


def settled(chosen: Hyper, fixed: Fixed, mix: Mix, visits: int) -> Hyper:
    """Return hyper-parameters, but for what the owner has ``fixed``, of a visit after ``visits`` others to this mix."""
    return msgspec.structs.replace(
        chosen,
        epochs=fixed.epochs or chosen.epochs,
        batch_size=fixed.batch_size or chosen.batch_size,
        learning_rate=fixed.learning_rate * fixed.rate_decay**visits if fixed.learning_rate else chosen.learning_rate,
        group_weights=chosen.group_weights or group_weights(mix, fixed.weighted_loss),
    )


def group_weights(mix: Mix, strength: float) -> Mix:
    """Return the weights of a cyclically weighted loss: each site weighs its rare groups up (Balachandar et al., J. Am.
    Med. Inform. Assoc. 2020). ``mix``: its shares; ``strength`` 0 (no weights) to 1 (inverse shares); the mean weight
    of its samples is 1.
    """
    held = {g: share for g, share in mix.items() if share > 0}
    if not strength or not held:
        return {}
    raw = {g: min(HEAVIEST, (max(held.values()) / share) ** strength) for g, share in held.items()}
    mean = sum(held[g] * raw[g] for g in held) / sum(held.values())
    return {g: round(weight / mean, 4) for g, weight in raw.items()}


def epochs(samples: int) -> float:
    """Return the local epochs: two, more where samples are few, and what makes ``LEAST_STEPS`` of a handful."""
    usual = min(MORE_EPOCHS, max(EPOCHS, SAMPLES_PER_VISIT // max(samples, 1)))
    return float(min(MAX_EPOCHS, max(usual, LEAST_STEPS * SMALL_BATCH / max(samples, 1))))


def pace(visit: int) -> float:
    """Return the learning rate of a visit as a share of the first visit's."""
    return float(max(LOWEST_PACE, RATE_DECAY**visit))
