"""State that grows with objects, queries or peers: each is filled past its bound (the table in docs/security.md)."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest

from controller.access import requests
from controller.border.revoking import Revocations
from controller.errors import SteeringError
from controller.oam.metrics import MAX_LABEL_VALUES, Metrics
from controller.oam.state.run import NetworkState
from controller.runtime.bounded import KEPT, Rationed
from controller.southbound.fair_queue import ROOM, FairQueue
from controller.southbound.guard import drop_cookie
from controller.southbound.openflow import DropCount, PacketIn
from controller.steering import announced
from controller.tools import communication
from controller.tools.exits import Entry, Exit
from controller.tools.location import Arrival
from controller.training import book
from controller.training.jobs import Job, request_of
from hosts.terminal.custody import MAX_OBJECTS, Custody
from packets.calls import MAX_REVOKED
from packets.messages import AnnounceObject, JobSpec
from packets.parts import UNFINISHED, UNFINISHED_A_SOURCE, Unfinished
from packets.security.keeper import REMEMBERED
from packets.security.replay import KEPT_PER_SPEAKER, Budget, Memory
from packets.transfers import OutgoingObject
from packets.wire import Digest, Flag, Header, PacketType
from tests.fake_fabric import World, run, small_plan
from tests.keys import Stage

ROOT = Path(__file__).parents[2]
PLAN = small_plan()
SPEC = JobSpec(task="vignettes")


def silent(kind: str, /, **data: Any) -> None:
    pass


def job(number: int) -> Job:
    return Job(number, SPEC, request_of(SPEC, []), "owner1", 1, [])


def test_jobs_that_are_over_make_room_and_those_under_way_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(book, "JOBS_KEPT", 8)
    held = World(PLAN).by_kas[1].training.book
    for number in range(8):
        held.put(job(number))
    with pytest.raises(SteeringError, match="8 jobs are under way"):
        held.put(job(8))
    held.jobs[3].state = "finished"
    held.put(job(8))
    assert len(held.jobs) == 8 and 3 not in held.jobs


def test_label_paths_are_given_back_with_their_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(communication, "PATHS_KEPT", 5)

    async def work() -> None:
        world = World(PLAN)
        await world.start()
        services = world.by_kas[1].services
        h11, c1 = world.hosts["h11"], world.hosts["c1"]
        switch = world.fabric.switches[h11.switch]
        before = len(switch.flows)
        for label in range(20):
            await services.communication.steer(
                1 << 20 | label, 1, Entry(h11.switch, h11.port), Exit(c1.switch, c1.port, c1)
            )
        assert len(services.communication.paths) == 5 and len(switch.flows) - before == 5

    run(work)


def test_what_is_remembered_of_objects_is_bounded() -> None:
    dcc = World(PLAN).by_kas[1]
    for number in range(KEPT + 10):
        dcc.services.location.expect(Arrival(number, 0, "train", 1, "x", "h11", "h11", False))
        dcc.steering.legs[number, 1] = None  # type: ignore[assignment]
        dcc.authenticity._launched[number] = 0, "h11"
    assert len(dcc.services.location.expected()) == len(dcc.steering.legs) == len(dcc.authenticity._launched) == KEPT


def test_announced_objects_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(announced, "KEPT", 6)

    async def work() -> None:
        world = World(PLAN)
        await world.start()
        objects = world.by_kas[1].objects

        async def anywhere(*_: object) -> tuple[int, str]:
            return 1, "@mpvu/0"

        objects._target = anywhere  # type: ignore[method-assign, assignment]
        for _ in range(20):
            message = AnnounceObject(name="h11", kind="parcel", task="mpvu", size_bytes=1)
            await objects.announce(world.hosts["h11"], message)
        assert len(objects.announced) == 6

    run(work)


def test_answers_to_requests_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests, "ANSWERS_KEPT", 16)
    terminals = World(PLAN).by_kas[1].terminals
    for number in range(100):
        terminals.telemetry(PLAN.hosts[0], Header(type=PacketType.TELEMETRY, transfer_id=number), b"", 1, 0)
    assert len(terminals._answers) == 16


def test_refusals_are_told_in_part_and_counted_whole() -> None:
    told: list[dict[str, Any]] = []
    rationed = Rationed(lambda kind, /, **data: told.append(data), lambda: 0.0)
    for number in range(KEPT + 1000):
        rationed("request.refused", reason=f"no object {number % 3}")
    assert len(told) == 20
    rationed.tell()
    assert sum(d.get("more", 1) for d in told) == KEPT + 1000 and len(told) == 23
    rationed.tell()
    assert len(told) == 23
    for number in range(2 * KEPT):
        rationed("request.refused", reason=str(number))
    assert len(rationed._untold) == KEPT


def test_packet_ins_wait_in_bounds() -> None:
    async def work() -> None:
        refused: list[PacketIn] = []
        queue = FairQueue(asyncio.get_running_loop(), lambda p: None, refused.append)
        for number in range(1000):
            queue.put(PacketIn(1, number % 2, 0, b""))
        assert len(queue) == 2 * ROOM and len(refused) == 1000 - 2 * ROOM
        queue.serve()
        assert not queue._waiting, "a port that is silent costs nothing"

    asyncio.run(work())


def test_limits_and_drops_are_of_declared_ports_alone() -> None:
    async def work() -> None:
        world = World(PLAN)
        await world.start()
        dcc = world.by_kas[1]
        for port in range(500):
            dcc.packets.packet_in(PacketIn(0x101, port, 3, b"x" * 60))
            dcc.fabric.drop_counts(0xDEAD + port, [DropCount(drop_cookie("arp", port), 0, 1, 5)])
        assert len(dcc.limiter._buckets) <= len(PLAN.hosts) and not dcc.fabric.drops._read

    run(work)


def test_revoked_names_are_bounded() -> None:
    from controller.border.messages import pack, unpack

    word = Revocations(kas=1, from_kas=2, epoch=1, names=["x"] * (MAX_REVOKED + 1))
    with pytest.raises(Exception, match=f"<= {MAX_REVOKED}"):
        unpack(pack(1, word)[4:])


def test_unfinished_messages_are_bounded() -> None:
    parts: Unfinished[None] = Unfinished()
    for number in range(2000):
        header = Header(
            type=PacketType.ANNOUNCE, transfer_id=number, shard_count=2, total_length=2000, shard_index=0
        )  # fmt: skip
        parts.take(f"h{number % 7}", header, b"x" * 1000, None)
    assert len(parts._held) <= UNFINISHED
    assert max(sum(k[0] == f"h{n}" for k in parts._held) for n in range(7)) <= UNFINISHED_A_SOURCE


def test_what_a_keeper_remembers_is_bounded() -> None:
    memory, budget = Memory(0), Budget(sources=64)
    for number in range(3 * KEPT_PER_SPEAKER):
        memory.note(1, number, 1000 + number, 1000 + number)
        budget.spend(f"10.0.{number >> 8 & 255}.{number & 255}", 1.0, 0.0)
    assert len(memory._said[1]) <= KEPT_PER_SPEAKER and len(budget._buckets) == 64
    stage = Stage()
    keeper = stage["h11"]
    obj = OutgoingObject(object_id=7, type=PacketType.MODEL_SHARD, payload=b"x", owner=keeper.own.address)
    for number in range(REMEMBERED + 20):
        header = Header(
            type=obj.type, flags=Flag.LAUNCH, object_id=7, transfer_id=number, owner=obj.owner, shard_count=1,
            total_length=1, digest=Digest.of(b"x"),
        )  # fmt: skip
        keeper.launch(obj, header)
    assert len(keeper._outgoing) == REMEMBERED


def test_custody_keeps_so_many_objects() -> None:
    custody = Custody()
    for number in range(50):
        custody.keep(OutgoingObject(object_id=number, type=PacketType.MODEL_SHARD, payload=b"x", owner="10.1.1.1"))
    assert len(custody) == MAX_OBJECTS


def test_what_the_page_holds_and_measures_is_bounded() -> None:
    from packets.events import Event

    state, metrics = NetworkState(recent_limit=50), Metrics()
    for number in range(2000):
        event = Event(kind="warning", source=f"s{number}", t_unix_s=1.0, data={"text": f"w{number}"})
        state.apply(event)
        metrics.count("daitn_object_bytes_total", 1.0, node=f"n{number}")
    assert len(state.events_after(0, 10_000)) == 50
    assert len(state.section("notices")) <= 512
    assert len(metrics._values["daitn_object_bytes_total", "node"]) == MAX_LABEL_VALUES


def test_every_bound_of_the_table_is_one_of_the_code() -> None:
    """The table of docs/security.md names each bound by its constant, and where that stands."""
    text = (ROOT / "docs" / "security.md").read_text().partition("## Bounds")[2]
    rows = [line.split("`") for line in text.splitlines() if line.endswith(".py` |")]
    assert len(rows) >= 30
    for _, constant, _, file, _ in rows:
        assert re.search(rf"\b{constant}\b.* = ", (ROOT / file).read_text()), (file, constant)


def test_every_threat_has_its_test() -> None:
    """The table of threats in docs/security.md names a test for each, and there is such a test."""
    text = (ROOT / "docs" / "security.md").read_text()
    rows = [line.split("|") for line in text.partition("## Threats")[2].partition("`make bench-flood`")[0].splitlines()]
    threats = [cells for cells in rows if len(cells) == 7][2:]
    assert len(threats) >= 20
    named = [cells[5].strip().strip("`") for cells in threats]
    tests = [name for name in named if "::" in name]
    assert len(tests) >= len(threats) - 1, "all but the one that stands elsewhere"
    for file, _, test in (name.partition("::") for name in tests):
        assert f"def {test}(" in (ROOT / "tests" / file).read_text(), test
