"""What carries the roles: reports, control sockets, bounded work, measurements, and the zygote without a network."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from hosts.control import ControlServer, answer_line, call
from hosts.errors import BadCommand, BadRuntimeDir, BadScenario, DccRefused, DccSilent, HostError
from hosts.learning.task import TaskSpec, load_task
from hosts.process.config import load_scenario
from hosts.process.namespaces import join_cgroup
from hosts.terminal import dcc_line
from hosts.terminal.dcc_line import DccLine
from hosts.terminal.pace import LOOKED_AT
from hosts.terminal.reporter import HEARTBEAT_S, Reporter, differs
from hosts.terminal.resources import Meter, memory_left_mib
from hosts.terminal.terminal import Activities, Terminal
from hosts.terminal.work import Work, inline
from packets.errors import RequestTimeout
from packets.messages import Ack, Message, Refused, Register, Report, decode_message, encode_message
from packets.wire import Header, PacketType
from tests.helpers import wait_until
from topologies.plan import HostPlan

PLAN = HostPlan(
    name="h11", role="host", kas=1, address="127.0.0.1", mac="02:00:00:00:00:01", switch="k1s1", port=1
)  # fmt: skip


class FakeDcc:
    """Answers every request with ``reply``; None is silence, bytes are sent as they are."""

    def __init__(self, reply: Message | bytes | None = None) -> None:
        self.reply = reply
        self.heard: list[Message] = []

    def request(
        self, payload: bytes, *, to: str, type: PacketType, timeout_s: float = 10, object_id: int = 0
    ) -> tuple[Header, bytes]:
        self.heard.append(decode_message(payload))
        if self.reply is None:
            raise RequestTimeout("no answer")
        return Header(type=type), self.reply if isinstance(self.reply, bytes) else encode_message(self.reply)

    def send_object(self, obj: Any) -> Any:
        raise AssertionError("nothing is sent here")

    def reply_to(self) -> None: ...


class Bench:
    """A reporter with a clock of its own, a fake DCC and attributes to change."""

    def __init__(self) -> None:
        self.now, self.dcc = 100.0, FakeDcc(Ack())
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.attributes: dict[str, Any] = {"queue": 0, "load": 0.0, "models": []}
        self.terminal = Terminal(
            plan=PLAN, task=load_task(TaskSpec(train_per_node=1, test_per_node=1)), network=self.dcc,  # type: ignore[arg-type]
            emit=self._emit, submit=inline, meter=Meter(1.0, self.clock), folder=Path("unused"), clock=self.clock,
        )  # fmt: skip
        self.reporter = Reporter(self.terminal, lambda: dict(self.attributes))

    def clock(self) -> float:
        return self.now

    def _emit(self, kind: str, /, **data: Any) -> None:
        self.events.append((kind, data))


# --- reports ---


def test_attributes_are_told_once_and_then_what_changed() -> None:
    bench = Bench()
    assert bench.reporter.register()
    bench.reporter.look()
    bench.attributes |= {"queue": 2, "models": ["vignettes"], "load": 0.03}
    bench.reporter.look()
    bench.reporter.look()
    register, report = bench.dcc.heard
    assert isinstance(register, Register) and register.attributes["queue"] == 0
    assert isinstance(report, Report) and report.attributes == {"queue": 2, "models": ["vignettes"]}


def test_a_heartbeat_goes_out_when_nothing_changes() -> None:
    bench = Bench()
    bench.reporter.register()
    for _ in range(9):
        bench.now += HEARTBEAT_S / 4
        bench.reporter.look()
    beats = [m for m in bench.dcc.heard if isinstance(m, Report)]
    assert len(beats) == 2 and all(m.attributes == {} for m in beats)
    assert [m.sequence for m in beats] == [1, 2]


def test_what_the_dcc_did_not_acknowledge_is_told_again_and_noted_once() -> None:
    bench = Bench()
    bench.reporter.register()
    bench.dcc.reply, bench.attributes["queue"] = None, 5
    for _ in range(3):
        bench.reporter.look()
    bench.dcc.reply = Ack()
    bench.reporter.look()
    reports = [m for m in bench.dcc.heard if isinstance(m, Report)]
    assert len(reports) == 4 and all(m.attributes == {"queue": 5} for m in reports)
    assert [kind for kind, _ in bench.events] == ["warning"]


def test_where_answers_take_long_changes_gather_and_the_latest_value_goes() -> None:
    bench = Bench()
    for _ in range(LOOKED_AT):
        bench.reporter.pace.answered(bench.now - 1.0, bench.now)
    bench.reporter.registered = True
    waits: list[float] = []

    def wait(seconds: float) -> bool:
        waits.append(seconds)
        bench.now += seconds
        bench.attributes["queue"] += 1
        if len(waits) == 5:
            bench.reporter.pull(["queue"])
        return False

    bench.terminal.stopping.wait = wait  # type: ignore[method-assign]
    bench.reporter._gather()
    assert len(waits) == 5, "a pull ends the pause"
    bench.reporter.look()
    (report,) = bench.dcc.heard
    assert isinstance(report, Report) and report.attributes["queue"] == 5


def test_a_dcc_that_forgot_us_is_registered_with_again() -> None:
    bench = Bench()
    bench.reporter.register()
    bench.dcc.reply, bench.attributes["queue"] = Refused(reason="who are you?"), 1
    bench.reporter.look()
    assert not bench.reporter.registered
    bench.dcc.reply = Ack()
    ready = threading.Event()
    thread = threading.Thread(target=bench.reporter.run, args=(ready.set,))
    thread.start()
    assert ready.wait(5)
    bench.terminal.stopping.set()
    bench.terminal.changed.set()
    thread.join(5)
    assert isinstance(bench.dcc.heard[-1], Register) or isinstance(bench.dcc.heard[-2], Register)
    assert bench.reporter.known["queue"] == 1


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (0.0, 0.04, False),
        (0.0, 0.06, True),
        (900.0, 980.0, False),
        (900.0, 1000.0, True),
        (1, 2, True),
        ([], ["a"], True),
    ],
)
def test_small_wobbles_are_not_worth_a_packet(old: object, new: object, expected: bool) -> None:
    assert differs(old, new) is expected


# --- the line to the DCC ---


def test_the_dccs_no_is_an_error_with_its_reason() -> None:
    with pytest.raises(DccRefused, match="unknown node"):
        DccLine(FakeDcc(Refused(reason="unknown node")), 1).ask(Report(name="h11", sequence=1), Ack)


def test_while_another_k_as_is_out_of_reach_it_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    dcc = FakeDcc(Refused(reason="K-AS 1 did not answer", again=True))
    monkeypatch.setattr(dcc_line.time, "sleep", lambda pause_s: setattr(dcc, "reply", Ack()))
    assert isinstance(DccLine(dcc, 3).ask(Report(name="h11", sequence=1), Ack), Ack) and len(dcc.heard) == 2
    monkeypatch.setattr(dcc_line.time, "sleep", lambda pause_s: None)
    dcc.reply = Refused(reason="K-AS 1 did not answer", again=True)
    with pytest.raises(DccRefused, match="K-AS 1 did not answer"):
        DccLine(dcc, 3).ask(Report(name="h11", sequence=1), Ack)
    assert len(dcc.heard) == 5, "three times, and no more"


@pytest.mark.parametrize("reply", [None, b"\xff", Report(name="h11", sequence=1)])
def test_no_answer_of_use_is_silence(reply: Message | bytes | None) -> None:
    dcc = FakeDcc(reply)
    with pytest.raises(DccSilent, match="DCC of K-AS 3 gave no answer to Report in 2 x") as error:
        DccLine(dcc, 3).ask(Report(name="h11", sequence=1), Ack, attempts=2)
    assert len(dcc.heard) == 2 and "\n" not in str(error.value)


# --- work, state, measurements ---


def test_work_is_bounded() -> None:
    go, work = threading.Event(), Work(workers=1, limit=2)

    def wait() -> None:
        go.wait(10)

    assert work(wait) and work(wait)
    assert not work(wait)
    go.set()
    wait_until(lambda: work(lambda: None), 5, "room again")


def test_overlapping_activities_show_the_latest_and_end_idle() -> None:
    seen: list[str] = []
    activities = Activities("h11", lambda kind, /, **data: seen.append(data["state"]))
    with activities.doing("training", 1):
        with activities.doing("sending", 2):
            assert activities.state == ("sending", 2)
        with activities.doing("training", 1):
            pass
    assert seen == ["training", "sending", "training", "idle"]


def test_load_is_the_share_of_time_spent_computing() -> None:
    now = 0.0
    meter = Meter(100.0, lambda: now)
    meter.begin()
    now = 3.0
    meter.end()
    now = 4.0
    assert meter.load() == pytest.approx(0.75)
    now = 6.0
    assert meter.load() == 0.0
    meter.trained(400, 2.0)
    assert meter.samples_per_s == pytest.approx(150.0)
    assert memory_left_mib() > 1 and memory_left_mib(Path("/does/not/exist")) == 0


def test_complaints_are_rate_limited() -> None:
    bench = Bench()
    for _ in range(1000):
        bench.terminal.complain("again")
    assert len(bench.events) == 10
    bench.now += 0.5
    bench.terminal.complain("later")
    assert len(bench.events) == 11


# --- control sockets ---


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short path: unix sockets take 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="dh") as name:
        yield Path(name)


def test_a_control_socket_answers_lines_and_survives_bad_ones(folder: Path) -> None:
    def handle(command: dict[str, Any]) -> dict[str, Any]:
        if command["op"] == "fail":
            raise BadCommand("no such\nop")
        return {"echo": command["value"]}

    server = ControlServer(folder / "deep" / "a.sock", handle)
    server.start()
    try:
        assert call(server.path, {"op": "echo", "value": 7}) == {"ok": True, "echo": 7}
        assert call(server.path, {"op": "fail"}) == {"ok": False, "error": "no such op", "bad_input": True}
        assert call(server.path, {"op": "echo"})["error"] == "no 'value'"
        assert server.path.stat().st_mode & 0o077 == 0
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(server.path))
            client.sendall(b'garbage\n["op"]\n{"op":"echo","value":1}\n')
            with client.makefile() as lines:
                replies = [json.loads(lines.readline()) for _ in range(3)]
        assert [r["ok"] for r in replies] == [False, False, True]
    finally:
        server.close()
    assert not server.path.exists()
    with pytest.raises(HostError, match="is that terminal's agent running"):
        call(server.path, {"op": "state"})


def test_a_socket_path_that_is_too_long_is_named(folder: Path) -> None:
    with pytest.raises(BadRuntimeDir, match="--runtime-dir"):
        ControlServer(folder / ("x" * 120), lambda c: c)


def test_a_handlers_surprise_type_is_an_answer_too() -> None:
    def fail(_: dict[str, Any]) -> dict[str, Any]:
        return {"x": [][0]}

    assert json.loads(answer_line(b'{"op":"x"}', fail))["ok"] is False


# --- the zygote ---


@pytest.mark.parametrize(
    ("content", "hint"),
    [
        (None, "No such file"),
        ("{", "truncated"),
        ('{"task":{},"nodes":[],"extra":1}', "extra"),
        ('{"task":{"name":"chess"},"nodes":[]}', "chess"),
        ('{"task":{},"nodes":[{"name":"h11"}]}', "role"),
    ],
)
def test_a_bad_scenario_file_is_one_line(folder: Path, content: str | None, hint: str) -> None:
    path = folder / "scenario.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(BadScenario, match=hint) as error:
        load_scenario(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_a_cgroup_is_joined_by_its_members_file(folder: Path) -> None:
    (folder / "tasks").write_text("")
    join_cgroup(str(folder))
    assert (folder / "tasks").read_text().strip() == str(os.getpid())
    (folder / "cgroup.procs").write_text("")
    join_cgroup(str(folder))
    assert (folder / "cgroup.procs").read_text().strip() == str(os.getpid())
    with pytest.raises(HostError, match="cgroup"):
        join_cgroup(str(folder / "none"))


def elsewhere() -> dict[str, Any]:
    """A host whose address is in no namespace (TEST-NET-1)."""
    return msgspec.to_builtins(msgspec.structs.replace(PLAN, name="h13", address="192.0.2.1"))  # type: ignore[no-any-return]


def start_zygote(folder: Path, *more: str) -> subprocess.Popen[str]:
    nodes = [{"name": f"h1{n}", "role": "data", "kas": 1, "index": n} for n in (1, 2)]
    task = {"name": "vignettes", "train_per_node": 64, "test_per_node": 16}
    (folder / "scenario.json").write_text(json.dumps({"task": task, "nodes": nodes}))
    command = [
        sys.executable,
        "-m",
        "hosts.process.zygote",
        "--runtime-dir",
        str(folder),
        "--events",
        str(folder / "events"),
    ]
    return subprocess.Popen(
        [*command, "--scenario", str(folder / "scenario.json"), *more], stderr=subprocess.PIPE, text=True
    )


@pytest.fixture
def zygote(folder: Path) -> Iterator[subprocess.Popen[str]]:
    process = start_zygote(folder)
    try:
        yield process
    finally:
        process.kill()
        process.communicate(timeout=5)


@pytest.mark.timeout(60)
def test_a_zygote_answers_refuses_what_it_cannot_do_and_ends(folder: Path, zygote: subprocess.Popen[str]) -> None:
    path = folder / "zygote.sock"
    wait_until(path.exists, 40, "zygote's socket")
    alive = call(path, {"op": "ping"})
    assert alive["ok"] and alive["pid"] == zygote.pid and alive["agents"] == {} and alive["samples_per_s"] > 0
    host = msgspec.to_builtins(PLAN)
    assert "fork, ping, stop" in call(path, {"op": "spoon"})["error"]
    assert "netns_pid" in call(path, {"op": "fork", "host": host})["error"]
    assert "process 4194999" in call(path, {"op": "fork", "host": host, "netns_pid": 4194999})["error"]
    assert call(path, {"op": "stop"})["ok"]
    assert zygote.wait(timeout=3) == 0 and not path.exists()


@pytest.mark.timeout(60)
@pytest.mark.skipif(os.geteuid() != 0, reason="setns needs root, even into one's own namespace")
def test_agents_are_forked_reported_gone_and_end_with_the_zygote(folder: Path, zygote: subprocess.Popen[str]) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as collector:
        collector.bind(str(folder / "events"))
        collector.settimeout(10)
        path = folder / "zygote.sock"
        wait_until(path.exists, 40, "zygote's socket")
        births = {}
        for name in ("h11", "h12"):
            host = msgspec.to_builtins(msgspec.structs.replace(PLAN, name=name, address=f"127.0.7.{name[1:]}"))
            births[name] = call(path, {"op": "fork", "host": host | {"role": "data"}, "netns_pid": os.getpid()})["pid"]
        assert (
            "cannot bind 192.0.2.1"
            in call(path, {"op": "fork", "host": elsewhere(), "netns_pid": os.getpid()})["error"]
        )
        assert "running already" in call(path, {"op": "fork", "host": host, "netns_pid": os.getpid()})["error"]
        wait_until((folder / "agents" / "h12.sock").exists, 10, "h12's control socket")
        wait_until((folder / "agents" / "h11.sock").exists, 10, "h11's control socket")
        state = call(folder / "agents" / "h11.sock", {"op": "state"})
        assert (state["name"], state["state"], state["pid"]) == ("h11", "idle", births["h11"])

        os.kill(births["h11"], signal.SIGKILL)
        gone = next(e for e in iter(lambda: json.loads(collector.recv(65536)), None) if e["kind"] == "agent.gone")
        assert gone["data"] == {"name": "h11", "status": -signal.SIGKILL, "expected": False}
        assert list(call(path, {"op": "ping"})["agents"]) == ["h12"]
        zygote.kill()
        wait_until(lambda: not Path(f"/proc/{births['h12']}").exists(), 5, "h12 gone with its zygote")


@pytest.mark.timeout(60)
def test_bad_input_is_one_line_and_status_2(folder: Path) -> None:
    process = start_zygote(folder, "--runtime-dir", str(folder / "none"))
    _, errors = process.communicate(timeout=50)
    assert process.returncode == 2 and len(errors.strip().splitlines()) == 1 and "none does not exist" in errors
