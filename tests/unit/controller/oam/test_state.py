"""The state fold: the picture after a scripted journey, in any order that datagrams may come, and with odd data."""

from __future__ import annotations

import json
import random
import threading
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.oam.scripted import MODEL_BYTES, OWNER, STOPS, Script
from controller.oam.state.run import FOLDS, NetworkState
from controller.oam.state.tracks import route
from packets.events import Event


def event(kind: str, /, **data: Any) -> Event:
    return Event(kind=kind, source="test", t_unix_s=1.0, data=data)


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture
def up(script: Script) -> NetworkState:
    state = NetworkState()
    for said in script.start():
        state.apply(said)
    return state


def test_a_network_that_stands(up: NetworkState) -> None:
    state = up.snapshot()
    assert len(state["terminals"]) == 22 and len(state["switches"]) == 12
    assert all(t["ready"] and t["state"] == "idle" for t in state["terminals"].values())
    assert [k["ready"] for k in state["kas"].values()] == [True] * 4
    wan = [link for link in state["links"].values() if link["wan"]]
    assert len(wan) == 5 and all(link["measured_mbps"] == 48.1 and link["ok"] for link in wan)
    assert state["terminals"]["h11"]["attributes"]["samples"] == 1400
    assert state["run"]["counts"]["unknown"] == state["run"]["counts"]["odd"] == 0


def test_the_model_is_where_the_events_say_at_each_moment(up: NetworkState, script: Script) -> None:
    key = str(script.object_id)
    for said in script.admitted():
        up.apply(said)
    assert up.section("objects")[key]["node"] == OWNER
    for visit, stop in enumerate(STOPS):
        at = STOPS[visit - 1][1] if visit else OWNER
        for said in script.stop(visit, at, stop):
            up.apply(said)
            model = up.section("objects")[key]
            if said.kind == "object.launched" and said.data["object_id"] == script.object_id:
                assert model["node"] == at and not model["moving"]
            if said.kind == "object.steered" and said.data["object_id"] == script.object_id:
                assert model["node"] == "" and model["moving"]
            if said.kind == "object.arrived" and said.data["object_id"] == script.object_id:
                assert model["node"] == stop[1] and not model["moving"]
                assert model["route"][0] == at and model["route"][-1] == stop[1]


def test_a_whole_run(script: Script) -> None:
    state = NetworkState()
    for said in script.run():
        state.apply(said)
    picture = state.snapshot()
    job = picture["jobs"][str(script.object_id)]
    assert (job["state"], job["broad"], job["expert"], job["visits"]) == ("finished", 0.847, 0.968, 8)
    assert job["returned"] and job["targets"] == {"broad": 0.8, "expert": 0.95}
    assert [s.get("action") for s in job["stops"]] == [s[0] for s in STOPS] + ["home"]
    verified = [(s["visit"], s["broad"]) for s in job["stops"] if s.get("broad") is not None]
    assert verified == [(2, 0.561), (5, 0.818), (7, 0.847)]
    seventh = job["stops"][6]
    assert seventh["reason"].startswith("cardiology last") and seventh["expected"]["expert"] == 0.96
    assert seventh["gain"] == {"broad": pytest.approx(0.012), "expert": pytest.approx(0.258)}
    assert seventh["data_node"] == "h22" and seventh["node"] == "c2" and seventh["bytes"] == MODEL_BYTES
    assert picture["terminals"]["mdfp3"]["models"] == ["vignettes"]
    assert picture["queries"]["q1"]["right"] is True and picture["queries"]["q1"]["latency_ms"] == 58.2
    assert picture["run"]["counts"]["odd"] == picture["run"]["counts"]["unknown"] == 0
    json.dumps(picture, allow_nan=False)


def test_every_kind_of_the_contract_is_known() -> None:
    contract = [
        "run.phase",
        "network.up",
        "link.calibrated",
        "dcc.ready",
        "agent.ready",
        "agent.state",
        "agent.gone",
        "krrm.updated",
        "job.submitted",
        "job.assessed",
        "job.decided",
        "object.steered",
        "object.launched",
        "object.arrived",
        "visit.trained",
        "visit.verified",
        "job.finished",
        "object.returned",
        "model.deployed",
        "query.sent",
        "query.answered",
        "packet.in",
        "packet.refused",
        "link.load",
        "warning",
        "error",
    ]
    assert set(contract) <= set(FOLDS)


def test_parts_of_a_way_come_in_any_order(up: NetworkState, script: Script) -> None:
    for said in script.admitted():
        up.apply(said)
    moving = list(script.move(script.object_id, 0, "h23", "mpvu4", "MODEL_SHARD", "verify", 9, 0.1))
    steered = [m for m in moving if m.kind == "object.steered"]
    assert len(steered) == 3
    expected = ["h23", "k2s1", "k2g", "k1g", "k4g", "k4s1", "mpvu4"]
    rng = random.Random(1)
    for _ in range(6):
        state = NetworkState()
        for said in Script().start():
            state.apply(said)
        rng.shuffle(steered)
        for said in [moving[0], *steered]:
            state.apply(Event(kind=said.kind, source=said.source, t_unix_s=said.t_unix_s, data=said.data))
        assert state.section("objects")[str(script.object_id)]["route"] == expected


