"""Names of places as orders carry them: ``kas:handle``, opaque to whoever is not of that K-AS."""

from __future__ import annotations

from controller.errors import SteeringError
from controller.values.decisions import Option

PLACES = ("@of/", "@compute/")  # nobody names a terminal of another K-AS


def member_place(object_id: int, option: Option) -> str:
    """Name a place on offer to a job so that other objects of that job find it, too: ``kas:@of/job/handle``."""
    return f"{option.kas}:@of/{object_id:x}/{option.handle}"


def read_place(text: str) -> tuple[int, str]:
    """Return (K-AS, handle) of a place as orders name it; ``SteeringError`` when it names none."""
    kas, _, handle = text.partition(":")
    known = handle.startswith(PLACES) and len(handle) <= 64
    if not (known and kas.isdecimal() and len(kas) < 4 and 1 <= int(kas) <= 255):
        raise SteeringError(f"{text[:80]!r} names no place")
    return int(kas), handle


def read_site(text: str, role: str = "mdfp") -> tuple[int, str]:
    """Return (K-AS, handle) of a terminal of a role as a move names it, ``kas:@mdfp/number``; ``SteeringError`` when it
    is none.
    """
    kas, _, handle = text.partition(":")
    named, _, number = handle.partition("/")
    if not (kas.isdecimal() and len(kas) < 4 and 1 <= int(kas) <= 255 and named == f"@{role}" and number.isdecimal()):
        raise SteeringError(f"{text[:80]!r} names no {role.upper()}; say kas:@{role}/number")
    return int(kas), handle


def read_member(which: str) -> tuple[int, str]:
    """Return (job's object id, handle) of what follows ``@of/``; ``SteeringError`` when it is malformed."""
    job, _, handle = which.partition("/")
    try:
        return int(job, 16), handle
    except ValueError:
        raise SteeringError(f"{which[:64]!r} names no member of a group") from None
