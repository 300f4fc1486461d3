"""Networks of one's own: graphs from files, Mininet's idiom, several gateways, parallel links."""

from __future__ import annotations

import json
from pathlib import Path

import networkx as nx
import pytest

from controller.domain import Domain
from topologies.build import Builder, Terminal, check_reach
from topologies.custom import check_words
from topologies.errors import PlanError, RefusedError
from topologies.machine import preflight
from topologies.own.graphs import LONGEST_NAME, PARTITIONS, STEMS, Rules, graph_plan, terminal_name
from topologies.own.profiles import PROFILES, profile
from topologies.own.topo import Topo, for_mn, load_topo
from topologies.plan import NetworkPlan

ROOT = Path(__file__).parents[3]
ROLES = {"data": 12, "compute": 4, "mpvu": 2, "mdfp": 2, "model_owner": 1, "query_owner": 1}


def grid() -> nx.Graph:
    """24 towns, 100 km apart, in two provinces."""
    graph = nx.convert_node_labels_to_integers(nx.grid_2d_graph(4, 6), label_attribute="at")
    for node, data in graph.nodes(data=True):
        row, column = data.pop("at")
        data.update(Longitude=0.9 * column, Latitude=0.9 * row, province=("west", "east")[column > 2], town=f"T {node}")
    for _, _, data in graph.edges(data=True):
        data.update(mbps=155.0, ms=2.5)
    return graph


def written(tmp_path: Path, kind: str) -> str:
    path, graph = tmp_path / f"grid.{kind}", grid()
    if kind == "graphml":
        nx.write_graphml(graph, path)
    elif kind == "gml":
        nx.write_gml(graph, path)
    else:
        path.write_text(json.dumps(nx.node_link_data(graph, edges="links")))
    return str(path)


def links(plan: NetworkPlan) -> list[tuple[str, str, float, float]]:
    return [(x.a, x.b, x.rate_mbps, x.delay_ms) for x in plan.links]


@pytest.mark.parametrize("kind", ["graphml", "gml", "json"])
def test_a_graph_is_the_same_network_from_every_format(tmp_path: Path, kind: str) -> None:
    rules = Rules(ROLES, kas_by="attribute:province", rate_by="attribute:mbps", delay_by="distance")
    plan = graph_plan("grid", written(tmp_path, kind), rules)
    assert plan.kas_numbers == [1, 2] and len(plan.switches) == 24 and len(plan.hosts) == sum(ROLES.values())
    assert {s.kas for s in plan.switches if s.gateway} == {1, 2} and sum(s.gateway for s in plan.switches) == 8
    trunks = [x for x in plan.links if x.a not in {h.name for h in plan.hosts}]
    assert {x.rate_mbps for x in trunks} == {155.0} and all(0.4 < x.delay_ms < 0.6 for x in trunks), "100 km are 0.5 ms"
    assert links(plan) == links(graph_plan("grid", written(tmp_path, "json"), rules)), "whatever the file"
    by_attribute = Rules(ROLES, kas_by="attribute:province", delay_by="attribute:ms", least_delay_ms=3.0)
    assert {x.delay_ms for x in graph_plan("grid", written(tmp_path, kind), by_attribute).links} == {0.0}


@pytest.mark.parametrize("rule", PARTITIONS)
def test_every_partition_rule_makes_whole_k_as(tmp_path: Path, rule: str) -> None:
    source = written(tmp_path, "json")
    plan = graph_plan("grid", source, Rules(ROLES, kas_by=rule, parts=3, seed=1))
    assert rule == "louvain" or plan.kas_numbers == [1, 2, 3]
    check_reach(plan)
    assert links(plan) == links(graph_plan("grid", source, Rules(ROLES, kas_by=rule, parts=3, seed=1)))
    assert {h.role for h in plan.hosts} == set(ROLES) and len({h.kas for h in plan.hosts}) == len(plan.kas_numbers)


