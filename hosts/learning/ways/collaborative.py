"""Collaborative inference, an ensemble: several models answer, their probabilities are joined by measured accuracy.

A member's weight is the log-odds of its accuracy beside guessing: what an independent voter's word is worth (the
multi-class form of Zhu et al., 2009). Whoever is missing is left out; one answer is enough.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import torch

from hosts.learning.errors import LearningError
from hosts.learning.ways.calibrate import check_probabilities, log_of

Pool = Literal["linear", "log"]
_SUREST = 0.999


def weight_of(accuracy: float, labels: int) -> float:
    """Return the weight of a member that answers with one of ``labels``: 0 for one that guesses, or worse."""
    if not 0 <= accuracy <= 1 or labels < 2:
        raise LearningError(f"ensemble: accuracy {accuracy:g} must be in 0..1, and labels at least 2, not {labels}")
    right = min(max(accuracy, 1e-9), _SUREST)
    return max(0.0, math.log(right * (labels - 1) / (1 - right)))


def weights_of(accuracies: Mapping[str, float], labels: int) -> dict[str, float]:
    """Return the members' weights, adding up to 1; equal ones where all of them guess."""
    if not accuracies:
        raise LearningError("ensemble: no member")
    raw = {name: weight_of(accuracy, labels) for name, accuracy in accuracies.items()}
    total = sum(raw.values())
    return {name: weight / total if total else 1 / len(raw) for name, weight in raw.items()}


def combine(
    answers: Mapping[str, torch.Tensor | None], accuracies: Mapping[str, float], *, pool: Pool = "linear"
) -> torch.Tensor:
    """Return the ensemble's probabilities, (n, labels), of its members' to the same queries; None: it did not answer.

    ``linear``: their weighted mean; ``log``: their weighted product, normalised. ``LearningError`` when nobody has
    answered, or a member's accuracy is not known.
    """
    there = {name: check_probabilities(answer) for name, answer in answers.items() if answer is not None}
    if not there:
        raise LearningError("ensemble: none of its members has answered")
    unknown = sorted(there.keys() - accuracies.keys())
    shapes = {tuple(answer.shape) for answer in there.values()}
    if unknown or len(shapes) > 1:
        raise LearningError(f"ensemble: no accuracy of {unknown}" if unknown else f"ensemble: answers of {shapes}")
    weights = weights_of({name: accuracies[name] for name in there}, next(iter(shapes))[1])
    if pool == "linear":
        return _sum([weights[name] * answer for name, answer in there.items()])
    return _sum([weights[name] * log_of(answer) for name, answer in there.items()]).softmax(dim=1)


def _sum(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    return torch.stack(list(parts)).sum(dim=0)
