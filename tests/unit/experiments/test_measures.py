"""What the report counts: pcapng frames, port counters, visits out of events."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from experiments.report.page import template
from experiments.report.report import Outcome, summarise
from experiments.testbed import counters
from experiments.testbed.capture import bytes_by_link, frames
from packets.events import Event
from packets.messages import JobSpec


def block(kind: int, body: bytes) -> bytes:
    body += b"\0" * (-len(body) % 4)
    return struct.pack("<II", kind, len(body) + 12) + body + struct.pack("<I", len(body) + 12)


def pcapng(interfaces: list[str], packets: list[tuple[int, int, bytes]]) -> bytes:
    """Write a section as dumpcap does: header, interfaces with a name option, enhanced packet blocks."""
    out = block(0x0A0D0D0A, struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1))
    for name in interfaces:
        text = name.encode()
        option = struct.pack("<HH", 2, len(text)) + text + b"\0" * (-len(text) % 4) + struct.pack("<HH", 0, 0)
        out += block(1, struct.pack("<HHI", 1, 0, 256) + option)
    for interface, original, data in packets:
        out += block(6, struct.pack("<IIIII", interface, 0, 0, len(data), original) + data)
    return out


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(1, 65535), st.binary(max_size=64)), max_size=20))
def test_frames_are_read_back_whatever_they_hold(tmp_path_factory, packets) -> None:
    file = tmp_path_factory.mktemp("pcap") / "x.pcapng"
    file.write_bytes(pcapng(["k1s1-eth1", "tap0"], packets))
    names = ["k1s1-eth1", "tap0"]
    assert [(i, n, bytes(d)) for i, n, d in frames(file)] == [(names[i], n, d) for i, n, d in packets]


@given(st.integers(0, 400))
def test_a_file_cut_anywhere_ends_quietly(tmp_path_factory, length: int) -> None:
    whole = pcapng(["a", "b"], [(0, 100, b"x" * 40), (1, 90, b"y" * 33)])
    file = tmp_path_factory.mktemp("pcap") / "cut.pcapng"
    file.write_bytes(whole[:length])
    assert len(list(frames(file))) <= 2


def test_bytes_are_summed_per_link_by_original_length(tmp_path) -> None:
    file = tmp_path / "x.pcapng"
    file.write_bytes(pcapng(["a", "b"], [(0, 1500, b"cut"), (0, 60, b""), (1, 1000, b"")]))
    assert bytes_by_link(file, {"a": "h11-k1s1", "b": "k1g-k2g", "c": "idle"}) == {
        "h11-k1s1": 1560,
        "k1g-k2g": 1000,
        "idle": 0,
    }


def test_port_statistics_are_parsed(monkeypatch) -> None:
    text = (
        "OFPST_PORT reply (OF1.3) (xid=0x2): 3 ports\n"
        "  port LOCAL: rx pkts=0, bytes=0, drop=0, errs=0, frame=0, over=0, crc=0\n"
        "           tx pkts=0, bytes=0, drop=0\n"
        '  port  "k1s1-eth1": rx pkts=5, bytes=500, drop=0, errs=0, frame=0, over=0, crc=0\n'
        "           tx pkts=7, bytes=700, drop=0, errs=0, coll=0\n           duration=1.2s\n"
        "  port k1g_tap: rx pkts=1, bytes=11, drop=0, errs=0, frame=0, over=0, crc=0\n"
        "           tx pkts=2, bytes=22, drop=0\n"
    )

    class Done:
        stdout = text

    monkeypatch.setattr(counters.subprocess, "run", lambda *_, **__: Done)
    assert counters.port_bytes(["k1s1"]) == ({"LOCAL": 0, "k1s1-eth1": 1200, "k1g_tap": 33}, [])


def test_a_switch_that_is_gone_is_named_and_the_others_counted(monkeypatch) -> None:
    real = counters.subprocess.run
    monkeypatch.setattr(counters.subprocess, "run", lambda *_, **how: real(["false"], **how))
    assert counters.port_bytes(["k1g"]) == ({}, ["k1g"])


def event(kind: str, **data: object) -> Event:
    return Event(kind=kind, source="test", t_unix_s=0.0, data={"object_id": 7, **data})


def test_a_visit_gets_the_accuracy_that_the_next_mpvu_measured() -> None:
    trained = {"facility": "c1", "kas": 1, "samples": 10, "epochs": 2, "loss": 0.1, "seconds": 1.0}
    events = [
        event("job.decided", visit=0, reason="lifts cardiology"),
        event("visit.trained", visit=0, data_node="h11", **trained),
        event("visit.verified", visit=1, node="mpvu2", broad=0.5, expert=0.4, accepted=True),
        event("visit.trained", visit=2, data_node="h12", **trained),
        event("visit.verified", visit=3, node="mpvu2", broad=0.9, expert=0.97, accepted=True),
        event("visit.verified", visit=4, node="mpvu4", broad=0.91, expert=0.96, accepted=True),
        event("job.finished", state="finished", broad=0.905, expert=0.965, visits=2),
    ]
    spec = JobSpec(task="t", broad_accuracy=0.8, expert_group="cardiology", expert_accuracy=0.95)
    part = summarise(Outcome(seed=3, first_event=0, object_id=7, spec=spec), events, {})
    assert [(v["data_node"], v["accuracy"]["broad"]) for v in part["route"]] == [("h11", 0.5), ("h12", 0.9)]
    assert part["route"][0]["reason"] == "lifts cardiology"
    assert part["targets_met"] and part["accuracy"] == {"broad": 0.905, "expert": 0.965}


def test_missed_expert_target_is_missed() -> None:
    events = [event("job.finished", state="failed", broad=0.99, expert=0.949)]
    spec = JobSpec(task="t", broad_accuracy=0.8, expert_group="cardiology", expert_accuracy=0.95)
    assert not summarise(Outcome(seed=0, first_event=0, object_id=7, spec=spec), events, {})["targets_met"]


def test_a_verdict_says_whose_t_fam_it_was_on_the_page_as_well() -> None:
    by = {"kas": 4, "ms": 51.2, "own": False, "before": ["K-AS 3: <silent>"]}
    refused = {"admitted": False, "reasons": ["no data"], "predicted": {"broad": 0.4}, "nearest": {}}
    admitted = {"admitted": True, "reasons": [], "predicted": {"broad": 0.9}, "nearest": {}}
    told = [(8, refused, by), (7, admitted, None), (6, admitted, by), (5, refused | {"predicted": {}}, None)]
    events = [
        Event(kind="job.assessed", source="dcc1", t_unix_s=1.0, data=verdict | {"object_id": number, "by": lender})
        for number, verdict, lender in told
    ]
    asked = {"broad_accuracy": 0.8, "expert_group": None, "max_visits": 6}
    outcome = Outcome(seed=0, first_event=0, object_id=7)
    outcome.assessments = [asked | refused | {"object_id": 0}, asked | admitted | {"object_id": 7}]
    verdicts = summarise(outcome, events, {})["assessments"]
    assert [v["by"] for v in verdicts] == [by, None]
    source = Path(template("report.html.j2").filename or "").read_text()
    part = source[source.index("{% for a in r.assessments %}") : source.index("<h2>Bytes per link")]
    page = template("report.html.j2").environment.from_string(part).render(r={"assessments": verdicts})
    lent = "by K-AS 4's T-FAM, borrowed, after 51 ms; asked before, K-AS 3: &lt;silent&gt;: broad 0.80"
    assert f"Rejected</b> {lent}" in page and "Admitted</b>: broad 0.80" in page


def test_what_was_kept_out_is_summed_by_declared_reasons() -> None:
    from experiments.report.report import refused
    from packets.events import Event

    told: list[tuple[str, dict[str, Any]]] = [
        ("frame.dropped", {"reasons": {"spoofed-arp": 3, "arp": 1}, "more": 4}),
        ("frame.dropped", {"reasons": {"arp": 2}, "more": 2}),
        ("packet.refused", {"reason": "expired"}),
        ("packet.refused", {"reason": "expired", "more": 9}),
        ("packet.refused", {"reason": "no MDFP hosts a model of task vignettes"}),
        ("warning", {"text": "x"}),
    ]
    found = refused([Event(kind=k, source="dcc1", t_unix_s=1.0, data=d) for k, d in told])
    assert found == {"frames": {"arp": 3, "spoofed-arp": 3}, "packets": {"expired": 10, "steering": 1}}
