"""Authenticity: what a terminal hands up is looked at before anything is done with it, what goes down to it is signed.

A terminal is known by the port it hangs on (declared), the address it sends from, and its certificate; all three must
agree.  Without a keeper (``mn --custom``, scenarios with ``security: off``) everything passes as it is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from controller.store import Store
from packets.events import Emit
from packets.labels import DCC_LABEL, is_class_label
from packets.security.keeper import Keeper
from packets.security.seal import Refusal
from packets.wire import SHARD_TYPES, Flag, Header, encode
from topologies.plan import HostPlan

EVENTS_PER_S = 20.0
WORDS = ("holder", "owner")


class Authenticity:
    """Checks for one control centre. ``refused`` counts by reason."""

    def __init__(self, keeper: Keeper | None, clock: Callable[[], float], emit: Emit, store: Store) -> None:
        self.keeper, self.clock, self.emit = keeper, clock, emit
        self.refused: Counter[str] = Counter()
        self._told: Counter[str] = Counter()
        self._events, self._events_at = EVENTS_PER_S, clock()
        self._launched = store.kept("signed launches", int, tuple[int, str])

    def passes(self, host: HostPlan, header: Header, raw: bytes, label: int) -> bool:
        """Tell whether a packet of this terminal is what it says it is; a refused one is counted and told."""
        if self.keeper is None:
            return True
        refusal = self._stranger(self.keeper, host) or self._check(self.keeper, host, header, raw, label)
        if refusal is not None:
            self._refuse(refusal, host, header)
        return refusal is None

    @staticmethod
    def _stranger(keeper: Keeper, host: HostPlan) -> Refusal | None:
        known = keeper.peer(host.address)
        if known is None:
            return Refusal("holder", f"the directory knows nobody at {host.address}")
        if (known.name, known.role) != (host.name, host.role):
            return Refusal("holder", f"{host.address} is {known.name} ({known.role}), not {host.name} ({host.role})")
        return None

    def _check(self, keeper: Keeper, host: HostPlan, header: Header, raw: bytes, label: int) -> Refusal | None:
        source = host.address, 0
        if label == DCC_LABEL or is_class_label(label) or header.type not in SHARD_TYPES:
            return keeper.check_request(header, raw, source)
        if header.flags & Flag.LAUNCH:
            refusal = keeper.check_launch(header, raw, host.address)
            if refusal is None:
                self._launched[header.object_id] = header.visit, host.name
            return refusal
        if self._launched.get(header.object_id) != (header.visit, host.name):
            return Refusal("unsigned", f"a shard of what {host.name} has not launched")
        return None  # its rules are gone in mid-transfer: sealed for its rendezvous, not for us

    def seal(self, host: HostPlan, header: Header, payload: bytes) -> bytes:
        """Return a packet of ours as it goes to a terminal: with the time and our MAC."""
        if self.keeper is None:
            return encode(header, payload)
        return self.keeper.sign_request(header, payload, host.address)

    def spoofed(self, host: HostPlan, source: str) -> None:
        """Note a packet that a terminal sent from another's address; its switch let it go no further."""
        self._note(Refusal("source", f"{host.name} sent from {source}, its address is {host.address}"), host)

    def refuse(self, why: str, host: HostPlan, header: Header) -> None:
        """Note a packet that was authentic and is refused all the same; ``why`` may begin with a reason's word."""
        word, _, text = why.partition(": ")
        refusal = Refusal(word, text) if word in WORDS else Refusal("steering", why[:400])
        self._refuse(refusal, host, header)

    def _refuse(self, refusal: Refusal, host: HostPlan, header: Header) -> None:
        self._note(refusal, host, type=header.type.name, object_id=header.object_id, visit=header.visit)

    def _note(self, refusal: Refusal, host: HostPlan, **about: object) -> None:
        """Count a refusal; tell of it, unless there were too many just now."""
        self.refused[refusal] += 1
        now = self.clock()
        self._events = min(EVENTS_PER_S, self._events + (now - self._events_at) * EVENTS_PER_S)
        self._events_at = now
        if self._events >= 1.0:
            self._events -= 1.0
            self._told[refusal] += 1
            self.emit(
                "packet.refused", reason=refusal.text if refusal == "steering" else str(refusal),
                detail=refusal.text, node=host.name, kas=host.kas,
                count=self.refused[refusal], **about,
            )  # fmt: skip

    def tell(self) -> None:
        """Tell of those that were too many to tell one by one (periodic)."""
        for reason, count in self.refused.items():
            if count > self._told[reason]:
                self.emit("packet.refused", reason=str(reason), more=count - self._told[reason], count=count)
                self._told[reason] = count
