"""G-KRRM: what is believed, since when, and what is refused."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.topology.errors import BadReport, UnknownNode
from controller.topology.krrm import MAX_ATTRIBUTES, Krrm
from packets.messages import Register

GOOD: dict[str, Any] = {
    "samples": 1500,
    "group_shares": {"cardiology": 0.25, "neurology": 0.75},
    "quality": 0.93,
    "data_age_s": 12.0,
    "data_may_move": True,
    "compute_samples_per_s": 4000.0,
    "memory_mib": 512,
    "queue": 0,
    "trust": 0.9,
    "reachable": True,
    "models": ["vignettes"],
    "load": 0.2,
    "latency_ms": 3.5,
    "test_samples": 200,
    "metrics": {"power_w": 61.5, "balance": -3},
}


def tell(krrm: Krrm, name: str = "h11", now_s: float = 0.0, role: str = "data", **attributes: Any) -> list[str]:
    return krrm.update(name, role, 1, "10.1.1.1", attributes, now_s)


def test_every_attribute_of_register_is_known_to_the_map() -> None:
    documented = {word for word in GOOD if f"``{word}``" in (Register.__doc__ or "")}
    assert documented == set(GOOD)
    krrm = Krrm()
    assert tell(krrm, **GOOD) == sorted(GOOD)
    assert krrm.node("h11").get("group_shares") == GOOD["group_shares"]
    assert krrm.node("h11").get("models") == [{"task": "vignettes", "accuracy": {}}]


def test_each_attribute_has_its_own_age() -> None:
    krrm = Krrm()
    tell(krrm, now_s=10.0, samples=100, queue=0)
    tell(krrm, now_s=14.0, queue=2)
    assert krrm.age_s("h11", "samples", 15.0) == 5.0
    assert krrm.age_s("h11", "queue", 15.0) == 1.0
    assert krrm.age_s("h11", "load", 15.0) == math.inf
    assert krrm.node("h11").heard_s == 14.0


def test_a_heartbeat_is_a_sign_of_life_and_no_change() -> None:
    krrm = Krrm()
    tell(krrm, now_s=0.0, samples=100)
    tell(krrm, "h12", now_s=0.0, samples=100)
    version = krrm.version
    assert tell(krrm, now_s=9.0) == []
    assert krrm.version == version
    assert krrm.stale(now_s=10.0, limit_s=5.0) == ["h12"]


def test_the_same_value_again_renews_its_age_and_changes_nothing() -> None:
    krrm = Krrm()
    tell(krrm, now_s=0.0, samples=100, queue=1)
    changed_at = krrm.node("h11").changed(("samples",))
    assert tell(krrm, now_s=7.0, samples=100) == []
    assert krrm.age_s("h11", "samples", 8.0) == 1.0
    assert krrm.node("h11").changed(("samples",)) == changed_at


def test_changes_are_counted_per_attribute() -> None:
    krrm = Krrm()
    tell(krrm, samples=100, queue=1)
    before = krrm.node("h11")
    assert tell(krrm, now_s=1.0, queue=2) == ["queue"]
    after = krrm.node("h11")
    assert after.changed(("samples",)) == before.changed(("samples",))
    assert after.changed(("queue", "samples")) > before.changed(("queue", "samples"))
    assert after.changed(("never",)) == 0


LIES = [
    ("samples", -1, "negative"),
    ("samples", 1.5, "whole"),
    ("samples", math.nan, "finite"),
    ("samples", True, "not a number"),
    ("samples", 1e18, "more than"),
    ("group_shares", {"a": 0.5, "b": 0.4}, "sums to 0.900"),
    ("group_shares", {"a": 1.5, "b": -0.5}, "share"),
    ("group_shares", {"a": math.nan}, "finite"),
    ("group_shares", {str(n): 1 / 65 for n in range(65)}, "65 groups"),
    ("group_shares", [0.5, 0.5], "mapping"),
    ("quality", 1.01, "0..1"),
    ("quality", "0.9", "not a number"),
    ("trust", math.inf, "finite"),
    ("compute_samples_per_s", -0.1, "negative"),
    ("reachable", 1, "neither true nor false"),
    ("data_may_move", "yes", "neither true nor false"),
    ("models", "vignettes", "not a list"),
    ("models", [{"accuracy": {}}], "without a task"),
    ("models", [{"task": "t", "accuracy": {"broad": 2}}], "0..1"),
    ("queue", None, "not a number"),
    ("metrics", {"power_w": math.nan}, "no number"),
    ("metrics", {"power_w": 1e16}, "no number"),
    ("metrics", {"power_w": True}, "no number"),
    ("metrics", {"power_w": "61"}, "no number"),
    ("metrics", {"x" * 33: 1.0}, "1 to 32"),
    ("metrics", {"": 1.0}, "1 to 32"),
    ("metrics", {str(n): 1.0 for n in range(9)}, "at most 8"),
    ("metrics", [1.0], "mapping"),
    ("gpu", {"a": 1}, "plain value"),
    ("note", "x" * 201, "200"),
    ("temperature", math.nan, "finite"),
    ("x" * 41, 1, "longer"),
]


@pytest.mark.parametrize(("attribute", "value", "fault"), LIES)
def test_a_lie_is_refused_whole_and_the_old_values_stay(attribute: str, value: Any, fault: str) -> None:
    krrm = Krrm()
    tell(krrm, now_s=0.0, **GOOD)
    before = krrm.snapshot()
    with pytest.raises(BadReport, match="report of h11") as refused:
        tell(krrm, now_s=5.0, load=0.7, **{attribute: value})
    assert attribute[:40] in str(refused.value) and fault in str(refused.value)
    assert "\n" not in str(refused.value) and len(str(refused.value)) < 200
    assert krrm.snapshot() == before


@pytest.mark.parametrize(
    ("name", "role", "kas", "address", "fault"),
    [
        ("", "data", 1, "10.1.1.1", "name"),
        ("h" * 33, "data", 1, "10.1.1.1", "name"),
        ("h11", "mpvu", 1, "10.1.1.1", "data of K-AS 1"),
        ("h11", "data", 2, "10.1.1.1", "data of K-AS 1"),
        ("h12", "data", 0, "10.1.1.1", "1..255"),
        ("h12", "data", 1, "10.1.1.256", "IPv4"),
    ],
)
def test_a_false_identity_is_refused(name: str, role: str, kas: int, address: str, fault: str) -> None:
    krrm = Krrm()
    tell(krrm)
    with pytest.raises(BadReport, match=fault):
        krrm.update(name, role, kas, address, {}, 1.0)
    assert len(krrm) == 1


def test_attributes_of_a_researchers_own_are_kept() -> None:
    krrm = Krrm()
    tell(krrm, battery=0.4, rack="b7", spot=False)
    assert krrm.node("h11").get("battery") == 0.4
    with pytest.raises(BadReport, match=str(MAX_ATTRIBUTES)):
        krrm.update("h11", "data", 1, "10.1.1.1", {f"x{n}": n for n in range(MAX_ATTRIBUTES)}, 1.0)


def test_the_map_does_not_share_what_it_was_given() -> None:
    krrm, shares = Krrm(), {"a": 1.0}
    tell(krrm, group_shares=shares)
    shares["a"] = 0.0
    assert krrm.node("h11").get("group_shares") == {"a": 1.0}


def test_forgetting_and_asking_for_what_is_not_there() -> None:
    krrm = Krrm()
    tell(krrm)
    tell(krrm, "mpvu2", role="mpvu")
    assert [n.name for n in krrm.nodes()] == ["h11", "mpvu2"]
    assert [n.name for n in krrm.nodes("mpvu")] == ["mpvu2"]
    version = krrm.version
    krrm.forget("h11")
    krrm.forget("h11")
    assert krrm.version == version + 1 and "h11" not in krrm
    for ask in (lambda: krrm.node("h11"), lambda: krrm.age_s("h11", "samples", 0.0)):
        with pytest.raises(UnknownNode, match="h11"):
            ask()


def test_a_clock_that_steps_back_makes_no_negative_age() -> None:
    krrm = Krrm()
    tell(krrm, now_s=10.0, samples=1)
    assert krrm.age_s("h11", "samples", 9.0) == 0.0


def test_the_snapshot_is_json() -> None:
    krrm = Krrm()
    tell(krrm, **GOOD)
    shot = json.loads(json.dumps(krrm.snapshot(), allow_nan=False))
    assert shot["h11"]["role"] == "data"
    assert shot["h11"]["attributes"]["samples"]["value"] == 1500


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.binary(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from([*GOOD, "own"]), values, max_size=5))
def test_any_report_is_taken_or_refused_by_name_and_the_map_stays_sound(attributes: dict[str, Any]) -> None:
    krrm = Krrm()
    tell(krrm, **GOOD)
    before = krrm.snapshot()
    try:
        tell(krrm, now_s=1.0, **attributes)
    except BadReport:
        assert krrm.snapshot() == before
    json.dumps(krrm.snapshot(), allow_nan=False)
    assert krrm.node("h11").get("samples") >= 0
    assert sum(krrm.node("h11").get("group_shares").values()) == pytest.approx(1.0, abs=0.02) or not krrm.node(
        "h11"
    ).get("group_shares")


MODEL_LIES = [
    ({"service_ms": -1.0}, "negative"),
    ({"service_ms": "9"}, "not a number"),
    ({"service_ms": math.inf}, "finite"),
    ({"arrivals_per_s": 1e308}, "more than"),
    ({"in_flight": 0.5}, "whole"),
    ({"label": 1 << 28}, "no label"),
    ({"job": -1}, "identity"),
    ({"up_s": -2}, "negative"),
    ({"x" * 41: 1}, "1 to 40"),
    ({str(n): 1 for n in range(65)}, "more than 64 fields"),
    ({"hits": math.nan}, "finite"),
]


@pytest.mark.parametrize(("lie", "fault"), MODEL_LIES)
def test_a_deployed_model_stands_as_it_can_stand(lie: dict[str, Any], fault: str) -> None:
    krrm = Krrm()
    tell(krrm, now_s=0.0, **GOOD)
    with pytest.raises(BadReport, match=fault):
        tell(krrm, now_s=1.0, models=[{"task": "t", **lie}])
    known = {"label": 5, "service_ms": 1.5, "in_flight": 2, "up_s": -1, "job": (1 << 64) - 1, "hits": 1, "own": "word"}
    assert tell(krrm, now_s=2.0, models=[{"task": "t", **known}]) == ["models"]


def test_no_plain_value_is_absurd() -> None:
    krrm = Krrm()
    for absurd in (1e308, -1e308, 1 << 63, -(1 << 60)):
        with pytest.raises(BadReport, match="more than"):
            tell(krrm, now_s=0.0, own_figure=absurd)
