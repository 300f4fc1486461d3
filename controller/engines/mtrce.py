"""MTRCE, the model training route compute engine: which data to meet, where, and in which order (paper, section III).

The order matters because a model forgets: what a hospital without cardiology teaches pushes cardiology out.  The planner
starts from the last measurement of an MPVU, predicts what each visit would teach and wipe out (``forgetting.py``), and looks
ahead with a beam over whole sequences: the best plan ends on a model that meets every target with room to spare, soonest
and cheapest.  The object makes the first step, an MPVU measures it, and the planner plans anew.

``method`` "routed" plans; "random" and "fixed" are baselines under the same budget, filters, hyper-parameters and gate.
Pure and deterministic under ``request.seed``; reasons name K-AS and groups, never a node.
"""

from __future__ import annotations

import zlib
from typing import NamedTuple

import numpy as np

from controller.engines import forgetting, gate, hpo
from controller.engines.errors import EngineError
from controller.engines.types import Hyper, JobView, Mix, Option, Plan, Request, Step

MARGIN = 0.015
BEAM = 24
LOOK_AHEAD = 5
MAX_OPTIONS = 64
EXPERT_URGENCY = 1.0
ROOM_WEIGHT = 0.25
ENOUGH_ROOM = 0.05
PATH_WEIGHT = 0.02
VISIT_COST = 0.02
TIME_WEIGHT = 0.15
MOVE_BYTES_PER_S = 50e6 / 8
ALTERNATIVES = 4


class NoRoute(EngineError):
    """No rendezvous is left that the request may use; the message says why."""


class _State(NamedTuple):
    """A model as predicted: skill and samples seen per group, both (groups,)."""

    skill: np.ndarray
    seen: np.ndarray


class _Canvas(NamedTuple):
    """A request with its options as arrays: ``met`` samples (options, groups), ``share`` of each group in the country."""

    request: Request
    options: list[Option]
    met: np.ndarray
    cost_s: np.ndarray
    share: np.ndarray
    expert: int
    first: int
    again: np.ndarray


class _Path(NamedTuple):
    """A sequence of options looked at, the state it would end in, and its worth."""

    picks: tuple[int, ...]
    state: _State
    worth: float
    spent_s: float
    debt: float


def plan(request: Request, view: JobView, options: list[Option]) -> Plan:
    """Return the ordered rendezvous from here on; ``NoRoute`` when nothing may be visited any more."""
    left = request.max_visits - len(view.visits)
    if left <= 0:
        raise NoRoute(f"the budget of {request.max_visits} visits is used up; ask for more visits or lower the targets")
    usable = _usable(request, view, options)
    start, done = _where(request, view), len(view.visits)
    if request.method in ("random", "fixed"):
        return _baseline(request, view, usable, start, done, left)
    canvas = _draw(request, view, usable, done)
    ranked = _search(canvas, start, view, min(left, LOOK_AHEAD))
    return _as_plan(canvas, start, view, ranked)


# --- what may be visited ---------------------------------------------------------------------------------------------


def _usable(request: Request, view: JobView, options: list[Option]) -> list[Option]:
    """Drop what breaks a rule of the request, in a stable order; ``NoRoute`` counts the reasons when none is left."""
    time_left = request.deadline_s - view.elapsed_s
    refused: dict[str, int] = {}
    usable: list[Option] = []
    for option in sorted(options, key=lambda o: (o.kas, o.handle)):
        why = _refusal(request, option, time_left, _cost_s(option, hpo.EPOCHS, request.model_bytes))
        if why:
            refused[why] = refused.get(why, 0) + 1
        else:
            usable.append(option)
    if not usable:
        told = ", ".join(f"{n} {why}" for why, n in sorted(refused.items())) or "none was offered"
        raise NoRoute(f"no rendezvous of {len(options)} may be visited: {told}")
    return usable


def _refusal(request: Request, option: Option, time_left: float, cost_s: float) -> str:
    if option.samples <= 0:
        return "without data"
    if option.trust < request.trust_floor:
        return f"below the trust floor {request.trust_floor:.2f}"
    if option.available_s < cost_s:
        return "reachable for too short"
    return "too slow for the deadline" if cost_s > time_left else ""


def _cost_s(option: Option, epochs: float, model_bytes: int) -> float:
    return option.reach_s + option.move_s + epochs * option.epoch_s + model_bytes / MOVE_BYTES_PER_S


# --- where the model stands ------------------------------------------------------------------------------------------


def _where(request: Request, view: JobView) -> _State:
    """Return the state of the model: visits replayed through the prediction, corrected by the last measurement."""
    groups = request.groups
    state = _State(np.zeros(len(groups)), np.zeros(len(groups)))
    for number, visit in enumerate(view.visits):
        if visit.accepted is False:
            continue
        hyper = hpo.hyper(request, number)
        met = forgetting.mix_matrix(groups, [visit])[0]
        state = _State(*forgetting.step(state.skill, state.seen, met, hyper))
        if visit.accepted and view.measured and not _unmeasured_after(view, number):
            state = state._replace(skill=_measured(groups, view, state.skill))
    return state