def test_a_part_told_after_arrival_does_not_set_the_model_moving_again(up: NetworkState, script: Script) -> None:
    said = [s for s in script.move(script.object_id, 0, "h11", "h21", "MODEL_SHARD", "train", 9, 0.1)]
    late = next(s for s in said if s.kind == "object.steered" and s.source == "dcc1")
    for one in [s for s in said if s is not late]:
        up.apply(one)
    up.apply(Event(kind=late.kind, source=late.source, t_unix_s=late.t_unix_s, data=late.data))
    model = up.section("objects")[str(script.object_id)]
    assert model["node"] == "h21" and not model["moving"] and model["route"][:3] == ["h11", "k1s1", "k1g"]


def test_an_old_visit_told_late_changes_nothing(up: NetworkState, script: Script) -> None:
    for visit, (a, b) in enumerate([("h11", "h21"), ("h21", "h31")]):
        for said in script.move(script.object_id, visit, a, b, "MODEL_SHARD", "train", 9, 0.1):
            up.apply(said)
    up.apply(event("object.arrived", object_id=script.object_id, visit=0, node="h21"))
    assert up.section("objects")[str(script.object_id)]["node"] == "h31"


def test_route_with_a_lost_part_takes_the_shortest_way_of_the_plan() -> None:
    beside = {"a": ["s1"], "s1": ["a", "g1"], "g1": ["s1", "g2"], "g2": ["g1", "s2"], "s2": ["g2", "b"], "b": ["s2"]}
    assert route(beside, "a", [["g2", "s2"]], "b") == ["a", "s1", "g1", "g2", "s2", "b"]
    assert route({}, "a", [], "b") == ["a", "b"]
    assert route({}, "", [], "") == []


def test_a_rejected_job_keeps_its_reasons_and_the_next_one_is_another(up: NetworkState) -> None:
    spec = {"task": "table", "broad_accuracy": 0.8, "expert_group": "class1", "expert_accuracy": 0.95}
    up.apply(event("job.submitted", object_id=0, owner="owner1", spec=spec))
    up.apply(event("job.assessed", object_id=0, admitted=False, reasons=["too little data"], nearest={"broad": 0.7}))
    up.apply(event("job.submitted", object_id=0, owner="owner1", spec=spec))
    up.apply(event("job.assessed", object_id=77, admitted=True, reasons=[]))
    jobs = list(up.section("jobs").values())
    assert [(j["state"], j["reasons"]) for j in jobs] == [("rejected", ["too little data"]), ("admitted", [])]
    assert jobs[0]["nearest"] == {"broad": 0.7} and jobs[1]["targets"]["expert"] == 0.95


def test_a_rejected_model_is_not_shown_in_the_network(up: NetworkState) -> None:
    up.apply(event("job.submitted", object_id=9, owner="owner1", spec={"task": "table"}))
    assert up.section("objects")["9"]["node"] == "owner1"
    up.apply(event("job.assessed", object_id=9, admitted=False, reasons=["too little data"]))
    assert "9" not in up.section("objects") and up.section("jobs")["9"]["state"] == "rejected"


def test_late_samples_are_data_and_a_copy_that_is_measured_stays_nowhere(up: NetworkState) -> None:
    for key, purpose in ((9, "keep_late_sample"), (11, "measure")):
        up.apply(
            event("object.steered", object_id=key, visit=0, kas=2, node="mpvu2", purpose=purpose, switches=["k2g"])
        )
    assert {k: o["kind"] for k, o in up.section("objects").items() if k in ("9", "11")} == {"9": "data", "11": "model"}
    for key in (9, 11):
        up.apply(event("object.arrived", object_id=key, visit=0, node="mpvu2"))
    assert "9" in up.section("objects") and "11" not in up.section("objects")


def test_another_rendezvous_for_the_same_stop_is_another_way(up: NetworkState) -> None:
    about = {"object_id": 5, "visit": 0, "type": "MODEL_SHARD", "from_node": "h11"}
    up.apply(event("object.launched", object_id=5, visit=0, node="h11", bytes=1))
    up.apply(event("object.steered", **about, kas=2, node="h21", switches=["k2g", "k2s1"]))
    up.apply(event("object.steered", **about, kas=1, node="", switches=["k1s1", "k1g"]))
    up.apply(event("object.steered", **about, kas=4, node="h41", switches=["k4g", "k4s1"]))
    up.apply(event("object.steered", **about, kas=1, node="", switches=["k1s1", "k1g"]))
    assert up.section("objects")["5"]["route"] == ["h11", "k1s1", "k1g", "k4g", "k4s1", "h41"]


