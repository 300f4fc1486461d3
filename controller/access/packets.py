"""The walk of a packet that a switch hands up: read once, admitted or refused, then to the room that it concerns."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from controller.access.authenticity import Authenticity
from controller.access.calls import Calls
from controller.access.requests import Terminals, refusal
from controller.errors import ControllerError, FrameError, SteeringError
from controller.runtime.loop import Worker
from controller.services import Services
from controller.southbound import arrivals
from controller.southbound.arrivals import Notice
from controller.southbound.discovery import Discovery
from controller.southbound.frames import Datagram
from controller.southbound.lldp import Lldp
from controller.southbound.openflow import PacketIn
from controller.southbound.rate_limit import Limiter
from controller.topology.errors import TopologyError
from packets.errors import PacketError
from packets.labels import AI_PORT, DCC_LABEL, address_label, is_class_label
from packets.messages import encode_message
from packets.parts import Unfinished
from packets.wire import SHARD_TYPES, Flag, Header, PacketType, decode
from topologies.plan import HostPlan


@dataclass(frozen=True, slots=True)
class AiPacket:
    """An AI packet that a terminal put on the wire; ``packets`` are what switches release once they have their rules.

    ``payload``: the whole message where it came in parts, which are several packets. ``label``: what it is addressed to
    (28 bits); ``port``: the UDP port that awaits the answer.
    """

    packets: list[PacketIn]
    host: HostPlan
    header: Header
    payload: bytes = field(repr=False)
    label: int
    port: int


Steer = Callable[[AiPacket], Awaitable[None]]


class Packets:
    """Looks at every packet-in of a domain. ``on_object``, ``on_query``: who steers what; ``on_closed``: whose host
    says that it has no agent any more.
    """

    def __init__(
        self,
        services: Services,
        worker: Worker,
        authenticity: Authenticity,
        limiter: Limiter,
        discovery: Discovery,
        calls: Calls,
        requests: Terminals,
    ) -> None:
        self.services, self.worker, self.authenticity, self.limiter = services, worker, authenticity, limiter
        self.discovery, self.calls, self.requests = discovery, calls, requests
        self.on_object: Steer
        self.on_query: Steer
        self.on_closed: Callable[[str], None]
        self._unfinished: Unfinished[PacketIn] = Unfinished()

    def packet_in(self, packet: PacketIn) -> None:
        """A switch handed a packet up: find out what it is; whatever is wrong with it is counted and told, no more."""
        try:
            self._arrived(packet)
        except (FrameError, PacketError, ValueError, KeyError) as error:
            reason = error.reason if isinstance(error, PacketError) else "frame"
            text = str(error)[:400]
            self.services.emit("packet.refused", reason=reason, text=text, switch=packet.dpid, port=packet.in_port)

    def _arrived(self, packet: PacketIn) -> None:
        host = self.services.location.host_behind(packet.dpid, packet.in_port)
        if host is not None and not self.limiter.allow(packet.dpid, packet.in_port):
            return
        match arrivals.read(packet):
            case Lldp() as lldp:
                self.discovery.heard(packet.dpid, packet.in_port, lldp)
            case _ if host is None:
                raise FrameError(f"switch {packet.dpid} port {packet.in_port} has no declared terminal")
            case Notice() as notice:
                self._notice(notice, host)
            case Datagram() as datagram:
                self._ai_packet(packet, datagram, host)

    def _notice(self, notice: Notice, host: HostPlan) -> None:
        """A host's kernel says that nobody listens: at its AI port that means that its agent has ended."""
        if notice.source != host.address:
            self.authenticity.spoofed(host, notice.source)
        elif notice.closed == (host.address, AI_PORT):
            self.on_closed(host.name)

    def _ai_packet(self, packet: PacketIn, datagram: Datagram, host: HostPlan) -> None:
        if datagram.source != host.address:
            raise FrameError(f"{host.name} sent with the address of another, {datagram.source}")
        header, payload = decode(datagram.payload)
        label = address_label(datagram.target)
        if not self.authenticity.passes(host, header, datagram.payload, label):
            return
        if self.services.location.first_seen(host.name):
            self.services.emit("host.confirmed", name=host.name, kas=host.kas, switch=host.switch, port=host.port)
        message, packets = bytes(payload), [packet]
        if header.type not in SHARD_TYPES:
            whole = self._unfinished.take(host.name, header, message, packet)
            if whole is None:
                return
            message, packets = whole
        ai_packet = AiPacket(packets, host, header, message, label, datagram.source_port)
        if label == DCC_LABEL:
            self._to_us(ai_packet)
        else:
            self.services.emit("packet.in", kas=host.kas, switch=host.switch, label=label, node=host.name)
            self.worker.spawn(self._steer(ai_packet), f"steer for {host.name}")

    def _to_us(self, ai: AiPacket) -> None:
        if ai.header.flags & Flag.REPLY:
            self.calls.answered(ai.host, ai.header, ai.payload)
        elif ai.header.type is PacketType.TELEMETRY:
            try:
                size_bytes = sum(len(packet.data) for packet in ai.packets)
                self.requests.telemetry(ai.host, ai.header, ai.payload, ai.port, size_bytes)
            except Exception as error:
                self.worker.report(error, f"report of {ai.host.name}")
        else:
            work = self.requests.request(ai.host, ai.header, ai.payload, ai.port)
            self.worker.spawn(work, f"request of {ai.host.name}")

    async def _steer(self, ai: AiPacket) -> None:
        try:
            if is_class_label(ai.label):
                await self.on_query(ai)
            elif ai.header.type in SHARD_TYPES and ai.header.label == ai.label:
                await self.on_object(ai)
            else:
                kind = ai.header.type.name
                raise SteeringError(f"a packet of type {kind} with label {ai.label} is no object of ours")
        except (ControllerError, TopologyError) as error:
            self.authenticity.refuse(str(error), ai.host, ai.header)
            if ai.header.type is PacketType.QUERY:
                self._refuse_query(ai, error)

    def _refuse_query(self, ai: AiPacket, error: Exception) -> None:
        reply = Header(
            type=PacketType.RESPONSE,
            flags=Flag.REPLY,
            object_id=ai.header.object_id,
            transfer_id=ai.header.transfer_id,
        )
        self.services.communication.answer(ai.host, reply, encode_message(refusal(error)), target_port=ai.port)
