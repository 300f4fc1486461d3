"""Is T-FAM right?  Thirty random requests: are admitted ones met, and do rejected ones, forced through, miss?

    make bench-tfam                                      # 30 requests, a minute or two on one core
    python -m benchmarks.tfam --seeds 600-659 --tables-only  # tables alone
    python -m benchmarks.tfam --calibrate --seeds 10000-10060 --tables-only   # what the intervals rest on

A request draws its task (vignettes; or scikit-learn's digits, wine, breast cancer and iris as CSV tables), the number
of nodes, how unevenly the data lie (IID, Dirichlet 0.1 to 5), samples, model, speeds and ways; targets from 0.5 to 1
(every other one with an expert group), 1 to 10 visits, a deadline of 2 to 160 s. T-FAM assesses it on what the nodes
would publish.
Then it is carried out whatever T-FAM said: real PyTorch training at each stop of MTRCE's own route, replanned after
each verdict, with the gate and rollback of an MPVU and the confirmation on the other one's samples.

It is the learning code that the hosts run, without the network: the clock adds up what MTRCE reckons for each visit.
So whether a *deadline* is kept is judged by the plan's own seconds; accuracies are measured. Every number of a request
is drawn evenly (those with wide ranges: their logarithm) before T-FAM sees it, whatever comes of it: about one request
in four misses, some by far, some by a hundredth. So of 30 requests five to ten are rejected, and one more wrong
rejection moves that share by 0.1 to 0.2; ``intervals_held`` counts requests that used their whole budget and missed.
Seeds from 600 are held out: T-FAM's constants were set on seeds 400-479 and 10000-10493.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import torch

from benchmarks.common import finish, run_main, say
from benchmarks.route import seed_list
from benchmarks.route_offline import Country, run_job
from controller.engines.training.tfam import assess
from controller.values.decisions import Assessment, Option, Request
from hosts.learning.task import TaskSpec, model_to_bytes
from hosts.learning.task_spec import Kind

TABLES = ("digits", "wine", "breast_cancer", "iris")
MPVUS = 2


class Case(NamedTuple):
    """A random request, and the country that it is made in."""

    name: str
    country: Country
    options: list[Option]
    request: Request
    skew: str


class Outcome(NamedTuple):
    """What T-FAM said, and what came of it."""

    admitted: bool
    met: bool
    covered: bool | None
    line: str


def write_tables(folder: Path) -> dict[str, str]:
    """Write scikit-learn's bundled sets as CSV files; name -> path."""
    from sklearn import datasets

    paths = {}
    for name in TABLES:
        found = getattr(datasets, f"load_{name}")()
        head = [*(f"x{i}" for i in range(found.data.shape[1])), "label"]
        rows = [",".join([*(f"{v:g}" for v in row), f"c{y}"]) for row, y in zip(found.data, found.target, strict=True)]
        path = folder / f"{name}.csv"
        path.write_text("\n".join([",".join(head), *rows]) + "\n")
        paths[name] = str(path)
    return paths


def draw_case(seed: int, tables: dict[str, str], *, tables_only: bool = False) -> Case:
    """Return the random request of a seed."""
    rng = np.random.default_rng([seed, 41])
    vignettes = not tables_only and seed % 3 == 0
    name = "vignettes" if vignettes else str(rng.choice(TABLES))
    spec, nodes = _vignettes(rng) if vignettes else _table(tables[name], rng)
    country = Country(spec, nodes, seed, sample_s=float(10 ** rng.uniform(-3.6, -2.8)))
    options = [_placed(option, rng) for option in country.options()]
    groups = country.task.groups
    expert = str(rng.choice(groups)) if rng.random() < 0.5 else None
    request = Request(
        task=country.task.name,
        groups=groups,
        broad_accuracy=round(float(rng.uniform(0.5, 1.0)), 2),
        expert_group=expert,
        expert_accuracy=round(float(rng.uniform(0.5, 1.0)), 2) if expert else 0.0,
        max_visits=int(rng.integers(1, 11)),
        deadline_s=round(float(10 ** rng.uniform(0.3, 2.2)), 1),
        model_bytes=len(model_to_bytes(country.task.new_model(seed))),
        seed=seed,
    )
    return Case(name, country, options, request, f"{spec.partition} {spec.alpha:g}")


def _vignettes(rng: np.random.Generator) -> tuple[TaskSpec, int]:
    alpha, samples = float(rng.choice([0.1, 0.15, 0.3, 1.0])), int(rng.choice([200, 400, 800]))
    return TaskSpec(alpha=alpha, train_per_node=samples, test_per_node=100), int(rng.integers(6, 13))


def _table(path: str, rng: np.random.Generator) -> tuple[TaskSpec, int]:
    partition: Kind = "iid" if rng.random() < 0.25 else "dirichlet"
    alpha, hidden = float(rng.choice([0.2, 0.5, 1, 5])), int(rng.choice([0, 16]))
    return TaskSpec(name="table", data=path, partition=partition, alpha=alpha, hidden=hidden), int(rng.integers(3, 9))


