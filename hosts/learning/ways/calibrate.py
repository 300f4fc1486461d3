"""Probabilities that mean what they say: temperature scaling (Guo et al., ICML 2017) on a sample with known labels."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from hosts.learning.errors import LearningError
from hosts.learning.spec import Samples

LEAST = 1e-9
_ROWS = 512
_SCAN = torch.logspace(-1.0, 1.0, 201, dtype=torch.float64)


def probabilities(model: nn.Module, samples: Samples) -> torch.Tensor:
    """Return a model's label probabilities for all samples, (n, labels)."""
    torch.set_num_threads(1)
    model.eval()
    with torch.inference_mode():
        found = [model(part).softmax(dim=1) for part in torch.split(samples.inputs, _ROWS)]
    return torch.cat(found).clone()


def check_probabilities(given: torch.Tensor, labels: torch.Tensor | None = None) -> torch.Tensor:
    """Return them as float64; ``LearningError`` unless (n, labels), n > 0, none negative or not finite, rows summing to
    1, and the labels (n,) of theirs.
    """
    values = given.detach().double()
    if values.ndim != 2 or not values.numel():
        raise LearningError(f"probabilities of shape {tuple(given.shape)}: need (n, labels)")
    sums = values.sum(dim=1)
    if not bool((values >= 0).all()) or not bool(((sums - 1).abs() < 0.01).all()):
        raise LearningError("probabilities must not be negative, and those of a sample must add up to 1")
    if labels is None:
        return values / sums[:, None]
    if labels.shape != values.shape[:1] or not 0 <= int(labels.min()) <= int(labels.max()) < values.shape[1]:
        raise LearningError(f"labels of shape {tuple(labels.shape)} for probabilities of {tuple(values.shape)}")
    return values / sums[:, None]


def log_of(given: torch.Tensor) -> torch.Tensor:
    """Return logarithms of probabilities; those of none are not below that of ``LEAST``."""
    return given.clamp(min=LEAST).log()


def scale(given: torch.Tensor, temperature: float) -> torch.Tensor:
    """Return probabilities at a temperature: above 1 less sure, below 1 surer, in the same order."""
    return given if temperature == 1.0 else (log_of(given) / temperature).softmax(dim=1)


def learn_temperature(given: torch.Tensor, labels: torch.Tensor) -> float:
    """Return the temperature at which the labels are likeliest, within 0.1..10."""
    logs = log_of(check_probabilities(given, labels))
    losses = torch.stack([F.cross_entropy(logs / t, labels.long()) for t in _SCAN])
    return float(_SCAN[int(losses.argmin())])
