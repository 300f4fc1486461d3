"""What the leading process and the servers of a run say to each other: JSON lines, over ssh's standard streams.

The leader asks (``{"id": 7, "op": "tell", ...}``); a server answers (``{"id": 7, "result": ...}`` or ``"error"``),
sends what it was asked for in pieces before that (``"piece"``), and hands on its part's events (``"event"``).
"""

from __future__ import annotations

import hashlib
import platform
from typing import Any

import msgspec

from experiments.scenarios.events import TimedEvent
from experiments.scenarios.scenario import Scenario
from experiments.testbed.processes import PROJECT
from packets.events import Event
from topologies.cluster.parts import Cut

PROTOCOL = 1
BEAT_S, SILENCE_S = 5.0, 30.0  # the leader speaks at least so often; a server that hears nothing takes all down
PIECE_BYTES = 1 << 20
PACKAGES = ("packets", "topologies", "controller", "hosts", "experiments")


class Greeting(msgspec.Struct, frozen=True, kw_only=True):
    """A server's first word: what it is and can."""

    protocol: int
    sources: str
    python: str
    torch: str
    open_vswitch: str
    netem: bool
    wirefilter: bool


class Way(msgspec.Struct, frozen=True, kw_only=True):
    """How a server reaches another: from which address, and in packets of how many bytes."""

    local: str
    mtu: int


class PartOrder(msgspec.Struct, frozen=True, kw_only=True):
    """What a server is to make: its K-AS of the scenario's network. ``files``: of the run's directory, secrets too."""

    scenario: Scenario
    run_id: str
    server: str
    kas: list[int]
    cuts: list[Cut]
    mtu: int
    files: dict[str, bytes]
    keys: dict[str, str]
    signed: bool
    capture: bool


class Ask(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One line of the leader."""

    op: str
    id: int = 0
    args: dict[str, Any] = {}
    order: PartOrder | None = None
    happening: TimedEvent | None = None


class Word(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One line of a server."""

    id: int = 0
    result: Any = None
    piece: bytes = b""
    error: str = ""
    kind: str = ""
    event: Event | None = None
    greeting: Greeting | None = None


def sources() -> str:
    """Return a short hash of the project's own code: two servers with the same one do the same."""
    found = hashlib.sha256()
    for package in PACKAGES:
        for path in sorted((PROJECT / package).rglob("*")):
            if path.suffix in (".py", ".yaml", ".lua") and path.is_file():
                found.update(str(path.relative_to(PROJECT)).encode() + b"\0" + path.read_bytes())
    return found.hexdigest()[:16]


def greeting() -> Greeting:
    """Return what this machine says of itself; a ``TopologyError`` when it cannot carry a network."""
    from experiments.testbed.folder import machine
    from topologies.machine import probe
    from topologies.machine.preflight import check_machine

    check_machine()
    here = machine()
    return Greeting(
        protocol=PROTOCOL, sources=sources(), python=platform.python_version(), torch=str(here["packages"]["torch"]),
        open_vswitch=str(here["open_vswitch"]), netem=probe.netem(), wirefilter=probe.wirefilter(),
    )  # fmt: skip
