"""AI packets for the tests of the decoders: random ones, damaged ones, and what each decoder should show of them."""

from __future__ import annotations

import os
import random
import struct
import subprocess
import tempfile
import zlib
from pathlib import Path
from typing import Any

import msgspec
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from packets import ai
from packets.errors import PacketError
from packets.labels import AI_PORT, home_kas, label_address
from packets.options import MAX_BLOCKS, Authentication
from packets.wire import (
    SEALED,
    SHARD_TYPES,
    Acknowledgement,
    Digest,
    DigestAlgorithm,
    Flag,
    Header,
    Mandate,
    PacketType,
    Requirements,
    decode,
    encode,
)

LUA = Path(ai.__file__).with_name("ai.lua")
SEPARATOR = "|"
FIELDS = [
    "version", "class", "type", "flags", "header_length", "payload_length", "object_id", "label", "label_address",
    "home_kas", "owner", "transfer_id", "shard_index", "shard_count", "offset", "total_length", "visit", "visit_limit",
    "timestamp_us", "payload_checksum", "header_checksum", "payload", "refused", "req.task_class", "req.broad_accuracy",
    "req.expert_accuracy", "req.trust_floor", "req.expert_group", "req.deadline_ms", "digest.algorithm", "digest.value",
    "ack.base", "ack.echo_us", "ack.delay_us", "ack.window", "ack.bitmap", "error", "mandate.issued_ms",
    "mandate.expires_ms", "mandate.digest", "mandate.signature", "key_share", "sent_at_ms", "blocks", "auth.algorithm",
    "auth.reserved", "auth.key_id", "auth.tag", "option.type", "option.length", "option.value", "cut", "malformed",
    "checksum_bad", *(f"flags.{flag.name.lower()}" for flag in Flag if flag.name),
]  # fmt: skip


def random_header(rng: random.Random) -> Header:
    """Any header that the codec accepts."""
    kind = rng.choice(list(PacketType))
    count = rng.randint(1, 2**32 - 1)
    header = Header(
        type=kind, flags=Flag(rng.getrandbits(16)), traffic_class=rng.getrandbits(4), object_id=rng.getrandbits(64),
        owner=".".join(str(rng.randrange(256)) for _ in range(4)), transfer_id=rng.getrandbits(32),
        shard_index=rng.randrange(count), shard_count=count, offset=rng.getrandbits(40),
        total_length=rng.getrandbits(62) | 1 << 62, visit=rng.getrandbits(16), visit_limit=rng.getrandbits(16),
        timestamp_us=rng.getrandbits(32), requirements=rng.choice([None, random_requirements(rng)]),
        digest=rng.choice([None, Digest(rng.randbytes(32), rng.choice(list(DigestAlgorithm)))]),
        ack=rng.choice([None, random_ack(rng)]), error=rng.choice([None, rng.getrandbits(16)]),
        mandate=rng.choice([None, random_mandate(rng)]), key_share=rng.choice([None, rng.randbytes(32)]),
        sent_at_ms=rng.choice([None, rng.getrandbits(64)]), payload_checksum=rng.getrandbits(32),
        blocks=rng.choice([None, None, rng.randbytes(32 * rng.randint(2, MAX_BLOCKS))]),
        authentication=rng.choice([None, random_authentication(rng)]),
        others=rng.choice([(), ((0x8000 + rng.randrange(1000), rng.randbytes(rng.randrange(9))),)]),
    )  # fmt: skip
    if kind in SHARD_TYPES and header.flags & Flag.LAUNCH and header.digest is None:
        return msgspec.structs.replace(header, digest=Digest(rng.randbytes(32)))
    return header


def random_requirements(rng: random.Random) -> Requirements:
    shares = [rng.randint(0, 10_000) for _ in range(3)]
    return Requirements(
        task_class=rng.getrandbits(32), broad_accuracy=shares[0], expert_accuracy=shares[1], trust_floor=shares[2],
        expert_group=rng.getrandbits(16), deadline_ms=rng.getrandbits(32),
    )  # fmt: skip


def random_authentication(rng: random.Random) -> Authentication:
    algorithm = rng.choice([1, 2])
    size = 64 if algorithm == 2 else rng.randint(8, 32)
    return Authentication(algorithm=algorithm, key_id=rng.getrandbits(16), tag=rng.randbytes(size))


def random_mandate(rng: random.Random) -> Mandate:
    issued, expires = rng.getrandbits(64), rng.getrandbits(64)
    return Mandate(issued_ms=issued, expires_ms=expires, digest=rng.randbytes(32), signature=rng.randbytes(64))


