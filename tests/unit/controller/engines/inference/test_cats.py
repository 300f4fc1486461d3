"""Metrics of deployed models come in levels, and one's own has a place among them."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from controller.engines.inference.cats import CATEGORIES, USUAL, Metric, levels, own_metrics
from controller.values.knowledge import ModelAt
from controller.values.metrics import OwnMetric
from packets.terms import MAX_FIGURE


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


WATTS = {"power_w": OwnMetric(source="mine.py:power", category="computing", best=20.0, worst=200.0)}


def warm(node: str, **metrics: float) -> ModelAt:
    return ModelAt(node=node, task="t", accuracy={"broad": 0.9}, service_ms=10.0, metrics=metrics)


def test_what_an_mdfp_reports_counts_as_it_is_declared() -> None:
    paths = dict.fromkeys("abcd", 1.0)
    models = [warm("a", power_w=20.0), warm("b", power_w=110.0), warm("c", power_w=900.0), warm("d")]
    found = {x.node: x for x in levels(models, paths, [*USUAL, *own_metrics(WATTS)])}
    assert found["a"].raw["power_w"] == 20.0 and "power_w" not in found["d"].raw
    assert [found[n].by_category["computing"] for n in "abcd"] == [10.0, 7.5, 5.0, 10.0], "half of it, the other is 10"
    assert found["c"].score < found["b"].score < found["a"].score == found["d"].score, "unknown is neither good nor bad"
    more_is_better = {"cool": msgspec.structs.replace(WATTS["power_w"], best=200.0, worst=20.0, category="service")}
    [one] = levels([warm("a", cool=110.0)], paths, own_metrics(more_is_better))
    assert one.by_category == {"computing": 0.0, "communication": 0.0, "service": 5.0} and one.score == 5.0


def test_no_metric_of_ones_own_hides_one_that_every_model_has() -> None:
    assert levels([warm("a", service_ms=1e9)], {"a": 1.0})[0].raw["service_ms"] == 10.0


amounts = st.floats(0.0, 1e6)


figures = st.floats(-MAX_FIGURE, MAX_FIGURE)


@given(
    st.lists(st.tuples(amounts, st.integers(0, 1000), st.floats(0, 1), amounts, figures), max_size=6),
    st.tuples(figures, figures).filter(lambda ends: ends[0] != ends[1]),
)
def test_scores_stay_within_their_scale(
    drawn: list[tuple[float, int, float, float, float]], ends: tuple[float, float]
) -> None:
    declared = {"own": msgspec.structs.replace(WATTS["power_w"], best=ends[0], worst=ends[1])}
    models = [
        msgspec.structs.replace(model(f"m{i}", s, n, b), metrics={"own": own})
        for i, (s, n, b, _, own) in enumerate(drawn)
    ]
    found = levels(models, {f"m{i}": d[3] for i, d in enumerate(drawn)}, [*USUAL, *own_metrics(declared)])
    assert len(found) == len(drawn)
    for one in found:
        assert 0 <= one.score <= 10 + 1e-6 and set(one.by_category) == set(CATEGORIES)
