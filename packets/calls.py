"""What a DCC asks of its terminals, out of their own port (``controller/access/calls.py``), and one of another."""

from __future__ import annotations

from typing import Annotated

import msgspec

from packets.terms import Message, Name, ObjectId, Share, Text, VisitNumber

MAX_REVOKED = 1024


class LaunchAgain(Message, frozen=True, kw_only=True, tag="again"):
    """The DCC has moved an object's flows to another rendezvous: launch it again (``Ack``, or ``Refused``: not held).

    A transfer under way goes back to its launch; one that is over is repeated from the copy that its sender keeps.
    ``former_lives``: the rendezvous so far hands over what it holds, which then need not be sent again.
    """

    object_id: ObjectId
    visit: VisitNumber
    former_lives: bool = False


class HandOver(Message, frozen=True, kw_only=True, tag="handover"):
    """A withdrawn rendezvous passes on what it holds of an object that is still coming in (``Ack``, or ``Refused``)."""

    object_id: ObjectId
    visit: VisitNumber
    address: Name


class Release(Message, frozen=True, kw_only=True, tag="release"):
    """An object that was launched here for this visit is safe further on: its copy may go; answered by ``Ack``."""

    object_id: ObjectId
    visit: VisitNumber


class Pull(Message, frozen=True, kw_only=True, tag="pull"):
    """The DCC asks for fresh values (DRRT-O, pull on demand); the terminal answers with a ``Report`` of its own.

    Empty ``attributes``: all of them.
    """

    attributes: Annotated[list[Name], msgspec.Meta(max_length=64)] = []


class Halt(Message, frozen=True, kw_only=True, tag="halt"):
    """The DCC tells a terminal to stop working on an object (its job was stopped, or it is needed elsewhere)."""

    object_id: ObjectId
    reason: Text = ""


class Copy(Message, frozen=True, kw_only=True, tag="copy"):
    """The DCC has an MDFP send a copy of a model that it serves to another place (``Ack``, or ``Refused``: not served).

    ``to``: the place, as orders name it ('': where MDO sees fit).  ``measure``: an MPVU, which measures it.
    """

    label: Annotated[int, msgspec.Meta(ge=0, lt=1 << 28)]
    to: Annotated[str, msgspec.Meta(max_length=80)] = ""
    measure: bool = False


class Retire(Message, frozen=True, kw_only=True, tag="retire"):
    """The DCC has an MDFP end a model: nobody is led to it any more, what it was asked is answered (``Ack``)."""

    label: Annotated[int, msgspec.Meta(ge=0, lt=1 << 28)]


class Recalibrate(Message, frozen=True, kw_only=True, tag="recalibrate"):
    """A deployed model has fallen behind the world: its owner is to have it trained on and deployed anew (``Ack``).

    ``object_id``: of the job that it came from; ``broad``: its accuracy now, which the new one has to beat.
    """

    object_id: ObjectId
    reason: Text = ""
    broad: Share = 0.0


class Revoked(Message, frozen=True, kw_only=True, tag="revoked"):
    """The DCC names all terminals that are revoked: what they say, launch or own is refused from now on (``Ack``)."""

    names: Annotated[list[Name], msgspec.Meta(max_length=MAX_REVOKED)] = []


class SendData(Message, frozen=True, kw_only=True, tag="send_data"):
    """A compute facility asks a data node to launch its training data for a visit (the data node's DCC steers it)."""

    name: Name
    for_object: ObjectId
    visit: VisitNumber
    task: Name
