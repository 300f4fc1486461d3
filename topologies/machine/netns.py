"""Act inside another network namespace, from a thread.

Children that the thread starts are born there, sockets stay there.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from topologies.errors import RefusedError

T = TypeVar("T")
CLONE_NEWNET = 0x40000000
SIOCETHTOOL = 0x8946
TRANSMIT_CHECKSUM, GENERIC_RECEIVE = 0x17, 0x2C  # linux/ethtool.h: ETHTOOL_STXCSUM, ETHTOOL_SGRO
_libc = ctypes.CDLL(None, use_errno=True)


def inside(pid: int | None, work: Callable[[], T]) -> T:
    """Return ``work()`` done in the network namespace of process ``pid``.

    None: in a new, empty namespace, which ends with the work.
    """
    result: list[T] = []
    failure: list[BaseException] = []

    def body() -> None:
        try:
            _enter(pid)
            result.append(work())
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(target=body, name="netns", daemon=True)
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return result[0]


def _enter(pid: int | None) -> None:
    if pid is None:
        status = _libc.unshare(CLONE_NEWNET)
    else:
        descriptor = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            status = _libc.setns(descriptor, CLONE_NEWNET)
        finally:
            os.close(descriptor)
    if status:
        raise OSError(ctypes.get_errno(), f"network namespace of process {pid}: {os.strerror(ctypes.get_errno())}")


def quiet_ipv6(interface: str = "all") -> None:
    """Turn IPv6 off for an interface (or all) of the present namespace: no router solicitations on the wire."""
    for name in ("all", "default") if interface == "all" else (interface,):
        path = Path(f"/proc/sys/net/ipv6/conf/{name}/disable_ipv6")
        if path.exists():
            path.write_text("1")


def checksum_in_software(interface: str) -> None:
    """Do what ``ethtool -K IF tx off`` does, in the present namespace.

    A userspace switch drops what has partial checksums.
    """
    offload_off(interface, TRANSMIT_CHECKSUM)


def offload_off(interface: str, what: int) -> None:
    """Switch an offload of an interface of the present namespace off (``ethtool -K``)."""
    value = ctypes.create_string_buffer(struct.pack("=II", what, 0))
    request = struct.pack("16sP", interface.encode(), ctypes.addressof(value))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        try:
            fcntl.ioctl(control, SIOCETHTOOL, request)
        except OSError as error:
            raise RefusedError(
                f"interface {interface}: an offload ({what:#x}) cannot be switched off ({error.strerror})"
            ) from None
