"""A query that finds its own way: the asker asks MDFPs how they stand, and one of their models straight."""

from __future__ import annotations

import random
from typing import NamedTuple

import msgspec

from hosts.autonomy.probing import ask_all
from hosts.errors import TerminalRefused
from hosts.terminal.terminal import Terminal
from packets.errors import TransportError
from packets.messages import Ack, Answer, Ask, Busy, Need, Refused, decode_message, encode_message
from packets.wire import PacketType

TRIES = 4  # models that are asked in turn
ANSWER_S = 5.0


class Choice(NamedTuple):
    """A model that may answer; ``expected_ms``: the way there and back, and its service behind what it holds."""

    expected_ms: float
    address: str
    label: int


def choices(terminal: Terminal, task: str, need: Need, rng: random.Random) -> list[Choice]:
    """Return the deployed models that have what a query needs, by the time that an answer is expected to take."""
    kas = terminal.plan.kas
    members = [m for m in terminal.members if m.role == "mdfp" and m.address and (m.kas == kas or not need.local)]
    found = [
        Choice(1e3 * rtt_s + model.service_ms * (1 + model.in_flight), address, model.label)
        for address, reply, rtt_s in ask_all(terminal, members, 0, rng)
        for model in reply.models
        if model.task == task and all(model.accuracy.get(g, 0.0) >= floor for g, floor in need.floors.items() if floor)
    ]
    return sorted(c for c in found if not need.deadline_ms or c.expected_ms <= need.deadline_ms)


def ask_straight(terminal: Terminal, question: Ask, rng: random.Random) -> Answer | Ack:
    """Ask the model that is expected to answer soonest, the next one where it is too busy or silent.

    ``TerminalRefused``: none has what is needed, or none of those asked answered.
    """
    found = choices(terminal, question.task, question.need, rng)
    if not found:
        raise TerminalRefused("no MDFP that answered has a model with what is needed")
    why = ""
    for choice in found[:TRIES]:
        try:
            _, payload = terminal.network.request(
                encode_message(question), to=choice.address, type=PacketType.QUERY, timeout_s=ANSWER_S,
                object_id=choice.label,
            )  # fmt: skip
            reply = decode_message(payload)
        except (TransportError, msgspec.DecodeError) as error:
            why = " ".join(str(error).split())
            continue
        if isinstance(reply, Answer | Ack):
            return reply
        why = reply.reason if isinstance(reply, Refused | Busy) else f"it answered {type(reply).__name__}"
    raise TerminalRefused(f"none of {min(TRIES, len(found))} models asked has answered: {why}")
