"""Gossip between terminals: everybody comes to know, nobody is believed but of itself, and it costs what it may."""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hosts.gossip.core import Gossip, Limits
from packets.distributed.gossip import MAX_NAMES, Digest, News, Record, Talk, signature_of, signed_by, signed_text
from tests.keys import PEOPLE

UNIX_S = 1_700_000_000.0
TICK_S = 0.1


def seal(name: str, version: int, attributes: bytes) -> bytes:
    """As good as a signature where nobody knows the key, and cheaper."""
    return hashlib.blake2b(signed_text(name, version, attributes), key=name.encode(), digest_size=32).digest()


def genuine(record: Record) -> bool:
    return record.signature == seal(record.name, record.version, record.attributes)


class Town:
    """Terminals that gossip over a network that loses and delays."""

    def __init__(self, count: int, *, loss: float = 0.0, transit_s: float = 0.0, seed: int = 1, **limits: Any) -> None:
        self.names = [f"h{i:03}" for i in range(count)]
        self.now_s, self.loss, self.transit_s = 100.0, loss, transit_s
        self.rng = random.Random(seed)
        self.limits = Limits(**limits)
        self.seed = str(seed)
        self.all = {name: self.born(name) for name in self.names}
        self.down: set[str] = set()
        self.bytes: Counter[str] = Counter()

    def born(self, name: str, unix_s: float = UNIX_S) -> Gossip:
        return Gossip(
            name, self.names, lambda v, a: seal(name, v, a), genuine, now_s=self.now_s, born_unix_s=unix_s,
            seed=self.seed, limits=self.limits,
        )  # fmt: skip

    def run(self, for_s: float) -> None:
        for _ in range(round(for_s / TICK_S)):
            self.now_s += TICK_S
            for name, one in self.all.items():
                for to, talk in one.tick(self.now_s) if name not in self.down else []:
                    self.bytes[name] += len(msgspec.msgpack.encode(talk))
                    self.carry(name, to, talk)

    def carry(self, name: str, to: str, talk: Talk) -> None:
        if to in self.down or self.rng.random() < self.loss:
            return
        answer = self.all[to].hear(name, talk, self.now_s, self.transit_s).answer
        if self.rng.random() < self.loss:
            return
        more = self.all[name].hear(to, answer, self.now_s, self.transit_s).answer
        if more.records:
            self.all[to].hear(name, more, self.now_s, self.transit_s)

    def publish(self, name: str, what: bytes = b"\x80") -> None:
        self.all[name].publish(what, self.now_s)

    def know(self, name: str) -> dict[str, bytes]:
        return {n: h.record.attributes for n, h in self.all[name].held(self.now_s).items()}

    def agree(self, names: list[str] | None = None) -> bool:
        known = [self.know(n) for n in names or self.names]
        return all(k == known[0] for k in known) and len(known[0]) == len(names or self.names)


def test_everybody_comes_to_know_what_each_said_last() -> None:
    town = Town(30)
    for name in town.names:
        town.publish(name, name.encode())
    town.run(5.0)
    assert town.agree()
    town.publish("h007", b"changed")
    town.run(0.5)  # news need not wait for a comparison
    assert sum(town.know(n)["h007"] == b"changed" for n in town.names) > 20
    town.run(4.5)
    assert town.agree()
    assert town.know("h029")["h007"] == b"changed"


@given(seed=st.integers(0, 10_000), loss=st.floats(0.0, 0.5), count=st.integers(2, 16))
@settings(max_examples=25, deadline=None)
def test_it_converges_whatever_gets_lost(seed: int, loss: float, count: int) -> None:
    town = Town(count, loss=loss, seed=seed, expire_s=1e5)
    for name in town.names:
        town.publish(name, name.encode())
    town.run(60.0)
    assert town.agree()


def test_a_seed_repeats_it() -> None:
    def sent(seed: int) -> Counter[str]:
        town = Town(12, loss=0.2, seed=seed)
        for name in town.names:
            town.publish(name)
        town.run(10.0)
        return town.bytes

    assert sent(3) == sent(3)
    assert sent(3) != sent(4)


