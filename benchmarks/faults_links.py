"""Links cut under traffic: how long packets find no way, and whether transfers come whole.

    make bench-faults-links                      # 100 cuts
    python -m benchmarks.faults_links --cuts 20

Two K-AS, each a triangle of switches.  Between the owner in one and the MPVU in the other a probe goes every
millisecond, both ways (ordinary UDP), and at each cut an object is on its way, too (label traffic).  A cut takes one
end of a link down that all of them cross (the other end loses its carrier); which of the links, and which of its ends,
changes from cut to cut.  Every tenth cut finds the control centres stopped (SIGSTOP): the switches are alone.

``reroute_p50_ms``, ``reroute_p99_ms``: of the worse of both ways, from the moment at which the first probe that is lost
was sent to the moment at which the first one sent after the last lost one arrives.  ``alone_p99_ms``: the same where
the control centres were stopped.  ``lost_transfers``: objects that did not come whole, byte by byte.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.common import PROJECT, NotSeen, finish, python, run_main, say
from benchmarks.standing import Parcel, StandingNetwork, standing
from topologies.machine import netns
from topologies.plan import interface_name

SCENARIO = """
name: cuts
description: Two K-AS, each a triangle of switches, whose links are cut.
network:
  kas:
    1: {data: 1, compute: 1, model_owner: 1, mdfp: 1}
    2: {data: 2, compute: 1, mpvu: 1}
  wan:
    - {a: 1, b: 2, rate_mbps: 50, delay_ms: 0}
  access_mbps: 100
data: {name: vignettes, alpha: 0.15}
jobs:
  - {task: vignettes, broad_accuracy: 0.5}
"""
PORT = 9901
PROBE = struct.Struct("!Iq")  # number, when it was sent: nanoseconds, wall clock
ROW = struct.Struct("!IIqq")  # stream, number, sent, arrived
EVERY_S = 0.001
BYTES = 4 << 20
AFTER_S = 0.6  # probes are looked at for so long after a cut
COMPLETE_S = 30.0
ALONE_EVERY = 10
SO_TIMESTAMPNS = 35


class Probe(NamedTuple):
    """One probe of a stream that arrived (the kernel's word for when)."""

    stream: int
    number: int
    sent_ns: int
    arrived_ns: int


class Cut(NamedTuple):
    """One cut: when, where, whether the control centres were stopped, and whether the object came whole."""

    at_ns: int
    interface: str
    alone: bool
    whole: bool


# --- the probes: a process of its own, with a socket in each of two namespaces


def stream(number: int, source: int, target: int, address: str, log: Path) -> None:
    """Send a probe a millisecond from one namespace to another, and write down those that arrive, until stdin ends."""
    out, into = netns.inside(source, _socket), netns.inside(target, _socket)
    into.bind((address, PORT))
    into.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
    into.settimeout(0.5)
    over = threading.Event()

    def take() -> None:
        with log.open("wb") as file:
            while not over.is_set():
                with contextlib.suppress(TimeoutError):
                    data, told, _, _ = into.recvmsg(64, 128)
                    seconds, nanoseconds = struct.unpack("qq", told[0][2][:16])
                    file.write(ROW.pack(number, *PROBE.unpack(data), seconds * 10**9 + nanoseconds))

    taker = threading.Thread(target=take)
    taker.start()
    due, count = time.monotonic(), 0

    def end() -> None:
        sys.stdin.read()
        over.set()

    threading.Thread(target=end, daemon=True).start()
    while not over.is_set():
        with contextlib.suppress(OSError):
            out.sendto(PROBE.pack(count, time.time_ns()), (address, PORT))
        count += 1
        due += EVERY_S
        time.sleep(max(0.0, due - time.monotonic()))
    taker.join()


def _socket() -> socket.socket:
    return socket.socket(socket.AF_INET, socket.SOCK_DGRAM)


@contextlib.contextmanager
def probing(net: StandingNetwork, a: str, b: str, folder: Path) -> Iterator[list[Path]]:
    """Have probes go both ways between two terminals; yield the files that tell of them, whole at the end."""
    hosts = {h["name"]: h["address"] for h in net.events("network.up")[0].data["plan"]["hosts"]}
    logs, children = list[Path](), list[subprocess.Popen[bytes]]()
    for number, (source, target) in enumerate([(a, b), (b, a)]):
        logs.append(folder / f"probes{number}")
        words = [number, net.pid(source), net.pid(target), hosts[target], logs[-1]]
        command = python("benchmarks.faults_links", "--stream", *map(str, words))
        environment = os.environ | {"PYTHONPATH": str(PROJECT)}
        children.append(subprocess.Popen(command, stdin=subprocess.PIPE, env=environment, cwd=PROJECT))
    try:
        yield logs
    finally:
        for child in children:
            child.communicate(timeout=10)


# --- the cuts


def crossed(net: StandingNetwork, a: str, b: str) -> list[str]:
    """Return both interfaces of each link that the way between two terminals crosses inside their K-AS."""
    plan = net.events("network.up")[0].data["plan"]
    at = {h["name"]: h["switch"] for h in plan["hosts"]}
    gateways = {s["kas"]: s["name"] for s in plan["switches"] if s["gateway"]}
    found = []
    for name in (a, b):
        kas = next(h["kas"] for h in plan["hosts"] if h["name"] == name)
        link = next((x for x in plan["links"] if {x["a"], x["b"]} == {at[name], gateways[kas]}), None)
        if link is None:
            raise NotSeen(f"{at[name]} has no link to its gateway: choose terminals elsewhere")
        found += [interface_name(link["a"], link["a_port"]), interface_name(link["b"], link["b_port"])]
    return found


def controllers(net: StandingNetwork) -> list[int]:
    """Return the processes of the control centres, by the marks that they leave when they are ready."""
    return [int(path.read_text()) for path in net.runtime.glob("dcc*.ready")]


def cut(net: StandingNetwork, interface: str, sender: str, *, alone: bool) -> Cut:
    """Cut one link in the middle of a transfer; it is whole again at the end, and so is the link."""
    parcel = Parcel(net, sender, BYTES, "mpvu")
    parcel.under_way(0.2)
    stopped = controllers(net) if alone else []
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    try:
        at_ns = time.time_ns()
        _set(interface, "down")
        time.sleep(AFTER_S)  # the window that is looked at, not a wait for anything
    finally:
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)
    try:
        kept = parcel.said("parcel.kept", COMPLETE_S)
        whole = (kept.data["bytes"], kept.data["sha256"]) == (parcel.size, parcel.sha256)
    except NotSeen as error:
        say(f"{interface}: {error}")
        whole = False
    _set(interface, "up")
    return Cut(at_ns, interface, alone, whole)


