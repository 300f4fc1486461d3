"""The policies that pick the replica of each query: every rule of theirs; a choice is always one of those given."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.policies_sim import Run, World, figures
from controller.engines.inference.policies import POLICIES, policy
from controller.engines.inference.policies import peak_ewma as peak
from controller.engines.inference.policies import prequal as pq
from controller.engines.inference.policies import qirce as ours
from controller.engines.inference.policies.peak_ewma import PeakEwma
from controller.engines.inference.policies.prequal import Prequal
from controller.engines.inference.policies.qirce import Lessons, Qirce, expected_in_flight
from controller.values.queries import Policy, Probed, Replica


def replica(label: int, path_ms: float = 1.0, service_ms: float = 10.0, in_flight: int = 0, **other: float) -> Replica:
    return Replica(label=label, path_ms=path_ms, service_ms=service_ms, in_flight=in_flight, **other)  # type: ignore[arg-type]


def picks(chooser: Policy, replicas: Sequence[Replica], times: int = 400, now_s: float = 0.0) -> Counter[int]:
    return Counter(chooser.choose(replicas, now_s).label for _ in range(times))


def probe(label: int, in_flight: int = 0, latency_ms: float = 10.0, at_s: float = 0.0) -> Probed:
    return Probed(label=label, in_flight=in_flight, latency_ms=latency_ms, at_s=at_s)


# --- all -------------------------------------------------------------------------------------------------------------


def test_policies_are_made_by_name_and_an_unknown_name_is_told_the_known_ones() -> None:
    for name, kind in POLICIES.items():
        assert type(policy(name, random.Random(1))) is kind
    with pytest.raises(ValueError, match=r"'fastest'.*nearest, random, round-robin.*qirce"):
        policy("fastest", random.Random(1))


@pytest.mark.parametrize("name", POLICIES)
def test_equal_seeds_choose_equally(name: str) -> None:
    replicas = [replica(i, path_ms=i, in_flight=i % 3) for i in range(5)]
    runs = []
    for _ in range(2):
        chooser = policy(name, random.Random(7))
        for label in range(5):
            chooser.probed(probe(label, label % 3))
        runs.append([chooser.choose(replicas, 0.1).label for _ in range(20)])
    assert runs[0] == runs[1]


@pytest.mark.parametrize("name", POLICIES)
def test_only_prequal_probes(name: str) -> None:
    chooser = policy(name, random.Random(1))
    labels = chooser.to_probe([replica(i) for i in range(5)], 0.0)
    assert chooser.probes_per_query == len(labels) == (3 if name == "prequal" else 0)


NUMBERS = st.one_of(st.just(0.0), st.floats(0, 1e300), st.sampled_from([5e-324, 1e-9, 1.0, 1e9, math.inf]))
COUNTS = st.one_of(st.just(0), st.integers(0, 2**63), st.integers(0, 8))
REPLICAS = st.lists(
    st.builds(
        Replica,
        label=st.integers(1, 2**31),
        path_ms=NUMBERS,
        service_ms=NUMBERS,
        in_flight=COUNTS,
        told_s=st.floats(-1e9, 1e9),
        arrivals_per_s=NUMBERS,
        own=COUNTS,
        sent_since=COUNTS,
        weight=st.integers(0, 100),
    ),
    min_size=1,
    max_size=6,
    unique_by=lambda r: r.label,
)
EVENTS = st.lists(st.tuples(st.sampled_from(["answered", "failed", "probed"]), st.integers(0, 5), NUMBERS), max_size=8)


@pytest.mark.parametrize("name", POLICIES)
@given(replicas=REPLICAS, events=EVENTS, now_s=st.floats(0, 1e9), seed=st.integers(0, 9))
def test_a_choice_is_always_one_of_the_given(
    name: str, replicas: list[Replica], events: list[tuple[str, int, float]], now_s: float, seed: int
) -> None:
    chooser = policy(name, random.Random(seed))
    for what, index, value in events:
        assert chooser.choose(replicas, now_s) in replicas
        label = replicas[index % len(replicas)].label
        if what == "answered":
            chooser.answered(label, value, now_s)
        elif what == "failed":
            chooser.failed(label, now_s)
        else:
            chooser.probed(probe(label, index, value, now_s))
        assert set(chooser.to_probe(replicas, now_s)) <= {r.label for r in replicas}
    assert chooser.choose(replicas, now_s) in replicas
    assert chooser.choose(replicas[:1], now_s + 1) is replicas[0]  # the others are gone


# --- the simple ones -------------------------------------------------------------------------------------------------


def test_nearest_takes_the_shortest_path_however_busy() -> None:
    replicas = [replica(1, 5.0), replica(3, 2.0, in_flight=60), replica(2, 2.0, in_flight=60)]
    assert picks(policy("nearest", random.Random(1)), replicas) == {2: 400}


def test_random_takes_all_alike() -> None:
    counts = picks(policy("random", random.Random(1)), [replica(1, in_flight=9), replica(2), replica(3)], 3000)
    assert all(900 < counts[label] < 1100 for label in (1, 2, 3))


def test_round_robin_takes_each_in_turn_from_anywhere() -> None:
    replicas = [replica(label) for label in (30, 10, 20)]
    starts = set()
    for seed in range(20):
        chooser = policy("round-robin", random.Random(seed))
        labels = [chooser.choose(replicas, 0.0).label for _ in range(6)]
        assert sorted(labels[:3]) == [10, 20, 30] and labels[:3] == labels[3:]
        assert labels[1] == {10: 20, 20: 30, 30: 10}[labels[0]]
        starts.add(labels[0])
    assert starts == {10, 20, 30}


def test_round_robin_goes_on_when_replicas_come_and_go() -> None:
    chooser = policy("round-robin", random.Random(1))
    assert chooser.choose([replica(2)], 0.0).label == 2
    assert chooser.choose([replica(1), replica(3)], 0.0).label == 3
    assert chooser.choose([replica(1), replica(2)], 0.0).label == 1


def test_least_loaded_takes_what_was_told_and_ties_by_chance() -> None:
    replicas = [replica(1, in_flight=2), replica(2, in_flight=1, own=9, service_ms=99), replica(3, in_flight=1)]
    counts = picks(policy("least-loaded", random.Random(1)), replicas)
    assert set(counts) == {2, 3} and min(counts.values()) > 150


def test_two_choices_takes_the_better_of_two_and_counts_own_queries() -> None:
    replicas = [replica(1, in_flight=0, own=5), replica(2, in_flight=4), replica(3, in_flight=3)]
    counts = picks(policy("two-choices", random.Random(1)), replicas, 3000)
    assert 1 not in counts  # the worst is never the better of two
    assert 1800 < counts[3] < 2200  # the best whenever it is drawn: two times in three


# --- peak EWMA -------------------------------------------------------------------------------------------------------


def test_peak_ewma_tries_the_unexplored_first_but_each_once() -> None:
    chooser = PeakEwma(random.Random(1))
    chooser.answered(1, 0.1, 0.0)
    assert picks(chooser, [replica(1), replica(2), replica(3, own=1)], 50) == {2: 50}
    assert picks(chooser, [replica(1), replica(3, own=1)], 50) == {1: 50}  # 3: on its way, nothing known


def test_peak_ewma_jumps_to_a_peak_and_forgets_it_slowly() -> None:
    chooser = PeakEwma(random.Random(1))
    chooser.answered(1, 10.0, 0.0)
    chooser.answered(1, 200.0, 1.0)
    assert chooser.cost_ms(1, 1.0) == 200.0
    chooser.answered(1, 10.0, 1.0 + peak.DECAY_S)
    assert chooser.cost_ms(1, 1.0 + peak.DECAY_S) == pytest.approx(10 + 190 / math.e)
    assert chooser.cost_ms(1, 1.0 + 2 * peak.DECAY_S) == pytest.approx((10 + 190 / math.e) / math.e)


def test_peak_ewma_weighs_latency_with_own_queries_in_flight() -> None:
    chooser = PeakEwma(random.Random(1))
    chooser.answered(1, 10.0, 0.0)
    chooser.answered(2, 25.0, 0.0)
    assert picks(chooser, [replica(1, own=1), replica(2)]) == {1: 400}  # 20 against 25
    assert picks(chooser, [replica(1, own=2), replica(2)]) == {2: 400}  # 30 against 25
    chooser.answered(3, 24.0, 0.0)
    assert picks(chooser, [replica(1, own=2), replica(2), replica(3)]) == {3: 400}  # all are compared


def test_peak_ewma_takes_a_failure_as_slow() -> None:
    chooser = PeakEwma(random.Random(1))
    for label in (1, 2):
        chooser.answered(label, 10.0 * label, 0.0)
    chooser.failed(1, 0.0)
    assert picks(chooser, [replica(1), replica(2)]) == {2: 400}


# --- Prequal ---------------------------------------------------------------------------------------------------------


def pooled(*probes: Probed, quiet: int = 0) -> Prequal:
    """Return a policy with these probes; ``quiet``: as many were seen before with nothing in flight."""
    chooser = Prequal(random.Random(1))
    for _ in range(quiet):
        chooser.probed(probe(99, at_s=-9.0))
    for one in probes:
        chooser.probed(one)
    return chooser


def test_prequal_falls_back_to_chance_below_two_probes() -> None:
    replicas = [replica(1), replica(2), replica(3)]
    assert set(picks(pooled(probe(1)), replicas, 60)) == {1, 2, 3}
    assert pooled(probe(1), probe(2, latency_ms=9.0)).choose(replicas, 0.0).label == 2


def test_prequal_forgets_old_probes() -> None:
    probes = [probe(1, latency_ms=1.0), probe(2, latency_ms=2.0), probe(3, latency_ms=3.0, at_s=0.5)]
    replicas = [replica(1), replica(2), replica(3)]
    assert pooled(*probes).choose(replicas, pq.MAX_AGE_S).label == 1
    chooser = pooled(*probes, probe(2, latency_ms=4.0, at_s=0.6))
    assert chooser.choose(replicas, pq.MAX_AGE_S + 0.1).label == 3


def test_prequal_takes_the_quickest_cold_one_and_leaves_hot_ones_alone() -> None:
    replicas = [replica(i) for i in range(1, 8)]
    probes = [probe(i, in_flight=1, latency_ms=20.0 + i) for i in range(1, 7)]
    assert pooled(*probes, probe(7, in_flight=9, latency_ms=1.0)).choose(replicas, 0.0).label == 1
    assert pooled(*probes, probe(7, in_flight=1, latency_ms=1.0)).choose(replicas, 0.0).label == 7


def test_prequal_takes_the_fewest_in_flight_when_all_are_hot() -> None:
    chooser = pooled(probe(1, 5, 1.0), probe(2, 3, 9.0), probe(3, 4, 2.0), quiet=100)
    assert chooser.hot_above() == 0
    assert chooser.choose([replica(1), replica(2), replica(3)], 0.0).label == 2


def test_prequal_hot_is_above_the_quantile_of_recent_probes() -> None:
    chooser = pooled(*[probe(i, i) for i in range(100)])
    assert chooser.hot_above() == 84
    for _ in range(pq.RECENT):
        chooser.probed(probe(1, 2))
    assert chooser.hot_above() == 2


def test_prequal_pool_is_bounded_and_has_the_newest_of_each() -> None:
    chooser = pooled(*[probe(i, latency_ms=50 - i, at_s=i / 1e3) for i in range(40)], probe(39, latency_ms=1.0))
    assert len(chooser._pool) == pq.POOL
    assert len({e.label for e in chooser._pool}) == pq.POOL


def test_prequal_removes_the_oldest_and_the_worst_in_turn() -> None:
    chooser = pooled(*[probe(i, latency_ms=100 - 10 * abs(i - 3), at_s=i / 1e3) for i in range(7)])
    replicas = [replica(i) for i in range(7)]
    chooser.choose(replicas, 0.01)
    assert 0 not in {e.label for e in chooser._pool}  # the oldest
    chooser.choose(replicas, 0.01)
    assert 1 in {e.label for e in chooser._pool}
    assert len(chooser._pool) == 5  # then the worst of those that are left
    chooser = pooled(probe(1, 9, 1.0), probe(2, 1, 30.0), probe(3, 1, 20.0), probe(4, 1, 10.0), quiet=20)
    chooser._remove_worst = True
    chooser.choose(replicas, 0.01)
    assert 1 not in {e.label for e in chooser._pool}  # hot is worse than slow


def test_prequal_reuse_is_bounded_where_the_paper_bounds_it() -> None:
    assert pq.reuse_budget(4) == pq.reuse_budget(16) == math.inf
    assert pq.reuse_budget(10**6) == pytest.approx(1.0, abs=0.01)
    assert pq.reuse_budget(48) == pytest.approx(2.0)
    replicas = [replica(i) for i in range(100)]
    budget = math.ceil(pq.reuse_budget(100))
    chooser = pooled(*[probe(i, latency_ms=i, at_s=i / -1e3) for i in range(1, 16)])
    chooser._rifs.extend([9] * 100)  # so that none is hot
    assert [chooser.choose(replicas, 0.0).label for _ in range(budget + 1)] == [1] * budget + [2]


def test_prequal_counts_what_it_sends_on_a_probe() -> None:
    chooser = pooled(probe(1, 3), probe(2, 4), probe(3, 9), probe(4, 9, at_s=-0.5), probe(5, 9, at_s=-0.4), quiet=100)
    replicas = [replica(i) for i in range(1, 6)]
    assert [chooser.choose(replicas, 0.0).label for _ in range(2)] == [1, 1]  # 3, then 4 like the other
    assert chooser.choose(replicas, 0.0).label == 2


def test_prequal_drops_a_replica_that_failed_and_ignores_ones_that_are_gone() -> None:
    chooser = pooled(probe(1, latency_ms=1.0), probe(2, latency_ms=2.0), probe(3, latency_ms=3.0), probe(4))
    chooser.failed(1, 0.0)
    assert chooser.choose([replica(1), replica(3), replica(4)], 0.0).label == 3


def test_prequal_probes_three_different_replicas() -> None:
    chooser, replicas = Prequal(random.Random(1)), [replica(i) for i in range(5)]
    asked = [chooser.to_probe(replicas, 0.0) for _ in range(100)]
    assert all(len(set(labels)) == 3 for labels in asked)
    assert {label for labels in asked for label in labels} == set(range(5))
    assert chooser.to_probe(replicas[:1], 0.0) == [0]


# --- QIRCE -----------------------------------------------------------------------------------------------------------


def test_expected_response_is_the_path_twice_and_the_compute_of_all_before() -> None:
    chooser = Qirce(random.Random(1))
    near, far = replica(1, 2.0, 30.0, 3), replica(2, 20.0, 10.0, 3)
    assert chooser.expected_ms(near, 0.0) == pytest.approx(124.0, abs=0.1)
    assert chooser.expected_ms(far, 0.0) == pytest.approx(80.0, abs=0.1)
    assert picks(chooser, [near, far])[2] > 390


def test_what_was_told_is_aged_by_arrivals_and_work_and_own_queries() -> None:
    filling = replica(1, service_ms=100.0, in_flight=4, arrivals_per_s=30.0)
    assert expected_in_flight(filling, 0.0) == 4
    assert expected_in_flight(filling, 0.5) == pytest.approx(4 + ours.TREND * 0.5 * (30 - 10))
    draining = replica(1, service_ms=10.0, in_flight=4, sent_since=2)
    assert expected_in_flight(draining, 0.02) == pytest.approx(4 - ours.TREND * 0.02 * 100 + 2)
    assert expected_in_flight(draining, 0.5) == 2  # never below nothing, own ones apart
    assert expected_in_flight(filling, 50.0) == expected_in_flight(filling, ours.MAX_AGE_S)
    assert expected_in_flight(filling, -1.0) == 4  # told of the future: clocks differ
    assert expected_in_flight(replica(1, service_ms=0.0, in_flight=4, arrivals_per_s=9.0), 9.0) == 4


def test_doubt_grows_with_age_and_pace() -> None:
    slow = replica(1, service_ms=100.0, in_flight=9, arrivals_per_s=10.0)
    fast = replica(1, service_ms=10.0, in_flight=9, arrivals_per_s=100.0)
    assert expected_in_flight(slow, 0.0, draw=1.0) == 9
    assert expected_in_flight(slow, 0.2, draw=1.0) == pytest.approx(9 + math.sqrt(0.2 * 20))
    assert expected_in_flight(fast, 0.2, draw=-1.0) == pytest.approx(9 - math.sqrt(0.2 * 200))


def test_askers_with_the_same_stale_knowledge_do_not_herd() -> None:
    stale = [replica(1, service_ms=10.0, in_flight=6, arrivals_per_s=100.0), replica(2, service_ms=10.0, in_flight=7,
             arrivals_per_s=100.0)]  # fmt: skip
    counts = Counter(Qirce(random.Random(seed)).choose(stale, 0.2).label for seed in range(300))
    assert 100 < counts[2] < counts[1]


def test_near_ones_are_shared_by_how_soon_and_far_ones_left() -> None:
    replicas = [replica(1, 0.0, 100.0), replica(2, 0.0, 110.0), replica(3, 0.0, 151.0)]
    counts = picks(Qirce(random.Random(1)), replicas, 3000)
    assert 3 not in counts
    assert counts[2] / counts[1] == pytest.approx(math.exp(-0.1 / ours.SPREAD), rel=0.15)


def test_own_queries_on_their_way_weigh_more() -> None:
    chooser = Qirce(random.Random(1))
    assert chooser.expected_ms(replica(1, 0.0, 10.0, own=2), 0.0) == pytest.approx(10 * (1 + 2 * ours.OWN), abs=0.1)
    assert picks(chooser, [replica(1, 1.0, 10.0, 3), replica(2, 1.0, 10.0, 3, own=3)]) == {1: 400}


def test_an_unmeasured_replica_counts_as_an_average_one() -> None:
    measured = [replica(1, 1.0, 10.0), replica(2, 1.0, 500.0)]
    assert picks(Qirce(random.Random(1)), [*measured, replica(3, 1.0, 0.0)]) == {1: 400}
    nothing = [replica(1, 1.0, 0.0, 30), replica(2, 1.0, 0.0, 0)]
    assert picks(Qirce(random.Random(1)), nothing) == {2: 400}


def taught(ratio: float, times: int, service_ms: float = 20.0, queries: float = 2.0) -> Lessons:
    """Return what was learned of answers that took ``ratio`` times the compute that was expected."""
    lessons = Lessons()
    for i in range(times):
        lessons.sent(float(i), 10.0, service_ms, queries)
        response_ms = 10.0 + ratio * service_ms * queries
        lessons.answered(response_ms, i + response_ms / 1e3)
    return lessons


def test_a_replica_slower_or_faster_than_it_says_is_found_out_within_bounds() -> None:
    assert taught(1.0, 100).factor == pytest.approx(1.0)
    assert 1.0 < taught(2.0, 5).factor < 1.3  # a few answers do not tell
    assert taught(2.0, 1000).factor == pytest.approx(2.0, rel=0.02)
    assert taught(0.7, 1000).factor == pytest.approx(0.7, rel=0.02)
    assert taught(50.0, 1000).factor == ours.FACTORS[1]
    assert taught(0.0, 1000).factor == ours.FACTORS[0]


def test_answers_are_compared_with_their_own_queries() -> None:
    lessons = Lessons()
    for i in range(400):  # each second query gets no answer, its expectation is far off
        lessons.sent(float(i), 0.0, 10.0, 50.0)
        lessons.sent(i + 0.1, 0.0, 10.0, 1.0)
        lessons.answered(10.0, i + 0.11)
    assert lessons.factor == pytest.approx(1.0)
    lessons.answered(900.0, 9999.0)  # of no query that is known
    assert lessons.factor == pytest.approx(1.0)


def test_a_choice_heeds_what_was_learned() -> None:
    chooser = Qirce(random.Random(1))
    replicas = [replica(1, 0.0, 10.0), replica(2, 0.0, 17.0)]
    for i in range(1000):
        if chooser.choose(replicas, float(i)).label == 1:
            chooser.answered(1, 40.0, i + 0.04)
        else:
            chooser.answered(2, 17.0, i + 0.017)
    assert chooser.expected_ms(replicas[0], 999.0) > 25
    assert picks(chooser, [replica(r.label, 0.0, r.service_ms, told_s=1000.0) for r in replicas], 200, 1000.0)[2] > 150


def test_a_replica_that_failed_is_left_alone_then_trusted_by_and_by() -> None:
    chooser, replicas = Qirce(random.Random(1)), [replica(1, 1.0, 10.0), replica(2, 1.0, 45.0)]
    assert picks(chooser, replicas) == {1: 400}
    chooser.failed(1, 0.0)
    first_s = ours.BACK_OFF_S[0]
    assert picks(chooser, replicas, now_s=first_s - 0.01) == {2: 400}
    started = [chooser.expected_ms(replicas[0], first_s + s) for s in (0.0, 0.5, ours.SLOW_START_S)]
    assert started == sorted(started, reverse=True)
    assert started[0] == pytest.approx(52, abs=0.1) and started[2] == pytest.approx(12, abs=0.1)


def test_back_off_doubles_with_each_further_failure_up_to_a_bound_and_an_answer_ends_it() -> None:
    lessons, now_s, waits = Lessons(), 0.0, []
    for _ in range(8):
        lessons.failed(now_s)
        lessons.failed(now_s + 0.01)  # the others that were on their way
        wait_s = next(s / 4 for s in range(1, 99) if not lessons.avoided(now_s + s / 4))
        waits.append(wait_s)
        now_s += wait_s
    assert waits == [0.5, 1, 2, 4, 8, 8, 8, 8]
    lessons.answered(1.0, now_s)
    lessons.failed(now_s)
    assert lessons.avoided(now_s + 0.4) and not lessons.avoided(now_s + 0.5)


def test_when_all_failed_one_is_tried_all_the_same() -> None:
    chooser, replicas = Qirce(random.Random(1)), [replica(1, 1.0, 10.0, told_s=0.1), replica(2, 1.0, 45.0, told_s=0.1)]
    for one in replicas:
        chooser.failed(one.label, 0.0)
    assert picks(chooser, replicas, now_s=0.1) == {1: 400}


# --- the simulation --------------------------------------------------------------------------------------------------


def test_every_query_of_the_simulation_is_answered_or_refused() -> None:
    world = World(load=1.5, duration_s=20.0)
    asked = sum(sent_s >= 5.0 for sent_s, _, _ in world.queries(3))
    run = Run("random", world, 3).run()
    assert len(run.responses_ms) + run.refused == asked and run.refused > 0
    assert all(s.in_flight == 0 for s in run.servers)
    assert all(r.own == 0 for a in run.askers for r in a.told)


def test_ours_beats_chance_in_the_simulation() -> None:
    world = World(load=0.8, duration_s=20.0)
    by_chance, best = (figures(name, world, [4]) for name in ("random", "qirce"))
    assert best["p95_ms"] < by_chance["p95_ms"] / 2 and best["in_time"] > by_chance["in_time"]
