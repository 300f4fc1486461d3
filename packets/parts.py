"""A message larger than a packet travels in parts, as an object does in shards: numbered, of one transfer id.

Whoever repeats a request repeats all of its parts; whoever takes it has it once all are there, in whatever order.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar

import msgspec

from packets.errors import PacketError, TransportError
from packets.wire import SIGNED_BYTES, Flag, Header, payload_room

PART_MTU = 1280  # every path carries that (``transfer/pathmtu.py``): a message has no launch to find out by
MESSAGE_ROOM = payload_room(PART_MTU) - SIGNED_BYTES  # of one part, signed or not
MAX_PARTS = 40
MAX_MESSAGE_BYTES = MAX_PARTS * MESSAGE_ROOM
UNFINISHED, UNFINISHED_A_SOURCE = 128, 8  # messages on their way in at once

Carried = TypeVar("Carried")
Whole = tuple[bytes, list[Carried]]


def cut(header: Header, payload: bytes, room: int = MESSAGE_ROOM) -> Iterator[tuple[Header, bytes]]:
    """Yield the packets of a message, one where it fits; ``TransportError`` when it is over the declared bound."""
    if len(payload) <= room:
        yield header, payload
        return
    count = -(-len(payload) // room)
    if count > MAX_PARTS:
        raise TransportError(f"message of {len(payload)} bytes: at most {MAX_PARTS * room} go in {MAX_PARTS} parts")
    for index in range(count):
        at = index * room
        numbers = dict(shard_index=index, shard_count=count, offset=at, total_length=len(payload))
        yield msgspec.structs.replace(header, **numbers), payload[at : at + room]


class Unfinished(Generic[Carried]):
    """Messages of which some parts are here; bounded, a source's oldest goes first.

    ``carried``: what a caller wants back of each part, once the message is whole.
    """

    def __init__(self) -> None:
        self._held: OrderedDict[tuple[Hashable, Hashable], _Parts[Carried]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._held)

    def take(self, source: Hashable, header: Header, payload: bytes, carried: Carried) -> Whole[Carried] | None:
        """Take a packet of a message; return the whole message once it is here, ``PacketError`` where parts lie."""
        if header.shard_count <= 1:
            return payload, [carried]
        key = source, (header.type, header.flags & ~Flag.REPEATED, header.transfer_id)
        parts = self._held.get(key)
        if parts is None:
            parts = _Parts(header.shard_count, header.total_length)
        parts.put(header, payload, carried)
        if parts.whole:
            self._held.pop(key, None)
            return parts.join()
        self._held[key] = parts
        self._held.move_to_end(key)
        self._forget(source)
        return None

    def _forget(self, source: Hashable) -> None:
        own = [key for key in self._held if key[0] == source]
        if len(own) > UNFINISHED_A_SOURCE:
            del self._held[own[0]]
        elif len(self._held) > UNFINISHED:
            self._held.popitem(last=False)


class _Parts(Generic[Carried]):
    def __init__(self, count: int, total: int) -> None:
        if count > MAX_PARTS or total > MAX_MESSAGE_BYTES or total < count:
            raise PacketError("message", f"message of {total} bytes in {count} parts: at most {MAX_PARTS}")
        self.count, self.total = count, total
        self._at: dict[int, tuple[int, bytes, Carried]] = {}

    def put(self, header: Header, payload: bytes, carried: Carried) -> None:
        index = header.shard_index
        if (header.shard_count, header.total_length) != (self.count, self.total) or index >= self.count:
            raise PacketError("message", f"part {index} of {header.shard_count} is not of its message")
        if len(payload) > self.total:
            raise PacketError("message", f"part {index} of {len(payload)} bytes in a message of {self.total}")
        self._at[index] = header.offset, payload, carried

    @property
    def whole(self) -> bool:
        return len(self._at) == self.count

    def join(self) -> Whole[Carried]:
        joined = b""
        for index in range(self.count):
            at, part, _ = self._at[index]
            if at != len(joined):
                raise PacketError("message", f"part {index} lies at byte {at}, the one before ends at {len(joined)}")
            joined += part
        if len(joined) != self.total:
            raise PacketError("message", f"parts of {len(joined)} bytes in a message of {self.total}")
        return joined, [self._at[index][2] for index in range(self.count)]
