"""The unix datagram socket of a run's events: bound where emitters send, with room for a burst of them."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

from controller.oam.errors import CollectorError

MAX_DATAGRAM_BYTES = 1 << 16
MAX_UNIX_PATH = 107
RECEIVE_BUFFER_BYTES = 8 << 20
QUEUE_SETTING = Path("/proc/sys/net/unix/max_dgram_qlen")
DATAGRAM_QUEUE = 4096


def open_socket(path: Path) -> socket.socket:
    """Return the socket bound to a path (owner-only); ``CollectorError`` when the path is too long, or is in use."""
    if len(os.fsencode(path)) > MAX_UNIX_PATH:
        raise CollectorError(
            f"event socket {path}: longer than {MAX_UNIX_PATH} bytes; choose a shorter runtime directory"
        )
    _remove_stale(path)
    with _longer_datagram_queue():
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
    try:
        sock.bind(os.fspath(path))
        os.chmod(path, 0o600)
    except OSError as error:
        sock.close()
        raise CollectorError(f"event socket {path}: {error.strerror}; make its directory or choose another") from error
    return sock


@contextlib.contextmanager
def _longer_datagram_queue() -> Iterator[None]:
    """Let sockets made inside hold ``DATAGRAM_QUEUE`` datagrams: Linux's default is 10, less than one burst of a DCC.

    A socket keeps the limit it was born with, so the setting is put back at once; without root it stays as it is.
    """
    try:
        before = QUEUE_SETTING.read_text().strip()
        if int(before) < DATAGRAM_QUEUE:
            QUEUE_SETTING.write_text(str(DATAGRAM_QUEUE))
    except (OSError, ValueError):
        before = ""
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            if before:
                QUEUE_SETTING.write_text(before)


def _remove_stale(path: Path) -> None:
    """Unlink a socket that nobody reads any more; a live one, or a file that is no socket, is an error."""
    try:
        mode = path.lstat().st_mode
    except OSError:
        return
    if not stat.S_ISSOCK(mode):
        raise CollectorError(f"event socket {path}: a file of that name is in the way; move it")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(os.fspath(path))
        except ConnectionRefusedError:
            path.unlink()
            return
        except OSError:
            return
    raise CollectorError(f"event socket {path}: another collector is listening; end that run first (daitn down)")
