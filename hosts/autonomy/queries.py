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


class Offer(NamedTuple):
    """A deployed model as its MDFP told of it, and what choosing it would be."""

    choice: Choice
    mdfp: str
    accuracy: dict[str, float]

    def lacks(self, need: Need) -> list[str]:
        """Return the groups in which it is not accurate enough."""
        return [g for g, floor in need.floors.items() if floor and self.accuracy.get(g, 0.0) < floor]

    def in_time(self, need: Need) -> bool:
        """Tell whether an answer is expected before the deadline, if there is one."""
        return not need.deadline_ms or self.choice.expected_ms <= need.deadline_ms


def offers(terminal: Terminal, task: str, need: Need, rng: random.Random) -> list[Offer]:
    """Ask the MDFPs that a query may go to, and return their models of its task, good enough or not."""
    kas = terminal.plan.kas
    members = [m for m in terminal.members if m.role == "mdfp" and m.address and (m.kas == kas or not need.local)]
    return [
        Offer(
            Choice(1e3 * rtt_s + model.service_ms * (1 + model.in_flight), address, model.label),
            reply.name,
            model.accuracy,
        )
        for address, reply, rtt_s in ask_all(terminal, members, 0, rng)
        for model in reply.models
        if model.task == task
    ]


def choices(offered: list[Offer], need: Need) -> list[Choice]:
    """Return the models that have what a query needs, by the time that an answer is expected to take."""
    return sorted(o.choice for o in offered if not o.lacks(need) and o.in_time(need))


def why_none(offered: list[Offer], need: Need) -> str:
    """Return why no model will do, with the best on offer as far as the asker heard of it."""
    if not offered:
        return "no MDFP that answered has a model of this task" + (" in this K-AS" if need.local else "")
    for group, floor in need.floors.items():
        best = max(offered, key=lambda o: o.accuracy.get(group, 0.0))
        if floor and best.accuracy.get(group, 0.0) < floor:
            has = f"{best.accuracy.get(group, 0.0):.3f} at {best.mdfp}"
            return f"no model heard of has {group} from {floor:g}: the best on offer is {has}; ask for less"
    good = [o for o in offered if not o.lacks(need)]
    if not good:
        return (
            f"no one model heard of has {' and '.join(f'{g} from {f:g}' for g, f in need.floors.items())}; ask for less"
        )
    soonest = min(good, key=lambda o: o.choice)
    return (
        f"no model heard of is expected to answer within {need.deadline_ms} ms: the best on offer is "
        f"{soonest.choice.expected_ms:.0f} ms at {soonest.mdfp}; give it more time"
    )


def ask_straight(terminal: Terminal, question: Ask, rng: random.Random) -> Answer | Ack:
    """Ask the model that is expected to answer soonest, the next one where it is too busy or silent.

    ``TerminalRefused``: none has what is needed, or none of those asked answered.
    """
    offered = offers(terminal, question.task, question.need, rng)
    found = choices(offered, question.need)
    if not found:
        raise TerminalRefused(why_none(offered, question.need))
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
