"""What the engines refuse to answer; each message is one line: the thing, where, and the fix."""

from __future__ import annotations


class EngineError(Exception):
    """Base of the engines' errors."""


class NoPath(EngineError):
    """Two places are not joined by any chain of links that are up."""


class NoPlacement(EngineError):
    """MDO: no MDFP can take the model."""