def _unmeasured_after(view: JobView, number: int) -> bool:
    return any(v.accepted for v in view.visits[number + 1 :])


def _measured(groups: list[str], view: JobView, predicted: np.ndarray) -> np.ndarray:
    found = view.measured.per_group if view.measured else {}
    return np.array([found.get(g, predicted[i]) for i, g in enumerate(groups)])


def _draw(request: Request, view: JobView, usable: list[Option], done: int) -> _Canvas:
    """Lay the options out as arrays; where there are very many, keep the cheapest and richest for each group."""
    chosen = usable if len(usable) <= MAX_OPTIONS else _shortlist(request, usable)
    met = forgetting.mix_matrix(request.groups, chosen)
    every = forgetting.mix_matrix(request.groups, usable)
    best = max(o.quality for o in chosen) or 1.0
    met = met * np.array([[o.quality / best] for o in chosen])
    visited = [v.handle for v in view.visits]
    again = np.array([visited.count(o.handle) for o in chosen])
    cost = np.array([_cost_s(o, hpo.EPOCHS, request.model_bytes) for o in chosen])
    expert = request.groups.index(request.expert_group) if request.expert_group in request.groups else -1
    share = every.sum(axis=0) / max(every.sum(), 1e-9)
    return _Canvas(request, chosen, met, cost, share, expert, done, again)


