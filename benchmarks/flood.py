"""A flood of packets that must be refused, beside a live transfer: what does it cost, and is each of them counted?

    make bench-flood           about four minutes; the last line is JSON

::

    a (sender) -- k1s1 -- k1g --50 Mbit/s, 10 ms-- k2g -- k2s1 -- c (receiver)
    b (another) --'                                          `----- x (attacker)

Transfers of one size, alternately left alone and attacked.  The attacker has keys of its own, has seen the launch of
the transfer under way, and sends from any address (the control centre runs with ``--any-source``, or the first switch
would stop that): altered, truncated, replayed, expired, unsigned and wrong-owner packets to the receiver, and forged
launches to the object's label, which go up to the control centre.

Every packet of the attack is followed up: left the attacker, came to the receiver's IP stack (counted there by
nftables, by DSCP), refused by reason (counted by the endpoint), dropped at its socket (counted by the kernel); those
to the label: dropped by the switch's meter, refused by the control centre.

Then, with switches that do stop it, a port that floods its control centre and forges whole frames: ``flood_guard``;
and a terminal that lies: ``flood_lies``.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from benchmarks import flood_guard, flood_lies
from benchmarks.common import PROJECT, finish, run_main, say
from benchmarks.flood_attack import DSCP
from experiments.testbed.identities import Identities
from packets.events import decode_event
from topologies.build import Rates, Terminal, Wan, build_plan
from topologies.machine import shell
from topologies.network import Network
from topologies.plan import NetworkPlan

OPENFLOW_PORT = 6793
READY_S = 30.0
SIZE = 32_000_000
SMALL = 50_000
RATE_PPS = 10_000
LABEL_SHARE = 0.1
SETTLE_S = 1.5
LIMIT = 0.10
DCC = "dcc1"


def plan_of() -> NetworkPlan:
    """Return the network in the drawing above."""
    kas = {1: [Terminal("a", switch=1), Terminal("b", switch=1)], 2: [Terminal("c", switch=1), Terminal("x", switch=1)]}
    rates = Rates(access_mbps=200.0, lan_mbps=400.0)
    return build_plan("flood", kas=kas, wan=[Wan(1, 2, rate_mbps=50.0, delay_ms=10.0)], rates=rates, access_switches=1)


class Scene:
    """The standing network: control centre, two ends, attacker; everything with keys."""

    def __init__(self, folder: Path) -> None:
        self.plan, self.folder = plan_of(), folder
        self.net = Network(
            self.plan, f"flood{os.getpid()}", dict.fromkeys(self.plan.kas_numbers, OPENFLOW_PORT), folder / "run"
        )
        self.address = {h.name: h.address for h in self.plan.hosts}
        self.identities = Identities(self.plan, folder)
        self.processes: dict[str, Any] = {}
        self._does: dict[str, str] = {}
        self.events = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.events.bind(str(folder / "events.sock"))
        self.dcc_refused: Counter[str] = Counter()
        self.dropped: Counter[str] = Counter()
        self.told: Counter[str] = Counter()
        self.ready = 0
        self._objects = 0
        threading.Thread(target=self._listen, daemon=True).start()

    def start(self) -> None:
        """Bring it up; returns when the ends reach each other."""
        self.any_source = True  # the worst case: switches that do not hold a terminal to its own address
        self._start_control("--any-source")
        self.net.start()
        end = time.monotonic() + READY_S
        while "1 received" not in self.net["a"].cmd(f"ping -c1 -W1 -q {self.address['c']}"):
            if time.monotonic() > end:
                raise RuntimeError(f"c is not reached within {READY_S:.0f} s; log: {self.folder / 'dcc.log'}")
        for name in ("a", "b", "c"):
            self.run(name, "benchmarks.flood_end", self.address[name], DCC)
        self.run("x", "benchmarks.flood_attack")
        self._count_arrivals()

    def _start_control(self, *more: str) -> None:
        plan_file = self.folder / "plan.json"
        plan_file.write_bytes(msgspec.json.encode(self.plan.domain()))
        options = {
            "--plan": plan_file, "--openflow-port": OPENFLOW_PORT, "--events": self.folder / "events.sock",
            **self.identities.controller_options(1),
        }  # fmt: skip
        command = [sys.executable, "-m", "controller", *more, *(str(x) for pair in options.items() for x in pair)]
        with (self.folder / "dcc.log").open("ab") as log:
            self.processes["dcc"] = subprocess.Popen(
                command, cwd=PROJECT, stdout=log, stderr=log, start_new_session=True
            )

    def control(self, *, any_source: bool) -> None:
        """Have another control centre instead, with or without source validation; returns when it is ready."""
        if any_source == self.any_source:
            return
        ready, self.any_source = self.ready, any_source
        end_process(self.processes.pop("dcc"))
        self.dcc_refused.clear()
        self._start_control(*(["--any-source"] if any_source else []))
        self.wait(lambda: self.ready >= ready + len(self.plan.kas_numbers), "the control centre is ready")

    def wait(self, done: Callable[[], bool], what: str) -> None:
        """Wait until something holds; ``RuntimeError`` when it does not."""
        end = time.monotonic() + READY_S
        while not done():
            if time.monotonic() > end:
                raise RuntimeError(f"not within {READY_S:.0f} s: {what}; log: {self.folder / 'dcc.log'}")
            time.sleep(0.05)

    def speaker(self, kas: int) -> str:
        """Return the address of a K-AS's border speaker."""
        return next(s.address for s in self.plan.speakers if s.kas == kas)

    def run(self, name: str, module: str, *arguments: str) -> None:
        """Start a process at a terminal, in the place of the one that was there; the same one goes on."""
        if self._does.get(name) == module:
            return
        self._does[name] = module
        if name in self.processes:
            end_process(self.processes.pop(name))
        with (self.folder / f"{name}.log").open("wb") as log:
            self.processes[name] = self.net[name].popen(
                [sys.executable, "-m", module, *arguments], cwd=str(PROJECT), stdin=subprocess.PIPE,
                stdout=subprocess.PIPE, stderr=log, text=True,
            )  # fmt: skip
        self.tell(name, json.dumps({"keys": self.identities.keys(name), "directory": str(self.identities.directory)}))
        self.hear(name)

    def _count_arrivals(self) -> None:
        """Count the attack's packets as they come to the receiver's IP stack."""
        rules = "add table ip flood; add chain ip flood seen { type filter hook input priority 0; };"
        rules += f" add rule ip flood seen ip dscp {DSCP} counter"
        self.net["c"].cmd(f"nft '{rules}'")

    def arrivals(self) -> int:
        """Return how many packets of the attack came to the receiver so far."""
        found = re.search(r"counter packets (\d+)", self.net["c"].cmd("nft list table ip flood"))
        return int(found[1]) if found else -1

    def socket_drops(self) -> int:
        """Return how many datagrams the receiver's socket had no room for."""
        lines = self.net["c"].cmd("cat /proc/net/udp").splitlines()[1:]
        return sum(int(line.split()[-1]) for line in lines)

    def metered(self) -> int:
        """Return how many packets the meters of the attacker's switch have dropped."""
        host = next(h for h in self.plan.hosts if h.name == "x")
        text = shell.must("ovs-ofctl", "-O", "OpenFlow13", "meter-stats", host.switch, f"meter={host.port}")
        found = re.search(r"bands:\s*\n?\s*0: packet_count:(\d+)", text)
        return int(found[1]) if found else 0

    def _listen(self) -> None:
        """Take the control centre's refusals in, as long as the socket is open."""
        with contextlib.suppress(OSError):
            while data := self.events.recv(1 << 16):
                event = decode_event(data)
                self.ready += event.kind == "dcc.ready"
                if event.kind == "frame.dropped":
                    self.dropped.update(event.data["reasons"])
                if event.kind == "packet.refused":
                    self.told[str(event.data["reason"])] += event.data.get("more", 1)
                    reason = str(event.data["reason"])
                    count = int(event.data.get("total", event.data.get("count", 1)))
                    self.dcc_refused[reason] = max(self.dcc_refused[reason], count)

    # --- talking to the processes

    def tell(self, name: str, line: str) -> None:
        self.processes[name].stdin.write(line + "\n")
        self.processes[name].stdin.flush()

    def hear(self, name: str) -> dict[str, Any]:
        line = self.processes[name].stdout.readline()
        if not line:
            raise RuntimeError(f"the process at {name} has ended; log: {(self.folder / name).read_text()[-2000:]}")
        found: dict[str, Any] = json.loads(line)
        return found

    def ask(self, name: str, line: str) -> dict[str, Any]:
        self.tell(name, line)
        return self.hear(name)

    def pids(self) -> dict[str, int]:
        """Return the process ids of those that must live through it all; ``RuntimeError`` when one has ended."""
        for name, process in self.processes.items():
            if process.poll() is not None:
                raise RuntimeError(f"{name} has ended with status {process.returncode}")
        return {name: process.pid for name, process in self.processes.items()}

    # --- the measurement

    def transfer(self, attack: dict[str, Any] | None, size: int) -> dict[str, Any]:
        """Send one object from a to c, attacked or not; return goodput and, for the attack, what left."""
        self._objects += 1
        seen = self.ask("a", f"begin {self.address['c']} {size} {1 << 20 | self._objects}")
        told: dict[str, Any] = {}
        if attack is not None:
            seconds = size * 8 / 50e6 + 2.0
            what = {**attack, "sender": self.address["a"], "receiver": self.address["c"], "launch": seen["launch"]}
            self.tell("x", f"go {seconds:.2f} {json.dumps(what)}")
            asked = self.ask("c", "ask 10")
            self.ask("b", f"begin {self.address['c']} {SMALL} {1 << 21 | self._objects}")
            other = self.ask("b", "finish")
        stats = self.ask("a", "finish")
        if attack is not None:
            told = self.hear("x") | {"asked": asked["took_ms"], "other_launch_s": other.get("launch_seconds")}
        time.sleep(SETTLE_S)
        kept = ("goodput_mbps", "losses", "retransmissions", "smoothed_rtt_ms")
        return {**{k: stats[k] for k in kept}, **told}

    def stop(self) -> None:
        """Take everything down."""
        for process in self.processes.values():
            end_process(process)
        with contextlib.suppress(OSError):
            self.events.shutdown(socket.SHUT_RD)
        self.events.close()
        self.net.stop()