def _set(interface: str, state: str) -> None:
    subprocess.run(["ip", "link", "set", interface, state], check=True, timeout=10)


# --- what the probes tell


def read(logs: Sequence[Path]) -> list[Probe]:
    """Read what the streams wrote down."""
    return [Probe(*row) for log in logs for row in ROW.iter_unpack(log.read_bytes()[: log.stat().st_size // 24 * 24])]


def outage_ms(probes: Sequence[Probe], at_ns: int, number: int) -> tuple[float, int]:
    """Return how long a stream was without a way after a cut, and how many of its probes were lost."""
    end_ns = at_ns + int(AFTER_S * 1e9)
    mine = sorted(p for p in probes if p.stream == number and at_ns - 50_000_000 <= p.sent_ns <= end_ns)
    if not mine or end_ns - mine[-1].sent_ns > 50_000_000:  # no way to the end of the window
        silent_ms = (end_ns - mine[-1].sent_ns) / 1e6 if mine else AFTER_S * 1e3
        return silent_ms, round(silent_ms / (EVERY_S * 1e3))
    gaps = [(a, b) for a, b in pairwise(mine) if b.number != a.number + 1]
    if not gaps:
        return 0.0, 0
    lost_ms = (gaps[-1][1].arrived_ns - gaps[0][0].sent_ns) / 1e6 - EVERY_S * 1e3
    return lost_ms, sum(b.number - a.number - 1 for a, b in gaps)


def measure(cuts: int) -> dict[str, Any]:
    """Cut links so many times and return the figures."""
    with tempfile.TemporaryDirectory(prefix="daitn-cuts-") as name:
        folder = Path(name)
        scenario = folder / "cuts.yaml"
        scenario.write_text(SCENARIO)
        with standing(scenario, folder) as net, probing(net, "owner1", "mpvu2", folder) as logs:
            ends = crossed(net, "owner1", "mpvu2")
            done = [
                cut(net, ends[n % len(ends)], "owner1", alone=n % ALONE_EVERY == ALONE_EVERY - 1) for n in range(cuts)
            ]
        probes = read(logs)
    return figures(done, probes)


def figures(cuts: Sequence[Cut], probes: Sequence[Probe]) -> dict[str, Any]:
    """Return the result."""
    worst, lost = list[float](), list[int]()
    for one in cuts:
        both = [outage_ms(probes, one.at_ns, number) for number in (0, 1)]
        worst.append(max(ms for ms, _ in both))
        lost.append(sum(count for _, count in both))
    alone = [ms for ms, one in zip(worst, cuts, strict=True) if one.alone]
    return {
        "cuts": len(cuts),
        "reroute_p50_ms": percentile(worst, 50),
        "reroute_p99_ms": percentile(worst, 99),
        "reroute_max_ms": percentile(worst, 100),
        "alone_p50_ms": percentile(alone, 50),
        "alone_p99_ms": percentile(alone, 99),
        "probes_lost_a_cut": round(sum(lost) / max(1, len(lost)), 2),
        "lost_transfers": sum(not one.whole for one in cuts),
    }


def percentile(values: Sequence[float], share: float) -> float | None:
    """Return the value that ``share`` per cent are not above (nearest rank)."""
    ordered = sorted(values)
    return round(ordered[max(0, -(-len(ordered) * int(share) // 100) - 1)], 2) if ordered else None


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; exit status 1 when a transfer was lost."""
    parser = argparse.ArgumentParser(prog="benchmarks.faults_links", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cuts", type=int, default=100, help="how many cuts (default %(default)s)")
    parser.add_argument("--stream", nargs=5, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.stream:
        number, source, target, address, log = options.stream
        stream(int(number), int(source), int(target), address, Path(log))
        return 0
    result = measure(options.cuts)
    finish(result)
    return 0 if not result["lost_transfers"] else 1


if __name__ == "__main__":
    run_main(main)
