"""Gossip between terminals on a network that is played: what one says of itself is in the houses of the others."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest

from hosts.gossip.house import House
from hosts.gossip.runtime import Gossiping
from hosts.terminal.resources import Meter
from hosts.terminal.terminal import Terminal
from hosts.terminal.work import inline
from packets.distributed.gossip import Digest, News, Record
from packets.errors import RequestTimeout
from packets.messages import decode_message, encode_message
from packets.security.keeper import Keeper
from packets.wire import Header, PacketType
from tests.fake_fabric import small_plan
from tests.helpers import wait_until
from tests.keys import DIRECTORY, PEOPLE
from tests.unit.hosts.gossip.test_house import ABOUT, SALT
from tests.unit.hosts.test_roles import the_task

DOMAIN = small_plan().domain(1)
NAMES = ("h11", "h13", "c1", "owner1")


class Street:
    """Terminals of K-AS 1, joined by function calls; who is ``down`` answers nothing."""

    def __init__(self, names: tuple[str, ...] = NAMES, keys: bool = False) -> None:
        self.down: set[str] = set()
        self.stop = threading.Event()
        self.at = {name: self.terminal(name, keys) for name in names}

    def terminal(self, name: str, keys: bool) -> Gossiping:
        plan = next(h for h in DOMAIN.hosts if h.name == name)
        guard = Keeper(PEOPLE[name], DIRECTORY) if keys else None
        terminal = Terminal(
            plan=plan, task=the_task(), network=Line(self, name), emit=lambda kind, /, **data: None,  # type: ignore[arg-type]
            submit=inline, meter=Meter(1.0, time.monotonic), folder=Path("unused"), stopping=self.stop, guard=guard,
        )  # fmt: skip
        return Gossiping(terminal, House(DOMAIN, SALT, time.monotonic))

    def knows(self, name: str) -> dict[str, Any]:
        nodes = self.at[name].house.mind.map.nodes()
        return {n.name: n.get("samples") for n in nodes}


class Line:
    """A terminal's network: a request is answered by whoever has that address."""

    def __init__(self, street: Street, name: str) -> None:
        self.street, self.name = street, name

    def request(
        self, payload: bytes, *, to: str, type: PacketType, timeout_s: float = 10, object_id: int = 0
    ) -> tuple[Header, bytes]:
        assert type is PacketType.PROBE
        there = next((g for g in self.street.at.values() if g.terminal.plan.address == to), None)
        if there is None or {there.terminal.name, self.name} & self.street.down:
            raise RequestTimeout(f"{to} does not answer")
        talk = decode_message(payload)
        assert isinstance(talk, Digest | News)
        own = self.street.at[self.name].terminal.plan.address
        return Header(type=type), encode_message(there.heard(talk, own))


def test_what_a_terminal_says_is_in_every_house_and_its_control_centre_is_told_no_more_than_that_it_is_there() -> None:
    street = Street()
    try:
        for one in street.at.values():
            one.start()
        told = {name: street.at[name].told(ABOUT | {"samples": 100 + i}) for i, name in enumerate(NAMES)}
        assert told["h11"] == told["c1"] == {"reachable": True}
        assert told["owner1"].keys() == ABOUT.keys(), "whoever has neither data nor compute for others tells all"
        wanted = {"h11": 100, "h13": 101, "c1": 102}
        wait_until(lambda: all(street.knows(n) == wanted for n in NAMES), 10.0, "everybody knows")
        street.at["h11"].told(ABOUT | {"samples": 900})
        wait_until(lambda: all(street.knows(n)["h11"] == 900 for n in NAMES), 10.0, "the news is everywhere")
        assert street.at["owner1"].state()["ages_s"].keys() == wanted.keys()
    finally:
        street.stop.set()


def test_what_has_hardly_changed_is_no_news() -> None:
    street = Street(("h11", "h13"))
    street.at["h11"].told(ABOUT | {"compute_samples_per_s": 2000.0})
    first = street.at["h11"].core.held(time.monotonic())["h11"].record.version
    street.at["h11"].told(ABOUT | {"compute_samples_per_s": 2050.0})
    assert street.at["h11"].core.held(time.monotonic())["h11"].record.version == first
    street.at["h11"].told(ABOUT | {"compute_samples_per_s": 3000.0})
    assert street.at["h11"].core.held(time.monotonic())["h11"].record.version > first


def test_a_terminal_that_is_gone_costs_the_others_nothing_but_a_try() -> None:
    street = Street()
    street.down.add("h13")
    for name in ("h11", "c1"):
        street.at[name].told(ABOUT)
    try:
        for one in street.at.values():
            one.start()
        wait_until(lambda: {"h11", "c1"} <= street.knows("owner1").keys(), 10.0, "the others know")
        assert street.knows("h13").keys() <= {"h13"}
    finally:
        street.stop.set()


def test_with_keys_nobody_speaks_for_another() -> None:
    street = Street(("h11",), keys=True)
    here, liar = street.at["h11"], PEOPLE["owner1"]
    address = liar.certificate.address
    body = b"\x81\xa7samples\x09"
    for record in (
        Record("h11", 1 << 50, body, liar.signing.sign(b"anything")),
        Record("c1", 1 << 40, body, b"\0" * 64),
        Record("h13", 1_000, body),
    ):
        here.heard(News(records=[record]), address)
    assert here.house.mind.map.nodes() == []
    assert sum(here.core.refused.values()) == 3


def test_an_address_that_is_no_terminals_of_the_k_as_is_told_nothing() -> None:
    street = Street(("h11",))
    street.at["h11"].told(ABOUT)
    assert street.at["h11"].heard(Digest(), "10.2.1.1") == News()
    assert street.at["h11"].core.refused["stranger"] == 1


def test_more_than_a_record_holds_is_told_to_nobody_and_complained_of() -> None:
    street = Street(("h11",))
    events: list[str] = []
    street.at["h11"].terminal.emit = lambda kind, /, **data: events.append(data["text"])
    street.at["h11"].told(ABOUT | {"note": "x" * 5000})
    assert street.knows("h11") == {} and "more than 4096" in events[0]


@pytest.mark.parametrize("role", ["data", "compute"])
def test_both_that_meet_gossip(role: str) -> None:
    name = next(h.name for h in DOMAIN.hosts if h.role == role)
    street = Street((name,))
    street.at[name].told(ABOUT)
    assert list(street.knows(name)) == [name]
