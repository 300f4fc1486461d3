"""Methods side by side: the same scenario with every method and seed, one table, one page of figures.

Every run is a run like any other, each with its own folder, one after the other or several at a time. ``bytes`` and
``seconds`` are what it took until the targets were met and confirmed, by the switches' port counters of all links, or
all of the job where they never were; ``total_bytes`` is all of it, from submission until the model was home.

With ``train_on`` methods that keep one model (and central pooling) go on when their targets are met, until their budget
of visits is used, so that one run tells both what the targets cost and how far the method comes.
"""

from __future__ import annotations

import functools
import json
import re
import statistics
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from experiments.commands.resolving import Said, resolve, words_of
from experiments.errors import ExperimentError
from experiments.run import allow
from experiments.scenarios.scenario import load
from experiments.sweeping.runner import RUN_TIMEOUT_S, How, Running, Task, log_of, measured, side_by_side

DEFAULT_METHODS = ("routed", "random", "cycle", "tramfl", "federated", "gossip", "split", "central")
FIGURES = ("broad", "expert", "bytes", "seconds", "visits", "total_bytes")
TOGETHER = ("federated", "secure", "gossip", "split")


class Result(NamedTuple):
    """What one run came to. ``bytes``, ``seconds``, ``visits``: until the targets were met, if they were (``reached``);
    ``broad``, ``expert``: at the end. ``curve``: see ``experiments.report.curve``.
    """

    method: str
    seed: int
    passed: bool
    broad: float
    expert: float
    visits: int
    bytes: int
    seconds: float
    curve: list[dict[str, Any]]
    folder: str
    reached: bool = False
    total_bytes: int = 0


class Plan(NamedTuple):
    """What is to be compared. ``scenarios``: {method: scenario} where it is another; ``said``:
    as of ``daitn run``, its paths absolute; ``prefix``: words before it; ``settings``: what to tell of its budget;
    ``name``: of the scenario; ``engines``: {label: engine word} where ``methods`` are labels of engines;
    ``own``: {label: file.py:Class} of methods of one's own; ``jobs``: so many runs at a time, each in a sandbox then.
    """

    scenario: str
    methods: tuple[str, ...]
    seeds: tuple[int, ...]
    out: Path
    said: Said = {}  # noqa: RUF012
    timeout_s: float = RUN_TIMEOUT_S
    resume: bool = False
    prefix: tuple[str, ...] = ()
    scenarios: Mapping[str, str] = {}
    settings: tuple[str, ...] = ()
    name: str = ""
    engines: Mapping[str, str] = {}
    own: Mapping[str, str] = {}
    jobs: int = 1

    def method(self, label: str) -> str:
        """Return the method that a label of ``methods`` stands for."""
        return "routed" if label in self.engines else "own" if label in self.own else label

    def engine(self, label: str) -> list[str]:
        """Return the ``--engine`` words that a label of ``methods`` stands for."""
        return [self.engines[label]] if label in self.engines else []


