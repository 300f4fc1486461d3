"""The one socket by which a userspace Open vSwitch sends for all of its ports.

It is made when the switch first sends, with the buffer that sockets have by default then (208 KiB), and what waits in
the queue of any link counts against it: one full link makes the switch drop what others could carry. So it is made by
us, while that default is high; terminals' sockets, which come later, have the usual one.
"""

from __future__ import annotations

import contextlib
import os
import re

from topologies import wiring
from topologies.machine import shell

BUFFER_BYTES = 64 << 20  # some hundred queues of 50 Mbit/s, full
SETTINGS = {"net.core.wmem_default": BUFFER_BYTES}
FRAME = "ff" * 6 + "02" + "00" * 5 + "88b5" + "00" * 46  # of a protocol for experiments (IEEE 802, 88b5)
_SOCKET = re.compile(r'\s\[?0\]?:\*\s.*"ovs-vswitchd".*skmem:\(.*?,tb(\d+)')


def buffer_bytes() -> int | None:
    """Return the size of that socket's buffer; None where it is not there yet."""
    found = _SOCKET.search(shell.run("ss", "-0", "-a", "-m", "-p", "-O").stdout)
    return int(found[1]) if found else None


def make_socket(run_id: str) -> None:
    """Have Open vSwitch send a frame, to nobody, by a bridge that is gone again at once."""
    name = f"snd{os.getpid()}"[:12]
    a, b = f"{name}-a", f"{name}-b"
    try:
        shell.batch("ip", [(f"link add {a} type veth peer name {b}", "first frame"),
                           (f"link set {a} up alias {wiring.alias(run_id)}", "first frame"),
                           (f"link set {b} up", "first frame")])  # fmt: skip
        shell.must(
            "ovs-vsctl", "--timeout=20", "add-br", name, "--", "set", "bridge", name, "datapath_type=netdev",
            "fail_mode=secure", f"external-ids:daitn-run={run_id}", "--", "add-port", name, a, "--", "set", "interface",
            a, "ofport_request=1",
        )  # fmt: skip
        shell.must("ovs-ofctl", "packet-out", name, f"in_port=CONTROLLER,packet={FRAME},actions=output:1")
    finally:
        with contextlib.suppress(OSError):
            shell.run("ovs-vsctl", "--timeout=20", "--if-exists", "del-br", name)
        shell.try_batch("ip", [f"link del {a}"])


def complaint() -> str:
    """Return what is to be said of a socket that was made before us ('': nothing)."""
    have = buffer_bytes()
    if have is None or have >= BUFFER_BYTES:
        return ""
    return (
        f"Open vSwitch sends for all its ports with a buffer of {have >> 10} KiB, so a link that is full takes packets "
        "from others: restart it (/usr/share/openvswitch/scripts/ovs-ctl restart), or give --sandbox"
    )
