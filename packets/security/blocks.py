"""An object's blocks: a launch carries their hashes, signed, so bad bytes are found where they are, not at the end.

An object is cut into at most ``MAX_BLOCKS`` blocks of one size (a multiple of ``STEP_BYTES``) but the last.  Its digest
is the SHA-256 of their hashes end to end: a tree of two levels.  Where there is one block the digest is its hash, and
the launch carries no more.
"""

from __future__ import annotations

import hashlib
from typing import Any

from packets.options import HASH_BYTES, MAX_BLOCKS, Digest, DigestAlgorithm
from packets.wire import Buffer, Header

STEP_BYTES = 1 << 16


def block_bytes(total: int) -> int:
    """Return the size of the blocks of an object of so many bytes."""
    return max(-(-total // (MAX_BLOCKS * STEP_BYTES)), 1) * STEP_BYTES


def digest_of(payload: Buffer, *, in_blocks: bool = True) -> tuple[Digest, bytes | None]:
    """Return what a launch says of an object: its digest and, where it has several blocks, their hashes."""
    view, size = memoryview(payload).cast("B"), block_bytes(len(payload))
    if not in_blocks or len(view) <= size:
        return Digest.of(view), None
    hashes = b"".join(hashlib.sha256(view[at : at + size]).digest() for at in range(0, len(view), size))
    return Digest(hashlib.sha256(hashes).digest(), DigestAlgorithm.SHA256_TREE), hashes


def contradicts(launch: Header) -> bool:
    """Tell whether the block hashes of a launch are not those that its digest, or its size, speaks of."""
    tree = launch.digest is not None and launch.digest.algorithm is DigestAlgorithm.SHA256_TREE
    if launch.blocks is None or launch.digest is None or not tree:
        return tree or launch.blocks is not None
    count = -(-launch.total_length // block_bytes(launch.total_length))
    return len(launch.blocks) != count * HASH_BYTES or hashlib.sha256(launch.blocks).digest() != launch.digest.value


class Verifier:
    """Hashes an object from its front on, as its bytes come in, and compares block by block. ``at``: how far it is."""

    def __init__(self, launch: Header) -> None:
        self.total, self.at = launch.total_length, 0
        value = launch.digest.value if launch.digest is not None else b""
        hashes = launch.blocks or value
        self._expected = [hashes[at : at + HASH_BYTES] for at in range(0, len(hashes), HASH_BYTES)] or [b""]
        self._size = block_bytes(self.total) if launch.blocks else self.total
        self._blake = launch.digest is not None and launch.digest.algorithm is DigestAlgorithm.BLAKE2B_256
        self._right = 0
        self._hash = self._new()

    def _new(self) -> Any:
        return hashlib.blake2b(digest_size=HASH_BYTES) if self._blake else hashlib.sha256()

    @property
    def done(self) -> bool:
        """Whether every block was right."""
        return self._right == len(self._expected)

    def bounds(self, block: int) -> tuple[int, int]:
        """Return where a block begins and ends, bytes."""
        return block * self._size, min((block + 1) * self._size, self.total)

    def block_at(self, offset: int) -> int:
        """Return the block of which a byte is part."""
        return offset // self._size if self._size else 0

    def advance(self, data: memoryview, until: int) -> int | None:
        """Take in ``data`` (the whole object's room) up to ``until``; return a block that is not what was launched."""
        while not self.done:
            end = self.bounds(self._right)[1]
            stop = min(until, end)
            self._hash.update(data[self.at : stop])
            self.at = stop
            if stop < end:
                return None
            if self._hash.digest() != self._expected[self._right]:
                return self._right
            self._right += 1
            self._hash = self._new()
        return None

    def go_back(self, offset: int) -> None:
        """Forget what was found from a byte's block on: bytes there will come again."""
        self._right = self.block_at(offset)
        self.at, self._hash = self.bounds(self._right)[0], self._new()
