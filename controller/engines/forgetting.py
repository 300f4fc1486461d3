"""How a visit changes what a model knows: the prediction that the planner looks ahead with.

Per group, ``skill`` is the expected accuracy and ``seen`` the samples the model has met.  A visit first *forgets*: a group
that the visit's data hardly holds loses skill, the less the more of it was seen before.  Then it *learns*: what is missing
to ``CEILING`` shrinks with the samples of the group, the faster the more was seen before.  Both slow down with the learning
rate.  The constants are fitted to 1,680 transitions of the vignette task (mean absolute error 0.04, correlation 0.96);
measured accuracies replace the prediction at every MPVU, so they have to be right for a few visits only.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from controller.engines.types import Hyper, Option, Visit

Array = np.ndarray

CEILING = 0.976
SAMPLES_TO_LEARN = 92.0
LEARN_SHAPE = 1.31
FORGET_RATE = 5.5
FORGET_SEEN = 125.0
FORGET_COVER = 19.0
LEARN_SEEN = 450.0
RATE_POWER = 1.13
REFERENCE_RATE = 2e-3
SAME_DATA_AGAIN = 0.5


def mix_matrix(groups: Sequence[str], options: Sequence[Option] | Sequence[Visit]) -> Array:
    """Return samples of each group at each option, shape (options, groups)."""
    return np.array([[max(0.0, o.mix.get(g, 0.0)) * o.samples for g in groups] for o in options]).reshape(-1, len(groups))


def step(skill: Array, seen: Array, met: Array, hyper: Hyper) -> tuple[Array, Array]:
    """Predict (skill, seen) after a visit with ``met`` samples of each group; all arrays broadcast over (..., groups)."""
    rate = (hyper.learning_rate / REFERENCE_RATE) ** RATE_POWER
    met = met * hyper.epochs
    loss = FORGET_RATE / (1.0 + seen / FORGET_SEEN) * rate * np.exp(-met / FORGET_COVER)
    kept = np.minimum(skill * np.exp(-loss), CEILING)
    push = (met * rate * (1.0 + seen / LEARN_SEEN) / SAMPLES_TO_LEARN) ** LEARN_SHAPE
    learned = CEILING - (CEILING - kept) * np.exp(-push)
    return np.maximum(learned, 0.0), seen + met * rate
