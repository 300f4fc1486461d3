"""Terminals with roles, keys and data that reach each other by address, in one process; there is no control centre."""

from __future__ import annotations

import time
from collections import deque
from pathlib import Path
from typing import Any

import torch

from hosts.autonomy.policies import Policy
from hosts.learning.task import Task, TaskSpec, load_task, partition, samples_to_bytes
from hosts.process.config import NodeSpec
from hosts.roles import ROLES, Role
from hosts.terminal.resources import Meter
from hosts.terminal.terminal import Terminal
from hosts.terminal.work import inline
from packets.errors import RequestTimeout, TransportError
from packets.messages import Order
from packets.security.identity import Directory, Identity
from packets.security.keeper import Keeper
from packets.transport import OutgoingObject, ReceivedObject, TransferStats
from packets.wire import Flag, Header, PacketType
from topologies.plan import HostPlan

PLACES = {
    "owner1": ("model_owner", 1), "h11": ("data", 1), "h12": ("data", 1), "h21": ("data", 2), "h22": ("data", 2),
    "mpvu1": ("mpvu", 1), "mpvu2": ("mpvu", 2), "mdfp1": ("mdfp", 1), "mdfp2": ("mdfp", 2),
}  # fmt: skip
ADDRESSES = {name: f"10.{kas}.1.{number}" for number, (name, (_, kas)) in enumerate(PLACES.items(), 1)}
NAMES = {address: name for name, address in ADDRESSES.items()}
_TASK: list[Task] = []


def the_task() -> Task:
    """Return the digits: learned in a moment."""
    if not _TASK:
        torch.set_num_threads(1)
        _TASK.append(load_task(TaskSpec(name="digits", alpha=0.5)))
    return _TASK[0]


class Sent:
    """The handle of a transfer that is over."""

    def __init__(self, receiver: str, error: TransportError | None) -> None:
        self._receiver, self._error = receiver, error

    def result(self, timeout_s: float) -> TransferStats:
        if self._error is not None:
            raise self._error
        return TransferStats(
            bytes=1, packets=1, retransmissions=0, seconds=0.1, launch_seconds=0.01, rtt_ms=1.0, goodput_mbps=1.0,
            receiver=self._receiver,
        )  # fmt: skip


class Line:
    """One terminal's endpoint in a town."""

    def __init__(self, town: Town, address: str) -> None:
        self.town, self.address = town, address
        self.replies: dict[int, bytes] = {}

    def request(
        self, payload: bytes, *, to: str, type: PacketType, timeout_s: float = 10, object_id: int = 0
    ) -> tuple[Header, bytes]:
        self.town.asked.append((self.address, to))
        if to not in self.town.roles or to in self.town.dead:
            raise RequestTimeout(f"{to} did not answer")
        self.town.questions += 1
        header = Header(type=type, transfer_id=self.town.questions, object_id=object_id)
        self.town.roles[to].message_arrived(header, payload, (self.address, 55831))
        return Header(type=type, flags=Flag.REPLY), self.town.lines[to].replies.pop(header.transfer_id)

    def reply(self, header: Header, payload: bytes, peer: tuple[str, int], *, type: PacketType) -> None:
        self.replies[header.transfer_id] = payload

    def send_object(self, obj: OutgoingObject) -> Sent:
        self.town.launched.append(obj)
        if obj.to is None or obj.to in self.town.dead | self.town.deaf:
            return Sent("", TransportError(f"{obj.destination} does not answer"))
        self.town.under_way.append((self.address, obj))
        return Sent(obj.to, None)


