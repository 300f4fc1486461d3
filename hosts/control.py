"""Control sockets: JSON lines over a unix socket, for the person (or program) at a terminal.

One request is one line, a JSON object with ``op``; one reply is one line with ``ok``.  A bad line is answered with
``ok: false`` and ``error``, and the connection goes on.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from hosts.errors import BadCommand, BadRuntimeDir, HostError

MAX_LINE_BYTES = 1 << 20
MAX_PATH_BYTES = 107
Command = dict[str, Any]
Handler = Callable[[Command], Command]


def listen(path: Path) -> socket.socket:
    """Return a listening unix socket at ``path``, replacing a stale one; its owner's alone.

    The path appears when the socket already listens: whoever sees it may connect.
    """
    unborn = path.with_name(path.name + "~")
    if len(str(unborn).encode()) > MAX_PATH_BYTES:
        raise BadRuntimeDir(f"socket path {path} is longer than {MAX_PATH_BYTES} bytes; choose a shorter --runtime-dir")
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        unborn.unlink(missing_ok=True)
        server.bind(str(unborn))
        unborn.chmod(0o600)
        server.listen(64)
        unborn.rename(path)
    except OSError as error:
        server.close()
        raise BadRuntimeDir(f"socket {path}: {error.strerror}; give a --runtime-dir that you may write") from None
    return server


def parse_command(line: bytes) -> Command:
    """Parse one request line; ``BadCommand`` says what is wrong with it."""
    try:
        command = msgspec.json.decode(line)
    except msgspec.DecodeError as error:
        raise BadCommand(f"not a line of JSON: {error}") from None
    if not isinstance(command, dict) or not isinstance(command.get("op"), str):
        raise BadCommand('a command is a JSON object with "op", for example {"op":"state"}')
    return command


def answer_line(line: bytes, handler: Handler) -> bytes:
    """Return the reply line (newline included) to one request line; every failure of a handler is an answer."""
    try:
        reply = {"ok": True, **handler(parse_command(line))}
    except (HostError, msgspec.ValidationError, ValueError, LookupError) as error:
        text = f"no {error}" if isinstance(error, KeyError) else str(error)
        reply = {"ok": False, "error": " ".join(text.split())}
        reply |= {"bad_input": True} if isinstance(error, BadCommand) else {}
    return msgspec.json.encode(reply) + b"\n"


class ControlServer:
    """Serve a control socket from background threads, one per connection."""

    def __init__(self, path: Path, handler: Handler) -> None:
        self.path = path
        self._handler = handler
        self._server = listen(path)
        self._thread = threading.Thread(target=self._accept, name="control", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self.path.unlink(missing_ok=True)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._server.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), name="control-client", daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as lines, contextlib.suppress(OSError):
            while line := lines.readline(MAX_LINE_BYTES):
                connection.sendall(answer_line(line, self._handler))


def call(path: Path, command: Command, timeout_s: float = 10.0) -> Command:
    """Send one command to a control socket and return its reply; ``HostError`` when nobody answers."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.settimeout(timeout_s)
            client.connect(str(path))
            client.sendall(msgspec.json.encode(command) + b"\n")
            with client.makefile("rb") as lines:
                line = lines.readline()
    except OSError as error:
        raise HostError(f"control socket {path}: {error}; is that terminal's agent running?") from None
    if not line:
        raise HostError(f"control socket {path}: closed without an answer; the agent has ended")
    return parse_reply(line)


def parse_reply(line: bytes) -> Command:
    """Parse one reply line."""
    reply = msgspec.json.decode(line)
    if not isinstance(reply, dict):
        raise HostError("a reply is a JSON object")
    return reply
