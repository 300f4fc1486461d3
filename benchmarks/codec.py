"""How fast is the codec?  Packets per second of one core, beside Scapy with the same packets in the same run.

    make bench-codec                         # about 12 s
    python -m benchmarks.codec --rounds 3    # shorter, coarser

Full shards (1,408 bytes of payload; ``--payload``) are built from their field values and parsed with both checksums, by
Scapy (``packets/ai.py``: ``bytes(AI(...) / Raw(...))``; ``AI(data).refused()``), by the codec packet for packet
(``packets/wire.py``), and in batches (``packets/batch.py``). Rounds alternate between all of them; each figure is the
median of the rounds, in processor time of the measuring thread, so that a neighbour on the machine does not count.

Last line, JSON: ``encode_vs_scapy``, ``decode_vs_scapy``: how many times Scapy's rate; ``packets_per_s``: the slower of
single-packet encode and decode; ``batch_packets_per_s``: the slower of writing and parsing batches; the rest by name.
"""

from __future__ import annotations

import argparse
import gc
import random
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from benchmarks.common import finish, run_main, say
from packets.batch import GOOD, ShardTrain, parse
from packets.security.identity import Identity
from packets.security.pair_keys import Session, sender_session
from packets.wire import Flag, Header, PacketType, decode, encode, payload_room

PACKETS = 256
BATCH = 1024
ROUNDS = 15
SLICE_S = 0.08
SHARED: dict[str, Any] = {
    "object_id": 0x0012345670100001, "owner": "10.1.1.3", "transfer_id": 0xDEADBEEF, "visit": 3, "visit_limit": 16,
}  # fmt: skip

Measured = dict[str, float]


class Case:
    """One way to handle all packets once: ``run`` handles ``packets`` of them."""

    def __init__(self, name: str, packets: int, run: Callable[[], object]) -> None:
        self.name, self.packets, self.run = name, packets, run
        self.rates: list[float] = []
        self._repeat = 1

    def calibrate(self) -> None:
        """Warm up, and choose how often a slice of a round repeats."""
        self.run()
        begin = time.thread_time()
        self.run()
        self._repeat = max(1, round(SLICE_S / max(time.thread_time() - begin, 1e-6)))

    def measure(self) -> None:
        """Take the rate of one slice."""
        begin = time.thread_time()
        for _ in range(self._repeat):
            self.run()
        self.rates.append(self._repeat * self.packets / (time.thread_time() - begin))


def shards(payload: bytes, size: int) -> tuple[list[dict[str, Any]], list[bytes]]:
    """Return the field values of all shards of an object, and their payloads."""
    fields = [
        SHARED | {"shard_index": i, "shard_count": PACKETS, "offset": i * size, "total_length": len(payload),
                  "timestamp_us": 1_000_000 + i, "flags": Flag.LAST if i == PACKETS - 1 else Flag(0)}
        for i in range(PACKETS)
    ]  # fmt: skip
    return fields, [payload[i * size : (i + 1) * size] for i in range(PACKETS)]


def scapy_cases(fields: list[dict[str, Any]], bodies: list[bytes], expected: list[bytes]) -> list[Case]:
    """Return building and parsing by Scapy, seen to give the same packets."""
    from scapy.packet import Raw

    from packets.ai import AI

    values = [field | {"flags": int(field["flags"])} for field in fields]

    def build() -> list[bytes]:
        return [bytes(AI(type=1, **value) / Raw(body)) for value, body in zip(values, bodies, strict=True)]

    def dissect() -> list[str | None]:
        return [AI(data).refused() for data in expected]

    assert build() == expected and set(dissect()) == {None}
    return [Case("scapy_build", PACKETS, build), Case("scapy_parse", PACKETS, dissect)]


def codec_cases(fields: list[dict[str, Any]], bodies: list[bytes], expected: list[bytes]) -> list[Case]:
    """Return encoding and decoding packet for packet."""
    kind = PacketType.MODEL_SHARD

    def build() -> None:
        for field, body in zip(fields, bodies, strict=True):
            encode(Header(type=kind, **field), body)

    def dissect() -> None:
        for data in expected:
            decode(data)

    return [Case("encode", PACKETS, build), Case("decode", PACKETS, dissect)]


