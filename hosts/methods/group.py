"""The facility's side of training together: ask all members of a group at once, gather their answers, lead the rounds.

Each method is a module with ``lead(group) -> Led``; ``hosts/roles/compute.py`` maps the DCC's orders to them.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import msgspec

from hosts.errors import HostError
from hosts.learning.errors import LearningError
from hosts.learning.methods.updates import State, state_of
from hosts.learning.safe_bytes import bytes_to_model
from hosts.learning.spec import TrainSettings
from hosts.methods.envelope import Envelope, Kind
from hosts.methods.exchange import Exchange, Piece
from hosts.terminal.terminal import Terminal
from packets.errors import DaitnError
from packets.messages import Order
from packets.transport import ReceivedObject

ROUND_S = 75.0
QUORUM = 0.5
SENDERS = 8
_PER_VISIT = 64


class GroupFailed(HostError):
    """Too few members of a group answered; the message says how many, and what the others said."""


@dataclass(frozen=True)
class Led:
    """What leading came to: the model's state, samples that took part, mean loss, seconds of computing here."""

    state: State
    samples: int
    loss: float
    seconds: float


@dataclass
class Group:
    """One order to lead a group. ``kept``: what the method wants to find again on the job's next visit here."""

    terminal: Terminal
    exchange: Exchange
    obj: ReceivedObject
    order: Order
    kept: dict[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.order.members:
            raise GroupFailed("an order to train in a group names no members")
        self.state = state_of(bytes_to_model(self.terminal.task, self.obj.payload))

    @property
    def everyone(self) -> set[int]:
        return set(range(len(self.order.members)))

    def number(self, round_: int) -> int:
        """Return a number that no other round of this job has."""
        return self.order.visit * _PER_VISIT + round_

    def settings(self, name: str, number: int) -> TrainSettings:
        """Return the order's hyper-parameters; the seed is the run's, so that a run repeats."""
        order = self.order
        return TrainSettings(
            epochs=order.epochs, batch_size=order.batch_size, learning_rate=order.learning_rate,
            group_weights=order.group_weights, seed=zlib.crc32(f"{self.terminal.seed}/{name}/{number}".encode()),
        )  # fmt: skip

    def envelope(self, kind: Kind, number: int, member: int) -> Envelope:
        """Return what every question to a member says."""
        order = self.order
        return Envelope(
            job=self.obj.object_id, kind=kind, number=number, member=member, reply=order.place, task=order.task,
            settings=self.settings(f"member {member}", number), compression=order.compression, secure=order.secure,
            own=order.action == "own",
        )  # fmt: skip

    def ask(
        self,
        number: int,
        make: Callable[[int], tuple[Envelope, bytes]],
        answer: Kind,
        members: set[int] | None = None,
        *,
        straight: bool = False,
    ) -> dict[int, Piece]:
        """Send every member its question and wait for the answers; ``GroupFailed`` when fewer than half answer."""
        asked = self.everyone if members is None else members
        unreached: dict[int, str] = {}

        def send(member: int) -> None:
            envelope, body = make(member)
            try:
                self.exchange.send(
                    envelope, body, target=self.order.members[member], about=self.obj.object_id, straight=straight
                )
            except DaitnError as error:
                unreached[member] = " ".join(str(error).split())

        with self.terminal.activities.doing("sending", self.obj.object_id), ThreadPoolExecutor(SENDERS) as pool:
            list(pool.map(send, sorted(asked)))
        with self.terminal.activities.doing("receiving", self.obj.object_id):
            wanted = asked - unreached.keys()
            found = self.exchange.take(self.obj.object_id, (answer, "problem"), number, wanted, ROUND_S)
        return self._good(found, asked, unreached)

    def _good(self, found: dict[int, Piece], asked: set[int], problems: dict[int, str]) -> dict[int, Piece]:
        problems |= {m: p.envelope.problem for m, p in found.items() if p.envelope.kind == "problem"}
        good = {m: p for m, p in sorted(found.items()) if p.envelope.kind != "problem"}
        problems |= {m: f"no answer in {ROUND_S:g} s" for m in asked - good.keys() - problems.keys()}
        for member, why in sorted(problems.items()):
            self.terminal.complain(f"member {self.order.members[member]}: {why}", object_id=self.obj.object_id)
        if len(good) < max(1, QUORUM * len(asked)):
            raise GroupFailed(
                f"{len(good)} of {len(asked)} members answered; first: {next(iter(problems.values()), '')}"
            )
        return good

    def tell(self, number: int, pieces: dict[int, Piece]) -> tuple[int, float]:
        """Say that a round is over; returns (samples, mean loss) of those that took part."""
        samples = sum(p.envelope.samples for p in pieces.values())
        loss = sum(p.envelope.loss * p.envelope.samples for p in pieces.values()) / max(samples, 1)
        self.terminal.emit(
            "group.round", object_id=self.obj.object_id, visit=self.obj.visit, node=self.terminal.name, number=number,
            members=len(pieces), of=len(self.order.members), samples=samples, loss=loss,
            bytes=sum(len(p.body) for p in pieces.values()),
        )  # fmt: skip
        return samples, loss


def refuse(envelope: Envelope, why: str) -> Envelope:
    """Return a member's answer that is none."""
    return msgspec.structs.replace(
        envelope, kind="problem", problem=why[:400], peers=[], keys=[], settings=TrainSettings()
    )


def answer(envelope: Envelope, kind: Kind, **about: float) -> Envelope:
    """Return the header of a member's answer to a question."""
    blank = {"peers": [], "keys": [], "settings": TrainSettings()}
    return msgspec.structs.replace(envelope, kind=kind, **blank, **about)


__all__ = ["Group", "GroupFailed", "LearningError", "Led", "answer", "refuse"]
