"""The first process of a sandbox: makes its mounts, starts its switch and its command, buries the dead.

What it leads ends with it, by the kernel's hand: it is the first of a process namespace.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

from topologies.errors import TopologyError
from topologies.machine import cgroups, shell
from topologies.machine.sending import make_socket
from topologies.sandbox.switch import FOLDERS, start_switch

CGROUPS = cgroups.CGROUP_ROOT
FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main() -> None:
    """Set the sandbox up, tell by ``--ready`` that it stands (or why not), lead its command to the end."""
    parser = argparse.ArgumentParser(prog="python -m topologies.sandbox.first")
    parser.add_argument("--name", default="", help="for who looks at the list of processes")
    parser.add_argument("--group", type=Path)
    parser.add_argument("--ready", type=int, required=True)
    parser.add_argument("--no-switch", action="store_true")
    parser.add_argument("command", nargs="*")
    said = parser.parse_args()
    shell.find_tools()
    outside_pid = os.readlink("/proc/self")  # as the other side counts: /proc is still theirs
    try:
        make_mounts(said.group)
        shell.must("ip", "link", "set", "lo", "up")
        if not said.no_switch:
            start_switch()
            make_socket(said.name)
        child = subprocess.Popen(said.command, close_fds=False, start_new_session=True) if said.command else None
    except (TopologyError, OSError) as error:
        os.write(said.ready, shell.one_line(str(error)).encode())
        sys.exit(2)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    for number in FORWARDED if child else ():
        signal.signal(number, lambda number, _: _pass_on(child, number))
    os.write(said.ready, outside_pid.encode())
    os.close(said.ready)
    sys.exit(_lead(child))


def make_mounts(group: Path | None) -> None:
    """Give this mount namespace a ``/proc``, ``/run``, ``/sys`` and switch folders of its own, and of the CPU groups
    only those below ``group``.
    """
    shell.must("mount", "-t", "proc", "proc", "/proc")
    shell.must("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", "/run")
    for name in ("lock", "openvswitch", "sys"):
        Path("/run", name).mkdir()
    shell.must("mount", "-t", "sysfs", "sysfs", "/run/sys")
    if CGROUPS.is_dir():
        shell.must("mount", "--rbind", str(CGROUPS), "/run/sys/fs/cgroup")
    if group is not None:
        place = Path("/run/sys/fs/cgroup") / group.parent.relative_to(CGROUPS)
        shell.must("mount", "--bind", str(group), str(place))
    shell.must("mount", "--move", "/run/sys", "/sys")
    Path("/run/sys").rmdir()
    for folder in FOLDERS:
        if folder.is_dir():
            shell.must("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", str(folder))


def _pass_on(child: subprocess.Popen[bytes] | None, number: int) -> None:
    """Do as a terminal does: a command's children in the foreground are told as well."""
    if child is not None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, number)  # not yet waited for: its number is still its own


def _lead(child: subprocess.Popen[bytes] | None) -> int:
    """Bury whoever ends here until the command does; return its status. Without a command: until told to end."""
    while True:
        try:
            pid, status = os.wait()
        except ChildProcessError:
            signal.pause()
            continue
        if child is not None and pid == child.pid:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code


if __name__ == "__main__":
    main()
