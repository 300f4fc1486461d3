"""What terminals of a distributed K-AS (paper, Fig. 3) and its control centre ask each other: what is on offer, and
where an object goes next. ``question``, ``found`` and ``brief`` hold msgpack (``controller.values.distributed``).
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from packets.aats.probe import Visit, check_finite
from packets.parts import MAX_MESSAGE_BYTES
from packets.terms import Figure, Message, Name, ObjectId, Text

ROOM_BYTES = MAX_MESSAGE_BYTES - 1024
Body = Annotated[bytes, msgspec.Meta(max_length=ROOM_BYTES)]
Handle = Annotated[str, msgspec.Meta(max_length=64)]
Handles = Annotated[list[Handle], msgspec.Meta(max_length=64)]
Scores = Annotated[list[tuple[Handle, Figure]], msgspec.Meta(max_length=16)]
Took = Annotated[float, msgspec.Meta(ge=0.0, le=1e9)]


# --- the control centre asks a terminal


class AskOffers(Message, frozen=True, kw_only=True, tag="offers?"):
    """Cut what your K-AS offers a job (DRRT-O). Answered by ``Offers``."""

    object_id: ObjectId
    question: Body


class Offers(Message, frozen=True, kw_only=True, tag="offers="):
    """What is on offer, as this terminal has heard."""

    found: Body


class AskPlan(Message, frozen=True, kw_only=True, tag="plan?"):
    """Say where this job goes next (MTRCE). Answered by ``Planned``."""

    object_id: ObjectId
    brief: Body


class Planned(Message, frozen=True, kw_only=True, omit_defaults=True, tag="plan="):
    """The places in order, the next one first; ``none``: why there is nowhere. ``scores``: of those passed by."""

    handles: Handles = []
    scores: Scores = []
    took_ms: Took = 0.0
    none: Text = ""

    def __post_init__(self) -> None:
        check_finite(self.took_ms, *(score for _, score in self.scores))


# --- the terminal that holds an object asks the control centre


class AskBrief(Message, frozen=True, kw_only=True, tag="brief?"):
    """What must I know to say where the object goes on this visit? Answered by ``Briefed``."""

    name: Name
    object_id: ObjectId
    visit: Visit


class Briefed(Message, frozen=True, kw_only=True, omit_defaults=True, tag="brief="):
    """What its home knows (empty: it is not this holder's to say, a verdict is due or the job is over)."""

    brief: Body = b""


class Propose(Message, frozen=True, kw_only=True, omit_defaults=True, tag="propose"):
    """Where the holder would have its object go on this visit, before it launches it; answered by ``Ack``."""

    name: Name
    object_id: ObjectId
    visit: Visit
    handles: Annotated[list[Handle], msgspec.Meta(min_length=1, max_length=64)]
    scores: Scores = []
    took_ms: Took = 0.0

    def __post_init__(self) -> None:
        check_finite(self.took_ms, *(score for _, score in self.scores))


Asking = AskOffers | Offers | AskPlan | Planned | AskBrief | Briefed | Propose
