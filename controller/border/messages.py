"""What control centres say to each other over their border sessions (msgpack, one request, one reply).

No message names a node of another K-AS: a place there is an opaque *handle* that its own DCC resolves. ``kas``: asked.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from controller.border.holding import AskBriefing, Briefing
from controller.border.lending import AskEngine, Lent
from controller.border.revoking import Revocations
from controller.values.decisions import Booking, Measured, Option, Request
from controller.values.distributed import Proposal
from packets.messages import AnyMessage
from packets.terms import Amount, Metrics

MAX_FRAME_BYTES = 1 << 20
Handle = Annotated[str, msgspec.Meta(max_length=64)]
Kas = Annotated[int, msgspec.Meta(ge=1, le=255)]


def place_key(kas: int, handle: str) -> str:
    """Name a place among all K-AS: fixed handles (``@mpvu/0``) repeat from K-AS to K-AS, others are unique."""
    return f"{kas}:{handle}" if handle.startswith("@") else handle


class Say(msgspec.Struct, frozen=True, kw_only=True, tag_field="b"):
    """Base of requests and replies."""


class AskOptions(Say, frozen=True, kw_only=True, tag="options?"):
    """Which rendezvous does your K-AS offer this job? Answered by ``Options``."""

    kas: Kas
    object_id: int
    request: Request


class Options(Say, frozen=True, kw_only=True, tag="options="):
    """What the K-AS offers the job, and what others take of it: places, and (where they do) part of links to K-AS."""

    options: list[Option]
    bookings: list[Booking] = []
    share_left: dict[Kas, float] = {}


class AskFacilities(Say, frozen=True, kw_only=True, tag="facilities?"):
    """Which places of a role (``mpvu``, ``mdfp``) does your K-AS have? Answered by ``Facilities``."""

    kas: Kas
    role: str


class Facility(msgspec.Struct, frozen=True, kw_only=True):
    """A place on offer: its handle, and what a decision needs to know of it."""

    kas: Kas
    handle: Handle
    attributes: dict[str, Any] = {}

    @property
    def handle_key(self) -> str:
        """The place among all K-AS: fixed handles repeat from K-AS to K-AS."""
        return place_key(self.kas, self.handle)


class Facilities(Say, frozen=True, kw_only=True, tag="facilities="):
    """The places of that role in the K-AS, ready or not."""

    facilities: list[Facility]


class AskNextStop(Say, frozen=True, kw_only=True, tag="next?"):
    """The holder's DCC asks the home DCC where an object goes now. ``exclude``: handles that turned out impossible.

    ``owner``: the address that the launch names as its owner's, who signed its mandate ("": an open network).
    ``held``: the holder's K-AS is distributed, a terminal there says where the object trains next: ``proposal``, or why
    none does (``silent``). Answered by ``Stop``, or by ``Briefing`` where it is a terminal's to say and none has.
    """

    kas: Kas
    object_id: int
    visit: int
    holder_kas: Kas
    owner: str = ""
    exclude: list[Handle] = []
    held: bool = False
    proposal: Proposal | None = None
    silent: str = ""


class Stop(Say, frozen=True, kw_only=True, tag="next="):
    """The home DCC's decision: which K-AS, which handle there, over which K-AS, and who still holds older rules.

    ``expected_s``: how long the place is taken from now on, the way there included (0: nobody need go around it).
    """

    action: str
    kas: Kas
    handle: Handle
    path: list[Kas]
    clear: list[Kas] = []
    expected_s: float = 0.0


class Announce(Say, frozen=True, kw_only=True, tag="announce"):
    """An object is about to cross: have its flows ready. ``to_kas`` 0: it ends in your K-AS, at ``handle``."""

    kas: Kas
    object_id: int
    visit: int
    action: str
    packet_type: str
    from_kas: Kas
    to_kas: int = 0
    handle: Handle = ""
    expected_s: float = 0.0


class Ready(Say, frozen=True, kw_only=True, tag="ready"):
    """The flows of an announced object stand.

    ``address``: where it will be put together, when that is in this K-AS; what every acknowledgement of the transfer
    shows, and what a former rendezvous needs that hands over what it holds.
    """

    address: str = ""


class Withdraw(Say, frozen=True, kw_only=True, tag="withdraw"):
    """Take the rules of an object out, unless they belong to visit ``before_visit`` or a later one."""

    kas: Kas
    object_id: int
    before_visit: int


class Lost(Say, frozen=True, kw_only=True, tag="lost"):
    """An object's rendezvous is gone, or the way to it. To the home DCC, which tells the holder's (``to_holder``).

    ``place``: key of the rendezvous that is gone ('': the way is, not the place).  ``alive``: the place is withdrawn,
    but lives and hands over what it holds.  ``holder``: who launches this visit is gone, before it has arrived.
    ``leaving``: from the home to the DCC of the place itself, which will be asked to have it hand over.
    """

    kas: Kas
    object_id: int
    visit: int
    to_holder: bool = False
    place: Handle = ""
    alive: bool = False
    holder: bool = False
    leaving: bool = False
    reason: str = ""


class HandOver(Say, frozen=True, kw_only=True, tag="handover"):
    """To the DCC of a withdrawn rendezvous: have it pass on what it holds of the object to the new one's address."""

    kas: Kas
    object_id: int
    visit: int
    address: str


