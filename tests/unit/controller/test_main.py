"""The launcher from outside: help, one-line errors with status 2, a clean end, and os-ken's traps."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from controller.__main__ import main
from controller.errors import PlanError
from controller.runtime.loop import Worker
from tests.fake_fabric import run, small_plan
from tests.helpers import wait_until

ROOT = Path(__file__).parents[3]


def controller(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "controller", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30)


def plan_file(folder: Path) -> str:
    path = folder / "plan.json"
    path.write_bytes(msgspec.json.encode(small_plan().domain(1)))
    return str(path)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_help() -> None:
    done = controller("--help")
    assert done.returncode == 0 and "--openflow-port" in done.stdout and "example:" in done.stdout


def bad_plan(folder: Path) -> list[str]:
    path = folder / "bad.json"
    path.write_text('{"kas": [1]}')
    return ["--plan", str(path)]


def missing_plan(folder: Path) -> list[str]:
    return ["--plan", str(folder / "none.json")]


def bad_groups(folder: Path) -> list[str]:
    path = folder / "groups.json"
    path.write_text("7")
    return ["--plan", plan_file(folder), "--scenario-groups", str(path)]


def no_such_port(folder: Path) -> list[str]:
    return ["--plan", plan_file(folder), "--openflow-port", "99999"]


@pytest.mark.parametrize(
    "arguments, words",
    [(bad_plan, "DomainPlan"), (missing_plan, "No such file"), (bad_groups, "groups"), (no_such_port, "port 99999")],
)
def test_bad_input_is_one_line_and_status_2(
    tmp_path: Path, arguments: Callable[[Path], list[str]], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments(tmp_path)) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and words in said and said.startswith("controller: ")


def test_a_taken_openflow_port_is_one_line_and_status_2(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen(1)
        port = taken.getsockname()[1]
        done = controller("--plan", plan_file(tmp_path), "--openflow-port", str(port))
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert f"OpenFlow port {port}" in done.stderr and "--openflow-port" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_within_a_second_and_leaves_nothing(tmp_path: Path, number: signal.Signals) -> None:
    runtime, port = tmp_path / "run", free_port()
    command = [sys.executable, "-m", "controller", "--plan", plan_file(tmp_path), "--openflow-port", str(port)]
    process = subprocess.Popen(
        [*command, "--runtime-dir", str(runtime), "--database", str(tmp_path / "dcc.db")], cwd=ROOT
    )
    try:

        def listening() -> bool:
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", port)) == 0

        wait_until(listening, 15, "OpenFlow port open")
        assert (runtime / "dcc1.lock").exists()
        again = controller(
            "--plan", plan_file(tmp_path), "--openflow-port", str(free_port()), "--runtime-dir", str(runtime)
        )
        assert again.returncode == 2 and "another control centre of this K-AS is running" in again.stderr
        process.send_signal(number)
        assert process.wait(1.5) == 0
    finally:
        process.kill()
        process.wait(5)
    assert not list(runtime.iterdir())
    assert (tmp_path / "dcc.db").exists()


def test_it_listens_on_the_loopback_only(tmp_path: Path) -> None:
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "controller", "--plan", plan_file(tmp_path), "--openflow-port", str(port)], cwd=ROOT
    )
    try:
        listener = f":{port:04X} 00000000:0000 0A"
        lines = wait_until(
            lambda: [x for x in Path("/proc/net/tcp").read_text().splitlines() if listener in x], 15, "listening"
        )
        assert {x.split()[1].partition(":")[0] for x in lines} <= {"0100007F", "0200007F"}  # itself, and spare sessions
    finally:
        process.kill()
        process.wait(5)


def test_os_kens_event_wait_returns_after_its_time() -> None:
    """Its own never does on native threads; ``app.start`` puts the standard one in its place."""
    code = (
        "import os, threading, types\n"
        "from controller import app\n"
        "app.app_manager.AppManager.get_instance = classmethod(lambda cls: type('M', (), {\n"
        "    'load_apps': lambda s, a: None, 'instantiate_apps': lambda s, **k: None})())\n"
        "core = types.SimpleNamespace(packet_in=None, packet_refused=None, switch_error=None)\n"
        "app.start(core, types.SimpleNamespace(loop=None), 1)\n"
        "print(app.hub.Event().wait(0.05), flush=True)\n"
        "os._exit(0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=20)
    assert done.stdout.strip() == "False", done.stderr


def test_the_core_does_not_load_os_ken() -> None:
    code = (
        "import sys, controller.dcc, controller.border.kbgp.border; "
        "print(any(m.startswith('os_ken') for m in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=20)
    assert done.stdout.strip() == "False", done.stderr


def test_a_plan_that_contradicts_itself_is_named() -> None:
    from controller.domain import Domain

    plan = small_plan().domain(1)
    stray = msgspec.structs.replace(plan.hosts[0], switch="k9s9")
    with pytest.raises(PlanError, match=f"{stray.name} hangs on k9s9"):
        Domain(msgspec.structs.replace(plan, hosts=[stray]))
    with pytest.raises(PlanError, match="K-AS \\[7\\]"):
        Domain(msgspec.structs.replace(plan, kas=[1, 7]))


# --- the worker


def test_periodic_work_goes_on_after_an_error_and_the_error_is_told() -> None:
    async def work() -> None:
        import asyncio

        events: list[dict[str, object]] = []
        worker = Worker(lambda kind, /, **data: events.append(data))
        calls: list[int] = []

        def duty() -> None:
            calls.append(1)
            if len(calls) == 1:
                raise ValueError("first time")

        worker.every({"duty": (duty, 0.001)})
        while len(calls) < 3:
            await asyncio.sleep(0.001)
        worker.stop()
        assert [str(e["text"]).startswith("duty: first time (ValueError at ") for e in events] == [True]

    run(work)


def test_a_stuck_loop_ends_the_program_loudly() -> None:
    code = (
        "import time\n"
        "from controller.runtime.loop import Worker\n"
        "worker = Worker(lambda kind, /, **data: print(kind, data['text'], flush=True))\n"
        "worker.watch(stuck_s=0.2)\n"
        "time.sleep(10)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=9)
    assert done.returncode == 3 and "stuck for 0.2 s" in done.stderr and "error" in done.stdout


def test_the_groups_file_may_name_tasks_or_be_a_list(tmp_path: Path) -> None:
    from controller.__main__ import read_groups

    path = tmp_path / "groups.json"
    path.write_text(json.dumps({"vignettes": ["a", "b"]}))
    assert read_groups(path) == {"vignettes": ["a", "b"]}
    path.write_text(json.dumps(["a"]))
    assert read_groups(path) == {"": ["a"]}
    assert read_groups(None) == {}
    assert os.getpid() and threading.active_count()
