"""Custody: who launched an object keeps it until it is whole one stop further on, and moves it when the DCC says so.

A rendezvous may die with the object in its hands; then whoever sent it there launches it again, to wherever the network
leads it now.  Memory is bounded: at most ``MAX_OBJECTS`` and ``MAX_BYTES``, the oldest go first.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import OrderedDict
from collections.abc import Callable

from hosts.terminal.work import Submit
from packets.errors import TransportError
from packets.events import Emit
from packets.messages import Ack, HandOver, LaunchAgain, Message, Refused, Release
from packets.transport import OutgoingObject, Transfer
from packets.wire import PacketType

MAX_OBJECTS = 8
MAX_BYTES = 128 << 20
HAND_OVER_S = 30.0
FromDcc = LaunchAgain | HandOver | Release


class Custody:
    """The objects that a terminal launched and may have to launch again. ``under_way``: it is being sent right now."""

    def __init__(self, max_objects: int = MAX_OBJECTS, max_bytes: int = MAX_BYTES) -> None:
        self._max_objects, self._max_bytes = max_objects, max_bytes
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[int, int], OutgoingObject] = OrderedDict()

    def keep(self, obj: OutgoingObject) -> None:
        """Keep a model that is being launched; other objects make one journey and are their owner's anyway."""
        if obj.type is not PacketType.MODEL_SHARD:
            return
        with self._lock:
            self._kept[obj.object_id, obj.visit] = obj
            while len(self._kept) > self._max_objects or self._size() > self._max_bytes:
                self._kept.popitem(last=False)

    def _size(self) -> int:
        return sum(len(obj.payload) for obj in self._kept.values())

    def get(self, object_id: int, visit: int) -> OutgoingObject | None:
        """Return an object as it was launched for a visit, if it is still here."""
        with self._lock:
            return self._kept.get((object_id, visit))

    def release(self, object_id: int, visit: int) -> None:
        """Forget an object, and what was launched of it before."""
        with self._lock:
            for key in [k for k in self._kept if k[0] == object_id and k[1] <= visit]:
                del self._kept[key]

    def __len__(self) -> int:
        return len(self._kept)


class Mover:
    """Does what the DCC asks of a holder. Never waits for a transfer: it is called on the transport's own threads."""

    def __init__(
        self,
        name: str,
        custody: Custody,
        *,
        relaunch: Callable[[int, int, bool], bool],
        hand_over: Callable[[int, int, str], Transfer | None],
        launch: Callable[[OutgoingObject], object],
        submit: Submit,
        emit: Emit,
    ) -> None:
        self._name, self._custody, self._submit, self._emit = name, custody, submit, emit
        self._relaunch, self._hand_over, self._launch = relaunch, hand_over, launch
        self._handing_over: set[Transfer] = set()

    def obey(self, message: FromDcc) -> Message:
        """Do it, or say why not."""
        match message:
            case LaunchAgain():
                return self._launch_again(message)
            case HandOver():
                return self._pass_on(message)
            case Release():
                self._custody.release(message.object_id, message.visit)
                return Ack()

    def _launch_again(self, message: LaunchAgain) -> Message:
        if self._relaunch(message.object_id, message.visit, message.former_lives):
            return Ack()
        kept = self._custody.get(message.object_id, message.visit)
        if kept is None:
            return Refused(reason=f"{self._name} does not hold what it launched for visit {message.visit} any more")
        return Ack() if self._submit(lambda: self._repeat(kept)) else Refused(reason=f"{self._name} is full")

    def _repeat(self, kept: OutgoingObject) -> None:
        try:
            self._launch(kept)
        except Exception as error:
            self._emit("error", text=f"{self._name} could not launch again: {error}"[:400], object_id=kept.object_id)

    def _pass_on(self, message: HandOver) -> Message:
        transfer = self._hand_over(message.object_id, message.visit, message.address)
        if transfer is None:
            return Refused(reason=f"{self._name} holds nothing of it")
        self._handing_over.add(transfer)
        threading.Thread(target=self._see_through, args=(message, transfer), name="hand-over", daemon=True).start()
        return Ack()

    def wait(self, timeout_s: float) -> None:
        """Return when nothing is being handed over (any more)."""
        end = time.monotonic() + timeout_s
        for transfer in list(self._handing_over):
            with contextlib.suppress(TransportError):
                transfer.result(max(0.0, end - time.monotonic()))

    def _see_through(self, message: HandOver, transfer: Transfer) -> None:
        about = {"object_id": message.object_id, "visit": message.visit, "node": self._name}
        try:
            stats = transfer.result(HAND_OVER_S)
        except TransportError as error:
            transfer.cancel()
            self._emit("warning", text=f"{self._name} could not hand over: {error}"[:400], **about)
        else:
            self._emit("object.handed_over", **about, bytes=stats.bytes, seconds=stats.seconds,
                       packets=stats.packets, goodput_mbps=stats.goodput_mbps)  # fmt: skip
        finally:
            self._handing_over.discard(transfer)
