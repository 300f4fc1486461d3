"""A terminal's line to the DCC of its K-AS: one question, one typed answer, all of it AI packets through the fabric."""

from __future__ import annotations

import time
from typing import Protocol, TypeVar

import msgspec

from hosts.errors import DccRefused, DccSilent
from packets.errors import TransportError
from packets.labels import DCC_ADDRESS
from packets.messages import Message, Refused, decode_message, encode_message
from packets.wire import Header, PacketType

Reply = TypeVar("Reply", bound=Message)
ATTEMPTS = 3
PATIENT = 10  # for what must not get lost: work is done and its result waits here
TIMEOUT_S = 6.0
PAUSE_S = 0.5  # before who was out of reach is asked again


class Requests(Protocol):
    """The part of ``packets.transport.Endpoint`` that asks."""

    def request(
        self, payload: bytes, *, to: str, type: PacketType, timeout_s: float = 10, object_id: int = 0
    ) -> tuple[Header, bytes]: ...


class DccLine:
    """Ask the DCC. Every question is repeated by the transport; after ``attempts`` rounds the DCC counts as silent."""

    def __init__(self, requests: Requests, kas: int) -> None:
        self._requests = requests
        self._kas = kas

    def ask(
        self,
        message: Message,
        expect: type[Reply],
        *,
        type: PacketType = PacketType.ANNOUNCE,
        object_id: int = 0,
        attempts: int = ATTEMPTS,
        timeout_s: float = TIMEOUT_S,
    ) -> Reply:
        """Return the DCC's answer; ``DccRefused`` with its reason (asked again meanwhile where that can help),
        ``DccSilent`` when none of use came.
        """
        payload, why = encode_message(message), "no answer"
        for left in reversed(range(attempts)):
            try:
                _, answer = self._requests.request(
                    payload, to=DCC_ADDRESS, type=type, timeout_s=timeout_s, object_id=object_id
                )
                reply = decode_message(answer)
            except (TransportError, msgspec.DecodeError) as error:
                why = " ".join(str(error).split())
                continue
            if isinstance(reply, Refused) and reply.again and left:
                why = reply.reason
                time.sleep(PAUSE_S)
                continue
            if isinstance(reply, Refused):
                raise DccRefused(reply.reason)
            if isinstance(reply, expect):
                return reply
            why = f"it answered {reply.__class__.__name__} to {message.__class__.__name__}"
        what = f"{message.__class__.__name__} in {attempts} x {timeout_s:g} s"
        raise DccSilent(f"DCC of K-AS {self._kas} gave no answer to {what}: {why}; is its process running?")
