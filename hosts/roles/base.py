"""What all roles share: how an object that arrives gets its order, how a question is answered, how strangers are met.

Nothing that comes from the network ends an agent: a duplicate is dropped, an object without an order or with bytes that
are no model is an error event, and the agent goes on.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec

from hosts.autonomy.runtime import Itself
from hosts.control import Command
from hosts.errors import BadCommand, DccSilent, HostError
from hosts.gossip.holding import ByHolder, answered, is_question
from hosts.learning.errors import LearningError
from hosts.process.memory import give_back
from hosts.terminal.custody import FromDcc
from hosts.terminal.guide import ByDcc, Guide
from hosts.terminal.parcels import keep_parcel, send_parcel
from hosts.terminal.recent import Recent as Recent
from hosts.terminal.resources import memory_left_mib
from hosts.terminal.terminal import Terminal
from packets.aats.probe import Probe
from packets.distributed.asking import AskOffers, AskPlan
from packets.distributed.gossip import News, Talk
from packets.errors import DaitnError
from packets.labels import DCC_ADDRESS
from packets.messages import (
    Ack,
    Answer,
    AnyMessage,
    Copy,
    Halt,
    Message,
    Order,
    Pull,
    Recalibrate,
    Refused,
    Remeasured,
    Retire,
    Revoked,
    VisitDone,
    decode_message,
    encode_message,
)
from packets.transport import OutgoingObject, ReceivedObject
from packets.wire import Flag, Header, PacketType

OfModels = Copy | Retire | Recalibrate | Remeasured
Action = Callable[[ReceivedObject, Order], None]
Peer = tuple[str, int]
_MAX_VISIT = 0xFFFF
_QUESTIONS = {PacketType.QUERY, PacketType.ANNOUNCE, PacketType.TELEMETRY, PacketType.PROBE}


class Role:
    """A terminal's part in the work. Subclasses fill ``actions`` (by the order's word), ``commands`` and ``answer``.

    ``gossiped(talk, address)``: takes what other terminals of a distributed K-AS say (None: it is in none).
    """

    def __init__(self, terminal: Terminal) -> None:
        self.terminal = terminal
        self.actions: dict[str, Action] = {"keep": lambda obj, order: keep_parcel(terminal, obj)}
        self.commands: dict[str, Callable[[Command], Command]] = {
            "send": lambda command: send_parcel(terminal, command)
        }
        self.itself = Itself(terminal, lambda: self.attributes())
        self._by_dcc = ByHolder(terminal, terminal.house) if terminal.house else ByDcc(terminal)
        self._minding = ThreadPoolExecutor(1, thread_name_prefix="house")
        self.gossiped: Callable[[Talk, str], News] | None = None
        self._lock = threading.Lock()
        self._seen: Recent[bool] = Recent()
        self._halted: Recent[str] = Recent()
        self._answered: Recent[tuple[bytes, PacketType] | None] = Recent()

    # --- what a role says of itself ---

    def attributes(self) -> dict[str, Any]:
        """Return what the DCC may know of this terminal now (names: ``packets.messages.Register``)."""
        meter = self.terminal.meter
        return {
            "compute_samples_per_s": round(meter.samples_per_s, 1),
            "memory_mib": round(memory_left_mib(), 1),
            "queue": self.terminal.queue,
            "load": round(meter.load(), 2),
            "reachable": not self.terminal.leaving,
        }

    def start(self) -> None:
        """Begin, once registered."""

    def tick(self) -> None:
        """Look after what waits; called about twice a second."""

    def command(self, command: Command) -> Command:
        """Do what the person at this terminal asks; ``BadCommand`` names what may be asked."""
        run = self.commands.get(command["op"])
        if run is None:
            known = ", ".join(sorted([*self.commands, "state"]))
            raise BadCommand(
                f"{self.terminal.name} ({self.terminal.plan.role}) has no op {command['op']!r}; it has: {known}"
            )
        return run(command)

    def drift_world(self, command: Command) -> None:
        """The world that this terminal's samples come from changes: {"group", "seed"}; ``BadCommand``."""
        try:
            self.terminal.task.drift(str(command.get("group") or ""), int(command.get("seed") or 0))
        except LearningError as error:
            raise BadCommand(str(error)) from None

    # --- objects ---

    def object_arrived(self, obj: ReceivedObject) -> None:
        """Take a whole, verified object from the transport (in the transport's thread: only note it and hand it on)."""
        key = (obj.object_id, obj.visit)
        with self._lock:
            if key in self._seen:
                self.terminal.emit(
                    "object.duplicate", object_id=obj.object_id, visit=obj.visit, node=self.terminal.name
                )
                return
            self._seen.note(key, True)
        self.terminal.emit(
            "object.arrived", object_id=obj.object_id, visit=obj.visit, node=self.terminal.name, sender=obj.sender,
            bytes=len(obj.payload), seconds=obj.seconds, retransmissions=obj.duplicates, packets=obj.packets,
            goodput_mbps=len(obj.payload) * 8e-6 / obj.seconds if obj.seconds > 0 else 0.0,
        )  # fmt: skip
        if not self.terminal.submit(lambda: self._handle(obj)):
            self._forget(obj)
            self._complain_of(obj, "no room for it, dropped")

    def _handle(self, obj: ReceivedObject) -> None:
        try:
            self._obey(obj)
        except DccSilent as error:
            self._forget(obj)  # a later copy may find the DCC awake
            self._complain_of(obj, str(error))
        except (DaitnError, LearningError) as error:
            self._complain_of(obj, str(error))
            self.itself.lost(obj.object_id, obj.visit)
        except Exception as error:
            self._complain_of(obj, repr(error))
            self.itself.lost(obj.object_id, obj.visit)
        finally:
            give_back()

    def _obey(self, obj: ReceivedObject) -> None:
        guide: Guide = self.itself if self.itself.steers(obj) else self._by_dcc
        with self.terminal.activities.doing("receiving", obj.object_id):
            obj, order = guide.take(obj)
        action = self.actions.get(order.action)
        if action is None:
            raise HostError(f"the order is {order.action!r}, which a {self.terminal.plan.role} terminal does not do")
        action(obj, order)

    def guide(self, object_id: int, visit: int) -> Guide:
        """Return who steers an object that is here at a stop."""
        return self.itself if self.itself.holds(object_id, visit) else self._by_dcc

    def go_on(self, obj: ReceivedObject, payload: bytes) -> None:
        """Let an object go to its next stop, with what has become of it here."""
        self.guide(obj.object_id, obj.visit).go_on(self.next_launch(obj, payload))

    def _complain_of(self, obj: ReceivedObject, what: str) -> None:
        text = f"object {obj.object_id:#x}, visit {obj.visit}, at {self.terminal.name}: {what}"
        self.terminal.complain(text, object_id=obj.object_id)

    def _forget(self, obj: ReceivedObject) -> None:
        with self._lock:
            self._seen.pop((obj.object_id, obj.visit), None)

    def next_launch(self, obj: ReceivedObject, payload: bytes) -> OutgoingObject:
        """Return the object as it goes on from here, one stop later; ``HostError`` when it has made all its stops."""
        if obj.visit >= (obj.visit_limit or _MAX_VISIT):
            raise HostError(f"its limit of {obj.visit_limit or _MAX_VISIT} stops is reached: not launched again")
        return OutgoingObject(
            object_id=obj.object_id, type=obj.type, payload=payload, owner=obj.owner,
            visit=obj.visit + 1, visit_limit=obj.visit_limit, requirements=obj.requirements, mandate=obj.mandate,
        )  # fmt: skip

    def give_up_visit(self, obj: ReceivedObject, order: Order, why: str, *, lost: bool) -> None:
        """Tell that a visit came to nothing. ``lost``: the object is unusable; else it goes on as it came."""
        self._complain_of(obj, why)
        name = self.terminal.name
        done = VisitDone(
            name=name, object_id=obj.object_id, visit=obj.visit, data_node=order.data_node or name, samples=0,
            epochs=0.0, loss=0.0, train_s=0.0, problem=why[:400], lost=lost,
        )  # fmt: skip
        self.guide(obj.object_id, obj.visit).done(done)
        if not lost:
            self.go_on(obj, bytes(obj.payload))

    # --- questions of other terminals ---

    def halted(self, object_id: int) -> str:
        """Return why work on an object is to stop ('' when it is not)."""
        return self._halted.get(object_id, "")

    def serve_dcc(self, message: OfModels) -> Message:
        """Do what the DCC wants with a deployed model; a role that serves or owns models overrides this."""
        return Refused(reason=f"{self.terminal.name} has no models to {type(message).__name__.lower()}")

    def _from_dcc(self, message: Pull | Halt | Revoked | OfModels | FromDcc) -> Message:
        if isinstance(message, OfModels):
            return self.serve_dcc(message)
        if isinstance(message, FromDcc):
            return self.terminal.mover.obey(message)
        if isinstance(message, Halt):
            self._halted.note(message.object_id, message.reason or "halted by the DCC")
        elif isinstance(message, Revoked):
            self.terminal.refuse(message.names)
        else:
            if not message.attributes:
                self.terminal.network.say_again()  # it was away
            self.terminal.pulled(list(message.attributes))
        return Ack()

    def answer(self, message: AnyMessage) -> Message:
        """Answer another terminal's question; a role that takes more than probes overrides this."""
        if isinstance(message, Probe):
            return self.itself.told(message)
        return Refused(reason=f"{self.terminal.name} takes no {message.__class__.__name__}")

    def message_arrived(self, header: Header, payload: bytes, peer: Peer) -> None:
        """Take a question from the transport (in its thread); a repeated one is worked on once."""
        if header.type is PacketType.RESPONSE:
            self._answer_arrived(payload, peer)
        if header.type not in _QUESTIONS or header.flags & Flag.REPLY:
            return
        if header.type is PacketType.PROBE and not payload:
            return  # its DCC knocks: whoever lives takes no notice
        key = (peer, header.transfer_id)
        with self._lock:
            repeated, earlier = key in self._answered, self._answered.get(key)
            if not repeated:
                self._answered.note(key, None)
        if repeated:
            if earlier is not None:
                self.terminal.network.reply(header, earlier[0], peer, type=earlier[1])
        elif peer[0] == DCC_ADDRESS and self.terminal.house and is_question(payload):
            self._minding.submit(self._answer, header, payload, peer, key)
        elif peer[0] == DCC_ADDRESS or header.type is PacketType.PROBE:
            self._answer(header, payload, peer, key)  # at once, whatever this terminal is busy with
        elif not self.terminal.submit(lambda: self._answer(header, payload, peer, key)):
            with self._lock:
                self._answered.pop(key, None)

    def _answer_arrived(self, payload: bytes, peer: Peer) -> None:
        """An answer to another terminal's query, which wants it here (``Ask.answer_to``): say so."""
        with contextlib.suppress(msgspec.DecodeError):
            answer = decode_message(payload)
            if isinstance(answer, Answer):
                self.terminal.emit(
                    "answer.received", node=self.terminal.name, answer=answer.answer, confidence=answer.confidence,
                    answered_by=answer.answered_by, sender=peer[0],
                )  # fmt: skip

    def _answer(self, header: Header, payload: bytes, peer: Peer, key: Hashable) -> None:
        """Work an answer out and send it; what is no message of ours gets an ERROR packet with words in it."""
        kind = PacketType.RESPONSE if header.type is PacketType.QUERY else header.type
        try:
            answer = encode_message(self._answer_or_refuse(decode_message(payload), peer))
        except msgspec.DecodeError as error:
            self.terminal.emit("packet.refused", reason="message", node=self.terminal.name, sender=peer[0])
            kind, answer = PacketType.ERROR, f"no message of ours: {str(error)[:200]}".encode()
        with self._lock:
            self._answered.note(key, (answer, kind))
        try:
            self.terminal.network.reply(header, answer, peer, type=kind)
        except DaitnError as error:
            self.terminal.complain(str(error))

    def _answer_or_refuse(self, message: AnyMessage, peer: Peer) -> Message:
        try:
            if isinstance(message, Pull | Halt | Revoked | OfModels | FromDcc):
                if peer[0] != DCC_ADDRESS:
                    return Refused(reason=f"{type(message).__name__} is for the DCC to say")
                return self._from_dcc(message)
            if isinstance(message, AskOffers | AskPlan) and self.terminal.house and peer[0] == DCC_ADDRESS:
                return answered(self.terminal.house, message)
            if isinstance(message, Talk) and self.gossiped:
                return self.gossiped(message, peer[0])
            self._check_speaker(message, peer)
            return self.answer(message)
        except (DaitnError, LearningError) as error:
            return Refused(reason=str(error)[:400])
        except Exception as error:
            self.terminal.complain(f"question of {peer[0]} to {self.terminal.name}: {error!r}")
            return Refused(reason=f"{self.terminal.name} failed on this question")

    def _check_speaker(self, message: AnyMessage, peer: Peer) -> None:
        """Nobody speaks for another: a message's name is that of the certificate at its source address."""
        named = getattr(message, "name", None)
        if self.terminal.guard is None or named is None or named == (known := self.terminal.speaker(peer[0])):
            return
        self.terminal.emit("packet.refused", reason="holder", node=self.terminal.name, sender=peer[0])
        raise HostError(f"{known or peer[0]} may not speak for {named}")
