"""Ways of inference at an MDFP: what a deployed model makes of queries, which of them go on, how answers are joined.

What is computed is that of ``hosts/learning/ways``; nothing here knows the network.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, NamedTuple

import msgspec
import numpy as np
import torch
from torch import nn

from hosts.inference.caching import Cache
from hosts.learning.errors import LearningError
from hosts.learning.task import Task, bytes_to_model
from hosts.learning.ways.calibrate import scale
from hosts.learning.ways.collaborative import combine
from hosts.learning.ways.costs import ms_per_query
from hosts.learning.ways.models import task_of
from hosts.learning.ways.multimodal import Fusion, fuse
from hosts.learning.ways.split import (
    Choice,
    Part,
    activations_to_bytes,
    bytes_to_activations,
    bytes_to_part,
    choose_cut,
    cut_model,
    possible_cuts,
)
from packets.messages import Answer, Ask, Need, Way
from packets.queries import SINGLE, variant_task

MOST_HOPS = 3
GATHERS = ("collaborative", "multimodal")
LEAST_ASKED = {"switched": 1, "collaborative": 1, "lower": 1, "multimodal": 2, "cached": 1}
NO_MODEL = b"cache"  # what is deployed where nothing is computed
_FLOAT16 = np.dtype("<f2")


class Found(NamedTuple):
    """What came of a query: an answer with its chances, (labels,), or the activations of a lower side."""

    answer: str = ""
    confidence: float = 0.0
    chances: torch.Tensor | None = None
    activations: bytes = b""


class Answerer:
    """A deployed model with its way. ``task``: the one that is asked; the model's own inputs may be another's.

    ``LearningError`` where the bytes are no such model, or the way lacks somebody to ask.
    """

    def __init__(self, task: Task, payload: bytes | bytearray | memoryview, way: Way = SINGLE) -> None:
        if len(way.asks) < LEAST_ASKED.get(way.kind, 0):
            raise LearningError(f"way {way.kind}: {len(way.asks)} variants to ask, {LEAST_ASKED[way.kind]} are needed")
        self.way, self.task, self.payload = way, task, bytes(payload)
        self.reads = task_of(task, way.model)
        self._part: Part | None = None
        self._fusion: Fusion | None = None
        self._vitals = 0
        self._model: nn.Module = nn.Identity()
        self.cache: Cache | None = None
        if way.kind == "cached":
            if self.payload != NO_MODEL:
                raise LearningError(f"a cache is deployed as {NO_MODEL!r}, these are {len(self.payload)} other bytes")
            self.cache = Cache(way.expiry_s, way.entries)
        elif way.kind == "multimodal":
            self._vitals = task_of(task, "vitals").width
            self._fusion = bytes_to_fusion(payload, len(task.labels))
        elif way.kind in ("lower", "upper"):
            self._part = bytes_to_part(self.reads, payload, way.cut, upper=way.kind == "upper", seal=way.seal)
        else:
            self._model = bytes_to_model(self.reads, payload).eval()

    @property
    def partners(self) -> list[str]:
        """Tasks of those that it asks."""
        return [variant_task(self.task.name, variant) for variant in self.way.asks]

    # --- its own part

    def run(self, asks: Sequence[Ask]) -> list[Found]:
        """Compute queries together; ``LearningError`` when one of them is not of this model."""
        if self._part is not None and self.way.kind == "upper":
            rows = [bytes_to_activations(self._part, a.activations) for a in asks]
            if any(len(row) != 1 for row in rows):
                raise LearningError("activations of more than one sample: a query is one")
            return self._found(self._part(torch.cat(rows)))
        if self._part is not None:
            made = self._part(self._inputs(asks))
            return [Found(activations=activations_to_bytes(self._part, row[None], half=True)) for row in made]
        if self.way.kind == "single" and not any(a.chances for a in asks):
            return [Found(*found) for found in self._ask(self._model, asks)]
        inputs = self._inputs(asks)
        with torch.inference_mode():
            return self._found(self._model(inputs))

    def _found(self, logits: torch.Tensor) -> list[Found]:
        chances = logits.softmax(dim=1)  # (queries, labels)
        confidence, chosen = chances.max(dim=1)
        labels = [self.task.labels[i] for i in chosen.tolist()]
        return [Found(*found) for found in zip(labels, confidence.tolist(), chances, strict=True)]

    def _ask(self, model: nn.Module, asks: Sequence[Ask]) -> list[tuple[str, float]]:
        if len(asks) == 1:  # as tasks whose samples differ in length take them
            return [self.reads.ask(model, asks[0].sample)]
        return self.reads.ask_all(model, [a.sample for a in asks])

    def _inputs(self, asks: Sequence[Ask]) -> torch.Tensor:
        """Return samples as the task gives them to a model, checked."""
        caught = _Caught(len(self.reads.labels))
        self._ask(caught, asks)
        return caught.inputs

    # --- with others

    def onward(self, ask: Ask, found: Found) -> Ask | None:
        """Return the query as it goes on to the first partner; None where this answer stands."""
        if self.way.kind == "lower":
            return _further(ask, self.partners[0], activations=found.activations)
        if self.way.kind != "switched" or found.chances is None:
            return None
        sure = float(scale(found.chances.double()[None], self.way.temperature).max())
        return None if sure >= self.way.threshold else _further(ask, self.partners[0], sample=ask.sample)

    def parts(self, ask: Ask) -> dict[str, Ask]:
        """Return what each partner is asked; ``LearningError`` when the sample has not the numbers for it."""
        if self.way.kind == "cached":
            if ask.activations:
                raise LearningError("activations of a model that is cut: a cache takes samples")
            task = self.partners[0]
            return {task: msgspec.structs.replace(_further(ask, task, sample=ask.sample), need=ask.need)}
        if self.way.kind == "collaborative":
            return {task: _further(ask, task, sample=ask.sample, chances=True) for task in self.partners}
        text, vitals = self.task.width, self._vitals
        size, (first, second) = len(ask.sample), self.partners[:2]
        if size not in (text, vitals, text + vitals):
            raise LearningError(f"a query of {size} numbers: {text} of findings, {vitals} of vitals, or both")
        found = {} if size == vitals else {first: ask.sample[:text]}
        found |= {} if size == text else {second: ask.sample[-vitals:]}
        return {task: _further(ask, task, sample=sample, chances=True) for task, sample in found.items()}

    def join(self, answers: Mapping[str, Answer | None], accuracies: Mapping[str, float]) -> Found:
        """Return one answer of those of the partners, by task ('': its own); ``LearningError`` where there is none."""
        chances = {
            name: bytes_to_chances(answer.chances, len(self.task.labels)) if answer is not None else None
            for name, answer in answers.items()
        }
        if self._fusion is not None:
            joined = fuse(self._fusion, *(chances.get(task) for task in self.partners[:2]))
        else:
            joined = combine(chances, accuracies)
        number = int(joined[0].argmax())
        return Found(self.task.labels[number], float(joined[0, number]), joined[0])


class _Caught(nn.Module):
    """Takes a model's place to get its inputs."""

    inputs: torch.Tensor

    def __init__(self, labels: int) -> None:
        super().__init__()
        self._labels = labels

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        self.inputs = inputs
        return torch.zeros(len(inputs), self._labels)


