"""Deployed models that leave a terminal: a copy of one sent to another place, and the end of one that is passed by."""

from __future__ import annotations

from collections.abc import Callable

from hosts.inference.serving import Hosted
from hosts.terminal.terminal import Terminal
from packets.errors import DaitnError
from packets.messages import Ack, AnnounceObject, AnnounceReply, Copy, Message, Refused
from packets.transport import OutgoingObject
from packets.wire import PacketType

STOPS = 4


class Moving:
    """What the control centre has a terminal do with models that it serves; ``find``: the model that a label names."""

    def __init__(self, terminal: Terminal, find: Callable[[int], Hosted | None]) -> None:
        self.terminal, self._find = terminal, find

    def copy(self, word: Copy) -> Message:
        """Send a copy to another place; said at once, done in the background."""
        hosted = self._find(word.label)
        if hosted is None:
            return Refused(reason=f"{self.terminal.name} serves no model of label {word.label:#x}")
        if not self.terminal.submit(lambda: self._send(hosted, word)):
            return Refused(reason=f"{self.terminal.name} is full: no copy of model {word.label:#x} is sent")
        return Ack()

    def _send(self, hosted: Hosted, word: Copy) -> None:
        terminal, payload = self.terminal, hosted.model.payload
        message = AnnounceObject(
            name=terminal.name, kind="measure" if word.measure else "deploy", task=terminal.task.name,
            size_bytes=len(payload), target=word.to,
            for_object=hosted.for_object, accuracy=hosted.accuracy, variant=hosted.variant, way=hosted.model.way,
        )  # fmt: skip
        try:
            reply = terminal.dcc.ask(message, AnnounceReply)
            copy = OutgoingObject(
                object_id=reply.object_id, type=PacketType.MODEL_SHARD, payload=payload, owner=terminal.plan.address,
                visit_limit=STOPS,
            )  # fmt: skip
            terminal.launch(copy)
        except DaitnError as error:
            terminal.complain(f"copy of model {hosted.label:#x} from {terminal.name}: {error}")
