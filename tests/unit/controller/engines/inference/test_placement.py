"""MDO's placement: within memory and speed, every demand answered or told, no replica that is not worth its price."""

from __future__ import annotations

from itertools import product

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.engines.inference.placement import DEFAULTS, lay_out, optimise
from controller.engines.inference.placement_flow import assign, loads
from controller.engines.inference.placement_search import Bounds, Search, changed, dive, greedy, taken
from controller.values.placement import Demand, ModelNeed, Placement, PlacementSettings, Site

MIB = 2**20
QUICK = msgspec.structs.replace(DEFAULTS, kicks=3, tries=40)
Case = tuple[list[Site], list[ModelNeed], list[Demand], dict[str, dict[str, float]]]


def site(name: str, *hosts: str, memory_mib: float = 100.0, speed: float = 100.0) -> Site:
    return Site(name=name, memory_mib=memory_mib, speed=speed, hosts=list(hosts))


def model(name: str, memory_mib: float = 60.0, work: float = 1.0, mib: float = 1.0) -> ModelNeed:
    return ModelNeed(model=name, memory_mib=memory_mib, work=work, size_bytes=int(mib * MIB))


def demand(name: str, origin: str, rate_per_s: float = 10.0) -> Demand:
    return Demand(model=name, origin=origin, rate_per_s=rate_per_s)


NEAR_FAR = {"e1": {"a": 1.0, "b": 50.0}, "e2": {"a": 50.0, "b": 1.0}}


@st.composite
def cases(draw: st.DrawFn, most_sites: int = 5, most_models: int = 3) -> Case:
    names = [f"m{i}" for i in range(draw(st.integers(1, most_models)))]
    models = [
        model(n, draw(st.sampled_from([40.0, 60.0, 90.0])), draw(st.sampled_from([0.5, 1.0, 3.0]))) for n in names
    ]
    sites = [
        site(
            f"s{i}",
            *draw(st.lists(st.sampled_from(names), unique=True, max_size=2)),
            memory_mib=draw(st.sampled_from([0.0, 50.0, 100.0, 200.0])),
            speed=draw(st.sampled_from([0.0, 20.0, 100.0])),
        )
        for i in range(draw(st.integers(1, most_sites)))
    ]
    origins = ["e1", "e2", "e3"][: draw(st.integers(1, 3))]
    demands = [demand(n, o, draw(st.sampled_from([0.0, 1.0, 10.0, 60.0]))) for n in names for o in origins]
    ms = st.sampled_from([0.5, 5.0, 20.0, float("inf")])
    return sites, models, demands, {o: {s.name: draw(ms) for s in sites} for o in origins}


def assert_kept(case: Case, placed: Placement, fullness: float = 0.8) -> None:
    """Memory and work within what each site has, answers only from hosts, flows and what is unserved add up."""
    sites, models, demands, path_ms = case
    needs = {m.model: m for m in models}
    for s in sites:
        held = [m for m in models if s.name in placed.replicas[m.model]]
        free_mib = s.memory_mib + sum(needs[h].memory_mib for h in s.hosts)
        assert sum(m.memory_mib for m in held) <= free_mib + 1e-6
        work = sum(x.rate_per_s * needs[x.model].work for x in placed.shares if x.site == s.name)
        assert work <= fullness * s.speed * (1 + 1e-6) + 1e-9
    for x in placed.shares:
        assert x.site in placed.replicas[x.model] and x.rate_per_s > 0
        assert np.isfinite(path_ms[x.origin][x.site])
    for d in demands:
        told = [x.rate_per_s for x in [*placed.shares, *placed.unserved] if (x.model, x.origin) == (d.model, d.origin)]
        assert sum(told) == pytest.approx(d.rate_per_s, rel=1e-5)


def brute_force(case: Case, chosen: PlacementSettings = DEFAULTS) -> float:
    """Return the least cost of all placements."""
    problem, _ = lay_out(*case, chosen)
    shape = problem.hosted.shape
    every = (np.array(bits, dtype=bool).reshape(shape) for bits in product([False, True], repeat=problem.hosted.size))
    return min(assign(problem, held).cost for held in every if (problem.spare_mib(held) >= -1e-9).all())


# --- what the answer keeps -------------------------------------------------------------------------------------------


@settings(max_examples=50, deadline=None)
@given(cases())
def test_a_placement_keeps_memory_work_and_flows(case: Case) -> None:
    assert_kept(case, optimise(*case, settings=QUICK))


@settings(max_examples=20, deadline=None)
@given(cases(), st.integers(0, 5))
def test_the_same_seed_gives_the_same(case: Case, seed: int) -> None:
    first, again = (optimise(*case, seed=seed, settings=QUICK) for _ in range(2))
    assert first == again


@settings(max_examples=20, deadline=None)
@given(cases(most_sites=3, most_models=2))
def test_tiny_instances_are_solved_exactly(case: Case) -> None:
    assert optimise(*case).cost_ms == pytest.approx(brute_force(case), rel=1e-4, abs=1e-4)


