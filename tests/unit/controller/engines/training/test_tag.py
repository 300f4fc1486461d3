"""TAG: four ways of training, chosen from the spread of the data, the model, the links and the time."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.engines.training.tag import CURVES, METHODS, Cut, Ways, choose, choose_method, curve, mix_skew
from controller.values.decisions import Hyper, Option, Request

LOCAL = Hyper(epochs=1.0, batch_size=64, learning_rate=2e-3)
SITE = Ways(rate_mbps=1000.0, round_trip_s=0.002, shared=False)
NARROW = Ways(rate_mbps=5.0, round_trip_s=0.1, shared=True)


def request(**kwargs: Any) -> Request:
    given: dict[str, Any] = {"model_bytes": 1_000_000, "max_visits": 24, "deadline_s": 40.0} | kwargs
    return Request(task="t", groups=["a", "b"], broad_accuracy=0.8, **given)


def option(a: float, samples: int = 1000, **kwargs: Any) -> Option:
    times: dict[str, Any] = {"epoch_s": 1.0, "reach_s": 0.1} | kwargs
    return Option(kas=1, handle=f"{a}", mix={"a": a, "b": 1 - a}, samples=samples, **times)


def alike(count: int = 8, **kwargs: Any) -> list[Option]:
    return [option(0.5, **kwargs) for _ in range(count)]


def test_a_narrow_link_carries_one_model_at_a_time() -> None:
    choice = choose(request(), alike(epoch_s=0.3), NARROW, local=LOCAL)
    assert choice.method == "sequential"
    assert "narrow" not in choice.reason and "expected after" in choice.reason


def test_where_links_are_wide_all_train_at_once() -> None:
    choice = choose(request(deadline_s=4.0), alike(epoch_s=0.3), SITE, local=LOCAL)
    assert choice.method != "sequential"


def test_under_extreme_skew_a_route_forgets() -> None:
    apart = [Option(kas=1, handle=g, mix={g: 1.0}, samples=300, epoch_s=0.3, reach_s=0.1) for g in "abcdefgh"]
    found = {p.method: p.accuracy for p in choose(request(deadline_s=10.0), apart, SITE, local=LOCAL).prospects}
    assert found["split"] > found["federated"] > found["sequential"]


def test_slow_round_trips_speak_against_split() -> None:
    near = {p.method: p.rounds for p in choose(request(), alike(), SITE, local=LOCAL).prospects}
    far = Ways(rate_mbps=1000.0, round_trip_s=0.5, shared=False)
    away = {p.method: p.rounds for p in choose(request(), alike(), far, local=LOCAL).prospects}
    assert away["split"] < near["split"] / 2
    assert away["gossip"] > near["gossip"] / 2


def test_what_may_not_be_cut_is_not_split() -> None:
    choice = choose(request(), alike(), SITE, cut=Cut(allowed=False), local=LOCAL)
    assert "split" not in {p.method for p in choice.prospects}


def test_equally_good_methods_are_told_apart_by_bytes() -> None:
    choice = choose(request(deadline_s=1e6, max_visits=10**6), alike(), SITE, local=LOCAL)
    near = [p for p in choice.prospects if p.accuracy >= choice.prospects[0].accuracy - 0.003]
    assert choice.method == min(near, key=lambda p: p.bytes).method


def test_one_rendezvous_leaves_no_choice() -> None:
    assert "nothing to train in parallel" in choose_method(request(), [option(0.5)])[1]
    assert choose_method(request(), [])[0] == "sequential"


@pytest.mark.parametrize("method", METHODS)
@given(st.integers(0, 500), st.floats(0, 1), st.floats(1, 500))
def test_more_rounds_never_teach_less(method: str, rounds: int, skew: float, steps: float) -> None:
    less, more = (curve(method, n, skew, steps) for n in (rounds, rounds + 1))
    assert 0.0 <= less <= more + 1e-9 <= 1.0 + 1e-9
    assert set(CURVES) == set(METHODS)


@pytest.mark.parametrize(("mixes", "skew"), [((0.5, 0.5), 0.0), ((1.0, 0.0), 0.5), ((0.75, 0.25), 0.25)])
def test_skew(mixes: tuple[float, float], skew: float) -> None:
    assert mix_skew([option(a) for a in mixes]) == pytest.approx(skew)


@given(st.lists(st.builds(option, st.floats(0, 1), st.integers(0, 5000)), max_size=8))
def test_skew_is_a_share_and_a_choice_is_one_line(options: list[Option]) -> None:
    assert 0.0 <= mix_skew(options) <= 1.0 + 1e-9
    method, reason = choose_method(request(), options)
    assert method in METHODS and "\n" not in reason
