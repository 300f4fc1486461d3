"""Knowledge of other K-AS, heard, chosen and passed on (Adj-RIB-In, Loc-RIB, Adj-RIB-Out); no socket, no clock.

Every hop makes a path longer and the shortest is chosen, so the choice settles whatever the order of events.  A path
that holds our own K-AS, or one twice, is a loop and refused; so is what the sender cannot know or nobody signed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import pairwise

from controller.border.kbgp.damping import MOVED, WITHDRAWN, Damping, Penalty
from packets.kbgp.knowledge import MAX_KNOWLEDGE_BYTES, Knowledge, contradictions, text_to_sign
from packets.kbgp.messages import ADVERTISEMENTS, MAX_PATH, Advertisement, Update

Key = tuple[str, str]
Verify = Callable[[Advertisement], bool]


def take_word(advertisement: Advertisement) -> bool:
    """Verify nothing: an open network."""
    return True


@dataclass(frozen=True)
class Peer:
    """The far end of one session. ``internal``: another gateway of our own K-AS."""

    key: Key
    kas: int
    cost: float = 0.0
    internal: bool = False


@dataclass(frozen=True)
class Route:
    """A way to knowledge of a K-AS. ``peer`` None: it is our own; ``stale``: whoever told it is restarting;
    ``since_s``: when its path was first heard.
    """

    advertisement: Advertisement
    peer: Peer | None = None
    stale: bool = False
    since_s: float = field(default=0.0, compare=False)

    @property
    def path(self) -> list[int]:
        """The K-AS on the way, the neighbour first, the origin last."""
        return self.advertisement.path

    def rank(self) -> tuple[object, ...]:
        """Order routes: the least is the best."""
        if self.peer is None:
            return (False, 0)
        return self.stale, len(self.path), self.peer.internal, self.peer.cost, self.path, self.peer.key


@dataclass
class _Side:
    """What one session has brought, and what was told to it."""

    peer: Peer
    heard: dict[int, Route] = field(default_factory=dict)
    told: dict[int, Advertisement] = field(default_factory=dict)


class Rib:
    """All routes of one speaker. ``links``: neighbouring pairs of K-AS (empty: anybody may be anybody's neighbour)."""

    def __init__(
        self,
        kas: int,
        links: Iterable[Collection[int]] = (),
        damping: Damping | None = None,
        verify: Verify = take_word,
    ) -> None:
        self.kas, self.verify = kas, verify
        self.damping = damping or Damping()
        self.links = {frozenset(link) for link in links}
        self.refused: Counter[str] = Counter()
        self.best: dict[int, Route] = {}
        self._own: Advertisement | None = None
        self._sides: dict[Key, _Side] = {}
        self._touched = False
        self._penalties: dict[tuple[Key, int], Penalty] = {}

    # --- what is heard -------------------------------------------------------------------------------------------

    def originate(self, knowledge: Knowledge | None, signature: bytes = b"") -> None:
        """Say what our own K-AS tells of itself (None: nothing any more)."""
        self._touched = True
        self._own = Advertisement(path=[self.kas], knowledge=knowledge, signature=signature) if knowledge else None

    def up(self, peer: Peer) -> None:
        """Start a session: all is told anew; what was kept from before stays until it is told anew or forgotten."""
        held = self._sides.get(peer.key)
        self._sides[peer.key] = _Side(peer, held.heard if held else {})

    def down(self, key: Key, now_s: float, *, keep: bool) -> None:
        """End a session; ``keep``: its neighbour restarts, and its knowledge is kept as stale."""
        side = self._sides.get(key)
        if side is None:
            return
        side.told, self._touched = {}, True
        if keep:
            side.heard = {kas: replace(route, stale=True) for kas, route in side.heard.items()}
            return
        for kas in list(side.heard):
            self._lose(side, kas, now_s)
        del self._sides[key]

    def end_of_rib(self, key: Key) -> None:
        """A neighbour has told all: what it did not tell again is gone."""
        side = self._sides.get(key)
        if side is not None:
            side.heard = {kas: route for kas, route in side.heard.items() if not route.stale}
            self._touched = True

    def learn(self, key: Key, update: Update, now_s: float) -> list[str]:
        """Take an update; returns a reason for everything in it that is refused, which counts as withdrawn."""
        side, reasons, self._touched = self._sides[key], list[str](), True
        origins = Counter([*update.withdrawn, *(a.origin for a in update.advertised)])
        for kas in update.withdrawn:
            self._lose(side, kas, now_s)
        for advertisement in update.advertised:
            origin = advertisement.origin
            reason = "contradictory" if origins[origin] > 1 else self._why_not(side.peer, advertisement)
            if reason:
                self.refused[reason] += 1
                reasons.append(f"{reason}: K-AS {origin} by way of {advertisement.path}")
                self._lose(side, origin, now_s)
                continue
            before = side.heard.get(origin)
            same = before is not None and before.path == advertisement.path
            if before is not None and not same:
                self._flap(side.peer, origin, MOVED, now_s)
            since_s = before.since_s if before is not None and same else now_s
            side.heard[origin] = Route(advertisement, side.peer, since_s=since_s)
        return reasons

    def _why_not(self, peer: Peer, told: Advertisement) -> str:
        """Return why an advertisement is refused, in one word; "" when it is not."""
        path, own = told.path, [] if peer.internal else [self.kas]
        if self.kas in path or len(set(path)) < len(path):
            return "loop"
        if not peer.internal and path[0] != peer.kas:
            return "neighbour"
        if told.knowledge.kas != told.origin:
            return "origin"
        if self.links and any(frozenset(pair) not in self.links for pair in pairwise([*own, *path])):
            return "link"
        if any(contradictions(told.knowledge)) or self._contradicted(told):
            return "contradictory"
        if len(text_to_sign(told.knowledge)) > MAX_KNOWLEDGE_BYTES:
            return "large"
        return "" if self.verify(told) else "signature"

    def _contradicted(self, told: Advertisement) -> bool:
        """Tell whether we hold other knowledge of the same version: a K-AS says one thing at a time."""
        held = (side.heard.get(told.origin) for side in self._sides.values())
        others = (r.advertisement.knowledge for r in held if r is not None)
        return any(o.version == told.knowledge.version and o != told.knowledge for o in others)

    def _lose(self, side: _Side, kas: int, now_s: float) -> None:
        if side.heard.pop(kas, None) is not None:
            self._flap(side.peer, kas, WITHDRAWN, now_s)

    def _flap(self, peer: Peer, kas: int, amount: float, now_s: float) -> None:
        if not peer.internal:
            self._penalties.setdefault((peer.key, kas), Penalty(self.damping)).add(amount, now_s)

    # --- what is chosen ------------------------------------------------------------------------------------------

    def select(self, now_s: float) -> dict[int, Route | None]:
        """Choose anew; returns what has changed, with None for what is gone."""
        if not self._touched and not self._penalties:
            return {}
        self._touched = False
        found = {kas: min(routes, key=Route.rank) for kas, routes in self._candidates(now_s).items()}
        changed: dict[int, Route | None] = {kas: r for kas, r in found.items() if self.best.get(kas) != r}
        changed |= {kas: None for kas in self.best if kas not in found}
        self.best = found
        self._penalties = {at: p for at, p in self._penalties.items() if not p.forgotten(now_s)}
        return changed

    def _candidates(self, now_s: float) -> dict[int, list[Route]]:
        found: dict[int, list[Route]] = {}
        damped: dict[int, list[Route]] = {}
        for side in self._sides.values():
            for kas, route in side.heard.items():
                if not self.suppressed(side.peer.key, kas, now_s):
                    found.setdefault(kas, []).append(route)
                elif now_s - route.since_s >= self.damping.settle_s:
                    damped.setdefault(kas, []).append(route)
        for kas, routes in damped.items():
            if all(route.stale for route in found.get(kas, [])):
                found.setdefault(kas, []).extend(routes)
        if self._own is not None:
            found[self.kas] = [Route(self._own)]
        return found

    def suppressed(self, key: Key, kas: int, now_s: float) -> bool:
        """Tell whether a route is damped."""
        penalty = self._penalties.get((key, kas))
        return penalty is not None and penalty.suppressed(now_s)

    def ways(self, kas: int, now_s: float, avoid: Collection[int] = ()) -> Iterator[Route]:
        """Yield the live ways to a K-AS that pass none of those to ``avoid``, the best first."""
        routes = self._candidates(now_s).get(kas, [])
        for route in sorted(routes, key=Route.rank):
            if route.peer is not None and not route.stale and not set(route.path) & set(avoid):
                yield route

    # --- what is passed on ---------------------------------------------------------------------------------------

    def updates(self, key: Key) -> list[Update]:
        """Return what a neighbour has to be told: the difference to what it was told before."""
        side = self._sides[key]
        due = {kas: told for kas, route in self.best.items() if (told := self._for(side.peer, route)) is not None}
        gone = sorted(kas for kas in side.told if kas not in due)
        new = [due[kas] for kas in sorted(due) if side.told.get(kas) != due[kas]]
        side.told = due
        found = [Update(withdrawn=gone)] if gone else []
        return found + [Update(advertised=part) for part in _parts(new, ADVERTISEMENTS)]

    def _for(self, peer: Peer, route: Route) -> Advertisement | None:
        """Return a route as a neighbour is told of it; None: it is not."""
        told = route.advertisement
        if peer.internal:  # every gateway hears of other K-AS first hand, or from the one that does
            return told if route.peer is not None and not route.peer.internal else None
        path = told.path if route.peer is None else [self.kas, *told.path]
        if peer.kas in path or len(path) > MAX_PATH:
            return None
        return Advertisement(path=path, knowledge=told.knowledge, signature=told.signature)


def _parts(items: list[Advertisement], size: int) -> Iterator[list[Advertisement]]:
    return (items[at : at + size] for at in range(0, len(items), size))
