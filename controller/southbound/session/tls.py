"""OpenFlow over TLS 1.3: a switch shows a certificate of the run's authority, or is refused, and that is counted.

os-ken can wrap its sockets, too, but tells nobody whom it refused, and waits for ever for one that says nothing.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from controller.errors import PlanError

HANDSHAKE_S = 5.0
MOST_AT_ONCE = 64  # handshakes under way: who floods with more is refused at once

TOLD_EVERY_S = 0.5

Refused = Callable[[str, str, int], None]  # address, why, how many since it was told last


@dataclass(frozen=True)
class Credentials:
    """Where a control centre's own key and certificate lie, and the authority's certificate that it trusts."""

    certificate: Path
    authority: Path

    def context(self) -> ssl.SSLContext:
        """Return the control centre's side of TLS; ``PlanError`` when a file is no good."""
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        made.minimum_version = ssl.TLSVersion.TLSv1_3
        made.verify_mode = ssl.CERT_REQUIRED
        for path, load in (
            (self.certificate, made.load_cert_chain),
            (self.authority, made.load_verify_locations),
        ):
            try:
                load(path)
            except (OSError, ssl.SSLError) as error:
                why = error.strerror if isinstance(error, FileNotFoundError) else "no PEM of a key or certificate"
                raise PlanError(f"{path}: {why}; `daitn certs` makes one") from error
        return made


class Handshakes:
    """Greets switches, each in the thread that its session has; ``refused`` hears of those that are turned away."""

    def __init__(self, context: ssl.SSLContext, refused: Refused) -> None:
        self._context, self._refused = context, refused
        self._free = threading.BoundedSemaphore(MOST_AT_ONCE)
        self._lock, self._untold, self._told_s = threading.Lock(), 0, -TOLD_EVERY_S

    def greet(self, sock: socket.socket, address: tuple[str, int]) -> ssl.SSLSocket | None:
        """Return the socket with TLS on it; None, and the connection closed, when the other side is no switch."""
        if not self._free.acquire(blocking=False):
            self._turn_away(sock, address, f"{MOST_AT_ONCE} others are being greeted")
            return None
        try:
            sock.settimeout(HANDSHAKE_S)
            return self._context.wrap_socket(sock, server_side=True)
        except (OSError, ValueError) as error:  # ValueError: it has gone again already
            self._turn_away(sock, address, _why(error))
            return None
        finally:
            self._free.release()

    def _turn_away(self, sock: socket.socket, address: tuple[str, int], why: str) -> None:
        with contextlib.suppress(OSError):
            sock.close()
        with self._lock:
            self._untold += 1
            if time.monotonic() - self._told_s < TOLD_EVERY_S:
                return
            count, self._untold, self._told_s = self._untold, 0, time.monotonic()
        self._refused(f"{address[0]}:{address[1]}", why, count)


def _why(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return f"no handshake within {HANDSHAKE_S:g} s"
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message
    if isinstance(error, ssl.SSLError) and error.reason:
        return error.reason.lower().replace("_", " ")
    return " ".join(str(error).split())[:100] or type(error).__name__
