"""The main job (healthcare), carried out once on a network of its own, and what came of it, for benchmarks of it."""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.common import ChildTimeout, last_words, now, python, run_child, say
from benchmarks.route import seed_list
from experiments.scenarios.scenario import Scenario, dump
from experiments.testbed.capture import frames
from packets.wire import PacketType

TIMEOUT_S = 300.0
TYPE_AT = 14 + 20 + 8 + 1  # of an AI packet's type in its Ethernet frame
MEANS = ("broad", "expert", "visits", "seconds", "bytes", "control_bytes")


@dataclass(frozen=True)
class Carried:
    """One run: its folder, its ``report.json``, the lines of its ``events.jsonl``."""

    folder: Path
    report: dict[str, Any]
    events: list[dict[str, Any]]

    @property
    def span_unix_s(self) -> tuple[float, float]:
        """When the job was submitted, and when its model was home."""
        at = {e["kind"]: e["t_unix_s"] for e in self.events if e["kind"] in ("job.submitted", "object.returned")}
        return at["job.submitted"], at["object.returned"]

    def figures(self) -> dict[str, Any]:
        """Return accuracy as confirmed, visits, and what it took from submission until the model is home: seconds,
        bytes on all links by the switches' port counters, ms from the end of each visit to where it goes next.
        """
        one = self.report["seeds"][0]
        return {
            "met": bool(self.report["targets_met"]), "visits": len(self.report["route"]), **self.report["accuracy"],
            "seconds": one["train_s"], "bytes": one["train_bytes"], "decide_ms": decisions_ms(self.events),
        }  # fmt: skip


def carry(
    scenario: Scenario, name: str, seed: int, out: Path, prefix: Sequence[str] = (), options: Sequence[str] = ()
) -> Carried | None:
    """Run a scenario once, its files in ``out``; nothing, and a word why, where it measured nothing.

    ``prefix``: a command to run it under; ``options``: of ``daitn run``, besides.
    """
    name = f"seed-{seed:03}-{name}"
    file, folder, log = out / f"{name}.yaml", out / name, out / f"{name}.log"
    file.write_bytes(dump(scenario))
    words = ["run", str(file), "--seed", str(seed), "--run-dir", str(folder), "--no-page", *options]
    try:
        run_child([*prefix, *python("experiments.cli", *words)], log, TIMEOUT_S)
        report = json.loads((folder / "report.json").read_text())
        events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    except (ChildTimeout, OSError, ValueError) as error:
        say(f"{name}: nothing measured: {last_words(log) or error}")
        return None
    if report["accuracy"]["broad"] is None:
        say(f"{name}: nothing measured: {last_words(log)}")
        return None
    return Carried(folder, report, events)


def tell(name: str, seed: int, found: dict[str, Any]) -> None:
    """Say what came of one run."""
    verdict = "meets both" if found["met"] else "misses    "
    figures = f"broad {found['broad']:.3f} expert {found['expert']:.3f}  {found['visits']:2} visits"
    say(f"seed {seed} {name:14} {verdict} {figures}  {found['seconds']:5.1f} s  {found['bytes'] / 1e6:5.1f} MB")


def decisions_ms(events: Sequence[dict[str, Any]]) -> list[float]:
    """Return how long it took from the end of each visit to the decision where the model goes next."""
    ended: dict[int, float] = {}
    took = []
    for event in events:
        if event["kind"] in ("visit.trained", "visit.verified"):
            ended[event["data"]["visit"]] = event["t_unix_s"]
        elif event["kind"] == "job.decided" and event["data"]["visit"] - 1 in ended:
            took.append(1e3 * (event["t_unix_s"] - ended.pop(event["data"]["visit"] - 1)))
    return took


def ai_frames(capture: Path, kinds: Collection[PacketType]) -> list[int]:
    """Return the lengths (bytes) of the AI frames of these types on all links."""
    return [size for _, size, frame in frames(capture) if len(frame) > TYPE_AT and frame[TYPE_AT] in kinds]


def median(values: Sequence[float]) -> float | None:
    """Return the median of some ms, None of none."""
    return round(statistics.median(values), 1) if values else None


class Choice(NamedTuple):
    """What a benchmark of several ways to run the job was asked for; ``out`` is there."""

    seeds: list[int]
    ways: list[str]
    out: Path
    prefix: list[str]


def chosen(bench: str, about: str, ways: Sequence[str], seeds: str, arguments: Sequence[str] | None) -> Choice:
    """Read the command line of a benchmark that runs each seed (else ``seeds``) in some of its ways (else in all)."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{bench}", description=about)
    parser.add_argument("--seeds", type=seed_list, default=seed_list(seeds), help=f"0-4 or 1,4,7 [default: {seeds}]")
    parser.add_argument("--ways", default=",".join(ways), help=f"some of {', '.join(ways)} [default: all]")
    parser.add_argument("--out", type=Path, help=f"folder for the runs [default: runs/bench-{bench}-<date>]")
    parser.add_argument("--prefix", default="", help="command to run each run under, for example 'nice -n 5'")
    options = parser.parse_args(arguments)
    if unknown := set(options.ways.split(",")) - set(ways):
        parser.error(f"no way is called {sorted(unknown)[0]!r}; there are: {', '.join(ways)}")
    stamp = now().replace(":", "").replace("-", "")[:15]
    out = (options.out or Path("runs") / f"bench-{bench}-{stamp}").resolve()
    out.mkdir(parents=True, exist_ok=True)
    return Choice(options.seeds, options.ways.split(","), out, options.prefix.split())
