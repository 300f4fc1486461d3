"""What the engines decide on, and what they decide: plain values, no clock, no socket, no OpenFlow.

A *group* is a department (vignettes) or a class (tables).  ``mix`` maps a group to the (differentially private) share
of it in a node's data.  An ``Option`` is one abstract rendezvous that a K-AS offers to a job: it names no node, only an
opaque handle, so what leaves a K-AS about its nodes is what a planner needs and no more.
"""

from __future__ import annotations

from typing import Literal

import msgspec

Mix = dict[str, float]


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """A training request as the engines see it. ``train_on``: meeting the targets does not end it, its budget does;
    ``beyond``: they have been met, and what is left of the budget is for all that the data can teach.
    """

    task: str
    groups: list[str]
    broad_accuracy: float
    expert_group: str | None = None
    expert_accuracy: float = 0.0
    max_visits: int = 16
    deadline_s: float = 170.0
    trust_floor: float = 0.5
    model_bytes: int = 0
    method: str = "routed"
    seed: int = 0
    train_on: bool = False
    beyond: bool = False


class Option(msgspec.Struct, frozen=True, kw_only=True):
    """One rendezvous on offer: data of mix ``mix`` met at some compute facility of K-AS ``kas``.

    ``epoch_s``: predicted seconds per local epoch there; ``move_s``/``move_bytes``: getting data to its compute
    facility (0 when the data stays); ``reach_s``: seconds for the model to come in from the K-AS's border; ``quality``
    and ``trust`` in 0..1; ``age_s``: age of the oldest attribute it rests on; ``available_s``: how long it stays
    reachable (inf: no known end); ``place``: opaque name of the compute facility, the same for all options that meet
    there ('': nothing else meets there); ``borders``: of K-AS on the way from there to the MPVU that verifies.
    """

    kas: int
    handle: str
    mix: Mix
    samples: int
    epoch_s: float
    reach_s: float
    move_s: float = 0.0
    move_bytes: int = 0
    quality: float = 1.0
    trust: float = 1.0
    age_s: float = 0.0
    available_s: float = float("inf")
    place: str = ""
    borders: int = 1


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """An MPVU's measurement."""

    broad: float
    per_group: Mix
    samples: int


class Visit(msgspec.Struct, frozen=True, kw_only=True):
    """A visit made, as the planner remembers it. ``accepted``: what the MPVU said (None: not asked); ``found``: what it
    measured right after the visit, also where it then rejected it.
    """

    kas: int
    handle: str
    mix: Mix
    samples: int
    epochs: float
    accepted: bool | None = None
    found: Measured | None = None


class Booking(msgspec.Struct, frozen=True, kw_only=True):
    """A rendezvous taken by another job, in seconds from now. ``place``: an option's ``place``, else its handle."""

    place: str
    start_s: float
    end_s: float


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """What other jobs use. ``way_share``: share of the rate into a K-AS that is left for this job (default 1)."""

    bookings: list[Booking] = []
    way_share: dict[int, float] = {}


class JobView(msgspec.Struct, frozen=True, kw_only=True):
    """The state of a job: visits in order, and the measurement of the last accepted model."""

    visits: list[Visit] = []
    measured: Measured | None = None
    elapsed_s: float = 0.0
    at_kas: int = 1


class Hyper(msgspec.Struct, frozen=True, kw_only=True):
    """HPO's word on one visit."""

    epochs: float
    batch_size: int
    learning_rate: float
    group_weights: Mix = {}


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One planned rendezvous and what it is expected to bring; ``reason`` is for a person.

    ``cost_s`` is the whole visit, of which ``wait_s`` is spent waiting for other jobs to leave the rendezvous.
    """

    option: Option
    hyper: Hyper
    expected: Mix
    cost_s: float
    cost_bytes: int
    verify: bool
    reason: str
    wait_s: float = 0.0


class Lender(msgspec.Struct, frozen=True, kw_only=True):
    """The K-AS whose engine decided, where it was borrowed, and after how long; ``before``: who was asked in vain.

    ``terminal``: it is a terminal's, of the one that held the object (``holder``), or another one.
    """

    kas: int
    ms: float
    own: bool = False
    before: list[str] = []
    terminal: Literal["", "holder", "other"] = ""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """An ordered list of rendezvous; ``alternatives``: (handle, score) of first steps not taken; ``by``: another K-AS's
    engine (None: it was not borrowed).
    """

    steps: list[Step]
    expected_broad: float
    expected_expert: float
    total_s: float
    total_bytes: int
    alternatives: list[tuple[str, float]] = []
    by: Lender | None = None


class Assessment(msgspec.Struct, frozen=True, kw_only=True):
    """T-FAM's verdict: every unmet reason, and the nearest requirement that would be admitted; ``by`` as of a plan."""

    admitted: bool
    reasons: list[str]
    nearest: Mix
    predicted: Mix
    by: Lender | None = None
