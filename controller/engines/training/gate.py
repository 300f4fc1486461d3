"""The MPVU's judgement: is this visit's model kept, and is the job done?"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from controller.values.decisions import Measured, Request

TOLERANCE = 0.15
TOLERANCE_MET = 0.01  # of a model that meets its targets and is trained on
SPARE = 0.01
MET = 2.0  # more than all accuracies together
EXPERT_WEIGHT = 0.5


def has_target(request: Request) -> bool:
    """Tell whether a request names any accuracy; one that does not asks for the best within its budget."""
    return request.broad_accuracy > 0 or (request.expert_group is not None and request.expert_accuracy > 0)


def met_in_words(request: Request) -> str:
    """Say that a request is met, by how many targets it has."""
    broad, expert = request.broad_accuracy > 0, bool(request.expert_group) and request.expert_accuracy > 0
    return "both targets met" if broad and expert else "target met" if broad or expert else "no target to meet"


def expert_of(request: Request, measured: Measured) -> float:
    """Return the measured accuracy in the request's expert group (1.0 when it names none)."""
    return measured.per_group.get(request.expert_group, 0.0) if request.expert_group else 1.0


def targets_met(request: Request, measured: Measured, margin: float = 0.0) -> bool:
    """Tell whether both accuracies reach their targets with ``margin`` to spare.

    A request without any target has nothing to spare: it is met without a margin, never with one, so it trains on
    until its budget is used.
    """
    if not has_target(request):
        return margin <= 0
    expert_goal = min(1.0, request.expert_accuracy + margin) if request.expert_group else 0.0
    broad_goal = min(1.0, request.broad_accuracy + margin)
    return measured.broad >= broad_goal and expert_of(request, measured) >= expert_goal


def pooled(found: Iterable[Measured]) -> Measured | None:
    """Return what several MPVUs measured of one model as one, weighted by sample counts; None: nobody measured it."""
    every = list(found)
    if not every:
        return None
    total = sum(m.samples for m in every) or 1
    shares = [(m, m.samples / total) for m in every]
    groups = sorted({g for m in every for g in m.per_group})
    per_group = {g: sum(m.per_group.get(g, 0.0) * share for m, share in shares) for g in groups}
    return Measured(broad=sum(m.broad * share for m, share in shares), per_group=per_group, samples=total)


def beyond(request: Request) -> Request:
    """Return what to plan for once a request's targets are met and it trains on: all that the data can teach."""
    expert = 1.0 if request.expert_group else 0.0
    return msgspec.structs.replace(request, broad_accuracy=1.0, expert_accuracy=expert, beyond=True)


def score(request: Request, measured: Measured) -> float:
    """Return how good a model is for a request: broad accuracy, and half the expert's (the paper's two wishes)."""
    return measured.broad + (EXPERT_WEIGHT * expert_of(request, measured) if request.expert_group else 0.0)


def merit(request: Request, measured: Measured) -> float:
    """Return how near a model is to what a request asks for: its score, less what is missing to the targets; any model
    that meets them is nearer than any that does not.
    """
    missing = max(0.0, request.broad_accuracy + SPARE - measured.broad)
    if request.expert_group:
        missing += max(0.0, request.expert_accuracy + SPARE - expert_of(request, measured))
    met = has_target(request) and targets_met(request, measured)
    return score(request, measured) - missing + (MET if met else 0.0)


def judge(request: Request, before: Measured | None, after: Measured) -> tuple[bool, str]:
    """Accept a visit, or reject it so that the object rolls back; the reason is for a person.

    A visit may cost some of what earlier ones taught (``TOLERANCE``): an order that never steps back gets stuck. What
    meets the targets is not given up for what does not.
    """
    now = _words(request, after)
    if before is None:
        return True, f"first measurement: {now}"
    change = score(request, after) - score(request, before)
    was = _words(request, before)
    met, met_before = (has_target(request) and targets_met(request, m) for m in (after, before))
    if met and met_before and request.train_on and change < -TOLERANCE_MET:
        return False, f"worse: {now}, was {was}"
    if met:
        return True, f"targets met: {now}"
    if met_before:
        return False, f"would lose a target: {now}, was {was}"
    if change < -TOLERANCE:
        return False, f"forgot more than it learned: {now}, was {was}"
    return True, f"{'better' if change > 0 else 'no better, kept'}: {now}, was {was}"


def _words(request: Request, measured: Measured) -> str:
    broad = f"broad {measured.broad:.3f}"
    return f"{broad}, {request.expert_group} {expert_of(request, measured):.3f}" if request.expert_group else broad
