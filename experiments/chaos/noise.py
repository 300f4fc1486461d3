"""Frames that a link loses or alters: nftables rules where its ends send, in tables of their own.

A queue that loses frames (netem) is not in every kernel; this is. A switch in userspace reads its ports before the
firewall would see what came in, so the rules stand at what goes out, at both ends. An altered AI packet loses its UDP
checksum (0: none), so that no kernel finds what the packet's own checksums have to find.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from functools import partial
from typing import Any, Final, Literal

from experiments.errors import RunFailed
from packets.labels import AI_PORT
from topologies.machine import netns

Noise = Literal["loss", "corruption"]
TABLE: Final = "daitn_chaos"
SCALE: Final = 1000
UDP_BYTES: Final = 8
# Within the AI packet: object, transfer and offset, both checksums, an option or payload. (Field: packets/README.md)
ALTERED: Final = (15, 23, 39, 57, 61, 64, 90)


def rules(noise: Noise, table: str, device: str, share: float) -> str:
    """Return what ``nft`` is told to have a share of what leaves ``device`` lost or altered."""
    each = max(1, round(SCALE * share))
    lines = [f"table netdev {table} {{", f"  chain {device.replace('-', '_')} {{"]
    lines.append(f'    type filter hook egress device "{device}" priority 0; policy accept;')
    if noise == "loss":
        lines.append(f"    numgen random mod {SCALE} < {each} drop")
    else:
        for number, byte in enumerate(ALTERED):
            some = f"numgen random mod {SCALE * len(ALTERED)} < {each}"
            at = 8 * (UDP_BYTES + byte)
            for way in ("dport", "sport"):
                lines.append(
                    f"    udp {way} {AI_PORT} udp length > {UDP_BYTES + byte} {some} "
                    f"@th,{at},8 set {(37 * number + 91) % 256} udp checksum set 0"
                )
    return "\n".join([*lines, "  }", "}", ""])


def tell(words: str, *, must: bool = True) -> None:
    """Have nftables do it, in the present namespace; ``RunFailed`` with its words when it does not."""
    try:
        done = subprocess.run(["nft", "-f", "-"], input=words, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise RunFailed(f"nft: {error}; `apt install nftables`, or leave loss and corruption out (--kinds)") from None
    if done.returncode and must:
        raise RunFailed(f"nft refused a rule: {' '.join(done.stderr.split())[:300]}")


def disturb(ends: list[tuple[int | None, str]], noise: Noise, table: str, share: float) -> Callable[[], None]:
    """Disturb what leaves these interfaces (process in whose namespace it is, name); return what mends it."""

    def mend() -> None:
        for pid, device in ends:
            _there(pid, partial(tell, f"delete table netdev {_name(table, device)}\n", must=False))

    try:
        for pid, device in ends:
            _there(pid, partial(tell, rules(noise, _name(table, device), device, share)))
    except BaseException:
        mend()
        raise
    return mend


def _name(table: str, device: str) -> str:
    return f"{table}_{device.replace('-', '_')}"


def _there(pid: int | None, work: Callable[[], Any]) -> None:
    if pid is None:
        work()
    else:
        netns.inside(pid, work)
