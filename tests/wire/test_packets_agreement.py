"""Three decoders, one table: codec, Scapy layer and Wireshark dissector read the same and refuse the same.

``DAITN_DECODER_PACKETS`` says of how many random packets, good and damaged each (10,000 when it is not set).
"""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from packets import ai
from packets.batch import REASONS
from packets.options import OptionType
from packets.wire import PacketType, decode
from tests.wire.ai_packets import (
    as_scapy,
    as_wireshark,
    frame,
    mutated,
    random_packet,
    tshark,
    verdict,
    write_capture,
)

PACKETS = int(os.environ.get("DAITN_DECODER_PACKETS", "10000"))
LIMIT_S = 60 + PACKETS // 50
CHUNK = 2500

pytestmark = pytest.mark.timeout(LIMIT_S)


@pytest.fixture(scope="module")
def good() -> list[bytes]:
    rng = random.Random(11)
    return [random_packet(rng) for _ in range(PACKETS)]


@pytest.fixture(scope="module")
def damaged(good: list[bytes]) -> list[bytes]:
    rng = random.Random(12)
    return [mutated(rng, packet) or packet[:1] for packet in good]  # (an empty datagram is nobody's packet)


def chunks(packets: list[bytes]) -> Iterator[list[bytes]]:
    for at in range(0, len(packets), CHUNK):
        yield packets[at : at + CHUNK]


def seen_by_tshark(packets: list[bytes], folder: Path) -> Iterator[dict[str, str]]:
    for chunk in chunks(packets):
        capture = write_capture(folder / "some.pcap", [frame(data) for data in chunk])
        yield from tshark(capture, timeout_s=LIMIT_S)


def test_every_type_and_every_option_occurs(good: list[bytes]) -> None:
    kinds = {decode(data)[0].type for data in good}
    options = {kind for data in good for kind in OptionType if field_of(data, kind) is not None}
    assert (kinds, options) == (set(PacketType), set(OptionType))


def field_of(data: bytes, kind: OptionType) -> object:
    names = {OptionType.ACKNOWLEDGEMENT: "ack", OptionType.SENT_AT: "sent_at_ms"}
    return getattr(decode(data)[0], names.get(kind, kind.name.lower()))


def test_scapy_builds_and_reads_what_the_codec_does(good: list[bytes]) -> None:
    for data in good:
        built = as_scapy(data)
        assert bytes(built) == data
        read = ai.AI(data)
        assert read.refused() is None
        assert fields(read) == fields(built)


def fields(packet: ai.AI) -> list[object]:
    """Return what was set or read, field by field, without the lengths and checksums that building filled in."""
    layers = [packet, *packet.options]
    automatic = ("length", "header_length", "payload_length", "payload_checksum", "header_checksum", "options")
    named = [{one.name: layer.getfieldval(one.name) for one in layer.fields_desc} for layer in layers]
    return [{name: value for name, value in one.items() if name not in automatic} for one in named]


def test_tshark_reads_what_the_codec_reads(good: list[bytes], tmp_path: Path) -> None:
    for data, seen in zip(good, seen_by_tshark(good, tmp_path), strict=True):
        assert seen == as_wireshark(data)


def test_all_three_refuse_the_same_for_the_same_reason(damaged: list[bytes], tmp_path: Path) -> None:
    expected = [verdict(data) for data in damaged]
    assert set(expected) == {*REASONS[1:], None}
    assert min(Counter(expected).values()) > PACKETS / 300, "a reason that is hardly tried"
    for data, reason, seen in zip(damaged, expected, seen_by_tshark(damaged, tmp_path), strict=True):
        assert ai.AI(data).refused() == reason, data.hex()
        assert seen.get("refused") == reason, data.hex()
        flagged = "checksum_bad" if "checksum" in (reason or "") else "malformed"
        assert (flagged in seen) == (reason is not None)
