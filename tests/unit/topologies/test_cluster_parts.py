"""A network in parts: every K-AS whole on one server, its links between servers the two ends of one tunnel."""

from __future__ import annotations

import pytest

from topologies.build import Rates, Terminal, Wan, build_plan, validate
from topologies.cluster.calibrate import Heard, judge_tunnel
from topologies.cluster.network import bridge_lines, tunnel_lines
from topologies.cluster.parts import FULL_MTU, LEAST_MTU, TUNNEL_BYTES, Cut, crossing, part_of, place, tunnel_mtu
from topologies.errors import PlanError
from topologies.plan import LinkPlan, NetworkPlan


@pytest.fixture
def plan() -> NetworkPlan:
    return build_plan(
        "ring",
        kas={k: [Terminal(f"h{k}1", "data"), Terminal(f"h{k}2", "compute")] for k in (1, 2, 3, 4)},
        wan=[Wan(1, 2, 50, 10), Wan(2, 3, 50, 10), Wan(3, 4, 50, 10), Wan(4, 1, 50, 10)],
        rates=Rates(access_mbps=100, lan_mbps=200, wan_mbps=50),
    )


def test_k_as_are_placed_in_turn_but_for_those_said() -> None:
    assert place([1, 2, 3, 4], ["a", "b", "c"], {}) == {1: "a", 2: "b", 3: "c", 4: "a"}
    assert place([1, 2, 3, 4], ["a", "b"], {1: "b", 2: "b"}) == {1: "b", 2: "b", 3: "a", 4: "b"}


@pytest.mark.parametrize(
    ("servers", "said", "named"),
    [
        (["a", "b"], {7: "a"}, "there is no K-AS 7"),
        (["a", "b"], {1: "c"}, "c is none of --servers a,b"),
        (["a", "b", "c"], {}, "server c would have no K-AS"),
    ],
)
def test_a_place_that_cannot_be_is_named(servers: list[str], said: dict[int, str], named: str) -> None:
    with pytest.raises(PlanError, match=named):
        place([1, 2], servers, said)


def test_the_parts_are_the_whole_but_for_what_is_cut(plan: NetworkPlan) -> None:
    placed = {1: "a", 2: "b", 3: "c", 4: "a"}
    parts = {s: part_of(plan, [k for k, at in placed.items() if at == s]) for s in "abc"}
    cut = crossing(plan, placed)
    assert [(x.name, a, b) for x, a, b in cut] == [("k1g-k2g", "a", "b"), ("k2g-k3g", "b", "c"), ("k3g-k4g", "c", "a")]
    for part in parts.values():
        validate(part)
    everything = [x for part in parts.values() for x in part.wires] + [x for x, _, _ in cut]
    assert sorted(x.name for x in everything) == sorted(x.name for x in plan.wires)
    stations = [h.name for part in parts.values() for h in part.stations]
    assert sorted(stations) == sorted(h.name for h in plan.stations)
    assert part_of(plan, [2]).kas_numbers == [2]


def test_a_tunnel_takes_its_bytes_of_each_packet() -> None:
    assert tunnel_mtu(1500, "a and b") == 1500 - TUNNEL_BYTES
    assert tunnel_mtu(9000, "a and b") == FULL_MTU
    assert tunnel_mtu(LEAST_MTU + TUNNEL_BYTES, "a and b") == LEAST_MTU
    with pytest.raises(PlanError, match=r"between a and b .*raise the MTU there to 1330"):
        tunnel_mtu(LEAST_MTU + TUNNEL_BYTES - 1, "a and b")


def test_both_ends_of_a_tunnel_are_told_the_same() -> None:
    link = LinkPlan(a="k1g", a_port=5, b="k2g", b_port=7, rate_mbps=50, delay_ms=10)
    ends = {
        end: Cut(link=link, end=end, number=3, local=here, remote=there, mtu=1450)  # type: ignore[arg-type]
        for end, here, there in (("a", "10.0.0.1", "10.0.0.2"), ("b", "10.0.0.2", "10.0.0.1"))
    }
    assert [c.interface for c in ends.values()] == ["k1g-eth5", "k2g-eth7"]
    (made, _), _ = tunnel_lines(ends["b"], "k2g-eth7", "run-1")
    assert made.startswith("link add name k2g-eth7 mtu 1450 group ")
    assert "vxlan id 3 local 10.0.0.2 remote 10.0.0.1 " in made
    lines = [line for line, _ in bridge_lines(ends["a"], ("dtun3", "dtun3w"), "run-1")]
    assert "type bridge ageing_time 0" in lines[0]
    assert [line.split()[3] for line in lines[1:]] == ["dtun3", "dtun3w", "dbr3"]


def test_two_clocks_agree_on_the_delay_of_a_tunnel() -> None:
    link = LinkPlan(a="k1g", a_port=5, b="k2g", b_port=7, rate_mbps=50, delay_ms=10)
    ends = [Heard(mbps=49.0, delay_ms=10.2 + 3e5, loss=0.0), Heard(mbps=50.0, delay_ms=10.4 - 3e5, loss=1.0)]
    found = judge_tunnel(link, ends)
    assert found.ok and found.measured_delay_ms == pytest.approx(10.3) and found.directions_mbps == (50.0, 49.0)
    silent = judge_tunnel(link, [ends[0], Heard(mbps=0.0, delay_ms=-1.0, loss=100.0)])
    assert not silent.ok and silent.measured_loss_percent == 100.0
