"""Training together between real roles: a fake DCC gives identities and a fake wire carries the pieces."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from hosts.learning.errors import LearningError
from hosts.learning.methods.updates import state_of
from hosts.learning.task import NodeData, Task, TaskSpec, bytes_to_model, load_task, model_to_bytes, partition
from hosts.methods import exchange as exchange_module
from hosts.methods import group as group_module
from hosts.methods.envelope import Envelope, pack, unpack
from hosts.methods.exchange import Exchange, Piece
from hosts.roles import ROLES
from hosts.terminal.resources import Meter
from hosts.terminal.terminal import Terminal
from hosts.terminal.work import Work
from packets.errors import TransportError
from packets.messages import (
    Ack,
    AnnounceObject,
    AnnounceReply,
    Order,
    OrderRequest,
    VisitDone,
    decode_message,
    encode_message,
)  # fmt: skip
from packets.transport import OutgoingObject, ReceivedObject, TransferStats
from packets.wire import Flag, Header, PacketType
from topologies.plan import HostPlan

JOB = 77
LEADER = "1:@compute/0"
STATS = TransferStats(
    bytes=1, packets=1, retransmissions=0, seconds=0.1, launch_seconds=0.01, rtt_ms=1.0, goodput_mbps=1.0, receiver="x"
)


class Sent:
    def __init__(self, error: TransportError | None) -> None:
        self._error = error

    def result(self, timeout_s: float) -> TransferStats:
        if self._error:
            raise self._error
        return STATS


class World:
    """Terminals by place; what a DCC knows of announced objects; everything that crossed."""

    def __init__(self, folder: Path, task: Task, parts: dict[str, NodeData], movable: bool = True) -> None:
        self.task, self.lock = task, threading.Lock()
        self.targets: dict[int, str] = {}
        self.crossed: list[tuple[str, str, int]] = []
        self.done: list[VisitDone] = []
        self.gone: set[str] = set()
        self.home = threading.Event()
        self.result: bytes = b""
        self.order: Order | None = None
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.roles: dict[str, Any] = {LEADER: self._role("compute", "c1", 1, None, folder, movable)}
        for number, (name, data) in enumerate(parts.items()):
            self.roles[f"2:@of/{JOB:x}/m{number}"] = self._role("data", name, 10 + number, data, folder, movable)
        self.members = [place for place in self.roles if place != LEADER]

    def _role(self, role: str, name: str, last: int, data: NodeData | None, folder: Path, movable: bool) -> Any:
        plan = HostPlan(
            name=name, role=role, kas=1, address=f"10.1.1.{last}", mac="02:00:00:00:00:01", switch="k1s1", port=last,
            data_may_move=movable,
        )  # fmt: skip
        terminal = Terminal(
            plan=plan, task=self.task, network=Wire(self, plan.address), emit=self._emit, submit=Work(),
            meter=Meter(1000.0, lambda: 0.0), folder=folder / name, data=data, seed=5,
        )  # fmt: skip
        return ROLES[role](terminal)

    def _emit(self, kind: str, /, **data: Any) -> None:
        with self.lock:
            self.events.append((kind, data))

    def place_of(self, address: str) -> str:
        return next(p for p, r in self.roles.items() if r.terminal.plan.address == address)

    def lead(self, action: str, timeout_s: float = 60.0, **more: Any) -> bytes:
        about: dict[str, Any] = {"epochs": 0.5, "batch_size": 16, "rounds": 1, **more}
        self.order = Order(
            action=action, object_id=JOB, visit=0, task=self.task.name, members=self.members, place=LEADER, **about
        )
        payload = model_to_bytes(self.task.new_model(3))
        self.roles[LEADER].object_arrived(received(JOB, 0, payload, "10.9.9.9", PacketType.MODEL_SHARD))
        assert self.home.wait(timeout_s), self.errors()
        return self.result

    def errors(self) -> str:
        return "\n".join(str(data.get("text")) for kind, data in self.events if kind in ("error", "warning"))


def received(object_id: int, visit: int, payload: bytes, sender: str, kind: PacketType) -> ReceivedObject:
    return ReceivedObject(
        object_id=object_id, type=kind, payload=payload, owner=sender, visit=visit, visit_limit=40, requirements=None,
        sender=sender, transfer_id=7, seconds=0.5, packets=3, duplicates=0,
    )  # fmt: skip


class Wire:
    """One terminal's network."""

    def __init__(self, world: World, address: str) -> None:
        self.world, self.address = world, address

    def request(
        self, payload: bytes, *, to: str, type: PacketType, timeout_s: float = 10, object_id: int = 0
    ) -> tuple[Header, bytes]:
        return Header(type=type, flags=Flag.REPLY), encode_message(self._dcc(decode_message(payload)))

    def _dcc(self, message: Any) -> Any:
        world = self.world
        if isinstance(message, AnnounceObject):
            with world.lock:
                object_id = 1000 + len(world.targets)
                world.targets[object_id] = message.target
            return AnnounceReply(object_id=object_id)
        if isinstance(message, OrderRequest) and message.object_id == JOB:
            return world.order
        if isinstance(message, OrderRequest):
            assert message.object_id in world.targets and message.visit == 0, "pieces sent straight need no order"
            return Order(action="exchange", object_id=message.object_id, visit=0)
        if isinstance(message, VisitDone):
            world.done.append(message)
        return Ack()

    def send_object(self, obj: OutgoingObject) -> Sent:
        world = self.world
        if obj.object_id == JOB:
            world.result = bytes(obj.payload)
            world.home.set()
            return Sent(None)
        place = world.place_of(obj.to) if obj.to else world.targets[obj.object_id]
        if place in world.gone:
            return Sent(TransportError("nobody answers"))
        with world.lock:
            world.crossed.append((world.place_of(self.address), place, len(obj.payload)))
        world.roles[place].object_arrived(received(obj.object_id, obj.visit, obj.payload, self.address, obj.type))
        return Sent(None)

    def reply(self, *_: Any, **__: Any) -> None: ...

    def relaunch(self, *_: Any) -> bool:
        return False

    def hand_over(self, *_: Any) -> None:
        return None


