"""Does the route matter?  The healthcare job on the real network, planned routes against random ones.

    make bench-route                                 # ten seeds, both methods, 20 runs
    python -m benchmarks.route --seeds 0-2           # fewer
    python -m benchmarks.route --out DIR --resume    # go on where it was stopped

Both methods pass the same admission, get the same data, hyper-parameters, accept/rollback gate and visit budget; only
the choice of the next rendezvous differs. A seed passes when the model that came home meets both targets on the samples
of both MPVUs. One line per run; the last line is one JSON object. ``routed_pass``: share of the seeds whose planned
route passed. ``random_pass``: share whose random route met both targets with the *same number of visits* as the planned
one took for that seed. ``random_pass_full_budget``: the same with all visits that the job allows, for what it is worth.

Runs that measured nothing (the network did not come up, no report) are neither passes nor misses: they are tried once
more, then listed under ``errors``, and the exit status is 1. Results that ``--resume`` keeps are marked, counted in
``reused``, and taken only when scenario and commit are the same.
"""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from benchmarks.common import ChildTimeout, commit, finish, last_words, now, python, run_child, run_main, say
from experiments.errors import ExperimentError
from experiments.scenarios.scenario import load

METHODS = ("routed", "random")
ATTEMPTS = 2
MACHINE_NOT_READY = 2


class NotReady(Exception):
    """``daitn`` refused to run at all (not root, another run stands ...): no use in going on."""


class Stop(NamedTuple):
    """What an MPVU measured after one visit, and whether the model was kept (else rolled back)."""

    broad: float
    expert: float
    accepted: bool


class Result(NamedTuple):
    """What one run came to. ``reused``: read from an earlier run's report."""

    seed: int
    method: str
    passed: bool
    broad: float
    expert: float
    visits: int
    wall_s: float
    reused: bool
    stops: tuple[Stop, ...]


