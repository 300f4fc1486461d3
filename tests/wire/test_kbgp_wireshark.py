"""KBGP as others read it: a real TLS 1.3 session in a capture, decrypted and dissected by tshark; and as Scapy's."""

from __future__ import annotations

import shutil
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from controller.border.kbgp import tls
from packets.kbgp import messages as kbgp
from packets.kbgp.knowledge import Bounds, Data, Deployed, Knowledge
from packets.kbgp.layer import KBGP, messages
from packets.security.identity import Identity
from packets.security.x509 import Authority
from tests.wire.ai_packets import run_tshark, write_capture

LUA = Path(kbgp.__file__).with_name("kbgp.lua")
TOLD = Knowledge(
    kas=3, epoch_ms=1_700_000_000_000, serial=7, terminals={"data": 12, "mdfp": 1},
    data=Data(samples=Bounds(low=1200, high=1300), shares={"cardiology": 0.25}), compute=Bounds(low=10, high=11),
    models={"vignettes": Deployed(models=1, best_accuracy={"broad": 0.83}, least_ms=4.5)},
)  # fmt: skip
SAID: list[kbgp.Message] = [
    kbgp.Open(
        versions=[1], kas=1, gateway="kbg1", link="k1g-k2g", hold_ms=9000, boot_ms=1_700_000_000_000, restart_s=20,
        restarting=True, capabilities=["relay"],
    ),
    kbgp.Keepalive(),
    kbgp.Update(withdrawn=[4, 5], advertised=[kbgp.Advertisement(path=[1, 3], knowledge=TOLD, signature=bytes(64))]),
    kbgp.EndOfRib(),
    kbgp.Announce(
        id=9, to_kas=3, trail=[1, 2], left_ms=4900, body=bytes(40_000), object_id=0x0100_0000_0000_0007, visit=3
    ),
    kbgp.Request(id=2**40, to_kas=2, trail=[1], left_ms=5000, body=b"abc"),
    kbgp.Reply(id=9, code=kbgp.Answer.UNREACHABLE, reason="no way"),
    kbgp.Notification(code=kbgp.Code.CEASE, sub=kbgp.Sub.SHUTDOWN, reason="shut down"),
]  # fmt: skip