@pytest.fixture(scope="module")
def task() -> Task:
    torch.set_num_threads(1)
    return load_task(TaskSpec(partition="iid", train_per_node=48, test_per_node=8, noise=0.1))


@pytest.fixture(scope="module")
def parts(task: Task) -> dict[str, NodeData]:
    return partition(task, ["h1", "h2", "h3"], 0)


@pytest.fixture
def make(tmp_path: Path, task: Task, parts: dict[str, NodeData]) -> Iterator[Callable[..., World]]:
    made: list[World] = []

    def build(**more: Any) -> World:
        made.append(World(tmp_path, task, parts, **more))
        return made[-1]

    yield build
    for world in made:
        for role in world.roles.values():
            role.terminal.stopping.set()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group_module, "ROUND_S", 10.0)
    monkeypatch.setattr(exchange_module, "LAUNCH_ATTEMPTS", 1)


@pytest.mark.parametrize("action", ["federate", "central", "gossip", "split"])
def test_a_group_trains_the_model_and_lets_it_go(make: Callable[..., World], task: Task, action: str) -> None:
    world = make()
    result = state_of(bytes_to_model(task, world.lead(action)))
    fresh = state_of(task.new_model(3))
    assert any(not torch.equal(result[n], fresh[n]) for n in fresh)
    assert (world.done[0].samples, world.done[0].problem) == (144, "")
    assert world.done[0].loss > 0
    assert world.errors() == ""


def test_masked_rounds_come_to_what_open_ones_come_to(make: Callable[..., World], task: Task) -> None:
    open_, masked = (state_of(bytes_to_model(task, make().lead("federate", secure=s))) for s in (False, True))
    assert all(torch.allclose(open_[n], masked[n], atol=2e-3) for n in open_)


