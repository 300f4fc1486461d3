"""One target under atheris: ``python -m tests.fuzz.child TARGET [libFuzzer options] CORPUS``."""

from __future__ import annotations

import itertools
import sys
import tracemalloc
from collections.abc import Callable

import atheris

with atheris.instrument_imports(include=["packets", "controller.border"]):
    from tests.fuzz.targets import TARGETS

TRACED = 8  # tracing allocations takes five times the time: every eighth input is enough to see a pattern


def sometimes_traced(target: Callable[[bytes], None]) -> Callable[[bytes], None]:
    """Return the target with its bound of memory measured for the first input, and every eighth."""
    numbers = itertools.count()

    def run(data: bytes) -> None:
        if next(numbers) % TRACED:
            target(data)
            return
        tracemalloc.start()
        target(data)
        tracemalloc.stop()

    return run


def main() -> None:
    """Fuzz until libFuzzer's limits, or the first finding."""
    target = TARGETS[sys.argv.pop(1)]
    atheris.Setup(sys.argv, sometimes_traced(target))
    atheris.Fuzz()


if __name__ == "__main__":
    main()