class Release(Say, frozen=True, kw_only=True, tag="release"):
    """To the DCC of an earlier holder: the object is safe two stops further on, its copy there may go."""

    kas: Kas
    object_id: int
    visit: int


class Book(Say, frozen=True, kw_only=True, tag="book"):
    """To the K-AS of a stop that was just decided: keep the place for the object. ``No`` when others take it for longer
    than the home knew (``wait_s``): two jobs that decide in the same moment would both go there.
    """

    kas: Kas
    object_id: int
    visit: int
    handle: Handle
    wait_s: float
    expected_s: float


class Done(Say, frozen=True, kw_only=True, tag="done"):
    """Done as asked."""


class No(Say, frozen=True, kw_only=True, tag="no"):
    """Not done, and why."""

    reason: str


class Forward(Say, frozen=True, kw_only=True, tag="forward"):
    """A terminal's message on an object, passed on to the object's home DCC; its node names are blank."""

    kas: Kas
    from_kas: Kas
    object_id: int
    message: AnyMessage


class Forwarded(Say, frozen=True, kw_only=True, tag="forwarded"):
    """The home's answer to a message on an object, for the terminal that sent it."""

    message: AnyMessage


class AskModels(Say, frozen=True, kw_only=True, tag="models?"):
    """Which deployed models of a task can be asked in your K-AS? Answered by ``Models``; nodes appear as handles."""

    kas: Kas
    task: str


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """A deployed model on offer, as of ``ModelAt``; ``inner_ms``: from the gateway; ``silent``: not heard of now."""

    handle: Handle
    accuracy: dict[str, float]
    load: float
    latency_ms: float
    inner_ms: float = 0.0
    label: int = 0
    service_ms: float = 0.0
    in_flight: int = 0
    arrivals_per_s: float = 0.0
    up_s: float = -1.0
    age_s: float = 0.0
    asked_by: dict[str, float] = {}
    job: int = 0
    metrics: Metrics = {}
    cache: bool = False
    silent: bool = False


class Models(Say, frozen=True, kw_only=True, tag="models="):
    """The deployed models of that task in the K-AS."""

    models: list[Model]


class Lead(Say, frozen=True, kw_only=True, tag="lead"):
    """Have a deployed model's label lead to it, from everywhere in your K-AS: to its place there, or to the next K-AS
    towards ``at_kas``. ``away``: it serves no more.
    """

    kas: Kas
    label: int
    at_kas: Kas
    handle: Handle
    away: bool = False


class ModelsChanged(Say, frozen=True, kw_only=True, tag="models!"):
    """A deployed model came, fell silent or went in ``at_kas``: whoever shares queries among models looks again."""

    kas: Kas
    at_kas: Kas


class CopyModel(Say, frozen=True, kw_only=True, tag="copy"):
    """To the K-AS of a deployed model: have its terminal send a copy to another place ('': where MDO sees fit).

    ``measure``: the place is an MPVU, which measures it.
    """

    kas: Kas
    label: int
    handle: Handle
    to: Annotated[str, msgspec.Meta(max_length=80)] = ""
    measure: bool = False


class RetireModel(Say, frozen=True, kw_only=True, tag="retire"):
    """To the K-AS of a deployed model: have it passed by, and end once it has answered what it was asked."""

    kas: Kas
    label: int
    handle: Handle


class LinkState(Say, frozen=True, kw_only=True, tag="link"):
    """A border link of ``a_kas`` went down or came up; passed to every K-AS. Of several words the newest counts."""

    kas: Kas
    a_kas: Kas
    b_kas: Kas
    up: bool
    at_unix_s: Amount = 0.0


class Evidence(Say, frozen=True, kw_only=True, tag="evidence"):
    """To the K-AS of a visit: what an MPVU measured before (None: never) and after it. Moves the data node's trust.

    ``share``: this visit's part, where the MPVU saw the effect of several at once.
    """

    kas: Kas
    object_id: int
    visit: int
    before: Measured | None
    after: Measured
    share: float = 1.0


class Interrupt(Say, frozen=True, kw_only=True, tag="interrupt"):
    """To the K-AS of a visit: have the terminal stop working on the object, and let it go on."""

    kas: Kas
    object_id: int
    visit: int
    reason: str


Ask = (
    AskOptions | AskFacilities | AskNextStop | Announce | Withdraw | Lost | HandOver | Release | Forward | AskModels
    | Lead | ModelsChanged | CopyModel | RetireModel | LinkState | Evidence | Interrupt | Book | AskEngine
    | AskBriefing | Revocations
)  # fmt: skip
Reply = Options | Facilities | Stop | Ready | Done | No | Forwarded | Models | Lent | Briefing


class Envelope(msgspec.Struct, frozen=True, kw_only=True):
    """One frame. ``id`` ties a reply to its request."""

    id: int
    body: Ask | Reply


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Envelope)


def pack(number: int, body: Ask | Reply) -> bytes:
    """Return one frame: a length of four bytes, then the envelope."""
    data = _encoder.encode(Envelope(id=number, body=body))
    return len(data).to_bytes(4, "big") + data


def unpack(data: bytes) -> Envelope:
    """Parse an envelope; ``msgspec.DecodeError`` when it is none."""
    return _decoder.decode(data)
