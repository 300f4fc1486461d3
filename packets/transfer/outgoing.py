"""Objects on their way out of an endpoint: each gets its turns, its answers are checked, its end is told."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable

import msgspec

from packets.errors import TransportError
from packets.events import Emit
from packets.labels import AI_PORT
from packets.security.checksums import TAG_BYTES
from packets.security.seal import mac_matches
from packets.transfer.assembly import Assembly
from packets.transfer.flight import Indices
from packets.transfer.guard import Guard
from packets.transfer.pathmtu import BASE_MTU, ShardSize
from packets.transfer.refusals import Counters, Refusals
from packets.transfer.sender import MAX_BATCH, Sending
from packets.transfer.udp import Peer, UdpSocket, now_us
from packets.transfers import OutgoingObject
from packets.wire import IP_UDP_BYTES, Flag, Header, PacketType, encode


class Outgoing:
    """Sendings by transfer id, driven from the I/O thread."""

    def __init__(
        self,
        socket: UdpSocket,
        guard: Guard | None,
        size: ShardSize,
        frame_bytes: int,
        counters: Counters,
        refusals: Refusals,
        emit: Emit,
    ) -> None:
        self.sendings: dict[int, Sending] = {}
        self._socket, self._guard, self._size = socket, guard, size
        self._counters, self._refusals, self._emit = counters, refusals, emit
        self._batch = bytearray(frame_bytes * MAX_BATCH)
        self._first = 0

    def put(self, sending: Sending) -> None:
        """Begin with one."""
        self.sendings[sending.transfer_id] = sending

    def wake_at(self, now: float) -> float:
        """Return when the first of them wants the processor."""
        return min((sending.wake_at(now) for sending in self.sendings.values()), default=float("inf"))

    def each_named(self, object_id: int, visit: int, do: Callable[[Sending], bool]) -> bool:
        """Do something with every sending of an object's visit; tell whether it did anything."""
        named = [s for s in self.sendings.values() if (s.object.object_id, s.object.visit) == (object_id, visit)]
        return any([do(sending) for sending in named])

    # --- out

    def advance_all(self, now: float) -> None:
        """Give every transfer its turn, each time beginning with another one: the kernel's buffer may not hold all."""
        order = list(self.sendings.values())
        self._first = (self._first + 1) % max(len(order), 1)
        for sending in order[self._first :] + order[: self._first]:
            self._advance(sending, now)

    def _advance(self, sending: Sending, now: float) -> None:
        """Send what one transfer may send now; forget it when it is over."""
        sending.check(now)
        if sending.handle.done:
            self._end(sending)
            return
        if sending.in_black_hole(now) and sending.shard_bytes > self._size.least:
            self._go_narrower(sending, now)
            return
        launch = sending.launch(now, now_us())
        if launch is not None:
            try:
                data = encode(launch) if self._guard is None else self._guard.launch(sending.object, launch)
            except TransportError as error:  # an object of somebody else without his word for it
                sending.handle.fail(error)
                return
            self._counters.left(1, len(data))
            self._socket.send(data, (sending.destination, AI_PORT))
        while (indices := sending.take(now)).size:
            left = self._send_shards(sending, indices)
            sending.sent(indices[:left], now)
            if left < len(indices):
                sending.put_back(indices[left:])
                break

    def _send_shards(self, sending: Sending, indices: Indices) -> int:
        """Send shards as one train; return how many left."""
        end, size = sending.write(self._batch, indices, now_us()), sending.frame_bytes
        with memoryview(self._batch) as view, view[:end] as frames:
            left = self._socket.send_batch(frames, size, (sending.destination, AI_PORT))
        self._counters.left(left, min(left * size, end))
        return left

    def _go_narrower(self, sending: Sending, now: float) -> None:
        """Launch an object again in smaller packets: full-sized ones do not get through."""
        self._size.narrow(now)
        del self.sendings[sending.transfer_id]
        self.put(sending.narrower(secrets.randbits(32), self._size.least, now))
        self._emit(
            "warning", object_id=sending.object.object_id,
            text=f"{sending.name}: its launch is answered, but no packet of {sending.frame_bytes + IP_UDP_BYTES} bytes "
            f"arrives: some port on the way has a smaller MTU; it goes on in packets of {BASE_MTU}",
        )  # fmt: skip

    def _end(self, sending: Sending) -> None:
        self._counters.objects_out += 1
        del self.sendings[sending.transfer_id]
        obj, handle = sending.object, sending.handle
        facts = dict(object_id=obj.object_id, visit=obj.visit, to=sending.destination)
        if handle.stats is not None:
            self._emit("object.sent", ok=True, **facts, **msgspec.structs.asdict(handle.stats))
        else:
            self._emit("object.sent", ok=False, **facts, bytes=0, reason=str(handle.error))

    # --- what comes back

    def take_answer(self, header: Header, payload: memoryview, raw: memoryview, peer: Peer) -> None:
        """Take an acknowledgement or an error about a transfer of ours."""
        sending = self.sendings[header.transfer_id]
        if sending.object.object_id != header.object_id:
            self._counters.ignored += 1
            return
        reason = self._doubt(sending, header, raw, peer)
        if reason is not None:
            self._refusals.of_header(reason, header, peer)
        elif header.type is PacketType.ACK:
            sending.on_ack(header, peer[0], time.monotonic(), now_us())
        else:
            sending.on_error(header, bytes(payload).decode(errors="replace"), time.monotonic())

    def _doubt(self, sending: Sending, header: Header, raw: memoryview, peer: Peer) -> str | None:
        """Return why an answer is not believed; take its sender's keys when it is the first to a launch."""
        if self._guard is None:
            return None
        if sending.answers_launch(header):
            found = self._guard.confirm(header, raw, peer)
            if isinstance(found, str):
                if found == "role":  # signed by who it says it is, but not whom the object is for
                    sending.handle.fail(TransportError(f"{sending.name}: {getattr(found, 'text', found)}"))
                return found
            sending.session = found
            return None
        if sending.session is not None and mac_matches(header, raw, sending.session.receive_key, TAG_BYTES):
            return None
        if header.type is PacketType.ERROR:
            return self._guard.check_request(header, raw, peer)
        return None if sending.answered(header) else "mac"


def remainder(assembly: Assembly, to: str, transfer_id: int, now: float) -> Sending:
    """Return the sending, to an address, of what an unfinished assembly holds."""
    launch = assembly.launch
    obj = OutgoingObject(
        object_id=launch.object_id, type=launch.type, payload=assembly.data.data, owner=launch.owner,
        visit=launch.visit, visit_limit=launch.visit_limit, requirements=launch.requirements,
        traffic_class=launch.traffic_class, flags=(launch.flags | Flag.HANDOVER) & ~Flag.LAUNCH, to=to,
        mandate=launch.mandate,
    )  # fmt: skip
    template = msgspec.structs.replace(launch, authentication=None, key_share=None, sent_at_ms=None)
    return Sending(obj, transfer_id, assembly.stride, now, template=template, only=assembly.held)
