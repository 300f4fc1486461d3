"""How fresh is the map?  From a terminal's change to its entry in G-KRRM, on the emulated network, and what it costs.

    python -m benchmarks.map                       # 100 terminals three times, then growth to 1,000 (root; 7 minutes)
    python -m benchmarks.map --terminals 100 --seconds 20 --no-steady

One K-AS, one DCC (the hard case: all reports meet in one process), 10 changes a second and terminal at random moments;
every report is an AI packet from the terminal's namespace over its access switch to the DCC.  The DCC itself measures
the lag (``Report.changed_unix_s``, the first change that a report carries, to the entry in the map) and the bytes.

It grows in two ways, so that one can tell them apart: ``growth`` keeps the changes of each terminal (10,000 a second at
1,000), ``growth_at_fixed_rate`` those of all together.  Where all are more than the machine takes, terminals pause
(``hosts.terminal.pace``), and ``reports_per_s`` falls behind ``changes_per_s``.  The last line is JSON: ``p50_ms``,
``p99_ms`` and ``telemetry_bytes_per_s`` at the first size, medians of the repeats (seeds ``--seed`` and on).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.common import NotSeen, finish, python, run_main, say
from controller.oam.hub import EventHub
from experiments.errors import RunFailed
from experiments.testbed.processes import Child, wait_for
from experiments.testbed.revival import life_of
from packets.events import Event
from topologies.build import Terminal, build_plan
from topologies.errors import TopologyError
from topologies.network import Network
from topologies.plan import NetworkPlan

PORT = 6801
PER_SWITCH = 50
PATIENCE_S = 180.0
LARGEST = 5_000


def plan_of(terminals: int) -> NetworkPlan:
    """Declare one K-AS with so many data nodes, fifty on an access switch."""
    switches = max(2, -(-terminals // PER_SWITCH))
    hosts = [Terminal(f"t{i}", "data") for i in range(1, terminals + 1)]
    return build_plan("map", kas={1: hosts}, access_switches=switches)


def measure(terminals: int, changes_per_s: float, seconds: float, seed: int) -> dict[str, Any]:
    """Build the network, let the terminals report, take it down; return the figures of this size."""
    plan, run_id = plan_of(terminals), f"map-{os.getpid()}-{terminals}"
    events: list[Event] = []
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="daitn-map-")))
        hub = EventHub(folder / "events.sock")
        hub.add_listener(lambda event: events.append(event) if event.kind in ("map.fresh", "error") else None)
        stack.enter_context(hub)
        network = Network(plan, run_id, {1: PORT}, folder / "run")
        stack.callback(network.stop)
        dcc = _start_dcc(plan, folder, run_id)
        stack.callback(dcc.stop)
        network.start()
        wait_for("the control centre", (folder / "run" / "dcc1.ready").exists, PATIENCE_S, dcc.check)
        said, cores = _report(network, plan, folder, (seconds, changes_per_s, seed), dcc)
        time.sleep(1.2)  # the last second's figures are told once a second
    errors = [e.data.get("text") for e in events if e.kind == "error"]
    fresh = [e.data for e in events if e.kind == "map.fresh"]
    if not fresh or "p50_ms" not in fresh[-1]:
        raise NotSeen(f"the DCC measured nothing; {errors[:3]}")
    return _figures(terminals, changes_per_s, seconds, said, fresh, cores) | {
        "errors": len(errors),
        "first_errors": errors[:2],
    }


def _start_dcc(plan: NetworkPlan, folder: Path, run_id: str) -> Child:
    (folder / "run").mkdir()
    (folder / "plan.json").write_bytes(msgspec.json.encode(plan.domain(1)))
    arguments = {
        "--plan": folder / "plan.json", "--openflow-port": PORT, "--runtime-dir": folder / "run",
        "--events": folder / "events.sock", "--database": folder / "dcc.sqlite", "--seed": 1,
    }  # fmt: skip
    command = python("controller", *(str(x) for pair in arguments.items() for x in pair))
    return Child("dcc1", command, folder / "dcc.log", run_id)


def _report(
    network: Network, plan: NetworkPlan, folder: Path, load: tuple[float, float, int], dcc: Child
) -> tuple[dict[str, Any], dict[str, float]]:
    """Run the terminals' process; return its last words, and the cores that DCC and switches used meanwhile."""
    hosts = [{"name": h.name, "role": h.role, "address": h.address, "pid": network[h.name].pid} for h in plan.hosts]
    (folder / "hosts.json").write_text(json.dumps(hosts))
    command = python("benchmarks.map_terminals", str(folder / "hosts.json"), *(str(x) for x in load))
    crowd = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert crowd.stdout is not None
        crowd.stdout.readline()  # all registered
        pids = {"dcc_cores": life_of(dcc.process.pid), **_switch_pid()}
        before = {name: _cpu_s(pid) for name, pid in pids.items()}
        out, _ = crowd.communicate(timeout=load[0] + PATIENCE_S)
        used = {name: round((_cpu_s(pid) - before[name]) / load[0], 2) for name, pid in pids.items()}
    finally:
        if crowd.poll() is None:
            crowd.kill()
            crowd.wait(5)
    if crowd.returncode:
        raise NotSeen(f"the terminals' process ended with status {crowd.returncode}")
    said: dict[str, Any] = json.loads(out.splitlines()[-1])
    return said, used


