"""Background traffic: an iperf3 server and client a pair, in the hosts' namespaces; what came through is measured."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.scenarios.background import Pair
from experiments.testbed.processes import Child

FIRST_PORT = 5201
_SECOND = re.compile(r"sec +[\d.]+ \w?Bytes +([\d.]+) Mbits/sec")


class Background:
    """The flows of ``pairs``; ``place``: {host: (pid in its namespace, address)}."""

    def __init__(self, pairs: Sequence[Pair], place: Mapping[str, tuple[int, str]], logs: Path, run_id: str) -> None:
        self._pairs, self._place, self._logs, self._run_id = pairs, place, logs, run_id
        self._servers: list[Child] = []
        self._clients: list[Child] = []

    def start(self, wait: Callable[[str, Callable[[], bool]], None]) -> None:
        """Start every server, then, once they listen (``wait`` waits for it), every client."""
        for number, pair in enumerate(self._pairs):
            words = ["-s", "-p", str(FIRST_PORT + number), "-i", "1", "-f", "m", "--forceflush"]
            self._servers.append(self._child(f"background{number}-to", pair.receiver, words))
        wait("the receivers of background traffic", lambda: all(_listens(s.log) for s in self._servers))
        for number, pair in enumerate(self._pairs):
            self._clients.append(self._child(f"background{number}-from", pair.sender, self._sends(number, pair)))

    def _sends(self, number: int, pair: Pair) -> list[str]:
        words = ["-c", self._place[pair.receiver][1], "-p", str(FIRST_PORT + number), "-t", "0", "-i", "0"]
        rate = ["-b", f"{pair.rate_mbps:g}M"] if pair.rate_mbps else []
        return [*words, *rate, *(["-u"] if pair.protocol == "udp" else [])]

    def _child(self, name: str, host: str, words: list[str]) -> Child:
        pid = self._place[host][0]
        command = ["nsenter", f"--net=/proc/{pid}/ns/net", "iperf3", *words]
        child = Child(name, command, self._logs / f"{name}.log", self._run_id)
        child.mortal = True  # a cut link may end it; what came through says so
        return child

    def stop(self) -> None:
        """End them all."""
        for child in [*self._clients, *self._servers]:
            child.stop()

    def measured(self) -> list[dict[str, Any]]:
        """Return, for each pair, what arrived: seconds, and Mbit/s over them."""
        return [self._measured(pair, server.log) for pair, server in zip(self._pairs, self._servers, strict=True)]

    @staticmethod
    def _measured(pair: Pair, log: Path) -> dict[str, Any]:
        rates = seconds_of(log.read_text(errors="replace"))
        mean = sum(rates) / len(rates) if rates else 0.0
        return {
            "from": pair.sender, "to": pair.receiver, "protocol": pair.protocol, "asked_mbps": pair.rate_mbps,
            "seconds": len(rates), "mbps": round(mean, 2),
        }  # fmt: skip


def seconds_of(log: str) -> list[float]:
    """Return the Mbit/s of every whole second that an iperf3 server told of."""
    lines = [line for line in log.splitlines() if not line.rstrip().endswith(("receiver", "sender"))]
    return [float(found[1]) for line in lines if (found := _SECOND.search(line))]


def _listens(log: Path) -> bool:
    return log.exists() and "Server listening" in log.read_text(errors="replace")
