"""The vignettes' cheap model, beside the default one, which is the large model of the pair.

It counts findings and passes them through a narrow layer: some thousandth of the large model's operations. It is
narrow on purpose. The generator draws findings independently of each other, so a full-width linear model learns these
vignettes as well as any transformer; with real texts that is not so, and a cheap model is one that knows less.
"""

from __future__ import annotations

import torch
from torch import nn

from hosts.learning.data import vignettes
from hosts.learning.models import TableModel
from hosts.learning.tasks import VignetteTask

HIDDEN = 12


class FindingsBag(TableModel):
    """How often each finding occurs, through one narrow layer."""

    def features(self, inputs: torch.Tensor) -> torch.Tensor:
        counts = torch.zeros(len(inputs), vignettes.TOKENS)
        return counts.scatter_add_(1, inputs.long(), torch.ones(inputs.shape))


class CheapVignetteTask(VignetteTask):
    """The vignettes, answered by the cheap model; data and samples are the same."""

    def build(self) -> nn.Module:
        return FindingsBag(vignettes.TOKENS, len(self.labels), HIDDEN)
