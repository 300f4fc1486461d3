"""What can go wrong for a person who runs an experiment; each message is one line: the thing, where, and the fix."""

from __future__ import annotations


class ExperimentError(Exception):
    """Bad input or a machine that is not ready: exit status 2."""


class ScenarioError(ExperimentError):
    """A scenario that cannot be read or does not fit the model."""


class NoTestbed(ExperimentError):
    """A command needs a standing network and there is none."""


class RunFailed(Exception):
    """The network ran, but the work on it did not come to its end: exit status 1."""
