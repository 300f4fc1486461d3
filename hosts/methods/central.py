"""Central pooling between terminals: every node whose data may move sends it to one facility, which trains on all."""

from __future__ import annotations

from typing import cast

from hosts.errors import HostError
from hosts.learning.methods.updates import state_of
from hosts.learning.safe_bytes import bytes_to_samples, samples_to_bytes
from hosts.learning.spec import Samples, concat_samples
from hosts.methods.envelope import Envelope
from hosts.methods.exchange import Piece
from hosts.methods.group import Group, Led, answer
from hosts.terminal.terminal import Terminal


def lead(group: Group) -> Led:
    """Gather the data (on the job's first visit here), then train the order's passes over it."""
    if "pooled" not in group.kept:
        group.kept["pooled"] = _gather(group)
    pooled, task = cast("Samples", group.kept["pooled"]), group.terminal.task
    model = task.new_model(0)
    model.load_state_dict(group.state)
    settings = group.settings("pooled", group.number(0))
    with group.terminal.computing("training", group.obj.object_id):
        result = task.train(model, pooled, settings)
    return Led(state_of(model), len(pooled), result.loss, result.seconds)


def _gather(group: Group) -> Samples:
    number = group.number(0)
    pieces = group.ask(number, lambda m: (group.envelope("data", number, m), b""), "samples")
    group.tell(number, pieces)
    return concat_samples([bytes_to_samples(group.terminal.task, p.body) for p in pieces.values()])


def hand_out(terminal: Terminal, piece: Piece) -> tuple[Envelope, bytes]:
    """A data node's part: its training samples, if they may leave it."""
    if not terminal.plan.data_may_move or terminal.data is None:
        raise HostError(f"the data of {terminal.name} may not leave it")
    train = terminal.data.train
    return answer(piece.envelope, "samples", samples=len(train)), samples_to_bytes(train)
