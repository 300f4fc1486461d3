"""T-FAM, the training feasibility assessment module: admit a request, or say all that stands against it.

It checks, each with its numbers: data at all, enough of it overall and of the expert group; an MPVU to verify;
accuracies that the data can be expected to teach (``evidence``: the learning-curve model and its honesty); and whether
MTRCE's own route gets there within the visit budget, the deadline and the reachability windows (``forecast``).
``nearest`` is a whole requirement under the names of ``JobSpec``; assessed in the request's place it is admitted. It is
empty when nothing the owner could ask for would help.

``predicted`` (all numbers; ``_low`` and ``_high`` bound an 80 % interval): ``broad`` and, with an expert group,
``expert``: what the whole budget could reach; ``visits``, ``seconds``, ``bytes``: what the route to the targets takes
(as far as it gets). A dozen numbers at most: the verdict travels in one packet.
"""

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
from controller.values.decisions import Assessment, Mix, Option, Request

MIN_SAMPLES = 40  # fewer cannot be split into training and two test samples
MIN_EXPERT_SAMPLES = 20
# A target is out of reach when it allows less than this share of the error that is forecast: one group may be much
# easier than the mean that the evidence speaks of. Nothing above what the forecast itself holds possible is in reach.
LEAST_ERROR, LEAST_ERROR_EXPERT = 1.0, 0.5
# For small models (tables), fitted to 330 random requests carried out (``benchmarks.tfam``, seeds 10000-10493):
QUICK_LEARNER = 8.0  # it learns so much more from a sample at first than the transformer that was fitted
SLACK, SLACK_EXPERT = 0.04, 0.03  # a target so little above what a forecast admits is more often met than missed
SKEW_LOSS = 0.3  # broad accuracy missing at full skew where one visit is all that fits; falls with the root of visits
NEAREST_TRIES = 12
NEAREST_STEP = 0.03
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
        slack = _slack(request)
        broad = 1 - (1 - request.broad_accuracy + slack[0]) / LEAST_ERROR if request.broad_accuracy else 0.0
        expert = 1 - (1 - request.expert_accuracy + slack[1]) / LEAST_ERROR_EXPERT
        expert = max(expert, request.expert_accuracy - forecast.margin(self.skew))
        return broad, expert if _wants_expert(request) else 0.0


def assess(request: Request, options: Sequence[Option], mpvus: int) -> Assessment:
    """Assess a training request against everything on offer. ``mpvus``: how many MPVUs could verify it."""
    sound, reasons = _sound(request, options)
    outlook = _look(request, sound) if sound else None
    if outlook:
        reasons += _data_reasons(request, outlook.evidence)
    if mpvus < 1:
        reasons.append("no MPVU is reachable and trusted; nobody could verify the model")
    if outlook:
        reasons += _accuracy_reasons(request, outlook) + _budget_reasons(request, outlook)
    predicted = _predicted(request, outlook) if outlook else {"broad": 0.0}
    nearest = _own_terms(request) if not reasons else _nearest(request, options, mpvus)
    return Assessment(admitted=not reasons, reasons=reasons, nearest=nearest, predicted=predicted)


def _look(request: Request, sound: Sequence[Option]) -> Outlook:
    """Forecast the route to the targets and the route as far as the budget goes."""
    capable = request.model_bytes >= SMALL_MODEL_BYTES
    evidence = gather(sound, request.groups, capable=capable)
    known = request if request.groups else msgspec.structs.replace(request, groups=evidence.groups)
    canvas = forecast.canvas_of(known, [[o] for o in sound], evidence, QUICK_LEARNER if _small(known) else 1.0)
    bare = Outlook(evidence, canvas, mix_skew(sound), None, None)
    wanted = _along(bare, known, *_aim(known))
    return bare._replace(wanted=wanted, reach=_along(bare, known, 1.0, 1.0))


def _small(request: Request) -> bool:
    return 0 < request.model_bytes < SMALL_MODEL_BYTES


def _slack(request: Request) -> tuple[float, float]:
    return (SLACK, SLACK_EXPERT) if _small(request) else (0.0, 0.0)


def _along(outlook: Outlook, request: Request, broad: float, expert: float) -> Forecast | None:
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


