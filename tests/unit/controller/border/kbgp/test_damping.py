"""The figure of merit of a route: decay, suppression and reuse, as in RFC 2439."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.border.kbgp.damping import WITHDRAWN, Damping, Penalty

DAMPING = Damping(half_life_s=10, suppress=2500, reuse=750, longest_s=40)


def test_it_halves_in_its_half_life() -> None:
    penalty = Penalty(DAMPING)
    penalty.add(WITHDRAWN, 100)
    assert penalty.now(110) == pytest.approx(WITHDRAWN / 2)


def test_above_the_limit_it_is_suppressed_until_it_may_be_reused() -> None:
    penalty = Penalty(DAMPING)
    for _ in range(2):
        penalty.add(WITHDRAWN, 100)
    assert not penalty.suppressed(100)
    penalty.add(WITHDRAWN, 100)
    assert penalty.suppressed(100) and penalty.suppressed(119), "3000 needs two half-lives down to 750"
    assert not penalty.suppressed(120.1) and not penalty.forgotten(120.1)
    assert penalty.forgotten(131)


@given(flaps=st.lists(st.floats(0, 5), max_size=200))
def test_nothing_is_suppressed_for_longer_than_was_said(flaps: list[float]) -> None:
    penalty, now_s = Penalty(DAMPING), 0.0
    for pause_s in flaps:
        now_s += pause_s
        penalty.add(WITHDRAWN, now_s)
    assert not penalty.suppressed(now_s + DAMPING.longest_s + 1e-6)
