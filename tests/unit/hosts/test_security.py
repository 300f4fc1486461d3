"""Terminals with keys: samples are for their readers alone, nobody speaks for another, agents are born with keys."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from experiments.testbed.identities import Identities
from hosts.learning.spec import NodeData
from hosts.learning.task import Task, TaskSpec, load_task, partition
from hosts.process.birth import Birth
from hosts.roles import ROLES, DataNode
from hosts.terminal.resources import Meter
from hosts.terminal.terminal import Terminal
from hosts.terminal.work import inline
from packets.errors import TransportError
from packets.labels import DCC_ADDRESS
from packets.messages import (
    Ack,
    AnnounceObject,
    AnnounceReply,
    Message,
    Refused,
    SendData,
    decode_message,
    encode_message,
)
from packets.security.identity import Directory, Identity
from packets.security.keeper import Keeper
from packets.security.seal import Refusal
from packets.transport import OutgoingObject
from packets.wire import NO_FLAGS, Flag, Header, PacketType, decode
from tests.fake_fabric import small_plan

PLAN = small_plan()
H11, C1, MPVU = (next(h for h in PLAN.hosts if h.name == n) for n in ("h13", "c1", "mpvu2"))
PEER = {h.name: (h.address, 55831) for h in PLAN.hosts}


@pytest.fixture(scope="module")
def task() -> Task:
    return load_task(TaskSpec(name="vignettes", train_per_node=32, test_per_node=16))


@pytest.fixture(scope="module")
def data(task: Task) -> NodeData:
    return partition(task, [H11.name], seed=1)[H11.name]


class Network:
    """Stands for the endpoint: the DCC gives every object an identity; what is sent and answered is kept."""

    def __init__(self) -> None:
        self.sent: list[OutgoingObject] = []
        self.replies: list[Message] = []

    def request(self, payload: bytes, **_: Any) -> tuple[Header, bytes]:
        assert isinstance(decode_message(payload), AnnounceObject)
        return Header(type=PacketType.ANNOUNCE), encode_message(AnnounceReply(object_id=5))

    def send_object(self, obj: OutgoingObject) -> Any:
        self.sent.append(obj)
        raise TransportError("nothing more of a launch is needed here")

    def reply(self, header: Header, payload: bytes, peer: object, *, type: PacketType) -> None:
        self.replies.append(decode_message(payload))


def data_node(task: Task, data: NodeData, guard: Keeper | None) -> tuple[DataNode, Network, list[dict[str, Any]]]:
    network, events = Network(), list[dict[str, Any]]()

    def emit(kind: str, /, **about: Any) -> None:
        events.append({"kind": kind, **about})

    terminal = Terminal(
        plan=H11, task=task, network=network, emit=emit, submit=inline, meter=Meter(1.0, lambda: 0.0),
        folder=Path("unused"), data=data, guard=guard,
    )  # fmt: skip
    terminal.stopping.set()  # no pauses between attempts
    role = ROLES["data"](terminal)
    assert isinstance(role, DataNode)
    return role, network, events


@pytest.fixture
def guard(tmp_path: Path) -> Keeper:
    identities = Identities(PLAN, tmp_path)
    return Keeper(identities[H11.name], Directory.load(identities.directory), aliases={DCC_ADDRESS: "dcc1"})


@pytest.mark.parametrize("kind, reader", [("test_sample", "mpvu"), ("data", "compute")])
def test_samples_are_for_their_readers_alone(task: Task, data: NodeData, guard: Keeper, kind: str, reader: str) -> None:
    secret = data_node(task, data, guard)[0]._announce(kind, data.test[0])
    assert secret.flags & Flag.ENCRYPTED and secret.receiver_roles == (reader,)
    plain = data_node(task, data, None)[0]._announce(kind, data.test[0])
    assert plain.flags == NO_FLAGS and plain.receiver_roles == ()


def test_nobody_asks_for_data_in_anothers_name(task: Task, data: NodeData, guard: Keeper) -> None:
    role, network, events = data_node(task, data, guard)
    header = Header(type=PacketType.ANNOUNCE, transfer_id=1)
    question = encode_message(SendData(name="c1", for_object=1, visit=1, task=task.name))
    role.message_arrived(header, question, PEER["c2"])
    assert isinstance(network.replies[0], Refused) and "c2 may not speak for c1" in network.replies[0].reason
    assert not network.sent and [e["reason"] for e in events if e["kind"] == "packet.refused"] == ["holder"]
    role.message_arrived(header, question, PEER["c1"])
    assert isinstance(network.replies[1], Ack) and network.sent[0].flags & Flag.ENCRYPTED


def test_an_agent_is_born_with_its_keys_and_knows_its_control_centre(tmp_path: Path) -> None:
    identities = Identities(PLAN, tmp_path)
    birth = Birth.__new__(Birth)
    birth._runtime_dir = tmp_path
    born = birth._guard(identities.keys("mpvu2"), MPVU)
    dcc = Keeper(Identity.load(identities.controller_options(2)["--identity"]), born.directory)
    raw = born.sign_request(Header(type=PacketType.TELEMETRY, transfer_id=1), b"", DCC_ADDRESS)

    assert dcc.check_request(decode(raw)[0], raw, PEER["mpvu2"]) is None
    assert dcc.check_request(decode(raw)[0], raw, PEER["c1"]) == Refusal("holder")


def test_keys_are_new_in_every_run_and_lie_in_no_file_but_the_control_centres(tmp_path: Path) -> None:
    one, two = (Identities(PLAN, tmp_path) for _ in range(2))
    assert one["h11"].certificate.signing != two["h11"].certificate.signing
    one.controller_options(1)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["dcc1.key", "directory.json"]
    assert all(p.stat().st_mode & 0o77 == 0 for p in tmp_path.iterdir())
    assert len({i.certificate.number for i in map(one.__getitem__, (h.name for h in PLAN.hosts))}) == len(PLAN.hosts)
