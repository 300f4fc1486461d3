"""What the examples share: being at a terminal of the standing network, and reading what its run tells."""

from __future__ import annotations

import json
import os
import shutil
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from experiments.commands.client import request  # noqa: E402
from experiments.errors import ExperimentError  # noqa: E402


def fail(text: str) -> NoReturn:
    """End with one line for a person."""
    sys.exit(f"{Path(sys.argv[0]).name}: {text}")


def at_terminal(name: str | None) -> None:
    """Go on in the network namespace of a terminal (its shell is called ``mininet:NAME``); None: stay where we are."""
    if os.geteuid() != 0:
        fail("sending raw packets needs root: sudo .venv/bin/python examples/...")
    if name is None and not _at_a_terminal():
        fail("this is no terminal, and AI packets do not belong on the machine's own network: say --on HOST")
    if name is None or os.environ.get("DAITN_AT") == name:
        return
    mnexec = shutil.which("mnexec") or fail("mnexec is not installed: it comes with Mininet (scripts/provision.sh)")
    os.environ["DAITN_AT"] = name
    os.execv(mnexec, [mnexec, "-a", str(_shell(name)), sys.executable, *sys.argv])


def _at_a_terminal() -> bool:
    """Tell whether this network namespace is a Mininet host's: one port, ``NAME-eth0``, and no switch's beside it."""
    names = [line.partition(":")[0].strip() for line in Path("/proc/net/dev").read_text().splitlines()[2:]]
    ports = [name for name in names if "-eth" in name]
    return len(ports) == 1 and ports[0].endswith("-eth0")


def _shell(name: str) -> int:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue  # it has just ended
            if f"mininet:{name}".encode() in words:
                return int(entry.name)
    fail(f"no terminal {name!r} stands here: `daitn up --detach` starts a network, `daitn status` lists its terminals")


def own_address() -> str:
    """Return this terminal's address, as the route to the labels has it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("240.0.0.1", 9))
        except OSError:
            fail("no route to 240.0.0.0/4 from here: say at which terminal with --on HOST")
        return str(probe.getsockname()[0])


@contextmanager
def port_of_ours() -> Iterator[int]:
    """Hold a UDP port, so that this machine does not answer what comes for it with an ICMP error."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as held:
        held.bind((own_address(), 0))
        yield int(held.getsockname()[1])


def status() -> dict[str, Any]:
    """Return what ``daitn status --json`` shows, and the run's folder."""
    try:
        return request("status", timeout_s=10)
    except ExperimentError as error:
        fail(str(error))


class Refusals:
    """What the run says of packets that it refuses, from now on (``events.jsonl``)."""

    def __init__(self) -> None:
        self._path = Path(status()["folder"]) / "events.jsonl"
        self._at = self._path.stat().st_size
        self._half = b""

    def new(self) -> list[dict[str, Any]]:
        """Return the events since the last call, as ``data`` with the source that said it."""
        with self._path.open("rb") as file:
            file.seek(self._at)
            text = file.read()
        self._at += len(text)
        *lines, self._half = (self._half + text).split(b"\n")
        events = [json.loads(line) for line in lines if b"packet.refused" in line]
        return [{"by": event["source"], **event["data"]} for event in events if event["kind"] == "packet.refused"]

    def wait(self, seconds: float) -> list[dict[str, Any]]:
        """Return the events of the next so many seconds."""
        end, found = time.monotonic() + seconds, list[dict[str, Any]]()
        while time.monotonic() < end:
            time.sleep(0.1)
            found += self.new()
        return found


def shown(event: dict[str, Any]) -> str:
    """Return an event in a few words."""
    more = event.get("text") or event.get("detail") or ""
    return f"{event['by']}: {event['reason']}" + (f" ({more})" if more else "")
