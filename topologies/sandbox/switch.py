"""Start an Open vSwitch of one's own, where ``/run`` and the switch's folders are one's own already."""

from __future__ import annotations

import os
import subprocess
import uuid
from pathlib import Path

from topologies.errors import RefusedError, ToolMissingError
from topologies.machine import shell

SCRIPT = Path("/usr/share/openvswitch/scripts/ovs-ctl")
FOLDERS = (Path("/etc/openvswitch"), Path("/var/log/openvswitch"))  # its database, its logs
ALLOCATOR = "libtcmalloc_minimal.so.4"  # as scripts/provision.sh: glibc's took half of the time at 100 ports
START_TIMEOUT_S = 30.0
STATISTICS_MS = 60_000


def start_switch() -> None:
    """Start ovsdb-server and ovs-vswitchd as the machine's are started; ``RefusedError`` says what they said.

    Without a monitor (they end with their namespaces) and without locking their memory, which many runs share.
    """
    if not SCRIPT.exists():
        raise ToolMissingError("Open vSwitch is not installed: apt install openvswitch-switch, or scripts/provision.sh")
    words = ["start", f"--system-id={uuid.uuid4()}", "--no-monitor", "--no-mlockall", "--no-record-hostname"]
    try:
        done = subprocess.run(
            [SCRIPT, *words], env=os.environ | {"LD_PRELOAD": ALLOCATOR}, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=START_TIMEOUT_S,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise RefusedError(f"Open vSwitch did not start within {START_TIMEOUT_S:.0f} s") from None
    if done.returncode:
        raise RefusedError(f"Open vSwitch did not start: {shell.one_line(done.stdout)}")
    interval = f"other_config:stats-update-interval={STATISTICS_MS}"
    shell.must("ovs-vsctl", "--timeout=5", "--no-wait", "set", "Open_vSwitch", ".", interval)
