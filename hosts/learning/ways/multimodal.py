"""Multimodal inference: one model for findings, one for vitals; their probabilities are fused class by class.

The fused score of class c is ``bias[c] + text[c] * log p_text[c] + vitals[c] * log p_vitals[c]``. With weights of 1 it
is Bayes' rule for inputs that are independent given the class; weights and biases are learned from there on an MPVU's
sample, by the labels' likelihood, which calibrates them. Where one kind of input is missing, the other's model answers
alone, at its own temperature.
"""

from __future__ import annotations

import msgspec
import torch
from torch.nn import functional as F

from hosts.learning.errors import LearningError
from hosts.learning.ways.calibrate import check_probabilities, learn_temperature, log_of, scale

PULL = 3e-2  # towards one weight for all classes
_STEPS = 60


class Fusion(msgspec.Struct, frozen=True, kw_only=True):
    """Weights per class of either kind of input, a bias, and the temperature of each model when it is alone."""

    text: list[float]
    vitals: list[float]
    bias: list[float]
    text_temperature: float = 1.0
    vitals_temperature: float = 1.0


def learn_fusion(text: torch.Tensor, vitals: torch.Tensor, labels: torch.Tensor, *, pull: float = PULL) -> Fusion:
    """Learn from both models' probabilities, (n, labels), for the same patients; ``pull`` holds classes together."""
    logs = [log_of(check_probabilities(given, labels)) for given in (text, vitals)]
    if logs[0].shape != logs[1].shape:
        raise LearningError(f"fusion: probabilities of {tuple(text.shape)} and of {tuple(vitals.shape)}")
    classes = logs[0].shape[1]
    shared = torch.ones(2, dtype=torch.float64, requires_grad=True)
    own = torch.zeros(3, classes, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([shared, own], max_iter=_STEPS, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimiser.zero_grad()
        scores = own[2] + sum((shared[i] + own[i]) * logs[i] for i in (0, 1))
        found = F.cross_entropy(scores, labels.long()) + pull * own.square().sum() / classes
        found.backward()  # type: ignore[no-untyped-call]
        return found

    optimiser.step(loss)  # type: ignore[no-untyped-call]
    weights = (shared[:, None] + own[:2]).detach()
    return Fusion(
        text=weights[0].tolist(), vitals=weights[1].tolist(), bias=own[2].tolist(),
        text_temperature=learn_temperature(text, labels), vitals_temperature=learn_temperature(vitals, labels),
    )  # fmt: skip


def fuse(fusion: Fusion, text: torch.Tensor | None, vitals: torch.Tensor | None) -> torch.Tensor:
    """Return the fused probabilities, (n, labels); None: that kind of input is missing, the other answers alone."""
    if text is None and vitals is None:
        raise LearningError("fusion: neither findings nor vitals were answered")
    if text is None or vitals is None:
        alone, degree = (vitals, fusion.vitals_temperature) if text is None else (text, fusion.text_temperature)
        assert alone is not None
        return scale(check_probabilities(alone), degree)
    logs = [log_of(check_probabilities(given)) for given in (text, vitals)]
    if logs[0].shape != logs[1].shape or logs[0].shape[1] != len(fusion.bias):
        raise LearningError(
            f"fusion of {len(fusion.bias)} labels: probabilities of {tuple(text.shape)} and {tuple(vitals.shape)}"
        )
    weights = torch.tensor([fusion.text, fusion.vitals], dtype=torch.float64)
    scores = torch.tensor(fusion.bias, dtype=torch.float64) + weights[0] * logs[0] + weights[1] * logs[1]
    return scores.softmax(dim=1)
