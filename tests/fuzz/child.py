"""One target under atheris: ``python -m tests.fuzz.child TARGET [libFuzzer options] CORPUS``."""

from __future__ import annotations

import sys
import tracemalloc

import atheris

with atheris.instrument_imports(include=["packets"]):
    from tests.fuzz.targets import TARGETS


def main() -> None:
    """Fuzz until libFuzzer's limits, or the first finding."""
    target = TARGETS[sys.argv.pop(1)]
    tracemalloc.start()
    atheris.Setup(sys.argv, target)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
