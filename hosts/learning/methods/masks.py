"""Secure aggregation by pairwise masks: the aggregator learns the sum of all updates and no single one.

Every pair of members agrees on a secret (X25519; the aggregator carries the public keys and cannot read it). Both
stretch it to a stream of numbers (AES-128-CTR, a fresh stream each round); the one of the lower index adds it to its
update, the other subtracts it, modulo 2**32: in the sum of *all* updates the masks cancel. Updates are fixed-point
numbers, so the cancelling is exact. When a member drops out after masking, its masks stay in the sum: the round is
then repeated without it (``hosts/roles/federate.py``), which costs a round and reveals nothing. Honest but curious
members and aggregator are assumed (Bonawitz et al., CCS 2017, without their secret sharing).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from hosts.learning.errors import LearningError
from hosts.learning.methods.updates import State

FRACTION_BITS = 20
MAX_MEMBERS = 256
Words = npt.NDArray[np.uint32]


def to_words(update: State, members: int) -> Words:
    """Write an update as fixed-point numbers, clipped so that a sum of ``members`` of them cannot overflow."""
    flat = np.concatenate([update[name].reshape(-1).numpy().astype(np.float64) for name in sorted(update)])
    limit = (2**31 - 1) / 2**FRACTION_BITS / members
    whole = np.rint(flat.clip(-limit, limit) * 2**FRACTION_BITS).astype(np.int64)
    words: Words = (whole & 0xFFFF_FFFF).astype(np.uint32)
    return words


def from_words(words: Words, like: State) -> State:
    """Read a sum of updates; ``LearningError`` when its length is not the model's."""
    if words.shape != (sum(t.numel() for t in like.values()),):
        raise LearningError(f"masked update of {words.shape} numbers: not of this model")
    flat = words.astype(np.int64)
    flat = np.where(flat >= 1 << 31, flat - (1 << 32), flat) / 2**FRACTION_BITS
    found: State = {}
    at = 0
    for name in sorted(like):
        size = like[name].numel()
        found[name] = torch.from_numpy(flat[at : at + size].copy()).to(like[name].dtype).reshape(like[name].shape)
        at += size
    return found


def add_up(masked: Sequence[Words]) -> Words:
    """Return the sum of masked updates, modulo 2**32."""
    total = np.zeros_like(masked[0])
    for words in masked:
        if words.shape != total.shape or words.dtype != np.uint32:
            raise LearningError("masked updates of different lengths cannot be added")
        total += words
    return total


class Masker:
    """One member's side. ``public`` goes to all others, through the aggregator."""

    def __init__(self, private: bytes | None = None) -> None:
        self._private = X25519PrivateKey.from_private_bytes(private) if private else X25519PrivateKey.generate()
        self.public = self._private.public_key().public_bytes_raw()

    def mask(self, words: Words, keys: Mapping[int, bytes], mine: int, context: bytes) -> Words:
        """Hide an update. ``keys``: public keys of all members by index, mine too; ``context``: the round."""
        if keys.get(mine) != self.public or not 2 <= len(keys) <= MAX_MEMBERS:
            raise LearningError("secure aggregation needs two members or more, and my own key among theirs")
        hidden = words.copy()
        for index, key in sorted(keys.items()):
            if index != mine:
                stream = _stream(self._secret(key, context), len(words))
                hidden += stream if mine < index else (0 - stream).astype(np.uint32)
        return hidden

    def _secret(self, key: bytes, context: bytes) -> bytes:
        try:
            shared = self._private.exchange(X25519PublicKey.from_public_bytes(key))
        except ValueError:
            raise LearningError("a member's public key is no X25519 key") from None
        return HKDF(hashes.SHA256(), 16, None, b"DA-ITN masks 1" + context).derive(shared)


def _stream(secret: bytes, count: int) -> Words:
    """Stretch a 16-byte secret, used once, to ``count`` numbers."""
    cipher = Cipher(algorithms.AES128(secret), modes.CTR(bytes(16))).encryptor()
    return np.frombuffer(cipher.update(bytes(4 * count)), dtype="<u4").astype(np.uint32)
