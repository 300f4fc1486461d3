"""The attacker of the flood benchmark: a terminal with keys of its own, which sends what must be refused.

It has seen the launch of the transfer that it attacks (as somebody on the path would), writes any source address into
its packets, and mends their checksums.  First line of input: {"keys": ...}.  ``go <seconds> <json>``: send;
answers with how many of each kind left.  Packets carry DSCP 10, so that a counter can tell them from others.
"""

from __future__ import annotations

import json
import random
import socket
import struct
import sys
import time
import zlib
from collections import Counter
from collections.abc import Callable
from typing import Any

import msgspec

from packets.labels import AI_PORT, label_address, object_label
from packets.security.identity import Identity
from packets.security.seal import make_mandate, now_ms, seal_with_signature
from packets.wire import Digest, Flag, Header, decode, encode

DSCP = 10
STEP_S = 0.002
VARIANTS = 64
_IP = struct.Struct("!BBHHHBBH4s4s")
_UDP = struct.Struct("!HHHH")


def datagram(source: str, target: str, payload: bytes) -> bytes:
    """Return an IPv4 packet for a raw socket, which fills in length and checksum of the IP header."""
    udp = _UDP.pack(AI_PORT, AI_PORT, _UDP.size + len(payload), 0)  # checksum 0: none
    addresses = socket.inet_aton(source), socket.inet_aton(target)
    return _IP.pack(0x45, DSCP << 2, 0, 0, 0, 64, socket.IPPROTO_UDP, 0, *addresses) + udp + payload


def mended(packet: bytes) -> bytes:
    """Return a packet whose two checksums fit again."""
    data = bytearray(packet)
    header_length = struct.unpack_from("!H", data, 4)[0]
    struct.pack_into("!I", data, 56, zlib.crc32(data[header_length:]))
    struct.pack_into("!I", data, 60, zlib.crc32(bytes(data[:60]) + bytes(4) + bytes(data[64:header_length])))
    return bytes(data)


class Forger:
    """Makes each kind of bad packet from what has been seen of a transfer."""

    def __init__(self, identity: Identity, seen: dict[str, Any]) -> None:
        self.identity, self.own = identity, identity.certificate.address
        self.victim, self.receiver = seen["sender"], seen["receiver"]
        self.launch = bytes.fromhex(seen["launch"])
        self.header, _ = decode(self.launch)
        self.random = random.Random(1)

    def kinds(self) -> dict[str, Callable[[], tuple[str, bytes]]]:
        """Return the makers: each gives a source address and an AI packet."""
        return {
            "altered, checksums not mended": self.altered,
            "altered launch, mended": self.altered_launch,
            "altered shard, mended": self.altered_shard,
            "truncated": self.truncated,
            "replayed": lambda: (self.victim, self.launch),
            "expired": self.expired,
            "unsigned": self.unsigned,
            "wrong owner": self.wrong_owner,
        }

    def altered(self) -> tuple[str, bytes]:
        data = bytearray(self.launch)
        data[self.random.randrange(8, 56)] ^= 1 + self.random.randrange(255)
        return self.victim, bytes(data)

    def altered_launch(self) -> tuple[str, bytes]:
        """A launch of the victim's under a new transfer id, now: all but the signature is right."""
        fields = {"transfer_id": self.random.getrandbits(32), "sent_at_ms": now_ms()}
        return self.victim, encode(msgspec.structs.replace(self.header, **fields))

    def altered_shard(self) -> tuple[str, bytes]:
        """A shard of the transfer under way, of the right form, with bytes of the attacker's."""
        room = 1408
        index = self.random.randrange(max(self.header.shard_count - 1, 1))
        shard = Header(
            type=self.header.type, object_id=self.header.object_id, owner=self.header.owner,
            transfer_id=self.header.transfer_id, shard_index=index, shard_count=self.header.shard_count,
            offset=index * room, total_length=self.header.total_length, payload_checksum=self.random.getrandbits(32),
            flags=self.random.choice((Flag.ONE_TIME, Flag.KEYED)),
        )  # fmt: skip
        return self.victim, encode(shard, self.random.randbytes(room))

    def truncated(self) -> tuple[str, bytes]:
        return self.victim, self.launch[: self.random.randrange(len(self.launch))]

    def expired(self) -> tuple[str, bytes]:
        """Rightly signed by the attacker, an hour ago."""
        return self.own, self._own_launch(sent_at_ms=now_ms() - 3_600_000)

    def unsigned(self) -> tuple[str, bytes]:
        return self.victim, encode(msgspec.structs.replace(self.header, authentication=None))

    def wrong_owner(self) -> tuple[str, bytes]:
        """The attacker holds an object and signs its launch, but the mandate in its owner's name as well."""
        return self.own, self._own_launch(owner=self.victim, visit=1, visit_limit=9)

    def _own_launch(self, **changes: Any) -> bytes:
        fields: dict[str, Any] = {
            "owner": self.own, "transfer_id": self.random.getrandbits(32), "sent_at_ms": now_ms(), "mandate": None,
            "authentication": None, **changes,
        }  # fmt: skip
        header = msgspec.structs.replace(self.header, **fields)
        digest = Digest.of(b"other").value
        word = make_mandate(header, digest, now_ms() - 1000, now_ms() + 600_000, self.identity)
        return seal_with_signature(msgspec.structs.replace(header, mandate=word), b"", self.identity)

    def to_label(self) -> tuple[str, bytes]:
        """A forged launch of the object, from the attacker's own port and address, to the object's label."""
        return self.own, self.wrong_owner()[1]


class Attack:
    """Sends prepared packets at an even rate and counts what left."""

    def __init__(self, identity: Identity) -> None:
        self.identity = identity
        self.raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)

    def prepare(self, seen: dict[str, Any]) -> list[tuple[str, str, bytes]]:
        """Return (kind, target, packet), all kinds in turn; ``label_share`` of them to the object's label."""
        forger = Forger(self.identity, seen)
        ready = [
            (kind, forger.receiver, datagram(source, forger.receiver, packet))
            for _ in range(VARIANTS)
            for kind, make in forger.kinds().items()
            for source, packet in [make()]
        ]
        label = label_address(object_label(forger.header.object_id))
        every = round(1 / seen["label_share"]) if seen["label_share"] else 0
        if not every:
            return ready
        mixed = []
        for number, one in enumerate(ready, 1):
            mixed.append(one)
            if number % every == 0:
                source, packet = forger.to_label()
                mixed.append(("to the label", label, datagram(source, label, packet)))
        return mixed

    def go(self, seconds: float, seen: dict[str, Any]) -> dict[str, Any]:
        """Send ``rate_pps`` packets a second for so long, and say what left."""
        ready, sent = self.prepare(seen), Counter[str]()
        begun = time.monotonic()
        done = blocked = 0
        while (elapsed := time.monotonic() - begun) < seconds:
            for _ in range(min(int(elapsed * seen["rate_pps"]) - done, 200)):
                kind, target, packet = ready[done % len(ready)]
                done += 1
                try:
                    self.raw.sendto(packet, (target, 0))
                    sent[kind] += 1
                except OSError:
                    blocked += 1
            time.sleep(STEP_S)
        return {"sent": dict(sent), "blocked": blocked, "seconds": time.monotonic() - begun}


def main() -> int:
    attack = Attack(Identity.from_json(json.loads(sys.stdin.readline())["keys"]))
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        word, seconds, seen = line.split(" ", 2)
        if word == "go":
            print(json.dumps(attack.go(float(seconds), json.loads(seen))), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