class Bench:
    """All runs of one comparison, each in its own folder under ``out``."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.out: Path = options.out
        self.scenario = load(options.scenario)
        self.job = self.scenario.jobs[0]
        self.results: list[Result] = []
        self.errors: list[str] = []

    def run(self) -> None:
        """Carry out every run, seed by seed, both methods side by side."""
        pairs = [(seed, method) for seed in self.options.seeds for method in METHODS]
        started_s, made = time.monotonic(), 0
        for number, (seed, method) in enumerate(pairs, 1):
            result = self._kept(seed, method) if self.options.resume else None
            if result is None:
                result, made = self._measure(seed, method), made + 1
            if result is not None:
                self.results.append(result)
            left_s = (time.monotonic() - started_s) / made * (len(pairs) - number) if made else 0.0
            self._tell(number, len(pairs), seed, method, result, left_s)

    def _tell(self, number: int, of: int, seed: int, method: str, result: Result | None, left_s: float) -> None:
        head = f"[{number:2}/{of}] seed {seed:<3} {method:<6} "
        if result is None:
            say(f"{head} FAILED: {self.errors[-1]}")
            return
        verdict = "meets both" if result.passed else "misses    "
        figures = f"broad {result.broad:.3f}  {self.job.expert_group} {result.expert:.3f}  {result.visits:2} visits"
        tail = (
            "kept from an earlier run" if result.reused else f"{result.wall_s:.0f} s, about {left_s / 60:.0f} min left"
        )
        say(f"{head} {verdict}  {figures}  ({tail})")

    def _folder(self, seed: int, method: str) -> Path:
        return self.out / f"seed-{seed:03}-{method}"

    def _kept(self, seed: int, method: str) -> Result | None:
        """Return an earlier result, or nothing (and why) when it is not of this scenario and this commit."""
        folder = self._folder(seed, method)
        result = read_report(folder / "report.json", seed, method, reused=True)
        if result is None:
            return None
        try:
            same = msgspec.structs.replace(load(str(folder / "scenario.yaml")), seed=0)
            commit_then = json.loads((folder / "manifest.json").read_text()).get("git") or ""
        except (ExperimentError, OSError, ValueError):
            return None
        if same != msgspec.structs.replace(self.scenario, seed=0) or commit_then != commit().removesuffix("+"):
            say(f"        seed {seed} {method}: result of another scenario or commit is measured anew")
            return None
        return result

    def _measure(self, seed: int, method: str) -> Result | None:
        fault = ""
        for attempt in range(1, ATTEMPTS + 1):
            folder = self._folder(seed, method)
            shutil.rmtree(folder, ignore_errors=True)
            fault = self._child(seed, method, folder)
            result = read_report(folder / "report.json", seed, method, reused=False)
            if result is not None:
                return result
            if attempt < ATTEMPTS:
                say(f"        seed {seed} {method}: no measurement ({fault}); once more")
        self.errors.append(f"seed {seed} {method}: {fault}")
        return None

    def _child(self, seed: int, method: str, folder: Path) -> str:
        """Run ``daitn`` once; return what its log ends with. ``NotReady`` when it would refuse every time."""
        arguments = ["run", self.options.scenario, "--seed", str(seed), "--method", method, "--run-dir", str(folder)]
        command = python("experiments.cli", *arguments, "--no-page", "--no-capture")
        log = self.out / f"{folder.name}.log"
        try:
            status = run_child([*shlex.split(self.options.prefix), *command], log, self.options.timeout_s)
        except ChildTimeout as error:
            return str(error)
        if status == MACHINE_NOT_READY:
            raise NotReady(last_words(log).removeprefix("error: "))
        return last_words(log)

    def _random_share(self) -> float | None:
        """Return the share of seeds whose random route met both targets with as many visits as the planned one took."""
        taken = {r.seed: r.visits for r in self.results if r.method == "routed"}
        pairs = [(r, taken[r.seed]) for r in self.results if r.method == "random" and r.seed in taken]
        met = [met_within(r, visits, self.job.broad_accuracy, self.job.expert_accuracy) for r, visits in pairs]
        return round(sum(met) / len(met), 3) if met else None

    def summary(self) -> dict[str, Any]:
        """Return the object of the last line."""
        by_method = {m: [r for r in self.results if r.method == m] for m in METHODS}
        return {
            "bench": "route",
            "scenario": self.options.scenario,
            "routed_pass": pass_share(by_method["routed"]),
            "random_pass": self._random_share(),
            "random_pass_full_budget": pass_share(by_method["random"]),
            "seeds": len(self.options.seeds),
            "max_visits": self.job.max_visits,
            "targets": {"broad": self.job.broad_accuracy, "expert": self.job.expert_accuracy},
            "measured": {m: len(found) for m, found in by_method.items()},
            "reused": sum(r.reused for r in self.results),
            "mean": {m: means(found) for m, found in by_method.items()},
            "runs": [r._asdict() for r in self.results],
            "errors": self.errors,
        }


def read_report(path: Path, seed: int, method: str, *, reused: bool) -> Result | None:
    """Read what a run measured; nothing where there is no report, or it is of another run, or no MPVU ever spoke."""
    try:
        report = json.loads(path.read_text())
        if (report["seed"], report["method"]) != (seed, method) or report["accuracy"]["broad"] is None:
            return None
        return Result(
            seed=seed,
            method=method,
            passed=bool(report["targets_met"]),
            broad=float(report["accuracy"]["broad"]),
            expert=float(report["accuracy"]["expert"] or 0.0),
            visits=len(report["route"]),
            wall_s=float(report["wall_s"]),
            reused=reused,
            stops=tuple(_stop(visit) for visit in report["route"]),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _stop(visit: dict[str, Any]) -> Stop:
    found = visit["accuracy"] or {}
    return Stop(float(found.get("broad") or 0.0), float(found.get("expert") or 0.0), bool(visit["accepted"]))


def met_within(result: Result, visits: int, broad: float, expert: float) -> bool:
    """Tell whether a run met both targets with its first ``visits`` visits.

    A run that went on longer is judged by the last state that was kept until then, on one MPVU's samples and without
    the margin and the second MPVU's confirmation that the run itself asked for: every doubt speaks for it.
    """
    if result.visits <= visits:
        return result.passed
    kept = [stop for stop in result.stops[:visits] if stop.accepted]
    return bool(kept) and kept[-1].broad >= broad and kept[-1].expert >= expert


def pass_share(results: Sequence[Result]) -> float | None:
    """Return the share of measured seeds that met both targets (nothing measured: None)."""
    return round(sum(r.passed for r in results) / len(results), 3) if results else None


def means(results: Sequence[Result]) -> dict[str, float]:
    """Return the mean of each figure over the measured seeds."""
    fields = ("broad", "expert", "visits", "wall_s")
    return {f: round(statistics.fmean(getattr(r, f) for r in results), 3) for f in fields} if results else {}


def seed_list(text: str) -> list[int]:
    """Read ``0-9`` or ``1,4,7``."""
    first, dash, last = text.partition("-")
    seeds = list(range(int(first), int(last) + 1)) if dash else [int(part) for part in text.split(",")]
    if not seeds or min(seeds) < 0:
        raise ValueError(text)
    return seeds


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.route", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seeds", type=seed_list, default=seed_list("0-9"), help="0-9 or 1,4,7 [default: 0-9]")
    parser.add_argument("--scenario", default="healthcare", help="built-in scenario or path of a YAML file")
    parser.add_argument("--out", type=Path, help="folder for the runs [default: runs/bench-route-<date>]")
    parser.add_argument("--resume", action="store_true", help="keep what was measured in --out before, and say so")
    parser.add_argument("--timeout-s", type=float, default=400.0, help="time limit of one run [default: 400]")
    parser.add_argument("--prefix", default="", help="command to run each run under, for example 'nice -n 5'")
    options = parser.parse_args(arguments)
    if options.resume and options.out is None:
        parser.error("--resume needs --out DIR: which results are to be kept?")
    stamp = now().replace(":", "").replace("-", "")[:15]
    options.out = (options.out or Path("runs") / f"bench-route-{stamp}").resolve()
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it; exit status 0: all measured, 1: some runs failed, 2: the machine is not ready, 130: Ctrl-C."""
    options = parse(arguments)
    try:
        bench = Bench(options)
    except ExperimentError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    seeds = ", ".join(map(str, options.seeds))
    say(f"seeds {seeds}; at most {bench.job.max_visits} visits a run; runs in {options.out}")
    status = 0
    try:
        bench.run()
        status = 1 if bench.errors else 0
    except NotReady as error:
        print(f"error: {error}", file=sys.stderr)
        status = 2
    except KeyboardInterrupt:
        say(f"stopped; go on with: python -m benchmarks.route --resume --out {options.out}")
        status = 130
    finish(bench.summary())
    return status


if __name__ == "__main__":
    run_main(main)
