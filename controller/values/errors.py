"""What the engines refuse to answer; each message is one line: the thing, where, and the fix."""

from __future__ import annotations


class EngineError(Exception):
    """Base of the engines' errors."""


class NoPath(EngineError):
    """Two places are not joined by any chain of links that are up."""


class NoPlacement(EngineError):
    """MDO: no MDFP can take the model."""


class NoLender(EngineError):
    """The K-AS has no engine of its own, and none of those that lend it one gave an answer."""
