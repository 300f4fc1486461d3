"""Speakers with keys that are the same in every test, and keepers of their word on one clock."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

from packets.labels import DCC_ADDRESS
from packets.security.identity import Directory, Identity
from packets.security.keeper import Keeper
from packets.transfers import OutgoingObject
from packets.wire import Digest, Flag, Header, PacketType, Requirements

ROLES = {
    "owner1": ("model_owner", "10.1.1.1"),
    "h11": ("data", "10.1.1.2"),
    "h12": ("data", "10.1.1.3"),
    "mpvu2": ("mpvu", "10.2.1.1"),
    "dcc1": ("dcc", DCC_ADDRESS),
    "dcc2": ("dcc", DCC_ADDRESS),
}


def known_identity(name: str, number: int) -> Identity:
    """An identity made of its name: the same keys in every run of the tests."""
    keys = {
        f"{use}_private": base64.b64encode(hashlib.sha256(f"{name}/{use}".encode()).digest()).decode()
        for use in ("signing", "agreement")
    }
    role, address = ROLES[name]
    return Identity.from_json(json.dumps({"name": name, "role": role, "address": address, "number": number, **keys}))


PEOPLE = {name: known_identity(name, number) for number, name in enumerate(ROLES, 1)}
DIRECTORY = Directory([p.certificate for p in PEOPLE.values()])
PAYLOAD = b"a model, as it leaves its owner"
NEED = Requirements.of("vignettes", broad_accuracy=0.8, deadline_s=170)


class Clock:
    """Wall and monotonic clock of a test."""

    def __init__(self, now_ms: int = 1_700_000_000_000) -> None:
        self.now_ms = now_ms

    def wall(self) -> int:
        return self.now_ms

    def seconds(self) -> float:
        return self.now_ms / 1000


class Stage:
    """Keepers of several speakers on one clock."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.keepers = {name: self.keeper(name) for name in PEOPLE}
        self.clock.now_ms += 10

    def keeper(self, name: str, **more: Any) -> Keeper:
        aliases = {DCC_ADDRESS: "dcc1"}
        return Keeper(
            PEOPLE[name], DIRECTORY, aliases=aliases, wall_ms=self.clock.wall, clock=self.clock.seconds, **more
        )

    def __getitem__(self, name: str) -> Keeper:
        return self.keepers[name]


def address(name: str) -> str:
    return ROLES[name][1]


def launched(obj: OutgoingObject, transfer_id: int = 5) -> Header:
    return Header(
        type=obj.type, flags=obj.flags | Flag.LAUNCH, object_id=obj.object_id, owner=obj.owner, transfer_id=transfer_id,
        shard_count=1, total_length=len(obj.payload), visit=obj.visit, visit_limit=obj.visit_limit,
        requirements=obj.requirements, digest=Digest.of(obj.payload),
    )  # fmt: skip


def an_object(owner: str = "owner1", **more: Any) -> OutgoingObject:
    fields: dict[str, Any] = {
        "object_id": 0x1234_0010_0001, "type": PacketType.MODEL_SHARD, "payload": PAYLOAD, "owner": address(owner),
        "visit_limit": 40, "requirements": NEED,
    }  # fmt: skip
    return OutgoingObject(**(fields | more))


def launch(keeper: Keeper, obj: OutgoingObject, transfer_id: int = 5) -> bytes:
    return keeper.launch(obj, launched(obj, transfer_id))
