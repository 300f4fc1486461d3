"""Three decoders, one table: codec, Scapy layer and Wireshark dissector must read the same and refuse the same."""

from __future__ import annotations

import json
import random
import struct
import subprocess
import zlib
from pathlib import Path
from typing import Any

import msgspec
import pytest
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from packets import ai
from packets.errors import PacketError
from packets.labels import AI_PORT, label_address
from packets.options import Authentication
from packets.wire import (
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
FIELDS = [
    "version", "class", "type", "flags", "header_length", "payload_length", "object_id", "label", "label_address",
    "owner", "transfer_id", "shard_index", "shard_count", "offset", "total_length", "visit", "visit_limit",
    "timestamp_us", "payload_checksum", "header_checksum", "payload", "refused", "req.task_class", "req.broad_accuracy",
    "req.expert_accuracy", "req.trust_floor", "req.expert_group", "req.deadline_ms", "digest.algorithm", "digest.value",
    "ack.base", "ack.echo_us", "ack.delay_us", "ack.window", "ack.bitmap", "error", "mandate.issued_ms",
    "mandate.expires_ms", "mandate.digest", "mandate.signature", "key_share", "sent_at_ms",
    "auth.algorithm", "auth.key_id", "auth.tag", "flags.launch", "cut", "malformed", "checksum_bad",
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
        sent_at_ms=rng.choice([None, rng.getrandbits(64)]),
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


def tshark(path: Path, *more: str) -> list[dict[str, str]]:
    """Return, for each frame, the fields that the dissector saw."""
    command = ["tshark", "-X", f"lua_script:{LUA}", "-r", str(path), "-T", "json", "--no-duplicate-keys", *more]
    for field in FIELDS:
        command += ["-e", f"ai.{field}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=True)
    assert "Lua" not in done.stderr, done.stderr
    layers = [one["_source"]["layers"] for one in json.loads(done.stdout)]
    return [{name.removeprefix("ai."): value[0] for name, value in layer.items()} for layer in layers]


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
        "header_checksum": "0x" + data[60:64].hex(), "flags.launch": int(bool(header.flags & Flag.LAUNCH)),
    }  # fmt: skip
    if payload:
        shown["payload"] = payload.hex()
    shown |= options_as_wireshark(header)
    return {name: str(value) for name, value in shown.items()}


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
    if (auth := header.authentication) is not None:
        shown |= {"auth.algorithm": auth.algorithm, "auth.key_id": auth.key_id, "auth.tag": auth.tag.hex()}
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
    options += [ai.AIOption(type=kind, value=value) for kind, value in header.others]
    if (auth := header.authentication) is not None:
        options.append(ai.AIAuthentication(algorithm=auth.algorithm, key_id=auth.key_id, tag=auth.tag))
    same = ("version", "traffic_class", "type", "object_id", "owner", "transfer_id", "shard_index", "shard_count",
            "offset", "total_length", "visit", "visit_limit", "timestamp_us")  # fmt: skip
    packet = ai.AI(flags=int(header.flags), options=options, **{name: getattr(header, name) for name in same})
    return packet / Raw(bytes(payload)) if payload else packet


@pytest.fixture(scope="module")
def good() -> list[bytes]:
    rng = random.Random(11)
    return [random_packet(rng) for _ in range(300)]


@pytest.fixture(scope="module")
def damaged(good: list[bytes]) -> list[bytes]:
    rng = random.Random(12)
    return [data for packet in good * 2 if (data := mutated(rng, packet))]


def test_scapy_builds_the_codecs_bytes(good: list[bytes]) -> None:
    for data in good:
        assert bytes(as_scapy(data)) == data


def test_scapy_dissects_what_it_builds(good: list[bytes]) -> None:
    for data in good:
        packet = ai.AI(data)
        assert packet.refused() is None
        header, payload = decode(data)
        assert (packet.object_id, packet.owner, packet.visit) == (header.object_id, header.owner, header.visit)
        assert int(packet.flags) == header.flags
        assert packet.label == header.label
        assert bytes(packet.payload) == payload
        for layer in [packet, *packet.options]:
            layer.raw_packet_cache = None
        assert bytes(packet) == data  # built anew from the fields, not from a cache


def test_tshark_reads_what_the_codec_reads(good: list[bytes], tmp_path: Path) -> None:
    capture = write_capture(tmp_path / "good.pcap", [frame(data) for data in good])
    for data, seen in zip(good, tshark(capture), strict=True):
        assert seen == as_wireshark(data)


def test_all_three_refuse_the_same_for_the_same_reason(damaged: list[bytes], tmp_path: Path) -> None:
    expected = [verdict(data) for data in damaged]
    everything = {"short", "version", "type", "length", "header-checksum", "option", "payload-checksum", "shard", None}
    assert set(expected) == everything
    assert [ai.AI(data).refused() for data in damaged] == expected
    capture = write_capture(tmp_path / "damaged.pcap", [frame(data) for data in damaged])
    seen = tshark(capture)
    assert [one.get("refused") for one in seen] == expected
    for one in seen:
        flagged = "checksum_bad" if "checksum" in one.get("refused", "") else "malformed"
        assert (flagged in one) == ("refused" in one)


@pytest.mark.parametrize("snaplen", [60, 100, 128, 300])
def test_frames_cut_by_the_capture_are_not_called_broken(good: list[bytes], tmp_path: Path, snaplen: int) -> None:
    capture = write_capture(tmp_path / "cut.pcap", [frame(data) for data in good], snaplen)
    for data, seen in zip(good, tshark(capture), strict=True):
        assert "refused" not in seen
        assert "malformed" not in seen
        assert ("cut" in seen) == (42 + len(data) > snaplen)
        if snaplen >= 42 + 64:
            assert seen["object_id"] == as_wireshark(data)["object_id"]


def test_a_cut_frame_is_still_judged_by_its_header(tmp_path: Path) -> None:
    data = bytearray(encode(Header(type=PacketType.PROBE, visit=1), bytes(500)))
    data[49] = 2
    (seen,) = tshark(write_capture(tmp_path / "cut.pcap", [frame(bytes(data))], 200))
    assert seen["refused"] == "header-checksum"


def test_payload_checksums_can_be_left_out(tmp_path: Path) -> None:
    data = encode(Header(type=PacketType.PROBE), b"abc")[:-1] + b"!"
    capture = write_capture(tmp_path / "one.pcap", [frame(data)])
    assert tshark(capture)[0]["refused"] == "payload-checksum"
    assert "refused" not in tshark(capture, "-o", "ai.check_payload:FALSE")[0]


def test_the_journey_of_an_object_can_be_read_off(tmp_path: Path) -> None:
    """Launches in order of visits: from whom, to which label or rendezvous."""
    object_id, digest = 0x5_0010_0003, Digest(bytes(32))
    label = label_address(object_id & 0x0FFFFFFF)
    hops = [("10.1.1.9", label), ("10.2.1.1", "10.2.1.7"), ("10.3.1.2", label)]
    frames = []
    for visit, (src, dst) in enumerate(hops):
        launch = Header(
            type=PacketType.MODEL_SHARD, flags=Flag.LAUNCH, object_id=object_id, visit=visit, shard_count=1,
            total_length=3, digest=digest,
        )  # fmt: skip
        frames.append(frame(encode(launch), src=src, dst=dst))
        frames.append(frame(encode(msgspec.structs.replace(launch, flags=Flag.LAST), b"abc"), src=src, dst=dst))
    capture = write_capture(tmp_path / "journey.pcap", frames)
    command = ["tshark", "-X", f"lua_script:{LUA}", "-r", str(capture), "-T", "fields", "-Y",
               f"ai.flags.launch == 1 && ai.object_id == {object_id:#x}", "-e", "ai.visit", "-e", "ip.src",
               "-e", "ip.dst"]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=True)
    assert [line.split() for line in done.stdout.splitlines()] == [[str(i), *hop] for i, hop in enumerate(hops)]


def test_the_info_column_says_what_a_packet_is(tmp_path: Path) -> None:
    header = Header(type=PacketType.MODEL_SHARD, flags=Flag.LAST, object_id=0x700100001, visit=2, shard_index=6,
                    shard_count=7, offset=8448, total_length=8451)  # fmt: skip
    capture = write_capture(tmp_path / "info.pcap", [frame(encode(header, b"abc"))])
    command = ["tshark", "-X", f"lua_script:{LUA}", "-r", str(capture), "-T", "fields", "-e", "_ws.col.Protocol",
               "-e", "_ws.col.Info"]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=True)
    assert done.stdout.split("\t") == ["AI", "MODEL_SHARD object 0x700100001 visit 2 shard 6/7 len 3 [Last shard]\n"]


