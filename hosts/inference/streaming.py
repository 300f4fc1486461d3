"""One query of many samples, at who asks it: parts are asked for, put in order, asked for again, handed out.

The first part goes to the label of the class, and the network chooses who answers, as for any query. Who does says
which model it is; all others go to that one, as many at once as the window holds. A model that says no, or nothing, is
left: another of the class is asked for what is missing. The window moves as parts are handed out: who is slow to take
them is sent no more than it holds.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import msgspec

from hosts.errors import BadCommand, DccRefused, StreamBroken, TerminalRefused
from hosts.inference.asking import Means
from hosts.inference.ports import Peer, Ports
from packets.errors import DaitnError
from packets.messages import AskPart, Busy, Known, Message, Need, State, StreamPart, encode_message
from packets.parts import MAX_MESSAGE_BYTES
from packets.queries import MAX_STREAM, PART_SAMPLES, query_label
from packets.terms import MAX_SAMPLE
from packets.transfer.udp import now_us
from packets.wire import NO_FLAGS, Flag, Header, PacketType, TrafficClass

WINDOW = 8  # parts that are asked for, or came early
AGAIN_S = (0.3, 0.5)  # a part that does not come is asked for again; sooner where PASSED later ones have come
PASSED = 3
SILENT_S = 1.2  # a model of which nothing is heard for so long, however often it was asked again, is left
ODD_S = 0.45  # of which nothing is heard for so long: the control centre may know that it is gone
PATIENCE_S = 15.0  # for the next part, whoever is asked
PAUSE_S = 0.25  # where all models have said no
LOOK_S = 0.05
BESIDE_BYTES = 1024  # what a request has beside its samples, at most
IDS = 1 << 32


class InOrder:
    """The parts of a stream as they come in, whatever comes in: each is handed out once, in order.

    ``window``: how many beyond the last one handed out may be asked for; no other is taken.
    """

    def __init__(self, stream: int, total: int, size: int, window: int = WINDOW) -> None:
        self.stream, self.total, self.size, self.window = stream, total, size, window
        self.parts = -(-total // size)
        self.handed = 0
        self._held: dict[int, StreamPart] = {}

    def __contains__(self, number: int) -> bool:
        return number < self.handed or number in self._held

    @property
    def over(self) -> bool:
        """Whether all parts are handed out."""
        return self.handed == self.parts

    def take(self, part: StreamPart) -> bool:
        """Take a part; False for one that is here already, is of another stream, or was not to be asked for yet."""
        shape = part.stream, part.total, part.size
        if shape != (self.stream, self.total, self.size) or part.number in self:
            return False
        if part.number >= min(self.parts, self.handed + self.window):
            return False
        self._held[part.number] = part
        return True

    def missing(self) -> list[int]:
        """Return the parts within the window that are not here, in order."""
        return [n for n in range(self.handed, min(self.parts, self.handed + self.window)) if n not in self._held]

    def hand_out(self) -> list[StreamPart]:
        """Return all that is next."""
        ready = []
        while (part := self._held.pop(self.handed, None)) is not None:
            ready.append(part)
            self.handed += 1
        return ready


@dataclass(slots=True)
class _Sent:
    """A part that was asked for. ``passed``: parts asked for later that have come since."""

    order: int
    first_s: float
    sent_s: float
    tries: int = 0
    passed: int = 0


def samples_a_part(samples: Sequence[Sequence[float]]) -> int:
    """Return how many samples a part of a stream has, so that a message holds them; ``BadCommand``."""
    if not 1 <= len(samples) <= MAX_STREAM:
        raise BadCommand(f"a stream of {len(samples)} samples; one takes 1 to {MAX_STREAM}")
    longest = max(samples, key=len)
    if len(longest) > MAX_SAMPLE:
        raise BadCommand(f"sample of {len(longest)} numbers; a query takes {MAX_SAMPLE}")
    most_bytes = max(len(msgspec.msgpack.encode(sample)) for sample in samples)
    return max(1, min(PART_SAMPLES, (MAX_MESSAGE_BYTES - BESIDE_BYTES) // most_bytes))


class Streaming:
    """A stream that is asked for, by who takes its parts: all is done while ``more`` waits for them.

    ``TerminalRefused``: nobody takes it, and why; ``StreamBroken``: a part never came.
    """

    def __init__(
        self, means: Means, task: str, need: Need, samples: Sequence[Sequence[float]], window: int = WINDOW
    ) -> None:
        self.means, self.task, self.need, self._samples = means, task, need, samples
        self.order = InOrder(secrets.randbits(32), len(samples), samples_a_part(samples), window)
        self.label = 0  # of the model that answers; 0: the class's, and the network chooses
        self.repeats = 0
        self._class = query_label(task, need)
        self._first_id = secrets.randbits(32)
        self._ports = Ports(means.address, means.guard, means.emit, self._awaits)
        self._sent: dict[int, _Sent] = {}
        self._requests = 0
        self._met = False  # whether the model that is asked has answered
        self._address = ""  # of the model that is asked
        self._left: dict[int, str] = {}  # models that were left, and their addresses
        self._reason = ""
        self._usual_s = 0.0  # that a part takes
        self._asked_s = 0.0  # since when the model was silent, when the control centre was asked about it
        self._heard_s = self._next_s = self._not_before_s = means.clock()
        self._stopped = False

    def __iter__(self) -> Iterator[StreamPart]:
        try:
            while parts := self.more():
                yield from parts
        finally:
            self.close()

    def stop(self) -> None:
        """Ask no more: ``more`` returns nothing from now on."""
        self._stopped = True

    def close(self) -> None:
        """Give the sockets back."""
        self._ports.close()

    def more(self) -> list[StreamPart]:
        """Wait for the next part; return it, and those after it that are here; nothing once all are handed out."""
        self._heard_s = self._next_s = self.means.clock()  # nobody listened since the last time
        self._listen(0.0)
        while not self._stopped:
            if (ready := self.order.hand_out()) or self.order.over:
                return ready
            self._look_after(self.means.clock())
            self._ask(self.means.clock())
            self._listen(LOOK_S)
        return []

    # --- out

    def _ask(self, now_s: float) -> None:
        """Ask for what the window has room for; for one part, until the model has answered."""
        if now_s < self._not_before_s:
            return
        missing = self.order.missing()
        for number in missing if self._met else missing[:1]:
            if number not in self._sent:
                if not self._sent:
                    self._heard_s = max(self._heard_s, now_s)
                self._requests += 1
                self._sent[number] = _Sent(self._requests, now_s, now_s)
                self._send(number, NO_FLAGS)

    def _send(self, number: int, flags: Flag) -> None:
        size, label = self.order.size, self.label or self._class
        ask = AskPart(
            task=self.task, need=self.need, stream=self.order.stream, total=self.order.total, size=size, number=number,
            samples=[list(s) for s in self._samples[number * size : (number + 1) * size]], handed=self.order.handed,
        )  # fmt: skip
        header = Header(
            type=PacketType.QUERY, flags=flags, traffic_class=TrafficClass.QUERY, object_id=label,
            owner=self.means.address, transfer_id=(self._first_id + number) % IDS, timestamp_us=now_us(),
        )  # fmt: skip
        self._ports.send(header, encode_message(ask), label)

    # --- in

    def _number(self, transfer_id: int) -> int:
        return (transfer_id - self._first_id) % IDS

    def _awaits(self, transfer_id: int) -> bool:
        return self._number(transfer_id) < self.order.parts

    def _listen(self, timeout_s: float) -> None:
        for header, message, peer in self._ports.wait(timeout_s):
            self._heard(self._number(header.transfer_id), message, peer, self.means.clock())

    def _heard(self, number: int, message: Message, peer: Peer, now_s: float) -> None:
        if isinstance(message, StreamPart):
            if message.number == number:
                self._arrived(message, peer, now_s)
        elif isinstance(message, State):  # it has the part, which waits for its turn
            self._is_there(message, now_s)
        elif number in self._sent and peer[0] not in self._left.values():
            if isinstance(message, Busy):
                self._left[message.state.label] = peer[0]
            self._elsewhere(str(getattr(message, "reason", type(message).__name__)), now_s, refused=True)

    def _arrived(self, part: StreamPart, peer: Peer, now_s: float) -> None:
        if not self.order.take(part):
            return
        sent = self._sent.pop(part.number, None)
        if sent is not None and not sent.tries:
            took_s = now_s - sent.first_s
            self._usual_s += (took_s - self._usual_s) * (0.2 if self._usual_s else 1.0)
            for other in self._sent.values():
                other.passed += other.order < sent.order
        if self._is_there(part.state, now_s):
            self.label = self.label or part.state.label
            self._met, self._address = True, peer[0]
            self._ports.answers(self.label, peer[0])

    def _is_there(self, state: State, now_s: float) -> bool:
        """Note that the model that is asked is there; False where this is one that was left."""
        if state.label in self._left:
            return False
        self._heard_s = now_s
        return True

    # --- looked after

    def _look_after(self, now_s: float) -> None:
        """Ask again for what is overdue, another model where this one is silent; ``StreamBroken`` in the end."""
        self._lose_patience(now_s)
        usual_s, silent_s = self._usual_s, now_s - self._heard_s
        if self._sent and (silent_s > max(SILENT_S, 4 * usual_s) or (silent_s > ODD_S and self._is_gone())):
            self._elsewhere("it says nothing", now_s, refused=False)
            return
        for number, sent in self._sent.items():
            due_s = max(AGAIN_S[min(sent.tries, len(AGAIN_S) - 1)], 2 * usual_s)
            if now_s - sent.sent_s > due_s or sent.passed >= PASSED:
                sent.sent_s, sent.tries, sent.passed, sent.order = now_s, sent.tries + 1, 0, self._requests
                self.repeats += 1
                self._send(number, Flag.REPEATED)

    def _lose_patience(self, now_s: float) -> None:
        if now_s - self._next_s <= PATIENCE_S:
            return
        number, size = self.order.handed, self.order.size
        first, last = number * size + 1, min((number + 1) * size, self.order.total)
        why = f" (last word: {self._reason})" if self._reason else ""
        raise StreamBroken(
            f"part {number + 1} of {self.order.parts} (samples {first} to {last}) did not come in {PATIENCE_S:g} s"
            f"{why}; the {number} before it are handed out, ask the rest again"
        )

    def _elsewhere(self, reason: str, now_s: float, *, refused: bool) -> None:
        """Leave the model that is asked; what is missing is asked of another one, if there is one."""
        self._reason = reason
        if self.label:
            self._left[self.label] = self._address
        known = [k for k in self._models(refused) if k.label not in self._left]
        if not known and refused and self._nothing_came:
            raise TerminalRefused(reason)
        if known:
            self.label = known[0].label
        else:  # once more from the beginning: who said no may say yes in a while
            self.label, self._not_before_s = 0, now_s + PAUSE_S
            self._left.clear()
        self._ports.forget(self.label or self._class)
        self._met, self._address = False, ""
        self._sent.clear()
        self._heard_s = self.means.clock()

    def _is_gone(self) -> bool:
        """Ask the control centre, once in a silence, whether the model that is asked serves the class no more."""
        if not self.label or self._asked_s == self._heard_s:
            return False
        self._asked_s = self._heard_s
        models = self._models(refused=False)
        return bool(models) and self.label not in {k.label for k in models}

    @property
    def _nothing_came(self) -> bool:
        return not self.order.handed and len(self.order.missing()) == min(self.order.window, self.order.parts)

    def _models(self, refused: bool) -> Sequence[Known]:
        """Return the models of the class, best first, by the word of the control centre."""
        try:
            return self.means.replicas().replicas
        except DccRefused as error:
            self._reason = str(error)
            if refused and self._nothing_came:
                raise TerminalRefused(str(error)) from None
        except DaitnError:  # it says nothing: the switches know what they knew
            pass
        return ()
