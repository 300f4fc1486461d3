"""Models that find their own way beside those that control centres lead: the healthcare job on the real network.

    make bench-aats
    python -m benchmarks.aats --seeds 1-3 --ways dcc,greedy,random-walk

``dcc``: led by control centres. All others are policies (docs/aats.md), on a network whose control centres are killed
before the job is submitted. All have the same data, budget, hyper-parameters, MPVUs and gate.

The last line is JSON; by way: ``met`` (share of seeds that reached both targets), means of ``broad``, ``expert``,
``visits``, ``seconds`` and ``bytes`` (from submission until the model is home; bytes on all links by the switches' port
counters), ``decide_ms`` (from the end of a visit to where it goes next, median), ``control_bytes`` (of the AI frames on
all links in the whole run, the probes, or for ``dcc`` what terminals and control centres say to each other). ``ratio``:
of each policy's seconds and bytes to those of ``dcc``.
"""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.common import finish, run_main
from benchmarks.main_job import MEANS, ai_frames, carry, chosen, median, tell
from experiments.scenarios.scenario import Scenario, load
from hosts.autonomy.policies import POLICIES
from packets.wire import PacketType

LED = "dcc"
WAYS = (LED, *POLICIES)
CONTROL = {True: {PacketType.ANNOUNCE, PacketType.TELEMETRY}, False: {PacketType.PROBE}}


def scenario_of(base: Scenario, way: str) -> Scenario:
    """Return the scenario of one way to run it."""
    if way == LED:
        return msgspec.structs.replace(base, query=None)
    job = msgspec.structs.replace(base.jobs[0], steering="aats", policy=way)
    return msgspec.structs.replace(base, jobs=[job], query=None, without_control=True)


def measured(base: Scenario, way: str, seed: int, out: Path, prefix: list[str]) -> dict[str, Any] | None:
    """Run one; return what came of it, nothing where it measured nothing."""
    run = carry(scenario_of(base, way), way, seed, out, prefix)
    if run is None:
        return None
    found = run.figures() | {"control_bytes": control_bytes(run.folder / "capture.pcapng", led=way == LED)}
    tell(way, seed, found)
    return found


def control_bytes(capture: Path, *, led: bool) -> int:
    """Return the bytes of control packets on all links."""
    return sum(ai_frames(capture, CONTROL[led]))


def summary(runs: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Return the figures of all runs, see above."""
    found: dict[str, Any] = {}
    for way, several in runs.items():
        if several:
            found[way] = {
                "seeds": len(several),
                "met": round(statistics.fmean(one["met"] for one in several), 3),
                "decide_ms": median([ms for one in several for ms in one["decide_ms"]]),
                **{key: round(statistics.fmean(one[key] for one in several), 4) for key in MEANS},
            }
    led = found.get(LED)
    ratio = {
        way: {key: round(told[key] / led[key], 3) for key in ("seconds", "bytes")}
        for way, told in found.items() if led and way != LED
    }  # fmt: skip
    return {**found, "ratio": ratio}


def main(arguments: list[str] | None = None) -> int:
    """Run every seed all ways; 0 when greedy met the targets with every seed."""
    choice = chosen("aats", (__doc__ or "").partition("\n")[0], WAYS, "1-3", arguments)
    base, runs = load("healthcare"), {way: list[dict[str, Any]]() for way in choice.ways}
    for seed in choice.seeds:
        for way, several in runs.items():
            run = measured(base, way, seed, choice.out, choice.prefix)
            several += [run] if run else []
    result = summary(runs)
    finish({"bench": "aats", **result})
    return 0 if result.get("greedy", {}).get("met") == 1.0 else 1


if __name__ == "__main__":
    run_main(main)
