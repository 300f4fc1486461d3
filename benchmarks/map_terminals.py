"""Many light terminals in one process, for ``benchmarks.map``: no PyTorch, one socket per network namespace.

Each registers, then changes at random moments (exponential gaps) and reports at once, as ``hosts.terminal.reporter``
does: one report under way at a time, what changes meanwhile goes with the next, a pause where answers take long
(``hosts.terminal.pace``), a report without an answer is repeated.  Reports are AI packets from the terminal's own
namespace to the label of the DCC.

    python -m benchmarks.map_terminals HOSTS.json SECONDS CHANGES_PER_S SEED   # [{name, role, address, pid}]

Prints two lines of JSON: when all have registered, and at the end what was sent.
"""

from __future__ import annotations

import ctypes
import heapq
import json
import math
import os
import random
import select
import socket
import sys
import time
from pathlib import Path
from typing import Any

from hosts.terminal.pace import Pace
from packets.errors import PacketError
from packets.labels import AI_PORT, DCC_ADDRESS
from packets.messages import Ack, Message, Register, Report, decode_message, encode_message
from packets.wire import Header, PacketType, TrafficClass, decode, encode

CLONE_NEWNET = 0x40000000
REGISTER_S = 60.0


class Light:
    """One terminal: a socket in its namespace, and what it has not said yet."""

    def __init__(self, host: dict[str, Any], own_namespace: int) -> None:
        self.name, self.role, self.address = host["name"], host["role"], host["address"]
        self.socket = socket_in(host["pid"], own_namespace, self.address)
        self.socket.connect((DCC_ADDRESS, AI_PORT))  # answers come from there: it takes those and no others
        self.value = self.sequence = self.number = 0
        self.changed_unix_s = 0.0
        self.waiting: bytes | None = None
        self.asked_s = self.waits_since_s = 0.0
        self.pace = Pace()
        self.registered = False

    def change(self) -> None:
        """Something changed at this terminal, now."""
        self.value += 1
        if not self.changed_unix_s:
            self.changed_unix_s = time.time()

    def may_report(self, now_s: float) -> float:
        """Return the seconds until a report may go out (0: now); ``inf``: nothing to say, or one is under way."""
        if self.waiting is not None or not self.changed_unix_s:
            return math.inf
        return self.pace.pause_s(now_s)

    def report(self) -> None:
        """Say what changed since the last report."""
        self.sequence += 1
        said = Report(
            name=self.name, sequence=self.sequence, attributes={"queue": self.value}, changed_unix_s=self.changed_unix_s
        )
        self.changed_unix_s = 0.0
        self.send(said)

    def register(self) -> None:
        """Join."""
        self.send(Register(name=self.name, role=self.role, address=self.address, attributes={"queue": 0}))

    def send(self, message: Message) -> None:
        """Send a request, and keep it for repeating."""
        self.number += 1
        payload = encode_message(message)
        header = Header(
            type=PacketType.TELEMETRY, traffic_class=TrafficClass.CONTROL, owner=self.address,
            transfer_id=self.number, total_length=len(payload),
        )  # fmt: skip
        self.waiting, self.asked_s = encode(header, payload), time.monotonic()
        self.waits_since_s = self.asked_s
        self.socket.send(self.waiting)

    def hear(self) -> bool:
        """Read one answer; True when it is the one that is waited for."""
        try:
            header, payload = decode(self.socket.recv(2048))
        except (OSError, PacketError):
            return False
        if self.waiting is None or header.transfer_id != self.number:
            return False
        self.waiting = None
        self.pace.answered(self.asked_s, time.monotonic())
        self.registered = self.registered or isinstance(decode_message(payload), Ack)
        return True


def socket_in(pid: int, own_namespace: int, address: str) -> socket.socket:
    """Return a UDP socket that lives in the namespace of a process; this thread is back home after it."""
    libc = ctypes.CDLL(None, use_errno=True)
    there = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
    try:
        if libc.setns(there, CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"setns to the namespace of process {pid}")
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        made.bind((address, AI_PORT))
    finally:
        libc.setns(own_namespace, CLONE_NEWNET)
        os.close(there)
    made.setblocking(False)
    return made


