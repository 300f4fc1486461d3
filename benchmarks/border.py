"""Faults of the border protocol on the real network: links cut and flapping, gateways killed and frozen, one that lies.

    make bench-border
    python -m benchmarks.border --rounds 2

A ring of four K-AS; objects travel between them all the while. ``reconverge_*_s``: from a cut or its end to the last
K-AS whose way is as it has to be then, cuts 8 s apart (``flapped_s``: from the last change of a link that flapped;
``frozen_s``: of a gateway that only the hold time tells of). ``loops``: ways that any control centre took and that pass
a K-AS twice. ``objects_lost``: those that did not come whole.
``restart_withdrawn``: ways that were given up while a killed gateway was started again (graceful: none).
``lies_believed``: tales of a lying gateway that were not refused.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.common import PROJECT, NotSeen, finish, python, run_main, say
from benchmarks.standing import Parcel, StandingNetwork, standing
from controller.border.kbgp.config import Timers

SCENARIO = """
name: border
description: A ring of four K-AS whose borders fail.
network:
  kas:
    1: {data: 1, compute: 1, model_owner: 1}
    2: {data: 1, mpvu: 1}
    3: {data: 1, mdfp: 1}
    4: {data: 1, compute: 1}
  wan:
    - {a: 1, b: 2, rate_mbps: 50, delay_ms: 10}
    - {a: 2, b: 3, rate_mbps: 50, delay_ms: 10}
    - {a: 3, b: 4, rate_mbps: 50, delay_ms: 10}
    - {a: 4, b: 1, rate_mbps: 50, delay_ms: 10}
  access_mbps: 100
data: {name: vignettes, alpha: 0.15}
jobs:
  - {task: vignettes, broad_accuracy: 0.5}
