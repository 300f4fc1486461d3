"""Switched inference, a cascade: the cheap model answers where it is sure enough, the large one everywhere else.

The threshold is learned on one sample (an MPVU's) so that it holds on another as large: with ``z`` standard errors of
such a prediction to spare, the cascade's accuracy must be within ``allowed_loss`` of the large model's. Thresholds are
tried from the strictest down to the first that fails (fixed-sequence testing, as in Learn then Test, Angelopoulos et
al., 2021), so trying many costs no certainty. A sample too small to tell leaves everything to the large model.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import torch

from hosts.learning.errors import LearningError
from hosts.learning.ways.calibrate import check_probabilities, learn_temperature, scale

NEVER = 2.0  # no confidence reaches it
Z = 2.0  # 98 %, one side
_STEPS = 200


class Threshold(msgspec.Struct, frozen=True, kw_only=True):
    """From which confidence on the cheap model answers, and what was measured with it on the sample it is learned on.

    ``compute``: of a query, as a share of the large model's; ``temperature``: of the cheap model's probabilities.
    """

    value: float
    accuracy: float
    large_accuracy: float
    share_escalated: float
    compute: float
    temperature: float = 1.0


def learn_threshold(
    cheap_probabilities: torch.Tensor,
    large_probabilities: torch.Tensor,
    labels: torch.Tensor,
    allowed_loss: float = 0.01,
    *,
    cheap_compute: float = 0.0,
    calibrated: bool = True,
    z: float = Z,
) -> Threshold:
    """Learn from both models' answers to the same sample; ``cheap_compute``: the cheap one's share of the large one's.

    What is allowed to be lost is a share of all answers (0.01: one in a hundred).
    """
    if not (0 <= allowed_loss <= 1 and cheap_compute >= 0 and z >= 0):
        raise LearningError(f"threshold: allowed_loss {allowed_loss:g} must be in 0..1, what is spent not below 0")
    cheap, large = (check_probabilities(p, labels) for p in (cheap_probabilities, large_probabilities))
    temperature = learn_temperature(cheap, labels) if calibrated else 1.0
    confidence, answers = scale(cheap, temperature).max(dim=1)
    right = (answers == labels).double()
    right_large = (large.argmax(dim=1) == labels).double()
    value = NEVER
    for step in range(_STEPS, -1, -1):
        change = torch.where(confidence >= step / _STEPS, right - right_large, 0.0)
        if _least(change, z) < -allowed_loss:
            break
        value = step / _STEPS
    kept = confidence >= value
    escalated = 1 - float(kept.double().mean())
    return Threshold(
        value=value, accuracy=float(torch.where(kept, right, right_large).mean()),
        large_accuracy=float(right_large.mean()), share_escalated=escalated,
        compute=cheap_compute + escalated, temperature=temperature,
    )  # fmt: skip


def _least(change: torch.Tensor, z: float) -> float:
    """Return what the mean change on another sample as large is at least: both samples' errors add up.

    One answer more is counted as changed, lest few look like certainty.
    """
    n, mean = len(change), float(change.mean())
    spread = max(0.0, (float(change.abs().sum()) + 1) / n - mean * mean)
    return mean - z * float((2 * spread / n) ** 0.5)


def escalates(threshold: Threshold, cheap_probabilities: torch.Tensor) -> torch.Tensor:
    """Tell which queries go on to the large model, (n,) bool."""
    scaled = scale(check_probabilities(cheap_probabilities), threshold.temperature)
    return scaled.max(dim=1).values < threshold.value


def switch(
    threshold: Threshold, cheap_probabilities: torch.Tensor, ask_large: Callable[[torch.Tensor], torch.Tensor]
) -> torch.Tensor:
    """Return the cascade's probabilities, (n, labels); ``ask_large`` gets the row numbers that go on, if any."""
    scaled = scale(check_probabilities(cheap_probabilities), threshold.temperature)
    rows = (scaled.max(dim=1).values < threshold.value).nonzero().flatten()
    if len(rows):
        scaled[rows] = check_probabilities(ask_large(rows))
    return scaled
