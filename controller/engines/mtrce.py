"""MTRCE, the model training route compute engine: which data to meet, where, and in which order (paper, section III).

The order matters because a model forgets: what a hospital without cardiology teaches pushes cardiology out. The
planner starts from the last measurement of an MPVU, predicts what each visit would teach and wipe out
(``forgetting.py``), and looks ahead with a beam over whole sequences: the best plan ends on a model that meets every
target with room to spare, soonest and cheapest. The object makes the first step, an MPVU measures it, and the planner
plans anew.

``method`` "routed" plans; "random" and "fixed" are baselines under the same budget, filters, hyper-parameters and
gate. Pure and deterministic under ``request.seed``; reasons name K-AS and groups, never a node.
"""

from __future__ import annotations

import zlib
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from controller.engines import evidence, forgetting, gate, hpo
from controller.engines.errors import EngineError
from controller.engines.forgetting import State
from controller.engines.types import JobView, Option, Plan, Request, Step

MARGIN = 0.015
BEAM = 24
LOOK_AHEAD = 5
MAX_OPTIONS = 64
ROOM_WEIGHT = 2.0
ENOUGH_ROOM = 0.05
VISIT_COST = 0.03
TIME_WEIGHT = 0.15
NEW_DATA_WEIGHT = 0.1
MODEL_BYTES_PER_S = 50e6 / 8
ALTERNATIVES = 4

Array = npt.NDArray[np.float64]


class NoRoute(EngineError):
    """No rendezvous is left that the request may use; the message says why."""


class _Canvas(NamedTuple):
    """A request with its options as arrays: the model-specific view on which the search runs.

    ``met``: samples x epochs of each group (options, groups); ``cost_s``, ``times`` already visited, ``size`` share
    of all data: (options,); ``share`` of each group in all data, ``ceiling`` of its accuracy: (groups,).
    """

    request: Request
    options: list[Option]
    met: Array
    cost_s: Array
    times: Array
    size: Array
    share: Array
    ceiling: Array
    expert: int
    done: int


class _Path(NamedTuple):
    """A sequence of options looked at, the state it would end in, and its worth."""

    picks: tuple[int, ...]
    state: State
    worth: float
    spent_s: float


def plan(request: Request, view: JobView, options: list[Option]) -> Plan:
    """Return the ordered rendezvous from here on; ``NoRoute`` when nothing may be visited any more."""
    left = request.max_visits - len(view.visits)
    if left <= 0:
        raise NoRoute(f"the budget of {request.max_visits} visits is used up; ask for more visits or lower the targets")
    usable = _usable(request, view, options)
    visited = _visited(view, options)
    if request.method in ("random", "fixed"):
        ahead = _turns(request, visited, usable)[: min(left, MAX_OPTIONS)]
        canvas = _draw(request, visited, ahead, usable)
        return _assemble(canvas, _where(request, view, canvas.ceiling), tuple(range(len(ahead))), [])
    canvas = _draw(request, visited, _shortlist(request, usable), usable)
    start = _where(request, view, canvas.ceiling)
    ranked = _search(canvas, start, _pointless(view, visited), min(left, LOOK_AHEAD))
    return _assemble(canvas, start, ranked[0].picks, _others(canvas, ranked))


# --- what may be visited ---------------------------------------------------------------------------------------------


def _usable(request: Request, view: JobView, options: list[Option]) -> list[Option]:
    """Return one option for each data set that breaks no rule of the request, in a stable order.

    ``NoRoute`` counts the reasons when none is left.
    """
    time_left_s = request.deadline_s - view.elapsed_s
    refused: dict[str, int] = {}
    usable: list[Option] = []
    for option in sorted(options, key=lambda o: (o.kas, o.handle)):
        why = _refusal(request, option, time_left_s)
        if why:
            refused[why] = refused.get(why, 0) + 1
        else:
            usable.append(option)
    if not usable:
        told = ", ".join(f"{n} {why}" for why, n in sorted(refused.items())) or "none was offered"
        raise NoRoute(f"no rendezvous of {len(options)} may be visited: {told}")
    return evidence.distinct_data(usable)


