"""Speakers as processes and in one loop, on loopback: TLS, routes, relayed requests, bad input, restarts."""

from __future__ import annotations

import asyncio
import gc
import signal
import socket
import ssl
import subprocess
import sys
import time
from asyncio.sslproto import SSLProtocol
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from controller.border.kbgp import runtime
from controller.border.kbgp.border import KbgpBorder
from controller.border.kbgp.config import Config, Neighbour, Timers
from controller.border.kbgp.core import Core
from controller.border.kbgp.rib import take_word
from controller.border.kbgp.runtime import Runtime
from controller.border.kbgp.tls import KBG_ROLE, Files, context
from controller.border.kbgp.trust import sign
from controller.border.messages import Ask, AskFacilities, Done, Facilities, Facility, LinkState, Reply
from controller.border.speaker import _left_over, main, speaker_socket
from controller.errors import BorderError
from controller.runtime.loop import Worker
from packets.events import silent
from packets.kbgp.knowledge import Knowledge
from packets.kbgp.messages import HEADER, MARKER, Advertisement, Keepalive, Open, Update, encode
from packets.labels import DCC_ADDRESS
from packets.security.identity import DCC_ROLE, Directory, Identity
from packets.security.x509 import Authority
from tests.fake_fabric import run

TIMERS = Timers(hold_ms=1200, open_s=2.0, retry_s=0.1, advertise_s=0.02, restart_s=8, defer_s=2.0)
ROOT = Path(__file__).parents[5]


def free_ports(count: int) -> list[int]:
    probes = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


class Dcc:
    """A control centre's border, with what it was asked and what it said."""

    def __init__(self, kas: int, others: list[int], sockets: list[Path], identity: Identity | None) -> None:
        self.kas, self.events, self.asked = kas, list[tuple[str, dict[str, Any]]](), list[Ask]()
        identities = {kas: identity} if identity else None
        self.border = KbgpBorder([kas], others, {kas: sockets}, self._emit, identities)

    def _emit(self, kind: str, /, **data: Any) -> None:
        self.events.append((kind, data))

    async def serve(self, body: Ask) -> Reply:
        self.asked.append(body)
        if isinstance(body, AskFacilities):
            found = [Facility(kas=body.kas, handle=f"@{body.role}/0", attributes={"load": 0.5})]
            return Facilities(facilities=found * (40_000 if body.role == "huge" else 1))
        await asyncio.sleep(0.02)
        return Done()


class Line:
    """K-AS 1 - 2 - 3 (- ...), a gateway each, as processes; keys, configurations and sockets in a folder."""

    def __init__(self, folder: Path, count: int = 3) -> None:
        self.folder, self.count, self.authority = folder, count, Authority()
        self.ports = free_ports(count)
        self.identities = {k: Identity.new(f"kbg{k}", KBG_ROLE, f"10.{k}.255.1", k) for k in range(1, count + 1)}
        self.dccs = {k: Identity.new(f"dcc{k}", DCC_ROLE, DCC_ADDRESS, 100 + k) for k in range(1, count + 1)}
        Directory(i.certificate for i in [*self.identities.values(), *self.dccs.values()]).save(folder / "directory")
        (folder / "authority").write_bytes(self.authority.pem)
        self.running: dict[int, subprocess.Popen[str]] = {}
        for k, identity in self.identities.items():
            self.authority.save(identity, folder / f"kbg{k}.pem")
            (folder / f"kbg{k}.json").write_bytes(msgspec.json.encode(self.config(k)))

    def config(self, k: int) -> Config:
        neighbours = [
            Neighbour(kas=n, gateway=f"kbg{n}", link=f"{min(k, n)}-{max(k, n)}", port=self.ports[n - 1])
            for n in (k - 1, k + 1)
            if 1 <= n <= self.count
        ]
        links = [(n, n + 1) for n in range(1, self.count)]
        port = self.ports[k - 1]
        return Config(kas=k, gateway=f"kbg{k}", neighbours=neighbours, port=port, links=links, timers=TIMERS)

    def start(self, *numbers: int) -> None:
        for k in numbers or self.identities:
            self.running[k] = subprocess.Popen(
                [sys.executable, "-m", "controller.border.speaker", *self.options(k)],
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT,
            )  # fmt: skip

    def options(self, k: int) -> list[str]:
        files = {"config": f"kbg{k}.json", "certificate": f"kbg{k}.pem", "authority": "authority"}
        named = [(f"--{name}", str(self.folder / file)) for name, file in files.items()]
        more = [("--directory", str(self.folder / "directory")), ("--runtime-dir", str(self.folder))]
        return [word for pair in [*named, *more] for word in pair]

    def dcc(self, k: int) -> Dcc:
        others = [n for n in self.identities if n != k]
        return Dcc(k, others, [speaker_socket(self.folder, f"kbg{k}")], self.dccs[k])

    def close(self) -> dict[int, str]:
        """End all; returns what they printed."""
        said = {}
        for k, process in self.running.items():
            process.send_signal(signal.SIGCONT)
            process.terminate()
            said[k] = process.communicate(timeout=10)[0]
        return said


