"""The DCC's line to its terminals: it asks, out of their own port, and repeats until the terminal answers.

Only what a terminal must do soon goes this way (launch again, hand over, let a copy go); all else it asks for itself.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence

import msgspec

from controller.errors import SteeringError
from controller.tools.communication import Communication
from packets.messages import Message, Refused, decode_message, encode_message
from packets.wire import Header, PacketType, TrafficClass
from topologies.plan import HostPlan

PAUSES_S = (0.1, 0.2, 0.4, 0.8, 1.6)


class Calls:
    """Requests to terminals, by transfer id; an answer counts only from the terminal that was asked."""

    def __init__(self, communication: Communication) -> None:
        self._communication = communication
        self._random = random.SystemRandom()
        self._waiting: dict[tuple[str, int], asyncio.Future[Message]] = {}

    async def ask(
        self, host: HostPlan, message: Message, object_id: int = 0, *, pauses_s: Sequence[float] = PAUSES_S
    ) -> Message:
        """Return the terminal's answer; ``SteeringError`` when it refuses, or says nothing.

        ``pauses_s``: how long each try is waited for.
        """
        number = self._random.getrandbits(32)
        payload = encode_message(message)
        header = Header(
            type=PacketType.ANNOUNCE, traffic_class=TrafficClass.CONTROL, object_id=object_id, transfer_id=number,
            total_length=len(payload),
        )  # fmt: skip
        done = self._waiting[host.name, number] = asyncio.get_running_loop().create_future()
        try:
            for pause_s in pauses_s:
                self._communication.answer(host, header, payload)
                if (await asyncio.wait([done], timeout=pause_s))[0]:
                    return self._checked(host, message, done.result())
        finally:
            del self._waiting[host.name, number]
        raise SteeringError(f"{host.name} did not answer {type(message).__name__} in {sum(pauses_s):g} s")

    @staticmethod
    def _checked(host: HostPlan, message: Message, answer: Message) -> Message:
        if isinstance(answer, Refused):
            raise SteeringError(f"{host.name} refused {type(message).__name__}: {answer.reason}")
        return answer

    def answered(self, host: HostPlan, header: Header, payload: bytes) -> None:
        """Take a terminal's answer; what was not asked, or is no message of ours, is left aside."""
        done = self._waiting.get((host.name, header.transfer_id))
        if done is None or done.done():
            return
        try:
            done.set_result(decode_message(payload))
        except msgspec.DecodeError as error:
            done.set_result(Refused(reason=f"no message of ours: {error}"[:400]))
