"""What the holder of an autonomous object asks terminals at their own addresses, and what they say of themselves."""

from __future__ import annotations

import math
from typing import Annotated

import msgspec

from packets.queries import Count, Label
from packets.terms import Amount, Member, Message, Name, ObjectId, Share

MAX_GROUPS = 64
MAX_MODELS = 16
Kas = Annotated[int, msgspec.Meta(ge=0, le=255)]
Visit = Annotated[int, msgspec.Meta(ge=0, le=0xFFFF)]
Mix = Annotated[dict[Member, Share], msgspec.Meta(max_length=MAX_GROUPS)]


def check_finite(*figures: float) -> None:
    """Raise ``ValueError`` where one is no number: bounds let a NaN pass."""
    if not all(map(math.isfinite, figures)):
        raise ValueError("a figure is no finite number")


class Probe(Message, frozen=True, kw_only=True, tag="probe?"):
    """The holder of an object (or who has a query: object 0) asks: how do you stand? Answered by ``ProbeReply``."""

    name: Name
    object_id: ObjectId
    task: Name


class Hosting(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A deployed model that an MDFP answers with: its label, measured accuracies, and how it stands (as ``State``)."""

    label: Label
    task: Name
    accuracy: Mix = {}
    service_ms: Amount = 0.0
    in_flight: Count = 0

    def __post_init__(self) -> None:
        check_finite(self.service_ms, *self.accuracy.values())


class ProbeReply(Message, frozen=True, kw_only=True, omit_defaults=True, tag="probe="):
    """What a terminal tells an object's holder of itself.

    ``ready``: it would take the object; ``mix``: private shares of the groups in its ``samples``; ``test_samples``: of
    an MPVU; ``models``: of an MDFP. ``last_visit``: the latest stop of the object that was here (-1: it never was),
    ``at_work``: it still is.
    """

    name: Name
    role: Name
    kas: Kas
    task: Name
    ready: bool = True
    queue: Count = 0
    samples_per_s: Amount = 0.0
    samples: Count = 0
    mix: Mix = {}
    quality: Share = 0.0
    test_samples: Count = 0
    models: Annotated[list[Hosting], msgspec.Meta(max_length=MAX_MODELS)] = []
    last_visit: Annotated[int, msgspec.Meta(ge=-1, le=0xFFFF)] = -1
    at_work: bool = False

    def __post_init__(self) -> None:
        check_finite(self.samples_per_s, self.quality, *self.mix.values())
