"""What does abstraction cost a route?  Jobs on random networks, led with full and with abstracted knowledge.

    make bench-abstraction                                   # 20 networks, seeds 1 to 20; no network, no root
    python -m benchmarks.abstraction --seeds 101-120

Each network has 2-4 K-AS with 4-7 data nodes and 1-3 compute facilities each, speeds and links that differ by ten,
data of a real task (vignettes, or scikit-learn's digits) that lie unevenly, and a job with a broad and an expert
target, 0.9 of what the same model reaches on everybody's data together. The job is led by the engines themselves:

- *full*: every K-AS offers its places as they are (``Intelligence``).
- *abstract*: every K-AS is hierarchical (``Tiered``), two or three data nodes to an abstract terminal: home chooses by
  sums and mixes, tier 2 who is met in it.
- *whole*: the same with one abstract terminal for all of a K-AS, so that home knows no more of it than border gateways
  tell: samples, mix, speed. (What gateways tell decides no route today: options do.)
- *again*: full once more with other shuffles of the training data: what of the ratios is chance.

*Measured*: real PyTorch training at each stop, replanned after each verdict of an MPVU, with gate, merging, rollback
and confirmation (as in ``benchmarks.route_offline``). *Predicted*: the same journey with MTRCE's own forecast in place
of training, made with full knowledge whoever chose. Seconds are reckoned from the speeds and links of who is really
met and the epochs that were ordered, so they do not depend on how busy this machine is.

Quality of a route: seconds until both targets are met (on the samples of both MPVUs). *Ratio*: those with abstraction
over those with full knowledge; **above 1, abstraction is slower**. Where a route misses a target within the visits that
it has, both are timed to where the lesser of the two came nearest; ``missed`` counts those routes. ``ratio_mean`` and
``ratio_worst`` are of *abstract*, measured; ``bytes``: the same of bytes times links; ``accuracy``: of broad and expert
accuracy where each route ends, so there *below* 1 is worse.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import statistics
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import msgspec
import numpy as np
import torch

from benchmarks.abstraction_world import HOME, Groups, Knowledge, World
from benchmarks.common import finish, run_main, say
from benchmarks.route import seed_list
from benchmarks.route_offline import VERIFY_S, settings_of
from benchmarks.tfam import write_tables
from controller.engines.routing import canvas
from controller.engines.routing.canvas import MODEL_BYTES_PER_S, data_key, links
from controller.engines.training import gate, hpo
from controller.topology.drrt import Rendezvous
from controller.values.decisions import JobView, Measured, Option, Request, Step, Visit
from controller.values.errors import EngineError
from hosts.learning.methods.merging import as_measured, merge
from hosts.learning.methods.updates import state_of
from hosts.learning.task import Samples, bytes_to_model, concat_samples, model_to_bytes

MEMBERS = 3
ARMS = ("full", "abstract", "whole", "again")


class Mark(NamedTuple):
    """Where a journey stands after a visit: time and bytes so far, and what is missing to the targets."""

    seconds: float
    bytes: int
    missing: float


class Journey(NamedTuple):
    """What became of a job."""

    met: bool
    marks: list[Mark]
    broad: float
    expert: float

    def until(self, missing: float) -> Mark:
        """Return the first mark at which no more than this was missing."""
        return next(mark for mark in self.marks if mark.missing <= missing)

    @property
    def nearest(self) -> float:
        """The least that was ever missing."""
        return min(mark.missing for mark in self.marks)


class School(Protocol):
    """What a visit does to the model: real training, or a forecast of it."""

    def visit(self, data_node: str, real: Option, step: Step) -> tuple[bool, Measured]:
        """Make a visit; return whether it is kept, and what the first MPVU measured."""

    def pooled(self) -> Measured:
        """Return the measurement of the model as it stands on the samples of both MPVUs."""


class Training:
    """A real model, as ``benchmarks.route_offline`` trains it."""

    def __init__(self, world: World, salt: int) -> None:
        self.world, self.request, self.salt, self.visits = world, world.request, salt, 0
        self.state = model_to_bytes(world.task.new_model(world.seed))
        self.measured: Measured | None = None

    def visit(self, data_node: str, real: Option, step: Step) -> tuple[bool, Measured]:
        task = self.world.task
        model = bytes_to_model(task, self.state)
        settings = settings_of(step, self.world.seed * 1000 + self.visits + 77 * self.salt)
        task.train(model, self.world.parts[data_node].train, settings)
        known = state_of(bytes_to_model(task, self.state)) if self.measured else None
        merged = merge(task, self.world.tests[0], known, model, hpo.MERGE, self.request)
        found = as_measured(merged.kept)
        accepted, _ = gate.judge(self.request, self.measured, found)
        if accepted:
            model.load_state_dict(merged.state)
            self.state, self.measured = model_to_bytes(model), found
        self.visits += 1
        return accepted, found

    def pooled(self) -> Measured:
        samples: Samples = concat_samples(list(self.world.tests))
        return as_measured(self.world.task.evaluate(bytes_to_model(self.world.task, self.state), samples))


class Forecast:
    """MTRCE's forecast of every visit, with full knowledge of who is met, and for the epochs that were ordered."""

    def __init__(self, world: World, meetings: Iterable[Option]) -> None:
        self.request = world.request
        self.every = list({data_key(o): o for o in meetings}.values())
        self.rows = {data_key(o): i for i, o in enumerate(self.every)}
        self.visits: list[Visit] = []
        self.met: list[object] = []
        self.measured = Measured(broad=0.0, per_group={}, samples=1)

    def visit(self, data_node: str, real: Option, step: Step) -> tuple[bool, Measured]:
        offers = [[o] for o in self.every]
        drawn = canvas.draw(self.request, self.met, offers, offers)
        ordered = canvas.passes(step.hyper.epochs) / canvas.passes(hpo.epochs(real.samples))
        drawn = drawn._replace(met=drawn.met * ordered)
        view = JobView(visits=self.visits, measured=self.measured if self.visits else None)
        start = canvas.where(self.request, view, drawn.ceiling)
        then = canvas.after(drawn, start, np.zeros(len(offers)), 0).at(self.rows[data_key(real)])
        broad, _ = canvas.accuracies(drawn, then.skill)
        skills = {g: float(s) for g, s in zip(self.request.groups, then.skill, strict=True)}
        found = Measured(broad=float(broad), per_group=skills, samples=1)
        accepted, _ = gate.judge(self.request, self.measured if self.visits else None, found)
        self.met.append(data_key(real))
        visit = Visit(
            kas=real.kas, handle=real.handle, mix=real.mix, samples=real.samples, epochs=step.hyper.epochs,
            accepted=accepted,
        )  # fmt: skip
        self.visits.append(visit)
        self.measured = found if accepted else self.measured
        return accepted, found

    def pooled(self) -> Measured:
        return self.measured


