"""What can go wrong with a network, by name. Each message is one line: what, where, and what to do next."""

from __future__ import annotations


class TopologyError(Exception):
    """Base of every error that this package raises for a user to read."""


class PlanError(TopologyError):
    """The declared network contradicts itself or does not fit Linux's limits."""


class NotRootError(TopologyError):
    """Namespaces, links and qdiscs need root."""


class ToolMissingError(TopologyError):
    """A program or Python module that the network needs is not installed."""


class OvsNotRunningError(TopologyError):
    """Open vSwitch does not answer."""


class PortTakenError(TopologyError):
    """A TCP port that a controller needs is in use."""


class RunLiveError(TopologyError):
    """Another run holds this machine's network."""


class NameTakenError(TopologyError):
    """An interface, bridge or run directory of that name exists and is not ours."""


class UnsupportedLinkError(TopologyError):
    """A link asks for something that neither the kernel nor the wire filter can do."""


class RefusedError(TopologyError):
    """ip, tc, ovs-vsctl or the kernel refused a setting."""
