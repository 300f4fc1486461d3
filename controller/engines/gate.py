"""The MPVU's judgement: is this visit's model kept, and is the job done?"""

from __future__ import annotations

from controller.engines.types import Measured, Request

TOLERANCE = 0.08
EXPERT_WEIGHT = 0.5


def expert_of(request: Request, measured: Measured) -> float:
    """Return the measured accuracy in the request's expert group (1.0 when it names none)."""
    return measured.per_group.get(request.expert_group, 0.0) if request.expert_group else 1.0


def targets_met(request: Request, measured: Measured, margin: float = 0.0) -> bool:
    """Tell whether both accuracies reach their targets with ``margin`` to spare (a target above 1 - margin asks for 1)."""
    broad = measured.broad >= min(1.0, request.broad_accuracy + margin)
    return broad and expert_of(request, measured) >= min(1.0, request.expert_accuracy + margin if request.expert_group else 0.0)


def score(request: Request, measured: Measured) -> float:
    """Return how good a model is for a request: broad accuracy, plus the expert's share of its target."""
    expert = expert_of(request, measured)
    return measured.broad + (EXPERT_WEIGHT * min(expert, 1.0) if request.expert_group else 0.0)


def judge(request: Request, before: Measured | None, after: Measured) -> tuple[bool, str]:
    """Accept a visit, or reject it so that the object rolls back; the reason is for a person.

    A visit may cost a little of what earlier ones taught (``TOLERANCE``): an order that never steps back gets stuck.
    """
    now = _words(request, after)
    if before is None:
        return True, f"first measurement: {now}"
    if targets_met(request, after):
        return True, f"both targets met: {now}"
    change = score(request, after) - score(request, before)
    if change < -TOLERANCE or targets_met(request, before):
        return False, f"forgot more than it learned: {now}, was {_words(request, before)}"
    return True, f"{'better' if change > 0 else 'slightly worse, kept'}: {now}, was {_words(request, before)}"


def _words(request: Request, measured: Measured) -> str:
    broad = f"broad {measured.broad:.3f}"
    return f"{broad}, {request.expert_group} {expert_of(request, measured):.3f}" if request.expert_group else broad
