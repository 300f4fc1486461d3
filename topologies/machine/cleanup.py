"""Remove what runs left behind, by what they marked as theirs, and nothing else. Never by name pattern.

A process is a run's own when ``DAITN_RUN`` stands in its environment, a bridge when its ``external-ids`` say so, an
interface when its alias does (or the ledger names it and it was born in our group); groups, kernel settings and files
come from the run's id and ledger.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import msgspec

from topologies import wiring
from topologies.machine import cgroups, ledger, shell, sysctls, tls
from topologies.machine.ledger import MAIN_VARIABLE, RUN_BASE, RUN_VARIABLE, LedgerContent, ProcessRecord
from topologies.machine.preflight import LOCK_FILE, locked_run
from topologies.machine.waiting import wait_until

TERM_TIMEOUT_S = 3.0
KILL_TIMEOUT_S = 3.0
KINDS = ("processes", "bridges", "interfaces", "groups", "settings", "files")


class CleanReport(msgspec.Struct):
    """What was removed, by kind; ``live`` are runs that were left alone, ``left`` what would not go."""

    runs: list[str] = []
    processes: list[int] = []
    bridges: list[str] = []
    interfaces: list[str] = []
    groups: list[str] = []
    settings: list[str] = []
    files: list[str] = []
    live: list[str] = []
    left: list[str] = []

    def count(self) -> int:
        """Return how many things were removed."""
        return sum(len(getattr(self, kind)) for kind in KINDS)

    def __str__(self) -> str:
        parts = [f"{len(getattr(self, kind))} {kind}" for kind in KINDS if getattr(self, kind)]
        text = f"removed {', '.join(parts)} of {', '.join(self.runs)}" if parts else "nothing to remove"
        text += f"; left alone, because it lives: {', '.join(self.live)}" if self.live else ""
        return text + (f"; could not be removed: {', '.join(self.left)}" if self.left else "")


def clean(run_id: str | None = None, *, force: bool = False, base: Path = RUN_BASE) -> CleanReport:
    """Remove one run's leavings (None: those of every dead run). A run that lives is only touched with ``force``."""
    report = CleanReport()
    found = known_runs(base) if run_id is None else {run_id}
    dead = []
    for run in sorted(found):
        if is_live(run, base) and not force:
            report.live.append(run)
        else:
            dead.append(run)
    for run in dead:
        _clean_run(run, base, report)
    return report


def known_runs(base: Path = RUN_BASE) -> set[str]:
    """Return every run of which there is a trace on this machine."""
    directories = {path.name for path in base.glob("*") if path.is_dir()} if base.is_dir() else set()
    aliases = {run for _, run in _aliased_interfaces()}
    return (
        directories
        | aliases
        | set(_bridges().values())
        | set(cgroups.run_groups())
        | {run for _, run in tagged_processes()}
    )


def is_live(run_id: str, base: Path = RUN_BASE) -> bool:
    """Tell whether a run's main process lives, by its lock (which the kernel lets go), ledger, or children's word."""
    content = ledger.read(base / run_id)
    if locked_run(base) == run_id or (content is not None and content.main.alive()):
        return True
    return any(main is not None and main.alive() for _, run, main in _tagged() if run == run_id)


def tagged_processes() -> Iterator[tuple[ProcessRecord, str]]:
    """Yield each process that carries a run's tag in its environment, with the run."""
    for record, run, _ in _tagged():
        yield record, run


def _tagged() -> Iterator[tuple[ProcessRecord, str, ProcessRecord | None]]:
    """Yield (process, run, main process of the run where the environment names one).

    Those of another process namespace are the affair of the sandbox that they live and end in.
    """
    here = _process_namespace("self")
    for entry in Path("/proc").glob("[0-9]*"):
        variables = ledger.environment(int(entry.name))
        run = variables.get(RUN_VARIABLE, "")
        started = ledger.start_time(int(entry.name)) if run else None
        if started is not None and _process_namespace(entry.name) == here:
            pid, _, main_started = variables.get(MAIN_VARIABLE, "").partition(":")
            named = pid.isdigit() and main_started.isdigit()
            main = ProcessRecord(int(pid), int(main_started)) if named else None
            yield ProcessRecord(int(entry.name), started), run, main


def _process_namespace(process: str) -> str:
    try:
        return os.readlink(f"/proc/{process}/ns/pid")
    except OSError:  # gone meanwhile
        return ""