def test_an_age_travels_with_its_record() -> None:
    town = Town(12, transit_s=0.05)
    town.publish("h000")
    told_s = town.now_s
    town.run(6.0)
    for one in town.all.values():
        believed_s = one.held(town.now_s)["h000"].t_s
        assert told_s - 0.05 * len(town.names) <= believed_s <= told_s + 1e-3  # each hop adds its way


def test_what_nobody_says_again_is_not_held_to_be_so_any_more() -> None:
    town = Town(6, expire_s=5.0)
    for name in town.names:
        town.publish(name)
    town.run(2.0)
    town.down.add("h000")
    for _ in range(4):
        for name in town.names[1:]:
            town.publish(name)
        town.run(2.0)
    assert "h000" not in town.know("h003")
    late = town.all["h000"].held(102.0)["h000"].record
    stale = msgspec.structs.replace(late, age_s=9.0, version=late.version + 1)
    assert not town.all["h003"].hear("h001", News(records=[stale]), town.now_s).fresh
    assert town.all["h003"].refused["stale"] == 1


def test_a_digest_covers_all_names_in_turn() -> None:
    town = Town(3 * MAX_NAMES, bytes_per_s=1e6)
    knows, lacks = town.all["h000"], town.all["h001"]
    for name in town.names:
        record = Record(name, 1, b"\x80", seal(name, 1, b"\x80"))
        knows.hear("h002", News(records=[record]), town.now_s)
    for _ in range(60):
        answer = knows.hear("h001", lacks._digest(town.now_s), town.now_s).answer
        lacks.hear("h000", answer, town.now_s)
    assert len(town.know("h001")) == len(town.names) - 2  # its own, and that of the other, nobody said


def forged(what: str, town: Town) -> tuple[str, News]:
    """A message that lies, and who it claims to be from."""
    good = Record("h001", 1_700_000_000_001, b"\x80", b"")
    good = msgspec.structs.replace(good, signature=seal("h001", good.version, good.attributes))
    change: dict[str, Any] = {
        "signature": {"attributes": b"\x81\xa7samples\x09"},
        "unknown": {"name": "h999", "signature": seal("h999", good.version, good.attributes)},
        "older": {"version": 1, "signature": seal("h001", 1, good.attributes)},
        "stale": {"age_s": 1000.0},
        "stranger": {},
    }
    if what == "ahead":
        version = good.version + 600_000
        change[what] = {"version": version, "signature": seal("h001", version, good.attributes)}
    return ("h999" if what == "stranger" else "h002"), News(records=[msgspec.structs.replace(good, **change[what])])


@pytest.mark.parametrize("what", ["signature", "unknown", "older", "stale", "ahead", "stranger"])
def test_what_lies_is_refused_and_counted(what: str) -> None:
    town = Town(4)
    town.publish("h001", b"true")
    here = town.all["h003"]
    here.hear("h001", News(records=[town.all["h001"].held(town.now_s)["h001"].record]), town.now_s)
    before = town.know("h003")
    sender, news = forged(what, town)
    assert here.hear(sender, news, town.now_s).fresh == []
    assert here.refused == Counter({what: 1})
    assert town.know("h003") == before


def test_another_name_under_a_true_signature_is_refused() -> None:
    mine = Record("h11", 5, b"\x80", signature_of(PEOPLE["h11"], 5, b"\x80"))
    assert signed_by(mine, PEOPLE["h11"].certificate)
    assert not signed_by(mine, PEOPLE["h12"].certificate)
    assert not signed_by(msgspec.structs.replace(mine, name="h12"), PEOPLE["h12"].certificate)
    assert not signed_by(msgspec.structs.replace(mine, version=6), PEOPLE["h11"].certificate)


def test_a_stranger_learns_nothing() -> None:
    town = Town(3)
    town.publish("h000")
    assert not town.all["h000"].hear("h777", Digest(), town.now_s).answer.records
    assert town.all["h000"].hear("h001", Digest(), town.now_s).answer.records


