"""One end of the flood benchmark: an endpoint with its keys, as an agent has it, told by lines on its standard input.

    python -m benchmarks.flood_end 10.1.1.1 dcc1     (first line of input: {"keys": ..., "directory": ...})

``begin <address> <bytes> <object id>``: launch an object; answers when its rendezvous did, with what an onlooker has
seen of it.  ``finish``: wait for its end.  ``counts``: what this endpoint has refused, by reason.  ``ask <n>``: put
n requests to the DCC, one after the other.  ``lie <seconds> <other>``: report for somebody else, and what cannot be.
Every answer is one line of JSON.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import resource
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec

from packets.errors import TransportError
from packets.labels import DCC_ADDRESS
from packets.messages import Refused, Register, Report, decode_message, encode_message
from packets.security.identity import Directory, Identity
from packets.security.keeper import Keeper
from packets.transport import Endpoint, OutgoingObject, Transfer
from packets.wire import Header, PacketType

TIMEOUT_S = 120.0
REQUEST_S = 2.0
COMMANDS = ("begin", "finish", "counts", "ask", "lie")
ABSURD = {"NaN": math.nan, "infinity": math.inf, "1e308": 1e308, "negative": -1.0}


class Onlooker(Keeper):
    """A keeper that remembers the last launch: what somebody on the path could have written down."""

    launched = b""

    def launch(self, obj: OutgoingObject, header: Header) -> bytes:
        self.launched = super().launch(obj, header)
        return self.launched


class End:
    """An endpoint and what it is told to do."""

    def __init__(self, address: str, dcc: str, told: dict[str, str]) -> None:
        identity, directory = Identity.from_json(told["keys"]), Directory.load(Path(told["directory"]))
        self.keeper = Onlooker(identity, directory, aliases={DCC_ADDRESS: dcc})
        self.arrived, self.payload = 0, b""
        self.address, self.transfer = address, Transfer("none", 0)
        self.endpoint = Endpoint(address, on_object=self._on_object, on_message=lambda *_: None, guard=self.keeper)
        self.endpoint.start()

    def _on_object(self, _: object) -> None:
        self.arrived += 1

    def begin(self, to: str, size: str, object_id: str) -> dict[str, Any]:
        if len(self.payload) != int(size):
            self.payload = os.urandom(int(size))
        self.transfer = self.endpoint.send_object(
            OutgoingObject(
                object_id=int(object_id), type=PacketType.MODEL_SHARD, payload=self.payload, owner=self.address, to=to
            )
        )
        end = time.monotonic() + TIMEOUT_S
        while not self.transfer.delivered_bytes and not self.transfer.done and time.monotonic() < end:
            time.sleep(0.001)
        return {"transfer_id": self.transfer.transfer_id, "launch": self.keeper.launched.hex()}

    def finish(self) -> dict[str, Any]:
        try:
            return msgspec.structs.asdict(self.transfer.result(TIMEOUT_S))
        except TransportError as error:
            return {"failed": str(error)}

    def counts(self) -> dict[str, Any]:
        used = resource.getrusage(resource.RUSAGE_SELF)
        return {
            "reasons": dict(self.endpoint.refusals), "arrived": self.arrived, "pid": os.getpid(),
            "cpu_s": used.ru_utime + used.ru_stime, "rss_mib": used.ru_maxrss / 1024,
            **msgspec.structs.asdict(self.endpoint.counters),
        }  # fmt: skip

    def ask(self, count: str) -> dict[str, Any]:
        """Register with the DCC again and again; returns how long each answer took (None: none came)."""
        own = self.keeper.own
        message = encode_message(Register(name=own.name, role=own.role, address=own.address))
        took_ms: list[float | None] = []
        for _ in range(int(count)):
            begun = time.perf_counter()
            try:
                self.endpoint.request(message, to=DCC_ADDRESS, type=PacketType.TELEMETRY, timeout_s=REQUEST_S)
                took_ms.append(round((time.perf_counter() - begun) * 1e3, 2))
            except TransportError:
                took_ms.append(None)
        return {"took_ms": took_ms}

    def lie(self, seconds: str, other: str) -> dict[str, Any]:
        """Report, as fast as answers come, what is not so; returns how many lies were refused, and taken."""
        name, begun, sequence = self.keeper.own.name, time.monotonic(), 0
        refused, taken = Counter[str](), Counter[str]()
        lies = {"another's name": (other, 1.0)} | {kind: (name, figure) for kind, figure in ABSURD.items()}
        while time.monotonic() - begun < float(seconds):
            self.ask("1")  # who says nothing that is so falls silent, and is heard no more
            for kind, (who, figure) in lies.items():
                sequence += 1
                message = Report(name=who, sequence=sequence, attributes={"compute_samples_per_s": figure})
                with contextlib.suppress(TransportError):
                    _, answer = self.endpoint.request(
                        encode_message(message), to=DCC_ADDRESS, type=PacketType.TELEMETRY, timeout_s=REQUEST_S
                    )
                    (refused if isinstance(decode_message(answer), Refused) else taken)[kind] += 1
        return {"refused": dict(refused), "taken": dict(taken), "seconds": time.monotonic() - begun}


def main() -> int:
    end = End(sys.argv[1], sys.argv[2], json.loads(sys.stdin.readline()))
    print(json.dumps({"ready": end.address}), flush=True)
    for line in sys.stdin:
        word, *arguments = line.split()
        if word in COMMANDS:
            print(json.dumps(getattr(end, word)(*arguments)), flush=True)
    end.endpoint.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
