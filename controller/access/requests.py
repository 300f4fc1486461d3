"""The terminals' line to their DCC: every control message, checked against who sent it, answered once."""

from __future__ import annotations

import inspect
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import msgspec

from controller.access.gathering import Gathering
from controller.errors import BorderSilent, ControllerError, Denied, NotYet, SteeringError
from controller.runtime.bounded import Rationed
from controller.services import Services
from controller.topology.errors import BadReport, TopologyError
from packets.errors import DaitnError
from packets.messages import (
    Ack,
    AnyMessage,
    Message,
    Refused,
    Register,
    Report,
    decode_message,
    encode_message,
)
from packets.wire import Flag, Header
from topologies.plan import HostPlan

ANSWERS_KEPT = 4096
Kind = TypeVar("Kind")
Handler = Callable[[HostPlan, Kind], Message | Awaitable[Message]]
Answer = tuple[Header, bytes]


class Terminals:
    """Answers control messages by their type. A repeated request gets the same answer again, and is handled once.

    Registrations and reports are answered here; each room registers (``on``) for the messages that are its own.
    """

    def __init__(self, services: Services, gathering: Gathering) -> None:
        self.services, self.gathering = services, gathering
        self.refused = Rationed(services.emit, services.clock)
        self._handlers: dict[type, Handler[Any]] = {}
        self._answers: OrderedDict[tuple[str, int], Answer | None] = OrderedDict()

    def on(self, kind: type[Kind], handler: Handler[Kind]) -> None:
        """Have a handler answer every message of a type; a ``ControllerError`` from it becomes ``Refused``."""
        self._handlers[kind] = handler

    def telemetry(self, host: HostPlan, header: Header, payload: bytes, port: int, size_bytes: int) -> None:
        """Take a registration or a report, now, while its packet is in hand: the map is as fresh as this is short."""
        key = host.name, header.transfer_id
        if key not in self._answers:
            self._remember(key, _reply(header, self._hear(host, payload, size_bytes)))
        ready = self._answers[key]
        if ready is not None:
            self.services.communication.answer(host, *ready, target_port=port)

    def _hear(self, host: HostPlan, payload: bytes, size_bytes: int) -> Message:
        try:
            message = decode_message(payload)
            if not isinstance(message, Register | Report):
                raise SteeringError(f"{type(message).__name__} is no telemetry")
            return self._telemetry(host, message, size_bytes)
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
            self.services.communication.answer(host, *ready, target_port=port)

    def _remember(self, key: tuple[str, int], answer: Answer | None) -> None:
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
            self.refused("packet.refused", reason="message", node=host.name, detail=str(error)[:200])
            return Refused(reason=f"no message of ours: {error}"[:400])
        word = error.word if isinstance(error, Denied) else "report" if isinstance(error, BadReport) else ""
        if word:
            self.refused("packet.refused", reason=word, node=host.name, kas=host.kas, detail=str(error)[:400])
        if not isinstance(error, NotYet):
            self.refused("request.refused", reason=str(error)[:400], node=host.name)
        return refusal(error)

    @staticmethod
    def _own_name(host: HostPlan, message: AnyMessage) -> None:
        named = getattr(message, "name", None)
        if named != host.name:
            raise Denied("holder", f"{host.name} may not speak for {named}")

    async def _dispatch(self, host: HostPlan, message: AnyMessage, size_bytes: int) -> Message:
        if isinstance(message, Register | Report):
            return self._telemetry(host, message, size_bytes)
        self._own_name(host, message)
        handler = self._handlers.get(type(message))
        if handler is None:
            raise SteeringError(f"a DCC takes no {type(message).__name__}")
        answer = handler(host, message)
        return await answer if inspect.isawaitable(answer) else answer

    def _telemetry(self, host: HostPlan, message: Register | Report, size_bytes: int) -> Message:
        self._own_name(host, message)
        if isinstance(message, Register):
            return self._register(host, message, size_bytes)
        return self._report(host, message, size_bytes)

    def _register(self, host: HostPlan, message: Register, size_bytes: int) -> Message:
        if message.role != host.role:
            raise SteeringError(f"{host.name} is declared as {host.role}, not {message.role}")
        self.gathering.joined(host, message.attributes, size_bytes)
        return Ack()

    def _report(self, host: HostPlan, message: Report, size_bytes: int) -> Message:
        if host.name not in self.services.krrm or host.name in self.gathering.restored:
            raise SteeringError(f"{host.name} is not registered (any more); register again")
        self.gathering.reported(host, message, size_bytes)
        return Ack()


def refusal(error: Exception) -> Refused:
    """Return an error as words for a terminal, which asks again when another K-AS was out of reach."""
    return Refused(reason=str(error)[:400], again=isinstance(error, BorderSilent))


def _reply(header: Header, answer: Message) -> Answer:
    """Return the header and the payload that answer a request."""
    reply = Header(
        type=header.type,
        flags=Flag.REPLY,
        object_id=header.object_id,
        transfer_id=header.transfer_id,
        visit=header.visit,
    )
    return reply, encode_message(answer)