@pytest.mark.parametrize(
    ("source", "rules", "said"),
    [
        ("nowhere.gml", Rules(ROLES), "No such file"),
        ("graph.txt", Rules(ROLES), "ends with .graphml, .gml or .json"),
        ("grid", Rules(ROLES, kas_by="attribute:land"), "has no attribute 'land'; attributes are: Latitude"),
        ("grid", Rules(ROLES, kas_by="magic"), "give attribute:NAME or one of: fluid"),
        ("grid", Rules(ROLES, parts=99), "24 nodes cannot be 99 K-AS"),
        ("grid", Rules(ROLES, delay_by="magic"), "give distance, attribute:NAME or none"),
        ("grid", Rules(ROLES, rate_by="attribute:town_rate"), ""),
        ("cut", Rules(ROLES), "cannot be read"),
        ("list", Rules(ROLES), "it has no key 'nodes'"),
        ("empty", Rules(ROLES), "it has no node"),
        ("apart", Rules(ROLES), "in 2 pieces that no link joins"),
    ],
)
def test_what_is_wrong_with_a_graph_is_one_line(tmp_path: Path, source: str, rules: Rules, said: str) -> None:
    files = {
        "grid": json.dumps(nx.node_link_data(grid(), edges="links")),
        "cut": json.dumps(nx.node_link_data(grid(), edges="links"))[:200],
        "list": "[1, 2]",
        "empty": json.dumps({"nodes": [], "links": []}),
        "apart": json.dumps({"nodes": [{"id": n} for n in "abcd"], "links": [{"source": "a", "target": "b"}]}
                            | {"links": [{"source": "a", "target": "b"}, {"source": "c", "target": "d"}]}),
    }  # fmt: skip
    path = tmp_path / (f"{source}.json" if source in files else source)
    if source in files:
        path.write_text(files[source])
    if not said:
        assert graph_plan("grid", str(path), rules)
        return
    with pytest.raises(PlanError) as caught:
        graph_plan("grid", str(path), rules)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_topohub_is_read_by_name_where_it_is_installed() -> None:
    pytest.importorskip("topohub", reason="the optional package topohub is not installed")
    rules = Rules({**ROLES, "data": 40}, parts=5)
    plan = graph_plan("germany", "topohub:sndlib/germany50", rules)
    assert len(plan.switches) == 50 and plan.kas_numbers == [1, 2, 3, 4, 5]
    with pytest.raises(PlanError, match="no topology of this name"):
        graph_plan("x", "topohub:sndlib/atlantis", rules)


def test_names_of_the_product_never_meet_and_always_fit() -> None:
    names = [terminal_name(stems, k, n) for stems in STEMS.values() for k in range(1, 251) for n in range(1, 65)]
    assert len(set(names)) == len(names) and max(map(len, names)) <= LONGEST_NAME


class Two(Topo):
    def build(self, loss: float = 0.0) -> None:
        s1, s2, s3 = self.addSwitch("s1", kas=1), self.addSwitch("s2", kas=1), self.addSwitch("s3", kas=2)
        self.addLink(s1, s2)
        self.addLink(s1, s3, bw=10, delay="5ms", loss=loss, max_queue_size=50)
        self.addLink(s2, s3, profile="leo")
        self.addLink(s1, s3, bw=20, delay=1)
        self.addLink(s1, self.addHost("h1", role="data", cpu_share=0.5, data_may_move=True), bw=5)
        self.addLink(self.addHost("h2"), s3)


def test_mininets_idiom_declares_a_plan() -> None:
    plan = Two(loss=2.0).plan
    by_name = {x.name: x for x in plan.links}
    assert list(by_name) == ["s1-s2", "s1-s3", "s2-s3", "s1-s3-2", "h1-s1", "h2-s3"], "parallel links are two links"
    wan, leo = by_name["s1-s3"], by_name["s2-s3"]
    assert (wan.rate_mbps, wan.delay_ms, wan.loss_percent, wan.queue_packets) == (10, 5.0, 2.0, 50)
    assert (leo.rate_mbps, leo.delay_ms, leo.loss_percent) == PROFILES["leo"]
    assert [s.name for s in plan.switches if s.gateway] == ["s1", "s2", "s3"], "who has a link to another K-AS"
    h1 = plan.hosts[0]
    assert (h1.role, h1.kas, h1.switch, h1.cpu_share, h1.data_may_move) == ("data", 1, "s1", 0.5, True)
    assert by_name["h1-s1"].rate_mbps == 5


