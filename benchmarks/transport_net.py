"""The network of the transport benchmark: two K-AS, a path over two switches and one over four, agents and iperf3.

 near (a) -- k1s1 -- k1g ----- k2g -- k2s1 -- far (c)
                      |         |
                 middle (b)   side (d)

a to b crosses two switches, a to c four.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

import msgspec

from benchmarks.common import PROJECT, last_words
from packets.security.identity import Directory, Identity
from topologies.build import Rates, Terminal, Wan, build_plan
from topologies.machine import shell
from topologies.network import Network
from topologies.plan import NetworkPlan, interface_name

IPERF_PORT = 5201
READY_S = 30.0
FAST_MBPS = 10_000.0
PLENTY_S = 300.0


class NotReached(Exception):
    """The terminals do not reach each other."""


class Flow(NamedTuple):
    """What one transfer, ours or TCP's, came to; ``cpu_s``: of both ends' processes, user and system."""

    goodput_mbps: float
    cpu_s: float
    bytes: int
    repeated: int = 0
    rtt_ms: float = 0.0


def plan_of(rate_mbps: float | None, *, wan_delay_ms: float = 0.0, wan_loss_percent: float = 0.0) -> NetworkPlan:
    """Return the plan, every link at one rate (None: as fast as it goes)."""
    rate = rate_mbps or FAST_MBPS
    wan = Wan(1, 2, rate_mbps=rate, delay_ms=wan_delay_ms, loss_percent=wan_loss_percent)
    rates = Rates(access_mbps=rate, lan_mbps=rate, wan_mbps=rate)
    kas = {1: [Terminal("a", switch=1), Terminal("b", switch=2)], 2: [Terminal("c", switch=1), Terminal("d", switch=2)]}
    return build_plan("bench", kas=kas, wan=[wan], rates=rates, access_switches=1)


class Bench:
    """The standing network with one agent in each terminal that was asked for."""

    def __init__(self, plan: NetworkPlan, folder: Path, *, shaped: bool, keys: bool = False) -> None:
        self.plan, self.folder, self.shaped = plan, folder, shaped
        self._port = _free_port()
        self.net = Network(plan, f"bench{os.getpid()}", dict.fromkeys(plan.kas_numbers, self._port), folder / "run")
        self.address = {host.name: host.address for host in plan.hosts}
        self._ends: dict[str, Any] = {}  # Popen[str]
        self._dcc: subprocess.Popen[bytes] | None = None
        self._iperf: list[subprocess.Popen[bytes]] = []
        self._objects = 0
        self._keys = self._make_keys() if keys else {}

    def _make_keys(self) -> dict[str, list[str]]:
        """Give each terminal an identity, and all of them one directory: what a run of the product does."""
        people = [Identity.new(h.name, "data", h.address, number) for number, h in enumerate(self.plan.hosts, 1)]
        directory = self.folder / "directory.json"
        Directory(person.certificate for person in people).save(directory)
        for person in people:
            person.save(self.folder / f"{person.certificate.name}.json")
        return {h.name: [str(self.folder / f"{h.name}.json"), str(directory)] for h in self.plan.hosts}

    def start(self) -> None:
        """Bring it up; return when the terminals reach each other."""
        path = self.folder / "plan.json"
        path.write_bytes(msgspec.json.encode(self.plan.domain()))
        command = [sys.executable, "-m", "controller", "--plan", str(path), "--openflow-port", str(self._port)]
        log = (self.folder / "dcc.log").open("wb")
        self._dcc = subprocess.Popen(command, cwd=PROJECT, stdout=log, stderr=log, start_new_session=True)
        self.net.start()
        if not self.shaped:
            self._unshape()
        self._wait_ready()

    def _unshape(self) -> None:
        for link in self.plan.links:
            shell.run("tc", "qdisc", "del", "dev", interface_name(link.b, link.b_port), "root")
            a = interface_name(link.a, link.a_port)
            if link.a in self.address:
                self.net[link.a].cmd(f"tc qdisc del dev {a} root")
            else:
                shell.run("tc", "qdisc", "del", "dev", a, "root")

    def _wait_ready(self) -> None:
        end = time.monotonic() + READY_S
        for name in ("b", "c", "d"):
            while "1 received" not in self.net["a"].cmd(f"ping -c1 -W1 -q {self.address[name]}"):
                if time.monotonic() > end:
                    words = last_words(self.folder / "dcc.log")
                    raise NotReached(
                        f"a does not reach {name} within {READY_S:.0f} s; the controller's last words: {words}"
                    )

    def stop(self) -> None:
        """Take everything down."""
        for process in self._ends.values():
            assert process.stdin is not None
            with contextlib.suppress(OSError):
                process.stdin.close()
        for process in [*self._ends.values(), *self._iperf, *([self._dcc] if self._dcc else [])]:
            if process.poll() is None:
                process.terminate()
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(5)
        self.net.stop()

    # --- ours -----------------------------------------------------------------------------------------------------

    def ask(self, name: str, *words: object) -> dict[str, Any]:
        """Tell an end something and return its answer."""
        self.tell(name, *words)
        return self.hear(name)

    def tell(self, name: str, *words: object) -> None:
        """Tell an end something; ``hear`` will have the answer."""
        stdin = self._end(name).stdin
        assert stdin is not None
        stdin.write(" ".join(map(str, words)) + "\n")
        stdin.flush()

    def hear(self, name: str) -> dict[str, Any]:
        """Return the next answer of an end."""
        stdout: IO[str] | None = self._end(name).stdout
        assert stdout is not None
        line = stdout.readline()
        if not line:
            raise RuntimeError(f"the end at {name} has ended; log: {self.folder / name}.log")
        found: dict[str, Any] = json.loads(line)
        return found

    def _end(self, name: str) -> Any:
        if name not in self._ends:
            command = [sys.executable, "-m", "benchmarks.transport_end", self.address[name], *self._keys.get(name, [])]
            with (self.folder / f"{name}.log").open("wb") as log:
                end = self.net[name].popen(
                    command, cwd=str(PROJECT), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
                )
            self._ends[name] = end
            self.hear(name)
        return self._ends[name]

    def new_object(self) -> int:
        """Return an object id that was not used before."""
        self._objects += 1
        return 0x1_0000_0000 + self._objects

    def ours(self, source: str, target: str, size: int) -> Flow:
        """Send an object from one terminal to another."""
        self.ask(source, "prepare", size)
        before = self.ask(source, "cpu")["cpu_s"] + self.ask(target, "cpu")["cpu_s"]
        stats = self.ask(source, "send", self.address[target], size, self.new_object())
        used = self.ask(source, "cpu")["cpu_s"] + self.ask(target, "cpu")["cpu_s"] - before
        return Flow(stats["goodput_mbps"], used, size, stats["retransmissions"], stats["rtt_ms"])

    # --- TCP ------------------------------------------------------------------------------------------------------

    def tcp(self, source: str, target: str, *, size: int = 0, seconds: float = 0.0) -> Flow:
        """Send as many bytes, or for as long, by iperf3's TCP with CUBIC."""
        server = self.tcp_server(target)
        client = self.tcp_client(source, target, size=size, seconds=seconds)
        return self.tcp_result(client, server)

    def tcp_server(self, target: str) -> subprocess.Popen[bytes]:
        words = ["iperf3", "-s", "-1", "-B", self.address[target], "-p", str(IPERF_PORT), "--forceflush"]
        server: subprocess.Popen[bytes] = self.net[target].popen(
            words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        self._iperf.append(server)
        assert server.stdout is not None
        for line in server.stdout:
            if b"Server listening" in line:
                break
        return server

    def tcp_client(self, source: str, target: str, *, size: int = 0, seconds: float = 0.0) -> subprocess.Popen[bytes]:
        words = ["iperf3", "-c", self.address[target], "-p", str(IPERF_PORT), "-C", "cubic", "-J"]
        words += ["-n", str(size)] if size else ["-t", f"{seconds:g}"]
        client: subprocess.Popen[bytes] = self.net[source].popen(
            words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        self._iperf.append(client)
        return client

    def tcp_result(self, client: subprocess.Popen[bytes], server: subprocess.Popen[bytes]) -> Flow:
        assert client.stdout is not None and server.stdout is not None
        report = json.loads(client.stdout.read())
        if "error" in report:
            raise RuntimeError(f"iperf3: {report['error']}")
        server.stdout.read()
        self._iperf = [process for process in self._iperf if process not in (client, server)]
        used = _cpu_of(client) + _cpu_of(server)
        end = report["end"]
        received = end["sum_received"]
        rtt_ms = end["streams"][0]["sender"].get("min_rtt", 0) / 1e3
        return Flow(received["bits_per_second"] / 1e6, used, received["bytes"], end["sum_sent"]["retransmits"], rtt_ms)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def _cpu_of(process: subprocess.Popen[bytes]) -> float:
    """Wait for a process and return the CPU seconds that it used."""
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return usage.ru_utime + usage.ru_stime


@contextlib.contextmanager
def standing(plan: NetworkPlan, *, shaped: bool = True, keys: bool = False) -> Iterator[Bench]:
    """Yield a standing network with its agents; nothing of it is left afterwards."""
    with tempfile.TemporaryDirectory(prefix="daitn-bench-") as folder:
        bench = Bench(plan, Path(folder), shaped=shaped, keys=keys)
        try:
            bench.start()
            yield bench
        finally:
            bench.stop()