def _refusal(request: Request, option: Option, time_left_s: float) -> str:
    needed_s = _cost_s(request, option)
    if option.samples <= 0 or not option.mix:
        return "without data of the task"
    if option.trust < request.trust_floor:
        return f"below the trust floor {request.trust_floor:.2f}"
    if option.available_s < needed_s:
        return "reachable for too short"
    return "too slow for what is left of the deadline" if needed_s > time_left_s else ""


def _cost_s(request: Request, option: Option) -> float:
    """Return the seconds of a visit: model across the WAN and in, data over, all local epochs."""
    training_s = hpo.epochs(option.samples) * option.epoch_s
    return option.reach_s + option.move_s + training_s + request.model_bytes / MODEL_BYTES_PER_S


def _shortlist(request: Request, usable: list[Option]) -> list[Option]:
    """Return all options, or of very many the best per second for each group and for breadth."""
    if len(usable) <= MAX_OPTIONS:
        return usable
    met = forgetting.mix_matrix(request.groups, usable)
    cost = np.array([_cost_s(request, o) for o in usable])
    breadth = np.minimum(met, forgetting.SAMPLES_TO_LEARN).sum(axis=1)
    worth = np.concatenate([met, breadth[:, None]], axis=1) / (1.0 + cost[:, None])
    each = max(1, MAX_OPTIONS // worth.shape[1])
    keep = {int(i) for column in worth.T for i in np.argsort(-column, kind="stable")[:each]}
    return [usable[i] for i in sorted(keep)]


# --- where the model stands ------------------------------------------------------------------------------------------


def _data_key(option: Option) -> object:
    """Return what tells data sets apart where handles are opaque and one data set may be met at several facilities."""
    return option.kas, option.samples, option.quality, tuple(sorted(option.mix.items()))


def _visited(view: JobView, options: list[Option]) -> list[object]:
    """Return the data of each visit made: by its handle or, where that is not offered any more, by its mix."""
    by_handle = {(o.kas, o.handle): _data_key(o) for o in options}
    by_mix = {(o.kas, tuple(sorted(o.mix.items()))): _data_key(o) for o in options}
    mixes = [(v.kas, tuple(sorted(v.mix.items()))) for v in view.visits]
    return [by_handle.get((v.kas, v.handle)) or by_mix.get(mix, mix) for v, mix in zip(view.visits, mixes, strict=True)]


def _draw(request: Request, visited: list[object], chosen: list[Option], usable: list[Option]) -> _Canvas:
    """Lay the options out as arrays."""
    every = forgetting.mix_matrix(request.groups, usable)
    known = evidence.gather(usable, request.groups)
    best = max(o.quality for o in chosen) or 1.0
    passes = np.array([[hpo.epochs(o.samples) * o.quality / best] for o in chosen])
    return _Canvas(
        request=request,
        options=chosen,
        met=forgetting.mix_matrix(request.groups, chosen) * passes,
        cost_s=np.array([_cost_s(request, o) for o in chosen]),
        times=np.array([visited.count(_data_key(o)) for o in chosen], dtype=float),
        size=np.array([o.samples for o in chosen]) / sum(o.samples for o in usable),
        share=every.sum(axis=0) / max(every.sum(), 1e-9),
        ceiling=np.clip(known.group_accuracy(every.sum(axis=0)), 0.5, forgetting.CEILING),
        expert=request.groups.index(request.expert_group) if request.expert_group in request.groups else -1,
        done=len(visited),
    )


def _where(request: Request, view: JobView, ceiling: Array) -> State:
    """Return where the model stands: accepted visits replayed through the prediction, corrected by a measurement."""
    state = forgetting.blank(len(request.groups))
    kept = [(i, v) for i, v in enumerate(view.visits) if v.accepted is not False]
    verified = [i for i, v in kept if v.accepted]
    for number, visit in kept:
        met = forgetting.mix_matrix(request.groups, [visit])[0] * visit.epochs
        state = forgetting.step(state, met, hpo.pace(number), ceiling)
        if view.measured and verified and number == verified[-1]:
            found = view.measured.per_group
            state = state._replace(
                skill=np.array([found.get(g, s) for g, s in zip(request.groups, state.skill, strict=True)])
            )
    return state


def _pointless(view: JobView, visited: list[object]) -> set[object]:
    """Return the data that is no use as the next stop.

    That is what was rejected since the last accepted state (it would be again), and what made that state: the same
    data twice running teaches next to nothing (0.70 -> 0.71 measured), repetition has to be spaced.
    """
    barred: set[object] = set()
    for visit, data in zip(reversed(view.visits), reversed(visited), strict=True):
        barred.add(data)
        if visit.accepted is not False:
            break
    return barred


# --- the search ------------------------------------------------------------------------------------------------------


def _search(canvas: _Canvas, start: State, barred: set[object], depth: int) -> list[_Path]:
    """Beam search over sequences of options; returns the paths seen, best first (each first step at least once)."""
    first = [i for i, o in enumerate(canvas.options) if _data_key(o) not in barred] or list(range(len(canvas.options)))
    beam = [_Path((), start, float("-inf"), 0.0)]
    ended: list[_Path] = []
    for level in range(depth):
        allowed = first if level == 0 else range(len(canvas.options))
        grown = [path for root in beam for path in _grow(canvas, root, allowed)]
        grown.sort(key=lambda p: (-p.worth, p.picks))
        ended.extend(grown[:BEAM] if level else grown)
        beam = [p for p in grown[: 2 * BEAM] if _shortfall(canvas, p.state.skill) > 0][:BEAM]
    return sorted(ended, key=lambda p: (-p.worth, p.picks))


def _grow(canvas: _Canvas, root: _Path, allowed: list[int] | range) -> list[_Path]:
    """Extend a path by every allowed option."""
    after = _after(canvas, root.state, root.picks)
    last = root.picks[-1] if len(canvas.options) > 1 and root.picks else -1
    new = [not canvas.times[i] and i not in root.picks for i in range(len(canvas.options))]
    return [_extended(canvas, root, i, after.at(i), new[i]) for i in allowed if i != last]


def _after(canvas: _Canvas, state: State, picks: tuple[int, ...]) -> State:
    """Predict, for every option, the state after a visit to it that follows ``picks``."""
    times = canvas.times + np.bincount(np.array(picks, dtype=int), minlength=len(canvas.options))
    fresh = 1.0 / (1.0 + forgetting.SAME_DATA_AGAIN * times)  # the same samples teach less the second time
    pace = hpo.pace(canvas.done + len(picks))
    return forgetting.step(state, canvas.met * fresh[:, None], pace, canvas.ceiling)


def _extended(canvas: _Canvas, root: _Path, pick: int, state: State, is_new: bool) -> _Path:
    spent_s = root.spent_s + float(canvas.cost_s[pick])
    short = _shortfall(canvas, state.skill)
    worth = ROOM_WEIGHT * _room(canvas, state.skill) - short
    worth -= VISIT_COST * (len(root.picks) + 1) + TIME_WEIGHT * spent_s / max(canvas.request.deadline_s, 1e-9)
    picks = (*root.picks, pick)
    if not gate.has_target(canvas.request):  # the best within the budget: all data should have its say
        fresh = {p for p in picks if not canvas.times[p]}
        worth += NEW_DATA_WEIGHT * sum(float(canvas.size[p]) for p in fresh) + (VISIT_COST if is_new else 0.0)
    return _Path(picks, state, worth, spent_s)


def _goals(canvas: _Canvas) -> tuple[float, float]:
    """Return the accuracies to plan for: the targets with a margin, but nothing above what the data can teach."""
    request = canvas.request
    top = float(canvas.ceiling @ canvas.share)
    if not gate.has_target(request):
        return top, 0.0
    expert_top = float(canvas.ceiling[canvas.expert]) if canvas.expert >= 0 else 0.0
    near = 0.003  # skill only approaches its ceiling
    return min(top - near, request.broad_accuracy + MARGIN), min(expert_top - near, request.expert_accuracy + MARGIN)


def _shortfall(canvas: _Canvas, skill: Array) -> float:
    """Return what is missing to the goals, 0 when both are met."""
    broad, expert = _accuracies(canvas, skill)
    broad_goal, expert_goal = _goals(canvas)
    return max(0.0, broad_goal - broad) + (max(0.0, expert_goal - expert) if canvas.expert >= 0 else 0.0)


def _room(canvas: _Canvas, skill: Array) -> float:
    """Return what is reached beyond the goals, up to ``ENOUGH_ROOM`` each: predictions err, and so does a test."""
    broad, expert = _accuracies(canvas, skill)
    broad_goal, expert_goal = _goals(canvas)
    room = min(ENOUGH_ROOM, broad - broad_goal)
    return room + (min(ENOUGH_ROOM, expert - expert_goal) if canvas.expert >= 0 else 0.0)


def _accuracies(canvas: _Canvas, skill: Array) -> tuple[float, float]:
    broad = float(skill @ canvas.share)
    return broad, float(skill[canvas.expert]) if canvas.expert >= 0 else broad


# --- the answer ------------------------------------------------------------------------------------------------------


def _others(canvas: _Canvas, ranked: list[_Path]) -> list[tuple[str, float]]:
    """Return the best first steps not taken, each with the worth of the best path that starts with it."""
    worth: dict[int, float] = {}
    for path in ranked:
        worth.setdefault(path.picks[0], round(path.worth, 4))
    del worth[ranked[0].picks[0]]
    return [(canvas.options[pick].handle, value) for pick, value in worth.items()][:ALTERNATIVES]


def _assemble(canvas: _Canvas, start: State, picks: tuple[int, ...], others: list[tuple[str, float]]) -> Plan:
    steps: list[Step] = []
    state = start
    for level, pick in enumerate(picks):
        after = _after(canvas, state, picks[:level]).at(pick)
        steps.append(_step(canvas, pick, canvas.done + level, state, after))
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


def _step(canvas: _Canvas, pick: int, visit: int, before: State, after: State) -> Step:
    request, option = canvas.request, canvas.options[pick]
    return Step(
        option=option,
        hyper=hpo.hyper(request, visit, option.samples),
        expected={g: round(float(after.skill[i]), 4) for i, g in enumerate(request.groups)},
        cost_s=float(canvas.cost_s[pick]),
        cost_bytes=request.model_bytes + option.move_bytes,
        verify=True,  # the gate then rolls back one visit at most, and the next plan rests on facts
        reason=_reason(canvas, option, before, after),
    )


def _reason(canvas: _Canvas, option: Option, before: State, after: State) -> str:
    """Say in one line what the visit is for."""
    change = after.skill - before.skill
    groups = canvas.request.groups
    lead = canvas.expert if canvas.expert >= 0 and change[canvas.expert] > 0.01 else int(np.argmax(change))
    lifted = f"lifts {groups[lead]} {before.skill[lead]:.2f} -> {after.skill[lead]:.2f}"
    was, now = (_accuracies(canvas, s.skill)[0] for s in (before, after))
    told = f"broad {was:.2f} -> {now:.2f}" if abs(now - was) >= 0.01 else "broad kept"
    worst = int(np.argmin(change))
    lost = f", {groups[worst]} falls to {after.skill[worst]:.2f}" if change[worst] < -0.05 else ""
    by = "" if canvas.request.method == "routed" else f"{canvas.request.method} order; "
    return f"K-AS {option.kas}: {by}{lifted}, {told}{lost}"


# --- baselines -------------------------------------------------------------------------------------------------------


def _turns(request: Request, visited: list[object], usable: list[Option]) -> list[Option]:
    """Return data in a shuffled order ("random") or as offered ("fixed"), each once before any twice."""
    place: dict[object, int] = {_data_key(o): i for i, o in enumerate(usable)}
    if request.method == "random":
        rng = np.random.default_rng([request.seed, zlib.crc32(request.task.encode())])
        place = dict(zip(place, rng.permutation(len(place)).tolist(), strict=True))
    return sorted(usable, key=lambda o: (visited.count(_data_key(o)), place[_data_key(o)]))