class Wire:
    """Two ends of a TLS session in memory; what each says is a TCP segment of the capture."""

    def __init__(self, folder: Path) -> None:
        authority = Authority()
        (folder / "authority").write_bytes(authority.pem)
        self.keys = folder / "keys"
        self.frames: list[Ether] = []
        self._next = {0: 1000, 1: 5000}
        self._bios = [(ssl.MemoryBIO(), ssl.MemoryBIO()) for _ in range(2)]
        self.ends = []
        for end, name in enumerate(("kbg1", "kbg2")):
            pem = folder / f"{name}.pem"
            authority.save(Identity.new(name, "kbg", f"10.{end + 1}.3.1", end + 1), pem)
            context = tls.context(tls.Files(pem, folder / "authority", self.keys), server=bool(end))
            self.ends.append(context.wrap_bio(*self._bios[end], server_side=bool(end)))
        self._segment(0, b"", "S")
        self._segment(1, b"", "SA")
        self._segment(0, b"", "A")

    def handshake(self) -> None:
        done = [False, False]
        while not all(done):
            for end in (0, 1):
                try:
                    self.ends[end].do_handshake()
                    done[end] = True
                except ssl.SSLWantReadError:
                    pass
                self._carry(end)

    def say(self, data: bytes) -> None:
        self.ends[0].write(data)
        self._carry(0)

    def _carry(self, end: int) -> None:
        data = self._bios[end][1].read()
        self._bios[1 - end][0].write(data)
        for at in range(0, len(data), 1400):
            self._segment(end, data[at : at + 1400], "PA")

    def _segment(self, end: int, data: bytes, flags: str) -> None:
        ports = (40_000, kbgp.PORT)
        addresses = ("10.1.3.1", "10.2.3.1")
        tcp = TCP(
            sport=ports[end], dport=ports[1 - end], flags=flags, seq=self._next[end],
            ack=self._next[1 - end] if "A" in flags else 0,
        )  # fmt: skip
        ip = IP(src=addresses[end], dst=addresses[1 - end])
        self.frames.append(Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02") / ip / tcp / Raw(data))
        self._next[end] += len(data) + ("S" in flags)


@pytest.fixture
def wire(tmp_path: Path) -> Iterator[Wire]:
    if shutil.which("tshark") is None:
        pytest.skip("no tshark here")
    made = Wire(tmp_path)
    made.handshake()
    yield made


def shown(wire: Wire, folder: Path, *fields: str, only: str = "kbgp") -> list[list[str]]:
    capture = write_capture(folder / "border.pcap", wire.frames)
    words = [word for field in fields for word in ("-e", field)]
    text = run_tshark(
        "-o", f"tls.keylog_file:{wire.keys}", "-r", str(capture), "-Y", only, "-T", "fields",
        "-E", "separator=;", "-E", "occurrence=a", "-E", "aggregator=|", *words, dissector=LUA,
    )  # fmt: skip
    return [line.split(";") for line in text.splitlines()]


def test_a_session_in_a_capture_is_read_with_its_keys(wire: Wire, tmp_path: Path) -> None:
    for message in SAID:
        wire.say(kbgp.encode(message))
    rows = shown(wire, tmp_path, "kbgp.type", "kbgp.length", "kbgp.malformed")
    types = [int(t) for row in rows for t in row[0].split("|")]
    assert types == [int(kbgp.TYPES[type(m)]) for m in SAID]
    assert [int(n) for row in rows for n in row[1].split("|")] == [len(kbgp.encode(m)) for m in SAID]
    assert not any(row[2] for row in rows)
    [opened] = shown(wire, tmp_path, "kbgp.gateway", "kbgp.link", "kbgp.hold_ms", only="kbgp.type == 1")
    assert opened == ["kbg1", "k1g-k2g", "9000"]
    [told] = shown(wire, tmp_path, "kbgp.withdrawn", "kbgp.path", "kbgp.kas", only="kbgp.type == 2")
    assert told == ["4, 5", "1, 3", "3"]
    [announced] = shown(
        wire, tmp_path, "kbgp.to_kas", "kbgp.trail", "kbgp.visit", only="kbgp.object_id == 0x100000000000007"
    )
    assert announced == ["3", "1, 2", "3"]
    [asked] = shown(wire, tmp_path, "kbgp.id", "kbgp.left_ms", only="kbgp.type == 7")
    assert asked == [str(2**40), "5000"]
    infos = [row[0] for row in shown(wire, tmp_path, "_ws.col.Info")]
    assert any("REPLY UNREACHABLE" in one for one in infos) and any("cease: shut down" in one for one in infos)


def test_what_is_no_message_is_shown_as_that(wire: Wire, tmp_path: Path) -> None:
    header = kbgp.HEADER.pack(kbgp.MARKER, 1, 2, 0, kbgp.HEADER.size + 3)
    wire.say(header + b"\xc1\xc1\xc1")
    wire.say(kbgp.HEADER.pack(kbgp.MARKER, 1, 7, 0, kbgp.HEADER.size + 1) + b"\x05")
    wire.say(kbgp.encode(kbgp.Keepalive()))
    rows = shown(wire, tmp_path, "kbgp.type", "kbgp.malformed")
    assert [row[0] for row in rows] == ["2", "7", "4"]
    assert "begins no item" in rows[0][1] and rows[1][1] == "no map" and not rows[2][1]


def test_without_keys_nothing_of_it_is_seen(wire: Wire, tmp_path: Path) -> None:
    wire.say(kbgp.encode(SAID[0]))
    wire.keys.write_text("")
    assert shown(wire, tmp_path, "kbgp.type") == []


@pytest.mark.parametrize("message", SAID, ids=lambda m: type(m).__name__)
def test_scapy_builds_and_reads_the_same_bytes(message: kbgp.Message) -> None:
    data = kbgp.encode(message)
    packet = KBGP(data)
    assert bytes(packet) == data and packet.read() == message
    rebuilt = KBGP(type=packet.type, body=packet.body)
    assert bytes(rebuilt) == data and KBGP.of(message).summary() == packet.summary()


def test_scapy_reads_a_stream_up_to_where_it_is_cut() -> None:
    stream = b"".join(map(kbgp.encode, SAID))
    assert [p.read() for p in messages(stream)] == SAID
    assert [p.read() for p in messages(stream[:-1])] == SAID[:-1]
    with pytest.raises(kbgp.KbgpError):
        list(messages(b"GET / HTTP/1.1\r\n\r\n"))
