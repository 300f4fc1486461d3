"""What guards an endpoint's traffic: the words in which the transport asks, whoever answers (none: plain traffic).

A ``Guard`` signs and checks what opens a conversation (launches, their first answers, requests); a ``Session``, one a
transfer and side, has the keys of everything after that, which the transport itself seals and checks (``seal.py``,
``batch.py``).  Reasons of refusal are short names, as those of ``PacketError``; one may have an attribute ``text``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from packets.security.pair_keys import Session
from packets.transfer.udp import Peer
from packets.wire import Buffer, Header

__all__ = ["Guard", "Session"]

if TYPE_CHECKING:
    from packets.transfers import OutgoingObject


class Guard(Protocol):
    """What a terminal knows of itself and others.  Called on the I/O thread, for requests on their callers' threads."""

    def launch(self, obj: OutgoingObject, header: Header) -> bytes:
        """Return a launch, ready to be sent."""

    def accept(self, header: Header, raw: Buffer, peer: Peer) -> Session | str:
        """Return the receiver's session for a launch, or the reason of refusal. Repeated launches come here too."""

    def answer(self, header: Header, session: Session) -> bytes:
        """Return an acknowledgement that answers a launch, ready to be sent."""

    def confirm(self, header: Header, raw: Buffer, peer: Peer) -> Session | str:
        """Return the sender's session for the answer to its launch, or the reason of refusal."""

    def sign_request(self, header: Header, payload: Buffer, to: str) -> bytes:
        """Return a request, a reply to one, or an error about an unknown transfer, ready to be sent."""

    def check_request(self, header: Header, raw: Buffer, peer: Peer) -> str | None:
        """Return why such a packet is refused, None when it is authentic and new."""
