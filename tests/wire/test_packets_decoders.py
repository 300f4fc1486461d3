"""Scapy layer and Wireshark dissector, beside what the three decoders agree on (test_packets_agreement.py)."""

from __future__ import annotations

import random
from pathlib import Path

import msgspec
import pytest

from packets import ai
from packets.labels import AI_PORT, label_address
from packets.wire import Digest, Flag, Header, PacketType, decode, encode
from tests.wire.ai_packets import (
    as_scapy,
    as_wireshark,
    frame,
    random_packet,
    run_tshark,
    tshark,
    verdict,
    write_capture,
)


@pytest.fixture(scope="module")
def good() -> list[bytes]:
    rng = random.Random(11)
    return [random_packet(rng) for _ in range(300)]


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
    launches = f"ai.flags.launch == 1 && ai.object_id == {object_id:#x}"
    columns = ("-T", "fields", "-e", "ai.visit", "-e", "ip.src", "-e", "ip.dst")
    seen = run_tshark("-r", str(capture), "-Y", launches, *columns)
    assert [line.split() for line in seen.splitlines()] == [[str(i), *hop] for i, hop in enumerate(hops)]


def test_the_info_column_says_what_a_packet_is(tmp_path: Path) -> None:
    header = Header(type=PacketType.MODEL_SHARD, flags=Flag.LAST, object_id=0x700100001, visit=2, shard_index=6,
                    shard_count=7, offset=8448, total_length=8451)  # fmt: skip
    capture = write_capture(tmp_path / "info.pcap", [frame(encode(header, b"abc"))])
    seen = run_tshark("-r", str(capture), "-T", "fields", "-e", "_ws.col.Protocol", "-e", "_ws.col.Info")
    assert seen.split("\t") == ["AI", "MODEL_SHARD object 0x700100001 visit 2 shard 6/7 len 3 [Last shard]\n"]


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
    packet = ai.AI(type="ACK", shard_index=40, options=[ack])  # the bitmap may begin further on
    assert [packet.holds(index) for index in (9, 10, 11, 40, 41, 42)] == [True, False, False, False, True, False]
    assert not ai.AI(type="ACK").holds(0)
