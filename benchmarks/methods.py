"""Which method reaches the targets, at what cost?  Every training method on the real network, same scenario and seeds.

    make bench-methods                                        # healthcare, five seeds, all methods
    python -m benchmarks.methods --seeds 0-1 --methods routed,federated
    python -m benchmarks.methods --out DIR --resume           # go on where it was stopped

One line per run; the last line is one JSON object with, per method: ``pass_share`` (seeds whose model met both targets
on the samples of both MPVUs), ``broad`` and ``expert`` (at the end of the budget), ``bytes`` (port counters of all
links, until the targets were met and confirmed, or all where they never were) and ``seconds`` and ``visits``
until then, ``total_bytes``; means over seeds with ``..._sd``. Methods that keep one model train on to the end of their
budget of visits; groups stop at their targets. Exit status 1: some runs measured nothing.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.common import finish, now, run_main, say
from benchmarks.route import seed_list
from experiments.commands.resolving import resolve
from experiments.comparing.command import Budget, make_plan
from experiments.comparing.page import write_page
from experiments.comparing.runs import DEFAULT_METHODS, Comparison
from experiments.errors import ExperimentError
from experiments.sweeping.runner import RUN_TIMEOUT_S

VISITS = 20
ROUNDS = 16
PASSES = 4


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.methods", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seeds", type=seed_list, default=seed_list("0-4"), help="0-4 or 1,4,7 [default: 0-4]")
    parser.add_argument("--methods", default=",".join(DEFAULT_METHODS))
    parser.add_argument("--scenario", default="healthcare", help="built-in scenario or path of a YAML file")
    parser.add_argument("--data", type=Path, help="real data, where the scenario needs it")
    parser.add_argument("--out", type=Path, help="folder for the runs [default: runs/bench-methods-<date>]")
    parser.add_argument("--prefix", default="", help="command to run each run under, for example 'nice -n 5'")
    parser.add_argument("--timeout-s", type=float, default=RUN_TIMEOUT_S, help="limit of one run [default: 400]")
    parser.add_argument(
        "--visits", type=int, default=VISITS, help="budget of visits of one model [default: %(default)s]"
    )
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="budget of rounds of a group [default: %(default)s]")
    parser.add_argument("--passes", type=int, default=PASSES, help="budget of central pooling [default: %(default)s]")
    parser.add_argument("--no-merge", action="store_true", help="MPVUs keep a visit whole or not at all")
    parser.add_argument("--resume", action="store_true", help="keep what was measured in --out before")
    options = parser.parse_args(arguments)
    stamp = now().replace(":", "").replace("-", "")[:15]
    if options.resume and options.out is None:
        parser.error("--resume needs --out DIR: which results are to be kept?")
    options.out = options.out or Path("runs") / f"bench-methods-{stamp}"
    return options


def against(summary: dict[str, Any]) -> dict[str, float]:
    """Return routed's bytes as a share of each other method's (means over seeds)."""
    methods = summary["methods"]
    routed = methods.get("routed", {}).get("bytes")
    others = {m: found.get("bytes") for m, found in methods.items() if m != "routed"}
    return {m: round(routed / size, 3) for m, size in others.items() if routed and size}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it; exit status 0: all measured, 1: some runs failed, 2: the machine is not ready, 130: Ctrl-C."""
    options = parse(arguments)
    try:
        budget = Budget(options.visits, options.rounds, options.passes, train_on=True, merge=not options.no_merge)
        plan = make_plan(
            options.scenario, options.methods, options.seeds, said={"data": options.data}, out=options.out,
            resume=options.resume, budget=budget,
        )  # fmt: skip
        job = resolve(options.scenario, data=options.data).jobs[-1]
    except ExperimentError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    plan = plan._replace(prefix=tuple(shlex.split(options.prefix)), timeout_s=options.timeout_s)
    say(f"{len(plan.methods)} methods, {len(plan.seeds)} seeds; runs in {plan.out}")
    comparison, status = Comparison(plan, say), 0
    try:
        comparison.run()
        status = 1 if comparison.errors else 0
    except ExperimentError as error:
        print(f"error: {error}", file=sys.stderr)
        status = 2
    except KeyboardInterrupt:
        say(f"stopped; go on with: python -m benchmarks.methods --resume --out {plan.out}")
        status = 130
    summary = comparison.summary()
    if comparison.results:
        targets = {"broad": job.broad_accuracy} | ({"expert": job.expert_accuracy} if job.expert_group else {})
        write_page(summary, plan.out / "compare.html", targets=targets, expert_group=job.expert_group)
    short = [{k: v for k, v in run.items() if k != "curve"} for run in summary["runs"]]
    finish({"bench": "methods", **summary, "runs": short, "routed_bytes_share_of": against(summary)})
    return status


if __name__ == "__main__":
    run_main(main)
