"""Split inference: the lower layers answer at one place, the upper ones at another; activations travel between them.

    cuts = possible_cuts(task, model)
    choice = choose_cut(cuts, speed_lower=2e9, speed_upper=5e10, rate_mbps=10, rtt_ms=8)
    lower, upper = cut_model(task, model, choice.cut.at)
    data = activations_to_bytes(lower, lower(inputs), half=True)
    logits = upper(bytes_to_activations(upper, data))

Neurosurgeon (Kang et al., ASPLOS 2017) chooses likewise: by what each place computes and what the link between them
carries.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec
import torch
from torch import nn

from hosts.learning.base import Task
from hosts.learning.compress import PLAIN, Compression, decode, digest, encode
from hosts.learning.errors import LearningError
from hosts.learning.methods.split import Half, stages
from hosts.learning.methods.updates import State
from hosts.learning.ways.costs import blank, count_flops
from hosts.learning.ways.wire import Bytes, bytes_to_tensor, tensor_to_bytes


class Cut(msgspec.Struct, frozen=True, kw_only=True):
    """A place to cut: ``at`` of a model's stages lie below it. At 0 the query itself travels, at the top nothing does.

    Operations are those of one query; ``activation_bytes``: of one sample, without the frame that it travels in.
    """

    at: int
    stages: int
    lower_flops: int
    upper_flops: int
    activation_bytes: int

    @property
    def cuts(self) -> bool:
        """Whether there is something on both sides."""
        return 0 < self.at < self.stages


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """The best cut (none: the model has no place for one), and the better end for the whole model; expected times."""

    cut: Cut | None
    cut_ms: float | None
    whole: Literal["lower", "upper"]
    whole_ms: float

    @property
    def pays(self) -> bool:
        """Whether to cut is better than not to."""
        return self.cut_ms is not None and self.cut_ms < self.whole_ms


def possible_cuts(task: Task, model: nn.Module, *, half: bool = False) -> list[Cut]:
    """Return all cuts from the bottom (all above) to the top (all below); ``half``: activations travel as float16."""
    model.eval()
    run, _ = stages(model)
    x = blank(task)
    flops, sizes = [], [x.numel() * x.element_size()]
    for stage in run:
        spent, x = count_flops(stage, x)
        flops.append(spent)
        sizes.append((2 if half else 4) * x.numel())
    sizes[-1] = 0
    return [
        Cut(at=at, stages=len(run), lower_flops=sum(flops[:at]), upper_flops=sum(flops[at:]), activation_bytes=size)
        for at, size in enumerate(sizes)
    ]


def expected_ms(cut: Cut, *, speed_lower: float, speed_upper: float, rate_mbps: float, rtt_ms: float) -> float:
    """Return the time of a query from its arrival at the lower place; speeds are in operations a second."""
    if not (speed_lower > 0 and speed_upper > 0 and rate_mbps > 0 and rtt_ms >= 0):
        raise LearningError("split: speeds and rate must be above 0, the round trip not below")
    computing_ms = 1000 * (cut.lower_flops / speed_lower + cut.upper_flops / speed_upper)
    return computing_ms + (rtt_ms + 8 * cut.activation_bytes / (1000 * rate_mbps) if cut.at < cut.stages else 0.0)


def choose_cut(cuts: Sequence[Cut], speed_lower: float, speed_upper: float, rate_mbps: float, rtt_ms: float) -> Choice:
    """Return the cut of least expected time, beside what the whole model takes at its better end."""
    times = {
        cut.at: expected_ms(
            cut, speed_lower=speed_lower, speed_upper=speed_upper, rate_mbps=rate_mbps, rtt_ms=rtt_ms
        )
        for cut in cuts
    }  # fmt: skip
    whole = min((cut for cut in cuts if not cut.cuts), key=lambda cut: times[cut.at], default=None)
    if whole is None:
        raise LearningError("split: the cuts must hold those at the bottom and the top, as possible_cuts returns them")
    best = min((cut for cut in cuts if cut.cuts), key=lambda cut: times[cut.at], default=None)
    return Choice(
        cut=best, cut_ms=times[best.at] if best else None,
        whole="lower" if whole.at else "upper", whole_ms=times[whole.at],
    )  # fmt: skip


class Part:
    """One side of a cut, ready to answer. ``shape``: of a sample's activations at the cut; ``seal``: model and cut."""

    def __init__(self, half: Half, *, shape: tuple[int, ...], seal: str) -> None:
        self.half = half
        self.shape = shape
        self.seal = seal
        half.model.eval()

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode():
            return self.half.forward(x)

    def to_bytes(self, how: Compression = PLAIN) -> bytes:
        """Return this side's weights alone, as safetensors."""
        return encode(self.half.state(), how)[0]


def cut_model(task: Task, model: nn.Module, at: int) -> tuple[Part, Part]:
    """Return (lower, upper) such that ``upper(lower(x))`` is what the model answers; they share its weights."""
    lower, upper = Half(task, model, 0, at), Half(task, model, at, None)
    shape, seal = _shape(task, lower), seal_of(model.state_dict(), at)
    return Part(lower, shape=shape, seal=seal), Part(upper, shape=shape, seal=seal)


def bytes_to_part(task: Task, data: Bytes, at: int, *, upper: bool, seal: str) -> Part:
    """Return one side from its weights; ``LearningError`` unless they are those of this side of the task's model."""
    model = task.new_model(0)
    lower = Half(task, model, 0, at)
    half = Half(task, model, at, None) if upper else lower
    half.load(decode(data, half.state()))
    return Part(half, shape=_shape(task, lower), seal=seal)


def seal_of(state: State, at: int) -> str:
    """Name a model's state and a cut of it: both sides must be of one model."""
    return f"{digest(state)}/{at}"


def activations_to_bytes(part: Part, activations: torch.Tensor, *, half: bool = False) -> bytes:
    """Return activations as the other side takes them; ``half``: as float16, the answer then differs a little."""
    return tensor_to_bytes(activations, half=half, seal=part.seal)


def bytes_to_activations(part: Part, data: Bytes) -> torch.Tensor:
    """Return activations for a side; ``LearningError`` unless whole, unaltered, and of its own model and cut."""
    return bytes_to_tensor(data, part.shape, seal=part.seal)


def _shape(task: Task, lower: Half) -> tuple[int, ...]:
    with torch.inference_mode():
        return tuple(lower.forward(blank(task)).shape[1:])
