"""Entering a host's namespace: the few Linux calls that Python 3.11 does not have (setns(2), prctl(2)), and cgroups."""

from __future__ import annotations

import ctypes
import fcntl
import os
import signal
import socket
import struct
from pathlib import Path

from hosts.errors import NoNamespace
from packets.wire import DEFAULT_MTU

CLONE_NEWNET = 0x40000000
PR_SET_PDEATHSIG = 1
PR_SET_NAME = 15
SIOCGIFMTU = 0x8921  # linux/sockios.h

_libc = ctypes.CDLL(None, use_errno=True)


def open_network_namespace(pid: int) -> int:
    """Return a file descriptor of the network namespace of a process; ``NoNamespace`` when there is none to enter."""
    try:
        return os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise NoNamespace(
            f"network namespace of process {pid}: {error.strerror}; is the Mininet host still up?"
        ) from None


def enter_network_namespace(descriptor: int) -> None:
    """Move the calling thread (call it while there is only one) into a network namespace."""
    if _libc.setns(descriptor, CLONE_NEWNET) != 0:
        reason = os.strerror(ctypes.get_errno())
        raise NoNamespace(f"cannot enter the network namespace: {reason}; the zygote needs root (CAP_SYS_ADMIN)")


def mtu_of(interface: str) -> int:
    """Return the bytes of the longest IP packet that an interface of this namespace takes; a LAN's where there is none.

    A terminal that sends over a tunnel has less than others (``topologies.cluster``).
    """
    request = struct.pack("16s16x", interface.encode())
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        try:
            answer = fcntl.ioctl(control, SIOCGIFMTU, request)
        except OSError:
            return DEFAULT_MTU
    return min(DEFAULT_MTU, int(struct.unpack("16si12x", answer)[1]))


def join_cgroup(folder: str) -> None:
    """Move the calling process into a cgroup (v2 or v1) by its folder."""
    members = Path(folder) / "cgroup.procs"
    if not members.exists():
        members = Path(folder) / "tasks"
    try:
        members.write_text(f"{os.getpid()}\n")
    except OSError as error:
        raise NoNamespace(f"cgroup {folder}: {error.strerror}; it must exist before the fork") from None


def die_with_parent(parent: int) -> None:
    """Let the kernel kill this process when ``parent`` ends; covers a parent that is gone already."""
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def set_process_name(name: str) -> None:
    """Set what ``ps -o comm`` shows (15 bytes), so that a person finds an agent by its host's name."""
    _libc.prctl(PR_SET_NAME, name.encode()[:15], 0, 0, 0)
