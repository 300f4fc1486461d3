"""MTRCE, the model training route compute engine: which data to meet, where, and in which order (paper, section III).

The order matters because a model forgets: what a hospital without cardiology teaches pushes cardiology out. The
planner starts from the last measurement of an MPVU, predicts what each visit would teach and wipe out
(``forgetting.py``), and looks ahead with a beam over whole sequences: the best plan ends on a model that meets every
target with room to spare, soonest and cheapest. The object makes the first step, an MPVU measures it, and the planner
plans anew.

``method`` "routed" plans so; "learned" chooses by reinforcement learning (``learned.py``); "random" and "fixed" are
baselines. All get the same budget, filters, hyper-parameters and gate. Pure and deterministic under ``request.seed``;
reasons name K-AS and groups, never a node.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np

from controller.engines.routing import learned
from controller.engines.routing.bookings import first_gap, windows
from controller.engines.routing.canvas import (
    Canvas,
    Offer,
    accuracies,
    after,
    cost_s,
    data_key,
    draw,
    ends,
    shortfall,
    toll,
    where,
)
from controller.engines.routing.forgetting import State
from controller.engines.routing.orders import BASELINES, most_even
from controller.engines.routing.routes import routes, shortlist
from controller.engines.routing.search import Path
from controller.engines.training import gate, hpo
from controller.values.decisions import JobView, Load, Option, Plan, Request, Step
from controller.values.errors import EngineError

HORIZON = 9
MAX_OPTIONS = 64
ALTERNATIVES = 4
LATELY = 6  # visits
EAGER = 0.2


class NoRoute(EngineError):
    """No rendezvous is left that the request may use; the message says why."""


def plan(request: Request, view: JobView, options: Sequence[Option], load: Load | None = None) -> Plan:
    """Return the ordered rendezvous from here on; ``NoRoute`` when nothing may be visited any more.

    ``load``: what other jobs have booked, and leave of the links (``bookings``).
    """
    left = request.max_visits - len(view.visits)
    if left <= 0:
        raise NoRoute(f"the budget of {request.max_visits} visits is used up; ask for more visits or lower the targets")
    usable = _usable(request, view, options, load)
    visited = _visited(view, options)
    left_s = request.deadline_s - view.elapsed_s
    if request.method in BASELINES or (request.method == "routed" and (request.beyond or not gate.has_target(request))):
        ahead = _turns(request, view, visited, usable)[: min(left, MAX_OPTIONS)]
        canvas = draw(request, visited, ahead, usable, left_s, load)
        return _assemble(canvas, where(request, view, canvas.ceiling), tuple(range(len(ahead))), [])
    canvas = draw(request, visited, usable, usable, left_s, load)
    if request.method == "learned":
        canvas = learned.corrected(canvas, view)
    start = where(request, view, canvas.ceiling, canvas.rates)
    canvas, first = shortlist(canvas, start, _first_steps(canvas, view, visited), min(left, HORIZON))
    if request.method == "learned":
        ranked = learned.routes(canvas, start, first, min(left, HORIZON), view)
    else:
        ranked = routes(canvas, start, first, min(left, HORIZON))
        if shortfall(canvas, ranked[0].state.skill) > 0:
            # what a visit costs matters among routes that get there; where none does, the one that comes nearest
            ranked = routes(canvas._replace(toll=canvas.toll * EAGER), start, first, min(left, HORIZON))
    return _assemble(canvas, start, ranked[0].picks, _others(canvas, ranked))


def follow(
    request: Request, view: JobView, options: Sequence[Option], handles: Sequence[str], load: Load | None = None
) -> Plan:
    """Return the plan that visits ``options`` in a given order of their handles, with HPO's hyper-parameters and what
    each step is expected to bring; ``NoRoute`` when none of them fits into what is left of the deadline.
    """
    by_handle = {o.handle: o for o in options}
    ahead = [[by_handle[h]] for h in handles][: max(0, request.max_visits - len(view.visits))]
    left_s = request.deadline_s - view.elapsed_s
    usable = _usable(request, view, options, load)
    canvas = draw(request, _visited(view, options), ahead or usable, usable, left_s, load)
    built = _assemble(canvas, where(request, view, canvas.ceiling), tuple(range(len(ahead))), [])
    if not built.steps:
        raise NoRoute(f"none of the {len(ahead)} places in the given order fits into the {left_s:.0f} s that are left")
    return built


# --- what may be visited ---------------------------------------------------------------------------------------------


def _usable(request: Request, view: JobView, options: Sequence[Option], load: Load | None) -> list[Offer]:
    """Return the data sets that break no rule of the request, each with its ways, quickest first, in a stable order.

    ``NoRoute`` counts the reasons when none is left.
    """
    time_left_s = request.deadline_s - view.elapsed_s
    refused: dict[str, int] = {}
    usable: dict[object, list[tuple[float, int, str, Option]]] = {}
    for option in sorted(options, key=lambda o: (o.kas, o.handle)):
        needed_s = cost_s(request, option, load)
        why = _refusal(request, option, needed_s + _wait_s(option, needed_s, load), time_left_s)
        if why:
            refused[why] = refused.get(why, 0) + 1
        else:
            usable.setdefault(data_key(option), []).append((needed_s, option.move_bytes, option.handle, option))
    if not usable:
        told = ", ".join(f"{n} {why}" for why, n in sorted(refused.items())) or "none was offered"
        raise NoRoute(f"no rendezvous of {len(options)} may be visited: {told}")
    return [[way[3] for way in sorted(ways, key=lambda w: w[:3])] for ways in usable.values()]


def _wait_s(option: Option, needed_s: float, load: Load | None) -> float:
    if load is None or not load.bookings:
        return 0.0
    return float(first_gap(np.zeros(1), np.full(1, needed_s), windows(load, [option]))[0])


def _refusal(request: Request, option: Option, needed_s: float, time_left_s: float) -> str:
    if option.samples <= 0 or not option.mix:
        return "without data of the task"
    if option.trust < request.trust_floor:
        return f"below the trust floor {request.trust_floor:.2f}"
    if option.available_s < needed_s:
        return "reachable for too short"
    return "too slow for what is left of the deadline" if needed_s > time_left_s else ""


# --- where the job stands --------------------------------------------------------------------------------------------


def _visited(view: JobView, options: Sequence[Option]) -> list[object]:
    """Return the data of each visit made: by its handle or, where that is not offered any more, by its mix."""
    if not view.visits:
        return []
    by_handle = {(o.kas, o.handle): data_key(o) for o in options}
    by_mix = {(o.kas, tuple(sorted(o.mix.items()))): data_key(o) for o in options}
    mixes = [(v.kas, tuple(sorted(v.mix.items()))) for v in view.visits]
    return [by_handle.get((v.kas, v.handle)) or by_mix.get(mix, mix) for v, mix in zip(view.visits, mixes, strict=True)]


def _first_steps(canvas: Canvas, view: JobView, visited: list[object]) -> list[int]:
    """Return the data sets that may be next: all but pointless ones, or all where nothing else is left.

    Pointless is what was rejected lately (it would be again), and what made the last accepted state: the same data
    twice running teaches next to nothing (0.70 -> 0.71 measured), repetition has to be spaced.
    """
    barred: set[object] = set()
    accepted = 0
    for ago, (visit, data) in enumerate(zip(reversed(view.visits), reversed(visited), strict=True)):
        if not accepted or (visit.accepted is False and ago < LATELY):
            barred.add(data)
        accepted += visit.accepted is not False
    return [i for i, o in enumerate(canvas.options) if data_key(o) not in barred] or list(range(len(canvas.offers)))


# --- the answer ------------------------------------------------------------------------------------------------------


def _others(canvas: Canvas, ranked: list[Path]) -> list[tuple[str, float]]:
    """Return the best first steps not taken, each with the worth of the best path that starts with it."""
    worth: dict[int, float] = {}
    for path in ranked:
        worth.setdefault(path.picks[0], round(path.worth, 4))
    del worth[ranked[0].picks[0]]
    return [(canvas.offers[pick][0].handle, value) for pick, value in worth.items()][:ALTERNATIVES]


def _assemble(canvas: Canvas, start: State, picks: tuple[int, ...], others: list[tuple[str, float]]) -> Plan:
    """Walk the picks and tell each step; what does not fit into the time any more (a baseline's turn) is left out."""
    steps: list[Step] = []
    state, now_s, counts = start, 0.0, np.zeros(len(canvas.offers))
    for pick in picks:
        end_s, way, wait_s = (float(found[0, pick]) for found in ends(canvas, np.array([now_s])))
        if not np.isfinite(end_s):
            continue
        then = after(canvas, state, counts, len(steps)).at(pick)
        steps.append(_step(canvas, canvas.offers[pick][int(way)], (end_s - now_s, wait_s), len(steps), (state, then)))
        state, now_s = then, end_s
        counts[pick] += 1
    broad, expert = accuracies(canvas, state.skill)
    return Plan(
        steps=steps,
        expected_broad=float(broad),
        expected_expert=float(expert),
        total_s=sum(s.cost_s for s in steps),
        total_bytes=sum(s.cost_bytes for s in steps),
        alternatives=others,
    )


def _step(canvas: Canvas, option: Option, times: tuple[float, float], level: int, states: tuple[State, State]) -> Step:
    request, (whole_s, wait_s) = canvas.request, times
    return Step(
        option=option,
        hyper=hpo.hyper(request, canvas.done + level, option.samples),
        expected={g: round(float(states[1].skill[i]), 4) for i, g in enumerate(request.groups)},
        cost_s=whole_s,
        cost_bytes=request.model_bytes + option.move_bytes,
        verify=True,  # the gate then rolls back one visit at most, and the next plan rests on facts
        reason=_reason(canvas, option, *states) + (f"; waits {wait_s:.1f} s for other jobs" if wait_s else ""),
        wait_s=wait_s,
    )


def _reason(canvas: Canvas, option: Option, before: State, then: State) -> str:
    """Say in one line what the visit is for."""
    change = then.skill - before.skill
    groups = canvas.request.groups
    lead = canvas.expert if canvas.expert >= 0 and change[canvas.expert] > 0.01 else int(np.argmax(change))
    lifted = f"lifts {groups[lead]} {before.skill[lead]:.2f} -> {then.skill[lead]:.2f}"
    was, now = (float(accuracies(canvas, s.skill)[0]) for s in (before, then))
    told = f"broad {was:.2f} -> {now:.2f}" if abs(now - was) >= 0.01 else "broad kept"
    worst = int(np.argmin(change))
    lost = f", {groups[worst]} falls to {then.skill[worst]:.2f}" if change[worst] < -0.05 else ""
    by = "" if canvas.request.method == "routed" else f"{canvas.request.method} order; "
    return f"K-AS {option.kas}: {by}{lifted}, {told}{lost}"


# --- baselines -------------------------------------------------------------------------------------------------------


def _turns(request: Request, view: JobView, visited: list[object], usable: list[Offer]) -> list[Offer]:
    """Return data in a shuffled order ("random"), as offered ("fixed", "cycle"; each once before any twice), or by
    Tram-FL's rule.
    """
    if request.method == "routed":  # all that the data can teach: each in turn, evenly, of equals the nearest first
        near = sorted(usable, key=lambda offer: toll(request, offer[0]))
        even = [near[i] for i in most_even(request.groups, view.visits, [offer[0] for offer in near])]
        return sorted(even, key=lambda offer: visited.count(data_key(offer[0])))
    if request.method == "tramfl":
        return [usable[i] for i in most_even(request.groups, view.visits, [offer[0] for offer in usable])]
    place: dict[object, int] = {data_key(offer[0]): i for i, offer in enumerate(usable)}
    if request.method == "random":
        rng = np.random.default_rng([request.seed, zlib.crc32(request.task.encode())])
        place = dict(zip(place, rng.permutation(len(place)).tolist(), strict=True))
    return sorted(usable, key=lambda offer: (visited.count(data_key(offer[0])), place[data_key(offer[0])]))
