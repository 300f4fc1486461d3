"""The fuzzing targets hold on what they start from, on noise, and on damage: a smoke test of ``make fuzz``."""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.targets import TARGETS, bounded, seeds


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


def test_the_bound_of_memory_can_fail() -> None:
    with pytest.raises(AssertionError, match="declared bound"), bounded(1000):
        bytearray(100_000)
