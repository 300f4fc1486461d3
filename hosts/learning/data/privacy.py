"""What a node says about its data: a class histogram under differential privacy."""

from __future__ import annotations

import numpy as np

from hosts.learning.errors import LearningError


def private_shares(counts: np.ndarray, epsilon: float, rng: np.random.Generator) -> np.ndarray:
    """Return shares of a histogram with Laplace noise of scale 1/epsilon on every count.

    One sample more or less changes one count by one, so the published shares are epsilon-differentially private for
    any single sample (Dwork and Roth 2014, section 3.3); cutting at zero and normalising cost nothing more.
    """
    if epsilon <= 0:
        raise LearningError(f"epsilon {epsilon:g}: the privacy budget must be above 0")
    noisy = np.maximum(counts + rng.laplace(0.0, 1.0 / epsilon, size=len(counts)), 0.0)
    total = noisy.sum()
    return noisy / total if total else np.full(len(counts), 1 / len(counts))
