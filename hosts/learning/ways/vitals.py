"""Vital signs for the patients of the vignettes: synthetic, for experiments with two kinds of input; no clinical data.

A disease has one of eight *pictures* (feverish, short of breath, in shock, ...). Pictures cut across departments: in a
department of six diseases nearly each shows another one, so vitals tell apart what findings mix up, and say little of
the department, which findings tell. Each disease differs a little from its picture, each patient more from it.

Vitals do not travel with samples: those of a patient are drawn from the disease, by a generator that disease and
findings seed. So whoever holds a labelled sample (a data node, a facility that its data moved to, an MPVU, an asker)
sees the same vitals, as if they had been measured once; a model gets them alone.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from hosts.learning.data import vignettes
from hosts.learning.errors import LearningError
from hosts.learning.models import TableModel
from hosts.learning.spec import NodeData, Samples, TaskSpec
from hosts.learning.tasks import VignetteTask

HIDDEN = 48
_KNOWLEDGE_SEED = 2501_05324
OF_DISEASE = 0.5  # a disease's own deviation, in spreads


class Sign(NamedTuple):
    """A number that is measured: what is usual, how far it spreads, and what can be."""

    usual: float
    spread: float
    least: float
    most: float


SIGNS = {
    "temperature_c": Sign(36.8, 0.5, 32.0, 42.5),
    "heart_rate_per_min": Sign(78, 12, 25, 220),
    "systolic_mmhg": Sign(124, 15, 50, 250),
    "diastolic_mmhg": Sign(78, 10, 25, 150),
    "breaths_per_min": Sign(16, 3, 5, 50),
    "oxygen_percent": Sign(96, 2, 60, 100),
    "glucose_mmol_per_l": Sign(5.8, 1.2, 1.5, 40),
}
WIDTH = len(SIGNS)

# Shifts from the usual, in spreads, in the order of SIGNS.
PICTURES: dict[str, tuple[float, ...]] = {
    "quiet": (0, 0, 0, 0, 0, 0.5, 0),
    "feverish": (2.8, 1.4, -0.3, -0.3, 0.8, -0.2, 0.4),
    "short of breath": (0.3, 1.2, 0.2, 0, 2.6, -2.8, 0.2),
    "in shock": (-0.4, 2.2, -2.4, -2.2, 1.6, -1.0, 0.6),
    "racing": (0.5, 3.0, 0.5, -0.6, 0.6, 0, 0.3),
    "slow": (-1.6, -1.9, -0.4, 0.2, -1.0, -0.2, -0.4),
    "under pressure": (0, 0.1, 2.6, 2.3, 0.1, 0, 0.2),
    "sweet": (0, 0.7, 0.5, 0.2, 0.8, 0.2, 3.2),
}
# In the order of the diseases of each department in ``data/clinic.py``.
SHOWN: dict[str, tuple[str, ...]] = {
    "cardiology": ("in shock", "short of breath", "racing", "slow", "quiet", "feverish"),
    "neurology": ("under pressure", "quiet", "racing", "sweet", "slow", "feverish"),
    "pulmonology": ("feverish", "short of breath", "quiet", "in shock", "sweet", "slow"),
    "gastroenterology": ("feverish", "quiet", "slow", "in shock", "sweet", "racing"),
    "nephrology": ("in shock", "quiet", "feverish", "racing", "short of breath", "under pressure"),
    "endocrinology": ("sweet", "racing", "slow", "under pressure", "in shock", "quiet"),
    "rheumatology": ("slow", "quiet", "short of breath", "sweet", "under pressure", "feverish"),
    "dermatology": ("quiet", "sweet", "under pressure", "feverish", "slow", "racing"),
}


def _shifts() -> np.ndarray:
    """Return each disease's mean shift in spreads, (labels, signs): its picture and its own deviation."""
    own = np.random.default_rng(_KNOWLEDGE_SEED).normal(0, OF_DISEASE, (len(vignettes.LABELS), WIDTH))
    pictures = np.array([PICTURES[name] for group in vignettes.DEPARTMENTS for name in SHOWN[group]])
    shifts: np.ndarray = pictures + own
    return shifts


