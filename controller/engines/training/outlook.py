"""What T-FAM reckons with: the offers that can be used, what they can teach, and where MTRCE's own routes get to."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from controller.engines.routing.canvas import NEAR_CEILING, Canvas
from controller.engines.training import forecast
from controller.engines.training.evidence import Evidence, distinct_data, gather, visit_s
from controller.engines.training.forecast import Forecast, NoForecast
from controller.engines.training.hpo import SMALL_MODEL_BYTES
from controller.engines.training.tag import mix_skew
from controller.values.decisions import Option, Request

# A target is out of reach when it allows less than this share of the error that is forecast: one group may be much
# easier than the mean that the evidence speaks of. Nothing above what the forecast itself holds possible is in reach.
LEAST_ERROR, LEAST_ERROR_EXPERT = 1.0, 0.5
# For small models (tables), fitted to 330 random requests carried out (``benchmarks.tfam``, seeds 10000-10493):
QUICK_LEARNER = 8.0  # it learns so much more from a sample at first than the transformer that was fitted
SLACK, SLACK_EXPERT = 0.04, 0.03  # a target so little above what a forecast admits is more often met than missed
SKEW_LOSS = 0.3  # broad accuracy missing at full skew where one visit is all that fits; falls with the root of visits
MOST_VISITS = 40
NO_DEADLINE_S = 1e9
EPSILON = 1e-9


class Outlook(NamedTuple):
    """What T-FAM reckons with: the evidence, the canvas, and both routes (``None``: not one visit fits)."""

    evidence: Evidence
    canvas: Canvas
    skew: float
    wanted: Forecast | None
    reach: Forecast | None

    def bars(self, request: Request) -> tuple[float, float]:
        """Return the accuracies that a forecast has to reach (0: none asked for)."""
        slack = leeway(request)
        broad = 1 - (1 - request.broad_accuracy + slack[0]) / LEAST_ERROR if request.broad_accuracy else 0.0
        expert = 1 - (1 - request.expert_accuracy + slack[1]) / LEAST_ERROR_EXPERT
        expert = max(expert, request.expert_accuracy - forecast.margin(self.skew))
        return broad, expert if wants_expert(request) else 0.0


def look(request: Request, sound: Sequence[Option]) -> Outlook:
    """Forecast the route to the targets and the route as far as the budget goes."""
    capable = request.model_bytes >= SMALL_MODEL_BYTES
    evidence = gather(sound, request.groups, capable=capable)
    known = request if request.groups else msgspec.structs.replace(request, groups=evidence.groups)
    canvas = forecast.canvas_of(known, [[o] for o in sound], evidence, QUICK_LEARNER if _small(known) else 1.0)
    bare = Outlook(evidence, canvas, mix_skew(sound), None, None)
    wanted = along(bare, known, *aim(known))
    return bare._replace(wanted=wanted, reach=along(bare, known, 1.0, 1.0))


def _small(request: Request) -> bool:
    return 0 < request.model_bytes < SMALL_MODEL_BYTES


def leeway(request: Request) -> tuple[float, float]:
    """Return how far below its target (broad, expert) a forecast may stay: small models only."""
    return (SLACK, SLACK_EXPERT) if _small(request) else (0.0, 0.0)


def along(outlook: Outlook, request: Request, broad: float, expert: float) -> Forecast | None:
    """Forecast the route to these accuracies (0..1) within the budget; ``None``: not one visit fits."""
    if not request.groups:
        request = msgspec.structs.replace(request, groups=outlook.canvas.request.groups)
    try:
        found = forecast.along(outlook.canvas, request, broad, expert)
    except NoForecast:
        return None
    loss = SKEW_LOSS * outlook.skew / math.sqrt(_fitting(request, found)) if _small(request) else 0.0
    return found._replace(broad=max(0.0, found.broad - loss))


def _fitting(request: Request, found: Forecast) -> float:
    """Return how many visits such as these fit into the budget, at least one."""
    return max(1.0, min(request.max_visits, request.deadline_s * found.visits / max(found.seconds, EPSILON)))


def usable(request: Request, options: Sequence[Option]) -> tuple[list[Option], list[str]]:
    """Return the options that can be used (each data set once), and the reason when none can."""
    honest = [
        o for o in options if is_possible(o) and o.samples > 0 and any(o.mix.get(g, 0) > 0 for g in _groups(request, o))
    ]
    trusted = [o for o in honest if o.trust >= request.trust_floor]
    lasting = [o for o in trusted if o.available_s >= visit_s(o)]
    if lasting:
        return distinct_data(lasting), []
    if not honest:
        return [], [
            f"no reachable data node offers data of task {request.task} (trust floor {request.trust_floor:.2f})"
        ]
    if not trusted:
        top = max(o.trust for o in honest)
        return [], [
            f"no data node reaches the trust floor {request.trust_floor:.2f}; "
            f"the most trusted of {len(honest)} offers has {top:.2f}"
        ]
    return [], [f"all {len(trusted)} rendezvous on offer become unreachable before one visit could end"]


def _groups(request: Request, option: Option) -> Sequence[str]:
    return request.groups or list(option.mix)


def is_possible(option: Option) -> bool:
    """Tell whether an offer is possible at all: a foreign K-AS's word is checked, not believed."""
    amounts = (option.samples, option.epoch_s, option.reach_s, option.move_s, *option.mix.values())
    shares = (option.quality, option.trust, *option.mix.values())
    return (
        all(math.isfinite(a) and a >= 0 for a in amounts)
        and all(0.0 <= s <= 1.0 for s in shares)
        and sum(option.mix.values()) <= 1.05
        and option.available_s >= 0
    )


def wants_expert(request: Request) -> bool:
    """Tell whether the request has an expert group with a target of its own."""
    return request.expert_group is not None and request.expert_accuracy > 0


def unbound(request: Request) -> Request:
    """Return the request with budgets that bind no route: visits and seconds."""
    return msgspec.structs.replace(request, max_visits=MOST_VISITS, deadline_s=NO_DEADLINE_S)


def aim(request: Request) -> tuple[float, float]:
    """Return the accuracies to plan for."""
    return request.broad_accuracy, request.expert_accuracy if wants_expert(request) else 0.0


def reached(request: Request, found: Forecast | None, outlook: Outlook) -> bool:
    """Tell whether a route reaches what a forecast has to reach, or as near as skill comes to its ceiling."""
    if found is None:
        return False
    ceiling = outlook.canvas.ceiling
    top = (float(ceiling @ outlook.canvas.share), float(ceiling[outlook.canvas.expert]))
    goals = [min(bar, most - 2 * NEAR_CEILING) for bar, most in zip(outlook.bars(request), top, strict=True)]
    return found.broad >= goals[0] and (not wants_expert(request) or found.expert >= goals[1])
