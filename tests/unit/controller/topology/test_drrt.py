"""MS-DRRT: what is cut from the map for a request, under which handles, and what is cut anew when the map changes."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import networkx as nx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.topology.drrt import DrrtA, MsDrrt, Rendezvous, handle_of, ms_drrt
from controller.topology.errors import UnknownHandle
from controller.topology.krrm import Krrm
from controller.values.decisions import Option, Request
from topologies.plan import DomainPlan, HostPlan, LinkPlan, SwitchPlan

SALT = b"0123456789abcdef"
ROLES = {"h11": "data", "h12": "data", "h13": "data", "c1": "compute", "mpvu1": "mpvu"}
REQUEST = Request(
    task="vignettes", groups=["cardiology", "neurology"], broad_accuracy=0.8, trust_floor=0.5, model_bytes=1_000_000
)


def plan() -> DomainPlan:
    """One K-AS: hosts on s1 or s2, both on the gateway (200 Mbit/s) and on each other."""
    hosts = [
        HostPlan(
            name=name,
            role=role,  # type: ignore[arg-type]
            kas=1,
            address=f"10.1.1.{n}",
            mac=f"02:00:00:00:00:0{n}",
            switch="k1s1" if n < 3 else "k1s2",
            port=n,
            data_may_move=name == "h12",
        )
        for n, (name, role) in enumerate(ROLES.items(), 1)
    ]
    links = [LinkPlan(a=h.name, a_port=1, b=h.switch, b_port=h.port, rate_mbps=100, delay_ms=1) for h in hosts]
    pairs = [("k1s1", "k1g"), ("k1s2", "k1g"), ("k1s1", "k1s2")]
    links += [LinkPlan(a=a, a_port=20 + n, b=b, b_port=30 + n, rate_mbps=200) for n, (a, b) in enumerate(pairs)]
    switches = [
        SwitchPlan(name=s, dpid=n, kas=1, gateway=s == "k1g") for n, s in enumerate(("k1s1", "k1s2", "k1g"), 257)
    ]
    return DomainPlan(kas=[1], switches=switches, hosts=hosts, links=links, borders=[], kas_links=[])


PLAN = plan()


def tell(krrm: Krrm, name: str, now_s: float = 0.0, **attributes: Any) -> None:
    krrm.update(name, ROLES.get(name, "data"), 1, "10.1.1.1", attributes, now_s)


def a_map() -> Krrm:
    krrm = Krrm()
    for name in ("h11", "h12", "h13"):
        shares = {"cardiology": 0.25, "neurology": 0.75}
        tell(krrm, name, samples=1000, group_shares=shares, quality=0.9, trust=0.9, compute_samples_per_s=1000.0)
    tell(krrm, "c1", compute_samples_per_s=4000.0, trust=0.8)
    tell(krrm, "mpvu1", trust=0.9)
    return krrm


def cut(krrm: Krrm, now_s: float = 0.0, request: Request = REQUEST, **kwargs: Any) -> MsDrrt:
    return ms_drrt(krrm, PLAN, request, now_s, salt=SALT, **kwargs)


def met(topology: MsDrrt) -> dict[tuple[str, str], Option]:
    """The options by (data node, facility)."""
    found = {o.handle: topology.resolve(o.handle) for o in topology.options}
    return {(found[o.handle].data_node, found[o.handle].facility): o for o in topology.options}


def test_each_data_node_is_offered_at_home_and_where_its_data_may_go() -> None:
    topology = cut(a_map())
    assert set(met(topology)) == {("h11", "h11"), ("h12", "h12"), ("h12", "c1"), ("h13", "h13")}
    assert topology.mpvus == ["mpvu1"]
    moved = met(topology)["h12", "c1"]
    assert topology.resolve(moved.handle) == Rendezvous(data_node="h12", facility="c1", move_data=True)
    assert {o.kas for o in topology.options} == {1}


def test_what_the_node_says_of_moving_its_data_wins_over_the_plan() -> None:
    krrm = a_map()
    tell(krrm, "h12", data_may_move=False)
    tell(krrm, "h11", data_may_move=True)
    assert set(met(cut(krrm))) == {("h11", "h11"), ("h11", "c1"), ("h12", "h12"), ("h13", "h13")}


def test_times_come_from_the_links_and_the_compute() -> None:
    krrm = a_map()
    tell(krrm, "c1", queue=1)
    tell(krrm, "h12", sample_bytes=500)
    options = met(cut(krrm))
    home, moved = options["h12", "h12"], options["h12", "c1"]
    assert home.epoch_s == pytest.approx(1000 / 1000)
    assert moved.epoch_s == pytest.approx(1000 / 4000 * 2)  # one job ahead of us
    assert (home.move_bytes, home.move_s) == (0, 0.0)
    assert moved.move_bytes == 500_000
    assert moved.move_s == pytest.approx(0.002 + 500_000 * 8 / 100e6)  # two access links of 1 ms, 100 Mbit/s
    assert home.reach_s == pytest.approx(0.001 + 1_000_000 * 8 / 100e6)


def test_samples_and_mix_are_those_of_the_groups_asked_for() -> None:
    krrm = a_map()
    tell(krrm, "h11", group_shares={"cardiology": 0.1, "neurology": 0.3, "oncology": 0.6})
    option = met(cut(krrm))["h11", "h11"]
    assert option.samples == 400
    assert option.mix == pytest.approx({"cardiology": 0.25, "neurology": 0.75})
    assert option.epoch_s == pytest.approx(1.0)  # the whole of its data is trained on


@pytest.mark.parametrize(
    "attributes",
    [
        {"trust": 0.49},
        {"reachable": False},
        {"samples": 0},
        {"group_shares": {"oncology": 1.0}},
        {"compute_samples_per_s": 0.0},
    ],
)
def test_a_data_node_that_does_not_qualify_is_cut_away(attributes: dict[str, Any]) -> None:
    krrm = a_map()
    tell(krrm, "h11", **attributes)
    assert ("h11", "h11") not in met(cut(krrm))


def test_a_hospital_without_compute_still_meets_the_model_at_the_facility() -> None:
    krrm = a_map()
    tell(krrm, "h12", compute_samples_per_s=0.0)
    assert {pair for pair in met(cut(krrm)) if pair[0] == "h12"} == {("h12", "c1")}


@pytest.mark.parametrize("attributes", [{"trust": 0.1}, {"reachable": False}])
def test_facilities_and_mpvus_must_qualify_too(attributes: dict[str, Any]) -> None:
    krrm = a_map()
    tell(krrm, "c1", **attributes)
    tell(krrm, "mpvu1", **attributes)
    topology = cut(krrm)
    assert not any(facility == "c1" for _, facility in met(topology))
    assert topology.mpvus == []


def test_trust_and_availability_are_those_of_the_weaker_side() -> None:
    krrm = a_map()
    tell(krrm, "h12", trust=0.95, available_s=30.0)
    options = met(cut(krrm))
    assert options["h12", "c1"].trust == 0.8
    assert options["h12", "c1"].available_s == 30.0
    assert options["h11", "h11"].available_s == math.inf


def test_unknown_trust_and_quality_are_neither_believed_nor_held_against_a_node() -> None:
    krrm = a_map()
    krrm.forget("h11")
    tell(krrm, "h11", samples=10, group_shares={"cardiology": 1.0}, compute_samples_per_s=10.0)
    option = met(cut(krrm))["h11", "h11"]
    assert (option.trust, option.quality) == (0.5, 0.5)


def test_a_host_that_no_link_reaches_is_not_offered() -> None:
    assert ("h11", "h11") not in met(cut(a_map(), without={"h11-k1s1"}))
    aside = cut(a_map(), without={"k1s1-k1g"})  # the way round over k1s2
    assert set(met(aside)) == set(met(cut(a_map())))


def test_a_node_of_another_domain_is_not_offered() -> None:
    krrm = a_map()
    krrm.update("h21", "data", 2, "10.2.1.1", {**_data(), "trust": 0.9}, 0.0)
    assert not any(data == "h21" for data, _ in met(cut(krrm)))


def _data() -> dict[str, Any]:
    return {"samples": 10, "group_shares": {"cardiology": 1.0}, "compute_samples_per_s": 10.0}


# --- handles ---------------------------------------------------------------------------------------------------------


def test_handles_stay_the_same_and_tell_nothing() -> None:
    first, second = cut(a_map()), cut(a_map(), now_s=9.0)
    assert [o.handle for o in first.options] == [o.handle for o in second.options]
    other = ms_drrt(a_map(), PLAN, REQUEST, 0.0, salt=b"another DCC's salt")
    assert not {o.handle for o in first.options} & {o.handle for o in other.options}
    leaving = msgspec.json.encode(first.options).decode()
    assert not any(name in leaving for name in ROLES)


def test_a_handle_of_another_topology_is_refused() -> None:
    topology, stranger = cut(a_map()), handle_of(b"x" * 16, "vignettes", "h11", "h11")
    for ask in (topology.resolve, lambda handle: topology.explain(handle, 0.0)):
        with pytest.raises(UnknownHandle, match=stranger):
            ask(stranger)


name = st.text(min_size=1, max_size=6)


@given(st.sets(st.tuples(name, name, name), min_size=2, max_size=30), st.binary(min_size=16, max_size=64))
def test_different_meetings_have_different_handles(meetings: set[tuple[str, str, str]], salt: bytes) -> None:
    assert len({handle_of(salt, *meeting) for meeting in meetings}) == len(meetings)


# --- explaining and drawing ------------------------------------------------------------------------------------------


def test_an_option_names_what_it_rests_on_and_how_old_that_is() -> None:
    krrm = a_map()
    tell(krrm, "c1", now_s=6.0, queue=2)
    topology = cut(krrm, now_s=8.0)
    option = met(topology)["h12", "c1"]
    basis = topology.explain(option.handle, 10.0)
    assert basis["h12.samples"] == {"value": 1000, "age_s": 10.0}
    assert basis["c1.queue"] == {"value": 2, "age_s": 4.0}
    assert option.age_s == 8.0  # its oldest attribute, when it was cut


def test_the_graph_can_be_drawn_and_holds_only_what_takes_part() -> None:
    krrm = a_map()
    tell(krrm, "h13", reachable=False)
    graph = cut(krrm).graph
    assert set(graph) == {"h11", "h12", "c1", "mpvu1", "k1s1", "k1s2", "k1g"}
    assert graph.nodes["h11"]["role"] == "data" and graph.nodes["h11"]["samples"] == 1000
    assert graph.nodes["k1g"]["role"] == "gateway"
    assert graph.edges["h11", "k1s1"] == {"rate_mbps": 100, "delay_ms": 1}
    assert nx.is_connected(graph)
    assert len(nx.spring_layout(graph, seed=1)) == 7


# --- DRRT-A ----------------------------------------------------------------------------------------------------------


def test_only_what_changed_is_cut_anew() -> None:
    krrm = a_map()
    unit = DrrtA(krrm, PLAN, REQUEST, salt=SALT)
    unit.refresh(0.0)
    assert unit.recut == 4
    for name in ROLES:
        tell(krrm, name, now_s=1.0, load=0.9, memory_mib=100)  # no option rests on these
    unit.refresh(1.0)
    assert unit.recut == 4
    tell(krrm, "h11", now_s=2.0, samples=900)
    assert met(unit.refresh(2.0))["h11", "h11"].samples == 900
    assert unit.recut == 5
    tell(krrm, "c1", now_s=3.0, queue=3)
    assert met(unit.refresh(3.0))["h12", "c1"].epoch_s == pytest.approx(1.0)
    assert unit.recut == 6


def test_ages_are_of_now_though_nothing_was_cut() -> None:
    krrm = a_map()
    unit = DrrtA(krrm, PLAN, REQUEST, salt=SALT)
    unit.refresh(0.0)
    tell(
        krrm,
        "h11",
        now_s=4.0,
        samples=1000,
        group_shares={"cardiology": 0.25, "neurology": 0.75},
        quality=0.9,
        trust=0.9,
    )
    tell(krrm, "h11", now_s=4.0, compute_samples_per_s=1000.0)
    options = met(unit.refresh(6.0))
    assert options["h11", "h11"].age_s == 2.0 and options["h13", "h13"].age_s == 6.0


def test_a_link_that_goes_down_and_a_node_that_leaves_are_seen() -> None:
    krrm = a_map()
    unit = DrrtA(krrm, PLAN, REQUEST, salt=SALT)
    assert ("h13", "h13") in met(unit.refresh(0.0))
    assert ("h13", "h13") not in met(unit.refresh(0.0, without={"h13-k1s2"}))
    assert ("h13", "h13") in met(unit.refresh(0.0))
    krrm.forget("h13")
    assert ("h13", "h13") not in met(unit.refresh(0.0))


change = st.tuples(
    st.sampled_from(["h11", "h12", "h13", "c1"]),
    st.fixed_dictionaries(
        {},
        optional={
            "samples": st.integers(0, 2000),
            "trust": st.sampled_from([0.2, 0.6, 1.0]),
            "reachable": st.booleans(),
            "queue": st.integers(0, 3),
            "data_may_move": st.booleans(),
            "compute_samples_per_s": st.sampled_from([0.0, 10.0, 500.0]),
        },
    )
    | st.none(),
)


@given(st.lists(change, max_size=12))
def test_the_kept_topology_equals_one_cut_from_scratch(changes: list[tuple[str, dict[str, Any] | None]]) -> None:
    krrm = a_map()
    unit = DrrtA(krrm, PLAN, REQUEST, salt=SALT)
    unit.refresh(0.0)
    for now_s, (node, attributes) in enumerate(changes, 1):
        if attributes is None:
            krrm.forget(node)
        else:
            tell(krrm, node, float(now_s), **attributes)
        kept, fresh = unit.refresh(float(now_s)), cut(krrm, float(now_s))
        assert kept.options == fresh.options
        assert kept.mpvus == fresh.mpvus
        assert [kept.explain(o.handle, 99.0) for o in kept.options] == [
            fresh.explain(o.handle, 99.0) for o in fresh.options
        ]
