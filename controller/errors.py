"""What can go wrong in a control centre, each with a one-line message that names the thing, where, and the fix."""

from __future__ import annotations


class ControllerError(Exception):
    """Base of every error a control centre raises for a person; the launcher prints it on one line and exits with 2."""


class PlanError(ControllerError):
    """The declared network (``--plan``) is missing, is no JSON of a ``DomainPlan``, or contradicts itself."""


class PortTaken(ControllerError):
    """Somebody listens already where the control centre must: the OpenFlow port, or a border socket."""


class PluginError(ControllerError):
    """An engine of one's own cannot be found or loaded."""


class FrameError(ControllerError):
    """Bytes that are not the frame they claim to be (the sender's fault; counted, never fatal)."""


class SwitchTimeout(ControllerError):
    """A switch did not answer a barrier in time, or is not connected."""


class BorderError(ControllerError):
    """Another K-AS's control centre cannot be reached, did not answer in time, or answered nonsense."""


class BorderSilent(BorderError):
    """No answer came from another K-AS: a way or a gateway is away; who waits for it may ask again."""


class SteeringError(ControllerError):
    """An object cannot be steered as asked: no such rendezvous, no path, or nobody announced it."""


class NotYet(SteeringError):
    """What is asked for is usual and not ready so soon after the start; whoever asked tries again by itself."""


class Denied(SteeringError):
    """A terminal asks for what is not its own. ``word``: by which it is counted (``packets.security.reasons``)."""

    def __init__(self, word: str, message: str) -> None:
        super().__init__(message)
        self.word = word


class LendingError(ControllerError):
    """An engine is not lent to who asks for it, or the one that is lent gives no answer now."""
