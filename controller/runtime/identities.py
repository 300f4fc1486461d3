"""Identities of AI objects."""

from __future__ import annotations

import itertools
import random

from packets.labels import MAX_SEQUENCE, SEQUENCE_BITS, make_object_id


class Identities:
    """Gives out object identities of the K-AS of this domain.

    Never repeatable, whatever the seed: a DCC that starts again must not name new objects like those of its last life,
    whose rules other K-AS may still hold and whose bytes terminals remember.
    """

    def __init__(self) -> None:
        self._random = random.SystemRandom()
        self._count = itertools.count(self._random.getrandbits(SEQUENCE_BITS))

    def new(self, kas: int) -> int:
        """Return the next identity (64 bits) of an object whose home is a K-AS."""
        return make_object_id(kas, next(self._count) & MAX_SEQUENCE, self._random.getrandbits(36))
