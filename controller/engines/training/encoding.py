"""HPO's word on how a model or update is written: worth compressing only where the way takes its share of the time.

``int8`` cuts bytes to about a quarter and costs at most 0.01 of accuracy on the tasks here (measured: ``python -m
hosts.learning.methods --compression int8``); top-k cuts deeper and learns slower, so only an owner asks for it.
"""

from __future__ import annotations

from controller.values.decisions import Step

AUTO = "auto"
WORTHWHILE = 0.1


def choose(wanted: str, step: Step, journeys: int = 1) -> str:
    """Return the encoding for a visit: the owner's, or with ``auto`` int8 where the journeys take more than a tenth.

    ``journeys``: how often the model has to pass one after the other over the same link (a group's members, both ways).
    """
    if wanted != AUTO:
        return wanted
    way_s = journeys * (step.option.reach_s + step.option.move_s)
    work_s = step.hyper.epochs * step.option.epoch_s
    return "int8" if way_s > WORTHWHILE * (way_s + work_s) else "none"