def random_ack(rng: random.Random) -> Acknowledgement:
    base, echo, delay, window = (rng.getrandbits(32) for _ in range(4))
    bitmap = rng.randbytes(rng.choice([0, 1, 30, 600]))
    return Acknowledgement(base=base, echo_us=echo, delay_us=delay, window=window, bitmap=bitmap)


def random_packet(rng: random.Random) -> bytes:
    header = random_header(rng)
    launch = header.type in SHARD_TYPES and header.flags & Flag.LAUNCH
    return encode(header, b"" if launch else rng.randbytes(rng.choice([0, 1, 3, 200, 700])))


def mutated(rng: random.Random, packet: bytes) -> bytes:
    """Damage a packet; in most cases make the header checksum right again, so that the later rules are reached."""
    data = bytearray(packet)
    how = rng.randrange(5)
    header_length = int.from_bytes(data[4:6], "big")
    if how == 0:
        return bytes(data[: rng.randrange(len(data))])
    if how == 1 and header_length > 64:  # within the options
        data[rng.randrange(64, min(header_length, 64 + 24))] = rng.choice([0, 1, 2, 3, 4, 0x10, 0x21, 0x80, 0xFF])
    elif how == 2:  # the fields that rules speak of
        at, size = rng.choice([(0, 1), (1, 1), (2, 2), (4, 2), (6, 2), (24, 4), (28, 4), (32, 8), (40, 8), (56, 4)])
        data[at : at + size] = rng.choice([bytes(size), b"\xff" * size, rng.randbytes(size)])
    else:
        for _ in range(rng.randint(1, 4)):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    if rng.random() < 0.7 and 64 <= int.from_bytes(data[4:6], "big") <= len(data):
        stop = int.from_bytes(data[4:6], "big")
        data[60:64] = bytes(4)
        data[60:64] = zlib.crc32(data[:stop]).to_bytes(4, "big")
    return bytes(data)


def verdict(data: bytes) -> str | None:
    """What the codec says: None, or the reason of its refusal."""
    try:
        decode(data)
    except PacketError as error:
        return error.reason
    return None


def frame(data: bytes, *, src: str = "10.1.1.1", dst: str = "240.16.0.1") -> Ether:
    link = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
    return link / ai.IP(src=src, dst=dst) / ai.UDP(sport=AI_PORT, dport=AI_PORT) / Raw(data)


def write_capture(path: Path, frames: list[Any], snaplen: int | None = None) -> Path:
    with path.open("wb") as out:
        out.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, snaplen or 65535, 1))
        for second, one in enumerate(frames):
            data = bytes(one)
            kept = data[:snaplen]
            out.write(struct.pack("<IIII", second, 0, len(kept), len(data)) + kept)
    return path


def run_tshark(*arguments: str, timeout_s: float = 50, dissector: Path = LUA) -> str:
    """Return what tshark with our dissector (from the project, not an installed copy) says."""
    command = ["tshark", "-X", f"lua_script:{dissector}", *arguments]
    with tempfile.TemporaryDirectory() as config:
        nobody = os.environ | {"WIRESHARK_CONFIG_DIR": config, "WIRESHARK_PLUGIN_DIR": config, "HOME": config}
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=True, env=nobody)
    assert "Lua" not in done.stderr, done.stderr
    return done.stdout


def tshark(path: Path, *more: str, timeout_s: float = 50) -> list[dict[str, str]]:
    """Return, for each frame, the fields that the dissector saw; those that occur more than once joined by commas."""
    command = ["-r", str(path), "-T", "fields", "-E", f"separator={SEPARATOR}", "-E", "occurrence=a", *more]
    for field in FIELDS:
        command += ["-e", f"ai.{field}"]
    lines = run_tshark(*command, timeout_s=timeout_s).splitlines()
    shown = [zip(FIELDS, line.split(SEPARATOR), strict=True) for line in lines]
    words = {"True": "1", "False": "0"}  # how later versions write what 4.0 writes as a number
    return [{name: words.get(value, value) for name, value in one if value} for one in shown]


