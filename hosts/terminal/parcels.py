"""Parcels: any number of bytes, sent into the network to the nearest terminal of a role; what people measure it with.

{"op": "send", "bytes": 67108864, "role": "data"}   at a terminal's control socket
"""

from __future__ import annotations

import hashlib
import random

from hosts.control import Command
from hosts.errors import BadCommand
from hosts.terminal.terminal import Terminal
from packets.errors import DaitnError
from packets.messages import AnnounceObject, AnnounceReply
from packets.transport import OutgoingObject, ReceivedObject
from packets.wire import PacketType

MAX_PARCEL_BYTES = 256 << 20


def send_parcel(terminal: Terminal, command: Command) -> Command:
    """Announce a parcel and launch it; returns its identity and SHA-256 at once."""
    size, role = command.get("bytes", 1 << 20), str(command.get("role", "compute"))
    if not isinstance(size, int) or not 0 < size <= MAX_PARCEL_BYTES:
        raise BadCommand(f"bytes: {size!r}; give a number from 1 to {MAX_PARCEL_BYTES}")
    message = AnnounceObject(name=terminal.name, kind="parcel", task=role, size_bytes=size)
    reply = terminal.dcc.ask(message, AnnounceReply)
    payload = random.Random(f"{terminal.seed}/{reply.object_id}").randbytes(size)
    obj = OutgoingObject(
        object_id=reply.object_id, type=PacketType.DATA_SHARD, payload=payload, owner=terminal.plan.address,
        visit_limit=1,
    )  # fmt: skip
    if not terminal.submit(lambda: _launch(terminal, obj)):
        raise BadCommand(f"{terminal.name} is full; wait until what it sends has arrived")
    return {"object_id": reply.object_id, "sha256": hashlib.sha256(payload).hexdigest()}


def _launch(terminal: Terminal, obj: OutgoingObject) -> None:
    try:
        terminal.launch(obj)
    except DaitnError as error:
        terminal.complain(str(error), object_id=obj.object_id)


def keep_parcel(terminal: Terminal, obj: ReceivedObject) -> None:
    """A parcel has arrived: say what its bytes hash to, and let it go."""
    digest = hashlib.sha256(obj.payload).hexdigest()
    terminal.emit("parcel.kept", object_id=obj.object_id, node=terminal.name, bytes=len(obj.payload), sha256=digest)
