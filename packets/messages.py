"""Control messages between a terminal and its DCC (msgpack in the payload of an AI packet).

A terminal sends a request to the label ``DCC_ADDRESS`` (its access switch hands it to its DCC) and repeats it until
the reply of that transfer id comes; the DCC handles a repeated request once. One that is larger than a packet goes in
parts (``parts.py``). Decoding never trusts: unknown tags, wrong types, oversize lists raise ``msgspec.DecodeError``.
"""

from __future__ import annotations

from secrets import randbits
from typing import Annotated, Any

import msgspec

from packets import terms
from packets.aats.probe import Probe, ProbeReply
from packets.calls import Copy, Halt, HandOver, LaunchAgain, Pull, Recalibrate, Release, Retire, Revoked, SendData
from packets.distributed.asking import Asking
from packets.distributed.gossip import Talk
from packets.queries import (
    SINGLE,
    Answer,
    Ask,
    AskPart,
    AskReplicas,
    AskState,
    Busy,
    Known,
    Label,
    Need,
    Remeasured,
    Replicas,
    State,
    StreamPart,
    Variant,
    Way,
)
from packets.terms import Attributes, Fixed, Groups, JobSpec, Member, Message, Model, Name, Share, Text

__all__ = [
    "Ack", "AnnounceObject", "AnnounceReply", "Answer", "AnyMessage", "Ask", "AskPart", "AskReplicas", "AskState",
    "Busy", "Change", "Copy", "Fixed", "Halt", "HandOver", "Inquire", "JobSpec", "JobStatus", "Known", "LaunchAgain",
    "Leave", "LogPart", "LogRequest", "Message", "MoveModel", "Need", "Order", "OrderRequest", "Pull", "Recalibrate",
    "Refused", "Register", "Release", "Remeasured", "Replicas", "Report", "Retire", "Returned", "Revoked", "SendData",
    "State", "StreamPart", "Submit", "SubmitReply", "Verdict", "VerdictReply", "VisitDone", "Way", "decode_message",
    "encode_message",
]  # fmt: skip


# --- terminal -> DCC -------------------------------------------------------------------------------------------------


class Register(Message, frozen=True, kw_only=True, tag="register"):
    """A terminal joins: who it is, and its static attributes.

    Attribute names (each with its own freshness in the map; units in the name): ``samples``, ``group_shares``
    (differentially private shares per group, with budget ``epsilon``), ``quality``, ``data_age_s``, ``data_may_move``
    (bool), ``compute_samples_per_s``, ``memory_mib``, ``queue``, ``reachable``, ``models`` (list of hosted tasks),
    ``load``, ``latency_ms``, ``test_samples``, ``metrics`` (of one's own, {name: number}). ``trust`` is the DCC's to
    say: in a report it is left aside.
    """

    name: Name
    role: Name
    address: Name
    attributes: Attributes = {}


class Report(Message, frozen=True, kw_only=True, tag="report"):
    """Dynamic attributes that changed (or a heartbeat, when empty).

    ``changed_unix_s``: when the first of these changes happened, by the terminal's clock (0: it does not say); the map
    measures by it how far behind it runs.
    """

    name: Name
    sequence: terms.Count
    attributes: Attributes = {}
    changed_unix_s: terms.Amount = 0.0


class Leave(Message, frozen=True, kw_only=True, tag="leave"):
    """A terminal withdraws in good order: its work is done, nothing new shall come. Answered by ``Ack``.

    Refused while an object is with it or on its way to it, unless ``force``: then the object is steered anew, and what
    of it is here is handed over.  ``stay``: it is not to be a rendezvous, but stays on the map (until it reports that
    it is reachable again).
    """

    name: Name
    reason: Text = ""
    force: bool = False
    stay: bool = False


class Submit(Message, frozen=True, kw_only=True, tag="submit"):
    """Owner submits a training job; answered by ``SubmitReply`` (T-FAM's verdict). ``token``: of this submission."""

    name: Name
    spec: JobSpec
    token: Annotated[int, msgspec.Meta(ge=0, lt=1 << 62)] = msgspec.field(default_factory=lambda: randbits(62))


