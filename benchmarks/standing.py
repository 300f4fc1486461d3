"""A network left standing for measurements: people at its terminals, its events, and a hand on agents and links."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from benchmarks.common import PROJECT, NotSeen, python
from experiments.commands.client import request
from experiments.testbed.terminal import call
from packets.events import Event, decode_event
from topologies.machine.ledger import RUN_BASE

UP_TIMEOUT_S = 90.0
SHARD_BYTES = 1392
T = TypeVar("T")


class StandingNetwork:
    """A network that ``daitn up`` made. ``folder`` holds its results, ``runtime`` its sockets."""

    def __init__(self, folder: Path, run_id: str) -> None:
        self.folder, self.runtime = folder, RUN_BASE / run_id
        self._read, self._rest, self._reading = 0, b"", threading.Lock()
        self._events: list[Event] = []

    # --- what it says

    def events(self, kind: str = "", **match: Any) -> list[Event]:
        """Return the events of a kind so far whose data holds these values."""
        with self._reading, (self.folder / "events.jsonl").open("rb") as log:
            log.seek(self._read)
            fresh = log.read()
            self._read += len(fresh)
            *lines, self._rest = (self._rest + fresh).split(b"\n")
            self._events += [decode_event(line) for line in lines]
            seen = len(self._events)
        return [e for e in self._events[:seen] if kind in ("", e.kind) and e.data.items() >= match.items()]

    def wait_for(self, kind: str, timeout_s: float = 30.0, **match: Any) -> Event:
        """Return the first event of a kind with these values, when there is one."""
        return self.wait_until(lambda: next(iter(self.events(kind, **match)), None), timeout_s, f"{kind} {match}")

    @staticmethod
    def wait_until(look: Callable[[], T | None], timeout_s: float, what: str) -> T:
        """Poll until ``look`` finds something; ``NotSeen`` when it does not in time."""
        end = time.monotonic() + timeout_s
        while time.monotonic() < end:
            if (found := look()) is not None:
                return found
            time.sleep(0.01)
        raise NotSeen(f"{what}: not within {timeout_s:g} s")

    # --- its terminals

    def at(self, terminal: str, op: str, **arguments: Any) -> dict[str, Any]:
        """Do something as the person at a terminal."""
        return call(self.runtime / "agents" / f"{terminal}.sock", op, **arguments)

    def state(self, terminal: str) -> dict[str, Any]:
        return self.at(terminal, "state")

    def pid(self, terminal: str) -> int:
        """Return the process of a terminal's agent."""
        return int(self.events("agent.ready", name=terminal)[-1].data["pid"])

    def kill(self, terminal: str) -> float:
        """End a terminal's agent by SIGKILL; returns when (wall clock)."""
        os.kill(self.pid(terminal), signal.SIGKILL)
        return time.time()

    def cut_off(self, terminal: str) -> float:
        """Take a terminal's interface down inside its namespace; returns when (wall clock)."""
        inside = ("nsenter", "-t", str(self.pid(terminal)), "-n")
        links = _tool(*inside, "ip", "-br", "link").splitlines()
        interface = next(line.split("@")[0].split()[0] for line in links if not line.startswith("lo"))
        began = time.time()
        _tool(*inside, "ip", "link", "set", interface, "down")
        return began

    # --- its links

    def cut(self, a: str, b: str) -> float:
        """Take a link between two switches down at both ends; returns when (wall clock)."""
        began = time.time()
        for interface in self._ends(a, b):
            _tool("ip", "link", "set", interface, "down")
        return began

    def mend(self, a: str, b: str) -> None:
        for interface in self._ends(a, b):
            _tool("ip", "link", "set", interface, "up")

    def doors(self) -> dict[str, str]:
        """Return, by address, the switch's interface at which each terminal hangs."""
        hosts = self.events("network.up")[0].data["plan"]["hosts"]
        return {h["address"]: _port_name(h["switch"], h["port"]) for h in hosts}

    def _ends(self, a: str, b: str) -> list[str]:
        plan = self.events("network.up")[0].data["plan"]
        link = next(k for k in plan["links"] if {k["a"], k["b"]} == {a, b})
        return [_port_name(link["a"], link["a_port"]), _port_name(link["b"], link["b_port"])]


def _port_name(switch: str, number: int) -> str:
    for name in _tool("ovs-vsctl", "list-ports", switch).split():
        if _tool("ovs-vsctl", "get", "interface", name, "ofport").strip() == str(number):
            return name
    raise NotSeen(f"switch {switch} has no port {number}")


def _tool(*words: str) -> str:
    return subprocess.run(words, capture_output=True, text=True, timeout=10, check=True).stdout


class Parcel:
    """Any bytes, sent by a terminal to the nearest one of a role; ``sha256`` of what left."""

    def __init__(self, network: StandingNetwork, sender: str, size: int, role: str) -> None:
        self.network, self.sender, self.size = network, sender, size
        sent = network.at(sender, "send", bytes=size, role=role)
        self.object_id, self.sha256 = sent["object_id"], sent["sha256"]

    def said(self, kind: str, timeout_s: float = 30.0, **match: Any) -> Event:
        return self.network.wait_for(kind, timeout_s, object_id=self.object_id, **match)

    @property
    def rendezvous(self) -> str:
        """Where it goes now, by the word of the DCC there."""
        steered = self.network.events("object.steered", object_id=self.object_id)
        return next((str(e.data["node"]) for e in reversed(steered) if e.data["node"]), "")

    def under_way(self, share: float) -> str:
        """Wait until its rendezvous has taken some of it; returns who that is."""
        node = self.network.wait_until(lambda: self.rendezvous or None, 10.0, "a rendezvous")
        before = self.network.state(node)["transport"]["bytes_in"]

        def taken() -> bool | None:
            return self.network.state(node)["transport"]["bytes_in"] - before > share * self.size or None

        self.network.wait_until(taken, 30.0, f"{share:.0%} of it at {node}")
        return node

    def kept(self, timeout_s: float = 40.0) -> Event:
        """Wait until it is whole somewhere, and check its bytes against those that left."""
        kept = self.said("parcel.kept", timeout_s)
        assert (kept.data["bytes"], kept.data["sha256"]) == (self.size, self.sha256)
        return kept

    def cost(self) -> tuple[int, int]:
        """Return (packets the sender needed, packets that the object has)."""
        return int(self.said("object.delivered").data["packets"]), -(-self.size // SHARD_BYTES)


@contextlib.contextmanager
def standing(
    scenario: Path | Mapping[str, Any], folder: Path, *options: str, timeout_s: float = UP_TIMEOUT_S
) -> Iterator[StandingNetwork]:
    """Bring a scenario's network up, and take it down again whatever happens. Results go to ``folder/result``.

    A scenario that is no file yet is written into the folder.
    """
    result = folder / "result"
    if not isinstance(scenario, Path):
        file = folder / f"{scenario['name']}.yaml"
        file.write_bytes(msgspec.yaml.encode(scenario))
        scenario = file
    words = ("up", str(scenario), "--detach", "--no-page", "--run-dir", str(result), *options)
    environment = os.environ | {"PYTHONPATH": str(PROJECT)}

    def daitn(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            python("experiments.cli", *arguments), cwd=folder, env=environment, capture_output=True, text=True,
            timeout=timeout_s,
        )  # fmt: skip

    up = daitn(*words)
    if up.returncode:
        raise NotSeen(f"daitn up failed: {up.stderr or up.stdout}")
    try:
        yield StandingNetwork(result, request("status", 10.0)["run"])
    finally:
        daitn("down")
