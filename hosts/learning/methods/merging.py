"""Keeping the good of a visit: states on the straight way from the last accepted model to the one that was trained.

What a visit teaches and what it wipes out both grow along that way, but not alike: part of it often keeps most of what
was known and most of what is new (WiSE-FT, Wortsman et al., CVPR 2022). Costs evaluations, no bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import nn

from controller.engines.training import gate
from controller.values.decisions import Measured, Request
from hosts.learning.methods.updates import State, between, state_of
from hosts.learning.spec import Evaluation, Samples
from hosts.learning.task import Task


class Merged(NamedTuple):
    """The state to go on with and its measurement; ``whole``: that of the trained model; ``share``: of the way."""

    state: State
    kept: Evaluation
    whole: Evaluation
    share: float


def as_measured(found: Evaluation) -> Measured:
    """Return an evaluation as the engines read it."""
    return Measured(broad=found.broad, per_group=found.per_group, samples=found.samples)


def merge(
    task: Task,
    samples: Samples,
    before: State | None,
    trained: nn.Module,
    shares: Sequence[float],
    request: Request,
) -> Merged:
    """Measure ``trained`` and the states at ``shares`` of the way from ``before`` to it; return the one of most
    merit for the request (``engines.gate``).

    Without ``before`` there is no way: it is ``trained`` as it is. ``trained`` is left as it came.
    """
    after = state_of(trained)
    whole = task.evaluate(trained, samples)
    best = Merged(after, whole, whole, 1.0)
    if before is None:
        return best
    for share in shares:
        state = between(before, after, share)
        trained.load_state_dict(state)
        found = task.evaluate(trained, samples)
        if gate.merit(request, as_measured(found)) > gate.merit(request, as_measured(best.kept)):
            best = Merged(state, found, whole, share)
    trained.load_state_dict(after)
    return best
