"""The house of a terminal: what it heard it offers, and plans by; what lies or is too much does it no harm."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from controller.values.decisions import JobView, Option, Request
from controller.values.distributed import Brief, Offered, Question, Standing
from hosts.errors import HostError
from hosts.gossip.house import House
from packets.distributed.asking import ROOM_BYTES
from packets.messages import encode_message
from packets.parts import MAX_MESSAGE_BYTES
from tests.fake_fabric import small_plan
from topologies.build import Terminal, build_plan
from topologies.plan import NetworkPlan

SALT = bytes(range(32))
REQUEST = Request(task="vignettes", groups=["cardiology", "neurology"], broad_accuracy=0.5, max_visits=4)
ABOUT: dict[str, Any] = {
    "samples": 2000, "group_shares": {"cardiology": 0.5, "neurology": 0.5}, "quality": 0.9, "reachable": True,
    "compute_samples_per_s": 2000.0, "queue": 0,
}  # fmt: skip


class Clock:
    now_s = 50.0

    def __call__(self) -> float:
        return self.now_s


def house(plan: NetworkPlan | None = None, **changes: dict[str, Any]) -> House:
    found = House((plan or small_plan()).domain(1), SALT, Clock())
    for name, host in found.hosts.items():
        if host.role in ("data", "compute"):
            found.hear(name, msgspec.msgpack.encode(ABOUT | changes.get(name, {})), 48.0)
    return found


def offered(mind: House, request: Request = REQUEST, **standing: Any) -> Offered:
    question = Question(request=request, standing=Standing(**standing))
    return msgspec.msgpack.decode(mind.offers(7, msgspec.msgpack.encode(question)).found, type=Offered)


def brief(options: list[Option] | None = None, **about: Any) -> bytes:
    whole = Brief(object_id=7, request=REQUEST, view=JobView(), options=options or [], **about)
    return msgspec.msgpack.encode(whole)


def test_it_offers_what_it_heard_with_its_age() -> None:
    found = offered(house())
    assert {(m.data_node, m.facility) for m in found.meetings} == {("h11", "h11"), ("h13", "h13"), ("h13", "c1")}
    assert found.known["h11"]["samples"] == (2000, 2.0) and found.terminals == 3
    assert found.groups == ["cardiology", "neurology"]


def test_houses_of_one_k_as_agree_on_handles() -> None:
    first, second = offered(house()), offered(house())
    assert [m.option.handle for m in first.meetings] == [m.option.handle for m in second.meetings]
    other = House(small_plan().domain(1), bytes(32), Clock())
    other.hear("h11", msgspec.msgpack.encode(ABOUT), 48.0)
    assert offered(other).meetings[0].option.handle not in {m.option.handle for m in first.meetings}


@pytest.mark.parametrize(
    "lie", [{"samples": -1}, {"group_shares": {"cardiology": 9.0}}, {"queue": "many"}, {"quality": float("nan")}]
)
def test_a_signed_report_that_cannot_be_true_changes_nothing(lie: dict[str, Any]) -> None:
    mind = house()
    before = offered(mind)
    mind.hear("h11", msgspec.msgpack.encode(ABOUT | lie), 49.0)
    assert offered(mind).meetings == before.meetings and mind.refused == 1


@pytest.mark.parametrize("body", [b"", b"\xc1", msgspec.msgpack.encode([1]), b"\xff" * 99, b"\xdf\xff\xff\xff\xff"])
def test_a_report_that_is_none_changes_nothing(body: bytes) -> None:
    mind = house()
    mind.hear("h11", body, 49.0)
    assert mind.refused == 1 and len(offered(mind).meetings) == 3


def test_a_terminal_cannot_speak_of_its_own_trust_the_control_centre_can() -> None:
    mind = house(h11={"trust": 1.0})
    strict = msgspec.structs.replace(REQUEST, trust_floor=0.8)
    assert offered(mind, strict).meetings == []
    assert [m.data_node for m in offered(mind, strict, trust={"h11": 0.9}).meetings] == ["h11"]


def test_who_the_control_centre_holds_for_gone_is_not_offered_nor_planned_with() -> None:
    mind = house()
    assert {m.data_node for m in offered(mind, gone=["h11"]).meetings} == {"h13"}
    chosen = mind.plan(brief(kas=1, standing=Standing(gone=["h13", "c1"])))
    (only,) = offered(mind, gone=["h13", "c1"]).meetings
    assert set(chosen.handles) == {only.option.handle}


def test_a_plan_joins_what_is_here_with_what_is_elsewhere() -> None:
    mind = house()
    mine = offered(mind).meetings[0].option
    far = msgspec.structs.replace(mine, kas=2, handle="far", place="far", epoch_s=0.01, samples=9000)
    assert mind.plan(brief([far])).handles[0] == "far"
    both = mind.plan(brief([far], kas=1))
    assert both.took_ms == 0.0 and not both.none
    assert len({*both.handles, *(h for h, _ in both.scores)} - {"far"}) >= 1


def test_what_is_excluded_is_not_planned_with() -> None:
    mind = house()
    handles = [m.option.handle for m in offered(mind).meetings]
    assert set(mind.plan(brief(kas=1, excluded=handles[1:])).handles) == {handles[0]}
    nowhere = mind.plan(brief(kas=1, excluded=handles))
    assert nowhere.handles == [] and nowhere.none


@pytest.mark.parametrize("body", [b"", b"\xc1", msgspec.msgpack.encode([1]), b"\xdf\xff\xff\xff\xff"])
def test_a_question_that_is_none_is_refused_in_words(body: bytes) -> None:
    with pytest.raises(HostError, match="that is no brief"):
        house().plan(body)
    with pytest.raises(HostError, match="that is no question"):
        house().offers(7, body)


def test_whom_nobody_has_heard_of_for_long_is_forgotten() -> None:
    mind = house()
    mind.keep({"h11": None})
    assert {m.data_node for m in offered(mind).meetings} == {"h11"}


def test_a_large_k_as_says_as_much_as_a_message_holds() -> None:
    many = [Terminal(f"h{i}", "data", data_may_move=True) for i in range(120)]
    plan = build_plan("large", kas={1: [*many, Terminal("c1", "compute"), Terminal("c2", "compute")]}, wan=[])
    mind = house(plan)
    question = msgspec.msgpack.encode(Question(request=REQUEST))
    offers = mind.offers(7, question)
    assert len(offers.found) <= ROOM_BYTES and len(encode_message(offers)) <= MAX_MESSAGE_BYTES
    assert len(offered(mind).meetings) > 40
