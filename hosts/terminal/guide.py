"""Who says what an object does at a stop and where it goes then: the DCC, the object itself (``hosts.autonomy``), or
who holds it in a distributed K-AS (``hosts.gossip.holding``).
"""

from __future__ import annotations

from typing import Protocol

from hosts.terminal.dcc_line import PATIENT
from hosts.terminal.terminal import Terminal
from packets.messages import Ack, Order, OrderRequest, Returned, Verdict, VerdictReply, VisitDone
from packets.transport import OutgoingObject, ReceivedObject


class Guide(Protocol):
    """What a role asks and tells, whoever steers the object in its hands."""

    def take(self, obj: ReceivedObject) -> tuple[ReceivedObject, Order]:
        """Return what is in the object that came in, and what is to be done with it."""
        ...

    def done(self, message: VisitDone) -> None:
        """Hear what came of a training visit, or why a stop came to nothing."""
        ...

    def judge(self, message: Verdict) -> VerdictReply:
        """Say whether what was measured is kept."""
        ...

    def returned(self, message: Returned) -> None:
        """Hear that the owner has its model back."""
        ...

    def go_on(self, onward: OutgoingObject) -> None:
        """Launch the object for its next stop; ``LaunchFailed``."""
        ...


class ByDcc:
    """The DCC orders each stop, hears what came of it, and steers the object by its label."""

    def __init__(self, terminal: Terminal) -> None:
        self.terminal = terminal

    def take(self, obj: ReceivedObject) -> tuple[ReceivedObject, Order]:
        """Ask what to do with an object."""
        question = OrderRequest(name=self.terminal.name, object_id=obj.object_id, visit=obj.visit)
        return obj, self.terminal.dcc.ask(question, Order, object_id=obj.object_id)

    def done(self, message: VisitDone) -> None:
        """Report a visit."""
        self.terminal.dcc.ask(message, Ack, object_id=message.object_id, attempts=PATIENT)

    def judge(self, message: Verdict) -> VerdictReply:
        """Report a measurement, ask for the verdict."""
        return self.terminal.dcc.ask(message, VerdictReply, object_id=message.object_id, attempts=PATIENT)

    def returned(self, message: Returned) -> None:
        """Report that a model is home."""
        self.terminal.dcc.ask(message, Ack, object_id=message.object_id, attempts=PATIENT)

    def go_on(self, onward: OutgoingObject) -> None:
        """Hand the object to the network, which leads its label."""
        self.terminal.launch(onward)
