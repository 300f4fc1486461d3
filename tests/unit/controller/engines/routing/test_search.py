"""MTRCE's searches: beam and polish against exact search, exact search against brute force, shortlists, whole-plan time
and other jobs' bookings.
"""

from __future__ import annotations

from itertools import pairwise, product
from typing import Any

import msgspec
import numpy as np
import pytest

from controller.engines.routing import canvas as drawn
from controller.engines.routing import exact, forgetting, mtrce
from controller.engines.routing.bookings import bookings_of, first_gap, joined, later, place_of, windows
from controller.engines.routing.canvas import Canvas
from controller.engines.routing.mtrce import NoRoute, plan
from controller.engines.routing.polish import walk
from controller.engines.routing.routes import MAX_OPTIONS, routes, shortlist
from controller.engines.training import hpo
from controller.values.decisions import Booking, JobView, Load, Option, Plan, Request

GROUPS = ["heart", "brain", "lung", "skin"]


def option(handle: str, kas: int = 1, shares: tuple[int, ...] = (25, 25, 25, 25), **kwargs: Any) -> Option:
    mix = {g: p / 100 for g, p in zip(GROUPS, shares, strict=True)}
    given: dict[str, Any] = {"samples": 1200, "epoch_s": 0.5, "reach_s": 0.2, "quality": 0.93, "trust": 0.9} | kwargs
    return Option(handle=handle, kas=kas, mix=mix, **given)


def request(**kwargs: Any) -> Request:
    given: dict[str, Any] = {"broad_accuracy": 0.85, "expert_group": "heart", "expert_accuracy": 0.9} | kwargs
    return Request(**({"task": "vignettes", "groups": GROUPS, "max_visits": 8} | given))


def random_options(seed: int, count: int) -> list[Option]:
    rng = np.random.default_rng(seed)
    return [
        msgspec.structs.replace(
            option(f"o{i:03}", 1 + i % 4, samples=int(rng.integers(100, 1500)), epoch_s=float(rng.uniform(0.1, 3))),
            mix=dict(zip(GROUPS, rng.dirichlet(np.full(4, 0.2)).tolist(), strict=True)),
            available_s=float(rng.choice([np.inf, rng.uniform(5, 60)])),
        )
        for i in range(count)
    ]


def canvas_of(ask: Request, options: list[Option], load: Load | None = None) -> Canvas:
    usable = mtrce._usable(ask, JobView(), options, load)
    return drawn.draw(ask, [], usable, usable, ask.deadline_s, load)


def handles(found: Plan) -> list[str]:
    return [step.option.handle for step in found.steps]


BLANK = forgetting.blank(len(GROUPS))


# --- exact, and how near to it the heuristic comes -------------------------------------------------------------------


def worth_of(canvas: Canvas, picks: tuple[int, ...]) -> tuple[float, bool]:
    """Walk one route visit by visit in plain arithmetic: (worth, whether it met its goal), -inf when not in time."""
    state, now_s = BLANK, 0.0
    for level, pick in enumerate(picks):
        now_s += float(canvas.cost_s[pick].min())
        if now_s > canvas.until_s[pick, 0]:
            return float("-inf"), False
        fresh = 1 / (1 + forgetting.SAME_DATA_AGAIN * picks[:level].count(pick))
        state = forgetting.step(state, canvas.met[pick] * fresh, hpo.pace(level), canvas.ceiling)
    value = float(drawn.worth(canvas, state.skill, float(canvas.toll[list(picks)].sum()), np.array(now_s)))
    return value, bool(drawn.shortfall(canvas, state.skill) <= 0)


def brute_force(canvas: Canvas, depth: int) -> float:
    """Return the worth of the best of all sequences without the same data twice running, none beyond its goal."""
    best = float("-inf")
    for length in range(1, depth + 1):
        for picks in product(range(len(canvas.offers)), repeat=length):
            if any(a == b for a, b in pairwise(picks)):
                continue
            if any(worth_of(canvas, picks[:n])[1] for n in range(1, length)):
                continue
            best = max(best, worth_of(canvas, picks)[0])
    return best


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("broad", [0.5, 0.8, 0.95])
def test_exact_search_is_exact(seed: int, broad: float) -> None:
    canvas = canvas_of(request(broad_accuracy=broad, max_visits=4), random_options(seed, 4))
    found = exact.best_route(canvas, BLANK, range(len(canvas.offers)), 4)
    assert found is not None
    assert found.worth == pytest.approx(brute_force(canvas, 4), abs=1e-9)
    assert worth_of(canvas, found.picks)[0] == pytest.approx(found.worth, abs=1e-9)


def test_the_heuristic_is_near_the_best() -> None:
    gaps = []
    for seed in range(25):
        canvas = canvas_of(request(broad_accuracy=0.88, expert_accuracy=0.93), random_options(100 + seed, 7))
        every = range(len(canvas.offers))
        ours, best = routes(canvas, BLANK, every, 7)[0], exact.best_route(canvas, BLANK, every, 7)
        assert best is not None
        assert ours.worth <= best.worth + 1e-9  # none can be better than the best
        top = drawn.best_worth(canvas)
        gaps.append((top - ours.worth) / (top - best.worth) - 1)
    assert np.mean(gaps) < 0.02
    assert max(gaps) < 0.1