def _placed(option: Option, rng: np.random.Generator) -> Option:
    reach_s = float(10 ** rng.uniform(-1.3, 0.0))
    gone_s = float(rng.uniform(5, 60)) if rng.random() < 0.15 else float("inf")
    return msgspec.structs.replace(option, reach_s=reach_s, available_s=gone_s)


def carry_out(case: Case, request: Request) -> dict[str, Any]:
    """Train for real along MTRCE's route, on the case's own offers."""
    offers = case.options
    case.country.options = lambda: offers  # type: ignore[method-assign]
    return run_job(case.country, request)


def judge(seed: int, case: Case) -> Outcome:
    """Assess one request, carry it out in any case, and compare."""
    verdict = assess(case.request, case.options, MPVUS)
    run = carry_out(case, case.request)
    met = bool(run["visits"]) and bool(run["pass"]) and run["seconds"] <= case.request.deadline_s
    right = verdict.admitted == met
    covered = _covered(verdict, run) if not met and run["visits"] else None
    asked = f"{case.request.broad_accuracy:.2f}"
    if case.request.expert_group:
        asked += f"/{case.request.expert_accuracy:.2f}"
    why = "" if verdict.admitted else f" ({verdict.reasons[0][:60]})"
    said = f"{'admitted' if verdict.admitted else 'rejected'}, {'met' if met else 'missed'}{'' if right else '  WRONG'}"
    line = (
        f"{seed:>5} {case.name:13} {case.skew:13} {len(case.options):2} nodes, {case.request.max_visits:2} visits, "
        f"{case.request.deadline_s:5.1f} s: asked {asked:9} expected {_told(verdict):9} got "
        f"{run['broad']:.2f}/{run['expert']:.2f} in {run['visits']:2}; "
        f"{said}{why}"
    )
    return Outcome(verdict.admitted, met, covered, line)


def _told(verdict: Assessment) -> str:
    known = verdict.predicted
    return f"{known['broad']:.2f}" + (f"/{known['expert']:.2f}" if "expert" in known else "")


def _covered(verdict: Assessment, run: dict[str, Any]) -> bool:
    """Tell whether the accuracy that the whole budget came to lies in the interval that was told."""
    known = verdict.predicted
    return bool(known.get("broad_low", 0.0) <= run["broad"] <= known.get("broad_high", 0.0))


def share(values: Sequence[bool]) -> float | None:
    """Return the share of true ones, ``None`` of nothing."""
    return round(sum(values) / len(values), 3) if values else None


def bench(seeds: Sequence[int], tables: dict[str, str], *, tables_only: bool) -> dict[str, Any]:
    """Judge every seed's request; return the last line's object."""
    found: list[Outcome] = []
    started = time.monotonic()
    for seed in seeds:
        found.append(judge(seed, draw_case(seed, tables, tables_only=tables_only)))
        say(found[-1].line)
    admitted = [o.met for o in found if o.admitted]
    rejected = [not o.met for o in found if not o.admitted]
    return {
        "bench": "tfam",
        "requests": len(found),
        "admitted": len(admitted),
        "admitted_met": share(admitted),
        "rejected": len(rejected),
        "rejected_missed": share(rejected),
        "intervals_held": share([o.covered for o in found if o.covered is not None]),
        "wall_s": round(time.monotonic() - started, 1),
        "network": False,
    }


def calibrate(seeds: Sequence[int], tables: dict[str, str], *, tables_only: bool) -> dict[str, Any]:
    """Run requests that ask for everything, and compare what was forecast with what the whole budget came to."""
    errors: list[float] = []
    for seed in seeds:
        case = draw_case(seed, tables, tables_only=tables_only)
        high = msgspec.structs.replace(
            case.request, broad_accuracy=0.99, expert_accuracy=0.99 if case.request.expert_group else 0.0,
            deadline_s=1e6, max_visits=max(2, case.request.max_visits),
        )  # fmt: skip
        known, run = assess(high, case.options, MPVUS).predicted, carry_out(case, high)
        if run["visits"]:
            errors.append(round(run["broad"] - known["broad"], 3))
            row = {"seed": seed, "task": case.name, "skew": case.skew, "forecast": known["broad"]}
            say(json.dumps({**row, "measured": run["broad"], "visits": run["visits"]}))
    deciles = [round(float(q), 3) for q in np.percentile(errors, [10, 50, 90])]
    return {"bench": "tfam-calibration", "mean_error": round(statistics.fmean(errors), 4), "deciles_10_50_90": deciles}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it; the last line is one JSON object."""
    parser = argparse.ArgumentParser(prog="benchmarks.tfam", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seeds", type=seed_list, default=seed_list("600-629"), help="0-9 or 1,4,7 [default: 600-629]")
    parser.add_argument("--tables-only", action="store_true", help="no vignettes: a minute in all")
    parser.add_argument("--calibrate", action="store_true", help="forecasts against whole budgets, on other seeds")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="daitn-tfam-") as folder:
        run = calibrate if options.calibrate else bench
        finish(run(options.seeds, write_tables(Path(folder)), tables_only=options.tables_only))
    return 0


if __name__ == "__main__":
    run_main(main)
