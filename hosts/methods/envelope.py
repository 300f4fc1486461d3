"""What travels between places that train one model together: a small header in msgpack, then the bytes it is about.

Four bytes of length, the header, the body. The body is an encoded model or update (``learning.compress``), samples, a
masked sum's words, or one batch's tensors; its own reader checks it. Nothing here trusts the sender: a header that is
too long, unknown or ill-typed is ``LearningError``.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from hosts.learning.errors import LearningError
from hosts.learning.spec import TrainSettings

MAX_HEADER = 1 << 16
MAX_MEMBERS = 256
Kind = Literal[
    "train", "update", "key", "my key", "data", "samples", "gossip", "mix", "mixed", "split", "ready", "acts", "grads",
    "lower", "problem",
]  # fmt: skip
Index = Annotated[int, msgspec.Meta(ge=0, lt=MAX_MEMBERS)]
Count = Annotated[int, msgspec.Meta(ge=0, lt=1 << 32)]
Place = Annotated[str, msgspec.Meta(max_length=80)]


class Envelope(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``job``: the travelling model's object; ``member``: whose piece this is (the asked, or the answering one).

    ``reply``: place of the one that asks, to which the answer goes; ``peers``: places of all members, by index
    (gossip); ``keys``: public keys of all members, by index (masks); ``weight``: a member's share of all samples;
    ``own``: by the method of one's own that the run was given;
    ``straight``: identity under which pieces may go straight to an address from now on; ``samples``, ``loss``,
    ``seconds``: what an answer came of; ``problem``: why there is none.
    """

    job: int
    kind: Kind
    number: Count
    member: Index = 0
    reply: Place = ""
    task: Annotated[str, msgspec.Meta(max_length=32)] = ""
    rounds: Annotated[int, msgspec.Meta(ge=0, le=1000)] = 0
    peers: Annotated[list[Place], msgspec.Meta(max_length=MAX_MEMBERS)] = []
    keys: Annotated[list[bytes], msgspec.Meta(max_length=MAX_MEMBERS)] = []
    weight: Annotated[float, msgspec.Meta(ge=0.0, le=1.0)] = 1.0
    settings: TrainSettings = TrainSettings()
    compression: Annotated[str, msgspec.Meta(max_length=16)] = "none"
    secure: bool = False
    own: bool = False
    straight: Annotated[int, msgspec.Meta(ge=0)] = 0
    cut: Annotated[int, msgspec.Meta(ge=0, le=64)] = 0
    samples: Count = 0
    loss: float = 0.0
    seconds: float = 0.0
    problem: Annotated[str, msgspec.Meta(max_length=400)] = ""


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Envelope)


def pack(envelope: Envelope, body: bytes = b"") -> bytes:
    """Return the bytes of an envelope with its body."""
    header = _encoder.encode(envelope)
    return len(header).to_bytes(4, "big") + header + body


def unpack(data: bytes | bytearray | memoryview) -> tuple[Envelope, bytes]:
    """Return (envelope, body); ``LearningError`` when the bytes are no envelope."""
    view = memoryview(data)
    length = int.from_bytes(view[:4], "big")
    if len(view) < 4 or length > min(MAX_HEADER, len(view) - 4):
        raise LearningError(f"exchange of {len(view)} bytes is not whole")
    try:
        return _decoder.decode(view[4 : 4 + length]), bytes(view[4 + length :])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as problem:
        raise LearningError(f"exchange without a header of ours: {str(problem)[:120]}") from None
