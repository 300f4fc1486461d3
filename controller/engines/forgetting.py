"""How a visit changes what a model knows: the prediction that the planner looks ahead with.

Per group a model has a ``skill`` (expected accuracy), the samples ``seen`` and the visits that ``taught`` it (a visit
with few samples of a group counts as a part of one). A visit first *forgets*: a group that its data hardly holds
loses skill. How much, depends on how often the group was taught, not on how long at a time: what one hospital alone
taught is mostly gone after the next, what three hospitals taught in turn stays (spaced repetition). Then it *learns*:
what is missing to the ceiling shrinks with the samples of the group, faster where more was seen before. A smaller
learning rate forgets much less and learns hardly less, which is why HPO lets it fall.

The constants are fitted to 2,000 transitions measured on the vignette task in random orders (252 visits, three skews,
three learning rate schedules; mean absolute error 0.04). An MPVU's measurement replaces the prediction after every
visit, so that they have to hold for a few visits ahead only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from controller.engines.types import Option, Visit

Array = npt.NDArray[np.float64]

CEILING = 0.982
FORGET_RATE = 0.0194
FORGET_COVER = 24.3
FORGET_PACE = 1.71
SPACING = 2.75
TAUGHT_SAMPLES = 726.0
LEAST_TAUGHT = 0.328
SAMPLES_TO_LEARN = 80.4
LEARN_SHAPE = 1.21
LEARN_SEEN = 51.5
LEARN_PACE = 1.25
THIN_LOSS = 3.34
THIN_SAMPLES = 4.69
SAME_DATA_AGAIN = 0.5


class State(NamedTuple):
    """A model as predicted, each (..., groups): skill 0..1, samples seen, visits that taught the group."""

    skill: Array
    seen: Array
    taught: Array

    def at(self, row: int) -> State:
        """Return one row of a batch of states."""
        return State(self.skill[row], self.seen[row], self.taught[row])


class Rates(NamedTuple):
    """How fast a job's model learns and forgets, as multiples of the fitted constants; numbers, or arrays (..., 1)."""

    gain: Array | float = 1.0
    forget: Array | float = 1.0


USUAL = Rates()


def blank(groups: int) -> State:
    """Return the state of an untrained model."""
    return State(np.zeros(groups), np.zeros(groups), np.zeros(groups))


def mix_matrix(groups: Sequence[str], options: Sequence[Option] | Sequence[Visit]) -> Array:
    """Return samples of each group at each option, shape (options, groups)."""
    shares = np.array([[o.mix.get(g, 0.0) for g in groups] for o in options], dtype=float).reshape(-1, len(groups))
    samples = np.array([o.samples for o in options], dtype=float)
    return np.asarray(np.maximum(shares, 0.0) * samples[:, None])


def step(state: State, met: Array, pace: float, ceiling: Array | float = CEILING, rates: Rates = USUAL) -> State:
    """Predict the state after a visit; arrays broadcast over (..., groups).

    ``met``: samples of each group trained on, times epochs; ``pace``: learning rate as a share of a first visit's;
    ``ceiling``: the accuracy that the data can teach at best; ``rates``: what is known of this job's own.
    """
    loss = rates.forget * FORGET_RATE * pace**FORGET_PACE / np.maximum(state.taught, LEAST_TAUGHT) ** SPACING
    kept = state.skill * np.exp(-loss * np.exp(-met / FORGET_COVER))
    push = (rates.gain * met * pace**LEARN_PACE * (1.0 + state.seen / LEARN_SEEN) / SAMPLES_TO_LEARN) ** LEARN_SHAPE
    top = np.maximum(ceiling - THIN_LOSS / (1.0 + met / THIN_SAMPLES), kept)  # few samples lift only so far
    skill = top - (top - kept) * np.exp(-push)
    return State(skill, state.seen + met * pace, state.taught + 1.0 - np.exp(-met / TAUGHT_SAMPLES))
