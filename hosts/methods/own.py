"""Rounds of one's own between terminals: as federated averaging's, both halves by the method that the run was given."""

from __future__ import annotations

from typing import cast

from hosts.learning.compress import decode
from hosts.learning.methods.federated import Aggregator
from hosts.learning.methods.own import OwnMethod, Update, combined, load_method
from hosts.methods.exchange import Piece
from hosts.methods.federated import gather
from hosts.methods.group import Group, Led


def lead(group: Group) -> Led:
    """Lead the order's rounds; ``LearningError`` when the method fails."""
    spec = group.terminal.task.spec.method
    method = cast("OwnMethod", group.kept.get("own") or load_method(spec))
    group.kept["own"] = method
    aggregator = Aggregator(group.state)
    samples, loss = 0, 0.0
    for round_ in range(group.order.rounds):
        number = group.number(round_)
        pieces = gather(group, aggregator, number)
        updates = [_update(p, aggregator) for p in pieces.values()]
        with group.terminal.computing("training", group.obj.object_id):
            aggregator.state = combined(method, aggregator.state, updates)
        samples, loss = group.tell(number, pieces)
    return Led(aggregator.state, samples, loss, 0.0)


def _update(piece: Piece, aggregator: Aggregator) -> Update:
    state = decode(piece.body, aggregator.state, base=aggregator.state)
    return Update(state, piece.envelope.samples, piece.envelope.loss)
