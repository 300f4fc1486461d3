"""The tasks that come with the testbed: clinical vignettes, tables, texts."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from hosts.learning.base import Task
from hosts.learning.data import vignettes
from hosts.learning.data.encode import Table
from hosts.learning.data.partitions import deal_rows, mixes
from hosts.learning.data.words import TEXT_LENGTH, Vocabulary
from hosts.learning.errors import LearningError, shown
from hosts.learning.models import TableModel, TextModel, VignetteTransformer, word_weights
from hosts.learning.spec import NodeData, Samples, TaskSpec


class VignetteTask(Task):
    """Clinical vignettes: findings in, diagnosis out; groups are departments."""

    input_type = torch.int16

    def __init__(self, spec: TaskSpec) -> None:
        if not 0 <= spec.noise < 1 or not 1 <= spec.findings_per_vignette <= 64:
            raise LearningError("vignettes: noise must be in 0..1 (below 1) and findings_per_vignette in 1..64")
        if spec.train_per_node < 1 or spec.test_per_node < 1:
            raise LearningError("vignettes: train_per_node and test_per_node must be at least 1")
        group_of = [label // vignettes.PER_DEPARTMENT for label in range(len(vignettes.LABELS))]
        super().__init__(
            spec,
            groups=vignettes.DEPARTMENTS,
            labels=vignettes.LABELS,
            group_of=group_of,
            width=spec.findings_per_vignette,
        )
        self._profiles = vignettes.PROFILES

    def drift(self, group: str, seed: int) -> None:
        number = self._group_number(group)
        for department in range(len(self.groups)) if number is None else [number]:
            self._profiles = vignettes.drifted(self._profiles, department, np.random.default_rng([seed, department]))

    def generate(self, counts: np.ndarray, rng: np.random.Generator) -> Samples:
        """Draw ``counts[label]`` patients of each disease as the world is now."""
        noise, length = self.spec.noise, self.spec.findings_per_vignette
        return vignettes.generate(counts, noise=noise, length=length, rng=rng, profiles=self._profiles)

    def build(self) -> nn.Module:
        return VignetteTransformer(vignettes.TOKENS, len(self.labels))

    def check_inputs(self, inputs: torch.Tensor) -> None:
        if inputs.numel() and not bool(
            ((inputs >= 0) & (inputs < vignettes.TOKENS) & (inputs == inputs.round())).all()
        ):
            raise LearningError(f"a vignette holds finding numbers 0..{vignettes.TOKENS - 1}, whole")

    def probe_features(self, inputs: torch.Tensor) -> np.ndarray:
        bag = torch.zeros(len(inputs), vignettes.TOKENS, dtype=torch.float64)
        return bag.scatter_add_(1, inputs.long(), torch.ones(inputs.shape, dtype=torch.float64)).numpy()

    def sample_of(self, group: str, rng: random.Random) -> tuple[list[float], str]:
        number = self._group_number(group)
        allowed = [label for label in range(len(self.labels)) if number is None or int(self.group_of[label]) == number]
        counts = np.zeros(len(self.labels), dtype=int)
        counts[rng.choice(allowed)] = 1
        fresh = self.generate(counts, np.random.default_rng(rng.getrandbits(32)))
        return self.pick(fresh, "", rng)

    def make_parts(self, nodes: int, rng: np.random.Generator) -> list[NodeData]:
        shares = mixes(self.spec, nodes, len(self.groups), rng)
        return [self._hospital(row, rng) for row in shares]

    def _hospital(self, shares: np.ndarray, rng: np.random.Generator) -> NodeData:
        per_label = np.repeat(shares / vignettes.PER_DEPARTMENT, vignettes.PER_DEPARTMENT)
        train, first, second = (
            self.generate(rng.multinomial(n, per_label / per_label.sum()), rng)
            for n in (self.spec.train_per_node, self.spec.test_per_node, self.spec.test_per_node)
        )
        return NodeData(train=train, test=(first, second))


class TableTask(Task):
    """Any labelled table or text, and the UCI heart files; a group is a class."""

    input_type = torch.float32

    def __init__(self, spec: TaskSpec, table: Table) -> None:
        if not 0.05 <= spec.test_share <= 0.8:
            raise LearningError(f"test_share {spec.test_share:g}: must be in 0.05..0.8")
        if spec.hidden < 0:
            raise LearningError(f"hidden {spec.hidden}: must be 0 (logistic regression) or the width of a layer")
        names = table.label_names
        super().__init__(
            spec, groups=names, labels=names, group_of=list(range(len(names))), width=table.features.shape[1]
        )
        self.table = table
        self.notes = table.notes

    def build(self) -> nn.Module:
        return TableModel(self.width, len(self.labels), self.spec.hidden)

    def check_inputs(self, inputs: torch.Tensor) -> None:
        if not bool(torch.isfinite(inputs.float()).all()):
            raise LearningError("a table row must hold finite numbers")

    def _samples(self, rows: np.ndarray) -> Samples:
        features = torch.from_numpy(self.table.features[rows])
        return Samples(features, torch.from_numpy(self.table.labels[rows].astype(np.int16)))

    def sample_of(self, group: str, rng: random.Random) -> tuple[list[float], str]:
        """Any row of the table; ``pick`` from test samples where the query must be unseen."""
        return self.pick(self._samples(np.arange(len(self.table.labels))), group, rng)

    def make_parts(self, nodes: int, rng: np.random.Generator) -> list[NodeData]:
        dealt = deal_rows(self.spec, self.table.labels, self.table.sites, nodes, rng)
        return [self._split(rows, rng) for rows in dealt]

    def _split(self, rows: np.ndarray, rng: np.random.Generator) -> NodeData:
        """Stratified: of every class ``test_share`` goes to testing, dealt to the two copies in turn."""
        train: list[np.ndarray] = []
        copies: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
        turn = 0
        for label in range(len(self.labels)):
            mine = rng.permutation(rows[self.table.labels[rows] == label])
            tested = round(len(mine) * self.spec.test_share)
            train.append(mine[tested:])
            copies[turn].append(mine[:tested:2])
            copies[1 - turn].append(mine[1:tested:2])
            turn ^= tested % 2
        kept, first, second = (rng.permutation(np.concatenate(part)) for part in (train, *copies))
        return NodeData(train=self._samples(kept), test=(self._samples(first), self._samples(second)))


class TextTask(TableTask):
    """Texts as numbers of their words; the model weighs them by tf-idf."""

    input_type = torch.int16

    def __init__(self, spec: TaskSpec, table: Table) -> None:
        super().__init__(spec, table)
        self.vocabulary = table.vocabulary or Vocabulary.of([])
        self._idf = torch.from_numpy(self.vocabulary.idf)

    def build(self) -> nn.Module:
        return TextModel(self._idf, len(self.labels), self.spec.hidden, TEXT_LENGTH)

    def check_inputs(self, inputs: torch.Tensor) -> None:
        known = len(self._idf)
        if inputs.numel() and not bool(((inputs >= 0) & (inputs < known) & (inputs == inputs.round())).all()):
            raise LearningError(f"a text holds numbers of words 0..{known - 1}, whole")

    def probe_features(self, inputs: torch.Tensor) -> np.ndarray:
        return word_weights(inputs, self._idf, TEXT_LENGTH).numpy().astype(float)

    def sample_from(self, text: str) -> list[float]:
        numbers = self.vocabulary.encode(text)
        if not numbers:
            raise LearningError(f"no word of {shown(text)} occurs in the texts of this task")
        return [*numbers]

    def ask(self, model: nn.Module, sample: Sequence[float]) -> tuple[str, float]:
        """Answer for a text of up to ``width`` words."""
        return super().ask(model, [*sample, *[0] * (self.width - len(sample))])

    def pick(self, samples: Samples, group: str, rng: random.Random) -> tuple[list[float], str]:
        numbers, label = super().pick(samples, group, rng)
        return [int(number) for number in numbers if number], label