def test_who_was_started_again_with_its_clock_behind_is_heard_again() -> None:
    town = Town(5)
    for name in town.names:
        town.publish(name, b"first")
    town.run(4.0)
    town.all["h002"] = town.born("h002", UNIX_S - 50)
    town.publish("h002", b"second")
    town.run(8.0)
    assert town.know("h004")["h002"] == b"second"


def test_who_joins_gets_all_of_it_and_who_is_dismissed_is_forgotten() -> None:
    town = Town(8, expire_s=1e4)
    late = town.names.pop()
    del town.all[late]
    for name, one in town.all.items():
        one.dismiss(late)
        town.publish(name)
    town.run(4.0)
    town.names.append(late)
    town.all[late] = town.born(late)
    for one in town.all.values():
        one.admit(late)
    town.publish(late)
    town.run(6.0)
    assert town.agree()
    town.all["h000"].dismiss(late)
    town.run(5.0)
    assert late not in town.know("h000")


def test_who_does_not_answer_is_left_alone_until_it_speaks() -> None:
    town = Town(4)
    here = town.all["h000"]

    def told() -> set[str]:
        found = set[str]()
        for _ in range(30):
            town.publish("h000")
            town.now_s += 0.2
            found |= {to for to, _ in here.tick(town.now_s)}
        return found

    assert told() == {"h001", "h002", "h003"}
    for name in ("h001", "h002"):
        here.missed(name, town.now_s)
    assert told() == {"h003"}
    here.hear("h001", Digest(), town.now_s)
    here.missed("h002", town.now_s)
    assert told() == {"h001", "h003"}
    for name in town.names[1:]:
        here.missed(name, town.now_s)
    assert told() == {"h001", "h002", "h003"}, "where nobody answers all are tried"


def test_it_sends_no_more_than_its_budget() -> None:
    town = Town(20, bytes_per_s=2000.0)
    began_s = town.now_s
    for _ in range(20):
        for name in town.names:
            town.publish(name, bytes(1000))
        town.run(0.5)
    for name in town.names:
        assert town.all[name].sent["bytes"] <= 2000.0 * (town.now_s - began_s) + 4000
        assert town.all[name].sent["held back"]


def test_a_flood_of_bad_signatures_costs_so_many_checks_and_no_more() -> None:
    town = Town(3, checks_per_s=10.0)
    here = town.all["h000"]
    for number in range(100):
        here.hear("h002", News(records=[Record("h001", 1_700_000_000_000 + number, b"", b"bad")]), town.now_s)
    assert here.refused == {"signature": 20, "throttled": 80}
    town.now_s += 1.0
    town.publish("h001")
    good = town.all["h001"].held(town.now_s)["h001"].record
    assert here.hear("h002", News(records=[good]), town.now_s).fresh


def test_what_is_held_is_bounded() -> None:
    town = Town(20, held=5)
    for name in town.names:
        town.publish(name)
    town.run(5.0)
    assert all(len(one.held(town.now_s)) <= 6 for one in town.all.values())
    assert town.all["h000"].refused["full"]


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_whatever_comes_only_true_words_are_held_and_versions_never_go_back(data: st.DataObject) -> None:
    town = Town(4)
    here, newest = town.all["h000"], Counter[str]()
    names = st.sampled_from(["h000", "h001", "h002", "zz"])
    for _ in range(data.draw(st.integers(1, 12))):
        name = data.draw(names)
        version = data.draw(st.integers(1, round(1e3 * UNIX_S) + 120_000))
        body = data.draw(st.binary(max_size=8))
        good = data.draw(st.booleans())
        record = Record(name, version, body, seal(name, version, body) if good else b"no", data.draw(st.floats(0, 30)))
        for held in here.hear("h001", News(records=[record], wants=[name]), town.now_s).fresh:
            assert good
            assert held.record.version > newest[name]
            newest[name] = held.record.version
        assert all(genuine(h.record) for h in here.held(town.now_s).values())
    assert set(here.held(town.now_s)) <= {"h000", "h001", "h002"}