def test_a_refused_verification_keeps_the_last_accepted_accuracy(up: NetworkState) -> None:
    up.apply(event("job.submitted", object_id=7, owner="owner1", spec={"expert_group": "a"}))
    up.apply(event("visit.verified", object_id=7, visit=1, node="mpvu2", broad=0.7, expert=0.6, accepted=True))
    up.apply(
        event(
            "visit.verified", object_id=7, visit=3, node="mpvu4", broad=0.5, expert=0.9, accepted=False, reason="forgot"
        )
    )
    job = up.section("jobs")["7"]
    assert (job["broad"], job["expert"]) == (0.7, 0.6)
    assert job["stops"][1]["accepted"] is False and job["stops"][1]["verdict"] == "forgot"


def test_link_load_is_the_rate_of_the_busiest_direction(up: NetworkState) -> None:
    for t, tx in ((10.0, 0), (11.0, 2_500_000)):
        up.apply(
            Event(kind="link.load", source="dcc1", t_unix_s=t, data={"link": "k2g-k1g", "tx_bytes": tx, "rx_bytes": 9})
        )
    link = up.section("links")["k1g-k2g"]
    assert link["mbps"] == 20.0 and link["load"] == 0.4


def test_identities_are_strings_so_that_a_browser_keeps_all_64_bits(up: NetworkState, script: Script) -> None:
    assert script.object_id > 2**53
    for said in script.admitted():
        up.apply(said)
    shown = up.events_after(0)[-1]
    assert shown["data"]["object_id"] == str(script.object_id)


def test_a_heartbeat_that_changes_nothing_is_no_change(up: NetworkState) -> None:
    before = up.version
    up.apply(event("krrm.updated", name="h11", kas=1, attributes={"trust": 0.9}))
    _, patch = up.patch_since(before)
    assert "terminals" not in patch


def test_patches_bring_a_reader_to_the_same_picture(script: Script) -> None:
    state, mine, version = NetworkState(), {}, 0
    for n, said in enumerate(script.run()):
        state.apply(said)
        if n % 7 == 0:
            version = _follow(state, mine, version)
    _follow(state, mine, version)
    picture = state.snapshot()
    assert mine == {name: records for name, records in picture.items() if isinstance(records, dict) and records}


def _follow(state: NetworkState, mine: dict[str, dict[str, Any]], version: int) -> int:
    version, patch = state.patch_since(version)
    for section, records in patch.items():
        for key, record in records.items():
            if record is None:
                mine[section].pop(key, None)
            else:
                mine.setdefault(section, {})[key] = record
    return version


def test_an_event_applied_twice_counts_once(up: NetworkState) -> None:
    said = Event(kind="packet.in", source="dcc1", t_unix_s=1.0, data={"kas": 1}, id=10_000)
    up.apply(said)
    up.apply(said)
    assert up.section("kas")["1"]["packet_ins"] == 1


def test_unknown_and_odd_events_are_counted(up: NetworkState) -> None:
    for odd in (
        event("no.such.kind"),
        event("job.decided"),
        event("object.arrived", object_id="x"),
        event("agent.ready", name=""),
        event("link.load", link="nowhere"),
    ):
        up.apply(odd)
    counts = up.section("run")["counts"]
    assert (counts["unknown"], counts["odd"]) == (1, 4)


def test_sections_are_bounded(up: NetworkState) -> None:
    for n in range(1, 1500):
        up.apply(event("object.launched", object_id=n, visit=0, node="h11", bytes=1))
        up.apply(event("warning", text=f"number {n}"))
    assert len(up.section("objects")) == 512 and len(up.section("notices")) == 100
    assert "1499" in up.section("objects") and "1" not in up.section("objects")


def test_a_reader_waits_for_change_and_is_woken_by_close(up: NetworkState) -> None:
    assert up.wait(up.version, 0.01) is False
    threading.Timer(0.05, up.apply, [event("warning", text="x")]).start()
    assert up.wait(up.version, 5) is True
    threading.Timer(0.05, up.close).start()
    assert up.wait(up.version, 5) is False and up.closed


junk = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)
KEYS = [
    "object_id",
    "visit",
    "node",
    "name",
    "kas",
    "plan",
    "link",
    "spec",
    "owner",
    "expected",
    "reasons",
    "switches",
    "hosts",
    "links",
    "a",
    "b",
    "data",
    "t",
    "task",
    "id",
]


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(sorted(FOLDS)), st.dictionaries(st.sampled_from(KEYS), junk)), max_size=12))
def test_no_data_whatever_makes_the_fold_raise(told: list[tuple[str, dict[str, Any]]]) -> None:
    state = NetworkState()
    for kind, data in told:
        state.apply(event(kind, **data))
    json.dumps(state.snapshot(), allow_nan=False)
    json.dumps(state.events_after(-1), allow_nan=False)
