"""Light terminals for ``benchmarks.control``: the agents' own reporting code (``hosts.terminal.reporter``), no PyTorch.

A terminal says what a data node or compute facility says. What changes of it is its queue and its load, at random
moments. Where its words go is ``Requests``: through sockets of its namespace, or straight into a control centre.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from typing import Any

from hosts.terminal.dcc_line import DccLine, Requests
from hosts.terminal.reporter import Reporter
from packets.events import Emit, silent
from packets.messages import Ack, decode_message, encode_message
from packets.wire import Header, PacketType, TrafficClass, decode, encode
from topologies.plan import HostPlan, Role

CHANGES_PER_S = 0.1
GROUPS = [f"department{i}" for i in range(8)]
FRAME_BYTES = 14 + 20 + 8  # Ethernet, IP, UDP
ONE_IN = 16  # terminals that are compute facilities; the others are data nodes


def role_of(number: int) -> Role:
    """Return the role of a terminal by its number (from 0)."""
    return "data" if number % ONE_IN else "compute"


class Vitals:
    """What one terminal could say of itself at any moment."""

    def __init__(self, host: HostPlan, seed: int, changes_per_s: float, now_s: float) -> None:
        self._rng = random.Random(f"{seed}/{host.name}")
        rng = self._rng
        self._rate, self._next_s = changes_per_s, now_s + rng.expovariate(changes_per_s)
        self._said: dict[str, Any] = {
            "compute_samples_per_s": round(10 ** rng.uniform(2.3, 3.3), 1),
            "memory_mib": round(rng.uniform(500, 8000), 1),
            "queue": 0,
            "load": 0.0,
            "reachable": True,
        }
        if host.role == "data":
            weights = [rng.expovariate(1.0) for _ in GROUPS]
            shares = {g: round(w / sum(weights), 4) for g, w in zip(GROUPS, weights, strict=True)}
            self._said |= {
                "samples": rng.randrange(100, 2000),
                "group_shares": shares,
                "epsilon": 1.0,
                "quality": round(rng.uniform(0.5, 1.0), 3),
                "data_age_s": 0.0,
                "data_may_move": False,
            }

    def at(self, now_s: float) -> dict[str, Any]:
        """Return the attributes, with what has changed by now."""
        while now_s >= self._next_s:
            self._next_s += self._rng.expovariate(self._rate)
            self._said = self._said | {"queue": self._rng.randrange(4), "load": round(self._rng.random(), 2)}
        return self._said


class Light:
    """One terminal as its reporter sees it."""

    def __init__(self, host: HostPlan, requests: Requests, clock: Callable[[], float] = time.monotonic) -> None:
        self.plan, self.clock = host, clock
        self.dcc = DccLine(requests, host.kas)
        self.emit: Emit = silent
        self.stopping, self.changed = threading.Event(), threading.Event()
        self.changed_unix_s = 0.0

    @property
    def name(self) -> str:
        return self.plan.name


def reporter_of(
    host: HostPlan, requests: Requests, seed: int, clock: Callable[[], float], changes_per_s: float = CHANGES_PER_S
) -> Reporter:
    """Return the reporter of a light terminal."""
    vitals = Vitals(host, seed, changes_per_s, clock())
    return Reporter(Light(host, requests, clock), lambda: vitals.at(clock()))


class Direct:
    """The way to a control centre without a network: packets are made, read and counted as they would be on a wire.

    ``taken(message, frame bytes)``: what the control centre does with it; ``spent_s``: how long reading and that took.
    """

    def __init__(self, taken: Callable[[Any, int], None]) -> None:
        self.taken, self.bytes, self.spent_s, self._number = taken, 0, 0.0, 0

    def request(
        self, payload: bytes, *, to: str, type: PacketType, timeout_s: float = 10, object_id: int = 0
    ) -> tuple[Header, bytes]:
        self._number = (self._number + 1) & 0xFFFF_FFFF
        packet = framed(payload, type, self._number)
        size = len(packet) + FRAME_BYTES
        begun = time.perf_counter()
        header, heard = decode(packet)
        self.taken(decode_message(heard), size)
        self.spent_s += time.perf_counter() - begun
        self.bytes += size
        answer = framed(encode_message(Ack()), type, self._number)
        return header, bytes(decode(answer)[1])


def framed(payload: bytes, type: PacketType, number: int) -> bytes:
    """Return the AI packet of a control message."""
    header = Header(
        type=type, traffic_class=TrafficClass.CONTROL, transfer_id=number, total_length=len(payload),
    )  # fmt: skip
    return encode(header, payload)
