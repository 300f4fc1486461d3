"""Several models at once: is a route better that heeds the others?  Four owners submit at the same moment, one network.

    make bench-rivals
    python -m benchmarks.rivals --seeds 0-4 --jobs 4

The healthcare scenario with a model owner in each K-AS; every owner wants a cardiology model, so all want the same
few hospitals. Terminals get a quarter of a core each (MPVUs half), so that queues at them and not the machine's own
cores are what four jobs share; ``--usual-shares`` leaves them as in the scenario. Twice per seed, on the same
standing network and in turn first: with plans that heed what other jobs have booked and use of the links, and with
``heed_load`` off, each as if it were alone. The last line is JSON: ``makespan_s`` (from the first submission until
the last model is home), ``mean_s`` (a job's, mean), ``met`` (share of jobs that met both targets), ``visits`` (a
job's, mean) of ``heeding`` and ``alone``, means over seeds; ``makespan_ratio`` and ``mean_ratio``, heeding by alone
(medians of the seeds' ratios).
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.common import NotSeen, finish, run_main, say
from benchmarks.route import seed_list
from benchmarks.standing import StandingNetwork, standing
from experiments.errors import ExperimentError, RunFailed
from experiments.scenarios.scenario import Scenario, dump, load
from packets.messages import JobSpec

JOB_S = 170.0
WAYS = ("heeding", "alone")
SHARES = {"data": 0.25, "compute": 0.25, "mpvu": 0.5}  # cores


def scenario_of(seed: int, usual_shares: bool) -> Scenario:
    """Return the healthcare scenario with an owner in each K-AS."""
    base = load("healthcare")
    kas = {k: msgspec.structs.replace(spec, model_owner=1) for k, spec in base.network.kas.items()}
    network = msgspec.structs.replace(base.network, kas=kas)
    if not usual_shares:
        network = msgspec.structs.replace(network, cpu_share=network.cpu_share | SHARES)
    return msgspec.structs.replace(base, seed=seed, network=network)


def together(network: StandingNetwork, jobs: Sequence[JobSpec], owners: Sequence[str]) -> dict[str, float]:
    """Submit all jobs at once; return what came of them when the last one is over."""

    def one(job: JobSpec, owner: str) -> int:
        reply = network.at(owner, "submit", spec=msgspec.to_builtins(job))["reply"]
        if not reply["admitted"]:
            raise NotSeen(f"{owner}'s job was rejected: {'; '.join(reply['reasons'])}")
        return int(reply["object_id"])

    with ThreadPoolExecutor(len(jobs)) as pool:
        made = list(pool.map(one, jobs, owners))
    ended = {i: network.wait_for("job.finished", JOB_S + 30.0, object_id=i) for i in made}
    began = {i: network.events("job.submitted", object_id=i)[0].t_unix_s for i in made}
    times = [e.t_unix_s - began[i] for i, e in ended.items()]
    return {
        "makespan_s": max(e.t_unix_s for e in ended.values()) - min(began.values()),
        "mean_s": statistics.fmean(times),
        "met": statistics.fmean(e.data["state"] == "finished" for e in ended.values()),
        "visits": statistics.fmean(e.data["visits"] for e in ended.values()),
    }


def carry(seed: int, count: int, folder: Path, usual_shares: bool) -> dict[str, dict[str, float]]:
    """Run both ways on one standing network, which goes first by the seed; {way: figures}."""
    scenario = scenario_of(seed, usual_shares)
    file = folder / f"rivals-{seed}.yaml"
    file.write_bytes(dump(scenario))
    base, found = scenario.jobs[0], dict[str, dict[str, float]]()
    with standing(file, folder / f"seed-{seed}") as network:
        owners = sorted(h["name"] for h in network.events("network.up")[0].data["plan"]["hosts"]
                        if h["role"] == "model_owner")  # fmt: skip
        for way in WAYS if seed % 2 else WAYS[::-1]:
            jobs = [
                msgspec.structs.replace(base, seed=seed * 100 + i, heed_load=way == "heeding") for i in range(count)
            ]
            found[way] = together(network, jobs, [owners[i % len(owners)] for i in range(count)])
            told = ", ".join(f"{key} {value:.2f}" for key, value in found[way].items())
            say(f"seed {seed} {way:<8} {told}")
    return found


def summary(found: Sequence[dict[str, dict[str, float]]]) -> dict[str, Any]:
    """Return means of both ways and the medians of the seeds' ratios."""
    means = {w: {k: round(statistics.fmean(f[w][k] for f in found), 3) for k in found[0][w]} for w in WAYS}
    ratios = {
        f"{key}_ratio": round(statistics.median(f["heeding"][f"{key}_s"] / f["alone"][f"{key}_s"] for f in found), 3)
        for key in ("makespan", "mean")
    }
    return {**means, **ratios}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run all seeds; exit status 0: all measured, 1: some were not, 2: the machine is not ready."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rivals", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seeds", type=seed_list, default=seed_list("0-4"), help="0-4 or 1,4,7 [default: 0-4]")
    parser.add_argument("--jobs", type=int, default=4, choices=range(2, 9), help="submitted at once [default: 4]")
    parser.add_argument("--usual-shares", action="store_true", help="of cores, as the healthcare scenario has them")
    parser.add_argument("--out", type=Path, help="folder for the runs [default: none is kept]")
    options = parser.parse_args(arguments)
    found, errors = list[dict[str, dict[str, float]]](), list[str]()
    with tempfile.TemporaryDirectory(prefix="daitn-rivals-") as temporary:
        folder = (options.out or Path(temporary)).resolve()
        for seed in options.seeds:
            (folder / f"seed-{seed}").mkdir(parents=True, exist_ok=True)
            try:
                found.append(carry(seed, options.jobs, folder, options.usual_shares))
            except (NotSeen, RunFailed, ExperimentError) as error:
                errors.append(f"seed {seed}: {error}")
                say(errors[-1])
    if not found:
        print(f"error: nothing was measured: {errors[0]}", file=sys.stderr)
        return 2
    finish({"bench": "rivals", "jobs": options.jobs, "seeds": len(found), **summary(found), "errors": errors})
    return 1 if errors else 0


if __name__ == "__main__":
    run_main(main)
