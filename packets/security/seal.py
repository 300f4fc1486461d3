"""Signatures and MACs of single packets: what is covered, how it is sealed, how it is looked at.  No state, no clock.

Primitives are the maintained ones: Ed25519 (RFC 8032) of the library ``cryptography`` and keyed BLAKE2b (RFC 7693) of
``hashlib``.  What a tag covers is in packets/README.md: the header before the Authentication option, its checksum
counted as zero, then the payload.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import struct
import zlib
from collections.abc import Sequence
from typing import Final

import msgspec
import numpy as np
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from packets import wire
from packets.errors import IdentityError, PacketError
from packets.options import Authentication, AuthenticationAlgorithm, Mandate, Options, encode_options
from packets.security.clock import unix_ms
from packets.security.identity import Certificate, Identity
from packets.security.pair_keys import Session
from packets.wire import FIXED_BYTES, SEALED, Buffer, Flag, Header, PacketType, decode

REQUEST_TAG_BYTES = 16
EACH_TAG_BYTES, LISTENERS = 8, 4  # of a packet for a few listeners: as many MACs as an Authentication option holds
SIGNATURE_BYTES = 64
OPTION_BYTES = 8
MANDATE_CONTEXT = b"DA-ITN mandate 1"
_MANDATE: Final = struct.Struct("!Q4sBH")
_TIMES: Final = struct.Struct("!32sQQ")
_TLV_BYTES = 4
_CHECKSUM_AT = 60
_SUMS_AT, _SUM_BYTES = 56, 4  # payload checksum, then header checksum

BLAKE2B = AuthenticationAlgorithm.KEYED_BLAKE2B
ED25519 = AuthenticationAlgorithm.ED25519


class Refusal(str):
    """Why a packet is not taken: a stable word (packets/README.md, "Security"); ``text`` is a line for a person."""

    __slots__ = ("text",)
    text: str

    def __new__(cls, reason: str, text: str = "") -> Refusal:
        self = super().__new__(cls, reason)
        self.text = text
        return self


def now_ms() -> int:
    """Return the wall clock as the option Sent At carries it."""
    return unix_ms()


def covered(header: Header, raw: Buffer) -> tuple[bytes, memoryview]:
    """Return what the tag of a decoded packet covers (like ``wire.authenticated``, which parses the options again)."""
    if header.authentication is None:
        raise PacketError("option", "AI packet without an Authentication option")
    view = memoryview(raw)
    header_end = len(view) - header.length
    end = header_end - OPTION_BYTES - len(header.authentication.tag)
    return bytes(view[:_CHECKSUM_AT]) + b"\0\0\0\0" + bytes(view[FIXED_BYTES:end]), view[header_end:]


# --- MACs -------------------------------------------------------------------------------------------------------------


def tag(key: bytes, parts: tuple[Buffer, Buffer], size: int) -> bytes:
    """Return the keyed BLAKE2b of two parts, ``size`` bytes (a parameter of the hash, not a cut)."""
    mac = hashlib.blake2b(parts[0], key=key, digest_size=size)
    mac.update(parts[1])
    return mac.digest()


def seal_with_mac(header: Header, payload: Buffer, key: bytes, key_id: int, size: int = REQUEST_TAG_BYTES) -> bytes:
    """Return the packet of a header and a payload with a MAC of ``size`` bytes over both."""
    blank = _blank(header, BLAKE2B, key_id, size)
    return wire.seal(blank, payload, lambda *parts: tag(key, parts, size))


def mac_matches(header: Header, raw: Buffer, key: bytes, size: int = REQUEST_TAG_BYTES) -> bool:
    """Tell whether a received packet carries the right MAC of exactly ``size`` bytes."""
    auth = header.authentication
    if auth is None or auth.algorithm != BLAKE2B or len(auth.tag) != size:
        return False
    return hmac.compare_digest(tag(key, covered(header, raw), size), auth.tag)


def seal_with_macs(header: Header, payload: Buffer, keys: Sequence[bytes], key_id: int) -> bytes:
    """Return a packet that any of a few listeners can check: a MAC of ``EACH_TAG_BYTES`` for each, in a row."""
    blank = _blank(header, BLAKE2B, key_id, EACH_TAG_BYTES * len(keys))
    return wire.seal(blank, payload, lambda *parts: b"".join(tag(key, parts, EACH_TAG_BYTES) for key in keys))


def one_mac_matches(header: Header, raw: Buffer, key: bytes) -> bool:
    """Tell whether one of the MACs of a packet for a few listeners is right for this key."""
    auth = header.authentication
    if auth is None or auth.algorithm != BLAKE2B or len(auth.tag) % EACH_TAG_BYTES:
        return False
    own = tag(key, covered(header, raw), EACH_TAG_BYTES)
    each = [auth.tag[at : at + EACH_TAG_BYTES] for at in range(0, len(auth.tag), EACH_TAG_BYTES)]
    return any([hmac.compare_digest(own, one) for one in each])  # all are looked at, wherever the right one stands


def shard_matches(header: Header, raw: Buffer, session: Session) -> bool:
    """Tell whether a received shard was sealed by its sender: by the word that is its own, or by a MAC."""
    payload, kind = memoryview(raw)[len(raw) - header.length :], header.flags & SEALED
    if kind == Flag.ONE_TIME:
        word = int(session.words(np.array([header.shard_index]))[0])
        return zlib.crc32(payload) ^ word == header.payload_checksum
    covers = bytes(memoryview(raw)[:_SUMS_AT]) + bytes(2 * _SUM_BYTES), payload
    made = tag(session.receive_key, covers, _SUM_BYTES)
    return kind == Flag.KEYED and hmac.compare_digest(made, header.payload_checksum.to_bytes(_SUM_BYTES, "big"))


# --- signatures -------------------------------------------------------------------------------------------------------


def seal_with_signature(header: Header, payload: Buffer, identity: Identity) -> bytes:
    """Return the packet of a header and a payload with an Ed25519 signature over both."""
    blank = _blank(header, ED25519, identity.certificate.number, SIGNATURE_BYTES)
    return wire.seal(blank, payload, lambda *parts: identity.signing.sign(b"".join(parts)))


def signature_matches(header: Header, raw: Buffer, key: Ed25519PublicKey) -> bool:
    """Tell whether a received packet carries the right signature."""
    auth = header.authentication
    if auth is None or auth.algorithm != ED25519:
        return False
    return _verified(key, auth.tag, b"".join(covered(header, raw)))


def _verified(key: Ed25519PublicKey, signature: bytes, text: bytes) -> bool:
    try:
        key.verify(signature, text)
    except InvalidSignature:
        return False
    return True


def _blank(header: Header, algorithm: int, key_id: int, size: int) -> Header:
    auth = Authentication(algorithm=algorithm, key_id=key_id, tag=bytes(size))
    return msgspec.structs.replace(header, authentication=auth)


# --- mandates ---------------------------------------------------------------------------------------------------------


def mandate_text(header: Header, digest: bytes, issued_ms: int, expires_ms: int) -> bytes:
    """Return what an owner signs: identity, owner, type, limit and requirements of an object, its digest, its time."""
    requirements = encode_options(Options(requirements=header.requirements))[_TLV_BYTES:]
    owner = ipaddress.IPv4Address(header.owner).packed
    fixed = _MANDATE.pack(header.object_id, owner, header.type, header.visit_limit)
    return MANDATE_CONTEXT + fixed + requirements + _TIMES.pack(digest, issued_ms, expires_ms)


def make_mandate(header: Header, digest: bytes, issued_ms: int, expires_ms: int, owner: Identity) -> Mandate:
    """Sign an object over to the network. Of ``header``, the fields that ``mandate_text`` names are used."""
    signature = owner.signing.sign(mandate_text(header, digest, issued_ms, expires_ms))
    return Mandate(issued_ms=issued_ms, expires_ms=expires_ms, digest=digest, signature=signature)


def mandate_matches(header: Header, owner: Certificate) -> bool:
    """Tell whether the mandate in a launch is this owner's word for this object."""
    word = header.mandate
    if word is None:
        return False
    text = mandate_text(header, word.digest, word.issued_ms, word.expires_ms)
    return _verified(owner.signing_key, word.signature, text)


# --- for scripts ------------------------------------------------------------------------------------------------------


def sign_query(packet: Buffer, identity: Identity, sent_at_ms: int | None = None) -> bytes:
    """Return a query packet (bytes of ``AI(type="query", ...)`` or ``encode``) signed by its asker, ready to send.

    Sent At is set to now; a packet that names another owner than the signer is refused here, not by the network.
    """
    header, payload = decode(packet)
    own = identity.certificate
    if header.type is not PacketType.QUERY:
        raise IdentityError(f"a {header.type.name} packet is not signed this way; give a query")
    if header.owner != own.address:
        raise IdentityError(f"the query's owner is {header.owner}, the key is that of {own.name} ({own.address})")
    header = msgspec.structs.replace(header, sent_at_ms=sent_at_ms or now_ms(), authentication=None)
    return seal_with_signature(header, payload, identity)