async def until(true: Callable[[], Any], what: str, timeout_s: float = 10) -> None:
    end_s = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < end_s, f"never: {what}"
        await asyncio.sleep(0.02)


def test_updates_reach_the_third_k_as_and_requests_cross_two_hops(tmp_path: Path) -> None:
    line = Line(tmp_path)

    async def work() -> None:
        one, two, three = line.dcc(1), line.dcc(2), line.dcc(3)
        for dcc in (one, two, three):
            await dcc.border.open(dcc.serve)
        line.start()
        await until(lambda: 3 in one.border.ways, "K-AS 3 known")
        found = await one.border.ask(3, AskFacilities(kas=3, role="mpvu"), timeout_s=15)
        assert found == Facilities(facilities=[Facility(kas=3, handle="@mpvu/0", attributes={"load": 0.5})])
        assert one.border.ways[3].path == [2, 3]
        many = [one.border.ask(3, LinkState(kas=3, a_kas=1, b_kas=2, up=bool(i % 2))) for i in range(30)]
        assert await asyncio.gather(*many) == [Done()] * 30
        assert len(three.asked) == 31 and not two.asked
        three.border.tell(Knowledge(kas=3, epoch_ms=0, serial=0, terminals={"data": 12}))
        await until(lambda: one.border.ways[3].knowledge.terminals == {"data": 12}, "news of K-AS 3 in K-AS 1")
        with pytest.raises(BorderError, match="K-AS 9 is not in the plan"):
            await one.border.ask(9, AskFacilities(kas=9, role="mpvu"))
        with pytest.raises(BorderError, match="too large"):
            await one.border.ask(3, AskFacilities(kas=3, role="huge"), timeout_s=10)
        three.border.close()
        await until(lambda: 3 not in one.border.ways, "K-AS 3 withdrawn")
        with pytest.raises(BorderError, match=r"K-AS 3 did not answer AskFacilities within 0\.3 s"):
            await one.border.ask(3, AskFacilities(kas=3, role="mpvu"), timeout_s=0.3)
        one.border.close()
        two.border.close()

    try:
        run(work)
    finally:
        said = line.close()
    assert set(said.values()) == {""} and all(p.returncode == 0 for p in line.running.values())
    assert not list(tmp_path.glob("*.sock")) and not list(tmp_path.glob("*.running"))


def test_stopped_it_is_withdrawn_after_the_hold_time_and_comes_back(tmp_path: Path) -> None:
    line = Line(tmp_path)

    async def work() -> None:
        one, three = line.dcc(1), line.dcc(3)
        await one.border.open(one.serve)
        await three.border.open(three.serve)
        line.start()
        await until(lambda: 3 in one.border.ways, "K-AS 3 known")
        line.running[2].send_signal(signal.SIGSTOP)
        before_s = time.monotonic()
        await until(lambda: 3 not in one.border.ways, "K-AS 3 withdrawn")
        assert time.monotonic() - before_s > TIMERS.hold_ms / 1000 * 0.5
        line.running[2].send_signal(signal.SIGCONT)
        await until(lambda: 3 in one.border.ways, "K-AS 3 known again")
        assert await one.border.ask(3, LinkState(kas=3, a_kas=1, b_kas=2, up=True)) == Done()
        one.border.close()
        three.border.close()

    try:
        run(work)
    finally:
        assert set(line.close().values()) == {""}


def test_how_a_closed_connection_ended_is_not_told_twice(caplog: pytest.LogCaptureFixture) -> None:
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(_left_over)
    loop.call_exception_handler({"message": "never retrieved", "exception": ssl.SSLError(1, "after close notify")})
    assert not caplog.text
    loop.call_exception_handler({"message": "something else", "exception": ValueError("x")})
    loop.close()
    assert "something else" in caplog.text