def batch_cases(size: int, seal: str = "") -> list[Case]:
    """Return writing and parsing a batch, plain or sealed (``word``, ``mac``), seen to give packets."""
    session = _session()
    seals: dict[str, dict[str, Any]] = {"": {}, "word": {"words": session.words}, "mac": {"mac": session.send_key}}
    payload = random.Random(2).randbytes(BATCH * size)
    train = ShardTrain(Header(type=PacketType.MODEL_SHARD, **SHARED), payload, size, **seals[seal])
    buffer, every = bytearray(train.stride * train.count), np.arange(train.count)
    frames = np.frombuffer(buffer, np.uint8).reshape(train.count, train.stride)
    lengths = np.full(train.count, train.stride)

    def write() -> None:
        train.write(buffer, 0, every, timestamp_us=1_000_000, high=0)

    def read() -> bool:
        parsed = parse(frames, lengths)
        right = (parsed.verdict == GOOD).all()
        if seal == "word":
            right &= parsed.words_right(session.words, every).all()
        elif seal == "mac":
            right &= parsed.macs_right(session.send_key, every).all()
        return bool(right)

    write()
    assert read()
    assert decode(frames[-1].data)[1] == payload[-size:]
    name = f"{seal}_batch" if seal else "batch"
    return [Case(f"{name}_write", train.count, write), Case(f"{name}_parse", train.count, read)]


def _session() -> Session:
    """Return a session as a transfer has it."""
    one, two = X25519PrivateKey.generate(), X25519PrivateKey.generate()
    peer = Identity.new("a", "data", SHARED["owner"], 1).certificate
    return sender_session(one, two.public_key().public_bytes_raw(), SHARED["object_id"], 1, peer, 2)


def measure(size: int, rounds: int, *, scapy: bool = True) -> Measured:
    """Return the median rate of every case, packets per second of a core."""
    payload = random.Random(1).randbytes(PACKETS * size)
    fields, bodies = shards(payload, size)
    kind = PacketType.MODEL_SHARD
    expected = [encode(Header(type=kind, **one), body) for one, body in zip(fields, bodies, strict=True)]
    cases = [*codec_cases(fields, bodies, expected), *batch_cases(size)]
    cases += batch_cases(size, "word") + batch_cases(size, "mac")
    if scapy:
        cases += scapy_cases(fields, bodies, expected)
    for case in cases:
        case.calibrate()
    for done in range(rounds):
        gc.collect()
        for case in cases:
            case.measure()
        say(f"round {done + 1}/{rounds}: " + ", ".join(f"{case.name} {case.rates[-1]:,.0f}/s" for case in cases))
    return {case.name: statistics.median(case.rates) for case in cases}


def main() -> int:
    """Measure and print the last line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--payload", type=int, default=payload_room(), help="bytes of payload a packet (default 1408)")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"rounds (default {ROUNDS})")
    chosen = parser.parse_args()
    if not 1 <= chosen.payload <= 9000 or chosen.rounds < 1:
        parser.error("--payload is 1 to 9000 bytes, --rounds at least 1")
    rates = measure(chosen.payload, chosen.rounds)
    finish(
        {
            "benchmark": "codec",
            "encode_vs_scapy": round(rates["encode"] / rates["scapy_build"], 1),
            "decode_vs_scapy": round(rates["decode"] / rates["scapy_parse"], 1),
            "packets_per_s": round(min(rates["encode"], rates["decode"])),
            "batch_packets_per_s": round(min(rates["batch_write"], rates["batch_parse"])),
            "payload_bytes": chosen.payload,
            "batch": BATCH,
            **{f"{name}_per_s": round(rate) for name, rate in rates.items()},
        }
    )
    return 0


if __name__ == "__main__":
    run_main(main)
