"""A delay line where the kernel has no netem: tap - vde_plug - wirefilter - vde_plug - tap, as processes of our own.

``dpipe`` would do the plumbing, but hides the process ids; here every one is known, and ends when it is told to.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from topologies.errors import RefusedError
from topologies.machine.waiting import wait_until
from topologies.plan import LinkPlan

TAP_TIMEOUT_S = 5.0
PIPE_BYTES = 1024 * 1024  # the default 64 KiB is 43 frames: a filter that waits for a core would lose what comes next
PRIORITY = -10  # as ovs-vswitchd's: training on the same cores must not become delay on the line
CHANNEL_BYTES = 4_000_000  # a second and more of any link that the wire filter may carry


@dataclass(frozen=True)
class Wire:
    """The processes of one link: left plug, filter there, filter back, right plug."""

    link: str
    taps: tuple[str, str]
    pids: tuple[int, ...]

    def alive(self) -> bool:
        """Tell whether all still run (an ended one is reaped by ``stop``)."""
        return all(os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None for pid in self.pids)

    def ask_to_end(self) -> None:
        """Tell the processes to end, without waiting (``stop`` waits)."""
        for pid in self.pids:
            _signal(pid, signal.SIGTERM)

    def stop(self) -> None:
        """End them and take their status; their taps go with them."""
        self.ask_to_end()
        for pid in self.pids:
            if not wait_until(lambda pid=pid: _reaped(pid), 1.0):  # type: ignore[misc]
                _signal(pid, signal.SIGKILL)
                wait_until(lambda pid=pid: _reaped(pid), 1.0)  # type: ignore[misc]


def start_wire(link: LinkPlan, taps: tuple[str, str], environment: Mapping[str, str]) -> Wire:
    """Start a link's delay line; its taps appear in the present namespace (``wait_for_taps``)."""
    # One filter for each way: a filter that serves both mixes up the fragments of the two streams, and mangles frames.
    from_left, left_out = _pipe()
    left_in, to_left = _pipe()
    from_right, right_out = _pipe()
    right_in, to_right = _pipe()
    ends = (from_left, left_out, left_in, to_left, from_right, right_out, right_in, to_right)
    options = ["-d", f"{link.delay_ms:g}", "-c", str(CHANNEL_BYTES)]
    options += ["-l", f"{link.loss_percent:g}"] if link.loss_percent else []
    try:
        pids = (
            _spawn(["vde_plug", f"tap://{taps[0]}"], {0: left_in, 1: left_out}, environment),
            _spawn(["wirefilter", *options], {0: from_left, 1: to_right}, environment),
            _spawn(["wirefilter", *options], {0: from_right, 1: to_left}, environment),
            _spawn(["vde_plug", f"tap://{taps[1]}"], {0: right_in, 1: right_out}, environment),
        )
    finally:
        for end in ends:
            os.close(end)
    _favour(pids, link.name)
    return Wire(link.name, taps, pids)


def _favour(pids: tuple[int, ...], name: str) -> None:
    """Keep a wire's processes on one core and ahead of the rest: a plug that changes cores overtakes its own frames."""
    cores = sorted(os.sched_getaffinity(0))
    for pid in pids:
        os.sched_setaffinity(pid, {cores[zlib.crc32(name.encode()) % len(cores)]})
        os.setpriority(os.PRIO_PROCESS, pid, PRIORITY)


def wait_for_taps(wire: Wire) -> None:
    """Wait until both taps of a wire exist; ``RefusedError`` when its processes end first."""
    there = wait_until(lambda: all(Path(f"/sys/class/net/{tap}").exists() for tap in wire.taps), TAP_TIMEOUT_S)
    if not there or not wire.alive():
        raise RefusedError(
            f"link {wire.link}: vde_plug made no tap within {TAP_TIMEOUT_S:.0f} s: is /dev/net/tun usable?"
        )


def _pipe() -> tuple[int, int]:
    """Return a pipe (read, write) with numbers high enough that moving it to 0..4 overwrites none of its fellows."""
    low = os.pipe()
    high = tuple(fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 64) for end in low)
    for end in low:
        os.close(end)
    fcntl.fcntl(high[1], fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    return high[0], high[1]


def _spawn(command: list[str], descriptors: Mapping[int, int], environment: Mapping[str, str]) -> int:
    """Start a program with these descriptors and no other (all else closes on exec), in a process group of its own."""
    path = shutil.which(command[0]) or command[0]
    actions: list[tuple[int, ...] | tuple[int, int, str, int, int]] = [
        (os.POSIX_SPAWN_DUP2, own, number) for number, own in descriptors.items()
    ]
    actions.append((os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0))
    return os.posix_spawn(path, command, dict(environment), file_actions=actions, setpgroup=0)


def _signal(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def _reaped(pid: int) -> bool:
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:
        return True
