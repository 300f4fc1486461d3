"""T-FAM, the training feasibility assessment module: admit a request, or say all that stands against it.

It checks necessary conditions, each with its numbers: data at all, enough of it overall and of the expert group; an
MPVU to verify; accuracies that the data can be expected to teach (``evidence``: the learning-curve model and its
honesty); and the fewest visits and the least seconds in which enough data can be seen, against the visit budget and
the deadline. ``nearest`` is a whole requirement under the names of ``JobSpec``; assessed in the request's place it is
admitted. It is empty when nothing the owner could ask for would help.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec
import numpy as np

from controller.engines.evidence import Evidence, Vector, distinct_data, gather, visit_s
from controller.engines.types import Assessment, Mix, Option, Request

MIN_SAMPLES = 40  # fewer cannot be split into training and two test samples
MIN_EXPERT_SAMPLES = 20
MAX_STEPS = 512
EPSILON = 1e-9


class Need(msgspec.Struct, frozen=True, kw_only=True):
    """The fewest visits, and the least seconds, in which the options teach what is asked."""

    visits: int
    seconds: float


def assess(request: Request, options: Sequence[Option], mpvus: int) -> Assessment:
    """Assess a training request against everything on offer. ``mpvus``: how many MPVUs could verify it.

    ``predicted``: ``broad`` and (with an expert group) ``expert`` accuracy from all usable data, ``least_visits`` and
    ``least_s``: what the targets cannot be had below (a bound; forgetting makes a real route longer).
    """
    sound, reasons = _sound(request, options)
    evidence = gather(sound, request.groups)
    reasons += _data_reasons(request, evidence) if sound else []
    if mpvus < 1:
        reasons.append("no MPVU is reachable and trusted; nobody could verify the model")
    predicted = _predicted(request, evidence)
    reasons += _accuracy_reasons(request, evidence, predicted) if sound else []
    need = _need(request, sound, evidence) if sound else None
    reasons += _budget_reasons(request, need) if need else []
    if need:
        predicted |= {"least_visits": float(need.visits), "least_s": round(need.seconds, 1)}
    nearest = _own_terms(request) if not reasons else _nearest(request, options, mpvus)
    return Assessment(admitted=not reasons, reasons=reasons, nearest=nearest, predicted=predicted)


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


def _predicted(request: Request, evidence: Evidence) -> Mix:
    """Return the accuracies to expect when all data on offer is learned, floored to what two digits can say."""
    learned = evidence.counts.sum(axis=0)  # (groups,)
    predicted = {"broad": _floor2(float(evidence.broad_accuracy(learned)))}
    if request.expert_group in evidence.groups:
        expert = evidence.group_accuracy(learned)[evidence.groups.index(request.expert_group)]
        predicted["expert"] = _floor2(float(expert))
    return predicted


def _floor2(share: float) -> float:
    return math.floor(share * 100 + EPSILON) / 100


def _accuracy_reasons(request: Request, evidence: Evidence, predicted: Mix) -> list[str]:
    total, local = evidence.counts.sum(), 1 - evidence.probe_error
    basis = f"(data nodes' own probes: {local:.2f})"
    reasons = []
    if request.broad_accuracy > predicted["broad"]:
        reasons.append(
            f"broad accuracy {request.broad_accuracy:.2f} is out of reach: "
            f"{total:.0f} samples predict {predicted['broad']:.2f} {basis}"
        )
    if _wants_expert(request) and request.expert_accuracy > predicted.get("expert", 0.0) and "expert" in predicted:
        reasons.append(
            f"{request.expert_group} accuracy {request.expert_accuracy:.2f} is out of reach: "
            f"{_expert_count(request, evidence):.0f} samples of it predict {predicted['expert']:.2f} {basis}"
        )
    return reasons


def _need(request: Request, options: Sequence[Option], evidence: Evidence) -> Need | None:
    """Return what the targets need at least, or the nearest ones within reach where they are not."""
    target = _within_reach(request, evidence)
    fewest = _cover(target, evidence, np.ones(len(options)))
    seconds = np.array([max(EPSILON, visit_s(o)) for o in options])
    quickest = _cover(target, evidence, seconds)
    if not fewest or not quickest:
        return None
    least_s = min(float(seconds[chosen].sum()) for chosen in (fewest, quickest))
    return Need(visits=min(len(fewest), len(quickest)), seconds=least_s)


def _within_reach(request: Request, evidence: Evidence) -> tuple[float, float, int]:
    """Return (broad, expert, expert's column; -1: none) with both targets cut down to what all data predicts."""
    predicted = _predicted(request, evidence)
    column = evidence.groups.index(request.expert_group) if "expert" in predicted and request.expert_group else -1
    expert = min(request.expert_accuracy, predicted["expert"]) if column >= 0 else 0.0
    return min(request.broad_accuracy, predicted["broad"]), expert, column


def _cover(target: tuple[float, float, int], evidence: Evidence, costs: Vector) -> list[int]:
    """Choose options, greedily by gain per cost, until their data predicts the targets; empty when they never do.

    One vectorised pass over all options per choice: 100,000 options and a dozen choices take well under a second.
    """
    learned = np.zeros(len(evidence.groups))
    free, chosen = np.ones(len(costs), dtype=bool), list[int]()
    gap = 1.0
    while free.any() and len(chosen) < MAX_STEPS:
        gaps = _shortfall(target, evidence, learned + evidence.counts)  # (options,)
        score = np.where(free, (gap - gaps) / costs, -np.inf)
        best = int(score.argmax())
        chosen.append(best)
        free[best] = False
        learned = learned + evidence.counts[best]
        gap = float(gaps[best])
        if gap <= EPSILON:
            return chosen
    return []


def _shortfall(target: tuple[float, float, int], evidence: Evidence, learned: Vector) -> Vector:
    """Return how far the expected accuracies stay below the targets, summed; ``learned`` (options, groups)."""
    broad, expert, column = target
    gap = np.maximum(0.0, broad - evidence.broad_accuracy(learned))
    if column >= 0:
        gap = gap + np.maximum(0.0, expert - evidence.group_accuracy(learned)[..., column])
    return np.asarray(gap)


def _budget_reasons(request: Request, need: Need) -> list[str]:
    reasons = []
    if need.visits > request.max_visits:
        reasons.append(f"{request.max_visits} visits are too few: to see enough data takes at least {need.visits}")
    if need.seconds > request.deadline_s:
        reasons.append(
            f"deadline {request.deadline_s:.0f} s is too near: "
            f"the quickest visits that suffice take at least {need.seconds:.1f} s"
        )
    return reasons


def _own_terms(request: Request) -> Mix:
    terms = {
        "broad_accuracy": request.broad_accuracy,
        "max_visits": float(request.max_visits),
        "deadline_s": request.deadline_s,
        "trust_floor": request.trust_floor,
    }
    return terms | ({"expert_accuracy": request.expert_accuracy} if request.expert_group is not None else {})


def _nearest(request: Request, options: Sequence[Option], mpvus: int) -> Mix:
    """Return the nearest requirement that would be admitted, or nothing when none would."""
    sound, _ = _sound(request, options)
    if not sound and options:
        request = msgspec.structs.replace(
            request, trust_floor=_floor2(min((o.trust for o in options if _is_finite(o)), default=0.0))
        )
        sound, _ = _sound(request, options)
    if not sound or mpvus < 1:
        return {}
    evidence = gather(sound, request.groups)
    if evidence.counts.sum() < MIN_SAMPLES:
        return {}
    if _expert_count(request, evidence) < MIN_EXPERT_SAMPLES:
        request = msgspec.structs.replace(request, expert_accuracy=0.0)
    broad, expert, _ = _within_reach(request, evidence)
    request = msgspec.structs.replace(request, broad_accuracy=broad, expert_accuracy=expert)
    need = _need(request, sound, evidence)
    if need is None:
        return {}
    relaxed = msgspec.structs.replace(
        request,
        max_visits=max(request.max_visits, need.visits),
        deadline_s=max(request.deadline_s, float(math.ceil(need.seconds))),
    )
    return _own_terms(relaxed)