def test_the_template_is_what_its_drawing_says() -> None:
    plan = load_topo(f"{ROOT / 'examples/network.py'}:TwoGateways")
    assert [s.name for s in plan.switches if s.gateway] == ["s2", "s3", "s4"]
    assert sum(h.role == "data" for h in plan.hosts) == 6


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (lambda t: t.addHost("h1", role="king"), "role 'king' is none of"),
        (lambda t: t.addHost("h1", colour="red"), "option 'colour' is not understood"),
        (lambda t: t.addHost("h1"), "terminal h1 has no link to a switch"),
        (lambda t: t.addLink("s1", "s9"), "there is no switch s9"),
        (lambda t: t.addLink("s1", "s1"), "two different ends"),
        (lambda t: t.addLink("s1", "s2", delay="soon"), "delay 'soon' is not like 5ms"),
        (lambda t: t.addLink("s1", "s2", profile="leos"), "did you mean 'leo'"),
        (lambda t: t.addSwitch("s3", kas=7), "K-AS 7 is an island"),
        (lambda t: t.addSwitch("s3", kas=1), "K-AS 1 falls into pieces: no link inside it joins s3 to s1"),
        (lambda t: t.addSwitch("s3", kas=999), "K-AS 999 is not in 1..255"),
        (lambda t: t.addLink("s1", "s2", bw=0.0004), "rate 0.0004 Mbit/s is not in 0.008..10000"),
    ],
)
def test_what_is_wrong_with_a_topo_is_one_line(build, said: str) -> None:  # type: ignore[no-untyped-def]
    class Bad(Topo):
        def build(self) -> None:
            self.addSwitch("s1", kas=1)
            self.addSwitch("s2", kas=2)
            self.addLink("s1", "s2")
            build(self)

    with pytest.raises(PlanError, match=said.replace(".", r"\.")) as caught:
        Bad()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("mine.py", "give file.py:Class"),
        ("nowhere.py:Mine", "there is no file nowhere.py"),
        ("{tmp}/bad.py:Mine", "cannot be loaded: ZeroDivisionError: division by zero .bad.py, line 1"),
        ("{tmp}/good.py:Mine", "has no subclass 'Mine'"),
    ],
)
def test_a_topo_that_cannot_be_loaded_is_one_line(tmp_path: Path, spec: str, said: str) -> None:
    (tmp_path / "bad.py").write_text("1 / 0")
    (tmp_path / "good.py").write_text("Mine = 3")
    with pytest.raises(PlanError, match=said):
        load_topo(spec.format(tmp=tmp_path))


def test_mn_gets_the_same_plan_and_its_wrong_words_are_refused() -> None:
    topos, controllers = for_mn(two=Two)
    assert set(topos) == {"two"} and set(controllers) == {"dcc"}
    for word in ("--switch=user", "--link", "--nat", "--host"):
        with pytest.raises(PlanError, match="not with this topology"):
            check_words(["mn", "--custom", "x.py", word])
    for test in (["--test", "iperf"], ["--test=all"], ["--test", "pingall,iperf"]):
        with pytest.raises(PlanError, match=r"iperf 2\.1"):
            check_words(["mn", "--custom", "x.py", *test])
    check_words(["mn", "--custom", "x.py", "--topo", "two", "--test", "pingall", "--mac"])


def test_profiles_are_told_by_name() -> None:
    assert profile("LEO") == PROFILES["leo"]
    with pytest.raises(PlanError, match="there are: dsl, 4g, 5g, leo, geo, datacenter"):
        profile("pigeon")


# --- several gateways, as the control centres see them


def test_both_sides_of_several_borders_prefer_the_same_and_turn_to_the_next() -> None:
    builder = Builder(Topo.rates)
    for name, kas in (("a1", 1), ("z1", 1), ("a2", 2), ("z2", 2)):
        builder.add_switch(kas, name)
    for a, b in (("a1", "z1"), ("a2", "z2"), ("z1", "a2"), ("a1", "z2")):
        builder.add_link(a, b, 10)
    builder.add_terminal_at("a1", Terminal("h1"))
    plan = builder.plan("two")
    one, two, both = Domain(plan.domain(1)), Domain(plan.domain(2)), Domain(plan.domain())
    for here, there in ((one, two), (both, both)):
        here.down.clear()
        there.down.clear()
        left, right = here.border(1, 2), there.border(2, 1)
        assert left and right and (left.switch, right.switch) == ("z1", "a2"), "the first declared, at both ends"
        here.down.add((left.switch, left.port))
        there.down.add((right.switch, right.port))
        left, right = here.border(1, 2), there.border(2, 1)
        assert left and right and (left.switch, right.switch) == ("a1", "z2")


def test_too_few_open_files_are_told_before_anything_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = Two().plan
    monkeypatch.setattr(preflight.resource, "getrlimit", lambda _: (64, 64))
    with pytest.raises(RefusedError, match="need 192 open files, 64 are allowed: ulimit -n 192"):
        preflight.check_files(plan)
    raised: list[tuple[int, int]] = []
    monkeypatch.setattr(preflight.resource, "getrlimit", lambda _: (64, 4096))
    monkeypatch.setattr(preflight.resource, "setrlimit", lambda _, limits: raised.append(limits))
    preflight.check_files(plan)
    assert raised == [(192, 4096)], "what may be raised is"
