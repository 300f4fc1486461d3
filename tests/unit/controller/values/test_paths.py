"""Paths: cheapest, deterministic, and an error where there is none."""

from __future__ import annotations

import random

import networkx as nx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.values.errors import NoPath
from controller.values.paths import Edge, Graph, host_route, kas_graph, kas_path, switch_path
from topologies.plan import DomainPlan, HostPlan, KasLink, LinkPlan, SwitchPlan

WAN = [(1, 2, 10), (2, 3, 10), (3, 4, 10), (4, 1, 10), (1, 3, 20)]  # the paper's Fig. 3
LINKS = [KasLink(a_kas=a, b_kas=b, rate_mbps=50, delay_ms=delay) for a, b, delay in WAN]


def domain(*trunks: tuple[str, str, float, float]) -> DomainPlan:
    """A domain of one K-AS from (a, b, rate, delay); switches are those named."""
    names = sorted({name for a, b, *_ in trunks for name in (a, b)})
    links = [
        LinkPlan(a=a, a_port=n, b=b, b_port=n, rate_mbps=rate, delay_ms=delay)
        for n, (a, b, rate, delay) in enumerate(trunks, 10)
    ]
    hosts = [
        HostPlan(
            name=f"h{n}", role="host", kas=1, address=f"10.1.1.{n}", mac=f"02:00:00:00:00:{n:02x}", switch=s, port=1
        )
        for n, s in enumerate(names, 1)
    ]
    links += [LinkPlan(a=h.name, a_port=0, b=h.switch, b_port=1, rate_mbps=100) for h in hosts]
    switches = [SwitchPlan(name=name, dpid=n, kas=1) for n, name in enumerate(names, 1)]
    return DomainPlan(kas=[1], switches=switches, hosts=hosts, links=links, borders=[], kas_links=[])


TRIANGLE = domain(("s1", "s2", 200, 0), ("s1", "g", 200, 0), ("s2", "g", 200, 0))


@pytest.mark.parametrize(
    ("a", "b", "path"),
    [(1, 1, [1]), (1, 2, [1, 2]), (1, 3, [1, 3]), (2, 4, [2, 1, 4]), (4, 2, [4, 1, 2]), (3, 1, [3, 1])],
)
def test_between_k_as(a: int, b: int, path: list[int]) -> None:
    assert kas_path(LINKS, a, b) == path


def test_a_k_as_link_that_is_down_is_gone_round() -> None:
    assert kas_path(LINKS, 1, 3, without=[(3, 1)]) == [1, 2, 3]
    assert kas_path(LINKS, 1, 3) == [1, 3]
    with pytest.raises(NoPath, match="no path from 2 to 4"):
        kas_path(LINKS, 2, 4, without=[(1, 2), (2, 3)])


def test_delay_and_rate_both_cost() -> None:
    slow = domain(("a", "b", 1, 0), ("a", "c", 100, 5), ("c", "b", 100, 5))
    assert switch_path(slow, "a", "b") == ["a", "c", "b"]  # 8 s for 1 MB against 0.17 s
    late = domain(("a", "b", 100, 1000), ("a", "c", 100, 5), ("c", "b", 100, 5))
    assert switch_path(late, "a", "b") == ["a", "c", "b"]


def test_inside_a_domain() -> None:
    assert switch_path(TRIANGLE, "s1", "s1") == ["s1"]
    assert switch_path(TRIANGLE, "s1", "g") == ["s1", "g"]
    assert switch_path(TRIANGLE, "s1", "g", without={"s1-g"}) == ["s1", "s2", "g"]
    with pytest.raises(NoPath, match="s9 is not in this network"):
        switch_path(TRIANGLE, "s1", "s9")
    with pytest.raises(NoPath):
        switch_path(TRIANGLE, "s1", "g", without={"s1-g", "s1-s2"})


