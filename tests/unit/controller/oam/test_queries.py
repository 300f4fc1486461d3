"""What the page's state and the metrics keep of queries: classes, models that are out, loads second by second."""

from __future__ import annotations

import json
from typing import Any

import pytest

from controller.oam.metrics import Metrics
from controller.oam.scripted import Script
from controller.oam.state.run import NetworkState
from packets.events import Event


def event(kind: str, /, t: float = 1.0, **data: Any) -> Event:
    return Event(kind=kind, source="test", t_unix_s=t, data=data)


@pytest.fixture
def state() -> NetworkState:
    state, script = NetworkState(), Script()
    for said in [*script.start(), *script.served(), *script.asked()]:
        state.apply(said)
    return state


def second(t: float, node: str = "asker4", **data: Any) -> Event:
    counts = {"asked": 10, "answered": 8, "refused": 1, "lost": 1, "under_way": 2, "policy": "qirce"}
    return event("load.second", t, node=node, **counts | {"latency_buckets": {"10": 7, "31.62": 1}} | data)


def test_a_scripted_load_is_all_understood(state: NetworkState) -> None:
    counts = state.section("run")["counts"]
    assert (counts["unknown"], counts["odd"]) == (0, 0)
    load = state.section("load")["now"]
    assert load["total"]["asked"] == load["total"]["answered"] + load["total"]["refused"] and len(load["seconds"]) == 20
    assert 13 < load["p50_ms"] < 17.8 < load["p95_ms"] < 24
    assert sum(n for _, n in load["histogram"]) == sum(s["answered"] for s in load["seconds"][-10:])


def test_a_class_says_where_its_queries_go_and_why(state: NetworkState) -> None:
    one = next(c for c in state.section("classes").values() if c["kas"] == 4)
    (model,) = one["models"]
    assert one["need"] == {"broad_accuracy": 0.8, "deadline_ms": 50.0, "expert_group": "", "local": False}
    assert model["label"] in state.section("terminals")["mdfp3"]["labels"] and model["path_ms"] == 10.1
    assert model["metrics"] == {"power_w": 61.5} and model["score"] == 9.1
    lost = next(c for c in state.section("classes").values() if c["kas"] == 2)
    assert lost["models"] == [] and lost["unserved"] == "no MDFP is in reach"


def test_a_model_is_out_until_it_is_back(state: NetworkState) -> None:
    assert state.section("terminals")["mdfp1"]["out"] == "no answer to two knocks"
    state.apply(event("model.back", node="mdfp1", kas=1))
    assert state.section("terminals")["mdfp1"]["out"] == ""


def test_a_model_that_is_retired_is_served_no_more(state: NetworkState) -> None:
    (label,) = state.section("terminals")["mdfp3"]["labels"]
    state.apply(event("model.retired", node="mdfp3", kas=3, label=int(label)))
    at = state.section("terminals")["mdfp3"]
    assert at["labels"] == {} and at["models"] == []


def test_seconds_of_all_askers_add_up_in_any_order() -> None:
    state = NetworkState()
    for said in (second(5.2), second(4.9, "asker1"), second(5.7, "asker1"), second(4.1)):
        state.apply(said)
    load = state.section("load")["now"]
    assert [(s["t"], s["asked"]) for s in load["seconds"]] == [(4, 20), (5, 20)]
    assert load["seconds"][0]["buckets"] == {"10": 14, "31.62": 2} and load["under_way"] == {"asker4": 2, "asker1": 2}


def test_seconds_say_from_which_k_as_was_asked_and_latencies_are_kept_of_the_last_alone(state: NetworkState) -> None:
    seconds = state.section("load")["now"]["seconds"]
    assert all(s["by_kas"] == {"4": s["asked"]} for s in seconds)
    assert [bool(s["buckets"]) for s in seconds] == [False] * 10 + [True] * 10


def test_where_models_serve_is_kept_from_coming_to_going(state: NetworkState) -> None:
    (bar,) = state.section("placed").values()
    assert (bar["node"], bar["came"], bar["to_unix_s"], bar["went"]) == ("mdfp3", "deployed", None, "")
    label, new = int(bar["label"]), 0x0120_0009
    state.apply(event("model.deployed", 50.0, node="mdfp1", object_id=new, task="vignettes", accuracy={}))
    state.apply(event("model.moved", 50.1, label=label, new_label=new, reason="it is asked for there"))
    state.apply(event("model.retired", 51.0, node="mdfp3", kas=3, label=label))
    old, moved = state.section("placed").values()
    assert (old["to_unix_s"], old["went"]) == (51.0, "moved")
    assert (moved["node"], moved["came"], moved["came_from"], moved["to_unix_s"]) == ("mdfp1", "moved", "mdfp3", None)
    assert state.section("outs")["mdfp1"]["spans"][0][1] is None
    state.apply(event("model.back", 52.0, node="mdfp1", kas=1))
    state.apply(event("agent.gone", 53.0, name="mdfp1"))
    assert state.section("outs")["mdfp1"]["spans"][0][1] == 52.0
    assert state.section("placed")[str(new)]["went"] == "gone"


