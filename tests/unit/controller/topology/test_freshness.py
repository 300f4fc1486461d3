"""What the map's freshness costs, and how far it runs behind."""

from __future__ import annotations

import pytest

from controller.topology.freshness import LAGS_KEPT, Freshness
from controller.topology.krrm import Krrm


def test_cost_is_counted_by_terminal_and_in_all() -> None:
    fresh = Freshness()
    for second in range(10):
        fresh.note("h11", 150, 100.0 + second, 0.001)
        fresh.note("h12", 50, 100.5 + second)
    assert (fresh.cost("h11").reports, fresh.cost("h11").bytes) == (10, 1500)
    assert fresh.cost("h11").bytes_per_s(110.0) == 150
    assert fresh.cost("nobody").bytes == 0
    told = fresh.summary(110.0)
    assert told["telemetry_bytes_per_s"] == 200 and told["reports_per_s"] == 2
    fresh.forget("h11")
    assert fresh.cost("h11").bytes == 0 and fresh.bytes == 2000


def test_lags_have_exact_quantiles() -> None:
    fresh = Freshness()
    assert fresh.lags_ms() == {}
    for i in range(1001):
        fresh.note("h11", 100, 0.0, i / 1e6)
    lags = fresh.lags_ms()
    assert lags["p50_ms"] == pytest.approx(0.5) and lags["p99_ms"] == pytest.approx(0.99)
    assert lags["max_ms"] == pytest.approx(1.0) and lags["lags"] == 1001


def test_only_the_latest_lags_are_kept() -> None:
    fresh = Freshness()
    for _ in range(LAGS_KEPT):
        fresh.note("h11", 100, 0.0, 5.0)
    for _ in range(LAGS_KEPT):
        fresh.note("h11", 100, 0.0, 0.001)
    assert fresh.lags_ms()["max_ms"] == pytest.approx(1.0)


def test_every_attribute_knows_its_cost_and_how_often_it_changed() -> None:
    krrm = Krrm()
    krrm.update("h11", "data", 1, "10.1.1.1", {"samples": 100, "queue": 0}, 1.0, 200)
    krrm.update("h11", "data", 1, "10.1.1.1", {"queue": 1}, 2.0, 80)
    krrm.update("h11", "data", 1, "10.1.1.1", {"queue": 1}, 3.0, 80)
    held = krrm.node("h11").attributes
    assert (held["samples"].cost_bytes, held["samples"].changes) == (100, 0)
    assert (held["queue"].cost_bytes, held["queue"].changes, held["queue"].t_s) == (260, 1, 3.0)


def test_what_the_dcc_notes_itself_is_no_sign_of_life() -> None:
    krrm = Krrm()
    krrm.update("h11", "data", 1, "10.1.1.1", {"samples": 100}, 1.0)
    assert krrm.note("h11", {"trust": 0.4}, 9.0) == ["trust"]
    assert krrm.node("h11").heard_s == 1.0 and krrm.node("h11").get("trust") == 0.4
    assert krrm.stale(9.0, 5.0) == ["h11"]