def test_a_bound_is_never_exceeded() -> None:
    canvas = canvas_of(request(), random_options(3, 5))
    promise = exact.bound(canvas, exact.root(BLANK), 5)[0]
    assert promise >= routes(canvas, BLANK, range(5), 5)[0].worth - 1e-12


def test_exact_search_refuses_what_it_cannot_enumerate() -> None:
    canvas = canvas_of(request(), random_options(1, 20))
    with pytest.raises(exact.TooLarge, match="20 data sets"):
        exact.best_route(canvas, BLANK, range(20), 5)


def test_routes_walk_as_they_were_grown() -> None:
    canvas = canvas_of(request(), random_options(8, 6))
    for path in routes(canvas, BLANK, range(6), 6)[:20]:
        walked = walk(canvas, BLANK, [path.picks])
        assert walked.worth[0] == pytest.approx(path.worth)
        assert walked.spent_s[0] == pytest.approx(path.spent_s)


def test_a_shortlist_costs_little() -> None:
    losses = []
    for seed in range(4):
        canvas = canvas_of(request(broad_accuracy=0.9), random_options(seed, 300))
        few, first = shortlist(canvas, BLANK, range(len(canvas.offers)), 6)
        assert len(few.offers) < 3 * MAX_OPTIONS
        assert len(first) == len(few.offers)
        short, whole = routes(few, BLANK, first, 6)[0], routes(canvas, BLANK, range(len(canvas.offers)), 6)[0]
        top = drawn.best_worth(canvas)
        losses.append((top - short.worth) / (top - whole.worth) - 1)
    assert max(losses) < 0.1


def test_a_shortlist_keeps_to_what_may_be_first() -> None:
    canvas = canvas_of(request(), random_options(5, 200))
    few, first = shortlist(canvas, BLANK, range(100, len(canvas.offers)), 5)
    allowed = {o.handle for o in canvas.options[100:]}
    assert first
    assert {few.options[i].handle for i in first} <= allowed


# --- time over the whole plan ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["routed", "random", "fixed"])
@pytest.mark.parametrize("seed", range(5))
def test_no_visit_of_a_plan_ends_late(method: str, seed: int) -> None:
    ask = request(method=method, deadline_s=25.0, broad_accuracy=0.97, expert_accuracy=0.97, seed=seed)
    found = plan(ask, JobView(), random_options(seed, 9))
    now_s = 0.0
    for step in found.steps:
        now_s += step.cost_s
        assert now_s <= step.option.available_s + 1e-9
        assert now_s <= 25.0 + 1e-9


def test_what_leaves_soon_is_met_first() -> None:
    heart, brain = option("heart", 1, (90, 4, 3, 3)), option("brain", 1, (4, 90, 3, 3))
    ask = request(broad_accuracy=0.9, expert_group=None, expert_accuracy=0.0, max_visits=2)
    for leaving, staying in ((heart, brain), (brain, heart)):
        soon = msgspec.structs.replace(leaving, available_s=2.0)
        assert handles(plan(ask, JobView(), [soon, staying]))[0] == leaving.handle


def test_the_place_depends_on_when() -> None:
    """One data set, two facilities: the quick one leaves soon, so a later visit meets the data at the slow one."""
    quick, slow = option("quick", available_s=2.0, epoch_s=0.1, samples=100), option("slow", epoch_s=2.0, samples=100)
    other = option("other", 2, (0, 40, 40, 20), epoch_s=1.0, samples=100)
    ask = request(broad_accuracy=0.97, expert_accuracy=0.97, max_visits=4)
    found = handles(plan(ask, JobView(), [quick, slow, other]))
    assert {"quick", "slow"} >= set(found) - {"other"}
    assert "quick" not in found[1:]  # it is gone by then
    assert "slow" in found


def test_data_goes_to_compute_where_that_is_quicker_and_stays_where_not() -> None:
    here = option("here", epoch_s=4.0)
    there = option("there", epoch_s=0.5, move_s=1.0, move_bytes=100_000)
    ask = request(max_visits=1)
    assert plan(ask, JobView(), [here, there]).steps[0].option == there
    far = msgspec.structs.replace(there, move_s=30.0)
    assert plan(ask, JobView(), [here, far]).steps[0].option == here
    even = msgspec.structs.replace(there, epoch_s=3.5, move_s=1.0)  # as long: then the data stays
    assert plan(ask, JobView(), [here, even]).steps[0].option == here


# --- several models at once ------------------------------------------------------------------------------------------


def test_a_visit_goes_around_another_job() -> None:
    one, same = option("one"), option("two", 2)
    ask = request(max_visits=1)
    assert handles(plan(ask, JobView(), [one, same])) == ["one"]
    busy = Load(bookings=[Booking(place="one", start_s=0.0, end_s=60.0)])
    assert handles(plan(ask, JobView(), [one, same], busy)) == ["two"]