def test_scapy_stack_of_an_ai_packet() -> None:
    shard = ai.AI(type="MODEL_SHARD", flags="LAST", object_id=0x100001, shard_count=1, total_length=3) / b"abc"
    packet = ai.IP(src="10.1.1.1", dst="240.16.0.1") / ai.UDP() / shard
    again = ai.IP(bytes(packet))
    assert (again[ai.UDP].sport, again[ai.UDP].dport) == (AI_PORT, AI_PORT)
    assert again[ai.AI].refused() is None
    assert again.summary() == "IP / UDP / AI MODEL_SHARD 0x100001 visit 0 shard 0/1 [LAST] / Raw"
    assert bytes(again[ai.AI]) == encode(
        Header(type=PacketType.MODEL_SHARD, flags=Flag.LAST, object_id=0x100001, shard_count=1, total_length=3), b"abc"
    )


def test_broken_packets_can_be_made_on_purpose() -> None:
    packet = ai.AI(bytes(ai.AI(type="PROBE", header_checksum=7) / b"abc"))
    assert packet.refused() == verdict(bytes(packet)) == "header-checksum"


def test_scapy_option_says_which_shards_are_held() -> None:
    ack = ai.AIAcknowledgement(base=10, bitmap=b"\x02")
    assert [ack.holds(index) for index in (9, 10, 11, 12, 99)] == [True, False, True, False, False]
