"""What each engine of the paper is given and must answer: the contract that a researcher's own engine keeps, too.

``arguments`` and ``answer`` are the types that cross to an engine of one's own and back; ``fault`` says what is wrong
with an answer of the right type ('': nothing). An ``EngineError`` of an engine is an answer as well: "there is none".
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import msgspec

from controller.engines.training.tag import METHODS, Choice, Cut, Ways
from controller.values.decisions import Assessment, Hyper, JobView, Load, Measured, Option, Plan, Request
from controller.values.knowledge import ModelAt, Node
from packets.queries import Need

SHARES = ("broad", "expert")  # accuracies, among visits and seconds
MOST_FIGURES = 64
MOST_WEIGHT = 1 << 16  # a bucket's weight in OpenFlow


@dataclass(frozen=True)
class Contract:
    """One engine's. ``asked``: the question for a person; ``signature``: how an own engine is declared."""

    name: str
    paper: str
    asked: str
    signature: str
    default: str
    arguments: Any
    answer: Any
    fault: Callable[[Sequence[Any], Any], str]

    @property
    def source(self) -> str:
        """Where the default engine is: ``module:function``."""
        return f"controller.engines.{self.default}"

    def of_default(self, *arguments: Any) -> Any:
        """Answer by the default engine."""
        return _load(self.default)(*arguments)


@cache
def _load(where: str) -> Callable[..., Any]:
    module, _, name = where.partition(":")
    found: Callable[..., Any] = getattr(importlib.import_module(f"controller.engines.{module}"), name)
    return found  # loaded when first needed: a control centre that only routes does not wait for it


def _plan(arguments: Sequence[Any], answer: Plan | list[str]) -> str:
    offered, floor = {o.handle: o for o in arguments[2]}, arguments[0].trust_floor
    named = answer if isinstance(answer, list) else [s.option.handle for s in answer.steps]
    if not named:
        return "the plan has no step; raise EngineError where there is none"
    strange = next((h for h in named if h not in offered), None)
    if strange is not None:
        return f"the plan goes to {strange[:40]!r}, which is not on offer"
    barred = next((h for h in named if offered[h].trust < floor), None)
    if barred is not None:
        return f"the plan goes to {barred[:40]!r}, which is below the trust floor {floor:.2f}"
    if isinstance(answer, list):
        return ""
    costs = [x for s in answer.steps for x in (s.cost_s, float(s.cost_bytes), s.wait_s)]
    if not all(math.isfinite(x) and x >= 0 for x in costs):
        return "a step's cost is negative or no number"
    return next((f for s in answer.steps if (f := _hyper(arguments, s.hyper))), "")


def _hyper(arguments: Sequence[Any], answer: Hyper) -> str:
    if not (math.isfinite(answer.epochs) and 0 < answer.epochs <= 1000):
        return f"epochs {answer.epochs} is not in 0..1000"
    if not 1 <= answer.batch_size <= 1 << 16:
        return f"batch_size {answer.batch_size} is not in 1..65536"
    if not (math.isfinite(answer.learning_rate) and 0 < answer.learning_rate <= 1):
        return f"learning_rate {answer.learning_rate} is not in 0..1"
    return ""


def _assessment(arguments: Sequence[Any], answer: Assessment) -> str:
    told = [*answer.predicted.items(), *answer.nearest.items()]
    if len(told) > MOST_FIGURES:
        return f"it tells {len(told)} figures, more than {MOST_FIGURES}; a verdict travels in one packet"
    if not all(math.isfinite(x) and 0 <= x <= (1 if key.startswith(SHARES) else x) for key, x in told):
        return "a predicted or nearest figure is out of range (accuracies are in 0..1)"
    return "" if answer.admitted or answer.reasons else "it rejects without a reason"


def _choice(arguments: Sequence[Any], answer: Choice) -> str:
    return "" if answer.method in METHODS else f"method {answer.method!r} is none of {', '.join(METHODS)}"


def _weights(arguments: Sequence[Any], answer: list[tuple[str, int]]) -> str:
    nodes = {m.node for m in arguments[0]}
    for node, weight in answer:
        if node not in nodes:
            return f"it names {node[:40]!r}, which hosts no such model"
        if not 0 < weight < MOST_WEIGHT:
            return f"weight {weight} is not in 1..{MOST_WEIGHT - 1}"
    return ""


def _place(arguments: Sequence[Any], answer: str) -> str:
    return "" if answer in {n.name for n in arguments[2]} else f"it names {answer[:40]!r}, which is no MDFP on offer"


def _anything(arguments: Sequence[Any], answer: Any) -> str:
    return ""


CONTRACTS = {
    c.name: c
    for c in (
        Contract(
            "tfam", "T-FAM", "is this training request feasible?",
            "assess(request, options, verifiers) -> Assessment",
            "training.tfam:assess", tuple[Request, list[Option], int], Assessment, _assessment,
        ),
        Contract(
            "tag", "TAG", "which way to train: sequential, federated, split, gossip?",
            "choose(request, options, ways, cut, local) -> Choice",
            "training.tag:choose", tuple[Request, list[Option], Ways | None, Cut | None, Hyper | None], Choice, _choice,
        ),
        Contract(
            "hpo", "HPO", "epochs, batch size, learning rate of this visit?",
            "hyper(request, visit, samples) -> Hyper",
            "training.hpo:hyper", tuple[Request, int, int], Hyper, _hyper,
        ),
        Contract(
            "mtrce", "MTRCE", "which data next, where, in which order?",
            "plan(request, view, options, load) -> Plan, or the options' handles in order",
            "routing.mtrce:plan", tuple[Request, JobView, list[Option], Load | None], Plan | list[str], _plan,
        ),
        Contract(
            "gate", "MPVU gate", "keep what the visit brought, or roll back?",
            "judge(request, before, after) -> (bool, reason)",
            "training.gate:judge", tuple[Request, Measured | None, Measured], tuple[bool, str], _anything,
        ),
        Contract(
            "qfam", "Q-FAM", "may this class of queries be served?",
            "assess_query(task, models, need, path_ms) -> Assessment",
            "inference.qfam:assess_query", tuple[str, list[ModelAt], Need, dict[str, float]], Assessment, _assessment,
        ),
        Contract(
            "qirce", "QIRCE", "which MDFPs answer, with which weights?",
            "choose(models, path_ms) -> [(node, weight)]",
            "inference.qirce:choose", tuple[list[ModelAt], dict[str, float]], list[tuple[str, int]], _weights,
        ),
        Contract(
            "mdo", "MDO", "which MDFP hosts this model?",
            "place(task, size_bytes, mdfps) -> node name",
            "inference.mdo:place", tuple[str, int, list[Node]], str, _place,
        ),
        Contract(
            "drift", "MDO's drift", "has a deployed model fallen behind the world?",
            "fallen(known, now, group_samples) -> [what has fallen]",
            "inference.drift:fallen", tuple[Measured, Measured, dict[str, int]], list[str], _anything,
        ),
    )
}  # fmt: skip


def read_answer(contract: Contract, arguments: Sequence[Any], raw: Any) -> Any:
    """Return an answer as the contract has it; ``ValueError`` says what is wrong with it."""
    try:
        answer = msgspec.convert(raw, contract.answer)
    except msgspec.ValidationError as error:
        raise ValueError(f"its answer is no {contract.paper} answer: {error}") from None
    if fault := contract.fault(arguments, answer):
        raise ValueError(fault)
    return answer
