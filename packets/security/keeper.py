"""The keeper of one speaker's word: signs what it sends, refuses what others did not say, and says why in one word.

It is the transport's guard at a terminal, and a control centre's at the door of its network.  Cheap checks come first:
an Ed25519 verification is only done for who is known, in time and within its budget, so a flood of bad launches costs
its receiver little.  Reasons (packets/README.md, "Security"): unsigned, holder, owner, expired, replayed, mandate,
throttled, signature, mac, role, revoked-key.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from packets.errors import TransportError
from packets.options import DigestAlgorithm, Mandate
from packets.security.identity import Certificate, Directory, Identity
from packets.security.pair_keys import Session, pair_keys, receiver_session, sender_session
from packets.security.replay import AHEAD_MS, Budget, Memory
from packets.security.seal import (
    BLAKE2B,
    ED25519,
    LISTENERS,
    Refusal,
    mac_matches,
    make_mandate,
    mandate_matches,
    mandate_text,
    now_ms,
    one_mac_matches,
    seal_with_mac,
    seal_with_macs,
    seal_with_signature,
    signature_matches,
)
from packets.transfers import OutgoingObject
from packets.wire import Buffer, Flag, Header, PacketType

LIFE_MS = 600_000
SLACK_MS = 300_000
REMEMBERED = 1024
VERIFICATIONS_OF_A_LAUNCH = 2.0
ORIGINALS = (DigestAlgorithm.SHA256, DigestAlgorithm.SHA256_TREE)

Peer = tuple[str, int]


@dataclass
class _Outgoing:
    """A transfer that this side launched."""

    mandate: Mandate
    receiver_roles: tuple[str, ...]
    key: X25519PrivateKey = field(default_factory=X25519PrivateKey.generate)
    sent_at_ms: int = 0
    answered: tuple[bytes, Session] | None = None


class Keeper:
    """Guards one speaker. ``aliases``: names behind addresses that no certificate carries alone (the DCC's label)."""

    def __init__(
        self,
        identity: Identity,
        directory: Directory,
        *,
        aliases: Mapping[str, str] | None = None,
        wall_ms: Callable[[], int] = now_ms,
        clock: Callable[[], float] = time.monotonic,
        budget: Budget | None = None,
    ) -> None:
        self.identity, self.directory = identity, directory
        self.aliases = dict(aliases or {})
        self.revoked: frozenset[str] = frozenset()  # names; what they say, launch or own is refused
        self._wall_ms, self._clock = wall_ms, clock
        self._memory = Memory(wall_ms())
        self._budget = budget or Budget()
        self._outgoing: OrderedDict[int, _Outgoing] = OrderedDict()
        self._incoming: OrderedDict[tuple[str, int], Session] = OrderedDict()
        self._mandates: OrderedDict[bytes, None] = OrderedDict()
        self._pairs: dict[int, tuple[Certificate, bytes, bytes]] = {}

    @property
    def own(self) -> Certificate:
        return self.identity.certificate

    def peer(self, address: str) -> Certificate | None:
        """Return who speaks from an address, as far as the directory knows."""
        alias = self.aliases.get(address)
        return self.directory.by_name(alias) if alias else self.directory.by_address(address)

    # --- transfers, at the sender -------------------------------------------------------------------------------------

    def launch(self, obj: OutgoingObject, header: Header) -> bytes:
        """Return a launch with the owner's mandate, a key share, the time and our signature; anew for every repeat."""
        going = self._outgoing.get(header.transfer_id)
        if going is None:
            going = _Outgoing(obj.mandate or header.mandate or self.mandate(header), self._readers(obj))
            self._outgoing[header.transfer_id] = going
            while len(self._outgoing) > REMEMBERED:
                self._outgoing.popitem(last=False)
        going.sent_at_ms = max(self._wall_ms(), going.sent_at_ms + 1)
        share = going.key.public_key().public_bytes_raw()
        full = msgspec.structs.replace(
            header, mandate=going.mandate, key_share=share, sent_at_ms=going.sent_at_ms, authentication=None
        )
        return seal_with_signature(full, b"", self.identity)

    def _readers(self, obj: OutgoingObject) -> tuple[str, ...]:
        """Who may answer; what was encrypted for us is handed over to our like alone."""
        secret = obj.flags & Flag.HANDOVER and obj.flags & Flag.ENCRYPTED
        return obj.receiver_roles or ((self.own.role,) if secret else ())

    def mandate(self, header: Header, life_ms: int = 0) -> Mandate:
        """Sign an object of our own over to the network, until its deadline and some slack.

        ``header`` is that of its first launch, whose digest is the original's; ``TransportError``: not ours.
        """
        digest = header.digest
        if header.owner != self.own.address or digest is None or digest.algorithm not in ORIGINALS:
            raise TransportError(
                f"object {header.object_id:#x} of {header.owner} has no mandate; {self.own.name} cannot give one for it"
            )
        need = header.requirements
        deadline = need.deadline_ms if need else 0
        issued = self._wall_ms()
        expires = issued + (life_ms or (deadline or LIFE_MS) + SLACK_MS)
        return make_mandate(header, digest.value, issued, expires, self.identity)

    def confirm(self, header: Header, raw: Buffer, source: Peer) -> Session | Refusal:
        """Look at the first acknowledgement of a transfer of ours; return the session with who signed it."""
        address = source[0]
        going = self._outgoing.get(header.transfer_id)
        auth, share = header.authentication, header.key_share
        if going is None or auth is None or auth.algorithm != ED25519 or share is None:
            return Refusal("unsigned", "a first acknowledgement carries a key share and a signature")
        peer = self.peer(address)
        if peer is None or auth.key_id != peer.number:
            return Refusal("holder", f"{address} does not speak for key {auth.key_id}")
        if peer.name in self.revoked:
            return Refusal("revoked-key", f"{peer.name} is revoked")
        if not self._budget.spend(address, 1.0, self._clock()):
            return Refusal("throttled", f"too many signatures from {address}")
        if not signature_matches(header, raw, peer.signing_key):
            return Refusal("signature", f"not signed by {peer.name}")
        if going.receiver_roles and peer.role not in going.receiver_roles:
            wanted = " or ".join(going.receiver_roles)
            return Refusal("role", f"{peer.name} is a {peer.role}; this object goes to a {wanted} alone")
        return self._session(going, share, header, peer)

    def _session(self, going: _Outgoing, share: bytes, header: Header, peer: Certificate) -> Session | Refusal:
        if going.answered is None or going.answered[0] != share:
            try:
                ids = header.object_id, header.transfer_id
                going.answered = share, sender_session(going.key, share, *ids, peer, self.own.number)
            except ValueError:
                return Refusal("signature", f"the key share of {peer.name} is no good")
        return going.answered[1]

    # --- transfers, at the receiver -----------------------------------------------------------------------------------

    def accept(self, header: Header, raw: Buffer, source: Peer) -> Session | Refusal:
        """Look at a launch before a byte is stored; a repeated one returns the session that stands."""
        address = source[0]
        refusal = self.check_launch(header, raw, address)
        if refusal is not None:
            return refusal
        holder, share, key = self.peer(address), header.key_share, (address, header.transfer_id)
        assert holder is not None and share is not None
        known = self._incoming.get(key)
        if known is not None and known.peer_share == share and known.peer == holder:
            return known
        try:
            ids = header.object_id, header.transfer_id
            session = receiver_session(X25519PrivateKey.generate(), share, *ids, holder, self.own.number)
        except ValueError:
            return Refusal("signature", f"the key share of {holder.name} is no good")
        self._incoming[key] = session
        while len(self._incoming) > REMEMBERED:
            self._incoming.popitem(last=False)
        return session

    def answer(self, header: Header, session: Session) -> bytes:
        """Return an acknowledgement with our key share and signature, for as long as the sender has shown no MAC."""
        full = msgspec.structs.replace(header, key_share=session.own_share, authentication=None)
        return seal_with_signature(full, b"", self.identity)

    def check_launch(self, header: Header, raw: Buffer, address: str) -> Refusal | None:
        """Look at a launch: who holds the object, whose it is, whether it is fresh, and both signatures."""
        auth, word, sent = header.authentication, header.mandate, header.sent_at_ms
        if auth is None or auth.algorithm != ED25519 or word is None or sent is None or header.key_share is None:
            return Refusal("unsigned", "a launch carries mandate, key share, time and a signature")
        holder, owner = self.peer(address), self.directory.by_address(header.owner)
        if holder is None or auth.key_id != holder.number:
            return Refusal("holder", f"{address} does not speak for key {auth.key_id}")
        if owner is None:
            return Refusal("owner", f"the directory knows no owner {header.owner}")
        if gone := {holder.name, owner.name} & self.revoked:
            return Refusal("revoked-key", f"{min(gone)} is revoked")
        now, what = self._wall_ms(), ("launch", header.transfer_id)
        if stale := self._memory.judge(holder.number, what, sent, now):
            return Refusal(stale, f"launch of {holder.name}, sent {now - sent} ms ago")
        refusal = _contradiction(header, word, holder, owner, now)
        if refusal is not None:
            return refusal
        if not self._budget.spend(address, VERIFICATIONS_OF_A_LAUNCH, self._clock()):
            return Refusal("throttled", f"too many launches from {address}")
        if not signature_matches(header, raw, holder.signing_key):
            return Refusal("signature", f"not signed by {holder.name}")
        refusal = self._mandate_fault(header, word, holder, owner)
        if refusal is None:
            self._memory.note(holder.number, what, sent, now)
        return refusal

    def _mandate_fault(self, header: Header, word: Mandate, holder: Certificate, owner: Certificate) -> Refusal | None:
        """Check the owner's signature (once per mandate); tell one of the holder's own making from any other."""
        seen = owner.signing + word.signature + mandate_text(header, word.digest, word.issued_ms, word.expires_ms)
        if seen in self._mandates:
            self._mandates.move_to_end(seen)
            return None
        if mandate_matches(header, owner):
            self._mandates[seen] = None
            while len(self._mandates) > REMEMBERED:
                self._mandates.popitem(last=False)
            return None
        if holder != owner and mandate_matches(header, holder):
            return Refusal("owner", f"{holder.name} signed a mandate for an object that it says is {owner.name}'s")
        return Refusal("mandate", f"the mandate is not {owner.name}'s word for this object")

    # --- requests, replies, errors ------------------------------------------------------------------------------------

    def sign_request(self, header: Header, payload: Buffer, to: str) -> bytes:
        """Return a request, reply or error as it goes to an address: a MAC for who is known there, else a signature."""
        full = msgspec.structs.replace(header, sent_at_ms=self._wall_ms(), authentication=None)
        peer = self.peer(to)
        if peer is None:
            return seal_with_signature(full, payload, self.identity)
        return seal_with_mac(full, payload, self._pair(peer)[0], self.own.number)

    def sign_for(self, header: Header, payload: Buffer, listeners: Sequence[str]) -> bytes:
        """Return a query as it goes to one of a few addresses, the network chooses which; a signature for strangers."""
        full = msgspec.structs.replace(header, sent_at_ms=self._wall_ms(), authentication=None)
        peers = [self.peer(address) for address in listeners[:LISTENERS]]
        known = [self._pair(peer)[0] for peer in peers if peer is not None]
        if not known or len(known) < len(listeners):
            return seal_with_signature(full, payload, self.identity)
        return seal_with_macs(full, payload, known, self.own.number)

    def check_request(self, header: Header, raw: Buffer, source: Peer) -> Refusal | None:
        """Look at a request, reply or error that came from an address."""
        address = source[0]
        auth, sent = header.authentication, header.sent_at_ms
        if auth is None or sent is None:
            return Refusal("unsigned", f"a {header.type.name} carries its time and an authentication")
        peer = self.peer(address)
        if peer is None or auth.key_id != peer.number:
            return Refusal("holder", f"{address} does not speak for key {auth.key_id}")
        if peer.name in self.revoked:
            return Refusal("revoked-key", f"{peer.name} is revoked")
        now = self._wall_ms()
        what = header.type, header.flags & Flag.REPLY, header.transfer_id, header.shard_index
        stale = self._memory.judge(peer.number, what, sent, now)
        if stale == "expired" or (stale and not _is_reply(header)):
            return Refusal(stale, f"{header.type.name} of {peer.name}, sent {now - sent} ms ago")
        refusal = self._tag_fault(header, raw, peer, address)
        if refusal is None and not _is_reply(header):
            self._memory.note(peer.number, what, sent, now)
        return refusal

    def _tag_fault(self, header: Header, raw: Buffer, peer: Certificate, address: str) -> Refusal | None:
        assert header.authentication is not None
        if header.authentication.algorithm == BLAKE2B:
            key = self._pair(peer)[1]
            if mac_matches(header, raw, key):
                return None
            if header.type is PacketType.QUERY and one_mac_matches(header, raw, key):
                return None
            return Refusal("mac", f"not {peer.name}'s word to {self.own.name}")
        if not self._budget.spend(address, 1.0, self._clock()):
            return Refusal("throttled", f"too many signatures from {address}")
        if signature_matches(header, raw, peer.signing_key):
            return None
        return Refusal("signature", f"not signed by {peer.name}")

    def _pair(self, peer: Certificate) -> tuple[bytes, bytes]:
        """Return (own to peer, peer to own), worked out once per certificate."""
        known = self._pairs.get(peer.number)
        if known is None or known[0] != peer:
            known = (peer, *pair_keys(self.identity, peer))
            self._pairs[peer.number] = known
        return known[1:]


def _is_reply(header: Header) -> bool:
    """A reply is wanted once, by the transfer id that its request drew; an error may come at any time."""
    return bool(header.flags & Flag.REPLY) and header.type is not PacketType.ERROR


def _contradiction(header: Header, word: Mandate, holder: Certificate, owner: Certificate, now: int) -> Refusal | None:
    """What a launch gives away without any cryptography."""
    if not word.issued_ms - AHEAD_MS <= now < word.expires_ms:
        return Refusal("expired", f"the mandate of {owner.name} ended {now - word.expires_ms} ms ago")
    if header.visit_limit and header.visit > header.visit_limit:
        return Refusal("mandate", f"visit {header.visit} of at most {header.visit_limit}")
    if header.visit:
        return None
    digest = header.digest
    if digest is None or digest.algorithm not in ORIGINALS or digest.value != word.digest:
        return Refusal("mandate", "what is launched is not what its owner signed")
    if holder != owner and not header.flags & Flag.HANDOVER:
        return Refusal("holder", f"{holder.name} launches what {owner.name} has not let go of yet")
    return None