def _switch_pid() -> dict[str, int]:
    """Return the process of Open vSwitch, which carries all switches (userspace datapath), where it can be found."""
    try:
        return {"switch_cores": int(Path("/var/run/openvswitch/ovs-vswitchd.pid").read_text())}
    except (OSError, ValueError):
        return {}


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _figures(
    terminals: int,
    changes_per_s: float,
    seconds: float,
    said: dict[str, Any],
    fresh: list[dict[str, Any]],
    cores: dict[str, float],
) -> dict[str, Any]:
    last, busiest = fresh[-1], max(fresh, key=lambda f: f["telemetry_bytes_per_s"])
    return {
        "terminals": terminals,
        "changes_per_s": round(said["changes"] / seconds, 1),
        "wanted_changes_per_s": terminals * changes_per_s,
        "reports_per_s": round(said["reports"] / seconds, 1),
        "repeats": said["repeats"],
        **{k: last[k] for k in ("p50_ms", "p90_ms", "p99_ms", "max_ms", "lags")},
        "telemetry_bytes_per_s": busiest["telemetry_bytes_per_s"],
        **cores,
        "terminals_cores": round(said["cpu_s"] / seconds, 2),
        "load_1min": round(os.getloadavg()[0], 2),
    }


def _tell(found: dict[str, Any]) -> dict[str, Any]:
    say(
        f"{found['terminals']:5} terminals, {found['wanted_changes_per_s']:6.0f} changes/s: "
        f"p50 {found['p50_ms']:.3f} ms, p99 {found['p99_ms']:.3f} ms, max {found['max_ms']:.1f} ms, "
        f"{found['reports_per_s']:.0f} reports/s, {found['telemetry_bytes_per_s'] / 1e3:.0f} kB/s, "
        f"DCC {found['dcc_cores']:.2f} cores, load {found['load_1min']:.1f}"
    )
    return found


def _sizes(text: str) -> list[int]:
    try:
        sizes = [int(x) for x in text.split(",")]
    except ValueError:
        sizes = []
    if not sizes or not all(1 <= size <= LARGEST for size in sizes):
        raise argparse.ArgumentTypeError(f"{text!r}: numbers of 1 to {LARGEST} are wanted, as in 100,200")
    return sizes


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.map", description="Freshness of G-KRRM.")
    parser.add_argument(
        "--terminals", type=_sizes, default="100,200,500,1000", help="sizes, comma separated (100,200,500,1000)"
    )
    parser.add_argument("--changes", type=float, default=10.0, help="changes a second and terminal (10)")
    parser.add_argument("--seconds", type=float, default=15.0, help="measured seconds a size (15)")
    parser.add_argument("--repeats", type=int, default=3, help="runs of the first size, for the median (3)")
    parser.add_argument("--no-steady", action="store_true", help="no growth at a fixed total rate")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    if options.repeats < 1 or options.seconds < 1 or options.changes <= 0:
        parser.error("--repeats and --seconds are at least 1, --changes is above 0")
    return options


def main(arguments: list[str] | None = None) -> int:
    """Measure every size, one line each, JSON at the end; 1: goal missed at the first size, or one failed."""
    options = _options(arguments)
    first, *more = options.terminals

    def at(size: int, changes_per_s: float, seed: int = options.seed) -> dict[str, Any]:
        return _tell(measure(size, changes_per_s, options.seconds, seed))

    runs = [at(first, options.changes, options.seed + i) for i in range(options.repeats)]
    errors: list[str] = []

    def grown(size: int, changes_per_s: float) -> list[dict[str, Any]]:
        try:
            return [at(size, changes_per_s)]
        except (RunFailed, NotSeen, TopologyError) as error:  # a size that is too much for the machine costs no other
            errors.append(f"{size} terminals, {changes_per_s:g} changes a second each: {error}")
            say(errors[-1])
            return []

    growth = [run for size in more for run in grown(size, options.changes)]
    steady = [
        run for size in more for run in ([] if options.no_steady else grown(size, options.changes * first / size))
    ]
    medians = {k: statistics.median(run[k] for run in runs) for k in ("p50_ms", "p99_ms", "telemetry_bytes_per_s")}
    grew = {"growth": [runs[0], *growth], "growth_at_fixed_rate": steady, "errors": errors}
    finish({"bench": "map", "terminals": first, **medians, "runs": runs, **grew})
    return 0 if medians["p50_ms"] < 1 and medians["p99_ms"] < 10 and not errors else 1


if __name__ == "__main__":
    run_main(main)
