"""The benchmark of control cost: its arithmetic, and that what it simulates is counted as the control centre counts."""

from __future__ import annotations

import pytest

from benchmarks.common import NotSeen
from benchmarks.control import exponent, summary
from benchmarks.control_gossip import One, Town, wire_bytes
from benchmarks.control_net import rate_of
from benchmarks.control_sim import Centre, border_bytes_per_s, domain_of, groups_of, sample, steady
from benchmarks.control_terminals import CHANGES_PER_S
from controller.border.kbgp.abstraction import abstract
from controller.placement.tiers import Tiered
from hosts.gossip.core import Limits
from packets.distributed.gossip import News


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0, 2.0])
def test_the_exponent_of_a_power_is_that_power(power: float) -> None:
    assert exponent([(n, 7.0 * n**power) for n in (20, 100, 500, 1_000_000)]) == pytest.approx(power, abs=1e-3)


def test_a_growth_needs_two_sizes() -> None:
    assert exponent([(20, 5.0)]) is None
    assert exponent([(20, 5.0), (20, 6.0)]) is None


def test_a_rate_is_read_between_the_first_and_the_last_reading_within() -> None:
    readings = [(0.0, 5.0), (10.0, 100.0), (11.0, 150.0), (14.0, 300.0), (40.0, 9e9)]
    assert rate_of(readings, began_s=9.5, seconds=10.0) == pytest.approx(50.0)
    with pytest.raises(NotSeen, match="told its cost 1 times"):
        rate_of(readings, began_s=12.0, seconds=10.0)


def test_what_was_emulated_comes_first_and_one_terminal_stands_for_all_that_gossip() -> None:
    simulated = {
        n: {"bytes_per_s": n * 10.0, "bytes_per_s_all": n * 10.0, "state_bytes": n, "state_bytes_all": n, "s": 3.0}
        for n in (20, 500, 1_000_000)
    }
    central = summary("centralised", {20: {"bytes_per_s": 180.0}}, simulated)
    assert central["bytes_per_s"] == {20: 180.0, 500: 5000.0, 1_000_000: 1e7}
    assert central["s_1m"] == 3.0
    alone = {n: {"pull_bytes_per_s": 5.0 * n, "state_bytes": 2 * n, "s": 4.0} for n in (20, 500)}
    gossip = summary("distributed", {}, alone)
    assert (gossip["exponent_bytes"], gossip["exponent_bytes_all"]) == (1.0, 2.0)
    assert (gossip["exponent_state"], gossip["exponent_state_all"]) == (1.0, 2.0)
    assert "s_1m" not in gossip


def test_reports_are_counted_once_as_the_map_counts_them() -> None:
    domain = domain_of(40)
    centre = Centre(domain, {})
    for host in domain.hosts:
        centre.reporter(host).register()
    counted = sum(a.cost_bytes for n in centre.mind.map.nodes() for a in n.attributes.values())
    assert centre.line.bytes == pytest.approx(counted)
    assert len(centre.mind.map) == 40
    assert centre.mind.place(1, centre.choose()) is not None


def test_twice_the_terminals_say_twice_as_much_to_one_centre_and_less_to_tier_1() -> None:
    said = {}
    for terminals in (50, 100):
        domain = domain_of(terminals)
        said[terminals] = steady(Centre(domain, {}), {"": domain.hosts}, 1.0).below
    assert said[100] == pytest.approx(2 * said[50], rel=0.1)
    domain = domain_of(100)
    groups = groups_of(domain.hosts)
    centre = Centre(domain, groups)
    tiers = steady(centre, groups, 1.0)
    assert tiers.below == pytest.approx(said[100], rel=0.05)
    assert 0 < tiers.above < tiers.below / 4
    assert isinstance(centre.mind, Tiered)
    assert {n.name for n in centre.mind.map.nodes()} == set(groups)
    centre.settle(centre.choose())


def test_groups_are_square_and_whole_ones_are_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    groups = groups_of(domain_of(100).hosts)
    assert len(groups) == 10 and {len(members) for members in groups.values()} == {10}
    monkeypatch.setattr("benchmarks.control_sim.SAMPLE", 25)
    assert sum(map(len, sample(groups).values())) == 30


def test_a_neighbour_hears_keepalives_and_news_alone() -> None:
    domain = domain_of(20)
    centre = Centre(domain, {})
    for host in domain.hosts:
        centre.reporter(host).register()
    told = abstract(1, centre.mind.known.nodes(), [])
    quiet = border_bytes_per_s([told] * 10)
    assert quiet == pytest.approx(12 / 3)
    assert border_bytes_per_s([abstract(1, [], []), *[told] * 9]) > quiet + 10


def test_all_that_gossip_come_to_hold_the_whole_map() -> None:
    seen = Town(12, Limits(bytes_per_s=1e12)).measure()
    assert seen["held_share"] == 1.0
    assert seen["bytes_per_s"] > 12 * CHANGES_PER_S * wire_bytes(News())


def test_one_terminal_fetches_what_is_new_and_pays_for_it() -> None:
    one = One(40)
    one.take(one.news())
    assert len(one.mind.map) == 39
    for record in one.news():
        one.there.hear(one.here.name, News(records=[record]), one.now_s)
    spent, fresh = one.fetch(60)
    assert fresh == 38
    assert spent > fresh * len(record.attributes)
