"""The main job in networks of every kind of K-AS: what it reaches, what it costs, what deciding costs.

    make bench-kinds                                  # healthcare, seeds 1 to 3, every kind
    python -m benchmarks.kinds --seeds 4-6 --kinds centralised mix

Per kind, means over seeds: ``broad`` and ``expert`` (as confirmed; ``met``: share of runs that met both targets),
``visits``, ``seconds`` and ``bytes`` (from submission to the model's end at home; bytes on all links by the switches'
port counters), ``control_messages`` and ``control_bytes`` (meanwhile, of the border protocol on WAN links, with TCP
and TLS; of ``aats`` probes and their answers on all links), ``decision_ms`` (median, from the end of a visit to the
decision where to go next), ``wait_ms`` (median wait of an object's first packet for its way), ``routes``. ``mix``: the
scenario ``fig3``, all four kinds in one network; ``aats``: every control centre is killed before the job is submitted.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.common import PROJECT, finish, run_main
from benchmarks.main_job import MEANS, Carried, ai_frames, carry, median, tell
from benchmarks.route import seed_list
from controller.placement.kinds import KasKind
from experiments.scenarios.scenario import Scenario, load
from experiments.testbed.gateways import KEYLOG
from packets.wire import PacketType

KAS = (1, 2, 3, 4)
LENDERS = {1: ("tfam", 2), 2: ("mtrce", 3), 3: ("hpo", 4), 4: ("tag", 1)}
BORROWED = {k: KasKind(kind="non_standalone", borrows={engine: [lender]}) for k, (engine, lender) in LENDERS.items()}
ABSTRACT = {
    k: KasKind(
        kind="hierarchical",
        abstract_terminals={f"at{k}1": [f"h{k}1", f"h{k}2"], f"at{k}2": [f"h{k}3", f"c{k}"]},
    )
    for k in KAS
}
KINDS: dict[str, dict[int, KasKind]] = {
    "centralised": {},
    "distributed": {k: KasKind(kind="distributed") for k in KAS},
    "hierarchical": ABSTRACT,
    "non_standalone": BORROWED,
}
MIX, AATS = "mix", "aats"


def scenario_of(base: Scenario, kind: str) -> Scenario:
    """Return the main job's scenario in a network of a kind."""
    if kind == MIX:
        return msgspec.structs.replace(load("fig3"), query=None)
    if kind != AATS:
        return msgspec.structs.replace(base, query=None, kas=KINDS[kind])
    jobs = [msgspec.structs.replace(job, steering="aats", policy="greedy") for job in base.jobs]
    return msgspec.structs.replace(base, query=None, jobs=jobs, without_control=True)


def measured(base: Scenario, kind: str, seed: int, out: Path) -> dict[str, Any] | None:
    """Run it once; return its figures, nothing where it measured nothing."""
    run = carry(scenario_of(base, kind), kind, seed, out)
    if run is None:
        return None
    found = run.figures() | (probes(run) if kind == AATS else border_messages(run))
    found["waits_ms"] = waits_ms(run)
    found["route"] = [stop["node"] for stop in run.report["route"]]
    tell(kind, seed, found)
    return found


def waits_ms(run: Carried) -> list[float]:
    """Return how long each first packet of an object waited for its way."""
    return [e["data"]["waited_ms"] for e in run.events if e["kind"] == "object.released"]


def border_messages(run: Carried) -> dict[str, int]:
    """Return what gateways said to each other while the job was under way, as messages and as bytes on WAN links."""
    border, keys = run.folder / "border.pcapng", run.folder / "logs" / KEYLOG
    options = ["-X", f"lua_script:{PROJECT / 'packets' / 'kbgp' / 'kbgp.lua'}", "-o", f"tls.keylog_file:{keys}"]
    first, last = run.span_unix_s
    rows = tshark(border, options, ["frame.time_epoch", "frame.len", "kbgp.type"])
    there = [row for row in rows if first <= float(row[0]) <= last]
    messages = sum(len(row[2].split(",")) for row in there if row[2])
    return {"control_bytes": sum(int(row[1]) for row in there), "control_messages": messages}


def probes(run: Carried) -> dict[str, int]:
    """Return what terminals asked each other and answered: frames, and their bytes on all links."""
    sizes = ai_frames(run.folder / "capture.pcapng", {PacketType.PROBE})
    return {"control_bytes": sum(sizes), "control_messages": len(sizes)}


def tshark(capture: Path, options: Sequence[str], fields: Sequence[str]) -> list[list[str]]:
    """Return the fields of each frame of a capture."""
    shown = [word for field in fields for word in ("-e", field)]
    command = ["tshark", "-r", str(capture), *options, "-T", "fields", *shown]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return [line.split("\t") for line in done.stdout.splitlines()]


def summary(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the means over seeds, and every route."""
    return {
        **{key: round(statistics.fmean(one[key] for one in runs), 4) for key in ("met", *MEANS, "control_messages")},
        "decision_ms": median([ms for one in runs for ms in one["decide_ms"]]),
        "wait_ms": median([ms for one in runs for ms in one["waits_ms"]]),
        "routes": [one["route"] for one in runs],
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it; exit status 1 when a kind did not meet the targets with every seed."""
    parser = argparse.ArgumentParser(prog="benchmarks.kinds", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=seed_list, default=seed_list("1-3"), help="1-3 or 1,4 (default 1-3)")
    parser.add_argument("--kinds", nargs="+", choices=[*KINDS, MIX, AATS], default=[*KINDS, MIX, AATS])
    options = parser.parse_args(arguments)
    base, found = load("healthcare"), dict[str, Any]()
    with tempfile.TemporaryDirectory(prefix="daitn-kinds-") as folder:
        for kind in options.kinds:
            runs = [run for seed in options.seeds if (run := measured(base, kind, seed, Path(folder)))]
            if runs:
                found[kind] = summary(runs) | {"seeds": len(runs)}
    finish(found)
    everyone = {"met": 1.0, "seeds": len(options.seeds)}
    return 0 if all(found.get(kind, {}).items() >= everyone.items() for kind in options.kinds) else 1


if __name__ == "__main__":
    run_main(main)
