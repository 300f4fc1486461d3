"""A server's side of a run: it does what it is asked, says why it cannot, and ends with its leader."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from typing import Any, BinaryIO

import msgspec
import pytest

from experiments.cluster import orders, serve
from experiments.cluster.orders import Ask, Greeting, Word
from topologies.errors import OvsNotRunningError, RefusedError

GREETING = Greeting(
    protocol=orders.PROTOCOL, sources="me", python="3.11", torch="2", open_vswitch="3", netem=False, wirefilter=True
)


class Bed:
    """A part that takes its time to come up."""

    def __init__(self, over: threading.Event) -> None:
        self.did: list[str] = []
        self.making, self._over = threading.Event(), over

    def start_network(self, seed: int) -> None:
        self.making.set()
        assert self._over.wait(10)
        self.did.append(f"made {seed}")

    def counted(self) -> Any:
        raise RefusedError("switch k1g: no answer")

    def close(self) -> None:
        self.did.append("closed")

    def remove_kept(self) -> None:
        self.did.append("removed")


class Leader:
    """The other end of a server's streams."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(orders, "greeting", lambda: GREETING)
        heard, self._ask = os.pipe()
        self._said, said = os.pipe()
        self.server = serve.Server(os.fdopen(heard, "rb"), os.fdopen(said, "wb"))
        self.bed = Bed(self.server._over)
        self.server._bed = self.bed  # type: ignore[assignment]
        self._words: BinaryIO = os.fdopen(self._said, "rb")
        self.thread = threading.Thread(target=self.server.run)
        self.thread.start()

    def ask(self, *asks: Ask) -> None:
        os.write(self._ask, b"".join(msgspec.json.encode(ask) + b"\n" for ask in asks))

    def word(self) -> Word:
        return msgspec.json.decode(self._words.readline(), type=Word)

    def go(self) -> None:
        """Die, and see the server end."""
        if self._ask >= 0:
            os.close(self._ask)
            self._ask = -1
        self.thread.join(10)
        assert not self.thread.is_alive()


@pytest.fixture
def leader(monkeypatch: pytest.MonkeyPatch) -> Iterator[Leader]:
    made = Leader(monkeypatch)
    assert made.word().greeting == GREETING
    yield made
    made.go()


def test_nothing_is_taken_down_while_it_is_being_made(leader: Leader) -> None:
    leader.ask(Ask(op="start_network", id=1, args={"seed": 7}))
    assert leader.bed.making.wait(10)
    leader.ask(Ask(op="finish", id=2))
    assert [leader.word().id, leader.word().id] == [1, 2]
    assert leader.bed.did == ["made 7", "closed"]


def test_what_cannot_be_done_is_said_in_one_line(leader: Leader) -> None:
    leader.ask(Ask(op="counted", id=1))
    assert leader.word() == Word(id=1, error="switch k1g: no answer", kind="ExperimentError")
    leader.ask(Ask(op="nothing_of_ours", id=2))
    assert leader.word().kind == "RunFailed"


def test_a_server_ends_with_its_leader(leader: Leader) -> None:
    leader.ask(Ask(op="start_network", id=1, args={"seed": 7}))
    assert leader.bed.making.wait(10)
    leader.go()
    assert leader.bed.did == ["made 7", "closed", "removed"]


def test_a_leader_that_says_nothing_for_long_is_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orders, "SILENCE_S", 0.1)
    leader = Leader(monkeypatch)
    leader.thread.join(10)
    assert leader.bed.did == ["closed", "removed"]
    leader.go()


def test_a_machine_that_is_not_ready_says_so_first(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> Greeting:
        raise OvsNotRunningError("Open vSwitch does not answer")

    monkeypatch.setattr(orders, "greeting", missing)
    heard, ask = os.pipe()
    said, say = os.pipe()
    server = serve.Server(os.fdopen(heard, "rb"), os.fdopen(say, "wb"))
    server.run()
    os.close(ask)
    with os.fdopen(said, "rb") as words:
        word = msgspec.json.decode(words.readline(), type=Word)
    assert (word.id, word.error) == (0, "Open vSwitch does not answer")
