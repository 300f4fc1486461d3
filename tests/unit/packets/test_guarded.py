"""Endpoints with keys over real sockets on loopback: what they exchange, and what nobody can slip in between."""

from __future__ import annotations

import contextlib
import socket
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from packets.errors import RequestTimeout, TransportError
from packets.labels import AI_PORT
from packets.parts import MESSAGE_ROOM, PART_MTU
from packets.security import seal
from packets.security.identity import Directory, Identity
from packets.security.keeper import Keeper
from packets.transport import Endpoint, OutgoingObject, ReceivedObject
from packets.wire import (
    FIXED_BYTES,
    IP_UDP_BYTES,
    SEALED,
    Flag,
    Header,
    PacketType,
    decode,
    encode,
)
from tests.helpers import wait_until

ADDRESS = {"owner1": "127.0.91.1", "h11": "127.0.91.2", "mpvu2": "127.0.91.3", "h12": "127.0.91.4"}
ROLES = {"owner1": "model_owner", "h11": "data", "mpvu2": "mpvu", "h12": "data"}
PEOPLE = {name: Identity.new(name, ROLES[name], ADDRESS[name], n) for n, name in enumerate(ADDRESS, 1)}
DIRECTORY = Directory(p.certificate for p in PEOPLE.values())
SECRET = b"what a patient has told a hospital, and nobody else is to read. " * 1000
Peer = tuple[str, int]


class Terminal:
    """An endpoint with keys; ``overheard``: every datagram that it sent."""

    def __init__(self, name: str, *, guarded: bool = True, only_steered: bool = False) -> None:
        self.name, self.address = name, ADDRESS[name]
        self.objects: list[ReceivedObject] = []
        self.messages: list[bytes] = []
        self.overheard: list[bytes] = []
        self.keeper = Keeper(PEOPLE[name], DIRECTORY)
        self.endpoint = Endpoint(
            self.address, on_object=self.objects.append, on_message=self._on_message,
            guard=self.keeper if guarded else None, only_steered=only_steered,
        )  # fmt: skip
        plain = self.endpoint._socket.send

        def send(data: Any, to: Peer) -> bool:
            self.overheard.append(bytes(data))
            return plain(data, to)

        self.endpoint._socket.send = send  # type: ignore[method-assign]
        self.endpoint.start()

    def _on_message(self, header: Header, payload: bytes, peer: Peer) -> None:
        self.messages.append(payload)
        self.endpoint.reply(header, b"re:" + payload, peer, type=PacketType.RESPONSE)

    def object(self, to: str, **more: Any) -> OutgoingObject:
        fields: dict[str, Any] = {
            "object_id": 7, "type": PacketType.DATA_SHARD, "payload": SECRET, "owner": self.address, "to": ADDRESS[to],
        }  # fmt: skip
        return OutgoingObject(**(fields | more))

    @property
    def refused(self) -> dict[str, int]:
        return self.endpoint.refusals


@pytest.fixture
def stage() -> Iterator[dict[str, Terminal]]:
    terminals = {name: Terminal(name) for name in ("h11", "mpvu2", "h12")}
    yield terminals
    for one in terminals.values():
        one.endpoint.close()


def inject(packet: bytes, source: str, target: str) -> None:
    """Send a datagram in another's name (raw socket where we may; else the test is skipped)."""
    try:
        raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    except PermissionError:
        pytest.skip("needs CAP_NET_RAW")
    addresses = socket.inet_aton(ADDRESS[source]), socket.inet_aton(ADDRESS[target])
    ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 0, 0, 0, 64, socket.IPPROTO_UDP, 0, *addresses)
    with raw:
        raw.sendto(ip + struct.pack("!HHHH", AI_PORT, AI_PORT, 8 + len(packet), 0) + packet, (ADDRESS[target], 0))