@settings(max_examples=20, deadline=None)
@given(cases())
def test_changes_lead_from_what_is_hosted_to_the_replicas(case: Case) -> None:
    placed = optimise(*case, settings=QUICK)
    for m in case[1]:
        now = {s.name for s in case[0] if m.model in s.hosts}
        mine = [c for c in placed.changes if c.model == m.model]
        gone = {c.site for c in mine if c.kind == "remove"} | {c.source for c in mine if c.kind == "move"}
        new = {c.site for c in mine if c.kind != "remove"}
        assert gone <= now and not new & now
        assert (now - gone) | new == set(placed.replicas[m.model])
        assert all(c.reason and "\n" not in c.reason for c in mine)


@settings(max_examples=20, deadline=None)
@given(cases(most_sites=4, most_models=2))
def test_a_bound_is_never_above_the_cost(case: Case) -> None:
    problem, _ = lay_out(*case)
    state = assign(problem, problem.hosted)
    for m in range(len(case[1])):
        for step in Bounds(problem, state, m).steps(30):
            after = assign(problem, changed(state.held, [(step,)]))
            assert state.cost + step.bound <= after.cost + 1e-4 * max(1.0, abs(after.cost))


# --- what it decides -------------------------------------------------------------------------------------------------


def test_a_replica_goes_where_it_is_asked_for() -> None:
    placed = optimise([site("a"), site("b")], [model("m")], [demand("m", "e1")], NEAR_FAR)
    assert placed.replicas == {"m": ["a"]}
    assert [(c.kind, c.site) for c in placed.changes] == [("add", "a")]
    assert placed.response_ms == pytest.approx(2 * 1.0 + 1000 * 1.0 / 100.0)
    assert placed.moved_bytes == MIB


def test_two_origins_far_apart_get_a_replica_each() -> None:
    placed = optimise([site("a", "m"), site("b")], [model("m")], [demand("m", "e1"), demand("m", "e2")], NEAR_FAR)
    assert placed.replicas == {"m": ["a", "b"]}
    assert "from the next replica" in placed.changes[0].reason


def test_when_demand_goes_its_replicas_go_but_one_stays() -> None:
    sites, models = [site("a", "m"), site("b", "m")], [model("m"), model("n", 10.0)]
    placed = optimise(sites, models, [demand("n", "e1")], NEAR_FAR)
    assert len(placed.replicas["m"]) == 1
    gone = next(c for c in placed.changes if c.kind == "remove")
    assert "nobody asks for m" in gone.reason
    may_go = msgspec.structs.replace(DEFAULTS, missing_ms=0.0)
    assert optimise(sites, models, [demand("n", "e1")], NEAR_FAR, settings=may_go).replicas["m"] == []


def test_without_any_demand_one_replica_of_each_model_stays() -> None:
    placed = optimise([site("a", "m"), site("b", "m")], [model("m")], [], {})
    assert len(placed.replicas["m"]) == 1
    assert placed.response_ms == 0.0


def test_a_replica_that_saves_less_than_its_price_goes() -> None:
    sites, demands = [site("a", "m"), site("b", "m")], [demand("m", "e1", 10.0), demand("m", "e2", 0.001)]
    placed = optimise(sites, [model("m")], demands, NEAR_FAR)
    assert placed.replicas == {"m": ["a"]}
    assert "costs 0.10 ms" in placed.changes[0].reason


def test_demand_that_moves_takes_its_replica_along() -> None:
    placed = optimise([site("a", "m"), site("b")], [model("m")], [demand("m", "e2")], NEAR_FAR)
    (change,) = placed.changes
    assert (change.kind, change.source, change.site, change.size_bytes) == ("move", "a", "b", MIB)


def test_a_replica_dear_to_copy_stays_where_it_is() -> None:
    placed = optimise([site("a", "m"), site("b")], [model("m", mib=50_000)], [demand("m", "e2")], NEAR_FAR)
    assert placed.replicas == {"m": ["a"]} and not placed.changes


def test_a_full_site_gets_help_and_is_never_over_its_fullness() -> None:
    case = ([site("a", "m"), site("b")], [model("m")], [demand("m", "e1", 120.0)], NEAR_FAR)
    placed = optimise(*case)
    assert {x.site: round(x.rate_per_s, 6) for x in placed.shares} == {"a": 80.0, "b": 40.0}
    assert "more than the nearer replicas can take" in placed.changes[0].reason


def test_what_nobody_can_answer_is_told() -> None:
    case = ([site("a"), site("b")], [model("m")], [demand("m", "e1", 200.0)], NEAR_FAR)
    placed = optimise(*case)
    assert_kept(case, placed)
    assert [(x.model, x.origin, round(x.rate_per_s, 6)) for x in placed.unserved] == [("m", "e1", 40.0)]


def test_an_origin_without_a_way_is_unserved() -> None:
    placed = optimise([site("a")], [model("m")], [demand("m", "e1"), demand("m", "e9")], NEAR_FAR)
    assert [x.origin for x in placed.unserved] == ["e9"]
    assert placed.response_ms == pytest.approx(12.0)


