"""The task of ``bench-queries``: vignettes under a wider transformer, whose queries cost milliseconds, not a fraction.

What a policy saves must not drown in what a packet costs.
"""

from __future__ import annotations

import torch
from torch import nn

from hosts.learning.data import vignettes
from hosts.learning.models import Block
from hosts.learning.tasks import VignetteTask

WIDTH, HEADS, LAYERS = 256, 4, 4


class WideTransformer(nn.Module):
    """Findings in, diagnosis out; about 3.2 million parameters."""

    def __init__(self, tokens: int, labels: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(tokens, WIDTH)
        self.blocks = nn.ModuleList(Block(WIDTH, HEADS) for _ in range(LAYERS))
        self.norm = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, labels)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return logits, (batch, labels), of findings, (batch, tokens)."""
        x = self.embed(inputs.long())
        for block in self.blocks:
            x = block(x)
        logits: torch.Tensor = self.head(self.norm(x.mean(dim=1)))
        return logits


class WideVignettes(VignetteTask):
    """Clinical vignettes, answered by the wide transformer."""

    def build(self) -> nn.Module:
        return WideTransformer(vignettes.TOKENS, len(self.labels))
