"""The small parts: frames, LLDP verification, port counters, the store, the translation to os-ken."""

from __future__ import annotations

import contextlib
import random
import socket
import struct
import threading
from pathlib import Path
from typing import Any

import pytest

from controller.domain import Domain
from controller.errors import FrameError
from controller.southbound.frames import Datagram, build_udp, checksum, parse_udp
from controller.southbound.lldp import Lldp, build_lldp, read_lldp
from controller.southbound.openflow import PacketOut, PortCount
from controller.store import Store
from controller.tools.sensing import Sensing
from tests.fake_fabric import World, run, small_plan

PLAN = small_plan()
MAC_A, MAC_B = "02:00:00:00:00:01", "02:00:00:00:00:02"


def datagram(payload: bytes = b"payload") -> Datagram:
    return Datagram(MAC_A, MAC_B, "10.1.1.1", "240.0.0.1", 5000, 55831, payload)


def test_a_datagram_survives_its_frame_with_right_checksums() -> None:
    for payload in (b"", b"odd", b"even", bytes(1400)):
        frame = build_udp(datagram(payload))
        assert parse_udp(frame) == datagram(payload)
        assert checksum(frame[14:34]) == 0
        pseudo = frame[26:34] + struct.pack("!BBH", 0, 17, len(frame) - 34)
        assert checksum(pseudo + frame[34:]) == 0


