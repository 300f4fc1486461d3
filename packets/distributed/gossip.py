"""What terminals of a distributed K-AS (paper, Fig. 3) tell one another of themselves: signed records, by gossip.

Who reports signs its record (Ed25519), so whoever passes it on can alter nothing but its age.
"""

from __future__ import annotations

import math
from typing import Annotated

import msgspec
from cryptography.exceptions import InvalidSignature

from packets.security.identity import Certificate, Identity
from packets.terms import Message, Name

MAX_RECORDS = 16
MAX_NAMES = 64
MAX_ATTRIBUTES_BYTES = 4096
CONTEXT = b"DA-ITN gossip 1"
Version = Annotated[int, msgspec.Meta(ge=1, lt=1 << 53)]
End = Annotated[str, msgspec.Meta(max_length=32)]
Versions = Annotated[dict[Name, Version], msgspec.Meta(max_length=MAX_NAMES)]
Names = Annotated[list[Name], msgspec.Meta(max_length=MAX_NAMES)]


class Record(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What one terminal said of itself: ``attributes`` in msgpack, ``version`` by its own clock in milliseconds.

    ``age_s``: how old that is where it is sent from; everybody who passes it on adds its own time.
    """

    name: Name
    version: Version
    attributes: Annotated[bytes, msgspec.Meta(max_length=MAX_ATTRIBUTES_BYTES)]
    signature: Annotated[bytes, msgspec.Meta(max_length=64)] = b""
    age_s: Annotated[float, msgspec.Meta(ge=0.0, le=1e6)] = 0.0

    def __post_init__(self) -> None:
        if not math.isfinite(self.age_s):  # bounds let a NaN pass
            raise ValueError("an age is no finite number")


Records = Annotated[list[Record], msgspec.Meta(max_length=MAX_RECORDS)]


class Digest(Message, frozen=True, kw_only=True, omit_defaults=True, tag="gossip?"):
    """Which versions are held here of the names from ``first`` up to ``last``, itself not among them ('': no bound).

    Answered by ``News``: what is newer there, and the names of which this side has newer.
    """

    first: End = ""
    last: End = ""
    versions: Versions = {}


class News(Message, frozen=True, kw_only=True, omit_defaults=True, tag="gossip!"):
    """Records, unasked or as answer to a ``Digest``; ``more``: there were too many for one message."""

    records: Records = []
    wants: Names = []
    more: bool = False


Talk = Digest | News


def signed_text(name: str, version: int, attributes: bytes) -> bytes:
    """Return what a terminal signs of its record."""
    return CONTEXT + msgspec.msgpack.encode((name, version, attributes))


def signature_of(identity: Identity, version: int, attributes: bytes) -> bytes:
    """Sign a record of one's own."""
    return identity.signing.sign(signed_text(identity.certificate.name, version, attributes))


def signed_by(record: Record, certificate: Certificate) -> bool:
    """Tell whether a record is this terminal's word."""
    if record.name != certificate.name:
        return False
    try:
        certificate.signing_key.verify(record.signature, signed_text(record.name, record.version, record.attributes))
    except InvalidSignature:
        return False
    return True
