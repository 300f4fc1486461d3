"""One size of ``benchmarks.control`` where terminals gossip (``hosts.gossip``), without a network.

    PYTHONMALLOC=malloc python -m benchmarks.control_gossip 10000

Up to ``MOST`` terminals all of them are here, in one process, with a clock of its own. ``bytes_per_s``: what one of
them sends, as packets on a wire (headers, answers and what is heard twice are counted), without any bound, so that
every map is whole. ``bounded``: the same within the budget that gossip has by default, the share of all terminals that
a map holds then, and the age of what it holds.

More terminals would hold more maps than this machine has memory for. So, for every size, one terminal beside one other:
``take_s`` to take a record of each of all terminals and enter it in the map (with the check of its signature, which is
measured apart, ``verify_us``, and multiplied); ``decide_s``: a cut and a decision; ``state_bytes``: gossip, map, cut.
Then everything is said anew, and it fetches what is new for some exchanges: ``bytes_per_record``, both ways together.
``pull_bytes_per_s``: that for all that all terminals say a second. What is pushed, and heard twice, comes on top.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import msgspec

from benchmarks.control_sim import OBJECT, REQUEST, SALT, allocated_bytes, domain_of
from benchmarks.control_terminals import CHANGES_PER_S, FRAME_BYTES, Vitals, framed
from controller.intelligence import Intelligence
from controller.values.decisions import JobView
from hosts.gossip.core import Gossip, Limits
from hosts.terminal.reporter import LOOK_S, differs
from packets.distributed.gossip import MAX_RECORDS, Digest, News, Record, Talk, signature_of, signed_by, signed_text
from packets.messages import decode_message, encode_message
from packets.parts import MESSAGE_ROOM
from packets.security.identity import Identity
from packets.wire import PacketType
from topologies.plan import HostPlan

MOST = 500
WARM_S, WINDOW_S, TICK_S = 6.0, 8.0, 0.1
UNIX_S = 1_700_000_000.0
EXCHANGES, FEW = 60, 12  # of the one terminal, and where each takes a second
MANY = 50_000
SIGNED = 1000
PACKET_BYTES = len(framed(b"", PacketType.PROBE, 1)) + FRAME_BYTES
UNBOUNDED = Limits(bytes_per_s=1e12, checks_per_s=1e12, held=1 << 30)


def seal(name: str, version: int, attributes: bytes) -> bytes:
    """Return what is as long as a signature: who makes and checks half a million a second in one process needs more."""
    return hashlib.blake2b(signed_text(name, version, attributes), key=name.encode(), digest_size=64).digest()


def genuine(record: Record) -> bool:
    return record.signature == seal(record.name, record.version, record.attributes)


def wire_bytes(talk: Talk) -> int:
    """Return what a message takes on the wire, in as many packets as it needs."""
    size = len(encode_message(talk))
    return size + max(1, -(-size // MESSAGE_ROOM)) * PACKET_BYTES


class Speaker:
    """One terminal that gossips: what it says of itself, and what it has heard."""

    def __init__(self, host: HostPlan, peers: Sequence[str], now_s: float, limits: Limits) -> None:
        self.name, self.sent_bytes, self.said = host.name, 0, dict[str, Any]()
        self.vitals = Vitals(host, 1, CHANGES_PER_S, now_s)
        self.core = Gossip(
            host.name, peers, lambda version, body: seal(host.name, version, body), genuine, now_s=now_s,
            born_unix_s=UNIX_S, seed="1", limits=limits,
        )  # fmt: skip
        self.published = 0

    def look(self, now_s: float) -> None:
        """Say what has changed, as the agent does (``hosts.gossip.runtime``)."""
        now = self.vitals.at(now_s)
        if self.core.due(now_s) or any(a not in self.said or differs(self.said[a], v) for a, v in now.items()):
            self.said = now
            self.core.publish(msgspec.msgpack.encode(now), now_s)
            self.published += 1


class Town:
    """All terminals of a K-AS, over a network that loses nothing."""

    def __init__(self, terminals: int, limits: Limits) -> None:
        hosts = domain_of(terminals).hosts
        names = [h.name for h in hosts]
        self.now_s = 0.0
        self.all = {h.name: Speaker(h, names, 0.0, limits) for h in hosts}

    def run(self, for_s: float) -> None:
        """Let them look and talk."""
        every = round(LOOK_S / TICK_S)
        for step in range(round(for_s / TICK_S)):
            self.now_s = round(self.now_s + TICK_S, 6)
            for number, one in enumerate(self.all.values()):
                if step % every == number % every:
                    one.look(self.now_s)
                for to, talk in one.core.tick(self.now_s):
                    self._exchange(one, self.all[to], talk)

    def _exchange(self, one: Speaker, other: Speaker, talk: Talk) -> None:
        """Tell one terminal something, take its answer, and give it what it wants."""
        answer = self._tell(one, other, talk)
        wanted = one.core.hear(other.name, answer, self.now_s).answer
        if wanted.records:
            self._tell(one, other, wanted)

    def _tell(self, one: Speaker, other: Speaker, talk: Talk) -> News:
        answer = other.core.hear(one.name, talk, self.now_s).answer
        one.sent_bytes += wire_bytes(talk)
        other.sent_bytes += wire_bytes(answer)
        return answer

    def measure(self) -> dict[str, float]:
        """Return what one terminal sends a second, and how whole and how old maps are at the end."""
        self.run(WARM_S)
        before = sum(one.sent_bytes for one in self.all.values())
        self.run(WINDOW_S)
        sent = sum(one.sent_bytes for one in self.all.values()) - before
        maps = [one.core.held(self.now_s) for one in self.all.values()]
        ages = [self.now_s - held.t_s for known in maps for held in known.values()]
        return {
            "bytes_per_s": round(sent / len(self.all) / WINDOW_S, 1),
            "held_share": round(sum(map(len, maps)) / len(self.all) ** 2, 4),
            "age_p50_s": round(statistics.median(ages), 2),
        }


def published_per_s(for_s: float = 600.0, terminals: int = 20) -> float:
    """Return how often a terminal says something of itself: by the vitals, and by what gossip says again."""
    some = [Speaker(h, [], 0.0, UNBOUNDED) for h in domain_of(terminals).hosts]
    for step in range(round(for_s / LOOK_S)):
        for one in some:
            one.look(step * LOOK_S)
    return sum(one.published for one in some) / terminals / for_s


def verify_s() -> float:
    """Return the seconds that the check of one signature takes."""
    who = Identity.new("t1", "data", "10.1.0.1", 1)
    records = [Record("t1", v, bytes(300), signature_of(who, v, bytes(300))) for v in range(1, SIGNED)]
    begun = time.perf_counter()
    assert all(signed_by(record, who.certificate) for record in records)
    return (time.perf_counter() - begun) / len(records)


class One:
    """One terminal that holds everything, beside another that does."""

    def __init__(self, terminals: int) -> None:
        self.domain = domain_of(terminals)
        self.hosts = {h.name: h for h in self.domain.hosts}
        limits = replace(UNBOUNDED, expire_s=1e9)
        names = [*self.hosts]
        empty = allocated_bytes()
        self.here = Speaker(self.domain.hosts[0], names, 0.0, limits).core
        self.mind = Intelligence(self.domain, salt=SALT)
        own_bytes = allocated_bytes() - empty
        self.there = Speaker(self.domain.hosts[1], names, 0.0, limits).core
        self.base_bytes = allocated_bytes() - own_bytes
        self.version, self.now_s, self.taken_s = 0, 1.0, 0.0

    def news(self) -> Sequence[Record]:
        """Return a new record of every terminal but this one."""
        self.version += 1
        bodies = ((h.name, msgspec.msgpack.encode(Vitals(h, 1, 1.0, 0.0).at(0.0))) for h in self.domain.hosts[1:])
        return [Record(n, self.version, body, seal(n, self.version, body)) for n, body in bodies]

    def take(self, records: Sequence[Record]) -> None:
        """Have the terminal hear all of them, as many at once as a message has."""
        for start in range(0, len(records), MAX_RECORDS):
            message = encode_message(News(records=list(records[start : start + MAX_RECORDS])))
            begun = time.perf_counter()
            news = decode_message(message)
            assert isinstance(news, News)
            for held in self.here.hear(self.there.name, news, self.now_s).fresh:
                said = msgspec.msgpack.decode(held.record.attributes, type=dict[str, Any])
                self.mind.hear(self.hosts[held.record.name], said, held.t_s)
            self.taken_s += time.perf_counter() - begun

    def decide(self) -> float:
        """Cut and decide a job's next stop."""
        begun = time.perf_counter()
        options = self.mind.offers(OBJECT, REQUEST, self.now_s).options
        asyncio.run(self.mind.next_visits(REQUEST, JobView(), options))
        return time.perf_counter() - begun

    def fetch(self, exchanges: int) -> tuple[int, int]:
        """Have it fetch what is new there; returns the bytes both ways, and the records that were new."""
        spent = fresh = 0
        for _ in range(exchanges):
            if fresh == len(self.hosts) - 2:  # of this one and the other there is nothing to fetch
                break
            self.now_s += 2.0
            digest = next(talk for _, talk in self.here.tick(self.now_s) if isinstance(talk, Digest))
            answer = self.there.hear(self.here.name, digest, self.now_s).answer
            heard = self.here.hear(self.there.name, answer, self.now_s)
            spent += wire_bytes(digest) + wire_bytes(answer)
            fresh += len(heard.fresh)
        return spent, fresh


