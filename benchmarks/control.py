"""What control costs against the number of terminals, in a centralised, a hierarchical and a distributed K-AS.

    make bench-control                               # on the network (root) and beyond it
    python -m benchmarks.control --no-network --simulated 10000

20, 100 and 500 terminals on the emulated network (``control_net``): real links, switches, control centres, border
speakers, the agents' own reporting code; the terminals load no PyTorch. Those sizes once more, 10,000 and 1,000,000
without a network, by the same engines and protocol code (``control_sim``, ``control_gossip``): what is made there is
the reports, not what happens to them. Every terminal changes ten times in a hundred seconds, else it sends heartbeats.

- ``exponent_bytes``, ``exponent_state``: x where the cost of *one control centre* grows as terminals to the x (slope in
  log-log): bytes a second that it hears to keep its map fresh, bytes of state. Centralised: the one there is.
  Hierarchical: tier 1. Distributed: one terminal, each being its own; its bytes are what it fetches and is sent for it.
- ``exponent_bytes_all``, ``exponent_state_all``: of all control centres (terminals) together.
- ``s_1m``: seconds to take a report of each of 1,000,000 terminals and to decide one job's next stop, in one process;
  ``busiest_s_1m``: of the busiest control centre of a hierarchy, were each on a machine of its own.

Bytes are the emulated ones up to 500 and simulated ones beyond, but for tier 1 (whose reports stay in one process in
this version) and gossip (one terminal beside one other, for no machine here holds a million whole maps): all simulated.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.common import NotSeen, finish, python, run_main, say
from benchmarks.control_net import measure
from experiments.errors import RunFailed
from topologies.errors import TopologyError

KINDS = ("centralised", "hierarchical", "distributed")
EMULATED, SIMULATED = (20, 100, 500), (10_000, 1_000_000)
MILLION = 1_000_000
ATTEMPTS = 3
CHILD_S = 3600.0
Figures = dict[str, Any]


def exponent(points: Sequence[tuple[float, float]]) -> float | None:
    """Return the slope of a straight line through points (size, cost) in log-log; None: fewer than two sizes."""
    if len({size for size, _ in points}) < 2:
        return None
    xs, ys = [math.log(size) for size, _ in points], [math.log(cost) for _, cost in points]
    x, y = sum(xs) / len(xs), sum(ys) / len(ys)
    return round(sum((a - x) * (b - y) for a, b in zip(xs, ys, strict=True)) / sum((a - x) ** 2 for a in xs), 3)


def simulate(kind: str, terminals: int) -> Figures:
    """Measure a kind at a size without a network, in a process of its own, whose memory the C library counts."""
    words = ("control_gossip", str(terminals)) if kind == "distributed" else ("control_sim", kind, str(terminals))
    done = subprocess.run(
        python(f"benchmarks.{words[0]}", *words[1:]), env=os.environ | {"PYTHONMALLOC": "malloc"}, timeout=CHILD_S,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise NotSeen(f"{' '.join(words)} ended with status {done.returncode}: {done.stderr.strip()[-200:]}")
    found: Figures = json.loads(done.stdout.splitlines()[-1])
    return found


def emulate(kind: str, terminals: int, seconds: float, errors: list[str]) -> Figures | None:
    """Measure a kind at a size on the network, in at most three attempts."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return measure(kind, terminals, seconds)
        except (NotSeen, RunFailed, TopologyError) as error:
            errors.append(f"{kind}, {terminals} terminals, attempt {attempt}: {error}")
            say(errors[-1])
    return None


def summary(kind: str, emulated: Mapping[int, Figures], simulated: Mapping[int, Figures]) -> Figures:
    """Return the figures of one kind, by number of terminals."""
    everywhere = {n: n if kind == "distributed" else 1 for n in simulated}
    rate = "pull_bytes_per_s" if kind == "distributed" else "bytes_per_s"
    one = [(n, of[rate]) for n, of in simulated.items()]
    together = [(n, of.get("bytes_per_s_all", everywhere[n] * of[rate])) for n, of in simulated.items()]
    if kind != "distributed":
        counted = {n: of["bytes_per_s"] for n, of in emulated.items()}
        together = sorted((dict(together) | counted).items())
        one = together if kind == "centralised" else one
    state = [(n, of.get("state_bytes_all", everywhere[n] * of["state_bytes"])) for n, of in simulated.items()]
    found: Figures = {
        "exponent_bytes": exponent(one),
        "exponent_state": exponent([(n, of["state_bytes"]) for n, of in simulated.items()]),
        "exponent_bytes_all": exponent(together),
        "exponent_state_all": exponent(state),
        "bytes_per_s": dict(one),
        "state_bytes": {n: of["state_bytes"] for n, of in simulated.items()},
    }
    if MILLION in simulated:
        found["s_1m"] = simulated[MILLION]["s"]
        found |= {"busiest_s_1m": simulated[MILLION]["busiest_s"]} if kind == "hierarchical" else {}
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it; the last line is one JSON object; exit status 1 where a size could not be emulated."""
    options = _options(arguments)
    started, errors = time.monotonic(), list[str]()
    result: Figures = {"bench": "control"}
    runs: dict[str, list[Figures]] = {"emulated": [], "simulated": []}
    for kind in options.kinds:
        emulated = {}
        for terminals in () if options.no_network else options.emulated:
            seen = emulate(kind, terminals, options.seconds, errors)
            if seen is not None:
                emulated[terminals] = seen
                say(f"{kind}, {terminals} terminals on the network: {_told(seen)}")
        simulated = {}
        for terminals in (*options.emulated, *options.simulated):
            simulated[terminals] = simulate(kind, terminals)
            say(f"{kind}, {terminals} terminals: {_told(simulated[terminals])}")
        result[kind] = summary(kind, emulated, simulated)
        runs["emulated"] += emulated.values()
        runs["simulated"] += simulated.values()
        say(f"{kind}: {_told(result[kind])}")
    finish(result | runs | {"errors": errors, "wall_s": round(time.monotonic() - started, 1)})
    return 1 if errors else 0


def _told(found: Figures) -> str:
    return ", ".join(f"{k} {v}" for k, v in found.items() if isinstance(v, int | float) and k != "terminals")


def _sizes(text: str) -> list[int]:
    sizes = [int(word) for word in text.split(",") if word]
    if not all(size >= 20 for size in sizes):
        raise argparse.ArgumentTypeError(f"{text!r}: numbers of 20 or more are wanted, as in 20,100")
    return sizes


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.control", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--emulated", type=_sizes, default=list(EMULATED), help="sizes on the network (20,100,500)")
    parser.add_argument("--simulated", type=_sizes, default=list(SIMULATED), help="larger sizes (10000,1000000)")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS, help="which kinds (all)")
    parser.add_argument("--seconds", type=float, default=20.0, help="measured seconds a size on the network (20)")
    parser.add_argument("--no-network", action="store_true", help="leave the emulated network out")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    run_main(main)
