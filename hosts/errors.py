"""What can go wrong at the terminals; each message is one line: the thing, where, and the fix."""

from __future__ import annotations

from packets.errors import DaitnError


class HostError(DaitnError):
    """Root of the terminal layer's errors; bad input for a person ends in exit status 2."""


class BadScenario(HostError):
    """The zygote's scenario file cannot be read or does not fit its model."""


class BadRuntimeDir(HostError):
    """The runtime directory cannot be used for sockets."""


class NoNamespace(HostError):
    """A network namespace (or cgroup) that an agent should enter is not there or not ours to enter."""


class BadCommand(HostError):
    """A line on a control socket that is no command of ours; answered, never fatal."""


class DccSilent(HostError):
    """The DCC of this K-AS did not answer in time."""


class DccRefused(HostError):
    """The DCC answered, and the answer is no; the message is its reason."""


class TerminalRefused(HostError):
    """Another terminal did not do what the DCC's order made us ask of it."""


class LaunchFailed(HostError):
    """An object could not be handed to the network."""


class StreamBroken(HostError):
    """A part of a stream never came; those before it did."""