def _shortlist(request: Request, usable: list[Option]) -> list[Option]:
    met = forgetting.mix_matrix(request.groups, usable)
    cost = np.array([_cost_s(o, hpo.EPOCHS, request.model_bytes) for o in usable])
    per_group = max(1, MAX_OPTIONS // (len(request.groups) + 1))
    covered = np.minimum(met, forgetting.SAMPLES_TO_LEARN).sum(axis=1)
    worth = np.concatenate([met, covered[:, None]], axis=1) / (1.0 + cost[:, None])
    keep = {int(i) for column in worth.T for i in np.argsort(-column, kind="stable")[:per_group]}
    return [usable[i] for i in sorted(keep)]


# --- the search ------------------------------------------------------------------------------------------------------


def _search(canvas: _Canvas, start: _State, view: JobView, depth: int) -> list[_Path]:
    """Beam search over sequences of options; returns the paths seen, best first (each first step at least once)."""
    barred = _just_rejected(view)
    beam = [_Path((), start, float("-inf"), 0.0, 0.0)]
    ended: list[_Path] = []
    for level in range(depth):
        hyper = hpo.hyper(canvas.request, canvas.first + level)
        grown = [path for root in beam for path in _grow(canvas, root, hyper, barred if level == 0 else frozenset())]
        if not grown:
            break
        grown.sort(key=lambda p: (-p.worth, p.picks))
        ended.extend(grown[:BEAM] if level else grown)
        beam = [p for p in grown[: 2 * BEAM] if _shortfall(canvas, p.state.skill) > 0][:BEAM]
    return sorted(ended, key=lambda p: (-p.worth, p.picks))


def _just_rejected(view: JobView) -> frozenset[str]:
    """Handles that the MPVU rejected since the last accepted state: from that state they would be rejected again."""
    handles: list[str] = []
    for visit in reversed(view.visits):
        if visit.accepted is not False:
            break
        handles.append(visit.handle)
    return frozenset(handles)


def _grow(canvas: _Canvas, root: _Path, hyper: Hyper, barred: frozenset[str]) -> list[_Path]:
    times = canvas.again + np.bincount(root.picks, minlength=len(canvas.options)) if root.picks else canvas.again
    fresh = 1.0 / (1.0 + forgetting.SAME_DATA_AGAIN * times[:, None])
    skill, seen = forgetting.step(root.state.skill, root.state.seen, canvas.met * fresh, hyper)  # (options, groups)
    paths: list[_Path] = []
    for i, option in enumerate(canvas.options):
        if option.handle in barred and len(barred) < len(canvas.options):
            continue
        state = _State(skill[i], seen[i])
        spent = root.spent_s + float(canvas.cost_s[i])
        short = _shortfall(canvas, state.skill)
        worth = -short - PATH_WEIGHT * root.debt + ROOM_WEIGHT * _room(canvas, state.skill)
        worth -= TIME_WEIGHT * spent / max(canvas.request.deadline_s, 1e-9) + VISIT_COST * (len(root.picks) + 1)
        paths.append(_Path((*root.picks, i), state, worth, spent, root.debt + short))
    return paths


def _shortfall(canvas: _Canvas, skill: np.ndarray) -> float:
    """Return what is missing to the targets with their margin, 0 when both are met."""
    broad, expert = _accuracies(canvas, skill)
    goal = min(1.0, canvas.request.broad_accuracy + MARGIN)
    short = max(0.0, goal - broad)
    if canvas.expert >= 0:
        short += EXPERT_URGENCY * max(0.0, min(forgetting.CEILING - 0.003, canvas.request.expert_accuracy + MARGIN) - expert)
    return short


def _room(canvas: _Canvas, skill: np.ndarray) -> float:
    """Return what is reached beyond the margin, up to ``ENOUGH_ROOM`` each: predictions err, and so does a test sample."""
    broad, expert = _accuracies(canvas, skill)
    over = min(ENOUGH_ROOM, broad - canvas.request.broad_accuracy - MARGIN)
    return over + (min(ENOUGH_ROOM, expert - canvas.request.expert_accuracy - MARGIN) if canvas.expert >= 0 else 0.0)


def _accuracies(canvas: _Canvas, skill: np.ndarray) -> tuple[float, float]:
    broad = float(skill @ canvas.share)
    return broad, float(skill[canvas.expert]) if canvas.expert >= 0 else broad


# --- the answer ------------------------------------------------------------------------------------------------------


def _as_plan(canvas: _Canvas, start: _State, view: JobView, ranked: list[_Path]) -> Plan:
    best = ranked[0]
    first_steps: dict[str, float] = {}
    for path in ranked:
        first_steps.setdefault(canvas.options[path.picks[0]].handle, round(path.worth, 4))
    del first_steps[canvas.options[best.picks[0]].handle]
    return _assemble(canvas, start, best.picks, list(first_steps.items())[:ALTERNATIVES])


def _assemble(canvas: _Canvas, start: _State, picks: tuple[int, ...], others: list[tuple[str, float]]) -> Plan:
    steps: list[Step] = []
    state = start
    for level, pick in enumerate(picks):
        option, hyper = canvas.options[pick], hpo.hyper(canvas.request, canvas.first + level)
        after = _State(*forgetting.step(state.skill, state.seen, canvas.met[pick], hyper))
        steps.append(_step(canvas, option, hyper, state, after))
        state = after
    broad, expert = _accuracies(canvas, state.skill)
    return Plan(
        steps=steps,
        expected_broad=broad,
        expected_expert=expert,
        total_s=sum(s.cost_s for s in steps),
        total_bytes=sum(s.cost_bytes for s in steps),
        alternatives=others,
    )


def _step(canvas: _Canvas, option: Option, hyper: Hyper, before: _State, after: _State) -> Step:
    request = canvas.request
    expected: Mix = {g: round(float(after.skill[i]), 4) for i, g in enumerate(request.groups)}
    return Step(
        option=option,
        hyper=hyper,
        expected=expected,
        cost_s=_cost_s(option, hyper.epochs, request.model_bytes),
        cost_bytes=request.model_bytes + option.move_bytes,
        verify=True,
        reason=_reason(canvas, option, before, after),
    )


def _reason(canvas: _Canvas, option: Option, before: _State, after: _State) -> str:
    """Say in one line what the visit is for."""
    change = after.skill - before.skill
    groups = canvas.request.groups
    lead = canvas.expert if canvas.expert >= 0 and change[canvas.expert] > 0.01 else int(np.argmax(change))
    lifted = f"lifts {groups[lead]} {before.skill[lead]:.2f} -> {after.skill[lead]:.2f}"
    was, now = (_accuracies(canvas, s.skill)[0] for s in (before, after))
    told = f"broad {was:.2f} -> {now:.2f}" if abs(now - was) >= 0.01 else "broad kept"
    worst = int(np.argmin(change))
    lost = f", {groups[worst]} falls to {after.skill[worst]:.2f}" if change[worst] < -0.05 else ""
    return f"K-AS {option.kas} {option.handle}: {lifted}, {told}{lost}"


# --- baselines -------------------------------------------------------------------------------------------------------


def _baseline(request: Request, view: JobView, usable: list[Option], start: _State, done: int, left: int) -> Plan:
    """Visit in a shuffled order ("random") or in the order of handles ("fixed"); each once before any twice."""
    order = list(usable)
    if request.method == "random":
        rng = np.random.default_rng([request.seed, zlib.crc32(request.task.encode())])
        rank = {o.handle: i for o, i in zip(order, rng.permutation(len(order)), strict=True)}
        order.sort(key=lambda o: rank[o.handle])
    visited = [v.handle for v in view.visits]
    turns = sorted(range(len(order)), key=lambda i: (visited.count(order[i].handle), i))
    canvas = _draw(request, view, order, done) if len(order) <= MAX_OPTIONS else _draw(request, view, order[:MAX_OPTIONS], done)
    picks = tuple(i for i in turns if i < len(canvas.options))[:left]
    planned = _assemble(canvas, start, picks, [])
    return planned
