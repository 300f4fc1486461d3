"""Control centres killed under transfers, training and queries: is anything lost, how long are they away?

    make bench-faults                      # 100 kills, 100 cut links
    python -m benchmarks.faults --kills 20

Four K-AS. Jobs are trained one after the other, parcels travel, four askers put queries to two deployed models, and two
streams of numbered packets go from the fourth K-AS to the third (by a link that no model fills, whose queue so drops
nothing): ordinary UDP, and to a deployed model's label.  Meanwhile one control centre after the other (drawn by
``--seed``) is ended by SIGKILL, at a moment drawn, too; and the last few times its parent, with it.

``reconnect_p50_s``, ``reconnect_p99_s``: from the kill until every switch of that K-AS has its rules confirmed and
every agent of it has registered, by the agents' own word.  ``jobs_lost``: jobs that did not come home trained;
``transfers_lost``: parcels that did not come whole, byte by byte.  ``queries_lost``: without any answer;
``queries_refused``: with a refusal.  ``packets_lost_installed``: of both streams; ``packets_lost_quiet``: in the
``quiet_s`` before the first kill.  ``cuts``, ``reroute_p99_ms``: of ``benchmarks.faults_links``.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import signal
import socket
import struct
import subprocess
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import faults_links
from benchmarks.common import NotSeen, finish, run_main, say
from benchmarks.queries_net import begin, deployed, ended, kas_of, terminals, trained
from benchmarks.standing import Parcel, StandingNetwork, standing
from experiments.commands.client import request
from experiments.errors import ExperimentError
from experiments.load import AHEAD_S
from experiments.scenarios.queries import QueriesSpec
from hosts.inference import asked
from packets.labels import AI_PORT, label_address
from packets.wire import Header, PacketType, decode, encode
from topologies.machine import netns

TASK = "vignettes"
SCENARIO = {
    "name": "faults",
    "network": {
        "kas": {
            1: {"data": 2, "compute": 1, "mpvu": 1, "mdfp": 1, "model_owner": 1, "query_owner": 1},
            2: {"data": 2, "compute": 1, "mpvu": 1, "query_owner": 1},
            3: {"data": 1, "compute": 1, "mdfp": 1, "query_owner": 1},
            4: {"query_owner": 1},
        },
        "wan": [
            {"a": 1, "b": 2, "rate_mbps": 50, "delay_ms": 3},
            {"a": 2, "b": 3, "rate_mbps": 50, "delay_ms": 3},
            {"a": 3, "b": 1, "rate_mbps": 50, "delay_ms": 3},
            {"a": 4, "b": 3, "rate_mbps": 50, "delay_ms": 0},
        ],
    },
    "data": {"name": TASK, "alpha": 1.0},
    "jobs": [{"task": TASK, "broad_accuracy": 0.5, "max_visits": 2}],
}  # fmt: skip
JOB = {"task": TASK, "broad_accuracy": 0.4, "expert_group": None, "expert_accuracy": 0.0, "max_visits": 4,
       "deadline_s": 120.0}  # fmt: skip
PAUSES_S = 1.2, 2.2  # between two kills, drawn
BACK_S = 20.0
QUERIES_PER_S = 20.0
PARCEL_BYTES = 2 << 20
EVERY_S = 0.01  # between two packets of a stream
PORT = 9902
IPV4, IP_BYTES, UDP_BYTES = 0x0800, 20, 8
SOL_PACKET, PACKET_STATISTICS = 263, 6  # linux/if_packet.h
LAST_S = 1.0  # packets of a stream take no longer than that


class Stream:
    """Numbered packets from one terminal to another (or to a label that leads there); counts what arrives."""

    def __init__(self, net: StandingNetwork, source: str, target: str, label: int = 0) -> None:
        self._address = {h["name"]: h["address"] for h in net.events("network.up")[0].data["plan"]["hosts"]}
        self._to = (label_address(label), AI_PORT) if label else (self._address[target], PORT)
        self._source, self.sent_s, self._seen = self._address[source], list[float](), set[int]()
        self._over = threading.Event()
        self._out = netns.inside(net.pid(source), lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        self._in = netns.inside(net.pid(target), _sniffer if label else lambda: _bound(self._address[target]))
        self._in.settimeout(0.2)
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._send, self._take)]
        for thread in self._threads:
            thread.start()

    def _send(self) -> None:
        due_s = time.monotonic()
        while not self._over.is_set():
            # a knock: whoever lives takes no notice of it
            self._out.sendto(encode(Header(type=PacketType.PROBE, transfer_id=len(self.sent_s)), b""), self._to)
            self.sent_s.append(time.time())
            due_s += EVERY_S
            time.sleep(max(0.0, due_s - time.monotonic()))

    def _take(self) -> None:
        end_s = float("inf")
        while time.monotonic() < end_s:
            if self._over.is_set() and end_s == float("inf"):
                end_s = time.monotonic() + LAST_S
            with contextlib.suppress(TimeoutError):
                packet = self._in.recv(2048)
                if self._in.family != socket.AF_PACKET:
                    self._seen.add(decode(packet)[0].transfer_id)
                elif packet[9] == socket.IPPROTO_UDP and socket.inet_ntoa(packet[12:16]) == self._source:
                    port = int.from_bytes(packet[IP_BYTES + 2 : IP_BYTES + 4], "big")
                    if port == self._to[1]:
                        header, _ = decode(packet[IP_BYTES + UDP_BYTES :])
                        if header.type is PacketType.PROBE:
                            self._seen.add(header.transfer_id)

    def end(self) -> list[float]:
        """Return when the packets were sent that were lost."""
        self._over.set()
        for thread in self._threads:
            thread.join(5.0)
        if self._in.family == socket.AF_PACKET:
            seen, dropped = struct.unpack("II", self._in.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8))
            say(f"the listener at the label's end: {seen} frames, {dropped} of them dropped before it took them")
        return [at_s for number, at_s in enumerate(self.sent_s) if number not in self._seen]


def _bound(address: str) -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.bind((address, PORT))
    return made


def _sniffer() -> socket.socket:
    return socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(IPV4))


class Again:
    """Something done over and over in a thread until it is told to end; counts how often, and what went wrong."""

    def __init__(self, work: Callable[[], None]) -> None:
        self.done, self.failed = 0, list[str]()
        self._work, self._over = work, threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._over.is_set():
            self.done += 1
            try:
                self._work()
            except (ExperimentError, NotSeen, AssertionError, OSError) as error:
                self.failed.append(" ".join(str(error).split())[:300])
                say(f"lost: {self.failed[-1]}")

    def end(self) -> None:
        """Return when what is under way is over."""
        self._over.set()
        self._thread.join(180.0)
        if self._thread.is_alive():
            self.failed.append("what was under way has no end")


def job() -> None:
    """Train a job and see it home."""
    found = request("submit", 150.0, spec={**JOB, "seed": 1})
    if not found["targets_met"]:
        raise NotSeen(f"a job ended without its targets: {found}")


def parcel(net: StandingNetwork, sender: str) -> None:
    """Send a parcel to a compute facility, and hold its bytes against those that left."""
    Parcel(net, sender, PARCEL_BYTES, "compute").kept(60.0)


def agents(net: StandingNetwork, kas: int) -> set[str]:
    """Return the terminals of a K-AS that have an agent."""
    return {e.data["name"] for e in net.events("agent.ready") if e.data["kas"] == kas}


def kill(net: StandingNetwork, kas: int, who: str) -> float:
    """End a control centre; return how many seconds it was away."""
    mark = net.runtime / f"dcc{kas}.ready"
    wanted, pid = agents(net, kas), int(mark.read_text())
    os.kill(_parent(pid) if who == "parent" else pid, signal.SIGKILL)
    at_s = time.time()

    def back() -> float | None:
        ready = [e.t_unix_s for e in net.events("dcc.ready", kas=kas) if e.t_unix_s > at_s]
        heard = {e.data["name"]: e.t_unix_s for e in net.events("agent.ready", kas=kas) if e.t_unix_s > at_s}
        return max(ready[0], *heard.values()) - at_s if ready and wanted <= heard.keys() else None

    took_s = net.wait_until(back, BACK_S, f"K-AS {kas} after its control centre was killed")
    return took_s


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])


@contextlib.contextmanager
def under_way(net: StandingNetwork, seconds: float) -> Iterator[dict[str, Any]]:
    """Have jobs, parcels, queries and streams under way; what came of them is in what is yielded, at the end."""
    labels = deployed(net, trained(net), 2)
    askers, kas, found = terminals(net, "query_owner"), kas_of(net), dict[str, Any]()
    begin(net, askers, QueriesSpec(rate_per_s=QUERIES_PER_S, seconds=seconds), 1)
    time.sleep(AHEAD_S + 3.0)  # until every K-AS has had its first query, and has led the models' labels
    asker, node = next(a for a in askers if kas[a] == 4), next(n for n in labels if kas[n] == 3)
    near = next(a for a in askers if kas[a] == 3)
    streams = {"ordinary": Stream(net, asker, near), "label": Stream(net, asker, node, labels[node])}
    works = {"jobs": Again(job), "transfers": Again(lambda: parcel(net, terminals(net, "model_owner")[0]))}
    yield found
    for name, work in works.items():
        work.end()
        found |= {name: work.done, f"{name}_lost": len(work.failed)}
    lost = {name: stream.end() for name, stream in streams.items()}
    found |= {"packets": sum(len(s.sent_s) for s in streams.values()), "lost_at": lost}
    rows = ended(net, askers)
    whole, outcomes = asked.summary(rows), Counter(r.outcome for r in rows)
    found |= {"queries": len(rows), "queries_lost": whole["lost"], "queries_refused": whole["refused"]}
    say(f"queries: {dict(outcomes)}")


def measure(kills: int, parents: int, seed: int, folder: Path, quiet_s: float = 60.0) -> dict[str, Any]:
    """Kill control centres on one network, after a time without kills; return the figures."""
    drawn, away, slow, killed = random.Random(seed), list[float](), list[float](), list[float]()
    with standing(SCENARIO, folder) as net:
        seconds = (kills + parents) * (sum(PAUSES_S) / 2 + 0.8) + 30.0 + quiet_s
        began_s = time.monotonic()
        with under_way(net, seconds) as found:
            time.sleep(quiet_s)
            first_s = time.time()
            for number in range(kills + parents):
                time.sleep(drawn.uniform(*PAUSES_S))
                who = "child" if number < kills else "parent"
                killed.append(time.time())
                took_s = kill(net, drawn.choice((1, 2, 3, 4)), who)
                (away if who == "child" else slow).append(took_s)
                say(f"kill {number + 1} ({who}): away for {took_s:.3f} s")
            time.sleep(max(0.0, seconds + AHEAD_S + 4.0 - (time.monotonic() - began_s)))
        errors = [e.data["text"] for e in net.events("error")]
        say(_dropped())
    lost = found.pop("lost_at")
    before = [t for times in lost.values() for t in times if t < first_s]
    found |= {"quiet_s": quiet_s, "packets_lost_quiet": len(before)}
    lost = {name: [t for t in times if t >= first_s] for name, times in lost.items()}
    for name, times in lost.items():
        since = [round(t - max((k for k in killed if k <= t), default=0.0), 2) for t in times]
        say(f"{name}: {len(times)} lost, so many seconds after a kill: {since}")
    for text, count in Counter(t[:160] for t in errors).most_common(12):
        say(f"error ({count}): {text}")
    return {
        "kills": kills, **found, "packets_lost_installed": sum(map(len, lost.values())),
        "reconnect_p50_s": _percentile(away, 50), "reconnect_p99_s": _percentile(away, 99),
        "reconnect_max_s": _percentile(away, 100), "parents": parents, "reconnect_parent_max_s": _percentile(slow, 100),
        "errors": len(errors),
    }  # fmt: skip


def _dropped() -> str:
    """Return what Open vSwitch itself says that its datapath has dropped."""
    done = subprocess.run(["ovs-appctl", "coverage/show"], capture_output=True, text=True, timeout=10, check=False)
    found = [line for line in done.stdout.splitlines() if "drop" in line or "upcall" in line]
    return "; ".join(" ".join(line.split()) for line in found)


def _percentile(values: list[float], share: float) -> float | None:
    return round(float(np.percentile(values, share)), 3) if values else None


def main() -> int:
    """Print what was measured; 1 when something was lost."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.faults", description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--parents", type=int, default=3, help="kills of the process that starts control centres again")
    parser.add_argument("--cuts", type=int, default=100, help="of links; 0: none")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="daitn-faults-") as folder:
        result = measure(options.kills, options.parents, options.seed, Path(folder))
    result |= faults_links.measure(options.cuts) if options.cuts else {}
    finish(result)
    lost = ("jobs_lost", "transfers_lost", "queries_lost", "packets_lost_installed")
    return int(any(result[name] for name in lost))


if __name__ == "__main__":
    run_main(main)
