"""A holder asks terminals how they stand, all at once, straight at their addresses; what they say becomes options."""

from __future__ import annotations

import random
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import msgspec

from controller.topology.trust import Ledger
from controller.values.decisions import Mix, Option
from hosts.process.config import NodeSpec
from hosts.terminal.terminal import Terminal
from packets.aats.probe import Probe, ProbeReply
from packets.errors import TransportError
from packets.messages import decode_message, encode_message
from packets.wire import PacketType

MAX_PROBES = 32  # terminals asked before a stop
AT_ONCE = 16
ANSWER_S = 1.5
ROUND_TRIPS = 4.0  # of a transfer beside its bytes: launch, answer, the window opens, the end


class Heard(NamedTuple):
    """What a terminal said, and how long it took."""

    address: str
    reply: ProbeReply
    rtt_s: float


def ask(terminal: Terminal, address: str, object_id: int, timeout_s: float = ANSWER_S) -> Heard | None:
    """Ask one terminal; None when it says nothing of use in time."""
    question = encode_message(Probe(name=terminal.name, object_id=object_id, task=terminal.task.name))
    began_s = terminal.clock()
    try:
        _, payload = terminal.network.request(
            question, to=address, type=PacketType.PROBE, timeout_s=timeout_s, object_id=object_id
        )
        reply = decode_message(payload)
    except (TransportError, msgspec.DecodeError):
        return None
    return Heard(address, reply, terminal.clock() - began_s) if isinstance(reply, ProbeReply) else None


def ask_all(terminal: Terminal, members: Sequence[NodeSpec], object_id: int, rng: random.Random) -> list[Heard]:
    """Ask terminals, ``MAX_PROBES`` of them drawn by chance where there are more; those that would take the object."""
    asked = list(members) if len(members) <= MAX_PROBES else rng.sample(list(members), MAX_PROBES)
    if not asked:
        return []
    with ThreadPoolExecutor(min(AT_ONCE, len(asked)), thread_name_prefix="probe") as pool:
        heard = list(pool.map(lambda m: ask(terminal, m.address, object_id), asked))
    roles = {m.address: m.role for m in asked}
    return [h for h in heard if h is not None and h.reply.ready and h.reply.role == roles[h.address]]


def options_of(heard: Sequence[Heard], groups: Sequence[str], trusted: Ledger, at_kas: int) -> list[Option]:
    """Return the data that was heard of as rendezvous, each where it lies; ``at_kas``: of the MPVU that verifies."""
    found = []
    for address, reply, rtt_s in heard:
        mix = _of(reply.mix, groups)
        samples = round(reply.samples * min(1.0, sum(reply.mix.get(g, 0.0) for g in groups)))
        if not mix or not samples or reply.samples_per_s <= 0:
            continue
        found.append(Option(
            kas=reply.kas, handle=address, mix=mix, samples=samples, quality=reply.quality,
            epoch_s=reply.samples / reply.samples_per_s * (1 + reply.queue), reach_s=ROUND_TRIPS * rtt_s,
            trust=trusted.trust(address), place=address, borders=int(reply.kas != at_kas),
        ))  # fmt: skip
    return found


def _of(mix: Mix, groups: Sequence[str]) -> Mix:
    mine = {g: mix[g] for g in groups if mix.get(g, 0.0) > 0}
    total = sum(mine.values())
    return {g: share / total for g, share in mine.items()}
