"""Queries and what is said about them: between askers, the deployed models that answer them, and control centres.

A query names a *class*, its task and what it needs, or one deployed model: always an object, never a place.
"""

from __future__ import annotations

import zlib
from typing import Annotated, Literal

import msgspec

from packets.labels import CLASS_LABEL_BASE, CLASS_LABELS
from packets.parts import MAX_MESSAGE_BYTES
from packets.terms import Accuracies, Amount, Member, Message, Metrics, Model, Name, ObjectId, Sample, Share, Text

Label = Annotated[int, msgspec.Meta(ge=0, lt=1 << 28)]
Count = Annotated[int, msgspec.Meta(ge=0, lt=1 << 31)]
MAX_REPLICAS = 64
MAX_STREAM, PART_SAMPLES = 1024, 8  # samples of a stream, and of one of its parts: what is computed at once
MAX_FUSION_BYTES = 16_384
Variant = Annotated[str, msgspec.Meta(max_length=24, pattern="^[a-z0-9_-]*$")]
Chances = Annotated[
    bytes, msgspec.Meta(max_length=8192)
]  # float16, little end first, in the order of the task's labels
Activations = Annotated[bytes, msgspec.Meta(max_length=MAX_MESSAGE_BYTES)]


class Way(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """How a deployed model comes to its answers, alone or with others; ``asks``: the variants that it asks.

    ``single``: alone.  ``switched``: it answers where its confidence, at ``temperature``, reaches ``threshold``, the
    first of ``asks`` everywhere else.  ``collaborative``: with all of ``asks``, weighed by measured accuracy.
    ``lower``, ``upper``: sides of a model that is ``cut``, of one ``seal``; the lower one sends its activations to the
    first of ``asks``.  ``multimodal``: what is deployed is a fusion of the answers of ``asks``, the first to findings,
    the second to vitals, which follow each other in a sample.  ``cached``: no model, but answers that the first of
    ``asks`` gave, kept for ``expiry_s`` at most, ``entries`` of them.

    ``model``: which of the task's models it is (its own, the cheap one, that of vitals).
    """

    kind: Literal["single", "switched", "collaborative", "lower", "upper", "multimodal", "cached"] = "single"
    model: Model = ""
    asks: Annotated[list[Variant], msgspec.Meta(max_length=8)] = []
    threshold: Annotated[float, msgspec.Meta(ge=0.0, le=1e6)] = 0.0
    temperature: Annotated[float, msgspec.Meta(gt=0.0, le=1e6)] = 1.0
    cut: Annotated[int, msgspec.Meta(ge=0, le=1000)] = 0
    seal: Annotated[str, msgspec.Meta(max_length=160)] = ""
    expiry_s: Annotated[float, msgspec.Meta(gt=0.0, le=86_400.0)] = 60.0
    entries: Annotated[int, msgspec.Meta(ge=1, le=16_384)] = 4096


SINGLE = Way()


def variant_task(task: str, variant: str) -> str:
    """Return the task of queries to a variant: each variant is a class of models of its own ('': the task's)."""
    return f"{task}/{variant}" if variant else task


class Need(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a query asks for beside its task. Accuracies: shares of 1 that an MPVU must have measured.

    ``deadline_ms``: the answer is of use so long after the asking (0: always); ``local``: the query may not leave its
    asker's K-AS.
    """

    broad_accuracy: Share = 0.0
    expert_group: Member = ""
    expert_accuracy: Share = 0.0
    deadline_ms: Annotated[int, msgspec.Meta(ge=0, le=3_600_000)] = 0
    local: bool = False

    @property
    def floors(self) -> dict[str, float]:
        """The least accuracies, by group (``broad``: over all)."""
        expert = {self.expert_group: self.expert_accuracy} if self.expert_group else {}
        return {"broad": self.broad_accuracy, **expert}


def query_label(task: str, need: Need) -> int:
    """Return the label of a class of queries; with a plain accuracy floor that of ``labels.class_label``."""
    text = f"{task}/{10 * need.broad_accuracy:g}"
    if need.expert_group:
        text += f"/{need.expert_group}={need.expert_accuracy:g}"
    if need.deadline_ms or need.local:
        text += f"/{need.deadline_ms}ms/{'local' if need.local else ''}"
    return CLASS_LABEL_BASE + zlib.crc32(text.encode()) % CLASS_LABELS


class Otherwise(msgspec.Struct, frozen=True, kw_only=True):
    """What a cheaper model has found already, should the better one have no time for the query."""

    answer: Text
    confidence: Share
    answered_by: Name


class Ask(Message, frozen=True, kw_only=True, omit_defaults=True, tag="ask"):
    """A query: one sample for a deployed model, as token or feature list.

    ``answer_to``: the address that gets the answer, where that is not the asker's. ``answer_port``: a model has sent
    this on so often (``hops``); its answer goes there, by the transfer id that it has, and nobody else is told.
    ``chances``: the probabilities of all labels are wanted. ``activations``: what a lower side makes of the sample,
    which then stays where it was. ``otherwise``: the answer where this would be refused for want of time or room.
    """

    task: Name
    sample: Sample
    need: Need = Need()
    answer_to: Member = ""
    answer_port: Annotated[int, msgspec.Meta(ge=0, le=0xFFFF)] = 0
    chances: bool = False
    activations: Activations = b""
    hops: Annotated[int, msgspec.Meta(ge=0, le=16)] = 0
    otherwise: Otherwise | None = None


class State(Message, frozen=True, kw_only=True, tag="state"):
    """How a deployed model stands: queries that it holds, what it takes a query, and how often it is asked.

    ``latency_ms``: from a query's arrival to its answer, of those that found as many in flight as there are now.
    """

    label: Label
    in_flight: Count = 0
    service_ms: Amount = 0.0
    latency_ms: Amount = 0.0
    arrivals_per_s: Amount = 0.0


class AskState(Message, frozen=True, kw_only=True, tag="state?"):
    """A probe: how do you stand? To the label of a deployed model, or by a control centre; answered by ``State``."""

    label: Label = 0


class Answer(Message, frozen=True, kw_only=True, omit_defaults=True, tag="answer"):
    """A response: the label that the model chose, its confidence, who answered, and how it stands now.

    ``cached``: from memory, nothing was computed for it (``infer_ms`` 0).
    """

    answer: Text
    confidence: Share
    model_accuracy: Accuracies = {}
    answered_by: Name
    infer_ms: Amount = 0.0
    state: State | None = None
    chances: Chances = b""
    cached: bool = False


class Busy(Message, frozen=True, kw_only=True, tag="busy"):
    """A query that is not taken: the queue is full, or its deadline would be missed; to be asked elsewhere."""

    reason: Text
    state: State


class AskReplicas(Message, frozen=True, kw_only=True, tag="replicas?"):
    """An asker wants to choose by itself: which deployed models serve this class? Answered by ``Replicas``."""

    name: Name
    task: Name
    need: Need = Need()


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """A deployed model that serves a class, as the control centre knows it; ``age_s``: of its state; ``metrics``: raw
    ones of one's own.
    """

    label: Label
    path_ms: Amount
    service_ms: Amount = 0.0
    in_flight: Count = 0
    arrivals_per_s: Amount = 0.0
    accuracy: Share = 0.0
    weight: Count = 1
    age_s: Amount = 0.0
    metrics: Metrics = {}


class Replicas(Message, frozen=True, kw_only=True, tag="replicas="):
    """The deployed models that serve a class, best first, and the class's own label."""

    label: Label
    replicas: Annotated[list[Known], msgspec.Meta(max_length=MAX_REPLICAS)] = []


class Remeasured(Message, frozen=True, kw_only=True, tag="remeasured"):
    """An MPVU has measured a copy of a deployed model on late samples; answered by ``Ack``.

    ``object_id``: of the job that the model came from; ``copy``: of what was measured; ``group_samples``: how many of
    the samples are of each group. ``way``: what was measured are two models that are to be deployed so, with what the
    MPVU has learned for them, ``fusion``: for a multimodal model, as it is deployed; their owner is told.
    """

    name: Name
    object_id: ObjectId
    copy: ObjectId
    samples: Count
    broad: Share
    per_group: Accuracies
    group_samples: Annotated[dict[str, Count], msgspec.Meta(max_length=64)] = {}
    way: Way = SINGLE
    fusion: Annotated[bytes, msgspec.Meta(max_length=MAX_FUSION_BYTES)] = b""


class PartOf(Message, frozen=True, kw_only=True):
    """Which part of a stream it is: the ``number``-th ``size`` of its ``total`` samples (the last one has the rest)."""

    stream: Annotated[int, msgspec.Meta(ge=0, lt=1 << 32)]
    total: Annotated[int, msgspec.Meta(ge=1, le=MAX_STREAM)]
    size: Annotated[int, msgspec.Meta(ge=1, le=PART_SAMPLES)]
    number: Annotated[int, msgspec.Meta(ge=0, lt=MAX_STREAM)]

    @property
    def parts(self) -> int:
        """How many parts the stream has."""
        return -(-self.total // self.size)

    def check(self, held: int) -> None:
        """Raise ``ValueError`` unless there is such a part, and it has so many samples."""
        due = min(self.size, self.total - self.number * self.size)
        if held != due:
            raise ValueError(f"part {self.number} of {self.total} samples by {self.size} has {held}, not {due}")


class AskPart(PartOf, frozen=True, kw_only=True, omit_defaults=True, tag="part?"):
    """One query of many samples, a part of it; answered by ``StreamPart`` as soon as that is computed, or by ``Busy``,
    ``Refused``; asked again while it waits: by ``State``.

    ``handed``: the parts below it are with who asked for them, nobody will want them again.
    """

    task: Name
    samples: Annotated[list[Sample], msgspec.Meta(min_length=1, max_length=PART_SAMPLES)]
    need: Need = Need()
    handed: Count = 0

    def __post_init__(self) -> None:
        self.check(len(self.samples))


class Given(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The answer to one sample of a stream; ``refused``: why there is none."""

    answer: Text = ""
    confidence: Share = 0.0
    refused: Text = ""


class StreamPart(PartOf, frozen=True, kw_only=True, tag="part"):
    """Answers to the samples of a part, in their order; who computed them, with which model (``state.label``)."""

    answers: Annotated[list[Given], msgspec.Meta(min_length=1, max_length=PART_SAMPLES)]
    answered_by: Name
    infer_ms: Amount = 0.0
    state: State

    def __post_init__(self) -> None:
        self.check(len(self.answers))
