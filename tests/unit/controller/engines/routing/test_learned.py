"""MTRCE's option ``learned``: near the best, better than chance, repeatable, and right where the prediction was wrong.

That its plans keep the rules (trust, deadline, availability, budget) is a property in ``test_mtrce_plan``.
"""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from controller.engines.routing import canvas as drawn
from controller.engines.routing import exact, forgetting, learned, mtrce
from controller.engines.routing.canvas import Canvas
from controller.engines.routing.forgetting import USUAL, Rates
from controller.engines.routing.mtrce import plan
from controller.engines.routing.polish import walk
from controller.engines.training import hpo
from controller.values.decisions import JobView, Measured, Option, Request, Visit

GROUPS = ["heart", "brain", "lung", "skin"]
ASK = Request(
    task="vignettes", groups=GROUPS, broad_accuracy=0.85, expert_group="heart", expert_accuracy=0.9, max_visits=6,
    method="learned",
)  # fmt: skip
BLANK = forgetting.blank(len(GROUPS))
CEILING = np.full(len(GROUPS), forgetting.CEILING)
NO_VISIT = JobView()


def country(seed: int, count: int, alpha: float = 0.25) -> list[Option]:
    rng = np.random.default_rng([seed, 17])
    return [
        Option(
            kas=1 + i % 4,
            handle=f"o{i:03}",
            mix=dict(zip(GROUPS, rng.dirichlet(np.full(4, alpha)).tolist(), strict=True)),
            samples=int(rng.integers(300, 1500)),
            epoch_s=float(rng.uniform(0.1, 3)),
            reach_s=0.2,
            quality=0.93,
            available_s=float(rng.choice([np.inf, np.inf, rng.uniform(15, 60)])),
        )
        for i in range(count)
    ]


def canvas_of(options: list[Option], ask: Request = ASK) -> Canvas:
    usable = mtrce._usable(ask, NO_VISIT, options, None)
    return drawn.draw(ask, [], usable, usable, ask.deadline_s)


def loss(canvas: Canvas, worth: float) -> float:
    return drawn.best_worth(canvas) - worth


def test_learned_routes_lose_little_to_the_best() -> None:
    gaps = []
    for seed in range(8):
        canvas = canvas_of(country(seed, 6))
        every = range(len(canvas.offers))
        best = exact.best_route(canvas, BLANK, every, 5)
        assert best
        found = learned.routes(canvas, BLANK, every, 5, NO_VISIT)[0]
        gaps.append(loss(canvas, found.worth) / loss(canvas, best.worth) - 1)
    assert min(gaps) >= -1e-9  # nothing beats the best
    assert np.mean(gaps) < 0.03


def test_learned_routes_beat_random_ones() -> None:
    """Also the best of as many random routes as there were episodes: learning counts, not the number of tries."""
    hard = msgspec.structs.replace(ASK, broad_accuracy=0.95, expert_accuracy=0.96)
    by_learning, by_chance = [], []
    for seed in range(3):
        canvas = canvas_of(country(100 + seed, 64, alpha=0.04), hard)
        every, rng = range(len(canvas.offers)), np.random.default_rng(seed)
        by_learning.append(learned.routes(canvas, BLANK, every, 6, NO_VISIT)[0].worth)
        tries = [tuple(rng.choice(len(canvas.offers), 6, replace=False).tolist()) for _ in range(28 * 32)]
        by_chance.append(max(walk(canvas, BLANK, [t[:n] for t in tries]).worth.max() for n in range(1, 7)))
    assert np.mean(by_learning) > np.mean(by_chance)


def test_the_value_is_learned() -> None:
    """After some batches the value tells far better than none what episodes yet gain."""
    canvas, rng, learner = canvas_of(country(7, 12)), np.random.default_rng(1), learned.Learner(6)
    front = learned.root(BLANK).take(np.zeros(64, dtype=np.int64))
    for _ in range(6):
        learner.learn(canvas, learned.episodes(canvas, front, range(12), learner, 0.2, rng))
    fresh = learned.episodes(canvas, front, range(12), learner, 0.2, rng)
    gained = np.concatenate(learned.returns(fresh))
    told = np.concatenate([learner.value(canvas, f.state, i) for i, (_, f) in enumerate(fresh, 1)])
    assert np.mean((told - gained) ** 2) < 0.3 * np.mean(gained**2)
    assert np.corrcoef(told, gained)[0, 1] > 0.8


