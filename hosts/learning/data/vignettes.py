"""Generated clinical vignettes: a fixed knowledge base of departments, diseases and findings, and patients drawn from
it.

A vignette is a handful of findings. Most come from the disease's profile (findings that are typical of the disease,
of its department, and some that other departments see too), a share ``noise`` is drawn from all findings. The
knowledge base is the same in every run; the seed of a run decides patients and who sees them.
"""

from __future__ import annotations

import numpy as np
import torch

from hosts.learning.data.clinic import DISEASES, FINDINGS
from hosts.learning.spec import Samples

DEPARTMENTS = list(DISEASES)
LABELS = [disease for diseases in DISEASES.values() for disease in diseases]
FINDING_NAMES = [finding for findings in FINDINGS.values() for finding in findings]
PER_DEPARTMENT = len(LABELS) // len(DEPARTMENTS)
TOKENS = len(FINDING_NAMES)
_KNOWLEDGE_SEED = 2501_05323
OWN, FOREIGN = 7, 4
FOREIGN_WEIGHT = 0.6
DRIFTING = 5  # of a disease's OWN findings


def _profiles() -> np.ndarray:
    """Return how likely each finding is in each disease, shape (labels, findings), rows summing to 1."""
    rng = np.random.default_rng(_KNOWLEDGE_SEED)
    pool = TOKENS // len(DEPARTMENTS)
    table = np.zeros((len(LABELS), TOKENS))
    for label in range(len(LABELS)):
        home = label // PER_DEPARTMENT * pool
        own = home + rng.choice(pool, OWN, replace=False)
        foreign = rng.choice(np.delete(np.arange(TOKENS), np.s_[home : home + pool]), FOREIGN, replace=False)
        table[label, own] = rng.uniform(0.5, 1.5, OWN)
        table[label, foreign] = FOREIGN_WEIGHT * rng.uniform(0.5, 1.5, FOREIGN)
    profiles: np.ndarray = table / table.sum(axis=1, keepdims=True)
    return profiles


PROFILES = _profiles()


def drifted(profiles: np.ndarray, department: int, rng: np.random.Generator) -> np.ndarray:
    """Return profiles as they are once the diseases of a department show in another way: of what is typical of each in
    its own department, ``DRIFTING`` findings give way to others of that department.
    """
    pool = TOKENS // len(DEPARTMENTS)
    home = np.arange(department * pool, (department + 1) * pool)
    changed = profiles.copy()
    for label in range(department * PER_DEPARTMENT, (department + 1) * PER_DEPARTMENT):
        typical = home[profiles[label, home] > 0]
        old = rng.choice(typical, DRIFTING, replace=False)
        new = rng.choice(np.setdiff1d(home, typical), DRIFTING, replace=False)
        changed[label, new], changed[label, old] = profiles[label, old], 0.0
    return changed


def generate(
    counts: np.ndarray, *, noise: float, length: int, rng: np.random.Generator, profiles: np.ndarray = PROFILES
) -> Samples:
    """Draw ``counts[label]`` patients of each disease, shuffled; inputs (n, length) int16 finding numbers."""
    labels = rng.permutation(np.repeat(np.arange(len(LABELS)), counts))
    edges = ((1 - noise) * profiles + noise / TOKENS).cumsum(axis=1)
    draws = rng.random((len(labels), length))
    tokens = np.empty((len(labels), length), dtype=np.int16)
    for label in np.unique(labels):
        rows = labels == label
        tokens[rows] = np.minimum(np.searchsorted(edges[label], draws[rows]), TOKENS - 1)
    return Samples(torch.from_numpy(tokens), torch.from_numpy(labels.astype(np.int16)))
