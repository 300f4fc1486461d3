"""A request with everything on offer as arrays: the model-specific view on which MTRCE's searches run.

*Data sets* are what is chosen among; each can be met in one or more *ways* (at the data node, or moved to a compute
facility of its K-AS), which differ in seconds, bytes, availability and in what other jobs have booked. Which way is
taken is decided by the time at which the visit would begin, so that data and facility are chosen together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from controller.engines.routing import bookings, forgetting
from controller.engines.routing.forgetting import USUAL, Rates, State
from controller.engines.training import evidence, gate, hpo
from controller.values.decisions import JobView, Load, Option, Request

MARGIN = 0.005
ROOM_WEIGHT = 2.0
ENOUGH_ROOM = 0.05
VISIT_COST = 0.1
TOLL_FREE = 0.3  # share of a visit's cost that is no traffic: somebody's time, a queue, a risk
USUAL_BYTES = 1e6
USUAL_LINKS = 5.0  # host, switch, gateway, border, gateway, switch, host
TIME_WEIGHT = 0.15
NEW_DATA_WEIGHT = 0.1
MODEL_BYTES_PER_S = 50e6 / 8
NEAR_CEILING = 0.003  # skill only approaches its ceiling

Array = npt.NDArray[np.float64]
Whole = npt.NDArray[np.int64]
Offer = list[Option]  # the ways to meet one data set, quickest first


class Canvas(NamedTuple):
    """What a search reads. D data sets, W ways at most, G groups.

    ``met``: samples x epochs of each group (D, G); ``cost_s`` and ``until_s`` (when it must be over) of each way
    (D, W), padded with ``inf`` and 0; ``taken``: other jobs' windows (D, W, windows, 2); ``times`` already visited,
    ``size``, the share of all data, and ``toll``, what a visit costs beside a usual one, (D,); ``share`` of each group
    in all data and ``ceiling`` of its accuracy (G,); ``expert``: the expert group's column (-1: none); ``done``: visits
    made; ``goals``: accuracies to plan for; ``rates``: how fast this job learns and forgets, where that is known.
    """

    request: Request
    offers: list[Offer]
    met: Array
    cost_s: Array
    until_s: Array
    taken: Array
    times: Array
    size: Array
    toll: Array
    share: Array
    ceiling: Array
    expert: int
    done: int
    goals: tuple[float, float]
    rates: Rates = USUAL

    @property
    def options(self) -> list[Option]:
        """The quickest way to meet each data set."""
        return [offer[0] for offer in self.offers]

    def cut(self, rows: Sequence[int]) -> Canvas:
        """Return the canvas of some of the data sets; goals and ceilings stay those of all."""
        at = np.array(rows, dtype=int)
        return self._replace(
            offers=[self.offers[i] for i in rows],
            met=self.met[at],
            cost_s=self.cost_s[at],
            until_s=self.until_s[at],
            taken=self.taken[at],
            times=self.times[at],
            size=self.size[at],
            toll=self.toll[at],
        )


def data_key(option: Option) -> object:
    """Return what tells data sets apart where handles are opaque and one data set may be met at several facilities."""
    return option.kas, option.samples, option.quality, tuple(sorted(option.mix.items()))


def cost_s(request: Request, option: Option, load: Load | None = None) -> float:
    """Return the seconds of a visit: model across the WAN and in, data over, all local epochs."""
    share = bookings.share_left(load, option.kas) if load else 1.0
    travel_s = (option.reach_s + request.model_bytes / MODEL_BYTES_PER_S) / share
    return travel_s + option.move_s + hpo.epochs(option.samples) * option.epoch_s


def draw(
    request: Request, visited: Sequence[object], chosen: Sequence[Offer], usable: Sequence[Offer],
    left_s: float = float("inf"), load: Load | None = None,
) -> Canvas:  # fmt: skip
    """Lay ``chosen`` offers out as arrays; ``usable``: all that there are (what the data can teach)."""
    firsts, everything = [offer[0] for offer in chosen], [offer[0] for offer in usable]
    every = forgetting.mix_matrix(request.groups, everything)
    known = evidence.gather(everything, request.groups)
    best = max(o.quality for o in firsts) or 1.0
    taken_in = np.array([[passes(hpo.epochs(o.samples)) * o.quality / best] for o in firsts])
    share = every.sum(axis=0) / max(every.sum(), 1e-9)
    ceiling = np.clip(known.group_accuracy(every.sum(axis=0)), 0.5, forgetting.CEILING)
    expert = request.groups.index(request.expert_group) if request.expert_group in request.groups else -1
    costs, until, taken = _ways(request, chosen, left_s, load)
    return Canvas(
        request=request,
        offers=list(chosen),
        met=(every if chosen is usable else forgetting.mix_matrix(request.groups, firsts)) * taken_in,
        cost_s=costs,
        until_s=until,
        taken=taken,
        times=np.array([visited.count(data_key(o)) if visited else 0 for o in firsts], dtype=float),
        size=np.array([o.samples for o in firsts]) / sum(o.samples for o in everything),
        toll=np.array([toll(request, o) for o in firsts]),
        share=share,
        ceiling=ceiling,
        expert=expert,
        done=len(visited),
        goals=goals(request, ceiling, share, expert),
    )


def toll(request: Request, option: Option) -> float:
    """Return what a visit costs, a usual one being 1: bytes on the wire are bytes of the model times links crossed. The
    traffic of a small model counts for little.
    """
    traffic = min(1.0, request.model_bytes / USUAL_BYTES) if request.model_bytes else 1.0
    return TOLL_FREE + (1 - TOLL_FREE) * traffic * links(option) / USUAL_LINKS


def links(option: Option) -> float:
    """Return the links on the way from a rendezvous to the MPVU: within a K-AS two or three, else one more a border."""
    return 4.0 + option.borders if option.borders else 2.5


def passes(epochs: float) -> float:
    """Return how often a sample counts: a handful passed over fifty times teaches no more than what it holds."""
    return min(epochs, hpo.MORE_EPOCHS)


def _ways(request: Request, chosen: Sequence[Offer], left_s: float, load: Load | None) -> tuple[Array, Array, Array]:
    most = max(len(offer) for offer in chosen)
    costs, until = np.full((len(chosen), most), np.inf), np.zeros((len(chosen), most))
    for i, offer in enumerate(chosen):
        costs[i, : len(offer)] = [cost_s(request, o, load) for o in offer]
        until[i, : len(offer)] = [min(o.available_s, left_s) for o in offer]
    flat = [offer[min(w, len(offer) - 1)] for offer in chosen for w in range(most)]
    windows = bookings.windows(load or Load(), flat)
    return costs, until, windows.reshape(len(chosen), most, -1, 2)


def goals(request: Request, ceiling: Array, share: Array, expert: int) -> tuple[float, float]:
    """Return the accuracies to plan for: the targets with a margin, but nothing above what the data can teach."""
    top = float(ceiling @ share)
    if not gate.has_target(request):
        return top, 0.0
    expert_top = float(ceiling[expert]) if expert >= 0 else 0.0
    broad = min(top - NEAR_CEILING, request.broad_accuracy + MARGIN)
    return broad, min(expert_top - NEAR_CEILING, request.expert_accuracy + MARGIN)


# --- what a visit costs and brings -----------------------------------------------------------------------------------


def ends(canvas: Canvas, now_s: Array, at: Whole | None = None) -> tuple[Array, Array, Array]:
    """Return, for visits that could begin at ``now_s`` (paths,): when they would end (``inf``: not in time), by which
    way, and how long they would wait first. For every data set (paths, D), or for the one ``at`` (paths,) of each path.
    """
    rows = slice(None) if at is None else at
    cost, until, taken = canvas.cost_s[rows], canvas.until_s[rows], canvas.taken[rows]
    start = now_s[:, None, None] if at is None else now_s[:, None]
    begin = bookings.first_gap(start + np.zeros_like(cost), cost, taken)
    end = begin + cost
    end = np.where(end <= until, end, np.inf)  # (paths, [D,] W)
    way = end.argmin(axis=-1)
    best, waited = (np.take_along_axis(a, way[..., None], axis=-1)[..., 0] for a in (end, begin - start))
    return best, way, waited


def after(canvas: Canvas, state: State, counts: Array, level: int) -> State:
    """Predict the states after a visit to each data set: (paths, G) in, (paths, D, G) out.

    ``counts`` (paths, D): how often each path has met each data set on its ``level`` visits so far.
    """
    fresh = 1.0 / (1.0 + forgetting.SAME_DATA_AGAIN * (canvas.times + counts))  # the same samples teach less again
    wide = State(*(part[..., None, :] for part in state))
    return forgetting.step(
        wide, canvas.met * fresh[..., None], hpo.pace(canvas.done + level), canvas.ceiling, canvas.rates
    )


def after_one(canvas: Canvas, state: State, counts: Array, level: int, at: Whole) -> State:
    """Predict the states after a visit to one data set for each path, ``at`` (paths,): (paths, G) in and out."""
    fresh = 1.0 / (1.0 + forgetting.SAME_DATA_AGAIN * (canvas.times[at] + counts[np.arange(len(at)), at]))
    return forgetting.step(
        state, canvas.met[at] * fresh[:, None], hpo.pace(canvas.done + level), canvas.ceiling, canvas.rates
    )


def waiting(canvas: Canvas, spent_s: Array, served_s: Array) -> Array | float:
    """Return the toll of the time by which ``spent_s`` (...) exceeds the visits' ``served_s``: what of a visit's toll
    is no traffic stands for its time, and waiting for other jobs costs as much.
    """
    if not canvas.taken.size:
        return 0.0
    usual_s = float(canvas.cost_s.min(axis=1).mean())
    return np.asarray(TOLL_FREE * np.maximum(0.0, spent_s - served_s) / max(usual_s, 1e-9))


def accuracies(canvas: Canvas, skill: Array) -> tuple[Array, Array]:
    """Return broad and expert accuracy of skills (..., G); without an expert group both are the broad one."""
    broad = skill @ canvas.share
    return broad, skill[..., canvas.expert] if canvas.expert >= 0 else broad


def shortfall(canvas: Canvas, skill: Array) -> Array:
    """Return what is missing to the goals (...), 0 where both are met."""
    broad, expert = accuracies(canvas, skill)
    missing = np.maximum(0.0, canvas.goals[0] - broad)
    return missing + (np.maximum(0.0, canvas.goals[1] - expert) if canvas.expert >= 0 else 0.0)


def room(canvas: Canvas, skill: Array) -> Array:
    """Return what is reached beyond the goals, up to ``ENOUGH_ROOM`` each: predictions err, and so does a test."""
    broad, expert = accuracies(canvas, skill)
    spare = np.minimum(ENOUGH_ROOM, broad - canvas.goals[0])
    return spare + (np.minimum(ENOUGH_ROOM, expert - canvas.goals[1]) if canvas.expert >= 0 else 0.0)


def worth(canvas: Canvas, skill: Array, visits: float | Array, spent_s: Array) -> Array:
    """Return how good it is to stand at ``skill`` (..., G) after visits of so much toll and seconds (...)."""
    gained = ROOM_WEIGHT * room(canvas, skill) - shortfall(canvas, skill)
    return np.asarray(gained - VISIT_COST * visits - TIME_WEIGHT * spent_s / max(canvas.request.deadline_s, 1e-9))


def best_worth(canvas: Canvas) -> float:
    """Return what no route can exceed: all the room that counts, at no cost. Distance to it is a route's loss."""
    most = ROOM_WEIGHT * ENOUGH_ROOM * (2 if canvas.expert >= 0 else 1)
    return most if gate.has_target(canvas.request) else most + NEW_DATA_WEIGHT + VISIT_COST


# --- where the model stands ------------------------------------------------------------------------------------------


def where(request: Request, view: JobView, ceiling: Array, rates: Rates = USUAL) -> State:
    """Return where the model stands: accepted visits replayed through the prediction, corrected by a measurement."""
    state = forgetting.blank(len(request.groups))
    kept = [(i, v) for i, v in enumerate(view.visits) if v.accepted is not False]
    verified = [i for i, v in kept if v.accepted]
    for number, visit in kept:
        met = forgetting.mix_matrix(request.groups, [visit])[0] * passes(visit.epochs)
        state = forgetting.step(state, met, hpo.pace(number), ceiling, rates)
        if view.measured and verified and number == verified[-1]:
            found = view.measured.per_group
            state = state._replace(
                skill=np.array([found.get(g, s) for g, s in zip(request.groups, state.skill, strict=True)])
            )
    return state
