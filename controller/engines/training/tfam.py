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

import msgspec

from controller.engines.training import forecast
from controller.engines.training.evidence import Evidence
from controller.engines.training.outlook import (
    EPSILON,
    LEAST_ERROR,
    LEAST_ERROR_EXPERT,
    MOST_VISITS,
    Outlook,
    aim,
    along,
    is_possible,
    leeway,
    look,
    reached,
    unbound,
    usable,
    wants_expert,
)
from controller.values.decisions import Assessment, Mix, Option, Request

MIN_SAMPLES = 40  # fewer cannot be split into training and two test samples
MIN_EXPERT_SAMPLES = 20
NEAREST_TRIES = 12
NEAREST_STEP = 0.03


def assess(request: Request, options: Sequence[Option], mpvus: int) -> Assessment:
    """Assess a training request against everything on offer. ``mpvus``: how many MPVUs could verify it."""
    sound, reasons = usable(request, options)
    outlook = look(request, sound) if sound else None
    if outlook:
        reasons += _data_reasons(request, outlook.evidence)
    if mpvus < 1:
        reasons.append("no MPVU is reachable and trusted; nobody could verify the model")
    if outlook:
        reasons += _accuracy_reasons(request, outlook) + _budget_reasons(request, outlook)
    predicted = _predicted(request, outlook) if outlook else {"broad": 0.0}
    nearest = _own_terms(request) if not reasons else _nearest(request, options, mpvus)
    return Assessment(admitted=not reasons, reasons=reasons, nearest=nearest, predicted=predicted)


def _data_reasons(request: Request, evidence: Evidence) -> list[str]:
    total, reasons = evidence.counts.sum(), []
    if total < MIN_SAMPLES:
        reasons.append(f"too few samples: {total:.0f} in all data nodes together, at least {MIN_SAMPLES} are needed")
    if wants_expert(request):
        group, held = request.expert_group or "", _expert_count(request, evidence)
        if group not in evidence.groups:
            reasons.append(f"expert group {group} is not one of the task's groups: {', '.join(evidence.groups)}")
        elif held < MIN_EXPERT_SAMPLES:
            reasons.append(
                f"too few samples of expert group {group}: {held:.0f}, at least {MIN_EXPERT_SAMPLES} are needed"
            )
    return reasons


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
    slack = leeway(request)
    if request.broad_accuracy > _most(taught["broad"], LEAST_ERROR) + slack[0]:
        reasons.append(
            f"broad accuracy {request.broad_accuracy:.2f} is out of reach: "
            f"{total:.0f} samples predict {taught['broad']:.2f} {basis}"
        )
    expert = taught.get("expert", 1.0)
    most = min(_most(expert, LEAST_ERROR_EXPERT) + slack[1], expert + forecast.margin(outlook.skew))
    if wants_expert(request) and request.expert_accuracy > most:
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
    cut = _cut(request, outlook, (LEAST_ERROR, LEAST_ERROR_EXPERT), leeway(request))
    if any(reached(cut, found, outlook) for found in (outlook.wanted, outlook.reach)):
        return []
    free = along(outlook, unbound(cut), *aim(cut))
    out_of_reach = _out_of_reach(request, cut)
    if free is None or not (out_of_reach or reached(cut, free, outlook)):
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
    told = f"broad {best.broad:.2f}" + (f", {request.expert_group} {best.expert:.2f}" if wants_expert(request) else "")
    return f"no route is expected to reach the targets: mixes differ by {outlook.skew:.2f}, the best one reaches {told}"


def _out_of_reach(request: Request, cut: Request) -> bool:
    return (request.broad_accuracy, request.expert_accuracy) != (cut.broad_accuracy, cut.expert_accuracy)


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
    sound, _ = usable(request, options)
    if not sound and options:
        lowest = _floor2(min((o.trust for o in options if is_possible(o)), default=0.0))
        request = msgspec.structs.replace(request, trust_floor=lowest)
        sound, _ = usable(request, options)
    if not sound or mpvus < 1:
        return {}
    outlook = look(request, sound)
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
    if reached(request, along(outlook, request, *aim(request)), outlook):
        return request
    free = along(outlook, unbound(request), *aim(request))
    if free is None or not reached(request, free, outlook):
        return None
    for more in (0, 2, MOST_VISITS):  # a wider budget may be planned another way
        eased = msgspec.structs.replace(
            request,
            max_visits=max(request.max_visits, min(free.visits + more, MOST_VISITS)),
            deadline_s=max(request.deadline_s, float(math.ceil(free.seconds * (1 + more / 2)))),
        )
        if reached(eased, along(outlook, eased, *aim(eased)), outlook):
            return eased
    return None
