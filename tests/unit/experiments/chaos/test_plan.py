"""The schedule of a campaign: a pure function of network and seed, that leaves nothing out and nobody hit twice."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest

from experiments.chaos.noise import rules
from experiments.chaos.plan import KINDS, TABLE, check_kinds, schedule, targets
from experiments.errors import ExperimentError
from topologies.build import Terminal, build_plan

PLAN = build_plan(
    "chaos", kas={1: [Terminal("h11", "data"), Terminal("c1", "compute")], 2: [Terminal("h21", "data")]}, wan=[(1, 2)]
)


def test_same_seed_same_schedule() -> None:
    assert schedule(PLAN, 3, faults=200) == schedule(PLAN, 3, faults=200)
    assert schedule(PLAN, 3, faults=200) != schedule(PLAN, 4, faults=200)
    assert schedule(PLAN, 3, faults=200)[:50] == schedule(PLAN, 3, faults=50)


def test_every_kind_befalls_every_sort_before_any_does_twice() -> None:
    choices = sum(len(sorts) for sorts in TABLE.values())
    made = Counter((f.kind, f.sort) for f in schedule(PLAN, 1, faults=3 * choices))
    assert set(made.values()) == {3} and len(made) == choices


def test_faults_name_what_is_there_in_order_and_within_their_time() -> None:
    names = targets(PLAN)
    made = schedule(PLAN, 5, faults=100, seconds=500)
    assert all(f.target in names[f.sort] and f.sort in TABLE[f.kind] for f in made)
    assert all(a.at_s < b.at_s for a, b in pairwise(made)) and made[-1].at_s <= 500
    assert any(a.until_s > b.at_s for a, b in pairwise(made)), "some last into the next"
    assert sum(a.until_s < b.at_s for a, b in pairwise(made)) > 50, "most do not"


def test_kinds() -> None:
    assert {f.kind for f in schedule(PLAN, 1, faults=30, kinds=check_kinds(["loss", "crash"]))} == {"loss", "crash"}
    assert check_kinds([]) == list(KINDS)
    with pytest.raises(ExperimentError, match="los'; there are: crash"):
        check_kinds(["los"])


def test_rules_of_a_lossy_link_name_its_device_and_share() -> None:
    assert "mod 1000 < 50 drop" in rules("loss", "t", "k1g-eth1", 0.05)
    assert rules("corruption", "t", "k1g-eth1", 0.05).count("udp checksum set 0") == 14