"""
KAS = (1, 2, 3, 4)
HOLD_S = Timers().hold_ms / 1000
LINKS = [("k1g", "k2g"), ("k2g", "k3g"), ("k3g", "k4g")]
MIB = 1 << 20
APART_S = 8.0  # of cuts: faults, no flapping
FLAPS = 10  # enough to be damped


class Ring:
    """The standing network, with what its control centres know of each other."""

    def __init__(self, network: StandingNetwork) -> None:
        self.network = network
        self.parcels: list[Parcel] = []

    def ways(self) -> dict[tuple[int, int], list[int]]:
        """Return the way that each K-AS takes to each other one, as last told."""
        return {(e.data["kas"], e.data["to"]): e.data["path"] for e in self.network.events("border.way")}

    def direct(self, a: int, b: int) -> bool:
        """Tell whether two neighbours reach each other without a third."""
        ways = self.ways()
        return ways.get((a, b)) == [b] and ways.get((b, a)) == [a]

    def around(self, a: int, b: int) -> bool:
        """Tell whether two neighbours reach each other by the other two K-AS."""
        ways = self.ways()
        return len(ways.get((a, b), [])) == len(ways.get((b, a), [])) == 3

    def whole(self) -> bool:
        """Tell whether every K-AS reaches every other by as few as the ring has between them."""
        ways = self.ways()
        return all(len(ways.get((a, b), [])) == min((a - b) % 4, (b - a) % 4) for a in KAS for b in KAS if a != b)

    def until(self, true: Callable[[], bool], what: str, timeout_s: float = 30.0) -> None:
        self.network.wait_until(lambda: true() or None, timeout_s, what)

    def last_way_s(self, since_s: float) -> float:
        """Return when a way changed last (wall clock), ``since_s`` when none did."""
        return max((e.t_unix_s for e in self.network.events("border.way") if e.t_unix_s >= since_s), default=since_s)

    def send(self, sender: str, role: str, mib: int = 4) -> None:
        """Send an object to the nearest of a role, in another K-AS."""
        self.parcels.append(Parcel(self.network, sender, mib * MIB, role))

    def lost(self) -> int:
        """Wait for all objects; return how many did not come whole."""
        count = 0
        for parcel in self.parcels:
            try:
                parcel.kept()
            except (NotSeen, AssertionError) as error:
                heard = self.network.events(object_id=parcel.object_id)
                last = f"{heard[-1].kind} of {heard[-1].source}: {heard[-1].data}" if heard else "nothing"
                say(f"lost: object {parcel.object_id:x}: {error}; last heard: {last}"[:400])
                count += 1
        self.parcels.clear()
        return count

    def pid(self, gateway: str) -> int:
        """Return the process of a border speaker, as it was last started."""
        return int(self.network.events("border.ready", name=gateway)[-1].data["pid"])


def cut_and_mend(ring: Ring, link: tuple[str, str]) -> list[float]:
    """Cut a link, wait until all go around, mend it, wait until all are back; returns both times."""
    a, b = int(link[0][1]), int(link[1][1])
    ring.send("owner1", "mpvu")
    cut_s = ring.network.cut(*link)
    try:
        ring.until(lambda: ring.around(a, b), f"the way around {link[0]}-{link[1]}")
        around_s = ring.last_way_s(cut_s) - cut_s
    finally:
        mended_s = time.time()
        ring.network.mend(*link)
    ring.until(ring.whole, f"{link[0]}-{link[1]} is used again")
    return [around_s, ring.last_way_s(mended_s) - mended_s]


def flap(ring: Ring, link: tuple[str, str]) -> float:
    """Let a link flap; returns how long after its last change all is as before."""
    ring.send("owner1", "mdfp")
    for _ in range(FLAPS):
        ring.network.cut(*link)
        time.sleep(0.4)
        ring.network.mend(*link)
        time.sleep(0.4)
    quiet_s = time.time()
    ring.until(ring.whole, f"{link[0]}-{link[1]} is used again after it flapped", 90.0)
    return ring.last_way_s(quiet_s) - quiet_s


def kill(ring: Ring, gateway: str) -> tuple[float, int]:
    """Kill a speaker; returns how long until its sessions stand again, and how many ways were given up meanwhile."""
    ring.send("owner1", "mdfp", 8)
    mark, killed_s = len(ring.network.events("border.way")), time.time()
    os.kill(ring.pid(gateway), signal.SIGKILL)

    def sessions() -> bool:
        up = ring.network.events("border.up", gateway=gateway)
        return sum(e.t_unix_s > killed_s for e in up) >= 2

    ring.until(sessions, f"the sessions of {gateway}")
    back_s = time.time() - killed_s
    ring.until(ring.whole, f"all ways after {gateway} was killed")
    ways = [e.data for e in ring.network.events("border.way")[mark:]]
    gone = [way for way in ways if not way["path"] and f"kbg{way['kas']}" != gateway]
    return back_s, len(gone)


def freeze(ring: Ring, gateway: str) -> float:
    """Freeze a speaker: only the hold time tells; returns when the last K-AS knew, then lets it go on."""
    kas = int(gateway[3])
    frozen_s = time.time()
    os.kill(ring.pid(gateway), signal.SIGSTOP)
    try:
        gone = lambda: all(not ring.ways().get((k, kas)) for k in KAS if k != kas)  # noqa: E731
        ring.until(gone, f"K-AS {kas} is given up", HOLD_S + 10)
        return ring.last_way_s(frozen_s) - frozen_s
    finally:
        os.kill(ring.pid(gateway), signal.SIGCONT)
        ring.until(ring.whole, f"K-AS {kas} is back", 60.0)


def lied_to(ring: Ring) -> tuple[int, int]:
    """Have the gateway of K-AS 3 lie to that of K-AS 2; returns (tales, those that were not refused)."""
    before = len(ring.network.events("border.refused", gateway="kbg3"))
    files = {"config": "kbg3.json", "certificate": "kbg3.pem", "authority": "authority.pem"}
    words = [word for name, file in files.items() for word in (f"--{name}", str(ring.network.runtime / file))]
    namespace = f"--net=/proc/{ring.pid('kbg3')}/ns/net"
    done = subprocess.run(
        ["nsenter", namespace, *python("benchmarks.border_liar", *words, "--to", "kbg2")], cwd=PROJECT,
        capture_output=True, text=True, timeout=60, check=True, env=os.environ | {"PYTHONPATH": str(PROJECT)},
    )  # fmt: skip
    told = json.loads(done.stdout)
    ring.until(lambda: len(ring.network.events("border.refused", gateway="kbg3")) >= before + len(told), "refusals", 10)
    refused = [str(e.data["text"]) for e in ring.network.events("border.refused", gateway="kbg3")[before:]]
    believed = [tale for tale in told if not any(text.startswith(tale) for text in refused)]
    ring.until(ring.whole, "all ways after the lies", 60.0)
    return len(told), len(believed)


def loops(network: StandingNetwork) -> int:
    """Count the ways that pass a K-AS twice, or come back to who takes them."""
    paths = [[e.data["kas"], *e.data["path"]] for e in network.events("border.way")]
    return sum(len(set(path)) != len(path) for path in paths)


def measure(rounds: int, folder: Path) -> dict[str, Any]:
    """Do all of it on one network."""
    scenario = folder / "border.yaml"
    scenario.write_text(SCENARIO)
    with standing(scenario, folder) as network:
        ring = Ring(network)
        ring.until(ring.whole, "all ways at the start", 60.0)
        times: list[float] = []
        for number in range(rounds):
            time.sleep(APART_S)
            times += cut_and_mend(ring, LINKS[number % len(LINKS)])
            say(f"cut {number + 1} of {rounds}: around after {times[-2]:.3f} s, back after {times[-1]:.3f} s")
        kills = [kill(ring, f"kbg{KAS[number % 4]}") for number in range(max(rounds // 2, 1))]
        say(f"killed gateways: sessions stand again after {', '.join(f'{s:.2f}' for s, _ in kills)} s")
        flapped_s = flap(ring, LINKS[0])
        say(f"flapped: as before {flapped_s:.2f} s after the last change")
        frozen_s = freeze(ring, "kbg3")
        say(f"frozen: given up after {frozen_s:.2f} s (hold time {HOLD_S:g} s)")
        told, believed = lied_to(ring)
        say(f"lied to: {told} tales, {believed} believed")
        sent = len(ring.parcels)
        lost = ring.lost()
        return {
            "loops": loops(network),
            "reconverge_p50_s": round(statistics.median(times), 4),
            "reconverge_p99_s": round(sorted(times)[min(len(times) - 1, int(0.99 * len(times)))], 4),
            "objects_lost": lost,
            "objects_sent": sent,
            "restart_s": round(max(s for s, _ in kills), 3),
            "restart_withdrawn": sum(n for _, n in kills),
            "flapped_s": round(flapped_s, 3),
            "frozen_s": round(frozen_s, 3),
            "hold_s": HOLD_S,
            "lies_told": told,
            "lies_believed": believed,
            "cuts": rounds,
            "errors": len(network.events("error")),
        }


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; exit status 1 when there was a loop, a lost object or a believed lie."""
    parser = argparse.ArgumentParser(prog="benchmarks.border", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=20, help="how many cuts (default %(default)s)")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="daitn-border-") as folder:
        result = measure(options.rounds, Path(folder))
    finish(result)
    return 1 if result["loops"] or result["objects_lost"] or result["lies_believed"] else 0


if __name__ == "__main__":
    run_main(main)
