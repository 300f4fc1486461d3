"""Queries and what is said about them: between askers, the deployed models that answer them, and control centres.

A query names a *class*, its task and what it needs, or one deployed model: always an object, never a place.
"""

from __future__ import annotations

import zlib
from typing import Annotated

import msgspec

from packets.labels import CLASS_LABEL_BASE, CLASS_LABELS
from packets.terms import Groups, Member, Message, Name, Sample, Share, Text

Label = Annotated[int, msgspec.Meta(ge=0, lt=1 << 28)]
Amount = Annotated[float, msgspec.Meta(ge=0.0, le=1e12)]
Count = Annotated[int, msgspec.Meta(ge=0, lt=1 << 31)]
MAX_REPLICAS = 64


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


class Ask(Message, frozen=True, kw_only=True, omit_defaults=True, tag="ask"):
    """A query: one sample for a deployed model, as token or feature list.

    ``answer_to``: the address that gets the answer, where that is not the asker's.
    """

    task: Name
    sample: Sample
    need: Need = Need()
    answer_to: Member = ""


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
    """A response: the label that the model chose, its confidence, who answered, and how it stands now."""

    answer: str
    confidence: Share
    model_accuracy: Groups = {}
    answered_by: Name
    infer_ms: Amount = 0.0
    state: State | None = None


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
    """A deployed model that serves a class, as the control centre knows it; ``age_s``: of its state."""

    label: Label
    path_ms: Amount
    service_ms: Amount = 0.0
    in_flight: Count = 0
    arrivals_per_s: Amount = 0.0
    accuracy: Share = 0.0
    weight: Count = 1
    age_s: Amount = 0.0


class Replicas(Message, frozen=True, kw_only=True, tag="replicas="):
    """The deployed models that serve a class, best first, and the class's own label."""

    label: Label
    replicas: Annotated[list[Known], msgspec.Meta(max_length=MAX_REPLICAS)] = []
