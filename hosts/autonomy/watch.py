"""Who sent an autonomous object on keeps a copy until it has gone on from there, too: no control centre would miss it.

The next holder is asked now and then. Where it is silent, or knows nothing of the object, ``PATIENCE`` times running,
the copy is sent elsewhere. A holder that was only cut off may then go on as well: the owner takes what comes first.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from hosts.autonomy.probing import ask
from hosts.terminal.terminal import Terminal
from packets.errors import DaitnError
from packets.transport import OutgoingObject

LOOK_S = 3.0
PATIENCE = 3
MAX_WATCHED = 8


class Watch:
    """Follows the objects that one terminal has sent on, ``MAX_WATCHED`` of them at most."""

    def __init__(self, terminal: Terminal) -> None:
        self.terminal = terminal
        self._room = threading.BoundedSemaphore(MAX_WATCHED)

    def follow(self, address: str, obj: OutgoingObject, again: Callable[[], None]) -> None:
        """Watch over an object that an address has just taken; ``again`` sends it elsewhere."""
        if self.terminal.stopping.is_set() or not self._room.acquire(blocking=False):
            return
        threading.Thread(target=self._see_through, args=(address, obj, again), name="watch", daemon=True).start()

    def _see_through(self, address: str, obj: OutgoingObject, again: Callable[[], None]) -> None:
        lost = False
        try:
            lost = self._lost(address, obj)
        finally:
            self._room.release()
        if not lost:
            return
        try:
            again()
        except DaitnError as error:
            self.terminal.complain(str(error), object_id=obj.object_id)

    def _lost(self, address: str, obj: OutgoingObject) -> bool:
        """Wait until the object has gone on from an address (False), or that one has lost it."""
        missed = 0
        while missed < PATIENCE:
            if self.terminal.stopping.wait(LOOK_S):
                return False
            heard = ask(self.terminal, address, obj.object_id)
            known = heard is not None and heard.reply.last_visit >= obj.visit
            if heard is not None and known and not (heard.reply.last_visit == obj.visit and heard.reply.at_work):
                return False
            missed = 0 if known else missed + 1
        return True
