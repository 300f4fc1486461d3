"""What can go wrong for the person who starts the OAM layer; each message is one line: thing, place, fix."""

from __future__ import annotations


class OamError(Exception):
    """Bad input or a taken resource: exit status 2."""


class CollectorError(OamError):
    """The event collector cannot listen or cannot write."""


class PageError(OamError):
    """The page cannot be served."""
