"""Federated averaging between terminals: the facility sends the model to all members, averages what they send back.

With ``secure`` members hide their updates from the facility (``learning.methods.masks``): it first carries their public
keys to all, then gets masked updates, and a round in which a member is missing is repeated without it.
"""

from __future__ import annotations

from typing import cast

import msgspec
import numpy as np

from hosts.learning.compress import PLAIN, decode, parse_spec
from hosts.learning.errors import LearningError
from hosts.learning.methods.federated import Aggregator, Member
from hosts.learning.methods.masks import Words
from hosts.learning.methods.updates import QuasiGlobalMomentum, State, state_of
from hosts.methods.envelope import Envelope
from hosts.methods.exchange import Piece
from hosts.methods.group import Group, GroupFailed, Led, answer


def lead(group: Group) -> Led:
    """Lead the order's rounds."""
    momentum = group.kept.setdefault("momentum", QuasiGlobalMomentum(group.order.momentum))
    aggregator = Aggregator(group.state, cast("QuasiGlobalMomentum", momentum))
    samples, loss = 0, 0.0
    members = group.everyone
    for round_ in range(group.order.rounds):
        number = group.number(round_ * 3)  # room for a masked round that is repeated
        pieces = _masked(group, aggregator, number, members) if group.order.secure else _open(group, aggregator, number)
        samples, loss = group.tell(number, pieces)
    return Led(aggregator.state, samples, loss, 0.0)


def gather(group: Group, aggregator: Aggregator, number: int) -> dict[int, Piece]:
    """Send all members the round's model, in the clear; return their updates."""
    body = aggregator.offer(parse_spec(group.order.compression))
    return group.ask(number, lambda m: (group.envelope("train", number, m), body), "update")


def _open(group: Group, aggregator: Aggregator, number: int) -> dict[int, Piece]:
    pieces = gather(group, aggregator, number)
    aggregator.take([p.body for p in pieces.values()], [float(p.envelope.samples) for p in pieces.values()])
    return pieces


def _masked(group: Group, aggregator: Aggregator, number: int, members: set[int]) -> dict[int, Piece]:
    keys = group.ask(number, lambda m: (group.envelope("key", number, m), b""), "my key", members)
    body = aggregator.offer(PLAIN)
    total = max(1, sum(p.envelope.samples for p in keys.values()))
    everyone = [keys[m].body if m in keys else b"" for m in range(len(group.order.members))]

    def question(member: int) -> tuple[Envelope, bytes]:
        share = keys[member].envelope.samples / total
        envelope = group.envelope("train", number, member)
        return msgspec.structs.replace(envelope, keys=everyone, weight=share), body

    pieces = group.ask(number, question, "update", set(keys))
    if pieces.keys() != keys.keys():
        if number % 3 == 2:
            raise GroupFailed("members kept dropping out of masked rounds")
        return _masked(group, aggregator, number + 1, set(pieces))
    aggregator.take_masked([_words(p.body) for p in pieces.values()])
    return pieces


def _words(body: bytes) -> Words:
    if len(body) % 4:
        raise LearningError("masked update of a broken length")
    return np.frombuffer(body, dtype="<u4").astype(np.uint32)


class FederatedMember:
    """A data node's part; keeps its keys and what its coded updates left out from round to round of a job."""

    def __init__(self, member: Member) -> None:
        self.member = member

    def key(self, piece: Piece) -> tuple[Envelope, bytes]:
        return answer(piece.envelope, "my key", samples=len(self.member.samples)), self.member.masker.public

    def train(self, piece: Piece) -> tuple[Envelope, bytes]:
        """Train on the round's model; returns the update."""
        asked, member = piece.envelope, self.member
        start = decode(piece.body, state_of(member.task.new_model(0)))
        after = member.train(start, asked.settings)
        body = self._hidden(asked, start, after) if asked.secure else member.update(start, after)
        about = {"samples": len(member.samples), "loss": member.loss, "seconds": member.seconds}
        return answer(asked, "update", **about), body

    def _hidden(self, asked: Envelope, start: State, after: State) -> bytes:
        keys = {i: key for i, key in enumerate(asked.keys) if key}
        context = f"{asked.job}/{asked.number}".encode()
        words = self.member.masked(start, after, weight=asked.weight, keys=keys, mine=asked.member, context=context)
        return words.astype("<u4").tobytes()