def test_a_seed_repeats_a_plan() -> None:
    options = country(3, 40)
    assert plan(ASK, NO_VISIT, options) == plan(ASK, NO_VISIT, options)
    others = [plan(msgspec.structs.replace(ASK, seed=s), NO_VISIT, options) for s in range(3)]
    assert len({tuple(a) for p in others for a in p.alternatives}) > mtrce.ALTERNATIVES  # other episodes were seen


def test_many_data_sets_are_cut_down_first() -> None:
    found = plan(ASK, NO_VISIT, country(5, 400))
    assert 1 <= len(found.steps) <= ASK.max_visits


# --- experience ------------------------------------------------------------------------------------------------------


def experience(rates: Rates, visits: int, rejected: int = -1, seed: int = 9) -> list[Visit]:
    """What a job lives through whose model learns and forgets at ``rates``, measured with a test's noise."""
    rng, state, made = np.random.default_rng(seed), BLANK, list[Visit]()
    for number, option in enumerate(country(seed, visits)):
        visit = Visit(kas=option.kas, handle=option.handle, mix=option.mix, samples=option.samples, epochs=2.0)
        met = forgetting.mix_matrix(GROUPS, [visit])[0] * 2.0
        then = forgetting.step(state, met, hpo.pace(number), CEILING, rates)
        skill = np.clip(then.skill + rng.normal(0, 0.02, len(GROUPS)), 0, 1)
        found = Measured(broad=float(skill.mean()), per_group=dict(zip(GROUPS, skill, strict=True)), samples=400)
        kept = number != rejected
        state = then._replace(skill=skill) if kept else state
        made.append(msgspec.structs.replace(visit, accepted=kept, found=found))
    return made


def error(made: list[Visit], rates: Rates) -> float:
    """Mean absolute error of one-visit predictions of a journey."""
    errors, state = [], BLANK
    for number, visit in enumerate(made):
        met = forgetting.mix_matrix(GROUPS, [visit])[0] * 2.0
        then = forgetting.step(state, met, hpo.pace(number), CEILING, rates)
        assert visit.found
        found = np.array(list(visit.found.per_group.values()))
        errors.append(np.abs(then.skill - found))
        state = then._replace(skill=found) if visit.accepted else state
    return float(np.mean(errors))


@pytest.mark.parametrize("rejected", [-1, 2])
@pytest.mark.parametrize("rates", [Rates(0.4, 1.0), Rates(1.0, 4.0), Rates(0.5, 2.0)])
def test_a_wrong_prediction_is_mended_by_what_was_measured(rates: Rates, rejected: int) -> None:
    adapted = learned.believe(ASK, experience(rates, 5, rejected), CEILING).mean()
    for seed in (10, 11, 12):  # other data, which was not learned from
        other = experience(rates, 5, seed=seed)
        assert error(other, adapted) < error(other, USUAL)


def test_a_right_prediction_is_left_as_it_is() -> None:
    adapted = learned.believe(ASK, experience(USUAL, 8), CEILING).mean()
    assert 0.75 < float(adapted.gain) < 1.33
    assert 0.75 < float(adapted.forget) < 1.33


def test_without_experience_the_usual_is_believed() -> None:
    assert learned.believe(ASK, [], CEILING).mean() == pytest.approx(USUAL)
    unseen = [msgspec.structs.replace(v, found=None) for v in experience(Rates(0.4, 2.0), 4)]
    assert learned.believe(ASK, unseen, CEILING).mean() == pytest.approx(USUAL)


def test_what_was_measured_shows_in_what_is_planned_with() -> None:
    slow = experience(Rates(0.3, 1.0), 3)
    canvas = canvas_of(country(9, 8))
    adapted = learned.corrected(canvas, JobView(visits=slow, measured=slow[-1].found))
    counts = np.zeros(8)
    usual, mended = (drawn.after(c, BLANK, counts, 0).skill.mean() for c in (canvas, adapted))
    assert mended < usual
