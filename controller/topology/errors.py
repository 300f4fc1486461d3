"""What can go wrong in the map layer; each message is one line: the thing, where, and the fix."""

from __future__ import annotations


class TopologyError(Exception):
    """Base of the map layer's errors."""


class BadReport(TopologyError):
    """A terminal reported what cannot be true; nothing of the report was taken."""


class UnknownNode(TopologyError):
    """The map holds no terminal of this name."""


class UnknownHandle(TopologyError):
    """A rendezvous handle that this topology never gave out, or no longer offers."""