def test_a_linux_socket_accepts_our_frame() -> None:
    """The kernel is the judge of our checksums: loop a datagram's bytes through a UDP socket and compare."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver, contextlib.ExitStack() as stack:
        receiver.bind(("127.0.0.1", 0))
        sender = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        sender.sendto(parse_udp(build_udp(datagram())).payload, receiver.getsockname())
        receiver.settimeout(5)
        assert receiver.recv(100) == b"payload"


def test_no_bytes_make_the_frame_parser_fail_otherwise() -> None:
    rng = random.Random(3)
    good = build_udp(datagram())
    for number in range(3000):
        data = bytearray(good[: rng.randrange(len(good) + 1)]) if number % 2 else bytearray(rng.randbytes(number % 90))
        if data:
            data[rng.randrange(len(data))] ^= rng.randrange(256)
        with contextlib.suppress(FrameError):
            parse_udp(bytes(data))
        with contextlib.suppress(FrameError):
            read_lldp(bytes(data))


def test_lldp_says_who_and_where() -> None:
    frame = build_lldp("k1s1", 0x101, 3)
    assert read_lldp(frame) == Lldp("k1s1", 0x101, 3) and len(frame) >= 60


def test_every_declared_link_is_confirmed_from_both_ends() -> None:
    async def work() -> None:
        world = World(PLAN)
        await world.start()
        for dcc in world.dccs:
            dcc.discovery.probe()
        trunks = [k for k in PLAN.links if k.a.startswith("k")]
        assert len(world.of("link.confirmed")) == 2 * len(trunks)
        assert not world.of("warning")

    run(work)


def test_a_wrong_cable_and_a_missing_one_are_warnings_once() -> None:
    async def work() -> None:
        world = World(PLAN)
        await world.start()
        dcc = world.by_kas[1]
        dcc.discovery.confirmed.clear()
        (name, port) = sorted(dcc.domain.trunks)[0]
        dpid = dcc.domain.switches[name].dpid
        for _ in range(2):
            dcc.discovery.heard(dpid, port, Lldp("k9s9", 0x901, 1))
        assert [("k9s9 port 1 is there" in d["text"]) for d in world.of("warning")] == [True]
        world.fabric._wire = {}
        world.fabric._emit = lambda *a: None  # type: ignore[method-assign,assignment]
        for _ in range(8):
            dcc.discovery.probe()
        texts = [d["text"] for d in world.of("warning")]
        assert len(texts) == len(set(texts)) == len({*dcc.domain.trunks, *dcc.domain.borders})

    run(work)


def test_lldp_of_a_host_is_not_even_handed_up() -> None:
    async def work() -> None:
        from tests.fake_fabric import Packet

        world = World(PLAN)
        await world.start()
        fake = Packet({"eth_type": 0x88CC}, build_lldp("k1s2", 0x102, 1))
        assert world.fabric.inject(world.hosts["h11"], fake).punted == 0

    run(work)


# --- counters


class Ear:
    def __init__(self) -> None:
        self.heard: list[dict[str, Any]] = []

    def __call__(self, kind: str, /, **data: Any) -> None:
        self.heard.append({"kind": kind, **data})


def count(port: int, tx: int, rx: int) -> PortCount:
    return PortCount(port, tx, rx, tx // 100, rx // 100)


def test_every_link_of_a_domain_is_reported_once_and_in_its_own_direction() -> None:
    ear = Ear()
    domain = Domain(PLAN.domain())
    sensing = Sensing(domain, ear)
    for switch in PLAN.switches:
        ports = sorted(
            {k.a_port for k in PLAN.links if k.a == switch.name} | {k.b_port for k in PLAN.links if k.b == switch.name}
        )
        sensing.counted(switch.dpid, [count(p, 1000, 10) for p in ports], 1.0, {})
    assert sorted(d["link"] for d in ear.heard) == sorted(k.name for k in PLAN.links)
    for data in ear.heard:
        link = next(k for k in PLAN.links if k.name == data["link"])
        from_switch = link.a in domain.switches
        assert (data["tx_bytes"], data["rx_bytes"]) == ((1000, 10) if from_switch else (10, 1000)), data


def test_rates_are_measured_and_silence_is_not_repeated() -> None:
    ear = Ear()
    sensing = Sensing(Domain(PLAN.domain(1)), ear)
    host = next(h for h in PLAN.hosts if h.name == "h11")
    dpid = next(s.dpid for s in PLAN.switches if s.name == host.switch)
    for now, tx in ((1.0, 0), (2.0, 1_250_000), (3.0, 1_250_000), (4.0, 1_250_000)):
        sensing.counted(dpid, [count(host.port, tx, 0)], now, {})
    assert [d["rx_mbps"] for d in ear.heard] == [0.0, 10.0]
    assert ear.heard[-1]["link"] == f"h11-{host.switch}" and ear.heard[-1]["kas"] == 1


def test_a_border_link_is_named_as_in_the_plan_once_its_other_end_was_seen() -> None:
    for kas, switch in ((1, "k1g"), (2, "k2g")):
        ear = Ear()
        domain = Domain(PLAN.domain(kas))
        other = 3 - kas
        border = domain.border(kas, other)
        assert border is not None
        sensing = Sensing(domain, ear)
        dpid = domain.switches[switch].dpid
        sensing.counted(dpid, [count(border.port, 7000, 10)], 1.0, {(switch, border.port): f"k{other}g"})
        (data,) = ear.heard
        assert data["link"] == "k1g-k2g" and data["neighbour_kas"] == other
        assert (data["tx_bytes"], data["rx_bytes"]) == ((7000, 10) if kas == 1 else (10, 7000))


# --- the store


def test_a_new_run_starts_empty_and_others_may_read_meanwhile(tmp_path: Path) -> None:
    path = tmp_path / "state" / "dcc.db"
    store = Store(path)
    store.node("h11", "data", 1, "10.1.1.1", {"queue": 1})
    store.node("h11", "data", 1, "10.1.1.1", {"queue": 2})
    store.decision((1 << 63) + 5, 0, "train", 2, "ab", "because", {"ab": 0.5}, [])
    found: list[dict[str, Any]] = []
    reader = threading.Thread(target=lambda: found.extend(_read(path)))
    reader.start()
    reader.join(5)
    assert [(r["name"], r["attributes"]) for r in found] == [("h11", '{"queue":2}')]
    assert store.rows("decisions")[0]["object_id"] == str((1 << 63) + 5), "64 bits do not fit SQLite's integer"
    store.close()
    again = Store(path)
    assert all(again.rows(t) == [] for t in ("nodes", "jobs", "visits", "decisions"))
    with pytest.raises(ValueError, match="no table"):
        again.rows("sqlite_master")
    again.close()


def test_a_control_centre_started_again_in_a_run_finds_what_it_wrote(tmp_path: Path) -> None:
    path = tmp_path / "dcc.db"
    for name, kept in (("r1", 0), ("r1", 1), ("r2", 0)):
        store = Store(path, name)
        assert len(store.rows("nodes")) == kept
        store.node("h11", "data", 1, "10.1.1.1", {})
        store.close()


def test_what_belongs_together_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    store = Store(tmp_path / "dcc.db")
    with pytest.raises(ZeroDivisionError), store.together():
        store.node("h11", "data", 1, "10.1.1.1", {})
        raise ZeroDivisionError
    assert store.rows("nodes") == []
    with store.together():
        store.node("h11", "data", 1, "10.1.1.1", {})
    assert len(store.rows("nodes")) == 1
    store.close()


def _read(path: Path) -> list[dict[str, Any]]:
    import sqlite3

    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
        db.row_factory = sqlite3.Row
        return [dict(row) for row in db.execute("SELECT * FROM nodes")]


# --- os-ken


def test_every_rule_of_a_network_translates_to_openflow_bytes() -> None:
    from os_ken.ofproto import ofproto_v1_3, ofproto_v1_3_parser

    from controller.southbound.translate import to_message

    class Datapath:
        ofproto, ofproto_parser, id, xid = ofproto_v1_3, ofproto_v1_3_parser, 1, 1

    async def work() -> None:
        world = World(PLAN)
        await world.start()
        kinds: dict[str, int] = {}
        for _, mod in world.fabric.sent:
            if mod == "barrier":
                continue
            messages = to_message(Datapath(), mod)
            for message in messages if isinstance(messages, list) else [messages]:
                message.set_xid(1)
                message.serialize()
                assert message.buf[0] == 4 and int.from_bytes(message.buf[2:4], "big") == len(message.buf)
                kinds[type(mod).__name__] = kinds.get(type(mod).__name__, 0) + 1
        assert kinds["FlowMod"] > 200 and kinds["MeterMod"] >= 22 and kinds["PacketOut"] > 20

    run(work)


def test_deletes_are_strict_by_match_and_masked_by_cookie() -> None:
    from os_ken.ofproto import ofproto_v1_3 as of
    from os_ken.ofproto import ofproto_v1_3_parser

    from controller.southbound.openflow import FlowMod
    from controller.southbound.pipeline import label_cookie, label_delete
    from controller.southbound.translate import to_message

    class Datapath:
        ofproto, ofproto_parser, id, xid = of, ofproto_v1_3_parser, 1, 1

    strict = to_message(Datapath(), FlowMod(2, {"eth_type": 0x800}, 100, delete=True))
    assert (strict.command, strict.cookie_mask) == (of.OFPFC_DELETE_STRICT, 0)
    by_cookie = to_message(Datapath(), label_delete(9))
    assert (by_cookie.command, by_cookie.cookie) == (of.OFPFC_DELETE, label_cookie(9))
    assert by_cookie.cookie_mask == 0xFFFFFFFFFFFFFFFF
    assert isinstance(PacketOut((), b""), PacketOut)


def test_a_barrier_ends_with_its_answer_or_with_the_session() -> None:
    import asyncio

    from os_ken.ofproto import ofproto_v1_3, ofproto_v1_3_parser

    from controller.app import Switches
    from controller.errors import SwitchTimeout

    class Datapath:
        ofproto, ofproto_parser, id = ofproto_v1_3, ofproto_v1_3_parser, 7

        def __init__(self) -> None:
            self.xid = 0

        def set_xid(self, message: Any) -> int:
            self.xid += 1
            return self.xid

        def send_msg(self, message: Any) -> None: ...

    async def work() -> None:
        switches = Switches(asyncio.get_running_loop())
        datapath = switches.datapaths[7] = Datapath()
        answered = asyncio.ensure_future(switches.barrier(7))
        await asyncio.sleep(0)
        switches.answered(7, datapath.xid, [])
        await answered
        cut_off = asyncio.ensure_future(switches.barrier(7, timeout_s=60))
        await asyncio.sleep(0)
        switches.lost(7)
        with pytest.raises(SwitchTimeout, match="switch 7 has disconnected"):
            await cut_off
        with pytest.raises(SwitchTimeout, match="not connected"):
            await switches.barrier(7)

    run(work)
