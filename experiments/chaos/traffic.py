"""Ordinary datagrams between all terminals while faults happen: who reaches whom, how often, by how many gateways.

One socket in each terminal's namespace, all served by one thread of ours: no process at a terminal that could be part
of the trouble. A datagram carries who sent it to whom, its number and a digest of itself; what comes twice, elsewhere,
or altered is a violation.
"""

from __future__ import annotations

import contextlib
import hashlib
import selectors
import socket
import struct
import threading
import time
from collections import OrderedDict
from functools import partial
from typing import Final

from experiments.chaos.oracle import START_TTL, What
from experiments.testbed.testbed import Bed
from topologies.machine import netns

PORT: Final = 40123
FILL: Final = bytes(600)
HEAD: Final = struct.Struct("!HHQ")
DIGEST_BYTES: Final = 16
PERIOD_S: Final = 0.005  # between two datagrams of all
REMEMBERED: Final = 20_000
ROUND_S: Final = 0.25
IP_RECVTTL: Final = 12  # linux/in.h; Python has no name for it


class Traffic:
    """Sends from ``start`` to ``stop``. ``sent``, ``received``: datagrams; ``found``: what must not be."""

    def __init__(self, bed: Bed) -> None:
        self.hosts = [h for h in bed.plan.hosts if h.role != "host"]
        self._most_gateways = len(bed.plan.kas_numbers) + 1
        self.sent = self.received = 0
        self.found: dict[str, What] = {}
        self._heard: dict[tuple[int, int], float] = {}
        self._numbers: OrderedDict[int, None] = OrderedDict()
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._sockets = [netns.inside(bed.network.hosts[h.name].pid, partial(_socket, h.address)) for h in self.hosts]
        self._selector = selectors.DefaultSelector()
        for index, one in enumerate(self._sockets):
            self._selector.register(one, selectors.EVENT_READ, index)
        self._threads = [
            threading.Thread(target=work, name=f"traffic-{work.__name__}", daemon=True)
            for work in (self._receive, self._send)
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(5.0)
        for one in self._sockets:
            one.close()
        self._selector.close()

    def pairs_cut(self, timeout_s: float, away: set[str] | None = None) -> list[str]:
        """Return the pairs of terminals that do not reach each other, though all are asked until the time is up."""
        since_s = time.monotonic()
        there = [i for i, h in enumerate(self.hosts) if h.name not in (away or set())]
        missing = {(a, b) for a in there for b in there if a != b}
        while missing and not self._over.is_set():
            for a, b in sorted(missing):
                self._one(a, b)
            time.sleep(ROUND_S)
            with self._lock:
                missing = {pair for pair in missing if self._heard.get(pair, 0.0) < since_s}
            if time.monotonic() > since_s + timeout_s:
                break
        return [f"{self.hosts[a].name} to {self.hosts[b].name}" for a, b in sorted(missing)]

    def _send(self) -> None:
        count, turn = len(self.hosts), 0
        while not self._over.wait(PERIOD_S):
            turn += 1
            a = turn % count
            self._one(a, (a + 1 + turn // count % (count - 1)) % count)

    def _one(self, a: int, b: int) -> None:
        with self._lock:
            self.sent += 1
            body = HEAD.pack(a, b, self.sent) + FILL
        with contextlib.suppress(OSError):  # its link is down, its queue is full
            self._sockets[a].sendto(body + _digest(body), (self.hosts[b].address, PORT))

    def _receive(self) -> None:
        while not self._over.is_set():
            for key, _ in self._selector.select(0.2):
                with contextlib.suppress(OSError):
                    while True:
                        data, ancillary, _, _ = self._sockets[key.data].recvmsg(2048, 64)
                        self._take(key.data, data, ancillary)

    def _take(self, at: int, data: bytes, ancillary: list[tuple[int, int, bytes]]) -> None:
        body, digest = data[:-DIGEST_BYTES], data[-DIGEST_BYTES:]
        name = self.hosts[at].name
        if len(body) < HEAD.size or _digest(body) != digest:
            self.found[f"{name} got an ordinary datagram that was altered"] = "bad packet"
            return
        a, b, number = HEAD.unpack_from(body)
        ttl = next((struct.unpack("i", d[:4])[0] for level, kind, d in ancillary if kind == socket.IP_TTL), START_TTL)
        with self._lock:
            self.received += 1
            self._heard[a, b] = time.monotonic()
            twice = number in self._numbers
            self._numbers[number] = None
            while len(self._numbers) > REMEMBERED:
                self._numbers.popitem(last=False)
        pair = f"{self.hosts[a].name} to {self.hosts[b].name}"
        if at != b:
            self.found[f"datagram {number} from {pair} came to {name}"] = "misdelivery"
        if twice:
            self.found[f"datagram {number} from {pair} came twice"] = "loop"
        if ttl < START_TTL - self._most_gateways:
            self.found[f"datagram {number} from {pair} passed {START_TTL - ttl} gateways"] = "loop"


def _digest(body: bytes) -> bytes:
    return hashlib.blake2b(body, digest_size=DIGEST_BYTES).digest()


def _socket(address: str) -> socket.socket:
    """Return a terminal's socket; call it in the terminal's namespace."""
    one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    one.setsockopt(socket.IPPROTO_IP, IP_RECVTTL, 1)
    one.setblocking(False)
    one.bind((address, PORT))
    return one
