"""A member's side of training together: which question is answered by which method's part."""

from __future__ import annotations

from collections import OrderedDict
from functools import partial

from hosts.errors import HostError
from hosts.learning.compress import Compression, parse_spec
from hosts.learning.errors import LearningError
from hosts.learning.methods.federated import Member
from hosts.learning.methods.own import load_method, trained
from hosts.learning.methods.updates import State
from hosts.learning.spec import TrainSettings
from hosts.methods import central
from hosts.methods.envelope import Envelope
from hosts.methods.exchange import Exchange, Piece
from hosts.methods.federated import FederatedMember
from hosts.methods.gossip import GossipMember
from hosts.methods.group import refuse
from hosts.methods.split import SplitMember
from hosts.terminal.terminal import Terminal
from packets.errors import DaitnError

MAX_JOBS = 16
QUESTIONS = frozenset({"train", "key", "data", "gossip", "split"})


class MemberParts:
    """Answers the questions of whoever leads a group; keeps what a method remembers of a job."""

    def __init__(self, terminal: Terminal, exchange: Exchange) -> None:
        self.terminal, self.exchange = terminal, exchange
        self._members: OrderedDict[int, Member] = OrderedDict()

    def answer(self, piece: Piece) -> None:
        """Do what a question asks and send the answer to its place; a question that cannot be met gets a reason."""
        asked = piece.envelope
        try:
            found = self._answer(piece)
        except (LearningError, DaitnError) as error:
            found = refuse(asked, " ".join(str(error).split())), b""
        if found is not None:
            self.exchange.send(*found, target=asked.reply, about=piece.object_id)

    def _answer(self, piece: Piece) -> tuple[Envelope, bytes] | None:
        asked, terminal = piece.envelope, self.terminal
        if asked.task and asked.task != terminal.task.name:
            raise HostError(f"{terminal.name} has no task {asked.task!r}")
        if asked.kind == "data":
            return central.hand_out(terminal, piece)
        if terminal.data is None:
            raise HostError(f"{terminal.name} holds no data of its own")
        if asked.kind == "split":
            SplitMember(terminal, self.exchange, terminal.data.train).take_part(piece)
            return None
        if asked.kind == "gossip":
            return GossipMember(self._member(asked), self.exchange, terminal.complain).take_part(piece)
        part = FederatedMember(self._member(asked))
        return part.key(piece) if asked.kind == "key" else part.train(piece)

    def _member(self, asked: Envelope) -> Member:
        assert self.terminal.data is not None
        how = parse_spec(asked.compression)
        member = self._members.get(asked.job)
        if member is None:
            member = _Member(self.terminal, asked.job, how, own=asked.own)
            self._members[asked.job] = member
            while len(self._members) > MAX_JOBS:
                self._members.popitem(last=False)
        return member


class _Member(Member):
    """Trains one piece of work at a time, and says so."""

    def __init__(self, terminal: Terminal, job: int, how: Compression, *, own: bool) -> None:
        assert terminal.data is not None
        task = terminal.task
        teach = partial(trained, load_method(task.spec.method), task) if own else None
        super().__init__(task, terminal.data.train, how, teach)
        self._terminal, self._job = terminal, job

    def train(self, start: State, settings: TrainSettings) -> State:
        with self._terminal.computing("training", self._job):
            after = super().train(start, settings)
        self._terminal.meter.trained(len(self.samples) * settings.epochs, self.seconds)
        return after
