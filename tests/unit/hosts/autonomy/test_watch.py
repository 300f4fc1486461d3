"""A holder that dies with an object in its hands: who sent it there sends it elsewhere."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from hosts.autonomy import watch
from packets.transport import OutgoingObject
from packets.wire import PacketType
from tests.autonomy import ADDRESSES, NAMES, Town, arrived
from tests.helpers import wait_until


@pytest.fixture
def town(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Town]:
    """Its owner watches over what it sends."""
    monkeypatch.setattr(watch, "LOOK_S", 0.02)
    one = Town(tmp_path)
    one.role("owner1").terminal.stopping.clear()
    yield one
    one.role("owner1").terminal.stopping.set()
    wait_until(lambda: not watching(), 5.0)


def watching() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name == "watch"]


def test_an_object_whose_holder_has_died_is_sent_elsewhere_and_comes_home(town: Town) -> None:
    town.submit()
    first = town.under_way.popleft()[1].to
    assert first is not None
    town.dead = {first}  # it took the object, and is gone
    wait_until(lambda: town.under_way, 5.0, "sent again")
    assert town.launched[0].visit == town.launched[1].visit == 0
    assert NAMES[town.launched[1].to or ""] not in (NAMES[first], "owner1")
    (told,) = town.of("object.resteered")
    assert (told["holder"], told["visit"], told["alive"]) == ("owner1", 0, False)
    town.run()
    assert town.of("job.finished")[0]["state"] == "finished"
    wait_until(lambda: not watching(), 5.0, "it has gone on from there: nobody watches any more")
    assert len(town.of("object.resteered")) == 1


def test_a_holder_that_was_started_anew_knows_nothing_and_is_passed_by(town: Town) -> None:
    town.submit()
    assert town.under_way.popleft()[1].to != wait_until(lambda: town.under_way, 5.0)[0][1].to


def test_a_holder_that_fails_lets_go_of_the_object(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    town.submit()
    obj = town.under_way.popleft()[1]
    assert obj.to is not None
    monkeypatch.setattr(town.roles[obj.to], "actions", {})
    town.roles[obj.to].object_arrived(arrived(ADDRESSES["owner1"], obj))
    assert "order is 'train'" in town.of("error")[0]["text"]
    assert wait_until(lambda: town.under_way, 5.0, "sent again")[0][1].to != obj.to


def test_an_object_that_is_still_at_work_is_left_in_peace(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    town.submit()
    obj = town.under_way.popleft()[1]
    assert obj.to is not None
    holder = town.roles[obj.to]
    at_work = threading.Event()
    monkeypatch.setattr(holder, "actions", holder.actions | {"train": lambda obj, order: at_work.set()})
    holder.object_arrived(arrived(ADDRESSES["owner1"], obj))
    asked = len(town.asked)
    wait_until(lambda: at_work.is_set() and len(town.asked) > asked + 3 * watch.PATIENCE, 5.0)
    assert watching() and not town.of("object.resteered") and not town.under_way


def test_only_so_many_are_watched(town: Town) -> None:
    owner = town.role("owner1").terminal
    one = watch.Watch(owner)
    obj = OutgoingObject(object_id=1, type=PacketType.MODEL_SHARD, payload=b"", owner=owner.plan.address)
    town.dead = {"10.9.9.9"}
    again = threading.Semaphore(0)
    for _ in range(watch.MAX_WATCHED + 5):
        one.follow("10.9.9.9", obj, again.release)
    wait_until(lambda: not watching(), 5.0)
    assert sum(again.acquire(blocking=False) for _ in range(20)) == watch.MAX_WATCHED