class AnnounceObject(Message, frozen=True, kw_only=True, omit_defaults=True, tag="announce"):
    """A holder asks for the identity of an object that it is about to launch.

    ``exchange`` (a piece of training together -> place ``target``, from a terminal at which ``for_object`` is).

    kind: ``test_sample``, ``late_sample`` (data node -> MPVU number ``copy``), ``data`` (data node -> the compute
    facility at which ``for_object`` waits), ``deploy`` (trained model -> an MDFP), ``measure`` (copy of a deployed
    model, or two to learn for -> an MPVU), ``parcel`` (any bytes -> the nearest terminal of the role ``task``).

    ``variant``, ``way``: of a model to deploy, what it is called among those of its task, and how it answers;
    ``replaces``: the job whose deployed models it takes the places of.
    """

    name: Name
    kind: Annotated[str, msgspec.Meta(max_length=16)]
    task: Name
    size_bytes: terms.Count
    for_object: terms.ObjectId = 0
    copy: terms.Count = 0
    accuracy: terms.Accuracies = {}
    target: Annotated[str, msgspec.Meta(max_length=80)] = ""
    variant: Variant = ""
    way: Way = SINGLE
    replaces: terms.ObjectId = 0


class OrderRequest(Message, frozen=True, kw_only=True, omit_defaults=True, tag="order?"):
    """A rendezvous holds a whole object and asks what to do with it; answered by ``Order``.

    ``samples``: as many as are met there, where others were offered: its DCC's to say (0: as offered).
    """

    name: Name
    object_id: terms.ObjectId
    visit: terms.VisitNumber
    samples: terms.Count = 0


class VisitDone(Message, frozen=True, kw_only=True, tag="visit"):
    """Training at a rendezvous ended; answered by ``Ack``. The holder then launches the object again.

    ``problem``: why the visit came to nothing (``samples`` is 0 then); the object goes on as it came, unless ``lost``:
    then what arrived is no model, the holder launches nothing, and the DCC ends the job.
    """

    name: Name
    object_id: terms.ObjectId
    visit: terms.VisitNumber
    data_node: Name
    samples: terms.Count
    epochs: terms.Amount
    loss: terms.Figure
    train_s: terms.Amount
    problem: Text = ""
    lost: bool = False


class Verdict(Message, frozen=True, kw_only=True, omit_defaults=True, tag="verdict"):
    """An MPVU measured the model; answered by ``VerdictReply`` (keep, or roll back to the last accepted state).

    ``share``: how much of the way from the last accepted state is in what was measured (1: the model as it came; less:
    ``Order.merge``); ``whole``: accuracy per group of the model as it came, where that is not what was measured.
    """

    name: Name
    object_id: terms.ObjectId
    visit: terms.VisitNumber
    samples: terms.Count
    broad: Share
    per_group: terms.Accuracies
    eval_s: terms.Amount
    share: Share = 1.0
    whole: terms.Accuracies = {}


class Returned(Message, frozen=True, kw_only=True, tag="returned"):
    """The owner has its model back, whole; answered by ``Ack``."""

    name: Name
    object_id: terms.ObjectId
    size_bytes: terms.Count


class LogRequest(Message, frozen=True, kw_only=True, tag="log?"):
    """The owner asks for its job's training log from entry ``first`` on; answered by ``LogPart``."""

    name: Name
    object_id: terms.ObjectId
    first: terms.Count = 0


class Inquire(Message, frozen=True, kw_only=True, tag="inquire"):
    """The owner asks how its job stands; answered by ``JobStatus``."""

    name: Name
    object_id: terms.ObjectId


class Change(Message, frozen=True, kw_only=True, tag="change"):
    """The owner changes a running job (what is None stays), or stops it; answered by ``JobStatus``.

    A stopped job trains no more: its model is measured and comes home as it was last accepted.
    """

    name: Name
    object_id: terms.ObjectId
    stop: bool = False
    broad_accuracy: Share | None = None
    expert_accuracy: Share | None = None
    trust_floor: Share | None = None
    max_visits: Annotated[int, msgspec.Meta(ge=1, le=1000)] | None = None
    deadline_s: Annotated[float, msgspec.Meta(gt=0, le=1e9)] | None = None


class MoveModel(Message, frozen=True, kw_only=True, tag="move"):
    """The owner has a deployed model moved: to a place (as orders name it) or where MDO sees fit; by ``Ack``."""

    name: Name
    task: Name
    label: Label
    to: Member = ""


# --- DCC -> terminal -------------------------------------------------------------------------------------------------


class Ack(Message, frozen=True, kw_only=True, tag="ack"):
    """Taken; nothing more to say."""


class Refused(Message, frozen=True, kw_only=True, omit_defaults=True, tag="refused"):
    """Not taken, and why, for a person to read. ``again``: whom it rests with was out of reach; to be asked again."""

    reason: Text
    again: bool = False


class SubmitReply(Message, frozen=True, kw_only=True, tag="submit="):
    """T-FAM's verdict; ``object_id`` is 0 when rejected. ``nearest``: nearest requirement that would be admitted."""

    object_id: terms.ObjectId
    admitted: bool
    reasons: Annotated[list[Text], msgspec.Meta(max_length=16)] = []
    nearest: Groups = {}
    predicted: Groups = {}