def test_an_object_arrives_with_its_mandate_and_goes_on_with_it(stage: dict[str, Terminal]) -> None:
    stage["h11"].endpoint.send_object(stage["h11"].object("h12", payload=b"x" * 50_000)).result(10)
    wait_until(lambda: stage["h12"].objects, 5)
    (first,) = stage["h12"].objects
    assert first.mandate is not None
    onward = stage["h12"].object("mpvu2", owner=first.owner, visit=1, mandate=first.mandate, payload=b"trained")
    stage["h12"].endpoint.send_object(onward).result(10)
    wait_until(lambda: stage["mpvu2"].objects, 5)
    assert stage["mpvu2"].objects[0].payload == b"trained"
    assert not any(one.refused for one in stage.values())


def test_secrets_are_read_by_the_role_they_are_for_and_by_nobody_on_the_way(stage: dict[str, Terminal]) -> None:
    h11 = stage["h11"]
    obj = h11.object("mpvu2", flags=Flag.ENCRYPTED, receiver_roles=("mpvu",))
    h11.endpoint.send_object(obj).result(10)
    wait_until(lambda: stage["mpvu2"].objects, 5)
    assert stage["mpvu2"].objects[0].payload == SECRET
    wire = b"".join(h11.overheard) + bytes(h11.endpoint._outgoing._batch)
    assert b"patient" not in wire and len(h11.overheard) >= 1
    transfer = h11.endpoint.send_object(h11.object("h12", object_id=8, flags=Flag.ENCRYPTED, receiver_roles=("mpvu",)))
    with pytest.raises(TransportError, match="h12 is a data"):
        transfer.result(10)
    assert not stage["h12"].objects


def test_who_has_no_keys_gets_nothing_and_gives_nothing() -> None:
    plain, guarded = Terminal("h12", guarded=False), Terminal("h11")
    try:
        transfer = plain.endpoint.send_object(plain.object("h11"))
        wait_until(lambda: guarded.refused.get("unsigned", 0) >= 1, 5)
        transfer.cancel()
        with pytest.raises(RequestTimeout):
            plain.endpoint.request(b"hello", to=ADDRESS["h11"], type=PacketType.ANNOUNCE, timeout_s=0.5)
        assert not guarded.objects and not guarded.messages
        other = guarded.endpoint.send_object(guarded.object("h12"))
        wait_until(lambda: guarded.refused.get("unsigned", 0) >= 3, 5, "its acknowledgements are no word either")
        assert not other.done and not plain.objects
    finally:
        plain.endpoint.close()
        guarded.endpoint.close()


def test_a_request_is_answered_and_its_copy_is_not(stage: dict[str, Terminal]) -> None:
    h11, h12 = stage["h11"], stage["h12"]
    _, answer = h11.endpoint.request(b"hello", to=ADDRESS["h12"], type=PacketType.ANNOUNCE, timeout_s=5)
    assert answer == b"re:hello" and h12.messages == [b"hello"]
    inject(h11.overheard[-1], "h11", "h12")
    wait_until(lambda: h12.refused.get("replayed"), 5)
    inject(h11.overheard[-1], "mpvu2", "h12")
    wait_until(lambda: h12.refused.get("holder"), 5)
    assert h12.messages == [b"hello"]


def test_a_signed_message_of_many_parts_is_answered_and_a_copy_of_one_is_refused(stage: dict[str, Terminal]) -> None:
    h11, h12 = stage["h11"], stage["h12"]
    _, answer = h11.endpoint.request(bytes(20_000), to=ADDRESS["h12"], type=PacketType.QUERY, timeout_s=5)
    assert answer == b"re:" + bytes(20_000)
    assert h12.messages == [bytes(20_000)]
    inject(h11.overheard[-1], "h11", "h12")
    wait_until(lambda: h12.refused.get("replayed"), 5)


