"""What goes wrong with AI packets and their transport, by name.  Each message is one line: what, where, and the fix."""

from __future__ import annotations


class DaitnError(Exception):
    """Base of every error of the testbed that is meant for a person to read."""


class PacketError(DaitnError):
    """Bytes are no AI packet, or a packet cannot be built. ``reason`` is a short word of packets/README.md."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class TransportError(DaitnError):
    """An object or a request did not get through."""


class TransferRefused(TransportError):
    """The other side answered with an ERROR packet; ``code`` is its ``ErrorCode``."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class RequestTimeout(TransportError):
    """No reply came to a request within its time."""


class IdentityError(DaitnError):
    """Keys, certificates or the directory of a run cannot be read, or do not fit."""