def _further(
    ask: Ask, task: str, *, sample: Sequence[float] = (), chances: bool = False, activations: bytes = b""
) -> Ask:
    """Return a query as it goes on; only its deadline still matters, the network has chosen by the rest of its need."""
    return Ask(
        task=task, sample=list(sample), need=Need(deadline_ms=ask.need.deadline_ms), chances=chances or ask.chances,
        activations=activations, hops=ask.hops + 1,
    )  # fmt: skip


# --- a model that is cut

Positive = Annotated[float, msgspec.Meta(gt=0.0, le=1e9)]


class CutSpec(msgspec.Struct, frozen=True, kw_only=True):
    """Between what two places a model is cut. ``shares``: of a core, the lower's and the upper's."""

    shares: Annotated[list[Positive], msgspec.Meta(min_length=2, max_length=2)]
    rate_mbps: Positive
    rtt_ms: Annotated[float, msgspec.Meta(ge=0.0, le=1e6)]


class Sides(NamedTuple):
    """Both sides of a model, as they are deployed, and what is expected of them."""

    lower: tuple[bytes, Way]
    upper: tuple[bytes, Way]
    choice: Choice


def cut_sides(task: Task, payload: bytes, upper_variant: str, spec: CutSpec) -> Sides:
    """Cut a model where its answers come soonest, by what it takes on a core, as measured here; ``LearningError`` where
    it has no place to cut.
    """
    model = bytes_to_model(task, payload)
    cuts = possible_cuts(task, model, half=True)
    per_s = cuts[0].upper_flops / (ms_per_query(task, model) / 1e3)
    lower_per_s, upper_per_s = (share * per_s for share in spec.shares)
    choice = choose_cut(cuts, lower_per_s, upper_per_s, spec.rate_mbps, spec.rtt_ms)
    if choice.cut is None:
        raise LearningError(f"the model of task {task.name} has one layer and cannot be cut")
    lower, upper = cut_model(task, model, at := choice.cut.at)
    below = Way(kind="lower", cut=at, seal=lower.seal, asks=[upper_variant])
    above = Way(kind="upper", cut=at, seal=upper.seal)
    return Sides((lower.to_bytes(), below), (upper.to_bytes(), above), choice)


# --- bytes


def chances_to_bytes(chances: torch.Tensor) -> bytes:
    """Return probabilities, (labels,), as they travel."""
    return chances.numpy().astype(_FLOAT16).tobytes()


def bytes_to_chances(data: bytes, labels: int) -> torch.Tensor | None:
    """Return probabilities, (1, labels) float64; None unless it is that many, adding up to 1."""
    if len(data) != labels * _FLOAT16.itemsize:
        return None
    values = torch.from_numpy(np.frombuffer(data, _FLOAT16).astype(np.float64))[None]
    return values if bool((values >= 0).all()) and abs(float(values.sum()) - 1) < 0.01 else None


def fusion_to_bytes(fusion: Fusion) -> bytes:
    """Return a fusion as it is deployed."""
    return msgspec.msgpack.encode(fusion)


def bytes_to_fusion(data: bytes | bytearray | memoryview, labels: int) -> Fusion:
    """Return what ``fusion_to_bytes`` was given; ``LearningError`` unless it is one for so many labels."""
    try:
        fusion = msgspec.msgpack.decode(data, type=Fusion)
    except msgspec.DecodeError as error:
        raise LearningError(f"fusion: {error}") from None
    weights = [*fusion.text, *fusion.vitals, *fusion.bias, fusion.text_temperature, fusion.vitals_temperature]
    if {len(fusion.text), len(fusion.vitals), len(fusion.bias)} != {labels} or not all(map(math.isfinite, weights)):
        raise LearningError(f"fusion: need finite weights of {labels} labels for either kind of input")
    if min(fusion.text_temperature, fusion.vitals_temperature) <= 0:
        raise LearningError("fusion: temperatures must be above 0")
    return fusion
