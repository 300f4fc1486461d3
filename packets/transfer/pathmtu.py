"""Packetization-layer path MTU discovery, by black-hole detection alone (RFC 8899, section 4.3).

A launch fits any path.  Where it is answered and no full-sized shard ever arrives, some port on the way carries less
than this host believes: the object is launched again in packets that every path carries (IPv6's least MTU, which
tunnels respect), and so is what leaves here afterwards, until it is time to look whether the path has grown.
"""

from __future__ import annotations

from packets.wire import FIXED_BYTES, IP_UDP_BYTES

BASE_MTU = 1280  # bytes of an IP packet
BLACK_HOLE_S = 3.0
OVERHEAD = IP_UDP_BYTES + FIXED_BYTES
CIPHER_BLOCK_BYTES = 16  # an encrypted shard begins where one does
RAISE_S = 600.0  # RFC 8899: PMTU_RAISE_TIMER


class ShardSize:
    """How many bytes of an object a packet of this terminal carries now; sealed, whole blocks of its cipher."""

    def __init__(self, mtu: int) -> None:
        self._full, self._narrow_until = _whole_blocks(mtu - OVERHEAD), 0.0

    @property
    def least(self) -> int:
        """Bytes that a packet of ``BASE_MTU`` carries, or of this host's own MTU where that is smaller."""
        return min(self._full, _whole_blocks(BASE_MTU - OVERHEAD))

    def now(self, now: float) -> int:
        """Return the bytes of a shard that is cut now."""
        return self.least if now < self._narrow_until else self._full

    def narrow(self, now: float) -> None:
        """Remember that full-sized packets do not get through."""
        self._narrow_until = now + RAISE_S


def _whole_blocks(size: int) -> int:
    return size - size % CIPHER_BLOCK_BYTES


def silence(name: str, peer: str, vanished_bytes: int) -> str:
    """Return what to say of a silent receiver; ``vanished_bytes``: of each packet, where all vanished, else 0."""
    if not vanished_bytes:
        return f"{peer} fell silent during {name}: launch it again"
    return (
        f"{peer} answered the launch of {name}, and no shard of {vanished_bytes} bytes came through: "
        "look at the MTU of the ports on the way"
    )
