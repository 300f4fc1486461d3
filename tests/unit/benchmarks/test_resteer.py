"""The re-steer benchmark reads its figures off a capture: a made-up one, with known answers."""

from __future__ import annotations

import struct
from pathlib import Path

from benchmarks.resteer import Case, Seen, Shard, figures, see, shards
from packets.labels import label_address, make_object_id, object_label
from packets.wire import Header, PacketType, encode

OBJECT = make_object_id(1, 7, 9)
LABEL = label_address(object_label(OBJECT))
OLD, NEW = "10.1.1.4", "10.1.2.5"
DOORS = {OLD: "k1s1-eth4", NEW: "k1s2-eth5"}


def block(kind: int, body: bytes) -> bytes:
    body += bytes(-len(body) % 4)
    return struct.pack("<II", kind, len(body) + 12) + body + struct.pack("<I", len(body) + 12)


def interface(name: str) -> bytes:
    option = struct.pack("<HH", 2, len(name)) + name.encode() + bytes(-len(name) % 4)
    return block(1, struct.pack("<HHI", 1, 0, 0) + option + struct.pack("<HHB3x", 9, 1, 9) + struct.pack("<HH", 0, 0))


def frame(index: int, t_s: float, target: str, offset: int) -> bytes:
    header = Header(type=PacketType.DATA_SHARD, object_id=OBJECT, shard_index=0, shard_count=9, offset=offset,
                    total_length=9000, owner="10.1.1.1")  # fmt: skip
    packet = encode(header, bytes(1000))
    address = bytes(int(part) for part in target.split("."))
    data = bytes(12) + b"\x08\x00" + b"\x45" + bytes(15) + address + bytes(8) + packet
    ticks = round(t_s * 1e9)
    return block(6, struct.pack("<IIIII", index, ticks >> 32, ticks & 0xFFFFFFFF, len(data), len(data)) + data)


def test_shards_are_read_with_their_time_place_and_bytes(tmp_path: Path) -> None:
    path = tmp_path / "c.pcapng"
    head = block(0x0A0D0D0A, bytes(16)) + interface("k1s1-eth1") + interface(DOORS[OLD])
    cut_short = frame(1, 1001.0, OLD, 4000)[:40]
    path.write_bytes(head + frame(0, 1000.25, LABEL, 0) + frame(1, 1000.5, OLD, 3000) + cut_short)
    found = list(shards(path, {OBJECT}))
    assert [round(s.t_s, 6) for _, s in found] == [1000.25, 1000.5]
    assert [s[1:] for _, s in found] == [("k1s1-eth1", LABEL, 0, 1000), (DOORS[OLD], OLD, 3000, 1000)]
    assert list(shards(path, {OBJECT + 1})) == []
    (seen,) = see(path, [case("kill")], DOORS)
    assert (seen.labels, [s.offset for s in seen.delivered]) == ({LABEL}, [3000])


def case(what: str) -> Case:
    return Case(what, OBJECT, 1002.0, "c1", 1009.5, True, 0.1, 9.0)


def delivered(target: str, start_s: float, offsets: list[int]) -> list[Shard]:
    return [Shard(start_s + n, DOORS[target], target, offset, 1000) for n, offset in enumerate(offsets)]


def test_figures_are_what_the_capture_shows() -> None:
    before = delivered(OLD, 999.5, [0, 1000, 2000])  # 1,500 bytes a second
    kill = Seen(case("kill"), [*before, *delivered(NEW, 1002.5, [0, 1000, 2000])], {LABEL})
    cut = Seen(case("cut"), [*before, *delivered(OLD, 1003.0, [3000, 3000])], {LABEL})
    moved = Seen(case("withdraw"), [*before, *delivered(NEW, 1002.25, [0, 1000])], {LABEL})
    found = figures([kill, cut, moved], 3000)
    assert (found["resteer_s"], found["destinations"], found["one_label"]) == (0.5, [2], True)
    assert found["total_overrun_s"] == 5.5, "7.5 s, less 3,000 bytes at 1,500 a second"
    assert (found["cut_gap_s"], found["cut_resent"]) == (1.0, 1)
    assert (found["withdraw_gap_s"], found["withdraw_resent"]) == (1.0, 0), "another holder's first copy is no repeat"


def test_an_object_under_two_labels_is_told() -> None:
    shard = delivered(OLD, 1000.0, [0, 1]) + delivered(NEW, 1003.0, [0, 1])
    seen = [Seen(case(what), shard, {LABEL, "240.0.0.9"}) for what in ("kill", "cut", "withdraw")]
    assert figures(seen, 10)["one_label"] is False
