"""The person at a terminal: commands to one agent over its unix socket (one JSON line out, one back)."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from experiments.errors import ExperimentError, RunFailed

LOOK_S = 0.25


def call(
    path: Path, op: str, timeout_s: float = 30.0, *, meanwhile: Callable[[], None] = lambda: None, **arguments: Any
) -> dict[str, Any]:
    """Send one command and return its answer; ``RunFailed`` when the process is gone, silent or says no.

    ``ExperimentError`` when it says that the command itself is wrong. ``meanwhile`` is called while the answer is
    awaited, and may raise.
    """
    request = json.dumps({"op": op, **arguments}).encode() + b"\n"
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(LOOK_S)
            connection.connect(str(path))
            connection.sendall(request)
            line = _line(connection, time.monotonic() + timeout_s, meanwhile)
    except OSError as error:
        raise RunFailed(f"{path.stem} did not take {op!r}: {error}") from None
    try:
        answer = json.loads(line)
    except ValueError:
        raise RunFailed(f"{path.stem} did not answer {op!r}") from None
    if not isinstance(answer, dict) or not answer.get("ok"):
        why = answer.get("error", "no reason given") if isinstance(answer, dict) else "no reason given"
        bad_input = isinstance(answer, dict) and answer.get("bad_input")
        raise (ExperimentError if bad_input else RunFailed)(f"{path.stem} refused {op!r}: {why}")
    return answer


def _line(connection: socket.socket, deadline_s: float, meanwhile: Callable[[], None]) -> bytes:
    data = bytearray()
    while not data.endswith(b"\n"):
        try:
            part = connection.recv(65536)
        except TimeoutError:
            if time.monotonic() > deadline_s:
                raise
            meanwhile()
            continue
        if not part:
            break
        data += part
    return bytes(data)
