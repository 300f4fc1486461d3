"""Metrics of deployed models come in levels, and one's own has a place among them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from controller.engines.inference.cats import CATEGORIES, USUAL, Metric, levels
from controller.values.knowledge import ModelAt


def model(node: str, service_ms: float, in_flight: int = 0, broad: float = 0.9) -> ModelAt:
    return ModelAt(node=node, task="t", accuracy={"broad": broad}, service_ms=service_ms, in_flight=in_flight)


def test_the_best_in_everything_scores_ten_and_half_as_good_five() -> None:
    found = levels([model("a", 10.0), model("b", 20.0, broad=0.45)], {"a": 5.0, "b": 10.0})
    assert [x.node for x in found] == ["a", "b"] and found[0].score == 10.0
    assert found[1].by_category == {"computing": 5.0, "communication": 5.0, "service": 5.0} and found[1].score == 5.0


def test_what_cannot_be_reached_is_left_out() -> None:
    assert [x.node for x in levels([model("a", 1.0), model("b", 1.0)], {"a": 1.0, "b": float("inf")})] == ["a"]


def test_a_metric_of_ones_own_counts() -> None:
    green = Metric(
        name="green", category="service", read=lambda raw: raw["green_share"], more_is_better=True, weight=9.0
    )
    more = {"a": {"green_share": 0.1}, "b": {"green_share": 1.0}}
    paths = {"a": 1.0, "b": 1.0}
    found = levels([model("a", 10.0), model("b", 11.0)], paths, [*USUAL, green], more=more)
    assert found[0].node == "b" and found[0].raw["green_share"] == 1.0
    assert levels([model("a", 10.0), model("b", 11.0)], paths)[0].node == "a"


amounts = st.floats(0.0, 1e6)


@given(st.lists(st.tuples(amounts, st.integers(0, 1000), st.floats(0, 1), amounts), max_size=6))
def test_scores_stay_within_their_scale(drawn: list[tuple[float, int, float, float]]) -> None:
    models = [model(f"m{i}", s, n, b) for i, (s, n, b, _) in enumerate(drawn)]
    found = levels(models, {f"m{i}": d[3] for i, d in enumerate(drawn)})
    assert len(found) == len(drawn)
    for one in found:
        assert 0 <= one.score <= 10 + 1e-6 and set(one.by_category) == set(CATEGORIES)
