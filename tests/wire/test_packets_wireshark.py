"""What the dissector adds for people: whole objects, expert info, journeys, and its way into Wireshark."""

from __future__ import annotations

import os
import random
import subprocess
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest
from safetensors.numpy import save
from scapy.layers.l2 import Ether

from packets.batch import ShardTrain
from packets.labels import label_address
from packets.wire import Acknowledgement, Digest, Flag, Header, PacketType, encode
from tests.wire.ai_packets import LUA, SEPARATOR, frame, run_tshark, tshark, write_capture

ROOT = LUA.parents[1]
OWNER, LABEL, FACILITY = "10.1.1.9", label_address(0x0010_0001), "10.2.1.7"
MODEL = Header(type=PacketType.MODEL_SHARD, object_id=0x7_0010_0001, owner=OWNER, transfer_id=9)
REASSEMBLED = ["in", "count", "repeated", "length", "first", "launch", "digest", "tensors", "data"]


def shards(payload: bytes, template: Header = MODEL, size: int = 1000, high: int = 0) -> list[bytes]:
    train = ShardTrain(template, payload, size)
    into = bytearray(train.stride)
    return [bytes(into[: train.write(into, 0, [i], timestamp_us=1, high=high)]) for i in range(train.count)]


def launch(payload: bytes, template: Header = MODEL) -> bytes:
    count = max(-(-len(payload) // 1000), 1)
    return encode(
        msgspec.structs.replace(
            template, flags=template.flags | Flag.LAUNCH, shard_count=count, total_length=len(payload),
            digest=Digest.of(payload),
        )
    )  # fmt: skip


def on_links(data: bytes, source: str = OWNER, facility: str = FACILITY) -> list[Ether]:
    """One packet as a capture of two links has it: before the last switch, and behind it."""
    return [frame(data, src=source, dst=LABEL), frame(data, src=source, dst=facility)]


def reassembled(frames: list[Ether], folder: Path, *more: str, snaplen: int | None = None) -> list[dict[str, str]]:
    """Return the fields ai.reassembled.* of every frame, as the second pass shows them."""
    capture = write_capture(folder / "some.pcap", frames, snaplen)
    columns = [part for name in REASSEMBLED for part in ("-e", f"ai.reassembled.{name}")]
    lines = run_tshark("-2", "-r", str(capture), "-T", "fields", "-E", f"separator={SEPARATOR}", *columns, *more)
    rows = [zip(REASSEMBLED, line.split(SEPARATOR), strict=True) for line in lines.splitlines()]
    return [{name: value for name, value in row if value} for row in rows]


def test_an_object_is_put_together_from_shards_in_any_order(tmp_path: Path) -> None:
    payload = random.Random(1).randbytes(3500)
    one, two, three, last = shards(payload)
    order = [launch(payload), one, three, last, one, two]
    seen = reassembled([each for data in order for each in on_links(data)], tmp_path)
    whole = 2 * order.index(two) + 1  # the first frame with the missing shard
    assert seen[whole - 1] == {
        "count": "4", "repeated": "5", "length": "3500", "first": "3", "launch": "1",
        "digest": Digest.of(payload).value.hex(), "data": payload.hex(),
    }  # fmt: skip
    assert [one for number, one in enumerate(seen, 1) if number != whole] == [{"in": str(whole)}] * (len(seen) - 1)


def test_the_header_of_safetensors_is_shown(tmp_path: Path) -> None:
    payload = save({"weight": np.zeros((3, 4), np.float32)})
    seen = reassembled([frame(data) for data in shards(payload)], tmp_path)
    assert '"weight"' in seen[-1]["tensors"] and "[3,4]" in seen[-1]["tensors"]


@pytest.mark.parametrize(
    "what", ["a shard is missing", "one is damaged", "frames are cut", "too large", "switched off"]
)
def test_what_is_not_there_is_not_put_together(tmp_path: Path, what: str) -> None:
    payload = bytes(3500)
    packets = shards(payload)
    more: tuple[str, ...] = ()
    if what == "a shard is missing":
        packets.pop(1)
    elif what == "one is damaged":
        packets[1] = packets[1][:-1] + b"!"
    elif what == "too large":
        more = ("-o", "ai.reassemble_mib:0")
    elif what == "switched off":
        more = ("-o", "ai.reassemble:FALSE")
    snaplen = 200 if what == "frames are cut" else None
    seen = reassembled([frame(data) for data in packets], tmp_path, *more, snaplen=snaplen)
    assert not any(seen)


def test_ciphertexts_of_two_transfers_are_not_mixed(tmp_path: Path) -> None:
    secret = msgspec.structs.replace(MODEL, flags=Flag.ENCRYPTED)
    again = msgspec.structs.replace(secret, transfer_id=10)
    (one, _), (_, two) = shards(b"a" * 2000, secret), shards(b"b" * 2000, again)
    assert not any(reassembled([frame(one), frame(two)], tmp_path))
    plain = msgspec.structs.replace(MODEL, transfer_id=10)  # (plain shards of a second source are the same bytes)
    (one, _), (_, two) = shards(b"a" * 2000), shards(b"a" * 2000, plain)
    assert reassembled([frame(one), frame(two)], tmp_path)[1]["data"] == (b"a" * 2000).hex()


def test_visits_are_objects_of_their_own(tmp_path: Path) -> None:
    (one, _), (_, two) = shards(bytes(2000)), shards(bytes(2000), msgspec.structs.replace(MODEL, visit=1))
    assert not any(reassembled([frame(one), frame(two)], tmp_path))


def experts(data: bytes, folder: Path) -> set[str]:
    capture = write_capture(folder / "one.pcap", [frame(data)])
    return set(run_tshark("-r", str(capture), "-T", "fields", "-e", "_ws.expert.message").strip().split(","))


def test_expert_info(tmp_path: Path) -> None:
    shard = shards(bytes(10))[0]
    assert experts(shard, tmp_path) == {""}
    assert experts(shards(bytes(10), high=1)[0], tmp_path) == {"Retransmission"}
    assert experts(shard[:-1] + b"!", tmp_path) == {"Receivers refuse this packet: payload-checksum"}
    assert experts(shard[:30], tmp_path) == {"Receivers refuse this packet: short"}
    assert experts(encode(Header(type=PacketType.ERROR, error=10)), tmp_path) == {"UNAUTHENTICATED"}


def test_times_are_shown_as_dates(tmp_path: Path) -> None:
    data = encode(Header(type=PacketType.QUERY, sent_at_ms=1_800_000_000_123))
    capture = write_capture(tmp_path / "one.pcap", [frame(data)])
    assert "Jan 15, 2027 08:00:00.123" in run_tshark("-r", str(capture), "-T", "fields", "-e", "ai.sent_at")
    far = encode(Header(type=PacketType.QUERY, sent_at_ms=2**64 - 1))
    capture = write_capture(tmp_path / "far.pcap", [frame(far)])
    assert tshark(capture)[0]["sent_at_ms"] == str(2**64 - 1)


# --- journeys ---------------------------------------------------------------------------------------------------------


def journey_frames() -> list[Ether]:
    """Two visits of one object; during the second one the network changes its mind about the rendezvous.

    Before the second one, another object makes its only visit.
    """
    frames, payload = [], bytes(2500)
    for data in [launch(payload), *shards(payload), *shards(payload, high=3)[:1]]:
        frames += on_links(data)
    acknowledged = Header(type=PacketType.ACK, flags=Flag.REPLY, object_id=MODEL.object_id, ack=Acknowledgement(base=3))
    frames.append(frame(encode(acknowledged), src=FACILITY, dst=OWNER))
    other = msgspec.structs.replace(MODEL, object_id=0x10_0002, type=PacketType.DATA_SHARD)
    frames += on_links(shards(b"abc", other)[0])
    second = msgspec.structs.replace(MODEL, visit=1)
    one, two, three = shards(payload, second)
    for data, facility in (
        (launch(payload, second), "10.3.1.1"),
        (one, "10.3.1.1"),
        (two, "10.4.1.1"),
        (three, "10.4.1.1"),
    ):
        frames += on_links(data, source=FACILITY, facility=facility)
    return frames


def test_the_journey_tap_tells_where_objects_went(tmp_path: Path) -> None:
    capture = write_capture(tmp_path / "journey.pcap", journey_frames())
    said = run_tshark("-r", str(capture), "-o", "ai.journey:TRUE", "-q").splitlines()
    assert said[0] == "AI journey"
    assert said[1].split() == ["object", "visit", "type", "from", "to", "bytes", "seconds"]
    assert [line.split() for line in said[2:5]] == [
        ["0x0000000700100001", "0", "MODEL_SHARD", OWNER, FACILITY, "2500", "10.000000"],
        ["0x0000000700100001", "1", "MODEL_SHARD", FACILITY, "10.3.1.1,10.4.1.1", "2500", "7.000000"],
        ["0x0000000000100002", "0", "DATA_SHARD", OWNER, FACILITY, "3", "1.000000"],
    ]
    assert said[5:] == ["2 objects, 3 visits, 5003 bytes"]
    assert "AI journey" not in run_tshark("-r", str(capture), "-q")


def test_frames_cut_by_the_capture_tell_the_same_journey(tmp_path: Path) -> None:
    whole = write_capture(tmp_path / "whole.pcap", journey_frames())
    cut = write_capture(tmp_path / "cut.pcap", journey_frames(), 128)
    told = [run_tshark("-r", str(one), "-o", "ai.journey:TRUE", "-q") for one in (whole, cut)]
    assert told[0] == told[1]


# What Wireshark's windows would do, in a Wireshark without windows.
WINDOWS = """
_G.gui_enabled = function() return true end
_G.register_menu = function(name, action, group)
  assert(group == MENU_STAT_UNSORTED)
  io.write("menu: ", name, "\\n")
  _G.open_it = action
end
_G.retap_packets = function() end
_G.TextWindow = { new = function(title)
  return { set = function(_, text) io.write(title, ": ", text) end, set_atclose = function(_, action) end }
end }
dofile("LUA")
_G.open_it()
"""


def test_the_menu_of_wireshark_opens_a_window_with_the_journey(tmp_path: Path) -> None:
    capture = write_capture(tmp_path / "journey.pcap", journey_frames())
    windows = tmp_path / "windows.lua"
    windows.write_text(WINDOWS.replace("LUA", str(LUA)))
    said = run_tshark("-r", str(capture), "-q", dissector=windows)
    told = run_tshark("-r", str(capture), "-o", "ai.journey:TRUE", "-q")
    assert said == "menu: AI journey\nAI journey: " + told


# --- installing -------------------------------------------------------------------------------------------------------


@pytest.fixture
def person(tmp_path: Path) -> Callable[..., str]:
    """Somebody with a home of his own, who types commands."""
    home = tmp_path / "home"
    home.mkdir()
    clean = {name: value for name, value in os.environ.items() if not name.startswith("WIRESHARK_")}

    def types(*command: str) -> str:
        environment = clean | {"HOME": str(home), "XDG_CONFIG_HOME": str(home / ".config")}
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=50)
        assert done.returncode == 0, done.stderr
        assert "Lua" not in done.stderr, done.stderr
        return done.stdout

    return types


def test_install_and_uninstall(tmp_path: Path, person: Callable[..., str]) -> None:
    capture = write_capture(tmp_path / "one.pcap", [frame(encode(Header(type=PacketType.PROBE)))])
    fields = ("tshark", "-r", str(capture), "-T", "fields", "-e", "_ws.col.Protocol")
    assert person(*fields) == "UDP\n"
    installed = person("make", "install-dissector")
    assert str(tmp_path / "home") in installed
    assert person(*fields) == "AI\n"
    assert person(*fields, "-X", f"lua_script:{LUA}") == "AI\n"  # installed and named: no quarrel
    assert "removed" in person("make", "uninstall-dissector")
    assert person(*fields) == "UDP\n"
    assert "not installed" in person("make", "uninstall-dissector")
