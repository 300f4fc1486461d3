"""One target under atheris: ``python -m tests.fuzz.child TARGET [libFuzzer options] CORPUS``.

Two leaks that are not ours are kept from filling the memory (docs/chaos.md has the evidence): atheris 3.0.0 never
frees the result of a comparison that it watches, and CPython 3.11 keeps at each ``tracemalloc.stop()`` some 32 bytes
for every line that allocated.
"""

from __future__ import annotations

import itertools
import operator
import sys
import tracemalloc
from collections.abc import Callable
from typing import Any

import atheris
import numpy as np
from atheris.version_dependent import CMP_OP_SHIFT_AMOUNT

TRACED, STRETCH = (
    8,
    4096,
)  # tracing takes five times the time: one stretch of inputs in eight shows a pattern
COMPARE = (operator.lt, operator.le, operator.eq, operator.ne, operator.gt, operator.ge)

with atheris.instrument_imports(include=["packets", "controller.border"]):
    from tests.fuzz.targets import TARGETS


def compare_arrays_unwatched() -> None:
    """Let atheris watch no comparison of arrays: it learns nothing of them, and would keep the array that results."""
    watched = atheris._trace_cmp

    def compare(left: Any, right: Any, how: int, place: int, constant: bool) -> Any:
        if type(left) is np.ndarray or type(right) is np.ndarray:
            return COMPARE[how >> CMP_OP_SHIFT_AMOUNT](left, right)
        return watched(left, right, how, place, constant)  # True and False are kept, which costs nothing

    atheris._trace_cmp = compare  # instrumented code looks it up at each comparison


def sometimes_traced(target: Callable[[bytes], None]) -> Callable[[bytes], None]:
    """Return the target with its bound of memory measured for the first stretch of inputs, and every eighth."""
    numbers = itertools.count()

    def run(data: bytes) -> None:
        number = next(numbers)
        if number == 0:
            compare_arrays_unwatched()  # not before: Fuzz() puts atheris's own there
        place = number % (TRACED * STRETCH)
        if place == 0:
            tracemalloc.start()
        elif place == STRETCH:
            tracemalloc.stop()
        target(data)

    return run


def main() -> None:
    """Fuzz until libFuzzer's limits, or the first finding."""
    target = TARGETS[sys.argv.pop(1)]
    atheris.Setup(sys.argv, sometimes_traced(target))
    atheris.Fuzz()


if __name__ == "__main__":
    main()
