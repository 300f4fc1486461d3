"""The fuzzing targets hold on what they start from, on noise, and on damage: a smoke test of ``make fuzz``."""

from __future__ import annotations

import random
import re
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from packets.transfer.receiver import MAX_FEEDS
from packets.wire import Flag, Header, PacketType, decode, encode
from tests.fuzz.targets import DIGESTS, OBJECTS, TARGETS, Assembler, bounded, seeds


@pytest.fixture(scope="module", autouse=True)
def traced() -> Iterator[None]:
    """Without it the bounds of memory are not looked at."""
    tracemalloc.start()
    yield
    tracemalloc.stop()


@pytest.mark.parametrize("name", TARGETS)
@settings(max_examples=60, deadline=None)
@given(data=st.binary(max_size=600))
def test_noise(name: str, data: bytes) -> None:
    TARGETS[name](data)


@pytest.mark.parametrize("name", TARGETS)
def test_seeds_and_damaged_seeds(name: str) -> None:
    rng = random.Random(7)
    for seed in seeds(name):
        TARGETS[name](seed)
        for _ in range(20):
            damaged = bytearray(seed)
            for _ in range(rng.randint(1, 4)):
                damaged[rng.randrange(len(damaged))] = rng.choice([0, 1, 127, 128, 255, rng.randrange(256)])
            TARGETS[name](bytes(damaged))


def test_the_fuzzer_keeps_no_array_that_a_comparison_made(tmp_path: Path) -> None:
    """Atheris alone would: 2.6 KB an input, 31 MB here."""
    pytest.importorskip("atheris")
    for number, seed in enumerate(seeds("batch")):
        (tmp_path / str(number)).write_bytes(seed)
    child = [sys.executable, "-m", "tests.fuzz.child", "batch", "-runs=12000", "-print_final_stats=1", str(tmp_path)]
    done = subprocess.run(child, cwd=Path(__file__).parents[3], capture_output=True, text=True, timeout=60, check=True)
    started, peak = (
        int(re.search(word, done.stderr)[1]) for word in (r"INITED.* rss: (\d+)Mb", r"peak_rss_mb:\s+(\d+)")
    )
    assert peak < started + 15, (started, peak)


# --- what was found ---------------------------------------------------------------------------------------------------


def launch_of(total: int, shards: int, **more: object) -> Header:
    launch = Header(
        type=PacketType.MODEL_SHARD, flags=Flag.LAUNCH, object_id=1, shard_count=shards, total_length=total,
        digest=DIGESTS[OBJECTS.index(next(one for one in OBJECTS if len(one) == total))],
    )  # fmt: skip
    return msgspec.structs.replace(launch, **more)


def take(under_test: Assembler, header: Header, payload: bytes = b"") -> None:
    again, body = decode(encode(header, payload))
    under_test.receiving.on_packet(again, body, ("10.1.1.1", 55831), under_test.now, under_test.now_us)


def test_the_shard_of_an_empty_object_that_nobody_took_yet() -> None:
    under_test = Assembler()
    under_test.accept = False
    take(under_test, launch_of(0, 1))
    take(under_test, launch_of(0, 1, flags=Flag.LAST, digest=None))
    under_test.check()


def test_a_shard_of_another_object_does_not_teach_the_size_of_shards() -> None:
    under_test, payload = Assembler(), OBJECTS[2]
    take(under_test, launch_of(700, 5))
    strange = {"total_length": 2**62 + 1, "offset": 2**62, "shard_index": 1, "digest": None, "flags": Flag(0)}
    take(under_test, launch_of(700, 5, **strange), b"x")
    for index in range(5):
        body = payload[index * 150 : index * 150 + 150]
        take(under_test, launch_of(700, 5, flags=Flag(0), digest=None, shard_index=index, offset=index * 150), body)
    assert not under_test.receiving.busy, "the object is whole and handed over"


def test_launches_of_one_object_without_end_take_no_memory_without_end() -> None:
    under_test = Assembler()
    for transfer in range(1000):
        take(under_test, launch_of(700, 3, transfer_id=transfer))
    assert len(under_test.receiving._open) <= MAX_FEEDS
    under_test.check()


def test_the_bound_of_memory_can_fail() -> None:
    with pytest.raises(AssertionError, match="declared bound"), bounded(1000):
        bytearray(100_000)