class Town:
    """``run`` delivers objects until none is under way. ``dead``: addresses that answer nothing any more;
    ``deaf``: those that answer questions, and take no object.
    """

    def __init__(self, folder: Path, policies: dict[str, Policy] | None = None, *, keys: bool = True) -> None:
        self.asked: list[tuple[str, str]] = []
        self.launched: list[OutgoingObject] = []
        self.under_way: deque[tuple[str, OutgoingObject]] = deque()
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.dead: set[str] = set()
        self.deaf: set[str] = set()
        self.questions = 0
        self.lines = {address: Line(self, address) for address in ADDRESSES.values()}
        people = {
            name: Identity.new(name, role, ADDRESSES[name], number)
            for number, (name, (role, _)) in enumerate(PLACES.items(), 1)
        }
        self.identities, self.directory = people, Directory([p.certificate for p in people.values()])
        data = partition(the_task(), [n for n, (role, _) in PLACES.items() if role == "data"], seed=1)
        members = [
            NodeSpec(name=n, role=role, kas=kas, index=i, address=ADDRESSES[n])
            for i, (n, (role, kas)) in enumerate(PLACES.items())
        ]
        self.roles: dict[str, Role] = {}
        for number, (name, (role, kas)) in enumerate(PLACES.items(), 1):
            plan = HostPlan(
                name=name, role=role, kas=kas, address=ADDRESSES[name], mac="02:00:00:00:00:01", switch="s", port=number
            )
            terminal = Terminal(
                plan=plan, task=the_task(), network=self.lines[ADDRESSES[name]], emit=self._emit, submit=inline,
                meter=Meter(5000.0, time.monotonic), folder=folder / name, data=data.get(name),
                guard=Keeper(people[name], self.directory) if keys else None, members=members, policies=policies or {},
            )  # fmt: skip
            terminal.stopping.set()  # no pauses between attempts, nobody watches
            self.roles[ADDRESSES[name]] = ROLES[role](terminal)
        for copy, mpvu in enumerate(("mpvu1", "mpvu2")):
            for name, held in data.items():
                payload = samples_to_bytes(held.test[copy])
                order = Order(action="keep_test_sample", object_id=1, visit=0)
                self.role(mpvu).actions["keep_test_sample"](received(ADDRESSES[name], payload), order)

    def _emit(self, kind: str, /, **data: Any) -> None:
        self.events.append((kind, data))

    def role(self, name: str) -> Role:
        return self.roles[ADDRESSES[name]]

    def submit(self, **spec: Any) -> dict[str, Any]:
        """Submit a job at the owner; its verdict."""
        said = {"task": "digits", "steering": "aats", "broad_accuracy": 0.8, "max_visits": 8, "seed": 1} | spec
        reply: dict[str, Any] = self.role("owner1").command({"op": "submit", "spec": said})["reply"]
        return reply

    def run(self, stops: int = 300) -> None:
        """Deliver what is under way, and what comes of it."""
        for _ in range(stops):
            if not self.under_way:
                return
            sender, obj = self.under_way.popleft()
            assert obj.to is not None
            self.roles[obj.to].object_arrived(arrived(sender, obj))
        raise AssertionError("objects travel without end")

    def of(self, kind: str) -> list[dict[str, Any]]:
        """Return the events of a kind."""
        return [data for k, data in self.events if k == kind]

    def route(self) -> list[str]:
        """Return the names of the places that the object went to."""
        return [NAMES[obj.to] for obj in self.launched if obj.to is not None]


def arrived(sender: str, obj: OutgoingObject) -> ReceivedObject:
    """Return what comes in of an object that was sent."""
    return ReceivedObject(
        object_id=obj.object_id, type=obj.type, payload=bytes(obj.payload), owner=obj.owner, visit=obj.visit,
        visit_limit=obj.visit_limit, requirements=obj.requirements, sender=sender, transfer_id=1, seconds=0.1,
        packets=1, duplicates=0, mandate=obj.mandate, flags=obj.flags,
    )  # fmt: skip


def received(owner: str, payload: bytes) -> ReceivedObject:
    """Return a test sample that came in."""
    return ReceivedObject(
        object_id=1, type=PacketType.DATA_SHARD, payload=payload, owner=owner, visit=0, visit_limit=1,
        requirements=None, sender=owner, transfer_id=1, seconds=0.1, packets=1, duplicates=0,
    )  # fmt: skip
