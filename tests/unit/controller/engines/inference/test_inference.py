"""Q-FAM, QIRCE, MDO: which queries are served, by whom, and where models are deployed."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.engines.inference.mdo import memory_needed_mib, place
from controller.engines.inference.qfam import assess_query
from controller.engines.inference.qirce import choose, expected_ms
from controller.topology.krrm import Krrm
from controller.values.errors import NoPlacement
from controller.values.knowledge import ModelAt, Node
from packets.queries import Need


def model(node: str, broad: float = 0.9, load: float = 0.0, latency_ms: float = 5.0, **groups: float) -> ModelAt:
    accuracy = {"broad": broad, **groups}
    return ModelAt(node=node, task="vignettes", accuracy=accuracy, load=load, latency_ms=latency_ms)


def needs(floors: float | dict[str, float]) -> Need:
    if not isinstance(floors, dict):
        return Need(broad_accuracy=floors)
    group = next((name for name in floors if name != "broad"), "")
    return Need(broad_accuracy=floors.get("broad", 0.0), expert_group=group, expert_accuracy=floors.get(group, 0.0))


# --- Q-FAM -----------------------------------------------------------------------------------------------------------


def test_a_query_class_that_a_model_satisfies_is_admitted() -> None:
    models = [model("mdfp1", 0.82, cardiology=0.96), model("mdfp3", 0.90, cardiology=0.90)]
    verdict = assess_query("vignettes", models, needs({"broad": 0.8, "cardiology": 0.95}), {})
    assert verdict.admitted and verdict.reasons == []
    assert verdict.predicted == {"broad": 0.82, "cardiology": 0.96}  # of the one that satisfies both
    assert assess_query("vignettes", models, needs(0.9), {}).admitted
    assert assess_query("vignettes", models, Need(), {}).admitted


@pytest.mark.parametrize(
    ("task", "models", "floors", "reason", "nearest"),
    [
        ("poetry", [model("m")], 0.5, "no MDFP hosts a model of task poetry", {}),
        ("vignettes", [], 0.5, "no MDFP hosts", {}),
        ("vignettes", [model("m", 0.7)], 0.8, "broad accuracy 0.80 is asked for; the best", {"broad": 0.7}),
        (
            "vignettes",
            [model("m")],
            {"dermatology": 0.5},
            "dermatology accuracy 0.50",
            {"broad": 0.0, "dermatology": 0.0},
        ),
        ("vignettes", [model("m", load=1.0), model("n", load=1.7)], 0.8, "all 2 MDFPs", {}),
    ],
)
def test_a_query_class_that_none_satisfies_is_refused_with_reasons(
    task: str, models: list[ModelAt], floors: Any, reason: str, nearest: dict[str, float]
) -> None:
    verdict = assess_query(task, models, needs(floors), {})
    assert not verdict.admitted
    assert reason in verdict.reasons[0]
    assert verdict.nearest == nearest


def test_two_half_good_models_do_not_make_one_good_model() -> None:
    models = [model("a", 0.9, cardiology=0.5), model("b", 0.5, cardiology=0.9)]
    verdict = assess_query("vignettes", models, needs({"broad": 0.8, "cardiology": 0.8}), {})
    assert verdict.reasons == [
        "no single deployed model of task vignettes reaches all of broad 0.80, cardiology 0.80 together"
    ]


share = st.floats(0.0, 1.0)


@given(st.lists(st.builds(model, st.sampled_from("abcd"), share, share, cardiology=share), max_size=5), share, share)
def test_the_nearest_query_class_is_admitted(models: list[ModelAt], broad: float, cardiology: float) -> None:
    verdict = assess_query("vignettes", models, needs({"broad": broad, "cardiology": cardiology}), {})
    assert verdict.admitted == (not verdict.reasons)
    if verdict.nearest:
        assert assess_query("vignettes", models, needs(verdict.nearest), {}).admitted


# --- QIRCE -----------------------------------------------------------------------------------------------------------


def test_the_soonest_answer_comes_first_and_shares_follow_speed() -> None:
    models = [model("far", latency_ms=5.0), model("near", latency_ms=5.0)]
    chosen = choose(models, {"near": 2.5, "far": 7.5})
    assert chosen == [("near", 100), ("far", 50)]  # 10 ms and 20 ms


def test_load_counts() -> None:
    models = [model("busy", load=0.9, latency_ms=10.0), model("idle", latency_ms=10.0)]
    assert [node for node, _ in choose(models, {"busy": 1.0, "idle": 20.0})] == ["idle", "busy"]
    assert expected_ms(model("m", load=3.0), 0.0) == expected_ms(model("m", load=1.0), 0.0)  # full is full


@pytest.mark.parametrize("ways", [{}, {"a": math.inf}, {"a": math.nan}, {"a": -1.0}])
def test_a_node_out_of_reach_is_not_chosen(ways: dict[str, float]) -> None:
    assert choose([model("a")], ways) == []


def test_equal_nodes_come_by_name_and_a_node_is_chosen_once() -> None:
    models = [model("b"), model("a"), model("a", latency_ms=50.0)]
    assert choose(models, {"a": 1.0, "b": 1.0}) == [("a", 100), ("b", 100)]


@given(
    st.lists(
        st.builds(model, st.sampled_from("abcdef"), load=st.floats(0, 2), latency_ms=st.floats(0, 1e6)), max_size=8
    ),
    st.dictionaries(st.sampled_from("abcdef"), st.floats(0, 1e6)),
)
def test_weights_fit_an_openflow_bucket_and_fall_with_time(models: list[ModelAt], ways: dict[str, float]) -> None:
    chosen = choose(models, ways)
    weights = [weight for _, weight in chosen]
    assert {node for node, _ in chosen} == {m.node for m in models} & set(ways)
    assert weights == sorted(weights, reverse=True)
    assert all(1 <= weight <= 100 for weight in weights) and (not weights or weights[0] == 100)


# --- MDO -------------------------------------------------------------------------------------------------------------


def mdfps(**attributes: dict[str, Any]) -> list[Node]:
    krrm = Krrm()
    for name, held in attributes.items():
        krrm.update(name, "mdfp", 1, "10.1.1.1", held, 0.0)
    return krrm.nodes("mdfp")


@pytest.mark.parametrize(
    ("first", "second", "chosen"),
    [
        ({"memory_mib": 500, "load": 0.6}, {"memory_mib": 500, "load": 0.1}, "m2"),
        ({"memory_mib": 500}, {"memory_mib": 500}, "m1"),
        ({"memory_mib": 500, "models": ["vignettes"]}, {"memory_mib": 500, "load": 0.5}, "m2"),  # a replica elsewhere
        ({"memory_mib": 500, "models": ["table"]}, {"memory_mib": 500}, "m2"),
        ({"memory_mib": 17}, {"memory_mib": 500, "load": 0.8}, "m2"),
        ({"memory_mib": 500, "reachable": False}, {"memory_mib": 500, "load": 0.9}, "m2"),
        ({}, {"memory_mib": 500, "load": 0.5}, "m2"),  # unknown memory comes after known
        ({}, {"memory_mib": 1}, "m1"),
    ],
)
def test_a_model_goes_where_it_fits_best(first: dict[str, Any], second: dict[str, Any], chosen: str) -> None:
    assert place("vignettes", 1_000_000, mdfps(m1=first, m2=second)) == chosen


def test_nearer_to_the_askers_is_better_and_out_of_their_reach_is_out() -> None:
    nodes = mdfps(m1={"memory_mib": 500}, m2={"memory_mib": 500})
    assert place("vignettes", 1_000_000, nodes, {"m1": 20.0, "m2": 1.0}) == "m2"
    assert place("vignettes", 1_000_000, nodes, {"m1": 20.0, "m2": math.inf}) == "m1"


def test_no_placement_says_why_of_every_candidate() -> None:
    nodes = mdfps(m1={"memory_mib": 20}, m2={"reachable": False}, m3={"load": 0.99})
    with pytest.raises(NoPlacement) as refused:
        place("vignettes", 10 * 2**20, nodes)
    for part in ("m1 has 20 MiB of memory free, 56 are needed", "m2 is not reachable", "m3 is busy (load 0.99)"):
        assert part in str(refused.value)
    assert "\n" not in str(refused.value)
    with pytest.raises(NoPlacement, match="there is no MDFP"):
        place("vignettes", 1, [])


@given(st.integers(0, 10**9), st.lists(st.floats(0, 4000), min_size=1, max_size=5))
def test_a_model_is_never_placed_where_it_does_not_fit(size_bytes: int, memories: list[float]) -> None:
    nodes = mdfps(**{f"m{n}": {"memory_mib": m} for n, m in enumerate(memories)})
    try:
        chosen = place("vignettes", size_bytes, nodes)
    except NoPlacement:
        assert all(m < memory_needed_mib(size_bytes) for m in memories)
    else:
        assert memories[int(chosen[1:])] >= memory_needed_mib(size_bytes)


# --- classes with deadlines, privacy, measured models ----------------------------------------------------------------


def measured(node: str, service_ms: float, arrivals_per_s: float = 0.0, **more: Any) -> ModelAt:
    return msgspec.structs.replace(model(node), service_ms=service_ms, arrivals_per_s=arrivals_per_s, label=1, **more)


def test_a_deadline_that_none_can_meet_is_refused_with_the_soonest() -> None:
    models = [measured("a", 30.0), measured("b", 10.0)]
    verdict = assess_query("vignettes", models, Need(deadline_ms=20), {"a": 1.0, "b": 20.0})
    assert not verdict.admitted and verdict.nearest["deadline_s"] == 0.032
    assert assess_query("vignettes", models, Need(deadline_ms=32), {"a": 1.0, "b": 20.0}).admitted


def test_what_cannot_be_reached_is_a_reason() -> None:
    verdict = assess_query("vignettes", [model("a")], Need(local=True), {"a": float("inf")})
    assert not verdict.admitted and "own K-AS" in verdict.reasons[0]


rates = st.lists(st.floats(1.0, 500.0), min_size=1, max_size=6)


@given(rates, st.lists(st.floats(0.0, 40.0), min_size=6, max_size=6), st.floats(0.0, 0.88))
def test_shares_make_one_more_query_cost_the_same_everywhere(
    service: list[float], away: list[float], fullness: float
) -> None:
    from controller.engines.inference.qirce import HEADROOM, _shares

    capacity = sum(1e3 / s for s in service)
    asked = max(fullness, HEADROOM) * capacity
    models = [measured(f"m{i}", s, asked / len(service)) for i, s in enumerate(service)]
    path_ms = {m.node: away[i] for i, m in enumerate(models)}
    shares = _shares(models, path_ms)
    assert sum(shares.values()) == pytest.approx(asked, rel=1e-3)
    costs = []
    for m in models:
        rate, x = 1e3 / m.service_ms, shares[m.node]
        assert 0 <= x < rate
        costs.append((x, rate / (rate - x) ** 2 + 2e-3 * path_ms[m.node]))
    used = [c for x, c in costs if x > 1e-6 * asked]
    assert max(used) <= min(used) * 1.01 and all(c >= min(used) * 0.99 for x, c in costs if x == 0)


def test_a_model_that_has_just_come_is_trusted_with_little_at_first() -> None:
    shares = [dict(choose([measured("a", 10.0, 60.0), measured("b", 10.0, up_s=up)], {"a": 1.0, "b": 1.0}))
              for up in (0.0, 5.0, 60.0)]  # fmt: skip
    assert shares[0]["b"] < shares[1]["b"] < shares[2]["b"] == 100
