"""What a job can be expected to come to within its budget: T-FAM's look ahead along MTRCE's own plan.

The route that MTRCE would plan now, all visits of it, is walked in the prediction (``forgetting``) under the request's
visit budget, deadline and reachability windows, with the accuracies that the data can teach at best (``evidence``) as
ceilings. Twice: towards the targets (what the job will take), and as far as the budget carries (what it could reach).

Intervals. Forecast and measured accuracy were compared on jobs really trained to the end of their budgets (41 table
jobs of ``benchmarks/tfam.py --calibrate``, seeds 10000-10060: mean error 0.02, deciles -0.08 and +0.09; and 70 requests
that missed). The errors grow with the skew of the nodes' mixes, for a skewed route may forget what the prediction
keeps: ``SPREAD`` and ``SPREAD_SKEW`` aim at 80 % intervals (of those jobs 0.85 and 0.81 lay inside).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec
import numpy as np

from controller.engines.routing import canvas as drawn
from controller.engines.routing import forgetting
from controller.engines.routing.canvas import Canvas, Offer
from controller.engines.routing.forgetting import State
from controller.engines.routing.routes import routes, shortlist
from controller.engines.training.evidence import Evidence
from controller.values.decisions import Request
from controller.values.errors import EngineError

HORIZON = 9
SCOUT_AHEAD = 5
MOST_VISITS = 40
SPREAD = 0.05
SPREAD_SKEW = 0.2
SPREAD_COST = 0.5  # of visits, seconds and bytes: rejected visits are made again, targets met by luck end early
CHEAP = 0.1  # what a visit costs here beside MTRCE: how far one can get is asked, not how cheaply
VERIFY_S = 0.4  # at an MPVU, besides the way there


class NoForecast(EngineError):
    """Not even one visit fits."""


class Forecast(NamedTuple):
    """Where a route ends: accuracies, and what it takes; ``met``: the targets it was planned for are reached."""

    broad: float
    expert: float
    visits: int
    seconds: float
    bytes: float
    met: bool


def canvas_of(request: Request, offers: Sequence[Offer], evidence: Evidence, quick: float = 1.0) -> Canvas:
    """Lay everything on offer out, with the evidence's word on what it can teach; ``quick``: samples count so often."""
    canvas = drawn.draw(request, [], offers, offers)
    learned = evidence.counts.sum(axis=0)
    verify_s = VERIFY_S + request.model_bytes / drawn.MODEL_BYTES_PER_S  # each visit ends at an MPVU
    ceiling = np.clip(evidence.group_accuracy(learned), 0.0, forgetting.CEILING)
    canvas = canvas._replace(
        ceiling=ceiling, met=canvas.met * quick, cost_s=canvas.cost_s + verify_s,
        toll=canvas.toll * CHEAP,
    )  # fmt: skip
    free = _aimed(canvas, msgspec.structs.replace(request, deadline_s=1e9), 1.0, 1.0)
    return shortlist(free, forgetting.blank(len(canvas.share)), range(len(offers)), SCOUT_AHEAD)[0]


def along(canvas: Canvas, request: Request, broad: float, expert: float) -> Forecast:
    """Walk the route that MTRCE would plan towards these accuracies (1: as far as it goes) within the budget."""
    canvas = _aimed(canvas, request, broad, expert)
    state, made, now_s, sent = forgetting.blank(len(canvas.share)), 0, 0.0, 0.0
    first = list(range(len(canvas.offers)))
    while made < min(request.max_visits, MOST_VISITS) and (not made or drawn.shortfall(canvas, state.skill) > 0):
        before = now_s
        found = routes(canvas, state, first, min(request.max_visits - made, HORIZON))
        if not found or (made and found[0].worth <= float(drawn.worth(canvas, state.skill, 0, np.array(0.0)))):
            break
        best = found[0]
        state, made, now_s = best.state, made + len(best.picks), before + best.spent_s
        sent += sum(2 * request.model_bytes + canvas.options[i].move_bytes for i in best.picks)
        canvas, first = _further(canvas, best.picks, best.spent_s), _but(best.picks[-1], len(canvas.offers))
    if not made:
        raise NoForecast("no visit fits into the deadline and the rendezvous' reachability")
    return _told(canvas, state, made, now_s, sent, (broad, expert))


def _told(
    canvas: Canvas, state: State, visits: int, seconds: float, sent: float, goal: tuple[float, float]
) -> Forecast:
    broad, expert = (float(a) for a in drawn.accuracies(canvas, state.skill))
    met = broad >= goal[0] and (canvas.expert < 0 or expert >= goal[1])
    return Forecast(broad, expert, visits, seconds, sent, met)


def _aimed(canvas: Canvas, request: Request, broad: float, expert: float) -> Canvas:
    """Aim a canvas at other accuracies: no route is planned beyond what the data can teach."""
    wanted = msgspec.structs.replace(request, broad_accuracy=broad, expert_accuracy=expert)
    goals = drawn.goals(wanted, canvas.ceiling, canvas.share, canvas.expert)
    return canvas._replace(request=wanted, goals=goals, until_s=np.minimum(canvas.until_s, request.deadline_s))


def _further(canvas: Canvas, picks: Sequence[int], spent_s: float) -> Canvas:
    counts = np.bincount(np.array(picks), minlength=len(canvas.offers))
    return canvas._replace(times=canvas.times + counts, done=canvas.done + len(picks), until_s=canvas.until_s - spent_s)


def _but(last: int, count: int) -> list[int]:
    return [i for i in range(count) if i != last] or [0]


def margin(skew: float) -> float:
    """Return the half width of an 80 % interval around a predicted accuracy."""
    return SPREAD + SPREAD_SKEW * skew


def interval(value: float, half: float) -> tuple[float, float]:
    """Return an interval of accuracies within 0..1."""
    return max(0.0, value - half), min(1.0, value + half)