class Comparison:
    """All runs of a plan. ``say`` gets one line a run."""

    def __init__(self, plan: Plan, say: Callable[[str], None]) -> None:
        self.plan, self.say = plan, say
        self._stop = threading.Event()
        self._how = How(self._stop, plan.prefix, plan.timeout_s * plan.jobs, apart=plan.jobs > 1)
        self.results: list[Result] = []
        self.errors: list[str] = []

    def run(self, watch: Callable[[Sequence[Running]], None] = lambda running: None) -> None:
        """Carry out all runs, seed by seed; those that measured nothing are tried twice, then listed as errors."""
        pairs = [(seed, method) for seed in self.plan.seeds for method in self.plan.methods]
        width = max(9, *map(len, self.plan.methods))
        labels = [f"seed {seed:<3} {method:<{width}}" for seed, method in pairs]
        found: dict[int, Result] = {}

        def finished(place: int, came: tuple[Result | None, str]) -> None:
            result, fault = came
            number = len(found) + len(self.errors) + 1
            if result is None:
                seed, method = pairs[place]
                self.errors.append(f"seed {seed} {method}: {fault}")
            else:
                found[place] = result
                self.results = [found[i] for i in sorted(found)]
            told = f"FAILED: {self.errors[-1]}" if result is None else _told(result)
            self.say(f"[{number:2}/{len(pairs)}] {labels[place]} {told}")

        tasks = [
            Task(label, log_of(self.folder(method, seed)), functools.partial(self._one, method, seed))
            for label, (seed, method) in zip(labels, pairs, strict=True)
        ]
        side_by_side(tasks, self.plan.jobs, self._stop, finished=finished, watch=watch)

    def _one(self, method: str, seed: int) -> tuple[Result | None, str]:
        kept = self.read(method, seed) if self.plan.resume and self._same_settings(method, seed) else None
        if kept is not None:
            return kept, ""
        return measured(
            self.folder(method, seed), self._words(method, seed), lambda: self.read(method, seed), self._how
        )

    def _same_settings(self, method: str, seed: int) -> bool:
        """Tell whether a run that is there had the scenario (network, data, budget) that it would have now."""
        try:
            then = load(str(self.folder(method, seed) / "scenario.yaml"))
        except ExperimentError:
            return False
        scenario = self.plan.scenarios.get(method, self.plan.scenario)
        chosen: Said = {"engines": self.plan.engine(method), "method": self.plan.own.get(method)}
        now = resolve(scenario, **(self.plan.said | chosen))
        now = allow(now, self.plan.method(method))
        return msgspec.structs.replace(then, seed=now.seed, seeds=now.seeds) == now

    def folder(self, method: str, seed: int) -> Path:
        return self.plan.out / f"seed-{seed:03}-{re.sub(r'[^A-Za-z0-9._-]+', '-', method)}"

    def _words(self, method: str, seed: int) -> list[str]:
        """Return the words for ``daitn run``."""
        scenario = self.plan.scenarios.get(method, self.plan.scenario)
        chosen = self.plan.own.get(method) or self.plan.method(method)
        words = [scenario, "--seed", str(seed), "--seeds", "1", "--method", chosen]
        return [*words, *(w for e in self.plan.engine(method) for w in ("--engine", e)), *words_of(self.plan.said)]

    def read(self, method: str, seed: int) -> Result | None:
        """Read a run's report; nothing where it measured nothing."""
        return read_result(self.folder(method, seed), method, self.plan.method(method), seed)

    def _equal_bytes(self) -> float:
        spent = [[r.bytes for r in self.of(m)] for m in self.plan.methods if m != "central"]
        return min((statistics.fmean(sizes) for sizes in spent if sizes), default=0.0)

    def of(self, method: str) -> list[Result]:
        return [r for r in self.results if r.method == method]

    def summary(self) -> dict[str, Any]:
        """Return means and deviations per method, and every run.

        ``equal_bytes``: what the thriftiest method that leaves the data where they are took, on average;
        ``broad_at_equal_bytes``: what each had reached when it had spent as much.
        """
        limit = self._equal_bytes()
        methods = {m: summarise(self.of(m), limit) for m in self.plan.methods}
        return {
            "equal_bytes": limit,
            "scenario": self.plan.name or self.plan.scenario,
            "settings": self.plan.settings,
            "seeds": list(self.plan.seeds),
            "methods": methods,
            "runs": [r._asdict() for r in self.results],
            "errors": self.errors,
        }


def read_result(folder: Path, label: str, method: str, seed: int) -> Result | None:
    """Read what a run of a method and one seed came to; nothing where it measured nothing, or is another's."""
    try:
        report = json.loads((folder / "report.json").read_text())
        one = report["seeds"][0]
        if (report["method"], one["seed"]) != (method, seed) or one["accuracy"]["broad"] is None:
            return None
        total, met = int(one["train_bytes"]), one.get("reached")
        until = met or {"visits": len(one["route"]), "bytes": total, "seconds": one["train_s"]}
        return Result(
            method=label, seed=seed, passed=bool(one["targets_met"]), broad=float(one["accuracy"]["broad"]),
            expert=float(one["accuracy"]["expert"] or 0.0), visits=int(until["visits"]), bytes=int(until["bytes"]),
            seconds=float(until["seconds"]), curve=one["curve"], folder=folder.name, reached=bool(met),
            total_bytes=total,
        )  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return None


def reached(result: Result, limit: float) -> float:
    """Return the broad accuracy of the state that was kept when a run had spent so many bytes."""
    so_far = [float(p["broad"]) for p in result.curve if p["bytes"] <= limit]
    return so_far[-1] if so_far else 0.0


def summarise(results: Sequence[Result], limit: float = 0.0) -> dict[str, Any]:
    """Return a method's share of seeds that met both targets, and mean and deviation of each figure."""
    if not results:
        return {"runs": 0, "pass_share": None}
    found: dict[str, Any] = {
        "runs": len(results),
        "pass_share": round(sum(r.passed for r in results) / len(results), 3),
    }
    found["broad_at_equal_bytes"] = round(statistics.fmean(reached(r, limit) for r in results), 4)
    for figure in FIGURES:
        values = [float(getattr(r, figure)) for r in results]
        found[figure] = round(statistics.fmean(values), 4)
        found[f"{figure}_sd"] = round(statistics.stdev(values), 4) if len(values) > 1 else 0.0
    return found


def _told(result: Result) -> str:
    verdict = "targets met" if result.passed else "missed     "
    figures = f"broad {result.broad:.3f}" + (f"  expert {result.expert:.3f}" if result.expert else "")
    until = f"{result.visits:2} visits  {result.bytes / 1e6:7.1f} MB  {result.seconds:6.1f} s"
    in_all = f" to the targets, {result.total_bytes / 1e6:.1f} MB in all" if result.reached else ""
    return f"{verdict}  {figures}  {until}{in_all}"