def end_process(process: subprocess.Popen[Any]) -> None:
    """End a process of ours; one that does not listen is killed."""
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(5)
    if process.poll() is None:
        process.kill()
        process.wait(5)


@contextlib.contextmanager
def standing() -> Iterator[Scene]:
    """Yield the standing network; nothing of it is left afterwards."""
    with tempfile.TemporaryDirectory(prefix="daitn-flood-") as folder:
        scene = Scene(Path(folder))
        try:
            scene.start()
            yield scene
        finally:
            scene.stop()


def begin(scene: Scene) -> None:
    """Have the switches let any source through, and the attacker at its place."""
    scene.control(any_source=True)
    scene.run("x", "benchmarks.flood_attack")


def measure(scene: Scene, rounds: int, *, size: int = SIZE, rate_pps: int = RATE_PPS) -> dict[str, Any]:
    """Alternate quiet and attacked transfers; return the figures of the last line."""
    attack = {"rate_pps": rate_pps, "label_share": LABEL_SHARE}
    scene.transfer(None, size)
    pids, before = scene.pids(), scene.ask("c", "counts")
    seen_before, drops_before, metered_before = scene.arrivals(), scene.socket_drops(), scene.metered()
    quiet, flooded = [], []
    for number in range(rounds):
        quiet.append(scene.transfer(None, size))
        flooded.append(scene.transfer(attack, size))
        say(
            f"round {number + 1}: {quiet[-1]['goodput_mbps']:.1f} Mbit/s alone, "
            f"{flooded[-1]['goodput_mbps']:.1f} attacked by {_pps(flooded[-1]):.0f} packets/s"
        )
    after = scene.ask("c", "counts")
    sent = sum((Counter(f["sent"]) for f in flooded), Counter[str]())
    to_label = sent.pop("to the label", 0)
    refused = Counter(after["reasons"])
    refused.subtract(before["reasons"])
    arrived = scene.arrivals() - seen_before
    dropped = scene.socket_drops() - drops_before
    asked = [t for f in flooded for t in f["asked"]]
    goodput = {name: statistics.median(t["goodput_mbps"] for t in of) for name, of in
               (("quiet", quiet), ("flooded", flooded))}  # fmt: skip
    lost = 1 - goodput["flooded"] / goodput["quiet"]
    return {
        "goodput_quiet_mbps": round(goodput["quiet"], 2),
        "goodput_flooded_mbps": round(goodput["flooded"], 2),
        "goodput_lost": round(lost, 4),
        "flood_pps": round(statistics.median(_pps(f) for f in flooded)),
        "flood_s": round(sum(f["seconds"] for f in flooded), 1),
        "sent": dict(sent),
        "sent_to_receiver": sum(sent.values()),
        "lost_in_network": sum(sent.values()) - arrived,
        "dropped_at_socket": dropped,
        "refused": {reason: count for reason, count in refused.items() if count},
        "refused_in_all": sum(refused.values()),
        "unaccounted": arrived - sum(refused.values()) - dropped,
        "label": _label(scene, to_label, metered_before),
        "requests_answered": sum(t is not None for t in asked) / len(asked),
        "request_ms": statistics.median(t for t in asked if t is not None) if any(asked) else None,
        "other_launch_s": [f["other_launch_s"] and round(f["other_launch_s"], 3) for f in flooded],
        "objects_arrived": after["arrived"] - before["arrived"],
        "same_processes": scene.pids() == pids and after["pid"] == before["pid"],
        "receiver_cpu_s": round(after["cpu_s"] - before["cpu_s"], 2),
        "transfers": {name: [_outline(t) for t in of] for name, of in (("quiet", quiet), ("flooded", flooded))},
        "holds": lost < LIMIT,
    }


