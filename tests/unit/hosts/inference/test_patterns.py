"""Patterns of load: the mean is what was asked for, the shape is what the name says, a seed repeats."""

from __future__ import annotations

import itertools
import random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hosts.inference.asked import Row, read, summary, write
from hosts.inference.known import KnownReplicas
from hosts.inference.patterns import PATTERNS, Pattern, arrivals, rate_of
from packets.messages import Known, State


@pytest.mark.parametrize("kind", PATTERNS)
def test_all_askers_together_ask_at_the_mean_rate(kind: str) -> None:
    pattern = Pattern(rate_per_s=200.0, kind=kind, peak=5.0, period_s=10.0)  # type: ignore[arg-type]
    asked = 0
    for asker in range(8):
        rate, most = rate_of(pattern, asker // 2, 4, 2, 8)
        times = itertools.takewhile(lambda t: t < 40.0, arrivals(rate, most, random.Random(asker)))
        asked += sum(1 for _ in times)
    assert asked == pytest.approx(200 * 40, rel=0.05)


@pytest.mark.parametrize("kind", PATTERNS)
@given(t=st.floats(0.0, 1e4), peak=st.floats(1.0, 50.0))
def test_a_rate_is_never_above_its_bound_nor_below_nothing(kind: str, t: float, peak: float) -> None:
    rate, most = rate_of(Pattern(kind=kind, peak=peak), 1, 4, 2, 8)  # type: ignore[arg-type]
    assert 0 <= rate(t) <= most * (1 + 1e-9)


def test_the_hot_spot_moves_from_place_to_place() -> None:
    pattern = Pattern(kind="hot_spot", peak=4.0, period_s=10.0)
    rates = [rate_of(pattern, place, 4, 2, 8)[0] for place in range(4)]
    for second in (5.0, 15.0, 25.0, 35.0, 45.0):
        now = [rate(second) for rate in rates]
        assert now.index(max(now)) == int(second / 10) % 4 and max(now) == pytest.approx(4 * min(now))


def test_a_seed_repeats() -> None:
    rate, most = rate_of(Pattern(), 0, 1, 1, 1)
    first, again = (list(itertools.islice(arrivals(rate, most, random.Random(7)), 50)) for _ in range(2))
    assert first == again and first == sorted(first)


def test_rows_come_back_from_their_file_and_sum_up(tmp_path) -> None:  # type: ignore[no-untyped-def]
    rows = [Row(0.1 * i, 10.0 * i, "answered", 5, 1, i % 2) for i in range(1, 10)]
    rows += [Row(2.0, 1.0, "refused", 0, 2, -1), Row(3.0, 9000.0, "lost", 0, 3, -1)]
    write(tmp_path / "q.csv", rows)
    assert [r.outcome for r in read(tmp_path / "q.csv")] == [r.outcome for r in rows]
    found = summary(read(tmp_path / "q.csv"), deadline_ms=50)
    assert (found["asked"], found["answered"], found["refused"], found["lost"]) == (11, 9, 1, 1)
    assert found["deadline_hits"] == pytest.approx(5 / 11, abs=1e-5) and found["p50_ms"] == 50.0
    assert found["accuracy"] == pytest.approx(5 / 9, abs=1e-5)
    assert summary([], 10.0)["asked"] == 0


def known(label: int, in_flight: int, age_s: float) -> Known:
    return Known(label=label, path_ms=5.0, service_ms=20.0, in_flight=in_flight, age_s=age_s)


def test_the_younger_word_on_a_model_wins() -> None:
    models = KnownReplicas()
    models.told([known(1, 3, 0.5), known(2, 4, 0.1)], 10.0)
    models.state(State(label=1, in_flight=7, service_ms=25.0), 10.1)
    models.told([known(1, 3, 0.6), known(2, 9, 0.0)], 10.2)
    assert (models.by_label[1].in_flight, models.by_label[1].service_ms) == (7, 25.0)
    assert models.by_label[2].in_flight == 9
    assert models.told([known(2, 1, 0.0)], 10.3) == {1} and set(models.by_label) == {2}


def test_metrics_of_ones_own_reach_who_picks_and_are_as_last_told() -> None:
    models = KnownReplicas()
    models.told([msgspec.structs.replace(known(1, 0, 0.0), metrics={"power_w": 61.5})], 10.0)
    assert models.copy()[0].metrics == {"power_w": 61.5}
    models.told([known(1, 0, 0.0)], 10.1)
    assert models.copy()[0].metrics == {}


def test_own_queries_that_a_word_cannot_have_counted_are_counted() -> None:
    models = KnownReplicas()
    models.told([known(1, 0, 0.0)], 10.0)
    for number, at_s in ((1, 9.99), (2, 10.0), (3, 10.2)):
        models.sent(1, number, at_s)
    assert (models.by_label[1].own, models.by_label[1].sent_since) == (3, 2)
    models.state(State(label=1, in_flight=2), 10.1)  # as it was at 10.095, when what was sent before 10.09 was there
    assert models.by_label[1].sent_since == 1
    models.over(1, 3)
    assert (models.by_label[1].own, models.by_label[1].sent_since) == (2, 0)