def test_where_models_serve_stays_bounded(state: NetworkState) -> None:
    for n in range(1, 1000):
        state.apply(event("model.deployed", float(n), node="mdfp1", object_id=n, task=f"t{n}", accuracy={}))
        state.apply(event("model.out", n + 0.1, node="mdfp1", kas=1))
        state.apply(event("model.back", n + 0.2, node="mdfp1", kas=1))
    state.apply(event("model.out", 1000.0, node="nobody", kas=1))
    assert len(state.section("placed")) == 256 and len(state.section("outs")["mdfp1"]["spans"]) == 32
    assert "nobody" not in state.section("outs")


def test_a_load_is_over_when_all_its_askers_are_and_the_next_begins_at_nothing() -> None:
    state = NetworkState()
    for said in (second(1.0), second(1.1, "asker1"), event("load.over", node="asker4")):
        state.apply(said)
    assert not state.section("load")["now"]["over"]
    state.apply(event("load.over", node="asker1"))
    assert state.section("load")["now"]["over"]
    state.apply(second(9.0))
    load = state.section("load")["now"]
    assert (load["over"], load["total"]["asked"], load["ever"]["asked"]) == (False, 10, 30)


def test_three_minutes_are_kept_and_odd_figures_are_left_out() -> None:
    state = NetworkState()
    for t in range(200):
        state.apply(second(float(t)))
    state.apply(
        second(200.0, asked=2**70, answered=-3, latency_buckets={"nan": 1, "-1": 2, "x": 3, "inf": 4, "5": 1e300})
    )
    load = state.section("load")["now"]
    assert len(load["seconds"]) == 180 and load["seconds"][-1]["buckets"] == {} and load["seconds"][-1]["answered"] == 0
    json.dumps(state.snapshot(), allow_nan=False)


def test_a_refused_query_says_why() -> None:
    state = NetworkState()
    state.apply(event("query.sent", id="a-1", node="a", task="v"))
    state.apply(event("query.classed", id="a-1", node="a", task="v", label=3, need={}, refused="no model"))
    assert state.section("queries")["a-1"]["state"] == "refused"
    state.apply(event("query.classed", id="a-2", node="a", task="v", label=3, need={}, refused=""))
    state.apply(event("query.answered", id="a-2", node="a", answer="x", expected="x", answered_by="m", latency_ms=1.0))
    assert state.section("queries")["a-2"]["state"] == "answered"


def test_metrics_of_a_load() -> None:
    metrics = Metrics()
    for said in (second(1.0), second(2.0, latency_buckets={"x": 3, "nan": 2}), event("model.out", node="mdfp1")):
        metrics.apply(said)
    metrics.apply(event("query.unserved", kas=2, task="v", label=1, reason="none"))
    text = metrics.render().decode()
    for line in (
        'daitn_load_queries_total{outcome="asked"} 20.0',
        'daitn_load_queries_total{outcome="lost"} 2.0',
        'daitn_load_under_way{asker="asker4"} 2.0',
        'daitn_load_latency_seconds_bucket{le="0.01"} 7.0',
        "daitn_load_latency_seconds_count 8.0",
        'daitn_models_out{node="mdfp1"} 1.0',
        'daitn_unserved_total{kas="2"} 1.0',
    ):
        assert line in text.splitlines(), line


def test_hits_and_misses_of_a_cache_are_those_its_terminal_told_last() -> None:
    metrics = Metrics()
    plain = {"task": "vignettes", "label": 1, "accuracy": {}}
    for hits, misses in ((1, 4), (7, 5)):
        models = [plain, plain | {"label": 2, "hits": hits, "misses": misses}, "odd"]
        metrics.apply(event("krrm.updated", name="mdfp3", attributes={"models": models}))
    metrics.apply(event("krrm.updated", name="mdfp1", attributes={"models": [plain]}))
    metrics.apply(event("krrm.updated", name="mdfp1", attributes={"models": 3}))
    text = metrics.render().decode()
    assert 'daitn_cache_queries{node="mdfp3",outcome="hit"} 7.0' in text
    assert 'daitn_cache_queries{node="mdfp3",outcome="miss"} 5.0' in text and "mdfp1" not in text