def test_a_signed_request_still_fits_one_frame(stage: dict[str, Terminal]) -> None:
    h11 = stage["h11"].endpoint
    for to in (ADDRESS["h12"], "240.1.2.3"):  # by pair key, and by signature to a label
        with contextlib.suppress(TransportError, RequestTimeout, OSError):
            h11.request(bytes(MESSAGE_ROOM), to=to, type=PacketType.QUERY, timeout_s=0.1)
        assert MESSAGE_ROOM < len(stage["h11"].overheard[-1]) <= PART_MTU - IP_UDP_BYTES


def test_a_shard_that_is_altered_on_its_way_is_found_and_its_block_comes_again(stage: dict[str, Terminal]) -> None:
    """By who sits on the path, has seen the shard's word, and mends both checksums."""
    h11, h12 = stage["h11"], stage["h12"]
    plain, seals = h11.endpoint._socket.send_batch, list[int]()

    def alter(data: memoryview, size: int, to: Peer) -> int:
        frames = bytearray(data)
        if not seals:
            word = struct.unpack_from("!I", frames, 56)[0] ^ zlib.crc32(frames[FIXED_BYTES:size])
            frames[FIXED_BYTES + 9] ^= 4
            struct.pack_into("!I", frames, 56, word ^ zlib.crc32(frames[FIXED_BYTES:size]))
            struct.pack_into("!I", frames, 60, zlib.crc32(bytes(frames[:60]) + bytes(4)))
        seals.extend(frames[at + 2] << 8 & SEALED for at in range(0, len(frames), size))
        return plain(memoryview(frames), size, to)

    h11.endpoint._socket.send_batch = alter  # type: ignore[method-assign]
    payload = bytes(range(256)) * 20_000
    stats = h11.endpoint.send_object(h11.object("h12", payload=payload)).result(20)
    wait_until(lambda: h12.objects, 5)
    assert h12.objects[0].payload == payload
    assert seals[0] == Flag.ONE_TIME and seals[-1] == Flag.KEYED
    assert 0 < stats.retransmissions < stats.packets / 2


def test_an_object_of_another_without_its_mandate_does_not_leave(stage: dict[str, Terminal]) -> None:
    transfer = stage["h11"].endpoint.send_object(stage["h11"].object("h12", owner=ADDRESS["owner1"]))
    with pytest.raises(TransportError, match="no mandate"):
        transfer.result(5)
    stage["h11"].endpoint.send_object(stage["h11"].object("h12")).result(10)


def test_forged_shards_and_answers_change_nothing_even_afterwards(stage: dict[str, Terminal]) -> None:
    """Right transfer id, right address, checksums mended: what is missing is the key."""
    h11, h12 = stage["h11"], stage["h12"]
    transfer = h11.endpoint.send_object(h11.object("h12"))
    transfer.result(10)
    launch, _ = decode(h11.overheard[0])
    fields: dict[str, Any] = {
        "object_id": 7, "owner": h11.address, "transfer_id": launch.transfer_id, "shard_count": launch.shard_count,
        "total_length": launch.total_length,
    }  # fmt: skip
    shard = Header(type=PacketType.DATA_SHARD, **fields)
    before = len(h12.overheard)
    inject(encode(shard, b"poison"), "h11", "h12")
    inject(seal.seal_with_mac(shard, b"poison", bytes(32), 2, 8), "h11", "h12")
    wait_until(lambda: h12.refused.get("mac") == 2, 5)
    assert len(h12.overheard) == before, "a forged shard draws no answer"
    second = h11.endpoint.send_object(h11.object("mpvu2", object_id=9, payload=SECRET * 100))
    wait_until(lambda: second.delivered_bytes > 0 or second.done, 5)
    done = Header(type=PacketType.ACK, flags=Flag.REPLY | Flag.COMPLETE, **(fields | {"object_id": 9}))
    done = msgspec.structs.replace(done, transfer_id=second.transfer_id)
    inject(seal.seal_with_mac(done, b"", bytes(32), 3, 8), "mpvu2", "h11")
    assert second.result(20).bytes == len(SECRET) * 100
    wait_until(lambda: stage["mpvu2"].objects, 5)
    assert stage["mpvu2"].objects[0].payload == SECRET * 100
