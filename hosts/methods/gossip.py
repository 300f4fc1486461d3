"""Gossip between terminals: members train and swap models with each other; the facility only starts and ends it."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from hosts.learning.compress import decode, encode, travelling
from hosts.learning.errors import LearningError
from hosts.learning.methods.federated import Member
from hosts.learning.methods.gossip import source, target
from hosts.learning.methods.updates import State, average, state_of
from hosts.methods.envelope import Envelope
from hosts.methods.exchange import Exchange, Piece
from hosts.methods.group import Group, Led, answer
from packets.errors import DaitnError

MIX_S = 20.0


def lead(group: Group) -> Led:
    """Have the members gossip for the order's rounds, then average their models."""
    number = group.number(0)
    how = travelling(group.order.compression)
    body, _ = encode(group.state, how)

    def question(member: int) -> tuple[Envelope, bytes]:
        envelope = group.envelope("gossip", number, member)
        return msgspec.structs.replace(envelope, peers=group.order.members, rounds=group.order.rounds), body

    pieces = group.ask(number, question, "mixed")
    state = average([decode(p.body, group.state) for p in pieces.values()], [1.0] * len(pieces))
    samples, loss = group.tell(number, pieces)
    return Led(state, samples, loss, 0.0)


class GossipMember:
    """A data node's part. ``complain``: where to say that a neighbour was not heard."""

    def __init__(self, member: Member, exchange: Exchange, complain: Callable[[str], None]) -> None:
        self.member, self.exchange, self._complain = member, exchange, complain

    def take_part(self, piece: Piece) -> tuple[Envelope, bytes]:
        """Train and swap for all rounds; returns the model at the end."""
        asked = piece.envelope
        if asked.member >= len(asked.peers):
            raise LearningError("gossip: I am none of its members")
        state = decode(piece.body, state_of(self.member.task.new_model(0)))
        loss = 0.0
        for round_ in range(asked.rounds):
            settings = msgspec.structs.replace(asked.settings, seed=asked.settings.seed + round_)
            state = self._swap(piece, round_, self.member.train(state, settings))
            loss = self.member.loss
        about = {"samples": len(self.member.samples), "loss": loss, "seconds": self.member.seconds}
        return answer(asked, "mixed", **about), encode(state, travelling(asked.compression))[0]

    def _swap(self, piece: Piece, round_: int, mine: State) -> State:
        """Send my model on, average it with the one that comes; alone when none does."""
        asked, nodes = piece.envelope, len(piece.envelope.peers)
        to, of = target(asked.member, round_, nodes), source(asked.member, round_, nodes)
        if to == asked.member:
            return mine
        number = asked.number + round_
        body, _ = encode(mine, travelling(asked.compression))
        try:
            self.exchange.send(
                msgspec.structs.replace(answer(asked, "mix"), number=number), body,
                target=asked.peers[to], about=piece.object_id,
            )  # fmt: skip
        except DaitnError as error:
            self._complain(f"gossip: {error}")
        found = self.exchange.take(asked.job, ("mix",), number, {of}, MIX_S)
        if of not in found:
            self._complain(f"gossip: nothing came from member {of} in round {round_}")
            return mine
        return average([mine, decode(found[of].body, mine)], [0.5, 0.5])
