"""How a visit changes what a model knows: the prediction that the planner looks ahead with.

Per group a model has a ``skill`` (expected accuracy), the samples ``seen`` and how much it was ``taught`` (which
saturates within a visit, so that several visits teach more than a long one). A visit first *forgets*: a group that its
data hardly holds loses skill, the less the more it was taught. Then it *learns*: what is missing to the ceiling shrinks
with the samples of the group, faster where more was seen before, and slower where much is at risk: an MPVU keeps of a
visit what does not cost too much of what was known before (``Order.merge``), so that a visit to data that lack most of
what a model knows teaches it less.

The constants are fitted to 68 journeys of the vignette task, really trained with such an MPVU (random, Tram-FL's and
planned orders; 4 to 9 visits; four skews; seeds 100-121 and 200-243; 16 of them held out: mean absolute error of a
group's accuracy 0.031 one visit ahead and 0.047 three ahead, bias +0.01, worst at the second visit, where a new group
is expected 0.03 too high). An MPVU's measurement replaces the prediction after every visit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from controller.values.decisions import Option, Visit

Array = npt.NDArray[np.float64]

CEILING = 0.982
FORGET_RATE = 0.00376
FORGET_COVER = 20.5
FORGET_PACE = 0.05
SPACING = 1.144
TAUGHT_SAMPLES = 4423.0
LEAST_TAUGHT = 0.00716
SAMPLES_TO_LEARN = 80.3
LEARN_SHAPE = 1.105
LEARN_SEEN = 62.1
LEARN_PACE = 0.188
THIN_LOSS = 13.3
THIN_SAMPLES = 1.0
CONFLICT = 3.9
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


def step(
    state: State, met: Array, pace: float, ceiling: Array | float = CEILING, rates: Rates = USUAL,
    conflict: float = CONFLICT,
) -> State:  # fmt: skip
    """Predict the state after a visit; arrays broadcast over (..., groups).

    ``met``: samples of each group trained on, times epochs; ``pace``: learning rate as a share of a first visit's;
    ``ceiling``: the accuracy that the data can teach at best; ``rates``: what is known of this job's own;
    ``conflict``: how much slower a model learns by what it knows and the data lack.
    """
    loss = rates.forget * FORGET_RATE * pace**FORGET_PACE / np.maximum(state.taught, LEAST_TAUGHT) ** SPACING
    kept = state.skill * np.exp(-loss * np.exp(-met / FORGET_COVER))
    at_risk = (state.skill * np.exp(-met / FORGET_COVER)).mean(axis=-1, keepdims=True)
    gain = rates.gain * pace**LEARN_PACE * np.exp(-conflict * at_risk)
    push = (gain * met * (1.0 + state.seen / LEARN_SEEN) / SAMPLES_TO_LEARN) ** LEARN_SHAPE
    top = np.maximum(ceiling - THIN_LOSS / (1.0 + met / THIN_SAMPLES), kept)  # few samples lift only so far
    skill = top - (top - kept) * np.exp(-push)
    return State(skill, state.seen + met * pace, state.taught + 1.0 - np.exp(-met / TAUGHT_SAMPLES))