class Crowd:
    """All terminals on one epoll."""

    def __init__(self, hosts: list[dict[str, Any]]) -> None:
        own = os.open("/proc/self/ns/net", os.O_RDONLY)
        self.lights = [Light(host, own) for host in hosts]
        self.by_fd = {light.socket.fileno(): light for light in self.lights}
        self.epoll = select.epoll()
        for fd in self.by_fd:
            self.epoll.register(fd, select.EPOLLIN)
        self.changes = self.reports = self.repeats = 0
        self.due: list[tuple[float, int]] = []  # next changes: (when, terminal)
        self.pauses: list[tuple[float, int]] = []  # ends of pauses: (when, socket); one too many does no harm

    def register(self) -> None:
        """Register all, some at a time; raises ``TimeoutError`` when the DCC does not take them."""
        end = time.monotonic() + REGISTER_S
        for start in range(0, len(self.lights), 50):
            batch = self.lights[start : start + 50]
            for light in batch:
                light.register()
            while not all(light.registered for light in batch):
                if time.monotonic() > end:
                    raise TimeoutError(f"{sum(not x.registered for x in self.lights)} terminals did not register")
                self._poll(0.05)
                self._repeat()

    def run(self, seconds: float, changes_per_s: float, seed: int) -> None:
        """Change and report for some seconds."""
        rng = random.Random(seed)
        began = time.monotonic()
        self.due = [(began + rng.expovariate(changes_per_s), i) for i in range(len(self.lights))]
        heapq.heapify(self.due)
        tidy = began + 0.1
        while (now := time.monotonic()) < began + seconds:
            self._change(now, rng, changes_per_s)
            self._pause_ends(now)
            first = min(self.due[0][0], self.pauses[0][0] if self.pauses else math.inf)
            self._poll(max(0.0, min(first - time.monotonic(), 0.05)))
            if now > tidy:
                self._repeat()
                tidy = now + 0.1
        self.reports = sum(light.sequence for light in self.lights)

    def _change(self, now: float, rng: random.Random, changes_per_s: float) -> None:
        while self.due[0][0] <= now:
            at, i = self.due[0]
            heapq.heapreplace(self.due, (at + rng.expovariate(changes_per_s), i))
            self.changes += 1
            self.lights[i].change()
            self._push(self.lights[i])

    def _push(self, light: Light) -> None:
        """Have a terminal report what it has to say: now, or when its pause ends."""
        now = time.monotonic()
        wait_s = light.may_report(now)
        if wait_s == 0:
            light.report()
        elif wait_s < math.inf:
            heapq.heappush(self.pauses, (now + wait_s, light.socket.fileno()))

    def _pause_ends(self, now: float) -> None:
        while self.pauses and self.pauses[0][0] <= now:
            self._push(self.by_fd[heapq.heappop(self.pauses)[1]])

    def _poll(self, timeout_s: float) -> None:
        for fd, _ in self.epoll.poll(timeout_s):
            light = self.by_fd[fd]
            if light.hear():
                self._push(light)

    def _repeat(self) -> None:
        now = time.monotonic()
        for light in self.lights:
            if light.waiting is not None and now - light.waits_since_s > light.pace.patience_s:
                self.repeats += 1
                light.waits_since_s = now
                light.socket.send(light.waiting)


def main(arguments: list[str]) -> int:
    """Be the terminals."""
    file, seconds, changes_per_s, seed = arguments
    crowd = Crowd(json.loads(Path(file).read_text()))
    crowd.register()
    print(json.dumps({"registered": len(crowd.lights)}), flush=True)
    crowd.run(float(seconds), float(changes_per_s), int(seed))
    said = {"changes": crowd.changes, "reports": crowd.reports, "repeats": crowd.repeats}
    print(json.dumps(said | {"cpu_s": round(time.process_time(), 2)}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
