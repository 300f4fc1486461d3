"""The run's captures, as pcapng: every AI packet on every link, one interface a link, and what it counts up to; what
gateways say to each other on the links between K-AS, from their first word on.

AI frames are cut to ``SNAP_BYTES`` (headers, not model weights); their full length stays in the file, so the bytes that
crossed each link can be read off the capture and held against the switches' port counters.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from pathlib import Path

from experiments.testbed.processes import Child, wait_for
from packets.kbgp.messages import PORT
from packets.labels import AI_PORT

SNAP_BYTES = 256
BUFFER_MIB = 8
QUEUE_PACKETS = 500_000  # dumpcap's own default of 1000 loses frames when training has the cores
QUEUE_BYTES = QUEUE_PACKETS * SNAP_BYTES
AI_FRAMES = f"udp port {AI_PORT}"
BORDER_FRAMES = f"tcp port {PORT}"
WHOLE_BYTES = 262_144  # TLS can be read only where no byte is missing
_DROPPED = re.compile(r"Packets received/dropped on interface '([^']+)': \d+/(\d+)")


class Capture:
    """One dumpcap over many interfaces of the root namespace. ``links`` maps an interface to the link it stands for;
    ``kept``: a capture filter; each frame is cut to ``snap_bytes``.
    """

    def __init__(
        self,
        path: Path,
        links: dict[str, str],
        log: Path,
        run_id: str,
        kept: str = AI_FRAMES,
        snap_bytes: int = SNAP_BYTES,
    ) -> None:
        self.path = path
        self.links = links
        command = ["dumpcap", "-q", "-N", str(QUEUE_PACKETS), "-C", str(QUEUE_BYTES), "-w", str(path)]
        for interface in links:
            command += ["-i", interface, "-s", str(snap_bytes), "-B", str(BUFFER_MIB), "-f", kept]
        self.child = Child(log.stem, command, log, run_id)

    def wait_ready(self, timeout_s: float = 60.0) -> None:
        """Wait until dumpcap has opened its interfaces and its file."""
        wait_for(
            "the capture", lambda: self.path.exists() and self.path.stat().st_size > 0, timeout_s, self.child.check
        )

    def dropped(self) -> int:
        """Return how many frames an ended capture says it lost."""
        return sum(int(n) for _, n in _DROPPED.findall(self.child.log.read_text(errors="replace")))

    def stop(self) -> None:
        """End the capture; the file is whole afterwards."""
        self.child.stop(10)
        if self.path.exists():
            self.path.chmod(0o644)  # dumpcap makes it the owner's alone


def frames(path: Path) -> Iterator[tuple[str, int, memoryview]]:
    """Yield (interface name, original length in bytes, captured bytes) of each frame of a pcapng file.

    Blocks as in draft-ietf-opsawg-pcapng; a file cut in the middle of a block ends quietly there.
    """
    data = memoryview(path.read_bytes())
    interfaces: list[str] = []
    offset = 0
    while offset + 12 <= len(data):
        kind, length = struct.unpack_from("<II", data, offset)
        if length < 12 or offset + length > len(data):
            return
        if kind == 1:
            interfaces.append(_interface_name(data[offset + 16 : offset + length - 4], len(interfaces)))
        elif kind == 6:
            index, _, _, captured, original = struct.unpack_from("<IIIII", data, offset + 8)
            yield interfaces[index], original, data[offset + 28 : offset + 28 + captured]
        offset += length


def _interface_name(options: memoryview, index: int) -> str:
    offset = 0
    while offset + 4 <= len(options):
        code, length = struct.unpack_from("<HH", options, offset)
        if code == 2:
            return bytes(options[offset + 4 : offset + 4 + length]).decode(errors="replace")
        if code == 0:
            break
        offset += 4 + (length + 3) // 4 * 4
    return f"interface{index}"


def bytes_by_link(path: Path, links: dict[str, str]) -> dict[str, int]:
    """Return the bytes of AI frames (Ethernet header included) that crossed each link, both directions."""
    total = dict.fromkeys(links.values(), 0)
    for interface, original, _ in frames(path):
        if interface in links:
            total[links[interface]] += original
    return total
