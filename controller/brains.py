"""The one place where the core reaches for its decisions; a researcher who has her own engine puts it in here.

Each attribute is a pure function of ``controller.engines``.  They are looked up when first needed, so that a control
centre that only routes does not load them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from controller.values.decisions import Assessment, Measured, Option, Plan, Request


def _engine(module: str, name: str) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        found = getattr(__import__(f"controller.engines.{module}", fromlist=[name]), name)
        return found(*args, **kwargs)

    return call


@dataclass
class Brains:
    """T-FAM, MTRCE, the gate, MDO, Q-FAM and QIRCE, each replaceable."""

    assess: Callable[[Request, Sequence[Option], int], Assessment] = field(default=_engine("training.tfam", "assess"))
    plan: Callable[..., Plan] = field(default=_engine("routing.mtrce", "plan"))
    judge: Callable[[Request, Measured | None, Measured], tuple[bool, str]] = field(
        default=_engine("training.gate", "judge")
    )
    targets_met: Callable[[Request, Measured, float], bool] = field(default=_engine("training.gate", "targets_met"))
    place: Callable[..., str] = field(default=_engine("inference.mdo", "place"))
    assess_query: Callable[..., Assessment] = field(default=_engine("inference.qfam", "assess_query"))
    choose: Callable[..., list[tuple[str, int]]] = field(default=_engine("inference.qirce", "choose"))
