"""Who made what.

A run writes into its ledger what it is about to create, before it does, so that ``clean`` finds it later.

``/run/daitn/<run id>/ledger.json`` survives the run's death; what is in it, and still marked as the run's own, may
go. Namespaces are not listed: ours have no name and end with the last process inside.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import msgspec

RUN_BASE = Path("/run/daitn")
LEDGER_FILE = "ledger.json"
RUN_VARIABLE = "DAITN_RUN"
MAIN_VARIABLE = "DAITN_MAIN"  # "pid:start time" of the run's main process, wherever its ledger lies


class ProcessRecord(msgspec.Struct, frozen=True):
    """A process, told from a later one with the same number by its start time (clock ticks after boot)."""

    pid: int
    started: int

    def alive(self) -> bool:
        """Tell whether this very process still runs."""
        return start_time(self.pid) == self.started


class SysctlRecord(msgspec.Struct, frozen=True):
    """A kernel setting that was changed: restored when it still has our value."""

    name: str
    before: str
    ours: str


class LedgerContent(msgspec.Struct, kw_only=True):
    """What one run owns."""

    run: str
    main: ProcessRecord
    bridges: list[str] = []
    interfaces: list[str] = []
    processes: list[ProcessRecord] = []
    sysctls: list[SysctlRecord] = []
    files: list[str] = []


class Ledger:
    """The ledger of the run that this process leads; every change is on disk before it returns."""

    def __init__(self, runtime_dir: Path, run_id: str) -> None:
        self.path = runtime_dir / LEDGER_FILE
        self.content = LedgerContent(run=run_id, main=this_process())
        runtime_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._write()

    def note(self, change: Callable[[LedgerContent], None]) -> None:
        """Apply a change to the content and write it."""
        change(self.content)
        self._write()

    def _write(self) -> None:
        draft = self.path.with_suffix(".draft")
        draft.write_bytes(msgspec.json.encode(self.content))
        draft.replace(self.path)


def read(runtime_dir: Path) -> LedgerContent | None:
    """Return the ledger of a run directory, None when it has none (or one that cannot be read)."""
    try:
        return msgspec.json.decode((runtime_dir / LEDGER_FILE).read_bytes(), type=LedgerContent)
    except (OSError, msgspec.DecodeError):
        return None


def this_process() -> ProcessRecord:
    """Return the record of the running process."""
    return ProcessRecord(os.getpid(), start_time(os.getpid()) or 0)


def environment(pid: int) -> dict[str, str]:
    """Return the environment that a process started with; none where it is gone or somebody else's."""
    try:
        block = Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace")
    except OSError:
        return {}
    return dict(item.partition("=")[::2] for item in block.split("\0"))


def start_time(pid: int) -> int | None:
    """Return when a process started, in clock ticks after boot; None when it is gone (or only its status is left)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])
