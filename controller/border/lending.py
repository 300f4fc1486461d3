"""An engine that one K-AS lends to another (non-standalone, paper, Fig. 3): a question as the engine gets it, and its
answer, both in the types of the engine's contract (``controller.plugins.contracts``). Of the messages of
``controller.border.messages``, beside which they stand.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from packets.kbgp.knowledge import Kas

MAX_QUESTION_BYTES = 960 << 10  # with its envelope below what the border protocol relays
MAX_ANSWER_BYTES = 256 << 10
Word = Annotated[str, msgspec.Meta(min_length=1, max_length=16)]


class AskEngine(msgspec.Struct, frozen=True, kw_only=True, tag_field="b", tag="engine?"):
    """Decide this with your engine, I have none. Answered by ``Lent``. ``arguments``: msgpack, as of the contract."""

    kas: Kas
    from_kas: Kas
    engine: Word
    arguments: Annotated[bytes, msgspec.Meta(max_length=MAX_QUESTION_BYTES)]


class Lent(msgspec.Struct, frozen=True, kw_only=True, tag_field="b", tag="engine="):
    """The engine's answer in msgpack; ``none``: its own word that there is none. ``own``: it is not the default."""

    answer: Annotated[bytes, msgspec.Meta(max_length=MAX_ANSWER_BYTES)] = b""
    none: Annotated[str, msgspec.Meta(max_length=400)] = ""
    took_ms: Annotated[float, msgspec.Meta(ge=0.0, le=1e9)] = 0.0
    own: bool = False
