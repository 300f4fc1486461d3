"""Trust: what moves it, which way, and that honest specialists keep theirs."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from controller.topology.trust import FULL, PRIOR, Evidence, Ledger, Standing, bad_report, seen, updated
from controller.values.decisions import Measured


def measured(**per_group: float) -> Measured:
    return Measured(broad=sum(per_group.values()) / len(per_group), per_group=per_group, samples=1000)


MIX = {"cardiology": 0.9, "neurology": 0.1}


def test_a_newcomer_stands_above_the_usual_floor_and_one_harmful_visit_takes_it_below() -> None:
    ledger = Ledger()
    assert ledger.trust("h11") == PRIOR > 0.5
    harm = seen(MIX, 0.9, measured(cardiology=0.9, neurology=0.9), measured(cardiology=0.1, neurology=0.8))
    assert ledger.take("h11", harm) < 0.5
    assert ledger.trust("h12") == PRIOR, "nobody else pays for it"


def test_forgetting_elsewhere_is_no_harm() -> None:
    evidence = seen(MIX, 0.9, measured(cardiology=0.6, neurology=0.9), measured(cardiology=0.9, neurology=0.2))
    assert evidence.weight > 0


def test_a_first_visit_is_held_against_what_the_node_claims() -> None:
    assert seen(MIX, 0.9, None, measured(cardiology=0.05, neurology=0.0)).weight == -1.0
    assert seen(MIX, 0.9, None, measured(cardiology=0.8, neurology=0.0)).weight > 0.5


def test_a_claim_that_training_on_it_refutes_is_bad_evidence_even_where_little_could_be_lost() -> None:
    """A model that knew nothing of cardiology can lose nothing of it: what tells is that it has learned nothing."""
    before, after = measured(cardiology=0.02, neurology=0.5), measured(cardiology=0.01, neurology=0.1)
    assert seen(MIX, 0.9, before, after).weight == -1.0
    assert Ledger().take("h11", seen(MIX, 0.9, before, after)) < 0.5
    assert seen(MIX, 0.04, before, after).weight > -1.0, "who claims little is held against little"
    others = seen(MIX, 0.9, before, after, latest=False)
    assert others.weight > -0.5, "another node's visit came after it"


def test_the_noise_of_a_test_sample_is_not_held_against_anybody() -> None:
    assert seen(MIX, 0.9, measured(cardiology=0.95), measured(cardiology=0.92)).weight > 0


def test_old_merit_does_not_cover_new_harm_for_ever() -> None:
    standing = Standing()
    for _ in range(50):
        standing = updated(standing, Evidence(weight=1.0, why="good"))
    assert standing.trust > 0.9
    visits = 0
    while standing.trust >= 0.5:
        standing, visits = updated(standing, Evidence(weight=-1.0, why="bad")), visits + 1
    assert visits <= 7


def test_bad_reports_cost_trust() -> None:
    ledger = Ledger()
    assert ledger.take("h11", bad_report()) < PRIOR


@given(st.lists(st.floats(-1, 1), max_size=40))
def test_trust_is_a_share_and_goes_the_way_of_the_evidence(weights: list[float]) -> None:
    standing = Standing()
    for weight in weights:
        after = updated(standing, Evidence(weight=weight, why=""))
        assert 0.0 <= after.trust <= 1.0
        if weight <= -FULL and not standing.good + standing.bad:
            assert after.trust < standing.trust
        standing = after
