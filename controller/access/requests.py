"""The terminals' line to their DCC: every control message, checked against who sent it, answered once."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable

import msgspec

from controller.access.gathering import Gathering
from controller.access.places import Places
from controller.border.messages import Forward, Forwarded
from controller.errors import ControllerError, SteeringError
from controller.runtime.bounded import Recent
from controller.services import Kit
from controller.steering.announced import Objects
from controller.tools.location import Arrival
from controller.topology.errors import TopologyError
from controller.training.outcomes import JobMessage
from controller.training.submission import Training, refusal
from packets.errors import DaitnError
from packets.labels import home_kas
from packets.messages import (
    Ack,
    AnnounceObject,
    AnyMessage,
    Change,
    Inquire,
    Leave,
    LogRequest,
    Message,
    Order,
    OrderRequest,
    Refused,
    Register,
    Report,
    Returned,
    Submit,
    Verdict,
    VisitDone,
    decode_message,
    encode_message,
)
from packets.wire import Flag, Header, encode
from topologies.plan import HostPlan

ANSWERS_KEPT = 4096
UNDER_WAY = ("train", "verify", "confirm")
ABOUT_A_VISIT = (OrderRequest, VisitDone, Verdict)
JOURNEY_ENDS = ("keep_test_sample", "use_data", "deploy", "keep", "home")
ABOUT_A_JOB = (*ABOUT_A_VISIT, Returned, Inquire, LogRequest)


class Terminals:
    """Answers control messages. A repeated request gets the same answer again, and is handled once."""

    def __init__(self, kit: Kit, training: Training, objects: Objects, places: Places, gathering: Gathering) -> None:
        self.kit, self.training, self.objects, self.places = kit, training, objects, places
        self.gathering = gathering
        self.on_trained: Callable[[int, int, str], None] = lambda object_id, visit, data_node: None
        self._done: Recent[tuple[int, int], bool] = Recent()
        self.on_leave: Callable[[str, str], Awaitable[None]] = _nobody_concerned
        self._answers: OrderedDict[tuple[str, int], bytes | None] = OrderedDict()

    def telemetry(self, host: HostPlan, header: Header, payload: bytes, port: int, size_bytes: int) -> None:
        """Take a registration or a report, now, while its packet is in hand: the map is as fresh as this is short."""
        key = host.name, header.transfer_id
        if key not in self._answers:
            self._remember(key, _reply(header, self._hear(host, payload, size_bytes)))
        ready = self._answers[key]
        if ready is not None:
            self.kit.communication.answer(host, ready, target_port=port)

    def _hear(self, host: HostPlan, payload: bytes, size_bytes: int) -> Message:
        try:
            message = decode_message(payload)
            self._own_name(host, message)
            match message:
                case Report():
                    return self._report(host, message, size_bytes)
                case Register():
                    return self._register(host, message, size_bytes)
            raise SteeringError(f"{type(message).__name__} is no telemetry")
        except (msgspec.DecodeError, ControllerError, TopologyError, DaitnError) as error:
            return self._refuse(host, error)

    async def request(self, host: HostPlan, header: Header, payload: bytes, port: int) -> None:
        """Handle one request packet of a terminal and put the answer out of its port."""
        key = host.name, header.transfer_id
        if key not in self._answers:
            self._remember(key, None)
            try:
                answer = await self._answer(host, payload)
            except BaseException:
                del self._answers[key]
                raise
            self._remember(key, _reply(header, answer))
        ready = self._answers[key]
        if ready is not None:
            self.kit.communication.answer(host, ready, target_port=port)

    def _remember(self, key: tuple[str, int], answer: bytes | None) -> None:
        self._answers[key] = answer
        while len(self._answers) > ANSWERS_KEPT:
            self._answers.popitem(last=False)

    async def _answer(self, host: HostPlan, payload: bytes) -> Message:
        try:
            return await self._dispatch(host, decode_message(payload), len(payload))
        except (msgspec.DecodeError, ControllerError, TopologyError, DaitnError) as error:
            return self._refuse(host, error)

    def _refuse(self, host: HostPlan, error: Exception) -> Refused:
        if isinstance(error, msgspec.DecodeError):
            self.kit.emit("packet.refused", reason="message", node=host.name, detail=str(error)[:200])
            return Refused(reason=f"no message of ours: {error}"[:400])
        self.kit.emit("request.refused", reason=str(error)[:400], node=host.name)
        return refusal(error)

    @staticmethod
    def _own_name(host: HostPlan, message: AnyMessage) -> None:
        named = getattr(message, "name", None)
        if named != host.name:
            raise SteeringError(f"{host.name} may not speak for {named}")

    async def _dispatch(self, host: HostPlan, message: AnyMessage, size_bytes: int) -> Message:
        self._own_name(host, message)
        match message:
            case Register():
                return self._register(host, message, size_bytes)
            case Report():
                return self._report(host, message, size_bytes)
            case Leave():
                return await self._leave(host, message)
            case Change():
                return await self.training.change(host, message)
            case Submit():
                return await self.training.submit(host, message)
            case AnnounceObject():
                return await self.objects.announce(host, message)
            case OrderRequest() | VisitDone() | Verdict() | Returned() | Inquire() | LogRequest():
                return await self._about_object(host, message)
        raise SteeringError(f"a DCC takes no {type(message).__name__}")

    def _register(self, host: HostPlan, message: Register, size_bytes: int) -> Message:
        if message.role != host.role:
            raise SteeringError(f"{host.name} is declared as {host.role}, not {message.role}")
        self.gathering.joined(host, message.attributes, size_bytes)
        return Ack()

    def _report(self, host: HostPlan, message: Report, size_bytes: int) -> Message:
        if host.name not in self.kit.krrm:
            raise SteeringError(f"{host.name} is not registered (any more); register again")
        self.gathering.reported(host, message, size_bytes)
        return Ack()

    async def _leave(self, host: HostPlan, message: Leave) -> Message:
        """A terminal withdraws: not offered any more, what is on its way to it goes elsewhere, then off the map."""
        if host.name not in self.kit.krrm:
            return Ack()
        self.gathering.noted(host.name, {"reachable": False})
        busy = [a for a in self.kit.location.at(host.name) if a.action in UNDER_WAY and not self._concluded(a)]
        if busy and not message.force:
            first = busy[0]
            raise SteeringError(
                f"object {first.object_id:#x} is at {host.name}, or on its way; finish visit {first.visit}"
            )
        kind = "terminal.withdrawn" if message.stay else "terminal.left"
        if not message.stay:
            self.gathering.gone(host.name)
        self.kit.emit(kind, name=host.name, kas=host.kas, reason=message.reason, objects=len(busy))
        await self.on_leave(host.name, message.reason or "withdrawn")
        return Ack()

    def _concluded(self, arrival: Arrival) -> bool:
        """Tell whether an object's visit ended and it moved on (or its job is over): no reason for its host to stay."""
        return (arrival.object_id, arrival.visit) in self._done

    # --- messages on objects

    async def _about_object(self, host: HostPlan, message: JobMessage) -> Message:
        arrival = self._arrival(host, message) if isinstance(message, ABOUT_A_VISIT) else None
        nameless = msgspec.structs.replace(message, name="-")
        if isinstance(message, VisitDone):
            nameless = msgspec.structs.replace(nameless, data_node="-")
        home = home_kas(message.object_id)
        forward = Forward(kas=home, from_kas=host.kas, object_id=message.object_id, message=nameless)
        reply = await self.kit.must(forward)
        if not isinstance(reply, Forwarded):
            raise SteeringError(f"K-AS {home} answered {type(reply).__name__} to a message on an object")
        if arrival is not None:
            self._note(arrival, message)
            if isinstance(reply.message, Order):
                if reply.message.action in JOURNEY_ENDS:
                    self.kit.location.done(arrival)
                return self._local_order(arrival, reply.message)
        return reply.message

    def _arrival(self, host: HostPlan, message: JobMessage) -> Arrival:
        arrival = self.kit.location.arrival(message.object_id)
        visit = getattr(message, "visit", -1)
        if arrival is None or (arrival.node, arrival.visit) != (host.name, visit):
            raise SteeringError(f"no object {message.object_id} was steered to {host.name} for visit {visit}")
        return arrival

    def _local_order(self, arrival: Arrival, order: Order) -> Order:
        """Fill in what only this DCC knows: whose data is meant, and where it is."""
        if order.action != "train":
            return order
        data = self.kit.domain.hosts[arrival.data_node or arrival.node]
        return msgspec.structs.replace(order, data_node=data.name, data_address=data.address)

    def _note(self, arrival: Arrival, message: JobMessage) -> None:
        if isinstance(message, VisitDone | Verdict):
            self._done[message.object_id, message.visit] = True
            if isinstance(message, VisitDone) and message.samples:
                self.on_trained(message.object_id, message.visit, arrival.data_node)
            self.kit.store.visit(
                message.object_id, message.visit, arrival.kas, arrival.action, arrival.node, arrival.data_node, message
            )

    async def forwarded(self, forward: Forward) -> Forwarded:
        """Handle a message that another K-AS's DCC passes on to us, the home of its object."""
        message = forward.message
        if isinstance(message, OrderRequest) and message.object_id in self.objects.announced:
            return Forwarded(message=self.objects.order(message))
        if not isinstance(message, ABOUT_A_JOB):
            raise SteeringError(f"{type(message).__name__} is not for the home of an object")
        evidence = self.training.reports.evidence(message) if isinstance(message, Verdict) else []
        answer = await self.training.reports.handle(message)
        for item in evidence:
            try:
                await self.kit.must(item)
            except ControllerError as error:
                self.kit.emit("warning", text=f"no evidence for K-AS {item.kas}: {error}")
        return Forwarded(message=answer)


async def _nobody_concerned(name: str, reason: str) -> None:
    """What a leave means where nobody steers."""


def _reply(header: Header, answer: Message) -> bytes:
    """Return the packet that answers a request."""
    reply = Header(
        type=header.type,
        flags=Flag.REPLY,
        object_id=header.object_id,
        transfer_id=header.transfer_id,
        visit=header.visit,
    )
    return encode(reply, encode_message(answer))
