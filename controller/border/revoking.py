"""What a control centre says of the terminals of its K-AS that are revoked, signed, so that nobody revokes another's.
Of the messages of ``controller.border.messages``, beside which it stands.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from packets.calls import MAX_REVOKED
from packets.kbgp.knowledge import Kas
from packets.terms import Name

Names = Annotated[list[Name], msgspec.Meta(max_length=MAX_REVOKED)]
CONTEXT = b"DA-ITN revocations 1"


class Revocations(msgspec.Struct, frozen=True, kw_only=True, tag_field="b", tag="revoked"):
    """All terminals of ``from_kas`` that are revoked; of a later ``epoch`` (milliseconds since 1970) counts alone."""

    kas: Kas
    from_kas: Kas
    epoch: Annotated[int, msgspec.Meta(ge=0, lt=1 << 53)]
    names: Names
    signature: Annotated[bytes, msgspec.Meta(max_length=64)] = b""

    def text(self) -> bytes:
        """Return what the control centre of ``from_kas`` signs."""
        return CONTEXT + msgspec.json.encode([self.from_kas, self.epoch, self.names])