def test_hosts_are_ends_and_never_on_the_way() -> None:
    route = host_route(TRIANGLE, "h1", "h2")
    assert route.places == ["h1", "g", "s1", "h2"]
    assert route.rate_mbps == 100
    assert route.transfer_s(1_000_000) == pytest.approx(0.08)
    assert host_route(TRIANGLE, "h1", "h1").transfer_s(1e9) == 0.0
    with pytest.raises(NoPath):
        host_route(TRIANGLE, "h1", "h2", without={"h2-s1"})
    with pytest.raises(NoPath):
        switch_path(TRIANGLE, "h1", "s1")


def test_of_parallel_links_the_better_one_counts() -> None:
    graph = Graph((), [Edge("a", "b", 1, 0), Edge("b", "a", 100, 3), Edge("a", "b", 10, 0)])
    assert (graph.route("a", "b").rate_mbps, graph.route("b", "a").delay_ms) == (100, 3)


def test_the_answer_is_the_callers_own() -> None:
    switch_path(TRIANGLE, "s1", "g").append("spoilt")
    assert switch_path(TRIANGLE, "s1", "g") == ["s1", "g"]


def test_two_plans_that_are_alike_are_two_plans() -> None:
    assert switch_path(domain(("a", "b", 1, 0)), "a", "b") == ["a", "b"]
    with pytest.raises(NoPath):
        switch_path(domain(("a", "c", 1, 0)), "a", "b")


edges = st.lists(
    st.builds(
        Edge,
        st.integers(0, 8),
        st.integers(0, 8),
        st.sampled_from([1.0, 10.0, 50.0]),
        st.sampled_from([0.0, 0.1, 0.2, 10.0]),
    ).filter(lambda e: e.a != e.b),
    max_size=20,
)


@given(edges, st.randoms(use_true_random=False))
def test_paths_are_cheapest_and_do_not_depend_on_the_order_of_links(links: list[Edge], rng: random.Random) -> None:
    graph, shuffled = Graph(range(9), links), Graph(range(9), rng.sample(links, len(links)))
    reference = nx.MultiGraph()
    reference.add_nodes_from(range(9))
    reference.add_edges_from((e.a, e.b, {"cost": e.cost_ns}) for e in links)
    for b in range(9):
        costs = nx.single_source_dijkstra_path_length(reference, b, weight="cost")
        assert {place: cost for place, cost in graph.costs_ns(b).items() if cost != float("inf")} == costs
    for a, b in [(0, 8), (1, 7), (8, 0)]:
        if not nx.has_path(reference, a, b):
            with pytest.raises(NoPath):
                graph.route(a, b)
            continue
        route = graph.route(a, b)
        assert route == shuffled.route(a, b)
        assert (route.places[0], route.places[-1]) == (a, b) and len(set(route.places)) == len(route.places)
        assert (
            sum(_cost(links, *hop) for hop in zip(route.places, route.places[1:], strict=False)) == graph.costs_ns(b)[a]
        )


def _cost(links: list[Edge], a: int, b: int) -> int:
    return min(e.cost_ns for e in links if {e.a, e.b} == {a, b})


def test_hop_by_hop_choices_agree_so_nothing_loops() -> None:
    """Each K-AS asks for its own next hop; along the way the cost to the goal must fall at every one."""
    graph = kas_graph(LINKS)
    for goal in range(1, 5):
        for at in set(range(1, 5)) - {goal}:
            assert graph.costs_ns(goal)[kas_path(LINKS, at, goal)[1]] < graph.costs_ns(goal)[at]


def test_ten_thousand_places() -> None:
    side = 100
    links = [Edge((x, y), (x + 1, y), 100, 1) for x in range(side - 1) for y in range(side)]
    links += [Edge((x, y), (x, y + 1), 100, 1) for x in range(side) for y in range(side - 1)]
    route = Graph((), links).route((0, 0), (side - 1, side - 1))
    assert len(route.places) == 2 * side - 1
    assert route.delay_ms == 2 * side - 2
