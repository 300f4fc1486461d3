"""``python -m controller.plugins.worker ENGINE SPEC``: an engine of one's own in a process of its own.

It reads questions on standard input and writes answers on standard output, each a frame of four bytes of length and
MessagePack. What the engine prints goes to standard error. It ends with who asks.
"""

from __future__ import annotations

import ctypes
import os
import random
import signal
import sys
from collections.abc import Callable
from typing import Any, BinaryIO

import msgspec

from controller.errors import PluginError
from controller.plugins.contracts import CONTRACTS
from controller.plugins.loading import load
from controller.values.errors import EngineError
from topologies.own.files import told

PR_SET_PDEATHSIG = 1
MAX_FRAME_BYTES = 64 << 20


class Said(msgspec.Struct, omit_defaults=True):
    """One answer. ``none``: the engine's own word that there is no answer; ``fault``: it failed."""

    answer: Any = None
    none: str = ""
    fault: str = ""


def answer(function: Callable[..., Any], arguments: Any) -> Said:
    """Ask the engine; whatever it does short of hanging is an answer."""
    random.seed(0)
    try:
        return Said(answer=msgspec.to_builtins(function(*arguments)))
    except EngineError as error:
        return Said(none=str(error) or type(error).__name__)
    except (Exception, SystemExit) as error:
        code = getattr(function, "__code__", None)
        return Said(fault=told(error, code.co_filename if code else "")[:400])


def read_frame(stream: BinaryIO) -> bytes:
    """Return the next frame; empty at the end."""
    size = int.from_bytes(stream.read(4), "big")
    return stream.read(size) if 0 < size <= MAX_FRAME_BYTES else b""


def write_frame(stream: BinaryIO, said: Said) -> None:
    """Write one frame."""
    data = msgspec.msgpack.encode(said)
    stream.write(len(data).to_bytes(4, "big") + data)
    stream.flush()


def main() -> None:
    """Load the engine, say so, and answer until nobody asks any more."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    engine, spec = sys.argv[1:3]
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    try:
        function = load(engine, spec)
    except PluginError as error:
        write_frame(out, Said(fault=str(error)))
        return
    write_frame(out, Said())
    questions = msgspec.msgpack.Decoder(CONTRACTS[engine].arguments)
    while frame := read_frame(sys.stdin.buffer):
        write_frame(out, answer(function, questions.decode(frame)))


if __name__ == "__main__":
    main()
