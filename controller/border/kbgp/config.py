"""What a border speaker is told at its start: who it is, who its neighbours are, and where its files lie."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec

from controller.border.kbgp.damping import Damping
from controller.errors import PlanError
from packets.kbgp.knowledge import Kas, Word
from packets.kbgp.messages import MAX_HOLD_MS, MIN_HOLD_MS

Port = Annotated[int, msgspec.Meta(ge=0, le=0xFFFF)]
Seconds = Annotated[float, msgspec.Meta(gt=0, le=3600)]


class Neighbour(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A session to keep: with which gateway (its name in the directory), over which link. Lower ``cost`` is preferred.

    A neighbour of our own K-AS is another gateway of it. ``port`` 0: it connects to us, never we to it.
    """

    kas: Kas
    gateway: Word
    link: Word
    address: Word = "127.0.0.1"
    port: Port = 0
    cost: Annotated[float, msgspec.Meta(ge=0, le=1e9)] = 0.0

    @property
    def key(self) -> tuple[str, str]:
        """What tells it from all others."""
        return self.gateway, self.link


class Timers(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How long a speaker waits for what."""

    hold_ms: Annotated[int, msgspec.Meta(ge=MIN_HOLD_MS, le=MAX_HOLD_MS)] = 9000
    open_s: Seconds = 5.0
    retry_s: Seconds = 1.0
    advertise_s: Annotated[float, msgspec.Meta(ge=0, le=60)] = 0.1
    restart_s: Annotated[int, msgspec.Meta(ge=0, le=4095)] = 20
    defer_s: Seconds = 5.0


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A speaker. ``links``: pairs of K-AS that are neighbours; a path over any other pair is refused (none: not looked
    at). ``damping``: half-life (s), suppress, reuse, longest (s).
    """

    kas: Kas
    gateway: Word
    neighbours: Annotated[list[Neighbour], msgspec.Meta(max_length=256)]
    address: Word = "127.0.0.1"
    port: Port = 0
    links: Annotated[list[tuple[Kas, Kas]], msgspec.Meta(max_length=65536)] = []
    timers: Timers = Timers()
    damping: tuple[Seconds, Annotated[float, msgspec.Meta(gt=0)], Annotated[float, msgspec.Meta(gt=0)], Seconds] = (
        15.0, 6000.0, 750.0, 60.0,
    )  # fmt: skip

    def make_damping(self) -> Damping:
        """Return the damping that it asks for."""
        return Damping(*self.damping)


def read(path: Path) -> Config:
    """Read a configuration; ``PlanError`` in one line."""
    try:
        config = msgspec.json.decode(path.read_bytes(), type=Config)
    except OSError as error:
        raise PlanError(f"--config {path}: {error.strerror}; give the JSON of a border speaker") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise PlanError(f"--config {path}: not the JSON of a border speaker: {error}") from error
    keys = [n.key for n in config.neighbours]
    if twice := sorted({key for key in keys if keys.count(key) > 1}):
        gateway, link = twice[0]
        raise PlanError(f"--config {path}: neighbour {gateway} over {link} stands there twice; name each session once")
    return config
