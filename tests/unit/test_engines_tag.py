"""TAG: sequential or federated, and honesty about what is carried out."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.engines.tag import choose_method, mix_skew
from controller.engines.types import Option, Request

REQUEST = Request(task="t", groups=["a", "b"], broad_accuracy=0.8, model_bytes=1_000_000)


def option(a: float, samples: int = 1000, **kwargs: Any) -> Option:
    times: dict[str, Any] = {"epoch_s": 1.0, "reach_s": 0.1} | kwargs
    return Option(kas=1, handle=f"{a}", mix={"a": a, "b": 1 - a}, samples=samples, **times)


def test_skewed_mixes_are_visited_one_after_the_other() -> None:
    method, reason = choose_method(REQUEST, [option(1.0), option(0.0)])
    assert method == "sequential"
    assert "differ by 0.50" in reason and "federated would be chosen" not in reason


def test_where_federated_would_be_better_it_says_so_and_does_not_pretend() -> None:
    method, reason = choose_method(REQUEST, [option(0.5, epoch_s=20.0) for _ in range(8)])
    assert method == "sequential"
    assert reason.startswith("federated would be chosen") and "only sequential is carried out today" in reason


def test_slow_links_speak_against_many_rounds() -> None:
    _, reason = choose_method(REQUEST, [option(0.5, reach_s=30.0, epoch_s=0.1) for _ in range(8)])
    assert reason.startswith("sequential: mixes are alike")


def test_one_rendezvous_leaves_no_choice() -> None:
    assert "nothing to train in parallel" in choose_method(REQUEST, [option(0.5)])[1]
    assert choose_method(REQUEST, [])[0] == "sequential"


@pytest.mark.parametrize(("mixes", "skew"), [((0.5, 0.5), 0.0), ((1.0, 0.0), 0.5), ((0.75, 0.25), 0.25)])
def test_skew(mixes: tuple[float, float], skew: float) -> None:
    assert mix_skew([option(a) for a in mixes]) == pytest.approx(skew)


@given(st.lists(st.builds(option, st.floats(0, 1), st.integers(0, 5000)), max_size=8))
def test_skew_is_a_share(options: list[Option]) -> None:
    assert 0.0 <= mix_skew(options) <= 1.0 + 1e-9
    method, reason = choose_method(REQUEST, options)
    assert method == "sequential" and "\n" not in reason