async def lead(
    knowledge: Knowledge, meetings: Mapping[Rendezvous, Option], school: School, request: Request
) -> Journey:
    """Carry one job through, as its home does; ``meetings``: what each meeting really is."""
    home, view, gone = knowledge.minds[HOME], JobView(), set[str]()
    marks, sent_bytes, margin = list[Mark](), 0, 0.0
    while len(view.visits) < request.max_visits:
        options = [o for o in knowledge.offers() if o.handle not in gone]
        try:
            step = (await home.next_visits(request, view, options)).steps[0]
        except EngineError:
            break
        meeting = await knowledge.settle(step.option)
        if meeting is None:
            gone.add(step.option.handle)
            continue
        real = meetings[meeting]
        hyper = hpo.hyper(request, len(view.visits), real.samples)  # as its home does, once it knows who is met
        step = msgspec.structs.replace(step, hyper=hyper)
        accepted, found = school.visit(meeting.data_node, real, step)
        knowledge.trained(step.option.kas, meeting.data_node)
        sent_bytes += round(2 * request.model_bytes * links(real)) + real.move_bytes  # there, and to the MPVU
        view, pooled = _after(view, step, real, request, accepted, found), school.pooled()
        marks.append(Mark(round(view.elapsed_s, 2), sent_bytes, round(missing(request, pooled), 4)))
        if accepted and gate.targets_met(request, found, margin):
            if gate.targets_met(request, pooled):
                break
            margin += 0.01  # as the control centre does: one that was not confirmed raises the bar
    end = school.pooled()
    met = gate.targets_met(request, end)
    return Journey(met, marks, round(end.broad, 4), round(gate.expert_of(request, end), 4))


def missing(request: Request, found: Measured) -> float:
    """Return what accuracies fall short of the targets, taken together."""
    short = request.broad_accuracy - found.broad, request.expert_accuracy - gate.expert_of(request, found)
    return sum(max(0.0, part) for part in short)


