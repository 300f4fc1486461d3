"""Relayed questions: numbers of each hop, bounds, time, and answers from the wrong side."""

from __future__ import annotations

from typing import Any

import pytest

from controller.border.kbgp.relay import MOST_OF_ONE, MOST_PENDING, Question, Relay
from packets.kbgp.messages import MAX_HOPS, Answer, Reply, Request

NOW_S = 10.0


class Parties:
    """The parties around a relay of K-AS 5: sessions by name, with what each was sent."""

    def __init__(self, way: str | None = "east") -> None:
        self.sent: list[tuple[object, Any]] = []
        self.deaf: set[object] = set()
        self.relay = Relay(5, "dcc", lambda kas, trail, asked_by: way, self.send)

    def send(self, party: object, message: Question | Reply) -> bool:
        self.sent.append((party, message))
        return party not in self.deaf

    def ask(self, asked_by: str = "west", from_kas: int = 4, **more: Any) -> tuple[object, Any]:
        fields = {"id": 7, "to_kas": 6, "trail": [3, 4], "left_ms": 1000, "body": b"?"} | more
        self.relay.ask(asked_by, from_kas, Request(**fields), NOW_S)
        return self.sent[-1]


def test_each_hop_has_its_own_number_and_the_answer_finds_back() -> None:
    parties = Parties()
    party, passed_on = parties.ask()
    assert party == "east" and passed_on.trail == [3, 4, 5] and passed_on.left_ms == 950
    parties.relay.reply("east", Reply(id=passed_on.id, code=0, body=b"!"))
    assert parties.sent[-1] == ("west", Reply(id=7, code=0, body=b"!")) and not len(parties.relay)


def test_a_question_to_us_goes_to_our_control_centre() -> None:
    parties = Parties()
    assert parties.ask(to_kas=5)[0] == "dcc"
    parties.deaf = {"dcc"}
    party, reply = parties.ask(to_kas=5, id=8)
    assert (party, reply.id, reply.code) == ("west", 8, Answer.ABSENT)


def test_an_answer_from_who_was_not_asked_is_dropped() -> None:
    parties = Parties()
    _, passed_on = parties.ask()
    parties.relay.reply("north", Reply(id=passed_on.id, code=0, body=b"lie"))
    parties.relay.reply("east", Reply(id=999, code=0))
    assert len(parties.sent) == 1 and parties.relay.ended["unasked"] == 2 and len(parties.relay) == 1


@pytest.mark.parametrize(
    "more, code",
    [
        ({"trail": [*range(20, 19 + MAX_HOPS), 4]}, Answer.HOP_LIMIT),
        ({"trail": [5, 4]}, Answer.UNREACHABLE),
        ({"trail": [4, 3]}, Answer.REFUSED),
        ({"left_ms": 0}, Answer.TIMEOUT),
    ],
)
def test_what_cannot_go_on_is_told_at_once(more: dict[str, Any], code: Answer) -> None:
    parties = Parties()
    party, reply = parties.ask(**more)
    assert (party, reply.id, reply.code) == ("west", 7, code) and not len(parties.relay)


@pytest.mark.parametrize("way", [None, "west"])
def test_no_way_or_only_the_way_back(way: str | None) -> None:
    assert Parties(way).ask()[1].code == Answer.UNREACHABLE


def test_one_neighbour_does_not_take_all_and_all_is_bounded() -> None:
    parties = Parties()
    for number in range(MOST_OF_ONE):
        assert parties.ask(id=number)[0] == "east"
    assert parties.ask()[1].code == Answer.OVERLOADED
    for number in range(MOST_PENDING - MOST_OF_ONE):
        assert parties.ask("north", id=number)[0] == "east"
    assert parties.ask("south")[1].code == Answer.OVERLOADED
    parties.relay.tick(NOW_S + 1.1)
    assert not len(parties.relay) and parties.sent[-1][1].code == Answer.TIMEOUT
    assert parties.relay.ended["timeout"] == MOST_PENDING


def test_a_session_that_ends_forgets_what_it_asked_and_fails_what_it_was_asked() -> None:
    parties = Parties()
    parties.ask()
    parties.relay.gone("west")
    assert not len(parties.relay)
    parties.ask(id=9)
    parties.relay.gone("east")
    assert parties.sent[-1][1] == Reply(id=9, code=Answer.CUT, reason="the session beyond K-AS 5 ended")
