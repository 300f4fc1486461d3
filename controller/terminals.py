"""The terminals' line to their DCC: every control message, checked against who sent it, answered once."""

from __future__ import annotations

from collections import OrderedDict

import msgspec

from controller.errors import ControllerError, SteeringError
from controller.kit import Kit
from controller.objects import Objects
from controller.places import Places
from controller.protocol import Forward, Forwarded
from controller.tools.location import Arrival
from controller.topology.errors import TopologyError
from controller.training import JobMessage, Training, refusal
from packets.errors import DaitnError
from packets.labels import home_kas
from packets.messages import (
    Ack,
    AnnounceObject,
    AnyMessage,
    Inquire,
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
ABOUT_A_VISIT = (OrderRequest, VisitDone, Verdict)
ABOUT_A_JOB = (*ABOUT_A_VISIT, Returned, Inquire, LogRequest)


class Terminals:
    """Answers control messages. A repeated request gets the same answer again, and is handled once."""

    def __init__(self, kit: Kit, training: Training, objects: Objects, places: Places) -> None:
        self.kit, self.training, self.objects, self.places = kit, training, objects, places
        self._answers: OrderedDict[tuple[str, int], bytes | None] = OrderedDict()

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
            reply = Header(
                type=header.type,
                flags=Flag.REPLY,
                object_id=header.object_id,
                transfer_id=header.transfer_id,
                visit=header.visit,
            )
            self._remember(key, encode(reply, encode_message(answer)))
        ready = self._answers[key]
        if ready is not None:
            self.kit.communication.answer(host, ready, target_port=port)

    def _remember(self, key: tuple[str, int], answer: bytes | None) -> None:
        self._answers[key] = answer
        while len(self._answers) > ANSWERS_KEPT:
            self._answers.popitem(last=False)

    async def _answer(self, host: HostPlan, payload: bytes) -> Message:
        try:
            return await self._dispatch(host, decode_message(payload))
        except msgspec.DecodeError as error:
            self.kit.emit("packet.refused", reason="message", node=host.name, detail=str(error)[:200])
            return Refused(reason=f"no message of ours: {error}"[:400])
        except (ControllerError, TopologyError, DaitnError) as error:
            self.kit.emit("request.refused", reason=str(error)[:400], node=host.name)
            return refusal(error)

    async def _dispatch(self, host: HostPlan, message: AnyMessage) -> Message:
        named = getattr(message, "name", None)
        if named != host.name:
            raise SteeringError(f"{host.name} may not speak for {named}")
        match message:
            case Register():
                return self._register(host, message)
            case Report():
                return self._report(host, message)
            case Submit():
                return await self.training.submit(host, message)
            case AnnounceObject():
                return await self.objects.announce(host, message)
            case OrderRequest() | VisitDone() | Verdict() | Returned() | Inquire() | LogRequest():
                return await self._about_object(host, message)
        raise SteeringError(f"a DCC takes no {type(message).__name__}")

    def _register(self, host: HostPlan, message: Register) -> Message:
        if message.role != host.role:
            raise SteeringError(f"{host.name} is declared as {host.role}, not {message.role}")
        self._take(host, message.attributes, joined=True)
        return Ack()

    def _report(self, host: HostPlan, message: Report) -> Message:
        if host.name not in self.kit.krrm:
            raise SteeringError(f"{host.name} is not registered (any more); register again")
        self._take(host, message.attributes, joined=False)
        return Ack()

    def _take(self, host: HostPlan, attributes: dict[str, object], *, joined: bool) -> None:
        kit = self.kit
        changed = kit.krrm.update(host.name, host.role, host.kas, host.address, attributes, kit.clock())
        if changed or joined:
            shown = {a: kit.krrm.node(host.name).get(a) for a in changed}
            kit.emit("krrm.updated", name=host.name, kas=host.kas, role=host.role, attributes=shown)
            held = {a: v.value for a, v in kit.krrm.node(host.name).attributes.items()}
            kit.store.node(host.name, host.role, host.kas, host.address, held)

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
        return Forwarded(message=await self.training.handle(message))