def test_a_visit_waits_where_nothing_is_better() -> None:
    busy = Load(bookings=[Booking(place="one", start_s=0.0, end_s=5.0)])
    step = plan(request(max_visits=1), JobView(), [option("one")], busy).steps[0]
    free = plan(request(max_visits=1), JobView(), [option("one")]).steps[0]
    assert step.wait_s == pytest.approx(5.0)
    assert step.cost_s == pytest.approx(free.cost_s + 5.0)
    assert "waits 5.0 s" in step.reason
    assert "waits" not in free.reason


def test_a_wait_beyond_the_deadline_is_no_route() -> None:
    busy = Load(bookings=[Booking(place="one", start_s=0.0, end_s=500.0)])
    with pytest.raises(NoRoute, match="deadline"):
        plan(request(), JobView(), [option("one")], busy)


def test_two_handles_of_one_facility_are_one_place() -> None:
    a, b = option("a", place="shop"), option("b", 1, (24, 26, 25, 25), place="shop")
    busy = Load(bookings=[Booking(place=place_of(a), start_s=0.0, end_s=30.0)])
    assert plan(request(max_visits=1), JobView(), [a, b], busy).steps[0].wait_s == pytest.approx(30.0)


def test_a_way_that_others_fill_is_slower() -> None:
    near, far = option("near", 1, reach_s=0.5), option("far", 2, reach_s=0.6)
    ask = request(max_visits=1, model_bytes=2_000_000)
    assert handles(plan(ask, JobView(), [near, far])) == ["near"]
    assert handles(plan(ask, JobView(), [near, far], Load(way_share={1: 0.3}))) == ["far"]


def test_the_second_job_plans_around_the_first() -> None:
    offered = random_options(4, 8)
    ask = request(broad_accuracy=0.9)
    first = plan(ask, JobView(), offered)
    load = Load(bookings=bookings_of(first))
    aware, blind = plan(ask, JobView(), offered, load), first
    assert overlap(first, aware) < overlap(first, blind)


def overlap(a: Plan, b: Plan) -> float:
    """Seconds for which two plans want the same place."""
    return sum(
        max(0.0, min(x.end_s, y.end_s) - max(x.start_s, y.start_s))
        for x in bookings_of(a)
        for y in bookings_of(b)
        if x.place == y.place
    )


def test_the_first_gap_is_long_enough() -> None:
    load = Load(bookings=[Booking(place="x", start_s=s, end_s=e) for s, e in ((4.0, 6.0), (1.0, 3.0), (6.5, 9.0))])
    taken = windows(load, [option("x"), option("y")])
    start, needed = np.zeros(2), np.array([1.0, 1.0])
    assert first_gap(start, needed, taken).tolist() == [0.0, 0.0]
    assert first_gap(start, needed * 2, taken).tolist() == [9.0, 0.0]
    assert first_gap(start + 2.5, needed, taken).tolist() == [3.0, 2.5]


def test_bookings_move_with_time_and_add_up() -> None:
    found = plan(request(), JobView(), random_options(2, 6))
    taken = bookings_of(found, start_s=-1.0)
    assert taken[0].start_s == -1.0
    assert taken[-1].end_s == pytest.approx(found.total_s - 1.0)
    gone = later(Load(bookings=taken), by_s=taken[0].end_s + 1e-6)
    assert len(gone.bookings) == len(taken) - 1
    both = joined([Load(bookings=taken, way_share={1: 0.5}), Load(way_share={1: 0.5, 2: 0.9})])
    assert both.way_share == {1: 0.25, 2: 0.9}
    assert both.bookings == taken


def test_a_short_wait_is_taken_for_better_data_and_a_long_one_is_not() -> None:
    rich, poor = option("rich", 1, (40, 20, 20, 20)), option("poor", 2, (22, 26, 26, 26))
    ask = request(max_visits=1, deadline_s=1000.0)
    assert handles(plan(ask, JobView(), [rich, poor])) == ["rich"]

    def chosen(wait_s: float) -> str:
        return handles(
            plan(ask, JobView(), [rich, poor], Load(bookings=[Booking(place="rich", start_s=0.0, end_s=wait_s)]))
        )[0]

    own_s = plan(ask, JobView(), [rich]).steps[0].cost_s
    assert chosen(0.1 * own_s) == "rich"
    assert chosen(50 * own_s) == "poor"


def test_waiting_is_walked_as_it_was_grown() -> None:
    ask, offers = request(max_visits=6), random_options(8, 6)
    busy = Load(bookings=[Booking(place=place_of(o), start_s=0.0, end_s=20.0 + i) for i, o in enumerate(offers[:4])])
    canvas = canvas_of(ask, offers, busy)
    for path in routes(canvas, BLANK, range(6), 6)[:20]:
        assert walk(canvas, BLANK, [path.picks]).worth[0] == pytest.approx(path.worth)
