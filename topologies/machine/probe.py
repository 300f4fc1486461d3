"""What this machine can do: asked once, by trying, where trying leaves no trace."""

from __future__ import annotations

import shutil
from functools import cache
from typing import Literal

from topologies.machine import netns, shell

Datapath = Literal["user", "kernel"]


@cache
def datapath() -> Datapath:
    """Return ``kernel`` where the kernel has Open vSwitch's datapath, else ``user``."""
    return "kernel" if shell.run("ovs-dpctl", "dump-dps").returncode == 0 else "user"


@cache
def netem() -> bool:
    """Tell whether the kernel delays packets by itself (tried on the loopback of a namespace of its own)."""
    trial = ("tc", "qdisc", "add", "dev", "lo", "root", "netem", "delay", "1ms")
    return netns.inside(None, lambda: shell.run(*trial)).returncode == 0


@cache
def wirefilter() -> bool:
    """Tell whether VDE's wire filter is installed and taps can be made: the delay line where netem is missing."""
    return all(map(shutil.which, ("vde_plug", "wirefilter"))) and _has_taps()


def _has_taps() -> bool:
    try:
        with open("/dev/net/tun", "rb"):
            return True
    except OSError:
        return False
