"""What an autonomous object carries in front of its model: its owner's charter, and the trail of what it went through.

Four bytes ``DAJ1``, four of length, a ``Journey`` in msgpack, then the model. The owner signs the charter; each holder
signs its own entry of the trail together with all that stands before it (Ed25519), so that nobody can alter, reorder or
insert one, and each entry names the address that may write the next.
"""

from __future__ import annotations

import hashlib
from typing import Annotated, Literal

import msgspec
from cryptography.exceptions import InvalidSignature

from packets.aats.probe import Kas, Mix, check_finite
from packets.errors import DaitnError
from packets.queries import Count
from packets.security.identity import Directory, Identity
from packets.terms import Amount, Figure, JobSpec, Name, Share

MAGIC = b"DAJ1"
MAX_STOPS = 256
MAX_ROUTE = 64
MAX_CHARTER = 16 << 10
MAX_BYTES = 8 << 20
SIGNERS = {
    "start": ("model_owner",),
    "train": ("data", "compute"),
    "verify": ("mpvu",),
    "confirm": ("mpvu",),
    "home": ("model_owner",),
}  # whose certificate may stand under which entry
CHARTER_CONTEXT = b"DA-ITN charter 1"
TRAIL_CONTEXT = b"DA-ITN trail 1"
Action = Literal["start", "train", "verify", "confirm", "home", "deploy"]
Words = Annotated[str, msgspec.Meta(max_length=200)]
Signature = Annotated[bytes, msgspec.Meta(max_length=64)]


class TrailError(DaitnError):
    """A journey that is broken, forged, cut, or not for whom it came to."""


