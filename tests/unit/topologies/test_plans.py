"""Plans: what is declared is unique, in bounds, and no domain sees more than it may."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from topologies import fig3, single
from topologies.build import Terminal, Wan, build_plan, validate
from topologies.errors import PlanError
from topologies.plan import MAX_INTERFACE_NAME, DomainPlan, NetworkPlan
from topologies.wiring import ends

TOPOLOGIES = Path(fig3.__file__).parent
FILES = sorted(path.stem for path in TOPOLOGIES.glob("*.py") if "\ntopos = " in path.read_text())
PLANS = [fig3.PLAN, single.PLAN]


def unique(values: Sequence[object]) -> bool:
    return len(values) == len(set(values))


def test_the_files_for_mn_are_found() -> None:
    assert FILES == ["fig3", "single"]


@pytest.mark.parametrize("name", FILES)
def test_each_file_exports_what_mn_needs(name: str) -> None:
    module = importlib.import_module(f"topologies.{name}")
    assert module.topos[name].plan is module.PLAN
    assert module.controllers["dcc"].plan is module.PLAN
    assert "-" * 3 in (module.__doc__ or ""), "the file opens with a drawing"


@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: plan.name)
def test_names_numbers_and_addresses_are_unique(plan: NetworkPlan) -> None:
    assert unique([n.name for n in (*plan.hosts, *plan.switches)])
    assert unique([s.dpid for s in plan.switches])
    assert unique([h.address for h in plan.hosts])
    assert unique([h.mac for h in plan.hosts])
    interfaces = [name for link in plan.links for name in ends(link)]
    assert unique(interfaces)
    assert max(map(len, interfaces)) <= MAX_INTERFACE_NAME


def test_a_border_speaker_stands_beside_each_gateway_and_changes_nothing_else() -> None:
    at = {s.name: s.switch for s in fig3.PLAN.speakers}
    assert at == {"kbg1": "k1g", "kbg2": "k2g", "kbg3": "k3g", "kbg4": "k4g"}
    assert {s.role for s in fig3.PLAN.speakers} == {"kbg"} and not single.PLAN.speakers
    assert unique([name for link in fig3.PLAN.wires for name in ends(link)])
    assert not {s.name for s in fig3.PLAN.speakers} & {end for x in fig3.PLAN.links for end in (x.a, x.b)}
    assert [h.name for h in fig3.PLAN.domain(2).hosts if h.role == "kbg"] == ["kbg2"]
    taken = build_plan("p", kas={1: ["kbg1:data"]})
    assert not taken.speakers, "no neighbours, no speaker"
    with pytest.raises(PlanError, match="kbg1 is declared twice"):
        build_plan("p", kas={1: ["kbg1:data"], 2: ["b:data"]}, wan=[(1, 2)])


def test_fig3_is_the_network_of_the_paper() -> None:
    roles = [h.role for h in fig3.PLAN.hosts]
    counts = {role: roles.count(role) for role in set(roles)}
    assert counts == {"data": 12, "compute": 4, "mpvu": 2, "mdfp": 2, "model_owner": 1, "query_owner": 1}
    assert fig3.PLAN.kas_numbers == [1, 2, 3, 4]
    assert [s.dpid for s in fig3.PLAN.switches if s.kas == 2] == [513, 514, 515]
    wan = {(x.a, x.b): (x.rate_mbps, x.delay_ms) for x in fig3.PLAN.links if x.delay_ms}
    assert wan == {
        ("k1g", "k2g"): (50, 10),
        ("k2g", "k3g"): (50, 10),
        ("k3g", "k4g"): (50, 10),
        ("k4g", "k1g"): (50, 10),
        ("k1g", "k3g"): (50, 20),
    }
    assert {x.rate_mbps for x in fig3.PLAN.links if x.a_port == 0} == {100}


def test_an_address_tells_kas_and_switch() -> None:
    indices = {s.name: s.dpid % 256 for s in fig3.PLAN.switches}
    for host in fig3.PLAN.hosts:
        assert host.address.startswith(f"10.{host.kas}.{indices[host.switch]}.")


@pytest.mark.parametrize("kas", fig3.PLAN.kas_numbers)
def test_a_domain_shows_no_foreign_node(kas: int) -> None:
    domain = fig3.PLAN.domain(kas)
    text = msgspec.json.encode(domain).decode()
    foreign = [n.name for n in (*fig3.PLAN.hosts, *fig3.PLAN.switches) if n.kas != kas]
    assert [name for name in foreign if f'"{name}"' in text] == []
    foreign_addresses = [h.address for h in fig3.PLAN.hosts if h.kas != kas]
    assert [address for address in foreign_addresses if f'"{address}"' in text] == []


def test_a_domain_knows_its_borders_and_the_graph_of_kas() -> None:
    domain = fig3.PLAN.domain(1)
    assert [(b.switch, b.neighbour_kas, b.delay_ms) for b in domain.borders] == [
        ("k1g", 2, 10.0),
        ("k1g", 4, 10.0),
        ("k1g", 3, 20.0),
    ]
    assert len(domain.kas_links) == 5
    assert msgspec.json.decode(msgspec.json.encode(domain), type=DomainPlan) == domain


def test_the_same_words_give_the_same_network() -> None:
    kas = {2: ["h1:data", "c1:compute"], 1: ["o:model_owner"]}
    first, second = (build_plan("t", kas=kas, wan=[(1, 2)]) for _ in range(2))
    assert first == second
    assert [(h.name, h.role, h.kas) for h in first.hosts] == [
        ("o", "model_owner", 1),
        ("h1", "data", 2),
        ("c1", "compute", 2),
    ]


def test_three_access_switches_form_a_ring() -> None:
    plan = build_plan("ring", kas={1: ["h1", "h2", "h3"]}, access_switches=3)
    pairs = {frozenset((x.a, x.b)) for x in plan.links if x.a_port}
    assert {frozenset(p) for p in (("k1s1", "k1s2"), ("k1s2", "k1s3"), ("k1s3", "k1s1"))} <= pairs


@pytest.mark.parametrize(
    ("kas", "wan", "complaint"),
    [
        ({1: ["h1:hospital"]}, [], "role 'hospital'"),
        ({1: ["h1", "h1"]}, [], "name h1 is declared twice"),
        ({1: ["H1"]}, [], "lower-case"),
        ({1: ["averylonghostname"]}, [], "longer than 15"),
        ({1: [Terminal("h1", switch=9)]}, [], "no switch 9"),
        ({1: [Terminal("h1", rate_mbps=0)]}, [], "rate 0"),
        ({1: [Terminal("h1", cpu_share=0)]}, [], "cpu_share 0"),
        ({1: ["h1"]}, [(1, 2)], "WAN link 1-2"),
        ({1: ["h1"], 2: ["h2"]}, [Wan(1, 2, delay_ms=-1)], "delay -1"),
        ({1: ["h1"], 2: ["h2"]}, [Wan(1, 2, loss_percent=100)], "loss 100"),
        ({256: ["h1"]}, [], "K-AS 256"),
    ],
)
def test_a_bad_plan_is_one_clear_line(
    kas: dict[int, list[Terminal | str]], wan: list[Wan | tuple[int, int]], complaint: str
) -> None:
    with pytest.raises(PlanError, match=complaint) as caught:
        build_plan("bad", kas=kas, wan=wan)
    assert "\n" not in str(caught.value)


def test_a_plan_from_elsewhere_is_checked_too() -> None:
    host = msgspec.structs.replace(single.PLAN.hosts[0], address="10.9.0.1")
    with pytest.raises(PlanError, match=r"10\.9\.0\.1 is not in 10\.1\.0\.0/16"):
        validate(msgspec.structs.replace(single.PLAN, hosts=[host, *single.PLAN.hosts[1:]]))
