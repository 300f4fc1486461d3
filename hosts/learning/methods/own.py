"""A way to train in rounds of one's own: ``file.py:Class``, a subclass of ``OwnMethod``.

Its two halves are what federated methods differ in: what a member does with the round's model, and what the facility
makes of the answers. The rounds themselves, their transfers, compression, quorum and the MPVU's gate are the testbed's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import torch
from torch import nn

from hosts.learning.errors import LearningError
from hosts.learning.methods.updates import State, average
from hosts.learning.spec import Samples, TrainResult, TrainSettings
from hosts.learning.task import Task
from topologies.own.files import make_own, told

T = TypeVar("T")


class Update(NamedTuple):
    """A member's answer: its state after training, of how many samples, at which mean loss."""

    state: State
    samples: int
    loss: float


class OwnMethod:
    """One instance a job at the facility and at each member, so that either may remember things from round to round.

    As it is, it is federated averaging (McMahan et al., AISTATS 2017); override either half.
    """

    def train(self, task: Task, model: nn.Module, samples: Samples, settings: TrainSettings) -> TrainResult:
        """Train the round's model in place on a member's samples; return what came of it."""
        return task.train(model, samples, settings)

    def combine(self, state: State, updates: Sequence[Update]) -> State:
        """Return the next round's state (names and shapes as ``state``) from the round's and the members' answers."""
        return average([u.state for u in updates], [float(u.samples) for u in updates])


def load_method(spec: str) -> OwnMethod:
    """Return a fresh instance of ``file.py:Class``; ``LearningError`` is one line that says what to mend."""
    return make_own("method", spec, OwnMethod, lambda kind: kind(), LearningError)


def trained(method: OwnMethod, task: Task, model: nn.Module, samples: Samples, settings: TrainSettings) -> TrainResult:
    """Have a method train; ``LearningError`` when it fails or leaves no usable model."""
    result = _asked(lambda: method.train(task, model, samples, settings), method, "train")
    if not isinstance(result, TrainResult) or not math.isfinite(result.loss):
        raise LearningError(f"method {_name(method)}: train returned {result!r}, not a TrainResult with a finite loss")
    _check_finite(model.state_dict(), method, "train")
    return result


def combined(method: OwnMethod, state: State, updates: Sequence[Update]) -> State:
    """Have a method combine; ``LearningError`` when it fails or answers with no state of the model."""
    found: Any = _asked(lambda: method.combine(dict(state), updates), method, "combine")
    alike = isinstance(found, dict) and found.keys() == state.keys()
    if not alike or any(not isinstance(t, torch.Tensor) or t.shape != state[n].shape for n, t in found.items()):
        raise LearningError(f"method {_name(method)}: combine returned no state with the model's names and shapes")
    _check_finite(found, method, "combine")
    return {name: tensor.detach().to(state[name].dtype) for name, tensor in found.items()}


def _asked(do: Callable[[], T], method: OwnMethod, half: str) -> T:
    try:
        return do()
    except (Exception, SystemExit) as error:
        where = getattr(type(method), half).__code__.co_filename
        raise LearningError(f"method {_name(method)}: {half} failed: {told(error, where)}") from error


def _check_finite(state: State, method: OwnMethod, half: str) -> None:
    bad = [n for n, t in state.items() if t.is_floating_point() and not bool(torch.isfinite(t).all())]
    if bad:
        raise LearningError(f"method {_name(method)}: {half} left {bad[0]} without finite numbers")


def _name(method: OwnMethod) -> str:
    return type(method).__name__
