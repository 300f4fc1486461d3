"""Who owns what: ledger, lock, liveness, groups, ports. Everything in a temporary directory; no root."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers import wait_until
from topologies.errors import PortTakenError, RunLiveError
from topologies.machine import cgroups, ledger, preflight, sysctls
from topologies.machine.cleanup import CleanReport, clean, is_live
from topologies.machine.ledger import MAIN_VARIABLE, RUN_VARIABLE, Ledger, ProcessRecord
from topologies.machine.preflight import RunLock, locked_run
from topologies.venv import ROOT


def test_a_ledger_is_on_disk_before_its_owner_goes_on(tmp_path: Path) -> None:
    book = Ledger(tmp_path / "r1", "r1")
    book.note(lambda content: content.bridges.append("k1s1"))
    content = ledger.read(tmp_path / "r1")
    assert content is not None
    assert (content.run, content.bridges, content.main.pid) == ("r1", ["k1s1"], os.getpid())
    assert content.main.alive()


def test_a_broken_or_missing_ledger_is_none(tmp_path: Path) -> None:
    assert ledger.read(tmp_path) is None
    (tmp_path / ledger.LEDGER_FILE).write_text("{")
    assert ledger.read(tmp_path) is None


def test_a_reused_process_number_is_another_process() -> None:
    me = ledger.this_process()
    assert me.alive()
    assert not ProcessRecord(me.pid, me.started - 1).alive()


def test_one_run_at_a_time(tmp_path: Path) -> None:
    assert locked_run(tmp_path) is None
    preflight.check_alone(tmp_path)
    with RunLock("r1", tmp_path):
        assert locked_run(tmp_path) == "r1"
        with RunLock("r1", tmp_path):
            pass
        with pytest.raises(RunLiveError, match=rf"run r1 \(process {os.getpid()}\)"), RunLock("r2", tmp_path):
            pass
        with pytest.raises(RunLiveError, match=rf"run r1 \(process {os.getpid()}\) .*: wait for its end"):
            preflight.check_alone(tmp_path)
        assert locked_run(tmp_path) == "r1", "a nested or refused lock does not end the first"
    with RunLock("r2", tmp_path):
        assert locked_run(tmp_path) == "r2"


def test_a_live_run_is_left_alone_unless_forced(tmp_path: Path) -> None:
    Ledger(tmp_path / "r1", "r1")
    assert is_live("r1", tmp_path)
    assert clean("r1", base=tmp_path).live == ["r1"]
    assert (tmp_path / "r1").is_dir()
    report = clean("r1", force=True, base=tmp_path)
    assert report.files == [str(tmp_path / "r1")]
    assert not (tmp_path / "r1").exists()


def tagged(*, run: str, main: ProcessRecord | None = None) -> subprocess.Popen[bytes]:
    variables = {**os.environ, RUN_VARIABLE: run}
    if main is not None:
        variables[MAIN_VARIABLE] = f"{main.pid}:{main.started}"
    process = subprocess.Popen(["sleep", "60"], env=variables)
    environ = Path(f"/proc/{process.pid}/environ")  # empty for an instant after exec
    wait_until(
        lambda: f"{RUN_VARIABLE}={run}".encode() in environ.read_bytes().split(b"\0"), 5, "the process wears its tag"
    )
    return process


@pytest.fixture
def run_name() -> str:
    return f"unit{os.getpid()}"


def test_processes_are_found_by_their_tag(tmp_path: Path, run_name: str) -> None:
    mine, foreign = tagged(run=run_name), tagged(run=f"{run_name}x")
    try:
        report = clean(run_name, base=tmp_path)
        assert report.processes == [mine.pid]
        assert mine.wait(timeout=5) != 0
        assert foreign.poll() is None
    finally:
        for process in (mine, foreign):
            process.kill()
            process.wait()


def test_a_process_that_ignores_sigterm_is_killed(tmp_path: Path, run_name: str) -> None:
    code = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); signal.pause()"
    environment = {**os.environ, RUN_VARIABLE: run_name}
    with subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE) as deaf:
        assert deaf.stdout is not None
        deaf.stdout.readline()
        assert clean(run_name, base=tmp_path).processes == [deaf.pid]
        assert deaf.wait(timeout=5) == -9


def test_a_run_elsewhere_lives_as_long_as_its_main_process(tmp_path: Path, run_name: str) -> None:
    child = tagged(run=run_name, main=ledger.this_process())
    try:
        assert is_live(run_name, tmp_path)
        assert clean(run_name, base=tmp_path).live == [run_name]
        assert child.poll() is None
    finally:
        child.kill()
        child.wait()


def test_a_taken_port_names_its_owner() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(PortTakenError, match=rf"port {port} is taken by .*process {os.getpid()}"):
            preflight.check_port(port)
    preflight.check_port(port)


def test_a_port_that_a_killed_run_holds_names_the_cure(run_name: str) -> None:
    words = (
        "import socket, sys; s = socket.create_server(('127.0.0.1', 0));"
        "print(s.getsockname()[1], flush=True); sys.stdin.read()"
    )
    environment = os.environ | {RUN_VARIABLE: run_name}
    with subprocess.Popen(
        [sys.executable, "-c", words], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        port = int(child.stdout.readline())
        with pytest.raises(
            PortTakenError, match=rf"{port} .*process {child.pid}\) of the run {run_name}: .*`daitn clean`"
        ):
            preflight.check_port(port)
        child.communicate("", timeout=10)


def fake_v2(root: Path) -> Path:
    (root / "cgroup.controllers").write_text("cpuset cpu io memory\n")
    return root


def test_cpu_share_in_cgroup_v2(tmp_path: Path) -> None:
    path = cgroups.create_group("r1", "h11", 0.5, fake_v2(tmp_path))
    assert path == tmp_path / "daitn-r1" / "h11"
    assert (path / "cpu.max").read_text() == "10000 20000"
    assert (tmp_path / "cgroup.subtree_control").read_text() == "+cpu"
    assert cgroups.run_groups(tmp_path) == {"r1": tmp_path / "daitn-r1"}


def test_cpu_share_in_cgroup_v1(tmp_path: Path) -> None:
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text("-1")
    path = cgroups.create_group("r1", "h11", 1.5, tmp_path)
    assert path == tmp_path / "cpu" / "daitn-r1" / "h11"
    assert (path / "cpu.cfs_quota_us").read_text() == "30000"


def test_a_sandbox_has_its_runs_groups_below_its_own(tmp_path: Path) -> None:
    top = cgroups.create_top("box", fake_v2(tmp_path))
    assert top == tmp_path / "daitn-box"
    assert (top / "cgroup.subtree_control").read_text() == "+cpu"
    (top / "daitn-r1" / "h11").mkdir(parents=True)
    (top / "cgroup.subtree_control").unlink()
    assert cgroups.run_groups(tmp_path) == {"box": top}
    assert cgroups.remove_groups("box", tmp_path) and not top.exists()


@pytest.fixture
def setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The one kernel setting that runs of this test raise, from 100 to 200."""
    file = tmp_path / "rmem"
    file.write_text("100\n")
    monkeypatch.setattr(sysctls, "WANTED", {"rmem": 200})
    monkeypatch.setattr(sysctls, "path_of", lambda name: tmp_path / name)
    return file


