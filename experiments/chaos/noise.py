"""Frames that a link loses or alters: nftables rules where its ends send, in tables of their own.

A queue that loses frames (netem) is not in every kernel; this is. A switch in userspace reads its ports before the
firewall would see what came in, so the rules stand at what goes out, at both ends. An altered AI packet loses its UDP
checksum (0: none), so that no kernel finds what the packet's own checksums have to find.
"""

from __future__ import annotations

import contextlib
import select
import subprocess
from collections.abc import Callable
from functools import partial
from typing import Final, Literal

from experiments.errors import RunFailed
from packets.labels import AI_PORT
from topologies.machine import netns

Noise = Literal["loss", "corruption"]
TABLE: Final = "daitn_chaos"
SCALE: Final = 1000
UDP_BYTES: Final = 8
ANSWER_S: Final = 10.0
CURE: Final = "`apt install nftables`, or leave loss and corruption out (--kinds)"
# Within the AI packet: object, transfer and offset, both checksums, an option or payload. (Field: packets/README.md)
ALTERED: Final = (15, 23, 39, 57, 61, 64, 90)


def rules(noise: Noise, table: str, device: str, share: float) -> str:
    """Return the line by which ``nft -i`` has a share of what leaves ``device`` lost or altered, while it lives."""
    each = max(1, round(SCALE * share))
    chain = [f'type filter hook egress device "{device}" priority 0', "policy accept"]
    if noise == "loss":
        chain.append(f"numgen random mod {SCALE} < {each} drop")
    else:
        for number, byte in enumerate(ALTERED):
            some = f"numgen random mod {SCALE * len(ALTERED)} < {each}"
            at = 8 * (UDP_BYTES + byte)
            chain += [
                f"udp {way} {AI_PORT} udp length > {UDP_BYTES + byte} {some} "
                f"@th,{at},8 set {(37 * number + 91) % 256} udp checksum set 0"
                for way in ("dport", "sport")
            ]
    return f"table netdev {table} {{ flags owner; chain {_word(device)} {{ {'; '.join(chain)}; }}; }}\n"


class Firewall:
    """A table that is its process's own: the kernel takes it away with the process, and that ends with its input.

    So nothing of it outlives us, however we end.
    """

    def __init__(self, words: str) -> None:
        try:
            self._nft = subprocess.Popen(
                ["nft", "-i"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
            )
        except OSError as error:
            raise RunFailed(f"nft: {error}; {CURE}") from None
        try:
            self._say(words)
        except BaseException:
            self.close()
            raise

    def _say(self, words: str) -> None:
        assert self._nft.stdin is not None and self._nft.stdout is not None
        table = " ".join(words.split()[:3])
        with contextlib.suppress(BrokenPipeError):
            self._nft.stdin.write(f"{words}list {table}\n")
            self._nft.stdin.flush()
        ready, _, _ = select.select([self._nft.stdout], [], [], ANSWER_S)
        answer = self._nft.stdout.readline().strip() if ready else "no answer"
        if not answer.startswith(f"{table} "):
            raise RunFailed(f"nft refused a rule: {answer[:300]}; {CURE}")

    def close(self) -> None:
        """Take the table away."""
        with contextlib.suppress(BrokenPipeError, subprocess.TimeoutExpired), self._nft:
            self._nft.communicate(timeout=ANSWER_S)
        self._nft.kill()


def disturb(ends: list[tuple[int | None, str]], noise: Noise, table: str, share: float) -> Callable[[], None]:
    """Disturb what leaves these interfaces (process in whose namespace it is, name); return what mends it.

    ``RunFailed`` with nftables' words when it does not.
    """
    with contextlib.ExitStack() as undo:
        for pid, device in ends:
            begin = partial(Firewall, rules(noise, f"{table}_{_word(device)}", device, share))
            firewall = begin() if pid is None else netns.inside(pid, begin)
            undo.callback(firewall.close)
        return undo.pop_all().close


def _word(device: str) -> str:
    return device.replace("-", "_")
