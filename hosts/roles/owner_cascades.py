"""A model owner's cascades: both models go to an MPVU, which says from which confidence on the cheap one answers."""

from __future__ import annotations

import msgspec

from hosts.learning.ways.cascade import pair_to_bytes
from hosts.terminal.terminal import Terminal
from packets.messages import Ack, AnnounceObject, AnnounceReply, Message, Refused, Remeasured, Way
from packets.transport import OutgoingObject
from packets.wire import PacketType

LARGE = "large"  # the variant that the cheap model, `switched`, asks
STOPS = 4


class Cascades:
    """What this owner has had learned, and what it waits for. The owner itself never sees a test sample."""

    def __init__(self, terminal: Terminal) -> None:
        self.terminal = terminal
        self._sent: dict[int, Way] = {}

    def send(self, job: int, cheap: bytes, large: bytes) -> OutgoingObject:
        """Announce the models of a cascade, whose cheap one is of ``job``; return what to launch."""
        terminal, payload = self.terminal, pair_to_bytes(cheap, large)
        way = Way(kind="switched", model="cheap", asks=[LARGE])
        message = AnnounceObject(
            name=terminal.name, kind="measure", task=terminal.task.name, size_bytes=len(payload), for_object=job,
            way=way,
        )  # fmt: skip
        object_id = terminal.dcc.ask(message, AnnounceReply).object_id
        self._sent[object_id] = way
        return OutgoingObject(
            object_id=object_id, type=PacketType.MODEL_SHARD, payload=payload, owner=terminal.plan.address,
            visit_limit=STOPS,
        )  # fmt: skip

    def learned(self, message: Remeasured) -> Message:
        """An MPVU has learned for a cascade: say it, once; of what was not sent from here nothing is believed."""
        told, sent = message.way, self._sent.get(message.copy)
        if sent is None or msgspec.structs.replace(told, threshold=0.0, temperature=1.0) != sent:
            return Refused(reason=f"{self.terminal.name} sent no cascade {message.copy:#x} to be learned for")
        del self._sent[message.copy]
        accuracy = {"broad": message.broad, **message.per_group}
        self.terminal.emit(
            "way.learned", object_id=message.object_id, copy=message.copy, node=self.terminal.name,
            way=msgspec.to_builtins(told), accuracy={k: round(v, 4) for k, v in accuracy.items()},
            samples=message.samples,
        )  # fmt: skip
        return Ack()
