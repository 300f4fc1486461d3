"""Kernel settings that a network needs, set for as long as it stands."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from topologies.machine.ledger import Ledger, LedgerContent, SysctlRecord, read

# Open vSwitch's userspace ports and the agents' sockets take whole trains at once; veth hands over through a backlog.
WANTED = {
    "net.core.rmem_default": 16 * 1024 * 1024,
    "net.core.rmem_max": 16 * 1024 * 1024,
    "net.core.wmem_max": 16 * 1024 * 1024,
    "net.core.netdev_max_backlog": 10_000,
}


def path_of(name: str) -> Path:
    """Return the file of a setting."""
    return Path("/proc/sys") / name.replace(".", "/")


def raise_limits(ledger: Ledger, limits: Mapping[str, int] | None = None) -> None:
    """Raise what is lower than wanted (None: ``WANTED``); the ledger knows the old values first.

    What another run has raised is in our ledger as well: the last that needs it puts it back. In a network namespace
    other than the first, settings of the whole machine are absent or cannot be written.
    """
    with _alone(ledger.path):
        raised = {record.name: record for content in _others(ledger.path) for record in content.sysctls}
        records = []
        for name, wanted in (WANTED if limits is None else limits).items():
            if not os.access(path_of(name), os.W_OK):
                continue
            before = path_of(name).read_text().strip()
            if name in raised and before == raised[name].ours:
                records.append(raised[name])
            elif int(before) < wanted:
                records.append(SysctlRecord(name, before, str(wanted)))
        ledger.note(lambda content: content.sysctls.extend(records))
        for record in records:
            path_of(record.name).write_text(record.ours)


@contextlib.contextmanager
def raised(ledger: Ledger, limits: Mapping[str, int]) -> Iterator[None]:
    """Raise these for a moment, while all else stands as it is."""
    raise_limits(ledger, limits)
    try:
        yield
    finally:
        with _alone(ledger.path):
            _put_back(ledger.path, [r for r in ledger.content.sysctls if r.name in limits])
            kept = [r for r in ledger.content.sysctls if r.name not in limits]
            ledger.note(lambda content: setattr(content, "sysctls", kept))


def give_back(ledger_file: Path) -> list[str]:
    """Put back what still has our value and no other living run needs, drop the ledger; return the names."""
    with _alone(ledger_file):
        ours = read(ledger_file.parent)
        done = _put_back(ledger_file, ours.sysctls if ours is not None else [])
        ledger_file.unlink(missing_ok=True)
    return done


def _put_back(ledger_file: Path, records: list[SysctlRecord]) -> list[str]:
    needed = {r.name for content in _others(ledger_file) if content.main.alive() for r in content.sysctls}
    done = []
    for record in records:
        if record.name not in needed and path_of(record.name).read_text().strip() == record.ours:
            path_of(record.name).write_text(record.before)
            done.append(record.name)
    return done


@contextlib.contextmanager
def _alone(ledger_file: Path) -> Iterator[None]:
    """Hold the folder of all runs' ledgers, so that of two runs that end at once one is the last."""
    folder = ledger_file.parent.parent
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _others(ledger_file: Path) -> list[LedgerContent]:
    found = [
        read(path.parent) for path in ledger_file.parent.parent.glob(f"*/{ledger_file.name}") if path != ledger_file
    ]
    return [content for content in found if content is not None]
