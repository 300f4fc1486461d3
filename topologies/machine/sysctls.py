"""Kernel settings that a network needs, set for as long as it stands."""

from __future__ import annotations

import os
from pathlib import Path

from topologies.machine.ledger import Ledger, SysctlRecord

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


def raise_limits(ledger: Ledger) -> None:
    """Raise what is lower than wanted; the ledger knows the old values first.

    In a network namespace other than the first, settings of the whole machine are absent or cannot be written.
    """
    records = []
    for name, wanted in WANTED.items():
        if not os.access(path_of(name), os.W_OK):
            continue
        before = path_of(name).read_text().strip()
        if int(before) < wanted:
            records.append(SysctlRecord(name, before, str(wanted)))
    ledger.note(lambda content: content.sysctls.extend(records))
    for record in records:
        path_of(record.name).write_text(record.ours)


def restore(records: list[SysctlRecord]) -> list[str]:
    """Put back what still has our value; return the names."""
    done = []
    for record in records:
        if path_of(record.name).read_text().strip() == record.ours:
            path_of(record.name).write_text(record.before)
            done.append(record.name)
    return done
