"""The AATS benchmark reads its figures off events and captures: made-up ones, with known answers."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest

from benchmarks.aats import LED, WAYS, control_bytes, scenario_of, summary
from benchmarks.main_job import decisions_ms
from experiments.scenarios.scenario import load
from hosts.autonomy.policies import POLICIES
from packets.wire import Header, PacketType, encode


def event(kind: str, visit: int, t_unix_s: float) -> dict[str, Any]:
    return {"kind": kind, "t_unix_s": t_unix_s, "data": {"visit": visit}}


def test_a_decision_takes_from_the_end_of_a_visit_until_it_is_made() -> None:
    events = [
        event("job.decided", 0, 1.0), event("visit.trained", 0, 2.0), event("job.decided", 1, 2.25),
        event("visit.verified", 1, 3.0), event("object.arrived", 1, 3.1), event("job.decided", 2, 3.5),
        event("job.decided", 2, 9.0),
    ]  # fmt: skip
    assert decisions_ms(events) == [pytest.approx(250.0), pytest.approx(500.0)]


def block(kind: int, body: bytes) -> bytes:
    body += bytes(-len(body) % 4)
    return struct.pack("<II", kind, len(body) + 12) + body + struct.pack("<I", len(body) + 12)


def frame(kind: PacketType, payload: bytes) -> bytes:
    data = bytes(12) + b"\x08\x00" + b"\x45" + bytes(27) + encode(Header(type=kind), payload)
    return block(6, struct.pack("<IIIII", 0, 0, 0, len(data), len(data)) + data)


def test_control_packets_are_told_from_others(tmp_path: Path) -> None:
    interface = block(1, struct.pack("<HHI", 1, 0, 0) + struct.pack("<HH", 2, 4) + b"eth0" + struct.pack("<HH", 0, 0))
    sizes = {PacketType.PROBE: 10, PacketType.ANNOUNCE: 20, PacketType.TELEMETRY: 30, PacketType.ACK: 0}
    file = tmp_path / "c.pcapng"
    file.write_bytes(
        block(0x0A0D0D0A, struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1)) + interface
        + b"".join(frame(kind, bytes(size)) for kind, size in sizes.items())
    )  # fmt: skip
    head = 14 + 28 + 64
    assert control_bytes(file, led=False) == head + 10
    assert control_bytes(file, led=True) == 2 * head + 50


def run(met: bool, seconds: float, size: int) -> dict[str, Any]:
    about = {"broad": 0.8, "expert": 0.9, "visits": 3, "control_bytes": 5, "decide_ms": [1.0, 3.0]}
    return {"met": met, "seconds": seconds, "bytes": size, **about}


def test_a_summary_has_shares_means_and_ratios() -> None:
    found = summary(
        {LED: [run(True, 10.0, 100)], "greedy": [run(True, 5.0, 100), run(False, 15.0, 200)], "planned": []}
    )
    assert (
        found["greedy"] | {"met": 0.5, "seconds": 10.0, "bytes": 150, "seeds": 2, "decide_ms": 2.0} == found["greedy"]
    )
    assert found["ratio"] == {"greedy": {"seconds": 1.0, "bytes": 1.5}} and "planned" not in found


def test_all_ways_are_the_same_job() -> None:
    base = load("healthcare")
    led, *own = (scenario_of(base, way) for way in WAYS)
    assert led.jobs == base.jobs and not led.without_control
    assert [s.jobs[0].policy for s in own] == list(POLICIES) and all(s.without_control for s in own)
    assert all(s.data == base.data and s.jobs[0].max_visits == base.jobs[0].max_visits for s in own)
