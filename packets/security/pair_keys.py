"""Keys that two speakers share: of one transfer (fresh each time), and of a pair of speakers (for requests).

X25519 (RFC 7748) gives a secret, HKDF-SHA256 (RFC 5869) makes keys of it, both from the library ``cryptography``.  Each
direction has a key of its own, so nothing that one side said can be played back to it as the other's word.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from packets.security.identity import Certificate, Identity

KEY_BYTES = 32
BLOCK_BYTES = 16
SESSION_CONTEXT = b"DA-ITN session 1"
PAIR_CONTEXT = b"DA-ITN pair 1"
PAGE_WORDS, PAGES = 1024, 256  # of all transfers together: 1 MiB
_SALT: Final = struct.Struct("!QI")
_NUMBERS: Final = struct.Struct("!HH")

Words = npt.NDArray[np.uint32]


class Session:
    """The keys of one transfer at one of its ends. ``send_key`` seals what goes out, ``receive_key`` what comes in.

    ``words`` are what its shards' checksums are sealed with, one a shard, used once: nobody else can tell the next.

    ``peer`` is who is at the other end, proven; ``own_share`` the Key Share that this end sends.
    """

    __slots__ = ("_cipher_key", "_word_key", "key_id", "own_share", "peer", "peer_share", "receive_key", "send_key")

    def __init__(
        self, keys: tuple[bytes, bytes, bytes, bytes], peer: Certificate, key_id: int, shares: tuple[bytes, bytes]
    ) -> None:
        self.send_key, self.receive_key, self._cipher_key, self._word_key = keys
        self.peer, self.key_id = peer, key_id
        self.own_share, self.peer_share = shares

    def cipher(self, offset: int, data: bytes | bytearray | memoryview) -> bytes:
        """Encrypt, or decrypt, a part of the object that begins at ``offset`` (a multiple of 16): AES-256-CTR.

        The counter is ``offset / 16``. No counter block is ever used for two texts: the key is this transfer's alone,
        and a transfer carries one object.
        """
        block, rest = divmod(offset, BLOCK_BYTES)
        if rest:
            raise ValueError(f"offset {offset} is not a multiple of {BLOCK_BYTES}")
        return _counter_mode(self._cipher_key, block, data)

    def words(self, shards: npt.NDArray[np.int64]) -> Words:
        """Return the words of shards, (n,)."""
        pages, places = np.divmod(shards, PAGE_WORDS)
        if not len(shards) or bool((pages == pages[0]).all()):  # neighbours, as a rule
            return _page(self._word_key, int(pages[0]) if len(pages) else 0).take(places)
        found = np.empty(len(shards), np.uint32)
        for page in np.unique(pages).tolist():
            here = pages == page
            found[here] = _page(self._word_key, page).take(places[here])
        return found


@lru_cache(PAGES)
def _page(key: bytes, number: int) -> Words:
    """Return the words of ``PAGE_WORDS`` shards: a stretch of an AES-256-CTR key stream."""
    size = PAGE_WORDS * 4
    stream = _counter_mode(key, number * size // BLOCK_BYTES, bytes(size))
    return np.frombuffer(stream, ">u4").astype(np.uint32)


def _counter_mode(key: bytes, block: int, data: bytes | bytearray | memoryview) -> bytes:
    cipher = Cipher(algorithms.AES256(key), modes.CTR(block.to_bytes(BLOCK_BYTES, "big")))
    return cipher.encryptor().update(data)


def sender_session(
    own: X25519PrivateKey, peer_share: bytes, object_id: int, transfer_id: int, peer: Certificate, key_id: int
) -> Session:
    """Return the sender's end of a transfer's session; ``ValueError`` when the peer's share is no good point."""
    own_share = own.public_key().public_bytes_raw()
    forth, back, cipher, words = _derive(own, peer_share, (own_share, peer_share), object_id, transfer_id)
    return Session((forth, back, cipher, words), peer, key_id, (own_share, peer_share))


def receiver_session(
    own: X25519PrivateKey, peer_share: bytes, object_id: int, transfer_id: int, peer: Certificate, key_id: int
) -> Session:
    """Return the receiver's end; ``ValueError`` when the peer's share is no good point."""
    own_share = own.public_key().public_bytes_raw()
    forth, back, cipher, words = _derive(own, peer_share, (peer_share, own_share), object_id, transfer_id)
    return Session((back, forth, cipher, words), peer, key_id, (own_share, peer_share))


def _derive(
    own: X25519PrivateKey, peer_share: bytes, shares: tuple[bytes, bytes], object_id: int, transfer_id: int
) -> tuple[bytes, bytes, bytes, bytes]:
    """Return (MAC key sender to receiver, MAC key receiver to sender, cipher key, key of words).

    ``shares``: sender's, receiver's.
    """
    secret = own.exchange(X25519PublicKey.from_public_bytes(peer_share))
    salt = _SALT.pack(object_id, transfer_id)
    out = HKDF(SHA256(), 4 * KEY_BYTES, salt, SESSION_CONTEXT + b"".join(shares)).derive(secret)
    return out[:KEY_BYTES], out[KEY_BYTES : 2 * KEY_BYTES], out[2 * KEY_BYTES : 3 * KEY_BYTES], out[3 * KEY_BYTES :]


def pair_keys(own: Identity, peer: Certificate) -> tuple[bytes, bytes]:
    """Return the MAC keys (own to peer, peer to own) of two speakers, the same for the life of their certificates."""
    secret = own.agreement.exchange(peer.agreement_key)

    def key(speaker: int, listener: int) -> bytes:
        info = PAIR_CONTEXT + _NUMBERS.pack(speaker, listener)
        return HKDF(SHA256(), KEY_BYTES, None, info).derive(secret)

    return key(own.certificate.number, peer.number), key(peer.number, own.certificate.number)