def _label(scene: Scene, sent: int, metered_before: int) -> dict[str, Any]:
    """Account for the packets that went to the label."""
    metered = scene.metered() - metered_before
    told = dict(scene.dcc_refused)
    return {"sent": sent, "metered": metered, "refused": told, "unaccounted": sent - metered - sum(told.values())}


def _outline(transfer: dict[str, Any]) -> list[float]:
    """Return goodput (Mbit/s), shards thought lost, smoothed round trip (ms)."""
    return [round(transfer["goodput_mbps"], 2), transfer["losses"], round(transfer["smoothed_rtt_ms"], 1)]


def _pps(flood: dict[str, Any]) -> float:
    return float(sum(flood["sent"].values()) / flood["seconds"])


def main() -> int:
    """Run the benchmark; the last line is JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="quiet and attacked transfers (5)")
    parser.add_argument("--rate", type=int, default=RATE_PPS, help=f"packets per second of the attack ({RATE_PPS})")
    parser.add_argument("--size", type=int, default=SIZE, help=f"bytes of a transfer ({SIZE})")
    parser.add_argument("--seconds", type=float, default=flood_guard.SECONDS, help="of the flood from one port (60)")
    options = parser.parse_args()
    with standing() as scene:
        result = measure(scene, options.rounds, size=options.size, rate_pps=options.rate)
        flood_guard.begin(scene)
        result["guard"] = flood_guard.measure(scene, seconds=options.seconds, up_pps=options.rate, size=options.size)
        result["lies"] = flood_lies.measure(scene, DCC, size=options.size)
    finish(result)
    held = result["holds"] and result["guard"]["holds"] and result["lies"]["holds"]
    return 0 if held and result["same_processes"] else 1


if __name__ == "__main__":
    run_main(main)