SHIFTS = _shifts()
_SIGNS = np.array(list(SIGNS.values()))  # (signs, 4)


def vitals_of(department: str, disease: str, rng: np.random.Generator) -> np.ndarray:
    """Draw one patient's vitals, (signs,) float32; ``LearningError`` where there is no such disease."""
    if (department, disease) not in _NUMBERS:
        raise LearningError(f"vitals: no disease {disease[:24]!r} in a department {department[:24]!r}")
    return draw_vitals(np.array([_NUMBERS[department, disease]]), rng).reshape(WIDTH)


def draw_vitals(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw the vitals of patients by their diseases' numbers: (n,) to (n, signs) float32, in the units of ``SIGNS``."""
    return _measured(rng.normal(SHIFTS[labels], 1.0))


def _measured(shifts: np.ndarray) -> np.ndarray:
    usual, spread, least, most = _SIGNS.T
    drawn: np.ndarray = usual + spread * shifts
    return drawn.clip(least, most).astype(np.float32)


_NUMBERS = {
    (group, disease): at
    for at, disease in enumerate(vignettes.LABELS)
    for group in [vignettes.DEPARTMENTS[at // vignettes.PER_DEPARTMENT]]
}


def with_vitals(samples: Samples) -> Samples:
    """Return the same patients in the same order, seen by their vitals instead of their findings."""
    findings, labels = samples.inputs.numpy().astype("<i2"), samples.labels.numpy().astype(int)
    seeds = [zlib.crc32(row.tobytes(), int(label)) for row, label in zip(findings, labels, strict=True)]
    own = [np.random.default_rng(seed).normal(0.0, 1.0, WIDTH) for seed in seeds]
    return Samples(torch.from_numpy(_measured(SHIFTS[labels] + np.reshape(own, (-1, WIDTH)))), samples.labels)


class VitalsModel(TableModel):
    """One hidden layer over vitals in spreads from the usual."""

    def features(self, inputs: torch.Tensor) -> torch.Tensor:
        usual, spread = (torch.from_numpy(_SIGNS[:, i]).float() for i in (0, 1))
        return (inputs.float() - usual) / spread


class VitalsTask(VignetteTask):
    """The vignettes' patients by their vitals. The same seed gives the same patients, row for row, as there."""

    input_type = torch.float32

    def __init__(self, spec: TaskSpec) -> None:
        super().__init__(spec)
        self.width = WIDTH

    def build(self) -> nn.Module:
        return VitalsModel(WIDTH, len(self.labels), HIDDEN)

    def check_inputs(self, inputs: torch.Tensor) -> None:
        least, most = (torch.from_numpy(_SIGNS[:, i]) for i in (2, 3))
        values = inputs.double()
        if not bool(((values >= least) & (values <= most)).all()):
            raise LearningError(f"vitals must be {', '.join(SIGNS)}, each within what can be")

    def probe_features(self, inputs: torch.Tensor) -> np.ndarray:
        usual, spread = _SIGNS[:, 0], _SIGNS[:, 1]
        features: np.ndarray = (inputs.numpy().astype(float) - usual) / spread
        return features

    def sample_of(self, group: str, rng: random.Random) -> tuple[list[float], str]:
        findings, label = super().sample_of(group, rng)
        return self.beside(findings, label), label

    def beside(self, findings: Sequence[float], label: str) -> list[float]:
        """Return the vitals of a patient who shows these findings and has that disease."""
        one = Samples(torch.tensor([list(findings)]), torch.tensor([self.labels.index(label)]))
        vitals: list[float] = with_vitals(one).inputs[0].tolist()
        return vitals

    def make_parts(self, nodes: int, rng: np.random.Generator) -> list[NodeData]:
        return [
            NodeData(train=with_vitals(p.train), test=(with_vitals(p.test[0]), with_vitals(p.test[1])))
            for p in super().make_parts(nodes, rng)
        ]