def test_memory_goes_to_the_model_that_is_asked_for() -> None:
    sites = [site("a", "old", memory_mib=10.0), site("b", memory_mib=100.0)]
    placed = optimise(sites, [model("old"), model("new")], [demand("new", "e1"), demand("old", "e2", 0.1)], NEAR_FAR)
    assert placed.replicas == {"old": ["b"], "new": ["a"]}


def test_a_small_model_gives_way_twice_for_a_large_one() -> None:
    sites = [site("a", "p", "q", memory_mib=0.0), site("b", memory_mib=120.0)]
    demands = [demand("p", "e1", 1.0), demand("q", "e1", 1.0), demand("large", "e1", 20.0)]
    placed = optimise(sites, [model("p", 50.0), model("q", 50.0), model("large", 100.0)], demands, NEAR_FAR)
    assert placed.replicas == {"p": ["b"], "q": ["b"], "large": ["a"]}


@pytest.mark.parametrize("sites", [[], [site("a", memory_mib=1.0)]])
def test_no_room_at_all_is_told_not_raised(sites: list[Site]) -> None:
    placed = optimise(sites, [model("m")], [demand("m", "e1")], NEAR_FAR)
    assert placed.replicas == {"m": []} and not placed.shares
    assert [x.rate_per_s for x in placed.unserved] == [10.0]


def test_paths_may_be_rows_in_the_order_of_the_sites() -> None:
    sites, models, demands = [site("a"), site("b")], [model("m")], [demand("m", "e1"), demand("m", "e2")]
    rows = {origin: np.array(list(ways.values())) for origin, ways in NEAR_FAR.items()}
    assert optimise(sites, models, demands, rows) == optimise(sites, models, demands, NEAR_FAR)


def test_an_unknown_model_is_named() -> None:
    with pytest.raises(KeyError, match="nobody"):
        optimise([site("a")], [model("m")], [demand("nobody", "e1")], NEAR_FAR)


# --- parts -----------------------------------------------------------------------------------------------------------


def test_taken_takes_the_most_saved_first() -> None:
    part = taken(np.array([[1.0, 5.0, 0.0]]), np.array([[4.0, 2.0, 9.0]]), np.array([4.0]))
    assert part.tolist() == [[0.5, 1.0, 0.0]]


def test_a_full_site_has_a_price_and_the_flows_keep_its_capacity() -> None:
    case = ([site("a", "m"), site("b", "m")], [model("m")], [demand("m", "e1", 120.0)], NEAR_FAR)
    problem, _ = lay_out(*case)
    state = assign(problem, problem.hosted)
    assert (loads(problem, state.flows) <= problem.capacity * (1 + 1e-6)).all()
    assert state.price[0] > 0 and state.price[1] == 0


def test_columns_as_needed_cost_the_same_as_all(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    sites = [site(f"s{i}", "m", "n", speed=float(rng.uniform(10, 60))) for i in range(15)]
    demands = [demand(m, f"e{o}", float(rng.uniform(1, 12))) for o in range(30) for m in "mn"]
    path_ms = {f"e{o}": rng.uniform(1, 60, 15) for o in range(30)}
    problem, _ = lay_out(sites, [model("m"), model("n")], demands, path_ms)
    whole = assign(problem, problem.hosted)
    monkeypatch.setattr("controller.engines.inference.placement_flow.SMALL", 10)
    assert assign(problem, problem.hosted).cost == pytest.approx(whole.cost, rel=1e-6)


def test_a_search_without_tries_keeps_its_best_start() -> None:
    problem, _ = lay_out([site("a", "m"), site("b")], [model("m")], [demand("m", "e2")], NEAR_FAR)
    state = Search(problem, 0, np.random.default_rng(0)).run([problem.hosted, ~problem.hosted], kicks=3)
    assert state.held.tolist() == [[False, True]]


def test_many_sites_are_cut_to_those_that_matter() -> None:
    rng = np.random.default_rng(1)
    sites = [site(f"s{i}", *(["m"] if i == 777 else []), speed=200.0) for i in range(1_000)]
    demands = [demand("m", f"e{o}", 100.0) for o in range(20)]
    path_ms = {f"e{o}": rng.uniform(1, 60, 1_000) for o in range(20)}
    few = msgspec.structs.replace(QUICK, max_sites=50)
    problem, names = lay_out(sites, [model("m")], demands, path_ms, few)
    assert problem.hosted.any() and len(names.sites) < 200
    placed = optimise(sites, [model("m")], demands, path_ms, settings=few)
    assert not placed.unserved
    ways = {o: {s.name: float(ms) for s, ms in zip(sites, row, strict=True)} for o, row in path_ms.items()}
    assert_kept((sites, [model("m")], demands, ways), placed)


@settings(max_examples=20, deadline=None)
@given(cases())
def test_every_first_placement_fits_the_memory(case: Case) -> None:
    problem, _ = lay_out(*case)
    for held in (dive(problem), greedy(problem, problem.hosted), greedy(problem, np.zeros_like(problem.hosted))):
        assert (problem.spare_mib(held) >= -1e-6).all()
        assert assign(problem, held).cost >= 0