def as_wireshark(data: bytes) -> dict[str, str]:
    """What the dissector should show of a good packet, said by the codec."""
    header, payload = decode(data)
    shown = {
        "version": header.version, "class": header.traffic_class, "type": int(header.type),
        "flags": f"0x{int(header.flags):04x}", "header_length": len(data) - len(payload),
        "payload_length": len(payload),
        "object_id": f"0x{header.object_id:016x}", "label": f"0x{header.label:08x}",
        "label_address": label_address(header.label), "owner": header.owner,
        "transfer_id": f"0x{header.transfer_id:08x}",
        "shard_index": header.shard_index, "shard_count": header.shard_count, "offset": header.offset,
        "total_length": header.total_length, "visit": header.visit, "visit_limit": header.visit_limit,
        "timestamp_us": header.timestamp_us, "payload_checksum": f"0x{header.payload_checksum:08x}",
        "header_checksum": "0x" + data[60:64].hex(), "home_kas": home_kas(header.object_id),
    }  # fmt: skip
    shown |= {f"flags.{flag.name.lower()}": int(bool(header.flags & flag)) for flag in Flag if flag.name}
    if payload:
        shown["payload"] = payload.hex()
    shown |= options_as_wireshark(header) | option_headers(data[64 : len(data) - len(payload)])
    if header.others:
        shown["option.value"] = ",".join(value.hex() for _, value in header.others if value)
    return {name: str(value) for name, value in shown.items() if value != ""}


def option_headers(options: bytes) -> dict[str, str]:
    """Types and lengths of all options, read by hand."""
    types, lengths = [], []
    while options:
        kind, length = struct.unpack_from("!HH", options)
        types.append(f"0x{kind:04x}")
        lengths.append(str(length))
        options = options[4 + length :]
    return {"option.type": ",".join(types), "option.length": ",".join(lengths)}


def options_as_wireshark(header: Header) -> dict[str, Any]:
    shown: dict[str, Any] = {}
    if (need := header.requirements) is not None:
        shown |= {f"req.{name}": getattr(need, name) for name in need.__struct_fields__}
        shown["req.task_class"] = f"0x{need.task_class:08x}"
    if header.digest is not None:
        shown |= {"digest.algorithm": int(header.digest.algorithm), "digest.value": header.digest.value.hex()}
    if (ack := header.ack) is not None:
        shown |= {f"ack.{name}": getattr(ack, name) for name in ("base", "echo_us", "delay_us", "window")}
        if ack.bitmap:
            shown["ack.bitmap"] = ack.bitmap.hex()
    if header.error is not None:
        shown["error"] = header.error
    if (word := header.mandate) is not None:
        shown |= {"mandate.issued_ms": word.issued_ms, "mandate.expires_ms": word.expires_ms}
        shown |= {"mandate.digest": word.digest.hex(), "mandate.signature": word.signature.hex()}
    if header.key_share is not None:
        shown["key_share"] = header.key_share.hex()
    if header.sent_at_ms is not None:
        shown["sent_at_ms"] = header.sent_at_ms
    if header.blocks is not None:
        shown["blocks"] = header.blocks.hex()
    if (auth := header.authentication) is not None:
        shown |= {
            "auth.algorithm": auth.algorithm,
            "auth.reserved": 0,
            "auth.key_id": auth.key_id,
            "auth.tag": auth.tag.hex(),
        }
    return shown


def as_scapy(data: bytes) -> ai.AI:
    """Build the packet of these bytes from the codec's view with Scapy, lengths and checksums left to Scapy."""
    header, payload = decode(data)
    options: list[Any] = []
    if (need := header.requirements) is not None:
        options.append(ai.AIRequirements(**{name: getattr(need, name) for name in need.__struct_fields__}))
    if header.digest is not None:
        options.append(ai.AIDigest(algorithm=header.digest.algorithm, value=header.digest.value))
    if (ack := header.ack) is not None:
        options.append(ai.AIAcknowledgement(**{name: getattr(ack, name) for name in ack.__struct_fields__}))
    if header.error is not None:
        options.append(ai.AIError(code=header.error))
    if (word := header.mandate) is not None:
        options.append(ai.AIMandate(**{name: getattr(word, name) for name in word.__struct_fields__}))
    if header.key_share is not None:
        options.append(ai.AIKeyShare(public_key=header.key_share))
    if header.sent_at_ms is not None:
        options.append(ai.AISentAt(sent_at_ms=header.sent_at_ms))
    if header.blocks is not None:
        options.append(ai.AIBlocks(hashes=header.blocks))
    options += [ai.AIOption(type=kind, value=value) for kind, value in header.others]
    if (auth := header.authentication) is not None:
        options.append(ai.AIAuthentication(algorithm=auth.algorithm, key_id=auth.key_id, tag=auth.tag))
    same = ("version", "traffic_class", "type", "object_id", "owner", "transfer_id", "shard_index", "shard_count",
            "offset", "total_length", "visit", "visit_limit", "timestamp_us")  # fmt: skip
    given = {name: getattr(header, name) for name in same}
    if header.type in SHARD_TYPES and header.flags & SEALED:  # its maker's to give
        given["payload_checksum"] = header.payload_checksum
    packet = ai.AI(flags=int(header.flags), options=options, **given)
    return packet / Raw(bytes(payload)) if payload else packet