def _sound(request: Request, options: Sequence[Option]) -> tuple[list[Option], list[str]]:
    """Return the options that can be used (each data set once), and the reason when none can."""
    honest = [
        o for o in options if _is_finite(o) and o.samples > 0 and any(o.mix.get(g, 0) > 0 for g in _groups(request, o))
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


def _is_finite(option: Option) -> bool:
    """Tell whether an offer is possible at all: a foreign K-AS's word is checked, not believed."""
    amounts = (option.samples, option.epoch_s, option.reach_s, option.move_s, *option.mix.values())
    shares = (option.quality, option.trust, *option.mix.values())
    return (
        all(math.isfinite(a) and a >= 0 for a in amounts)
        and all(0.0 <= s <= 1.0 for s in shares)
        and sum(option.mix.values()) <= 1.05
        and option.available_s >= 0
    )


def _data_reasons(request: Request, evidence: Evidence) -> list[str]:
    total, reasons = evidence.counts.sum(), []
    if total < MIN_SAMPLES:
        reasons.append(f"too few samples: {total:.0f} in all data nodes together, at least {MIN_SAMPLES} are needed")
    if _wants_expert(request):
        group, held = request.expert_group or "", _expert_count(request, evidence)
        if group not in evidence.groups:
            reasons.append(f"expert group {group} is not one of the task's groups: {', '.join(evidence.groups)}")
        elif held < MIN_EXPERT_SAMPLES:
            reasons.append(
                f"too few samples of expert group {group}: {held:.0f}, at least {MIN_EXPERT_SAMPLES} are needed"
            )
    return reasons


def _wants_expert(request: Request) -> bool:
    return request.expert_group is not None and request.expert_accuracy > 0


def _expert_count(request: Request, evidence: Evidence) -> float:
    if request.expert_group not in evidence.groups:
        return 0.0
    return float(evidence.counts[:, evidence.groups.index(request.expert_group)].sum())


def _predicted(request: Request, outlook: Outlook) -> Mix:
    """Return what to expect, see above."""
    predicted: Mix = {}
    half = forecast.margin(outlook.skew)
    for name in _taught(request, outlook.evidence):
        value = _floor2(getattr(outlook.reach, name)) if outlook.reach else 0.0
        low, high = forecast.interval(value, half) if outlook.reach else (0.0, 0.0)
        predicted |= {name: value, f"{name}_low": round(low, 3), f"{name}_high": round(high, 3)}
    if outlook.wanted:
        predicted["visits"] = float(outlook.wanted.visits)
        for name, value in (("seconds", outlook.wanted.seconds), ("bytes", outlook.wanted.bytes)):
            part = forecast.SPREAD_COST * value
            predicted |= {name: round(value, 1), f"{name}_low": round(value - part, 1)}
            predicted[f"{name}_high"] = round(value + part, 1)
    return predicted


def _taught(request: Request, evidence: Evidence) -> Mix:
    """Return the accuracies to expect when all data on offer is learned, floored to what two digits can say."""
    learned = evidence.counts.sum(axis=0)  # (groups,)
    taught = {"broad": _floor2(float(evidence.broad_accuracy(learned)))}
    if request.expert_group in evidence.groups:
        expert = evidence.group_accuracy(learned)[evidence.groups.index(request.expert_group)]
        taught["expert"] = _floor2(float(expert))
    return taught


def _floor2(share: float) -> float:
    return math.floor(share * 100 + EPSILON) / 100


def _accuracy_reasons(request: Request, outlook: Outlook) -> list[str]:
    evidence, taught = outlook.evidence, _taught(request, outlook.evidence)
    total, local = evidence.counts.sum(), 1 - evidence.probe_error
    basis = f"(data nodes' own probes: {local:.2f})"
    reasons = []
    slack = _slack(request)
    if request.broad_accuracy > _most(taught["broad"], LEAST_ERROR) + slack[0]:
        reasons.append(
            f"broad accuracy {request.broad_accuracy:.2f} is out of reach: "
            f"{total:.0f} samples predict {taught['broad']:.2f} {basis}"
        )
    expert = taught.get("expert", 1.0)
    most = min(_most(expert, LEAST_ERROR_EXPERT) + slack[1], expert + forecast.margin(outlook.skew))
    if _wants_expert(request) and request.expert_accuracy > most:
        reasons.append(
            f"{request.expert_group} accuracy {request.expert_accuracy:.2f} is out of reach: "
            f"{_expert_count(request, evidence):.0f} samples of it predict {taught['expert']:.2f} {basis}"
        )
    return reasons


def _most(forecast_accuracy: float, least_error: float) -> float:
    """Return the highest target that a forecast admits."""
    return 1 - (1 - forecast_accuracy) * least_error + EPSILON


def _cut(
    request: Request,
    outlook: Outlook,
    least: tuple[float, float] = (1.0, 1.0),
    slack: tuple[float, float] = (0.0, 0.0),
) -> Request:
    """Return the request with both targets cut down to what all data predicts (or a share less error than that)."""
    taught = _taught(request, outlook.evidence)
    highest = taught.get("expert", 0.0) + forecast.margin(outlook.skew)
    return msgspec.structs.replace(
        request,
        broad_accuracy=min(request.broad_accuracy, _floor2(_most(taught["broad"], least[0]) + slack[0])),
        expert_accuracy=min(
            request.expert_accuracy,
            _floor2(min(highest, _most(taught["expert"], least[1]) + slack[1])) if "expert" in taught else 0.0,
        ),
    )


def _budget_reasons(request: Request, outlook: Outlook) -> list[str]:
    """Say whether visits or time run out before the targets (or what the data can teach of them) are reached."""
    cut = _cut(request, outlook, (LEAST_ERROR, LEAST_ERROR_EXPERT), _slack(request))
    if any(_reached(cut, found, outlook) for found in (outlook.wanted, outlook.reach)):
        return []
    free = _along(outlook, _unbound(cut), *_aim(cut))
    out_of_reach = _out_of_reach(request, cut)
    if free is None or not (out_of_reach or _reached(cut, free, outlook)):
        return [] if out_of_reach else [_too_skewed(request, outlook)]
    reasons = []
    short = request.deadline_s >= free.seconds * request.max_visits / free.visits  # visits run out before time does
    if free.visits > request.max_visits:
        reasons.append(f"{request.max_visits} visits are too few: the route to the targets takes about {free.visits}")
    elif short and not out_of_reach:
        reasons.append(f"{request.max_visits} visits are too few where mixes differ by {outlook.skew:.2f}")
    if free.seconds > request.deadline_s or not (reasons or out_of_reach):
        reasons.append(
            f"deadline {request.deadline_s:.0f} s is too near: "
            f"the route to the targets takes about {free.seconds:.1f} s"
        )
    return reasons


def _too_skewed(request: Request, outlook: Outlook) -> str:
    best = outlook.reach
    if best is None:
        return "no visit can be made in time"
    told = f"broad {best.broad:.2f}" + (f", {request.expert_group} {best.expert:.2f}" if _wants_expert(request) else "")
    return f"no route is expected to reach the targets: mixes differ by {outlook.skew:.2f}, the best one reaches {told}"


def _out_of_reach(request: Request, cut: Request) -> bool:
    return (request.broad_accuracy, request.expert_accuracy) != (cut.broad_accuracy, cut.expert_accuracy)


def _unbound(request: Request) -> Request:
    return msgspec.structs.replace(request, max_visits=MOST_VISITS, deadline_s=NO_DEADLINE_S)


def _aim(request: Request) -> tuple[float, float]:
    """Return the accuracies to plan for."""
    return request.broad_accuracy, request.expert_accuracy if _wants_expert(request) else 0.0


def _reached(request: Request, found: Forecast | None, outlook: Outlook) -> bool:
    """Tell whether a route reaches what a forecast has to reach, or as near as skill comes to its ceiling."""
    if found is None:
        return False
    ceiling = outlook.canvas.ceiling
    top = (float(ceiling @ outlook.canvas.share), float(ceiling[outlook.canvas.expert]))
    goals = [min(bar, most - 2 * NEAR_CEILING) for bar, most in zip(outlook.bars(request), top, strict=True)]
    return found.broad >= goals[0] and (not _wants_expert(request) or found.expert >= goals[1])


def _own_terms(request: Request) -> Mix:
    terms = {
        "broad_accuracy": request.broad_accuracy,
        "max_visits": float(request.max_visits),
        "deadline_s": request.deadline_s,
        "trust_floor": request.trust_floor,
    }
    return terms | ({"expert_accuracy": request.expert_accuracy} if request.expert_group is not None else {})


def _nearest(request: Request, options: Sequence[Option], mpvus: int) -> Mix:
    """Return the nearest requirement that would be admitted, or nothing when none would.

    First the budget is widened to what the route to the targets takes, then the targets are lowered step by step.
    """
    sound, _ = _sound(request, options)
    if not sound and options:
        lowest = _floor2(min((o.trust for o in options if _is_finite(o)), default=0.0))
        request = msgspec.structs.replace(request, trust_floor=lowest)
        sound, _ = _sound(request, options)
    if not sound or mpvus < 1:
        return {}
    outlook = _look(request, sound)
    if outlook.evidence.counts.sum() < MIN_SAMPLES:
        return {}
    if _expert_count(request, outlook.evidence) < MIN_EXPERT_SAMPLES:
        request = msgspec.structs.replace(request, expert_accuracy=0.0)
    cut = _cut(request, outlook)
    for share in (*(1.0 - NEAREST_STEP * i for i in range(NEAREST_TRIES)), 0.3, 0.0):
        eased = _eased(_scaled(cut, share), outlook)
        if eased is not None:
            return _own_terms(eased)
    return {}


def _scaled(request: Request, share: float) -> Request:
    return msgspec.structs.replace(
        request,
        broad_accuracy=_floor2(request.broad_accuracy * share),
        expert_accuracy=_floor2(request.expert_accuracy * share),
    )


def _eased(request: Request, outlook: Outlook) -> Request | None:
    """Return the request with as much more budget as its targets take; ``None`` when none suffices."""
    if _reached(request, _along(outlook, request, *_aim(request)), outlook):
        return request
    free = _along(outlook, _unbound(request), *_aim(request))
    if free is None or not _reached(request, free, outlook):
        return None
    for more in (0, 2, MOST_VISITS):  # a wider budget may be planned another way
        eased = msgspec.structs.replace(
            request,
            max_visits=max(request.max_visits, min(free.visits + more, MOST_VISITS)),
            deadline_s=max(request.deadline_s, float(math.ceil(free.seconds * (1 + more / 2)))),
        )
        if _reached(eased, _along(outlook, eased, *_aim(eased)), outlook):
            return eased
    return None
