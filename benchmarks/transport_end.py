"""One end of the transport benchmark: an endpoint as an agent has it, told by lines on its standard input what to send.

    python -m benchmarks.transport_end 10.1.1.1 [IDENTITY.json DIRECTORY.json]

``send <address> <bytes> <object id>``: send an object and wait for its end.  ``run <address> <seconds> <object id>``:
keep sending for so long.  ``cpu``: say how many CPU seconds this process has used, and what its endpoint has counted.
Every answer is one line of JSON.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any

import msgspec

from packets.security.identity import Directory, Identity
from packets.security.keeper import Keeper
from packets.transport import Endpoint, OutgoingObject, Transfer
from packets.wire import PacketType

TIMEOUT_S = 300.0
WORDS = {"send": "send", "run": "run", "prepare": "prepare", "cpu": "cpu"}
LONG_BYTES = 150_000_000  # more than 20 s at 50 Mbit/s, and three of them fit the receiver's bounds
MAX_WAIT_S = 2.0


class End:
    """An endpoint and what it is told to do."""

    def __init__(self, address: str, *keys: str) -> None:
        self.arrived = 0
        self.payload = b""
        self.address = address
        guard = Keeper(Identity.load(Path(keys[0])), Directory.load(Path(keys[1]))) if keys else None
        self.endpoint = Endpoint(address, on_object=self._on_object, on_message=lambda *_: None, guard=guard)
        self.endpoint.start()

    def _on_object(self, _: object) -> None:
        self.arrived += 1

    def begin(self, to: str, size: int, object_id: str) -> Transfer:
        self.prepare(str(size))
        kind = PacketType.MODEL_SHARD
        obj = OutgoingObject(object_id=int(object_id), type=kind, payload=self.payload, owner=self.address, to=to)
        return self.endpoint.send_object(obj)

    def prepare(self, size: str) -> dict[str, Any]:
        """Make the object, which is not the transport's work."""
        if len(self.payload) != int(size):
            self.payload = os.urandom(int(size))
        return {}

    def send(self, to: str, size: str, object_id: str) -> dict[str, Any]:
        transfer = self.begin(to, int(size), object_id)
        return msgspec.structs.asdict(transfer.result(TIMEOUT_S))

    def run(self, to: str, seconds: str, object_id: str) -> dict[str, Any]:
        transfer = self.begin(to, LONG_BYTES, object_id)
        asked = time.monotonic()
        while not transfer.delivered_bytes and not transfer.done:
            time.sleep(0.001)
        begun, first = time.monotonic(), transfer.delivered_bytes
        if begun - asked > MAX_WAIT_S:  # then it was not beside the other one all the time
            raise RuntimeError(f"the transfer to {to} began {begun - asked:.1f} s late")
        time.sleep(float(seconds))
        took, delivered = time.monotonic() - begun, transfer.delivered_bytes - first
        transfer.cancel()
        return {"goodput_mbps": delivered * 8 / took / 1e6, "seconds": took}

    def cpu(self) -> dict[str, Any]:
        used = resource.getrusage(resource.RUSAGE_SELF)
        counters = msgspec.structs.asdict(self.endpoint.counters)
        return {"cpu_s": used.ru_utime + used.ru_stime, "arrived": self.arrived, **counters}


def main() -> int:
    end = End(*sys.argv[1:])
    print(json.dumps({"ready": end.address}), flush=True)
    for line in sys.stdin:
        word, *arguments = line.split()
        answer: dict[str, Any] = getattr(end, WORDS[word])(*arguments)
        print(json.dumps(answer), flush=True)
    end.endpoint.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
