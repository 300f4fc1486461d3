"""What a border speaker's core wants done, in the order that it says so."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from controller.border.kbgp.relay import Question
from controller.border.kbgp.rib import Route
from controller.border.kbgp.session import Connection, Session
from packets.kbgp.messages import Message, Reply


@dataclass(frozen=True)
class Dial:
    """Connect to a neighbour."""

    session: Session


@dataclass(frozen=True)
class Send:
    """Send a message on a connection."""

    connection: Connection
    message: Message


@dataclass(frozen=True)
class Close:
    """Send what is waiting, then end a connection."""

    connection: Connection


@dataclass(frozen=True)
class Tell:
    """Tell our own control centre: a question to answer, or an answer."""

    message: Question | Reply


@dataclass(frozen=True)
class Changed:
    """The chosen ways have changed (None: that K-AS is gone)."""

    routes: dict[int, Route | None]


@dataclass(frozen=True)
class Say:
    """Emit an event."""

    kind: str
    data: dict[str, Any]


Effect = Dial | Send | Close | Tell | Changed | Say