def _after(
    view: JobView, step: Step, real: Option, request: Request, accepted: bool, found: Measured
) -> JobView:  # fmt: skip
    """Return the job as its home sees it after a visit: of who was met, the samples and the time that it took."""
    option, epochs = step.option, step.hyper.epochs
    visit = Visit(
        kas=option.kas, handle=option.handle, mix=option.mix, samples=real.samples, epochs=epochs, accepted=accepted,
        found=found,
    )  # fmt: skip
    ways_s = 2 * request.model_bytes / MODEL_BYTES_PER_S + real.reach_s + real.move_s
    return JobView(
        visits=[*view.visits, visit],
        measured=found if accepted else view.measured,
        elapsed_s=view.elapsed_s + ways_s + epochs * real.epoch_s + VERIFY_S,
    )


def run(world: World) -> dict[str, dict[str, Journey]]:
    """Lead the job of a network by every arm; {"measured" | "predicted": {arm: journey}}."""
    meetings = Knowledge(world, {}).meetings()
    hidden: dict[str, Groups] = {"full": {}, "abstract": world.groups(MEMBERS), "whole": world.groups(0), "again": {}}

    def journey(arm: str, school: School) -> Journey:
        return asyncio.run(lead(Knowledge(world, hidden[arm]), meetings, school, world.request))

    return {
        "measured": {arm: journey(arm, Training(world, arm == "again")) for arm in ARMS},
        "predicted": {arm: journey(arm, Forecast(world, meetings.values())) for arm in ARMS if arm != "again"},
    }


# --- the figures -----------------------------------------------------------------------------------------------------


def compare(full: Journey, other: Journey) -> tuple[Mark, Mark]:
    """Return where both are as near to the targets as the lesser of the two ever came."""
    level = max(full.nearest, other.nearest)
    return full.until(level), other.until(level)


def ratios(pairs: Sequence[tuple[Journey, Journey]]) -> dict[str, Any]:
    """Return the figures of pairs (with full knowledge, otherwise)."""
    marks = [compare(full, other) for full, other in pairs]
    slower = [b.seconds / a.seconds for a, b in marks]
    return {
        "ratio_mean": round(statistics.fmean(slower), 3),
        "ratio_geometric": round(math.exp(statistics.fmean(map(math.log, slower))), 3),
        "ratio_median": round(statistics.median(slower), 3),
        "ratio_worst": round(max(slower), 3),
        "bytes": round(statistics.fmean(b.bytes / a.bytes for a, b in marks), 3),
        "accuracy": round(statistics.fmean((b.broad + b.expert) / (a.broad + a.expert) for a, b in pairs), 4),
        "visits": round(statistics.fmean(len(b.marks) for _, b in pairs), 2),
        "missed": sum(not b.met for _, b in pairs),
    }


def summary(found: Sequence[dict[str, dict[str, Journey]]]) -> dict[str, Any]:
    """Return the figures of all networks."""
    told = {
        how: {arm: ratios([(one[how]["full"], one[how][arm]) for one in found]) for arm in found[0][how]}
        for how in ("measured", "predicted")
    }
    headline = told["measured"]["abstract"]
    return {"ratio_mean": headline["ratio_mean"], "ratio_worst": headline["ratio_worst"], **told}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it; the last line is one JSON object."""
    parser = argparse.ArgumentParser(prog="benchmarks.abstraction", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seeds", type=seed_list, default=seed_list("1-20"), help="0-9 or 1,4,7 [default: 1-20]")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    started, found = time.monotonic(), []
    with tempfile.TemporaryDirectory(prefix="daitn-abstraction-") as folder:
        tables = write_tables(Path(folder))
        for seed in options.seeds:
            world = World(seed, tables)
            found.append(run(world))
            say(_line(world, found[-1]))
    runs = [
        {how: {arm: j._asdict() for arm, j in of.items()} for how, of in one.items()} | {"seed": seed}
        for seed, one in zip(options.seeds, found, strict=True)
    ]
    result = {"bench": "abstraction", "networks": len(found), "members": MEMBERS, **summary(found)}
    finish(result | {"wall_s": round(time.monotonic() - started, 1), "network": False, "runs": runs})
    return 0


def _line(world: World, found: Mapping[str, Mapping[str, Journey]]) -> str:
    asked, data = world.request, sum(h.role == "data" for h in world.plan.hosts)
    told = [f"{how}: {', '.join(f'{arm} {_told(j)}' for arm, j in of.items())}" for how, of in found.items()]
    return (
        f"seed {world.seed:3} {world.name:9} {len(world.plan.kas_numbers)} K-AS, {data:2} data nodes, asked "
        f"{asked.broad_accuracy:.2f}/{asked.expert_accuracy:.2f}; {'; '.join(told)}"
    )


def _told(journey: Journey) -> str:
    return f"{journey.marks[-1].seconds:.1f} s in {len(journey.marks)}{'' if journey.met else ', misses'}"


if __name__ == "__main__":
    run_main(main)
