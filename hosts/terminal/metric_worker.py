"""``python -m hosts.terminal.metric_worker``: metrics of one's own in a process of its own.

Standard input: a line of JSON ``{name: file.py:function}``, then a line for each round, what the terminal knows of
itself. Standard output: a line for each function loaded, then in each round one for each of them, in the order of the
first line. What the functions print goes to standard error. It ends with who asks.
"""

from __future__ import annotations

import ctypes
import numbers
import os
import signal
import sys
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO

import msgspec

from packets.terms import MAX_FIGURE, Figure
from topologies.own.files import own_function, told

PR_SET_PDEATHSIG = 1
MAX_FAULT = 300


class Said(msgspec.Struct, omit_defaults=True):
    """What came of a function: a figure, or a fault in words."""

    value: Figure = 0.0
    fault: str = ""


class BadMetric(Exception):
    """A function of one's own cannot be had."""


def measure(function: Callable[..., Any], about: Mapping[str, Any]) -> Said:
    """Ask a function; whatever it does short of hanging is told."""
    try:
        found = function(about)
    except (Exception, SystemExit) as error:
        code = getattr(function, "__code__", None)
        return Said(fault=told(error, code.co_filename if code else "")[:MAX_FAULT])
    if isinstance(found, bool) or not isinstance(found, numbers.Real):
        return Said(fault=f"it returned {repr(found)[:60]}, which is no number")
    value = float(found)
    if not abs(value) <= MAX_FIGURE:
        return Said(fault=f"it returned {value!r}, which is no number within {MAX_FIGURE:g}")
    return Said(value=value)


def _load(name: str, source: str) -> tuple[Callable[..., Any] | None, Said]:
    try:
        return own_function(f"metric {name}", source, BadMetric), Said(value=0.0)
    except BadMetric as error:
        return None, Said(fault=str(error)[:MAX_FAULT])


def _say(out: BinaryIO, said: Said) -> None:
    out.write(msgspec.json.encode(said) + b"\n")
    out.flush()


def main() -> None:
    """Load the functions and ask them, round for round, until nobody wants to know any more."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    functions = []
    for name, source in msgspec.json.decode(sys.stdin.buffer.readline(), type=dict[str, str]).items():
        function, said = _load(name, source)
        functions += [function] if function else []
        _say(out, said)
    for line in sys.stdin.buffer:
        about = msgspec.json.decode(line, type=dict[str, Any])
        for function in functions:
            _say(out, measure(function, dict(about)))


if __name__ == "__main__":
    main()