def alone(terminals: int) -> dict[str, Any]:
    """Return what one terminal costs where so many gossip."""
    one = One(terminals)
    one.take(one.news())
    decide_s = one.decide()
    state = allocated_bytes() - one.base_bytes
    check_s = verify_s()
    for record in one.news():
        one.there.hear(one.here.name, News(records=[record]), one.now_s)
    spent, fresh = one.fetch(EXCHANGES if terminals <= MANY else FEW)
    begun = time.perf_counter()
    one.here.tick(one.now_s + 2.0)
    tick_s = time.perf_counter() - begun
    take_s = one.taken_s + (terminals - 1) * check_s
    return {
        "state_bytes": state,
        "take_s": round(take_s, 3),
        "decide_s": round(decide_s, 3),
        "s": round(take_s + decide_s, 3),
        "verify_us": round(1e6 * check_s, 1),
        "tick_s": round(tick_s, 4),
        "bytes_per_record": round(spent / fresh, 1),
        "pull_bytes_per_s": round(spent / fresh * (terminals - 1) * published_per_s(), 1),
    }


def measure(terminals: int) -> dict[str, Any]:
    """Return the figures of one size."""
    found: dict[str, Any] = {"kind": "distributed", "terminals": terminals, **alone(terminals)}
    if terminals <= MOST:
        whole = Town(terminals, UNBOUNDED).measure()
        found |= whole | {"bounded": Town(terminals, Limits()).measure()}
    return found


def main(arguments: Sequence[str]) -> int:
    """Measure one size."""
    first = One(100)
    first.take(first.news())
    first.decide()  # what is loaded at the first decision is no state
    print(json.dumps(measure(int(arguments[0]))), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
