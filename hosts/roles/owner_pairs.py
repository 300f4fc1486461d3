"""A model owner's pairs: two models go to an MPVU together, which learns on its samples how they answer as one."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import msgspec

from hosts.control import Command
from hosts.errors import BadCommand
from hosts.inference.ways import bytes_to_fusion
from hosts.learning.ways.cascade import pair_to_bytes
from hosts.terminal.terminal import Terminal
from packets.messages import Ack, AnnounceObject, AnnounceReply, JobSpec, Message, Refused, Remeasured, Way
from packets.transport import OutgoingObject
from packets.wire import PacketType

CASCADE = Way(kind="switched", model="cheap", asks=["large"])
FUSION = Way(kind="multimodal", asks=["text", "vitals"])
FUSION_FILE = "multimodal.fusion"
STOPS = 4
Trained = Callable[[Command], tuple[JobSpec, bytes, dict[str, float]]]


class Pairs:
    """What this owner has had learned, and what it waits for. The owner itself never sees a test sample.

    ``trained``: returns what was asked of a model that is home, its bytes and its accuracies.
    """

    def __init__(self, terminal: Terminal, trained: Trained, launch: Callable[[OutgoingObject], None]) -> None:
        self.terminal, self._trained, self._launch = terminal, trained, launch
        self._sent: dict[int, Way] = {}
        self.commands: dict[str, Callable[[Command], Command]] = {"switch": self._switch, "fuse": self._fuse}

    def _switch(self, command: Command) -> Command:
        """Have an MPVU learn for a cascade: {"object_id": of the large model, "cheap": of the cheap one}."""
        return self._send(command, "cheap", CASCADE)

    def _fuse(self, command: Command) -> Command:
        """Have an MPVU learn a fusion: {"object_id": of the model of findings, "vitals": of that of vitals}."""
        return self._send(command, "vitals", FUSION)

    def _send(self, command: Command, model: str, way: Way) -> Command:
        terminal, job = self.terminal, command.get(model)
        own_spec, own, _ = self._trained({"object_id": command.get("object_id")})
        spec, beside, _ = self._trained({"object_id": job})
        if own_spec.model:
            raise BadCommand(f"object_id: it is that of a {own_spec.model} model; give that of the task's own")
        if spec.model != model or not isinstance(job, int):
            raise BadCommand(f"{model}: object {job} is no {model} model; train one with `model: {model}`")
        payload = pair_to_bytes(beside, own)
        message = AnnounceObject(
            name=terminal.name, kind="measure", task=terminal.task.name, size_bytes=len(payload), for_object=job,
            way=way,
        )  # fmt: skip
        object_id = terminal.dcc.ask(message, AnnounceReply).object_id
        self._sent[object_id] = way
        self._launch(OutgoingObject(
            object_id=object_id, type=PacketType.MODEL_SHARD, payload=payload, owner=terminal.plan.address,
            visit_limit=STOPS,
        ))  # fmt: skip
        return {"object_id": object_id}

    def learned(self, message: Remeasured) -> Message:
        """An MPVU has learned for a pair: say it, once; of what was not sent from here nothing is believed.

        A fusion is kept as a file, to be deployed. ``LearningError``: it is none of this task.
        """
        terminal, told, sent = self.terminal, message.way, self._sent.get(message.copy)
        if sent is None or msgspec.structs.replace(told, threshold=0.0, temperature=1.0) != sent:
            return Refused(reason=f"{terminal.name} sent no pair of models {message.copy:#x} to be learned for")
        file = {}
        if told.kind == "multimodal":
            bytes_to_fusion(message.fusion, len(terminal.task.labels))
            path = terminal.folder / f"{message.copy:x}" / FUSION_FILE
            path.parent.mkdir(parents=True, exist_ok=True)
            write(path, message.fusion)
            file = {"file": str(path)}
        del self._sent[message.copy]
        accuracy = {"broad": message.broad, **message.per_group}
        terminal.emit(
            "way.learned", object_id=message.object_id, copy=message.copy, node=terminal.name,
            way=msgspec.to_builtins(told), accuracy={k: round(v, 4) for k, v in accuracy.items()},
            samples=message.samples, **file,
        )  # fmt: skip
        return Ack()


def write(path: Path, content: bytes) -> None:
    """Replace a file whole: a reader never sees half of it."""
    partial = path.with_suffix(".partial")
    partial.write_bytes(content)
    os.replace(partial, path)
