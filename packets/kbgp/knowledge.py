"""What a K-AS tells other K-AS of itself: aggregates with bounds, nothing per node (``kbgp.md``, "Abstraction")."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal

import msgspec

MAX_KNOWLEDGE_BYTES = 16 << 10
MOST = 2**53
SIGNED = b"KBGP knowledge 1\0"

Kas = Annotated[int, msgspec.Meta(ge=1, le=255)]
Word = Annotated[str, msgspec.Meta(min_length=1, max_length=48)]
Count = Annotated[int, msgspec.Meta(ge=0, le=MOST)]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Amount = Annotated[float, msgspec.Meta(ge=0, le=MOST)]
Role = Literal["data", "compute", "mpvu", "mdfp", "model_owner", "query_owner", "host"]
Signature = Annotated[bytes, msgspec.Meta(max_length=64)]


class Bounds(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The truth lies between these two."""

    low: Amount
    high: Amount


class Data(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The data of all terminals together: samples, and the share of each group in them."""

    samples: Bounds
    shares: Annotated[dict[Word, Share], msgspec.Meta(max_length=128)]


class Deployed(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Deployed models of one task: how many, the best accuracy (``broad`` and per group), the least expected time."""

    models: Annotated[int, msgspec.Meta(ge=1, le=MOST)]
    best_accuracy: Annotated[dict[Word, Share], msgspec.Meta(max_length=128)]
    least_ms: Amount


class Knowledge(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One K-AS, abstracted. ``epoch_ms``: when its control centre began to speak; ``serial``: counts what it said.

    ``data`` is None where too few terminals stand behind it, ``compute`` (samples a second, all facilities) likewise.
    """

    kas: Kas
    epoch_ms: Count
    serial: Count
    terminals: dict[Role, Count] = {}
    data: Data | None = None
    compute: Bounds | None = None
    models: Annotated[dict[Word, Deployed], msgspec.Meta(max_length=64)] = {}

    @property
    def version(self) -> tuple[int, int]:
        """Which of two words of the same K-AS is the later one."""
        return self.epoch_ms, self.serial


def contradictions(told: Knowledge) -> Iterable[str]:
    """Yield what cannot be true of it: bounds the wrong way round, shares of more than the whole, models nowhere."""
    spans = [told.data.samples if told.data else None, told.compute]
    if any(span is not None and span.low > span.high for span in spans):
        yield "a lower bound above its upper bound"
    if told.data is not None and sum(told.data.shares.values()) > 1.01:
        yield "shares of more than the whole"
    if told.data is not None and not told.terminals.get("data"):
        yield "data without data nodes"
    if told.compute is not None and not any(told.terminals.values()):
        yield "compute without terminals"
    if told.models and not told.terminals.get("mdfp"):
        yield "models without a place that hosts them"


def text_to_sign(told: Knowledge) -> bytes:
    """Return what the control centre of the K-AS signs, and everybody verifies."""
    return SIGNED + msgspec.msgpack.encode(told)
