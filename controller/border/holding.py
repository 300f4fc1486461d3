"""What the control centre of a distributed K-AS and the home of an object say to each other, so that who holds it says
where it goes. Of the messages of ``controller.border.messages``, beside which they stand.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from controller.values.distributed import Brief
from packets.kbgp.knowledge import Kas


class AskBriefing(msgspec.Struct, frozen=True, kw_only=True, tag_field="b", tag="brief?"):
    """What must the holder know to say where its object goes on this visit? Answered by ``Briefing``.

    ``owner``: the address that asks, on the first visit ('': on another, its control centre has seen that it holds it).
    """

    kas: Kas
    object_id: int
    visit: int
    holder_kas: Kas
    owner: Annotated[str, msgspec.Meta(max_length=32)] = ""


class Briefing(msgspec.Struct, frozen=True, kw_only=True, tag_field="b", tag="brief="):
    """What the holder needs (None: it is the home's to say); also the answer to a next stop that the holder is to say,
    with ``why`` what it proposed cannot be.
    """

    brief: Brief | None = None
    why: Annotated[str, msgspec.Meta(max_length=400)] = ""
