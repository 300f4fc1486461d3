"""The models: a small transformer over findings, and a linear or one-hidden-layer model over features or words."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

EMBED = 96
HEADS = 4
LAYERS = 2


class Block(nn.Module):
    """One pre-norm transformer block."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.up = nn.Linear(width, 4 * width)
        self.down = nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, t, w = x.shape  # (batch, tokens, width)
        q, k, v = self.qkv(self.norm1(x)).view(b, t, 3, self.heads, w // self.heads).permute(2, 0, 3, 1, 4)
        mixed: torch.Tensor = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, t, w)
        x = x + self.out(mixed)
        mixed = x + self.down(F.gelu(self.up(self.norm2(x))))
        return mixed


class VignetteTransformer(nn.Module):
    """Findings in (order carries nothing, so no positions), diagnosis out; about 250 k parameters."""

    def __init__(self, tokens: int, labels: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(tokens, EMBED)
        self.blocks = nn.ModuleList(Block(EMBED, HEADS) for _ in range(LAYERS))
        self.norm = nn.LayerNorm(EMBED)
        self.head = nn.Linear(EMBED, labels)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        x = self.embed(inputs.long())  # (batch, tokens, width)
        for block in self.blocks:
            x = block(x)
        logits: torch.Tensor = self.head(self.norm(x.mean(dim=1)))  # (batch, labels)
        return logits


class TableModel(nn.Module):
    """Logistic regression (``hidden`` 0) or one hidden layer over float features."""

    def __init__(self, features: int, labels: int, hidden: int) -> None:
        super().__init__()
        if hidden:
            self.layers = nn.Sequential(nn.Linear(features, hidden), nn.ReLU(), nn.Linear(hidden, labels))
        else:
            self.layers = nn.Sequential(nn.Linear(features, labels))

    def features(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return what the layers see of inputs, (batch, features)."""
        return inputs.float()

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.layers(self.features(inputs))  # (batch, labels)
        return logits


class TextModel(TableModel):
    """The same over tf-idf weights of words; ``idf`` (words + 1,) is the task's and does not travel."""

    idf: torch.Tensor

    def __init__(self, idf: torch.Tensor, labels: int, hidden: int, length: float) -> None:
        super().__init__(len(idf), labels, hidden)
        self.length = length
        self.register_buffer("idf", idf, persistent=False)

    def features(self, inputs: torch.Tensor) -> torch.Tensor:
        return word_weights(inputs, self.idf, self.length)


def word_weights(numbers: torch.Tensor, idf: torch.Tensor, length: float) -> torch.Tensor:
    """Return (batch, words + 1): tf-idf of texts as numbers of words (batch, words), each ``length`` long."""
    counts = torch.zeros(len(numbers), len(idf))
    counts.scatter_add_(1, numbers.long(), torch.ones(numbers.shape))
    weights = torch.where(counts > 0, 1 + counts.clamp(min=1).log(), counts) * idf
    return length * F.normalize(weights, dim=1)