def _clean_run(run: str, base: Path, report: CleanReport) -> None:
    before = report.count()
    content = ledger.read(base / run)
    _end_processes(run, content, report)
    _remove_bridges(run, report)
    if tls.hide(run):
        report.settings.append("certificate of Open vSwitch")
    _remove_interfaces(run, content, report)
    _remove_groups(run, report)
    if content is not None:
        report.settings += sysctls.give_back(base / run / ledger.LEDGER_FILE)
    _remove_files(run, content, base, report)
    if report.count() > before:
        report.runs.append(run)


def _end_processes(run: str, content: LedgerContent | None, report: CleanReport) -> None:
    """End a run's processes: asked first, then made to.

    A process that they start meanwhile is found in the next round.
    """
    spared = _own_line()
    listed = [*content.processes, content.main] if content is not None else []

    def living() -> list[ProcessRecord]:
        tagged = [record for record, owner in tagged_processes() if owner == run]
        return [record for record in {*tagged, *listed} if record.pid not in spared and record.alive()]

    for number, timeout_s in ((signal.SIGTERM, TERM_TIMEOUT_S), (signal.SIGKILL, KILL_TIMEOUT_S)):
        for record in living():
            _signal(record, number)
            if record.pid not in report.processes:
                report.processes.append(record.pid)
        if wait_until(lambda: not living(), timeout_s):
            return
    report.left += [f"process {record.pid}" for record in living()]


def _signal(record: ProcessRecord, number: int) -> None:
    try:
        descriptor = os.pidfd_open(record.pid)
    except OSError:
        return
    try:
        if record.alive():  # the number still means this process: the descriptor holds on to it
            signal.pidfd_send_signal(descriptor, number)
    except ProcessLookupError:
        return
    finally:
        os.close(descriptor)


def _own_line() -> set[int]:
    """Return this process and its ancestors: whoever calls ``clean`` from a run's own terminal survives it."""
    line, pid = set(), os.getpid()
    while pid > 0 and pid not in line:
        line.add(pid)
        try:
            pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            break
    return line


def _bridges() -> dict[str, str]:
    """Return the bridges that are marked as some run's: {bridge: run}; none when Open vSwitch does not answer."""
    answer = shell.run("ovs-vsctl", "--timeout=5", "--format=json", "--columns=name,external_ids", "list", "Bridge")
    if answer.returncode:
        return {}
    rows = json.loads(answer.stdout)["data"]
    marks = {name: dict(pairs).get("daitn-run") for name, (_, pairs) in rows}
    return {name: run for name, run in marks.items() if run}


def _remove_bridges(run: str, report: CleanReport) -> None:
    mine = [name for name, owner in _bridges().items() if owner == run]
    if mine:
        done = shell.run("ovs-vsctl", "--timeout=20", *wiring.unbridge_words(mine))
        (report.left if done.returncode else report.bridges).extend(mine)


def _aliased_interfaces() -> Iterator[tuple[str, str]]:
    """Yield (interface, run) of every interface here whose alias marks it as a run's."""
    mark = wiring.alias("")
    for path in Path("/sys/class/net").iterdir():
        alias = _attribute(path, "ifalias")
        if alias.startswith(mark):
            yield path.name, alias[len(mark) :]


def _remove_interfaces(run: str, content: LedgerContent | None, report: CleanReport) -> None:
    mine = {name for name, owner in _aliased_interfaces() if owner == run}
    for name in content.interfaces if content is not None else []:
        path = Path("/sys/class/net") / name
        if (
            path.exists()
            and _attribute(path, "netdev_group") == str(wiring.group(run))
            and not _attribute(path, "ifalias")
        ):
            mine.add(name)
    shell.try_batch("ip", [f"link del {name}" for name in sorted(mine)])
    gone = {name for name in mine if not (Path("/sys/class/net") / name).exists()}
    report.interfaces += sorted(gone)
    report.left += sorted(f"interface {name}" for name in mine - gone)


def _attribute(path: Path, name: str) -> str:
    try:
        return (path / name).read_text().strip()
    except OSError:
        return ""


def _remove_groups(run: str, report: CleanReport) -> None:
    group = cgroups.run_groups().get(run)
    if group is not None:
        gone = wait_until(lambda: cgroups.remove_groups(run), 1.0)
        (report.groups if gone else report.left).append(str(group))


def _remove_files(run: str, content: LedgerContent | None, base: Path, report: CleanReport) -> None:
    files = [Path(name) for name in (content.files if content is not None else [])]
    for path in [*files, base / run]:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        elif path.exists():
            path.unlink()
        else:
            continue
        (report.left if path.exists() else report.files).append(str(path))
    if locked_run(base) is None and not any(p.is_dir() for p in base.glob("*")):
        (base / LOCK_FILE).unlink(missing_ok=True)