def test_sessions_that_end_leave_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each TLS connection of asyncio is a circle with 256 KiB in it; late aborts must not hit one that is closed."""
    monkeypatch.setattr(runtime, "HANDSHAKE_S", 0.2)
    line = Line(tmp_path, 2)
    identity = Files(tmp_path / "kbg1.pem", tmp_path / "authority"), Directory.load(tmp_path / "directory")
    wrong: list[dict[str, Any]] = []

    async def work() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: wrong.append(context))
        core = Core(line.config(1), boot_ms=1, now_s=time.monotonic(), verify=take_word, restarting=False)
        one = Runtime(core, *identity, tmp_path / "one.sock", silent, Worker(silent))
        await one.open()
        gc.collect()
        gc.disable()  # as in a speaker that has long been running: seldom
        try:
            line.start(2)
            for number in (signal.SIGSTOP, signal.SIGSTOP, signal.SIGKILL):
                await until(lambda: one._writers, "session up")
                line.running[2].send_signal(number)
                await until(lambda: not one._writers, "session down")
                line.running[2].send_signal(signal.SIGCONT)
            await until(lambda: not any(isinstance(x, SSLProtocol) for x in gc.get_objects()), "nothing is left")
            assert not wrong
        finally:
            gc.enable()
            await one.close()
            line.close()

    run(work)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGHUP])
def test_a_restart_is_graceful(tmp_path: Path, number: signal.Signals) -> None:
    line = Line(tmp_path)

    async def work() -> None:
        one, two, three = line.dcc(1), line.dcc(2), line.dcc(3)
        for dcc in (one, two, three):
            await dcc.border.open(dcc.serve)
        line.start()
        await until(lambda: {2, 3} <= set(one.border.ways), "all known")
        line.running[2].send_signal(number)
        assert line.running[2].wait(10) == (-9 if number == signal.SIGKILL else 0)
        await until(lambda: 3 in one.border.ways and one.border.ways[3].stale, "K-AS 3 stale")
        gone: list[int] = []
        watch = asyncio.create_task(watch_for(lambda: 3 not in one.border.ways, gone))
        with pytest.raises(BorderError, match="no way"):
            await one.border.ask(3, AskFacilities(kas=3, role="mpvu"), timeout_s=2)
        line.start(2)
        await until(lambda: not one.border.ways[3].stale, "K-AS 3 fresh again")
        assert isinstance(await one.border.ask(3, AskFacilities(kas=3, role="mpvu")), Facilities)
        watch.cancel()
        assert not gone, "its knowledge was kept all the while"
        for dcc in (one, two, three):
            dcc.border.close()

    async def watch_for(true: Callable[[], bool], seen: list[int]) -> None:
        while True:
            seen += [1] if true() else []
            await asyncio.sleep(0.01)

    try:
        run(work)
    finally:
        assert set(line.close().values()) == {""}


async def connect(line: Line, to: int, identity: Identity, authority: Authority, folder: Path) -> Any:
    """Connect to a speaker as somebody."""
    pem = folder / "stranger.pem"
    authority.save(identity, pem)
    tls = context(Files(pem, folder / "authority"), server=False)
    return await asyncio.open_connection("127.0.0.1", line.ports[to - 1], ssl=tls)


async def is_refused(line: Line, to: int, identity: Identity, authority: Authority, folder: Path) -> bool:
    """Tell whether a speaker ends the connection before it says a word."""
    try:
        reader, writer = await connect(line, to, identity, authority, folder)
        writer.write(encode(Keepalive()))
        return await reader.read(1) == b""
    except (OSError, ssl.SSLError):
        return True


def test_wrong_certificates_are_refused_and_the_right_one_is_not(tmp_path: Path) -> None:
    line = Line(tmp_path, count=2)

    async def work() -> None:
        line.start(1)
        await until(lambda: speaker_socket(tmp_path, "kbg1").exists(), "it listens")
        await asyncio.sleep(0.2)
        right = line.identities[2]
        rogue, unknown = Authority(), Identity.new("kbg9", KBG_ROLE, "10.9.255.1", 9)
        forged = Identity.new("kbg2", KBG_ROLE, "10.2.255.1", 2)
        terminal = line.dccs[2]  # in the directory, but no gateway
        assert await is_refused(line, 1, right, rogue, tmp_path)
        assert await is_refused(line, 1, unknown, line.authority, tmp_path)
        assert await is_refused(line, 1, forged, line.authority, tmp_path)
        assert await is_refused(line, 1, terminal, line.authority, tmp_path)
        plain = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        plain.check_hostname, plain.verify_mode = False, ssl.CERT_NONE
        with pytest.raises((OSError, EOFError)):
            reader, writer = await asyncio.open_connection("127.0.0.1", line.ports[0], ssl=plain)
            writer.write(b"x" * 100)
            await reader.readexactly(1)
        reader, writer = await connect(line, 1, right, line.authority, tmp_path)
        writer.write(encode(open_of(2)))
        assert (await reader.readexactly(HEADER.size))[:4] == MARKER, "the right one is answered"
        writer.transport.abort()

    try:
        run(work)
    finally:
        assert set(line.close().values()) == {""}


def open_of(kas: int, **more: Any) -> Open:
    fields = {"versions": [1], "kas": kas, "gateway": f"kbg{kas}", "link": "1-2", "hold_ms": 3000, "boot_ms": 1} | more
    return Open(**fields)


@pytest.mark.parametrize(
    "rubbish, code",
    [
        (b"GET / HTTP/1.1\r\n\r\n", 1),
        (HEADER.pack(MARKER, 1, 2, 0, 0xFFFFFFFF), 1),
        (HEADER.pack(MARKER, 1, 99, 0, HEADER.size), 1),
        (HEADER.pack(MARKER, 1, 1, 0, HEADER.size + 3) + b"\xc1\xc1\xc1", 2),
        (encode(Keepalive()), 5),
        (encode(open_of(2, hold_ms=0)), 2),
    ],
)
def test_bad_input_is_answered_with_a_notification_and_the_speaker_lives(
    tmp_path: Path, rubbish: bytes, code: int
) -> None:
    line = Line(tmp_path, count=2)

    async def work() -> None:
        line.start(1)
        await until(lambda: (tmp_path / "kbg1.running").exists(), "it runs")
        reader, writer = await connect(line, 1, line.identities[2], line.authority, tmp_path)
        writer.write(rubbish)
        said = await reader.read()
        assert HEADER.unpack(said[: HEADER.size])[2] == 3
        assert msgspec.msgpack.decode(said[HEADER.size :])["code"] == code
        _, unix = await asyncio.open_unix_connection(speaker_socket(tmp_path, "kbg1"))
        unix.write(b"\xff\xff\xff\xff")
        _, second = await asyncio.open_unix_connection(speaker_socket(tmp_path, "kbg1"))
        second.write(b"\0\0\0\3abc")
        await asyncio.sleep(0.1)
        assert line.running[1].poll() is None
        reader, writer = await connect(line, 1, line.identities[2], line.authority, tmp_path)
        writer.write(encode(open_of(2)))
        assert (await reader.readexactly(HEADER.size))[5] == 1, "it answers the next OPEN"
        writer.transport.abort()

    try:
        run(work)
    finally:
        assert set(line.close().values()) == {""}


def test_a_neighbour_that_reads_nothing_loses_its_session_and_who_asked_is_told(tmp_path: Path) -> None:
    line = Line(tmp_path, count=2)

    async def work() -> None:
        one = line.dcc(1)
        await one.border.open(one.serve)
        line.start(1)
        await until(lambda: (tmp_path / "kbg1.running").exists(), "it runs")
        _, writer = await connect(line, 1, line.identities[2], line.authority, tmp_path)
        told = Knowledge(kas=2, epoch_ms=1, serial=1)
        word = Advertisement(path=[2], knowledge=told, signature=sign(told, line.dccs[2]))
        writer.write(encode(open_of(2)) + encode(Keepalive()) + encode(Update(advertised=[word])))
        await until(lambda: 2 in one.border.ways, "K-AS 2 known")
        large = AskFacilities(kas=2, role="x" * 1_000_000)
        asked = [asyncio.create_task(one.border.ask(2, large, timeout_s=20)) for _ in range(40)]
        while not any(task.done() for task in asked):
            writer.write(encode(Keepalive()))
            await asyncio.sleep(0.1)
        ended = await asyncio.gather(*asked, return_exceptions=True)
        assert all(isinstance(error, BorderError) and "K-AS" in str(error) for error in ended)
        assert 2 not in one.border.ways or one.border.ways[2].stale
        one.border.close()

    try:
        run(work)
    finally:
        assert set(line.close().values()) == {""}


@pytest.mark.parametrize(
    "break_it, why",
    [
        (lambda f: (f / "kbg1.json").unlink(), "No such file"),
        (lambda f: (f / "kbg1.json").write_text('{"kas": 0}'), "not the JSON of a border speaker"),
        (lambda f: (f / "kbg1.pem").write_text("x"), "no PEM"),
        (lambda f: (f / "authority").unlink(), "No such file"),
        (lambda f: (f / "directory").write_text("{"), "directory"),
    ],
)
def test_what_it_cannot_start_with_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], break_it: Callable[[Path], Any], why: str
) -> None:
    line = Line(tmp_path, count=2)
    break_it(tmp_path)
    assert main(line.options(1)) == 2
    said = capsys.readouterr().err
    assert why in said and said.count("\n") == 1
    assert not list(tmp_path.glob("*.running")) and not list(tmp_path.glob("*.sock"))