def raised_by(tmp_path: Path, run: str) -> Ledger:
    book = Ledger(tmp_path / "runs" / run, run)
    sysctls.raise_limits(book)
    return book


def test_the_last_run_that_needs_a_kernel_setting_puts_it_back(tmp_path: Path, setting: Path) -> None:
    first, second = raised_by(tmp_path, "r1"), raised_by(tmp_path, "r2")
    assert sysctls.give_back(first.path) == []
    assert setting.read_text() == "200", "r2 still needs it"
    assert sysctls.give_back(second.path) == ["rmem"]
    assert setting.read_text() == "100"
    assert sysctls.give_back(second.path) == []


def test_what_a_killed_run_had_raised_is_put_back_by_the_next(tmp_path: Path, setting: Path) -> None:
    killed = raised_by(tmp_path, "r1")
    killed.note(lambda content: setattr(content, "main", ProcessRecord(os.getpid(), 1)))
    after = raised_by(tmp_path, "r2")
    assert sysctls.give_back(after.path) == ["rmem"], "the dead do not need it"
    assert setting.read_text() == "100"


def test_a_kernel_setting_that_somebody_else_changed_meanwhile_is_theirs(tmp_path: Path, setting: Path) -> None:
    book = raised_by(tmp_path, "r1")
    setting.write_text("300")
    assert sysctls.give_back(book.path) == []
    assert setting.read_text() == "300"


def test_no_cpu_controller_is_a_warning_not_a_failure(tmp_path: Path) -> None:
    assert cgroups.create_group("r1", "h11", 1.0, tmp_path) is None
    assert "no cpu controller" in cgroups.missing_reason(tmp_path)
    assert cgroups.missing_reason(fake_v2(tmp_path)) == ""


def test_the_report_reads_as_one_line() -> None:
    assert str(CleanReport()) == "nothing to remove"
    report = CleanReport(runs=["r1"], processes=[5, 6], bridges=["k1s1"], live=["r2"])
    assert str(report) == "removed 2 processes, 1 bridges of r1; left alone, because it lives: r2"


def test_debians_python_can_import_the_files_for_mn() -> None:
    """As ``mn`` does it: by exec(), without ``__file__``, from another directory."""
    code = (
        "import sys; names = {}; path = sys.argv[1]\n"
        "exec(compile(open(path).read(), path, 'exec'), names)\n"
        "print(sorted(names['topos']), sorted(names['controllers']))"
    )
    done = subprocess.run(
        ["/usr/bin/python3", "-c", code, str(ROOT / "topologies" / "fig3.py")],
        capture_output=True,
        text=True,
        cwd="/",
        env={"PATH": os.environ["PATH"]},
    )
    assert done.stdout == "['fig3'] ['dcc']\n", done.stderr


def test_without_msgspec_the_file_says_so_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "topologies").mkdir()
    for file in (ROOT / "topologies").glob("*.py"):
        (tmp_path / "topologies" / file.name).write_text(file.read_text())
    path = tmp_path / "topologies" / "fig3.py"
    code = "import sys; exec(compile(open(sys.argv[1]).read(), sys.argv[1], 'exec'), {})"
    done = subprocess.run(
        ["/usr/bin/python3", "-I", "-S", "-c", code, str(path)], capture_output=True, text=True, timeout=20
    )
    assert done.returncode == 1
    assert "finds no package 'msgspec'" in done.stderr
    assert done.stderr.count("\n") == 1
