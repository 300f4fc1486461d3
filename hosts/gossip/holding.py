"""Who holds an object in a distributed K-AS says where it trains next: a third guide beside ``ByDcc`` and ``Itself``.

It asks, through its control centre, what the object's home alone knows, runs MTRCE on that and on its own map, and
proposes; the control centre lays the way of what its home has verified.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotInTime

import msgspec

from hosts.errors import HostError
from hosts.gossip.house import House
from hosts.terminal.guide import ByDcc
from hosts.terminal.recent import Recent
from hosts.terminal.terminal import Terminal
from packets.distributed.asking import AskBrief, AskOffers, AskPlan, Briefed, Planned, Propose
from packets.messages import Ack, Message, Order, decode_message
from packets.transport import OutgoingObject, ReceivedObject

MOST_S = 8.0  # an object waits for a decision that long, then its control centre looks for another terminal
Thinking = Future[Planned | None]


class ByHolder(ByDcc):
    """Steered by its control centre, to where this terminal says. It thinks while the model trains here."""

    def __init__(self, terminal: Terminal, house: House) -> None:
        super().__init__(terminal)
        self.house = house
        self._pool = ThreadPoolExecutor(2, thread_name_prefix="mtrce")
        self._thoughts: Recent[Thinking] = Recent()

    def take(self, obj: ReceivedObject) -> tuple[ReceivedObject, Order]:
        """Ask what to do with an object; while it trains, think about where it goes then."""
        obj, order = super().take(obj)
        if order.action == "train":
            self._thoughts.note((obj.object_id, obj.visit + 1), self._think(obj.object_id, obj.visit + 1))
        return obj, order

    def go_on(self, onward: OutgoingObject) -> None:
        """Propose the next stop, where that is this terminal's to say, and hand the object to the network."""
        key = onward.object_id, onward.visit
        thinking = self._thoughts.pop(key, None) or self._think(*key)
        try:
            self._propose(key, thinking.result(MOST_S))
        except (HostError, NotInTime) as error:
            why = str(error) or f"it has not decided after {MOST_S:g} s"
            self.terminal.emit(
                "warning", text=f"{self.terminal.name} proposes nothing for object {key[0]:#x}: {why}"[:400],
                node=self.terminal.name, object_id=key[0],
            )  # fmt: skip
        super().go_on(onward)

    def _think(self, object_id: int, visit: int) -> Thinking:
        return self._pool.submit(self._decided, object_id, visit)

    def _decided(self, object_id: int, visit: int) -> Planned | None:
        """Return where the object goes; None where that is not this terminal's to say."""
        question = AskBrief(name=self.terminal.name, object_id=object_id, visit=visit)
        briefed = self.terminal.dcc.ask(question, Briefed, object_id=object_id)
        return self.house.plan(briefed.brief) if briefed.brief else None

    def _propose(self, key: tuple[int, int], planned: Planned | None) -> None:
        if planned is None or not planned.handles:
            return
        said = Propose(
            name=self.terminal.name, object_id=key[0], visit=key[1], handles=planned.handles, scores=planned.scores,
            took_ms=planned.took_ms,
        )  # fmt: skip
        self.terminal.dcc.ask(said, Ack, object_id=key[0])


def answered(house: House, message: AskOffers | AskPlan) -> Message:
    """Answer what the control centre asks a terminal of its K-AS."""
    if isinstance(message, AskOffers):
        return house.offers(message.object_id, message.question)
    return house.plan(message.brief)


def is_question(payload: bytes) -> bool:
    """Tell whether a message is one to think about, and not in the thread that it came in."""
    try:
        return isinstance(decode_message(payload), AskOffers | AskPlan)
    except msgspec.DecodeError:
        return False
