"""MTRCE's option ``learned``: reinforcement learning of the route, model-based in the manner of Dyna.

*Experience.* What MPVUs measured after each visit corrects the prediction (``forgetting.py``) for this job: a posterior
over two rates, how fast it learns and how fast it forgets, as multiples of the fitted constants. A rejected visit is
experience too.

*Episodes.* From the measured state, batches of episodes run in the prediction, each batch with rates drawn from that
posterior, so that a route has to hold up where the prediction errs. State: skill, samples seen and times taught of each
group, visits left, what was met. Action: the next data set (its way follows from the time, see ``canvas``). Reward: the
change of the planner's ``worth``; an episode may stop where it likes, so a return is the best that lay ahead.

*Value.* A linear function of the state after an action (an afterstate), over features that all data sets share, fitted
by ridge regression to the returns of all episodes so far, newer ones counting more. The policy is a softmax of worth
and value that cools down. The plan is the best route that any episode took, judged by the posterior's mean.

Pure, numpy only, deterministic under ``request.seed``; learned anew at each decision.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from controller.engines.routing import forgetting
from controller.engines.routing.canvas import Array, Canvas, Whole, accuracies, passes, shortfall
from controller.engines.routing.forgetting import Rates, State
from controller.engines.routing.polish import walk
from controller.engines.routing.search import Front, Path, extend, root
from controller.engines.training import hpo
from controller.values.decisions import JobView, Request, Visit

BATCHES = 28
DOUBTING = 14  # batches whose rates are drawn; then the likeliest, for the route that is kept
EPISODES = 32  # of a batch; fewer where many data sets make each dear
EXTENSIONS = 1200  # of a batch and level, about
WARM, COLD = 1.0, 0.02  # the softmax's temperature, in units of worth
MEMORY = 0.7  # what a batch still counts after the next
RIDGE = 0.1

WIDEST = 4.0  # rates are sought between a quarter and four times the usual
GRID = 17
PRIOR_SPREAD = 0.35  # of a rate's logarithm
ERROR_SPREAD = 0.12  # of a predicted skill: the prediction's own error and the test's


class Belief(NamedTuple):
    """A posterior over rates: ``gain`` and ``forget`` (points, 1) with their ``weight`` (points,), summing to 1."""

    gain: Array
    forget: Array
    weight: Array

    def mean(self) -> Rates:
        """Return the geometric mean."""
        return Rates(*(float(np.exp(self.weight @ np.log(part[:, 0]))) for part in (self.gain, self.forget)))

    def drawn(self, rng: np.random.Generator) -> Rates:
        """Return rates drawn from the posterior."""
        at = rng.choice(len(self.weight), p=self.weight)
        return Rates(float(self.gain[at, 0]), float(self.forget[at, 0]))


# --- what was experienced --------------------------------------------------------------------------------------------


def corrected(canvas: Canvas, view: JobView) -> Canvas:
    """Return the canvas with the rates at which this job was seen to learn and forget."""
    return canvas._replace(rates=believe(canvas.request, view.visits, canvas.ceiling).mean())


def believe(request: Request, visits: Sequence[Visit], ceiling: Array) -> Belief:
    """Return how fast this job learns and forgets, by what MPVUs measured after its ``visits`` so far."""
    steps = np.exp(np.linspace(-np.log(WIDEST), np.log(WIDEST), GRID))
    gain, forget = (part.reshape(-1, 1) for part in np.meshgrid(steps, steps))
    log_weight = -(np.log(gain[:, 0]) ** 2 + np.log(forget[:, 0]) ** 2) / (2 * PRIOR_SPREAD**2)
    state = accepted = forgetting.blank(len(request.groups))
    for number, visit in enumerate(visits):
        state = _predicted(request, visits, number, state, ceiling, Rates(gain, forget))
        if visit.found:
            found = np.array([visit.found.per_group.get(g, np.nan) for g in request.groups])
            log_weight -= np.nansum((state.skill - found) ** 2, axis=1) / (2 * ERROR_SPREAD**2)
            state = state._replace(skill=np.where(np.isnan(found), state.skill, found))
            state = accepted = accepted if visit.accepted is False else state
    weight = np.exp(log_weight - log_weight.max())
    return Belief(gain, forget, weight / weight.sum())


def _predicted(
    request: Request, visits: Sequence[Visit], number: int, state: State, ceiling: Array, rates: Rates
) -> State:
    """Predict the state after a visit made, for each pair of rates; the same samples teach less again."""
    visit = visits[number]
    before = sum((v.kas, v.handle) == (visit.kas, visit.handle) for v in visits[:number] if v.accepted is not False)
    fresh = passes(visit.epochs) / (1.0 + forgetting.SAME_DATA_AGAIN * before)
    met = forgetting.mix_matrix(request.groups, [visit])[0] * fresh
    return forgetting.step(state, met, hpo.pace(number), ceiling, rates)


# --- learning in episodes --------------------------------------------------------------------------------------------


def routes(canvas: Canvas, start: State, first: Sequence[int], depth: int, view: JobView) -> list[Path]:
    """Return the routes of up to ``depth`` visits that episodes took, best first (see ``routes.routes``)."""
    belief = believe(canvas.request, view.visits, canvas.ceiling)
    rng = np.random.default_rng([canvas.request.seed, canvas.done, 91])
    learner, taken = Learner(depth), set[tuple[int, ...]]()
    count = min(EPISODES, EXTENSIONS // len(canvas.offers) + 1)
    for batch, temperature in enumerate(np.geomspace(WARM, COLD, BATCHES)):
        imagined = canvas._replace(rates=belief.drawn(rng) if batch < DOUBTING else belief.mean())
        fronts = episodes(imagined, root(start).take(np.zeros(count, dtype=np.int64)), first, learner, temperature, rng)
        learner.learn(imagined, fronts)
        for _, front in fronts:
            taken.update(map(tuple, front.picks.tolist()))
    return _judged(canvas._replace(rates=belief.mean()), start, sorted(taken))


def _judged(canvas: Canvas, start: State, taken: list[tuple[int, ...]]) -> list[Path]:
    found = walk(canvas, start, taken)
    whole = np.flatnonzero(found.length == np.array([len(p) for p in taken]))  # not cut short at the goal
    paths = [Path(taken[i], found.state.at(int(i)), float(found.worth[i]), float(found.spent_s[i])) for i in whole]
    return sorted(paths, key=lambda p: (-p.worth, p.picks))


class Learner:
    """The value of standing somewhere, learned: ``weights`` (features,), from returns of episodes."""

    def __init__(self, depth: int) -> None:
        self.depth = depth
        self.weights: Array = np.zeros(1)
        self._moments: tuple[Array, Array] | None = None

    def value(self, canvas: Canvas, state: State, level: int) -> Array:
        """Return what is expected to be gained yet from states (rows, G) after ``level`` visits; (rows,)."""
        if self._moments is None or level >= self.depth:
            return np.zeros(len(state.skill))
        learned = features(canvas, state, (self.depth - level) / self.depth) @ self.weights
        return np.where(shortfall(canvas, state.skill) > 0, np.maximum(learned, 0.0), 0.0)

    def learn(self, canvas: Canvas, fronts: Sequence[tuple[Whole, Front]]) -> None:
        """Fit the value to a batch of episodes, older batches counting less."""
        ahead = returns(fronts)
        seen = [features(canvas, f.state, (self.depth - i) / self.depth) for i, (_, f) in enumerate(fronts, 1)]
        x, y = np.concatenate(seen), np.concatenate(ahead)
        xx, xy = x.T @ x, x.T @ y
        if self._moments is not None:
            xx, xy = xx + MEMORY * self._moments[0], xy + MEMORY * self._moments[1]
        self._moments = xx, xy
        self.weights = np.asarray(np.linalg.solve(xx + RIDGE * np.eye(len(xy)), xy), dtype=float)


def features(canvas: Canvas, state: State, left: float) -> Array:
    """Return what the value of states (rows, G) is a linear function of; ``left``: share of the visits left; (rows, F).

    How far both goals are, how unsteadily all groups and the expert's are taught, how unevenly they are known.
    """
    broad, expert = accuracies(canvas, state.skill)
    gap, weak = np.maximum(canvas.ceiling - state.skill, 0.0), np.exp(-state.taught)
    at = canvas.expert
    base = np.stack([
        np.ones(len(broad)), np.maximum(canvas.goals[0] - broad, 0.0), np.maximum(canvas.goals[1] - expert, 0.0),
        weak @ canvas.share, weak[:, at] if at >= 0 else weak.max(axis=1), gap**2 @ canvas.share, gap.max(axis=1),
        (gap * weak) @ canvas.share, (gap * np.exp(-state.seen / forgetting.LEARN_SEEN)) @ canvas.share,
    ], axis=1)  # fmt: skip
    return np.concatenate([base, left * base], axis=1)


def episodes(
    canvas: Canvas, front: Front, first: Sequence[int], learner: Learner, temperature: float, rng: np.random.Generator
) -> list[tuple[Whole, Front]]:
    """Run a batch of episodes from ``front``; per level which of them still ran (rows,) and where they stood."""
    who = np.arange(len(front.worth))
    fronts: list[tuple[Whole, Front]] = []
    for level in range(learner.depth):
        rows, grown = extend(canvas, front, range(len(canvas.offers)) if level else first)
        if not len(rows):
            break
        liked = (grown.worth + learner.value(canvas, grown.state, level + 1)) / temperature + rng.gumbel(size=len(rows))
        best = np.lexsort([-liked, rows])[np.unique(rows, return_index=True)[1]]  # the most liked extension of each
        who, front = who[rows[best]], grown.take(best)
        fronts.append((who, front))
        on = np.flatnonzero(shortfall(canvas, front.state.skill) > 0)
        who, front = who[on], front.take(on)
    return fronts


def returns(fronts: Sequence[tuple[Whole, Front]]) -> list[Array]:
    """Return what each episode gained yet after each level, had it stopped where that was best; per level (rows,)."""
    best, found = np.full(1 + int(fronts[0][0].max()), -np.inf), list[Array]()
    for who, front in reversed(fronts):
        found.append(np.maximum(best[who] - front.worth, 0.0))
        best[who] = np.maximum(best[who], front.worth)
    return found[::-1]
