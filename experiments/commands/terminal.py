"""The person at a terminal: commands to one agent over its unix socket (one JSON line out, one back)."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

from experiments.errors import ExperimentError, RunFailed


def call(path: Path, op: str, timeout_s: float = 30.0, **arguments: Any) -> dict[str, Any]:
    """Send one command and return its answer; ``RunFailed`` when the process is gone, silent or says no.

    ``ExperimentError`` when it says that the command itself is wrong.
    """
    request = json.dumps({"op": op, **arguments}).encode() + b"\n"
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(timeout_s)
            connection.connect(str(path))
            connection.sendall(request)
            line = _line(connection)
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


def _line(connection: socket.socket) -> bytes:
    data = bytearray()
    while not data.endswith(b"\n"):
        part = connection.recv(65536)
        if not part:
            break
        data += part
    return bytes(data)
