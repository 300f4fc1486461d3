"""What a holder keeps, for how long, and what it does when its DCC tells it to move an object."""

from __future__ import annotations

from typing import Any

import pytest

from hosts.errors import BadCommand, LaunchFailed
from hosts.terminal.custody import Custody, Mover
from hosts.terminal.parcels import keep_parcel, send_parcel
from hosts.terminal.work import inline
from packets.errors import TransportError
from packets.messages import Ack, HandOver, LaunchAgain, Refused, Release
from packets.transport import OutgoingObject, ReceivedObject, Transfer, TransferStats
from packets.wire import PacketType
from tests.helpers import wait_until

STATS = TransferStats(bytes=9, packets=1, retransmissions=0, seconds=0.1, launch_seconds=0, rtt_ms=1, goodput_mbps=1,
                      receiver="10.2.1.1")  # fmt: skip


def model(object_id: int = 7, visit: int = 0, size: int = 10) -> OutgoingObject:
    return OutgoingObject(
        object_id=object_id, type=PacketType.MODEL_SHARD, payload=bytes(size), owner="10.1.1.1", visit=visit
    )


class Fake:
    """A mover's surroundings, and what it did there."""

    def __init__(self, *, under_way: bool = False, transfer: Transfer | None = None, room: bool = True) -> None:
        self.launched: list[OutgoingObject] = []
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.custody = Custody(max_objects=3, max_bytes=100)
        self.mover = Mover(
            "h11", self.custody, relaunch=lambda object_id, visit, lives: under_way,
            hand_over=lambda object_id, visit, to: transfer, launch=self.launched.append,
            submit=inline if room else lambda job: False, emit=self.emit,
        )  # fmt: skip

    def emit(self, kind: str, /, **data: Any) -> None:
        self.events.append((kind, data))


def test_custody_is_bounded_by_number_and_by_bytes() -> None:
    custody = Custody(max_objects=3, max_bytes=100)
    for number in range(5):
        custody.keep(model(number))
    assert len(custody) == 3 and custody.get(0, 0) is None and custody.get(4, 0) is not None
    custody.keep(model(9, size=95))
    assert len(custody) == 1 and custody.get(9, 0) is not None
    custody.keep(model(10, size=101))
    assert len(custody) == 0, "more than fits is not kept at all"


def test_only_models_are_kept() -> None:
    custody = Custody()
    custody.keep(OutgoingObject(object_id=1, type=PacketType.DATA_SHARD, payload=b"x", owner="10.1.1.1"))
    assert len(custody) == 0


def test_a_release_lets_go_of_this_and_earlier_visits_of_one_object() -> None:
    fake = Fake()
    for held in (model(7, 0), model(7, 4), model(8, 0)):
        fake.custody.keep(held)
    assert fake.mover.obey(Release(object_id=7, visit=3)) == Ack()
    assert [fake.custody.get(*key) is not None for key in ((7, 0), (7, 4), (8, 0))] == [False, True, True]


def test_what_is_under_way_goes_back_to_its_launch() -> None:
    fake = Fake(under_way=True)
    fake.custody.keep(model())
    assert fake.mover.obey(LaunchAgain(object_id=7, visit=0)) == Ack()
    assert fake.launched == [], "not a second transfer"


def test_what_was_delivered_is_launched_from_the_copy() -> None:
    fake = Fake()
    fake.custody.keep(model())
    assert fake.mover.obey(LaunchAgain(object_id=7, visit=0)) == Ack()
    assert fake.launched == [model()]


def test_what_is_not_held_any_more_is_refused() -> None:
    fake = Fake()
    fake.custody.keep(model(visit=1))
    answer = fake.mover.obey(LaunchAgain(object_id=7, visit=0))
    assert isinstance(answer, Refused) and "does not hold" in answer.reason
    assert isinstance(Fake(room=False).mover.obey(LaunchAgain(object_id=7, visit=0)), Refused)


def test_a_launch_that_fails_again_is_an_error_event() -> None:
    fake = Fake()
    fake.custody.keep(model())

    def fail(obj: OutgoingObject) -> None:
        raise LaunchFailed("nobody answered")

    fake.mover._launch = fail
    assert fake.mover.obey(LaunchAgain(object_id=7, visit=0)) == Ack()
    assert [kind for kind, _ in fake.events] == ["error"]


@pytest.mark.parametrize("goes_well", [True, False])
def test_a_hand_over_is_seen_through(goes_well: bool) -> None:
    transfer = Transfer("object", 1)
    fake = Fake(transfer=transfer)
    assert fake.mover.obey(HandOver(object_id=7, visit=0, address="10.2.1.1")) == Ack()
    if goes_well:
        transfer.finish(STATS)
    else:
        transfer.fail(TransportError("nobody answered"))
    fake.mover.wait(2.0)
    wait_until(lambda: bool(fake.events), 2.0, "an event")
    assert fake.events[0][0] == ("object.handed_over" if goes_well else "warning")


def test_nothing_to_hand_over_is_refused() -> None:
    assert isinstance(Fake().mover.obey(HandOver(object_id=7, visit=0, address="10.2.1.1")), Refused)


def test_a_parcel_of_no_size_is_a_bad_command() -> None:
    for size in (0, -1, "many", 1 << 40):
        with pytest.raises(BadCommand, match="bytes"):
            send_parcel(None, {"op": "send", "bytes": size})  # type: ignore[arg-type]


def test_a_parcel_tells_what_its_bytes_hash_to() -> None:
    said: list[dict[str, Any]] = []

    class Place:
        name = "c1"

        @staticmethod
        def emit(kind: str, /, **data: Any) -> None:
            said.append(data)

    obj = ReceivedObject(
        object_id=1, type=PacketType.DATA_SHARD, payload=b"abc", owner="10.1.1.1", visit=0, visit_limit=1,
        requirements=None, sender="10.1.1.1", transfer_id=1, seconds=0.1, packets=1, duplicates=0,
    )  # fmt: skip
    keep_parcel(Place(), obj)  # type: ignore[arg-type]
    assert said[0]["sha256"] == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
