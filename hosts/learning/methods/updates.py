"""Arithmetic on model states (name -> tensor): averages, differences, quasi-global momentum."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

State = dict[str, torch.Tensor]


def state_of(model: nn.Module) -> State:
    """Return a copy of a model's state."""
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def minus(a: State, b: State) -> State:
    return {name: tensor - b[name] for name, tensor in a.items()}


def plus(a: State, b: State, factor: float = 1.0) -> State:
    return {name: tensor + factor * b[name] for name, tensor in a.items()}


def between(a: State, b: State, share: float) -> State:
    """Return the state at ``share`` of the straight way from ``a`` to ``b``; whole numbers (counters) are ``b``'s.

    What fine-tuning adds lies along it, and so does what it wipes out: part of the way often keeps both (WiSE-FT,
    Wortsman et al., CVPR 2022).
    """
    return {n: a[n] + share * (t - a[n]) if t.is_floating_point() else t for n, t in b.items()}


def scaled(a: State, factor: float) -> State:
    return {name: tensor * factor for name, tensor in a.items()}


def average(states: Sequence[State], weights: Sequence[float]) -> State:
    """Return the weighted mean of states; weights need not sum to 1 but must be positive in sum."""
    total = float(sum(weights))
    if not states or total <= 0:
        raise ValueError("an average needs at least one state of positive weight")
    mean = scaled(states[0], weights[0] / total)
    for state, weight in zip(states[1:], weights[1:], strict=True):
        mean = plus(mean, state, weight / total)
    return mean


class QuasiGlobalMomentum:
    """Momentum estimated from how the *shared* model moved, not from local gradients (Lin et al., ICML 2021).

    Local gradients point to each node's own classes; the difference of two synchronised models points where all
    together went. ``buffer`` = beta * buffer + (1 - beta) * move; each round's move is lifted by beta * buffer.
    """

    def __init__(self, beta: float) -> None:
        self.beta = beta
        self._buffer: State | None = None

    def apply(self, before: State, after: State) -> State:
        """Return ``after`` with the momentum of earlier moves added, and learn from this move."""
        if not self.beta:
            return after
        move = minus(after, before)
        lifted = after if self._buffer is None else plus(after, self._buffer, self.beta)
        held = self._buffer or scaled(move, 0.0)
        self._buffer = plus(scaled(held, self.beta), move, 1.0 - self.beta)
        return lifted