class AnnounceReply(Message, frozen=True, kw_only=True, tag="announce="):
    """The identity under which to launch; the label is its low 28 bits."""

    object_id: terms.ObjectId


class Order(Message, frozen=True, kw_only=True, omit_defaults=True, tag="order"):
    """What the rendezvous does with the object.

    action: ``train``, ``verify``, ``keep_test_sample``, ``keep_late_sample``, ``use_data``, ``deploy``, ``measure``,
    ``home``.  For ``train``, the data is the rendezvous's own when ``data_node`` is its own name, else it asks
    ``data_address`` for it (``SendData``).

    ``federate``, ``central``, ``split``, ``gossip``, ``own``: lead the places ``members`` (opaque in other
    K-AS) for ``rounds``, they answer to ``place``; ``secure``: masked updates. ``compression``: how a model or
    update leaves this place.

    ``merge`` (``verify``): shares of the way from the last accepted state to the one that arrived; an MPVU that holds
    the former measures these states, too, and goes on with the one that is nearest to the accuracies asked for
    (``engines.gate.merit``).

    ``log`` (``home``): the first visits of the journey, as many as fit one packet with the rest of the order (some
    1,000 bytes); ``log_length`` says how many there are, the owner fetches what is missing with ``LogRequest``.
    """

    action: Annotated[str, msgspec.Meta(max_length=32)]
    object_id: terms.ObjectId
    visit: terms.VisitNumber
    for_object: terms.ObjectId = 0
    task: Member = ""
    data_node: Member = ""
    data_address: Member = ""
    epochs: terms.Amount = 1.0
    batch_size: terms.Count = 64
    learning_rate: terms.Amount = 2e-3
    expert_group: Member = ""
    group_weights: Groups = {}
    log: Annotated[list[dict[str, Any]], msgspec.Meta(max_length=64)] = []
    log_length: terms.Count = 0
    accuracy: terms.Accuracies = {}
    members: Annotated[list[Member], msgspec.Meta(max_length=64)] = []
    place: Member = ""
    rounds: Annotated[int, msgspec.Meta(ge=0, le=1000)] = 0
    compression: Annotated[str, msgspec.Meta(max_length=16)] = "none"
    secure: bool = False
    momentum: Share = 0.0
    merge: Annotated[list[Share], msgspec.Meta(max_length=8)] = []
    broad_accuracy: Share = 0.0
    expert_accuracy: Share = 0.0
    variant: Variant = ""
    way: Way = SINGLE
    model: Model = ""


class LogPart(Message, frozen=True, kw_only=True, tag="log="):
    """Entries of a training log, as many as fit one packet; an empty part ends it."""

    entries: Annotated[list[dict[str, Any]], msgspec.Meta(max_length=64)] = []


class VerdictReply(Message, frozen=True, kw_only=True, tag="verdict="):
    """``accepted`` false: the MPVU restores the last accepted state and launches that instead."""

    accepted: bool
    reason: Text = ""


class JobStatus(Message, frozen=True, kw_only=True, tag="status"):
    """How a job stands: ``submitted``, ``running``, ``finished``, ``failed`` or ``stopped``."""

    state: Annotated[str, msgspec.Meta(max_length=16)]
    visits: terms.Count
    broad: Share
    expert: Share
    reason: Text = ""


AnyMessage = (
    Register | Report | Leave | Pull | Halt | Submit | AnnounceObject | OrderRequest | VisitDone | Verdict | Returned
    | Inquire | Ack | Refused | SubmitReply | AnnounceReply | Order | LogRequest | LogPart | VerdictReply | JobStatus
    | SendData | Ask | Answer | Busy | AskState | State | AskReplicas | Replicas | Change | LaunchAgain | HandOver
    | Release | Copy | Retire | Recalibrate | Remeasured | MoveModel | AskPart | StreamPart | Probe | ProbeReply
    | Asking | Talk | Revoked
)  # fmt: skip

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[AnyMessage] = msgspec.msgpack.Decoder(AnyMessage)


def encode_message(message: Message) -> bytes:
    """Return the msgpack payload of a message."""
    return _encoder.encode(message)


def decode_message(payload: bytes | memoryview) -> AnyMessage:
    """Parse a payload; ``msgspec.DecodeError`` when it is not a message of ours."""
    try:
        return _decoder.decode(payload)
    except (UnicodeDecodeError, RecursionError) as error:  # msgspec lets these two through
        raise msgspec.DecodeError(str(error)) from error