def test_the_facility_never_sees_a_masked_member_in_the_clear(make: Callable[..., World], task: Task) -> None:
    world = make()
    seen: list[Piece] = []
    leader = world.roles[LEADER].exchange
    keep = leader.keep
    leader.keep = lambda piece: (seen.append(piece), keep(piece))[1]
    world.lead("federate", secure=True)
    bodies = [p.body for p in seen if p.envelope.kind == "update"]
    assert len(bodies) == 3
    for body in bodies:
        words = torch.frombuffer(bytearray(body), dtype=torch.int32).double()
        assert float(words.abs().median()) > 2**28  # an update in the clear is some thousands at most


@pytest.mark.parametrize("secure", [False, True])
def test_a_member_that_is_gone_is_left_out(make: Callable[..., World], secure: bool) -> None:
    world = make()
    world.gone = {world.members[1]}
    world.lead("federate", secure=secure)
    assert (world.done[0].samples, world.done[0].problem) == (96, "")
    assert "nobody answers" in world.errors()


def test_a_group_of_which_most_are_gone_lets_the_model_go_as_it_came(make: Callable[..., World], task: Task) -> None:
    world = make()
    world.gone = set(world.members[:2])
    result = world.lead("federate")
    assert result == model_to_bytes(task.new_model(3))
    assert "1 of 3 members answered" in world.done[0].problem and world.done[0].samples == 0


def test_data_that_may_not_move_stays(make: Callable[..., World]) -> None:
    world = make(movable=False)
    world.lead("central")
    assert "may not leave it" in world.done[0].problem


def test_pooled_data_is_sent_once_a_job(make: Callable[..., World]) -> None:
    world = make()
    world.lead("central")
    pieces = len(world.crossed)
    world.home.clear()
    world.order = msgspec.structs.replace(world.order, visit=2)
    payload = world.result
    world.roles[LEADER].object_arrived(received(JOB, 2, payload, "10.9.9.9", PacketType.MODEL_SHARD))
    assert world.home.wait(20)
    assert len(world.crossed) == pieces
    assert len(world.done) == 2


def test_coded_updates_are_smaller(make: Callable[..., World]) -> None:
    plain, coded = make(), make()
    plain.lead("federate")
    coded.lead("federate", compression="int8")
    size = [sum(n for _, _, n in w.crossed) for w in (plain, coded)]
    assert size[1] < 0.35 * size[0]


def test_gossip_goes_between_members_and_split_straight_to_addresses(make: Callable[..., World]) -> None:
    world = make()
    world.lead("gossip", rounds=2)
    assert sum(a in world.members and b in world.members for a, b, _ in world.crossed) == 2 * 3
    world = make()
    world.lead("split")
    assert len(world.crossed) > len(world.targets)  # most pieces were never announced


def envelope(**more: Any) -> Envelope:
    return Envelope(**{"job": 1, "kind": "mix", "number": 0, "member": 0} | more)


def test_pieces_wait_in_bounded_memory(make: Callable[..., World], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange_module, "MAX_BYTES", 1000)
    box = Exchange(make().roles[LEADER].terminal)
    for number in range(50):
        box.keep(Piece(envelope(number=number), bytes(100), "10.1.1.1", 5))
    assert len(box._pieces) == 10
    assert box.take(1, ("mix",), 49, {0}, 0.0)[0].body == bytes(100)
    assert box.take(1, ("mix",), 0, {0}, 0.0) == {}


@given(st.binary(max_size=300))
@hypothesis_settings(deadline=None)
def test_no_bytes_break_the_envelope(data: bytes) -> None:
    try:
        unpack(data)
    except LearningError:
        return
    assert len(data) >= 4


@given(st.integers(0, 200), st.integers(0, 255))
@hypothesis_settings(deadline=None)
def test_an_altered_header_is_read_or_refused(at: int, byte: int) -> None:
    data = bytearray(pack(envelope(reply=LEADER, keys=[b"x" * 32]), b"body"))
    data[at % len(data)] = byte
    try:
        found, _ = unpack(data)
    except LearningError:
        return
    assert isinstance(found, Envelope)
