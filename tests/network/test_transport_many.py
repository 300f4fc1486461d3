"""A hundred objects at once between ten pairs of terminals on a real network: all arrive, intact, memory stays flat."""

from __future__ import annotations

import hashlib
import json
import os
import random
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.helpers import wait_until
from topologies.build import Rates, Terminal, build_plan
from topologies.network import Network

ROOT = Path(__file__).parents[2]
PAIRS, OBJECTS, SIZE = 10, 10, 1_000_000

# Receives, and says of each object its id and digest; sends when told so, with what only sender and test know.
TERMINAL = """
import hashlib, json, random, resource, sys, threading
from packets.transport import Endpoint, OutgoingObject
from packets.wire import PacketType

lock = threading.Lock()
def say(**data):
    with lock:
        print(json.dumps(data), flush=True)

def resident():
    words = open("/proc/self/statm").read().split()
    return int(words[1]) * resource.getpagesize()

def arrived(obj):
    say(got=obj.object_id, sha=hashlib.sha256(obj.payload).hexdigest(), resident=resident())

address = sys.argv[1]
with Endpoint(address, on_object=arrived, on_message=lambda *a: None) as endpoint:
    say(ready=address, resident=resident())
    for line in sys.stdin:
        order = json.loads(line)
        objects = [OutgoingObject(object_id=i, type=PacketType.MODEL_SHARD, owner=address, to=order["to"],
                                  payload=random.Random(i).randbytes(order["size"])) for i in order["ids"]]
        transfers = [endpoint.send_object(obj) for obj in objects]
        for transfer in transfers:
            stats = transfer.result(90)
            say(sent=stats.bytes, receiver=stats.receiver, goodput_mbps=stats.goodput_mbps, rtt_ms=stats.rtt_ms,
                losses=stats.losses, retransmissions=stats.retransmissions)
        say(done=True)
"""


class Field:
    """Ten pairs of terminals under one control centre."""

    def __init__(self, folder: Path) -> None:
        left = [Terminal(f"a{i}", switch=1) for i in range(PAIRS)]
        right = [Terminal(f"b{i}", switch=2) for i in range(PAIRS)]
        rates = Rates(access_mbps=50, lan_mbps=200)
        self.plan = build_plan("many", kas={1: [*left, *right]}, rates=rates, access_switches=1)
        self.address = {host.name: host.address for host in self.plan.hosts}
        self.folder, port = folder, _free_port()
        self.net = Network(self.plan, f"many{os.getpid()}", {1: port}, folder / "run")
        path = folder / "plan.json"
        path.write_bytes(msgspec.json.encode(self.plan.domain()))
        command = [sys.executable, "-m", "controller", "--plan", str(path), "--openflow-port", str(port)]
        self.dcc = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.ends: dict[str, subprocess.Popen[str]] = {}

    def start(self) -> None:
        self.net.start()
        wait_until(lambda: self._reached("a0", "b0"), 20, "a0 reaches b0")
        for name in self.address:
            command = [sys.executable, "-c", TERMINAL, self.address[name]]
            self.ends[name] = self.net[name].popen(
                command, cwd=str(ROOT), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )

    def _reached(self, name: str, target: str) -> bool:
        return "1 received" in self.net[name].cmd(f"ping -c1 -W1 -q {self.address[target]}")

    def tell(self, name: str, **order: Any) -> None:
        stdin = self.ends[name].stdin
        assert stdin is not None
        stdin.write(json.dumps(order) + "\n")
        stdin.flush()

    def hear(self, name: str) -> dict[str, Any]:
        stdout = self.ends[name].stdout
        assert stdout is not None
        line = stdout.readline()
        assert line, f"{name} has ended"
        found: dict[str, Any] = json.loads(line)
        return found

    def stop(self) -> None:
        for process in [*self.ends.values(), self.dcc]:
            process.terminate()
        for process in [*self.ends.values(), self.dcc]:
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(5)
        self.net.stop()


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@pytest.fixture
def field() -> Iterator[Field]:
    with tempfile.TemporaryDirectory(prefix="daitn-many-") as folder:
        found = Field(Path(folder))
        try:
            found.start()
            yield found
        finally:
            found.stop()


def ids(pair: int, turn: int) -> list[int]:
    return [0x1_0000_0000 + turn * 1000 + pair * OBJECTS + number for number in range(OBJECTS)]


def carry(field: Field, turn: int) -> tuple[list[dict[str, Any]], dict[int, str], int]:
    """Send all objects at once; return what the senders say, what arrived, and the receivers' memory at most."""
    for pair in range(PAIRS):
        field.tell(f"a{pair}", to=field.address[f"b{pair}"], size=SIZE, ids=ids(pair, turn))
    stats: list[dict[str, Any]] = []
    arrived: dict[int, str] = {}
    resident = 0
    for pair in range(PAIRS):
        for _ in range(OBJECTS):
            got = field.hear(f"b{pair}")
            assert got["got"] not in arrived, "handed over twice"
            arrived[got["got"]] = got["sha"]
            resident = max(resident, got["resident"])
        while "done" not in (said := field.hear(f"a{pair}")):
            stats.append(said)
    return stats, arrived, resident


@pytest.mark.timeout(240)
def test_a_hundred_objects_of_a_megabyte_between_ten_pairs_at_once(field: Field) -> None:
    begun = max(field.hear(name)["resident"] for name in field.ends)
    residents = []
    for turn in range(3):
        stats, arrived, resident = carry(field, turn)
        residents.append(resident)
        numbers = [number for pair in range(PAIRS) for number in ids(pair, turn)]
        wanted = {number: hashlib.sha256(random.Random(number).randbytes(SIZE)).hexdigest() for number in numbers}
        assert arrived == wanted
        assert len(stats) == PAIRS * OBJECTS
        assert all(one["sent"] == SIZE and one["rtt_ms"] > 0 and one["goodput_mbps"] > 0 for one in stats)
    grown = max(residents) - begun
    assert grown < 4 * OBJECTS * SIZE, f"receivers grew by {grown} bytes for {OBJECTS * SIZE} bytes of objects"
    assert residents[2] - residents[1] < OBJECTS * SIZE / 2, f"memory grows from turn to turn: {residents}"
