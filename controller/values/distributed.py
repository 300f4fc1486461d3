"""What a control centre and the terminals of a distributed K-AS (paper, Fig. 3) put to each other: the terminals hold
DRRT-O and MTRCE, the control centre verifies. Plain values, which travel in msgpack (``packets.distributed.asking``).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

from controller.values.decisions import JobView, Load, Option, Request

MAX_MEETINGS = 160
MAX_HANDLES = 64
Handle = Annotated[str, msgspec.Meta(max_length=64)]
Attributes = Annotated[
    dict[Annotated[str, msgspec.Meta(max_length=40)], tuple[Any, float]], msgspec.Meta(max_length=32)
]
Known = Annotated[dict[str, Attributes], msgspec.Meta(max_length=2 * MAX_MEETINGS)]
Group = Annotated[str, msgspec.Meta(max_length=64)]


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """What the control centre alone knows of its K-AS: the trust of terminals that earned or lost some, the links that
    are down, and the names of the terminals that it holds for dead or withdrawn.
    """

    trust: dict[str, float] = {}
    without: list[str] = []
    gone: list[str] = []


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """What does the K-AS offer this job? Answered by ``Offered``."""

    request: Request
    standing: Standing = Standing()


class Meets(msgspec.Struct, frozen=True, array_like=True):
    """An option with the terminals behind its handle, which never leave their K-AS."""

    option: Option
    data_node: str
    facility: str


class Offered(msgspec.Struct, frozen=True, kw_only=True):
    """A terminal's cut (MS-DRRT). ``known``: {terminal: {attribute: (value, age in seconds)}} that it rests on;
    ``terminals``: of how many data nodes and facilities it has heard; ``groups``: of all data that it knows of.
    """

    meetings: Annotated[list[Meets], msgspec.Meta(max_length=MAX_MEETINGS)] = []
    known: Known = {}
    terminals: int = 0
    groups: Annotated[list[Group], msgspec.Meta(max_length=64)] = []


class Brief(msgspec.Struct, frozen=True, kw_only=True):
    """What MTRCE needs of a job beside the topology of the holder's own K-AS, of which ``kas`` is the number (0: its
    options are among ``options``) and ``borders`` the K-AS borders from there to where the job is verified.
    """

    object_id: int
    request: Request
    view: JobView
    options: list[Option] = []
    load: Load = Load()
    excluded: list[str] = []
    kas: int = 0
    borders: int = 1
    standing: Standing = Standing()


class Proposal(msgspec.Struct, frozen=True, kw_only=True):
    """Where a terminal would have an object go: handles, the next one first, and the worth of those that it passed by.

    ``by``: who it is; ``ms``: what MTRCE took there.
    """

    handles: Annotated[list[Handle], msgspec.Meta(min_length=1, max_length=MAX_HANDLES)]
    scores: Annotated[list[tuple[Handle, float]], msgspec.Meta(max_length=16)] = []
    ms: Annotated[float, msgspec.Meta(ge=0.0, le=1e9)] = 0.0
    by: Literal["holder", "other"] = "holder"
