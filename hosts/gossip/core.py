"""The rules of gossip: which records are believed and kept, what is told to whom, and how much of it.

News go at once to a few others, who pass them on (push); every second what is held is compared with one other, and both
get what they lack (push-pull anti-entropy).  No socket, no thread, no clock: ``now_s`` is the house's, chance comes
from a seed, so a thousand of these talk to each other in a test or a benchmark as they do in a network.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

import msgspec

from packets.distributed.gossip import MAX_NAMES, MAX_RECORDS, Digest, News, Record, Talk

OVERHEAD_BYTES = 120  # of a packet beside its message: IP, UDP, AI header, time sent, MAC
Sign = Callable[[int, bytes], bytes]
Verify = Callable[[Record], bool]


@dataclass(frozen=True)
class Limits:
    """How much gossip there may be. ``period_s``: between two comparisons; ``fan_out``: who gets news at once;
    ``refresh_s``: what has not changed is said again by then; ``expire_s``: what is older is not held to be so any
    more; ``away_s``: who did not answer is told nothing for so long; ``ahead_s``: how far a version may be ahead of the
    clock here; ``message_bytes``: of records in one message; ``bytes_per_s``: sent, ``checks_per_s``: of signatures, in
    a burst twice as many of each.
    """

    period_s: float = 1.0
    refresh_s: float = 4.0
    expire_s: float = 20.0
    away_s: float = 10.0
    fan_out: int = 2
    ahead_s: float = 60.0
    message_bytes: int = 4000
    bytes_per_s: float = 16_000.0
    held: int = 1024
    checks_per_s: float = 500.0


class Held(NamedTuple):
    """A record that is believed, and when its terminal reported it by the clock here."""

    record: Record
    t_s: float


class Heard(NamedTuple):
    """What there is to answer, and the records that are new here."""

    answer: News
    fresh: list[Held]


class Budget:
    """So much a second, twice that at once."""

    def __init__(self, rate_per_s: float, now_s: float) -> None:
        self._rate, self._left, self._at_s = rate_per_s, 2 * rate_per_s, now_s

    def spend(self, amount: float, now_s: float) -> bool:
        """Take some of it; False, and nothing is taken, where there is not so much."""
        self._left = min(2 * self._rate, self._left + (now_s - self._at_s) * self._rate)
        self._at_s = now_s
        if amount > self._left:
            return False
        self._left -= amount
        return True


class Gossip:
    """The gossip of one terminal. ``peers``: the names of the others in its K-AS; it believes records of no one else.

    ``sign(version, attributes)``, ``verify(record)``; ``born_unix_s``: wall clock at ``now_s``, by which versions of
    a terminal that was started again go on.  ``refused`` counts by reason: stranger, unknown, older, stale, ahead,
    full, throttled, signature.
    """

    def __init__(
        self, name: str, peers: Iterable[str], sign: Sign, verify: Verify, *, now_s: float, born_unix_s: float,
        seed: str, limits: Limits | None = None,
    ) -> None:  # fmt: skip
        self.name, self.limits = name, limits or Limits()
        self._sign, self._verify = sign, verify
        self._born_s, self._born_unix_s = now_s, born_unix_s
        self._rng = random.Random(f"{seed}/{name}")
        self._peers = sorted(set(peers) - {name})
        self._known = {name, *self._peers}
        self._held: dict[str, Held] = {}
        self._hot: dict[str, None] = {}
        self._version = 0
        self._next_s = now_s + self._rng.random() * self.limits.period_s
        self._cursor = ""
        self._away_until_s: dict[str, float] = {}
        self._bytes = Budget(self.limits.bytes_per_s, now_s)
        self._checks = Budget(self.limits.checks_per_s, now_s)
        self.refused: Counter[str] = Counter()
        self.sent: Counter[str] = Counter()

    # --- what the house tells and asks

    def publish(self, attributes: bytes, now_s: float) -> None:
        """Say of oneself what is so now."""
        self._version = max(self._version + 1, self._wall_ms(now_s))
        signature = self._sign(self._version, attributes)
        self._keep(Record(self.name, self._version, attributes, signature), now_s)

    def admit(self, name: str) -> None:
        """A terminal has joined the K-AS."""
        if name not in self._known:
            self._known.add(name)
            self._peers = sorted(self._known - {self.name})

    def dismiss(self, name: str) -> None:
        """A terminal has left the K-AS: it is told nothing more, and nothing of it is passed on."""
        if name != self.name:
            self._known.discard(name)
            self._peers = sorted(self._known - {self.name})
            self._held.pop(name, None)
            self._hot.pop(name, None)

    def held(self, now_s: float) -> dict[str, Held]:
        """Return what is believed now, by name: nothing that is older than ``expire_s``."""
        return {n: h for n, h in self._held.items() if now_s - h.t_s <= self.limits.expire_s}

    def due(self, now_s: float) -> bool:
        """Tell whether what was said of oneself must be said again, though nothing changed."""
        own = self._held.get(self.name)
        return own is None or now_s - own.t_s >= self.limits.refresh_s

    # --- what goes out

    def tick(self, now_s: float) -> list[tuple[str, Talk]]:
        """Return what to tell whom now: news, and once a period which versions are held here."""
        going: list[tuple[str, Talk]] = []
        if self._hot and self._peers:
            told, left = self._filled(list(self._hot), now_s)
            news = News(records=told)
            for peer in self._drawn(self.limits.fan_out, now_s):
                if told and self._may(news, now_s):
                    going.append((peer, news))
            if going or not told:
                self._hot = dict.fromkeys(left)
        if self._peers and now_s >= self._next_s:
            self._next_s = now_s + self.limits.period_s * (0.75 + self._rng.random() / 2)
            digest = self._digest(now_s)
            if self._may(digest, now_s):
                going += [(peer, digest) for peer in self._drawn(1, now_s)]
        return going

    def missed(self, peer: str, now_s: float) -> None:
        """A terminal has not answered: others are told instead for a while, or until it says something itself."""
        self._away_until_s[peer] = now_s + self.limits.away_s

    def _drawn(self, count: int, now_s: float) -> list[str]:
        """Draw terminals by chance, of those that answered as long as there are any."""
        there = [p for p in self._peers if self._away_until_s.get(p, now_s) <= now_s] or self._peers
        return self._rng.sample(there, min(count, len(there)))

    def _digest(self, now_s: float) -> Digest:
        """Return the versions of as many names as fit, from where the last digest ended."""
        held, size = self.held(now_s), 0
        names = sorted(n for n in held if n >= self._cursor)
        first, versions = self._cursor, dict[str, int]()
        for name in names:
            size += len(name) + 10
            if len(versions) == MAX_NAMES or size > self.limits.message_bytes:
                self._cursor = name
                break
            versions[name] = held[name].record.version
        else:
            self._cursor = ""
        return Digest(first=first, last=self._cursor, versions=versions)

    # --- what comes in

    def hear(self, sender: str, talk: Talk, now_s: float, transit_s: float = 0.0) -> Heard:
        """Take what a terminal said; ``transit_s``: how long it was under way. The answer may be empty."""
        if sender not in self._known:
            self.refused["stranger"] += 1
            return Heard(News(), [])
        self._away_until_s.pop(sender, None)
        if isinstance(talk, Digest):
            return Heard(self._answer(talk, now_s), [])
        fresh = [held for record in talk.records if (held := self._take(record, now_s, transit_s)) is not None]
        if talk.more:
            self._next_s = now_s
        answer = News(records=self._filled(talk.wants, now_s)[0])
        return Heard(answer if answer.records and self._may(answer, now_s) else News(), fresh)

    def _answer(self, digest: Digest, now_s: float) -> News:
        held = self.held(now_s)
        there = digest.versions
        within = [n for n in held if n >= digest.first and (not digest.last or n < digest.last)]
        newer = [n for n in within if held[n].record.version > there.get(n, 0)]
        self._rng.shuffle(newer)
        records, left = self._filled(newer, now_s)
        wants = [n for n, v in there.items() if n in self._known - {self.name} and v > self._version_of(n)]
        answer = News(records=records, wants=wants, more=bool(left))
        return answer if self._may(answer, now_s) else News()

    def _take(self, record: Record, now_s: float, transit_s: float) -> Held | None:
        """Believe a record, or count why not: the cheap reasons first."""
        why = self._why_not(record, now_s, record.age_s + transit_s)
        if why:
            self.refused[why] += 1
            return None
        if record.name == self.name:  # said in a former life, by a clock that was ahead
            self._version = record.version
            own = self._held.get(self.name)
            if own is not None:
                self.publish(own.record.attributes, own.t_s)
            return None
        return self._keep(record, now_s - record.age_s - transit_s)

    def _why_not(self, record: Record, now_s: float, age_s: float) -> str:
        if record.name not in self._known:
            return "unknown"
        if record.version <= self._version_of(record.name):
            return "older"
        if age_s > self.limits.expire_s:
            return "stale"
        if record.version > self._wall_ms(now_s) + 1e3 * self.limits.ahead_s:
            return "ahead"
        if record.name not in self._held and len(self._held) >= self.limits.held:
            return "full"
        if not self._checks.spend(1.0, now_s):
            return "throttled"
        return "" if self._verify(record) else "signature"

    # --- bounds

    def _filled(self, names: Iterable[str], now_s: float) -> tuple[list[Record], list[str]]:
        """Return the records of these names that one message holds, with their ages, and the names that are left."""
        records, left, size = list[Record](), list[str](), 0
        for name in names:
            held = self._held.get(name)
            if held is None or now_s - held.t_s > self.limits.expire_s:
                continue
            size += len(held.record.attributes) + len(held.record.signature) + len(name) + 24
            if len(records) == MAX_RECORDS or (records and size > self.limits.message_bytes):
                left.append(name)
                continue
            records.append(msgspec.structs.replace(held.record, age_s=round(max(0.0, now_s - held.t_s), 4)))
        return records, left

    def _may(self, talk: Talk, now_s: float) -> bool:
        """Tell whether the budget has room for a message, and count it; an empty answer is not worth counting."""
        size = len(msgspec.msgpack.encode(talk)) + OVERHEAD_BYTES
        if not self._bytes.spend(size, now_s):
            self.sent["held back"] += 1
            return False
        self.sent["messages"] += 1
        self.sent["bytes"] += size
        return True

    def _keep(self, record: Record, t_s: float) -> Held:
        self._held[record.name] = held = Held(record, t_s)
        self._hot[record.name] = None
        return held

    def _version_of(self, name: str) -> int:
        held = self._held.get(name)
        return max(held.record.version if held else 0, self._version if name == self.name else 0)

    def _wall_ms(self, now_s: float) -> int:
        return round(1e3 * (self._born_unix_s + now_s - self._born_s))