class Charter(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the owner wants of its object, and by which policy it is to find its way; ``owner``: an address."""

    object_id: int
    owner: Name
    spec: JobSpec
    issued_ms: Annotated[int, msgspec.Meta(ge=0)]


class Stop(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """One entry of the trail: what was done at ``address``, and why the object went on from there ``to`` another.

    ``digest``: SHA-256 of the model as it left. Of ``train``: ``mix`` and ``quality`` of the data, ``samples``,
    ``epochs``, ``loss``. Of ``verify`` and ``confirm``: what was measured on ``samples`` (``share``, ``whole``: as of
    ``Verdict``), and ``accepted``. ``problem``: why the stop came to nothing. ``route``: of ``start``, the addresses
    to visit, where they were all chosen there.
    """

    address: Name
    kas: Kas
    action: Action
    next: Action
    to: Name
    why: Words
    at_ms: Annotated[int, msgspec.Meta(ge=0)]
    digest: Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
    samples: Count = 0
    epochs: Annotated[float, msgspec.Meta(ge=0.0, le=1000.0)] = 0.0
    loss: Figure = 0.0
    seconds: Amount = 0.0
    mix: Mix = {}
    quality: Share = 0.0
    broad: Share = 0.0
    per_group: Mix = {}
    accepted: bool = False
    share: Share = 1.0
    whole: Mix = {}
    problem: Words = ""
    route: Annotated[list[Name], msgspec.Meta(max_length=MAX_ROUTE)] = []
    signature: Signature = b""

    def __post_init__(self) -> None:
        check_finite(self.epochs, self.loss, self.seconds, self.quality, self.broad, self.share)
        check_finite(*self.mix.values(), *self.per_group.values(), *self.whole.values())


class Journey(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``text``: the charter's own bytes, as the owner signed them with ``word``."""

    text: Annotated[bytes, msgspec.Meta(max_length=MAX_CHARTER)]
    word: Signature = b""
    trail: Annotated[list[Stop], msgspec.Meta(max_length=MAX_STOPS)] = []

    @property
    def charter(self) -> Charter:
        """The charter; ``TrailError`` when the text is none."""
        try:
            return _charters.decode(self.text)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise TrailError(f"no charter: {str(error)[:120]}") from None

    def grown(self, stop: Stop, identity: Identity | None) -> Journey:
        """Return the journey with one more entry, signed (where there are keys)."""
        stop = msgspec.structs.replace(stop, signature=b"")
        if identity is not None:
            stop = msgspec.structs.replace(stop, signature=identity.signing.sign(self._said(len(self.trail), stop)))
        return msgspec.structs.replace(self, trail=[*self.trail, stop])

    def _said(self, at: int, stop: Stop) -> bytes:
        """Return what the signature of entry ``at`` covers: charter, the signature before it, the entry itself."""
        before = self.trail[at - 1].signature if at else self.word
        text = _encoder.encode(msgspec.structs.replace(stop, signature=b""))
        return TRAIL_CONTEXT + hashlib.sha256(self.text).digest() + before + text

    def check(self, *, object_id: int, owner: str, visit: int, here: str, directory: Directory | None) -> None:
        """Check what came in as stop ``visit`` of an object at address ``here``; ``TrailError`` says what is wrong.

        ``directory``: None on an open network, where everybody is believed.
        """
        charter = self.charter
        if (charter.object_id, charter.owner) != (object_id, owner):
            raise TrailError("the charter is that of another object")
        if len(self.trail) != visit + 1:
            raise TrailError(f"{len(self.trail)} entries in the trail of an object at stop {visit}")
        self._check_chain(owner, here)
        if directory is not None:
            self._check_words(owner, directory)

    def _check_chain(self, owner: str, here: str) -> None:
        expected, action = owner, "start"
        for at, stop in enumerate(self.trail):
            if (stop.address, stop.action) != (expected, action):
                raise TrailError(f"entry {at} is {stop.action} at {stop.address}, not {action} at {expected}")
            if stop.next == "start" or (stop.action == "home") != (stop.next == "deploy"):
                raise TrailError(f"entry {at} leads from {stop.action} to {stop.next}")
            expected, action = stop.to, stop.next
        if expected != here:
            raise TrailError(f"the last entry sends the object to {expected}, not to {here}")

    def _check_words(self, owner: str, directory: Directory) -> None:
        known = directory.by_address(owner)
        if known is None or known.role not in SIGNERS["start"]:
            raise TrailError(f"{owner} is no model owner of the directory")
        try:
            known.signing_key.verify(self.word, CHARTER_CONTEXT + self.text)
            for at, stop in enumerate(self.trail):
                signer = directory.by_address(stop.address)
                if signer is None or signer.role not in SIGNERS[stop.action]:
                    role = f"a {signer.role}" if signer else "in no directory"
                    raise TrailError(f"entry {at}: {stop.address}, which is {role}, may not {stop.action}")
                signer.signing_key.verify(stop.signature, self._said(at, stop))
        except InvalidSignature:
            raise TrailError("charter or trail are not what was signed") from None


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Journey)
_charters = msgspec.msgpack.Decoder(Charter)


def begun(charter: Charter, identity: Identity | None) -> Journey:
    """Return a journey that has not left its owner yet, the charter signed (where there are keys)."""
    text = _encoder.encode(charter)
    return Journey(text=text, word=identity.signing.sign(CHARTER_CONTEXT + text) if identity else b"")


def pack(journey: Journey, model: bytes | memoryview) -> bytes:
    """Return an autonomous object's bytes; ``TrailError`` where the journey has become too long."""
    text = _encoder.encode(journey)
    if len(journey.trail) > MAX_STOPS or len(text) > MAX_BYTES:
        raise TrailError(f"a journey of {len(journey.trail)} stops and {len(text)} bytes is longer than any may be")
    return b"".join((MAGIC, len(text).to_bytes(4, "big"), text, model))


def unpack(data: bytes | memoryview) -> tuple[Journey, bytes]:
    """Return (journey, model's bytes); ``TrailError`` when the bytes are no autonomous object's."""
    view = memoryview(data)
    length = int.from_bytes(view[4:8], "big")
    if len(view) < 8 or bytes(view[:4]) != MAGIC or length > min(MAX_BYTES, len(view) - 8):
        raise TrailError(f"an object of {len(view)} bytes does not begin with a journey")
    try:
        return _decoder.decode(view[8 : 8 + length]), bytes(view[8 + length :])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise TrailError(f"no journey: {str(error)[:120]}") from None
