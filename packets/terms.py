"""What control messages are made of: bounded names and figures, the base of them all, and what an owner asks for."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=32)]
Text = Annotated[str, msgspec.Meta(max_length=400)]
Share = Annotated[float, msgspec.Meta(ge=0.0, le=1.0)]
Member = Annotated[str, msgspec.Meta(max_length=80)]
MAX_FIGURE = 1e15
Figure = Annotated[float, msgspec.Meta(ge=-MAX_FIGURE, le=MAX_FIGURE)]
Amount = Annotated[float, msgspec.Meta(ge=0.0, le=1e12)]
Count = Annotated[int, msgspec.Meta(ge=0, lt=1 << 53)]
MAX_SAMPLE = 4096  # numbers of a query: as many as a message's parts hold
Whole = Annotated[int, msgspec.Meta(gt=-(1 << 53), lt=1 << 53)]
Sample = Annotated[list[Whole | Figure], msgspec.Meta(max_length=MAX_SAMPLE)]
ObjectId = Annotated[int, msgspec.Meta(ge=0)]  # 64 bits: msgpack carries no more
VisitNumber = Annotated[int, msgspec.Meta(ge=0, le=0xFFFF)]
Groups = Annotated[dict[Member, Figure], msgspec.Meta(max_length=64)]
Accuracies = Annotated[dict[Member, Share], msgspec.Meta(max_length=64)]  # by group
Steering = Literal["dcc", "aats"]  # who says where a job's model goes: its control centre, or the model itself
Model = Literal["", "cheap", "vitals"]  # which of a task's models a job trains: its own, the cheap one, that of vitals
Attributes = Annotated[dict[str, Any], msgspec.Meta(max_length=64)]
MAX_METRICS = 8  # of one's own, that an MDFP reports: those of all replicas of a class go in one message
Metrics = Annotated[dict[Name, Figure], msgspec.Meta(max_length=MAX_METRICS)]


class Message(msgspec.Struct, frozen=True, kw_only=True, tag_field="m"):
    """Base of every message; the class name is its tag."""


class Fixed(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Hyper-parameters that the owner fixes; 0 leaves one to HPO. ``rate_decay``: the rate's factor per visit.

    ``momentum``: weight of quasi-global momentum in groups (federated, gossip). ``weighted_loss``: how much more a
    group weighs in the loss where it is rare (0: not at all, 1: inversely to its share;
    ``engines.hpo.group_weights``). ``verify_every``: training visits to one MPVU visit.
    """

    epochs: Annotated[float, msgspec.Meta(ge=0.0, le=1000.0)] = 0.0
    batch_size: Annotated[int, msgspec.Meta(ge=0, le=1 << 16)] = 0
    learning_rate: Share = 0.0
    rate_decay: Annotated[float, msgspec.Meta(gt=0.0, le=1.0)] = 1.0
    momentum: Share = 0.0
    weighted_loss: Share = 0.0
    verify_every: Annotated[int, msgspec.Meta(ge=0, le=100)] = 0


class JobSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a model owner asks for. Accuracies are shares of 1, ``expert_group`` is the group of ``expert_accuracy``.

    ``gate`` false: no MPVU is asked until the budget is used, so nothing is rolled back and nobody's trust moves; to
    see what the gate is worth. ``merge`` false: an MPVU keeps a visit whole or not at all (``Order.merge``).
    ``train_on``: meeting the targets does not end the job, its budget of visits does. ``heed_load`` false: the route
    is planned as if no other job were there, to see what it is worth. ``compression``: how models and
    updates travel (``hosts/learning/compress.py``).
    ``engines``: {engine: source} where this job wants another than its control centre uses, of those that this has.
    ``trained``: the model that is launched is a trained one, so it is measured before anything else.
    ``model``: ``cheap`` trains the small model that some tasks have beside their own, ``vitals`` the one that sees
    patients by their vital signs; only ``routed`` does.
    ``steering`` ``aats``: no control centre is asked, the model finds its way itself, by a ``policy`` (a name, or
    ``file.py:function`` where the network was brought up with it) with these ``parameters`` (docs/aats.md).
    ``method`` ``auto``: TAG chooses. The owner's terminal says of the model itself ``model_bytes``, and where split
    learning would cut it: ``lower_bytes`` below the cut (0: it has no place to cut), ``activation_bytes`` a sample.
    """

    task: Name
    broad_accuracy: Share = 0.8
    expert_group: Member | None = None
    expert_accuracy: Share = 0.0
    max_visits: Annotated[int, msgspec.Meta(ge=0, le=0xFFFF)] = 16
    deadline_s: Annotated[float, msgspec.Meta(ge=0.0, le=1e9)] = 170.0
    trust_floor: Share = 0.5
    model_bytes: Count = 0
    lower_bytes: Count = 0
    activation_bytes: Count = 0
    method: Annotated[str, msgspec.Meta(max_length=255)] = "routed"
    seed: int = 0
    compression: Annotated[str, msgspec.Meta(max_length=16)] = "none"
    gate: bool = True
    merge: bool = True
    train_on: bool = False
    heed_load: bool = True
    trained: bool = False
    model: Model = ""
    steering: Steering = "dcc"
    policy: Annotated[str, msgspec.Meta(max_length=255)] = "greedy"
    parameters: Annotated[dict[Name, Figure], msgspec.Meta(max_length=8)] = {}
    hyper: Fixed = Fixed()
    engines: Annotated[dict[Name, Annotated[str, msgspec.Meta(max_length=255)]], msgspec.Meta(max_length=8)] = {}

    def __post_init__(self) -> None:
        if self.model and self.method != "routed":
            raise ValueError(f"model {self.model} is trained by method routed alone, not by {self.method}")
