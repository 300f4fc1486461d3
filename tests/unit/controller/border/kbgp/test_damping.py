"""The figure of merit of a route: decay, suppression and reuse, as in RFC 2439."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.border.kbgp.damping import WITHDRAWN, Damping, Penalty
from controller.border.kbgp.rib import Peer, Rib
from packets.kbgp.knowledge import Knowledge
from packets.kbgp.messages import Advertisement, Update

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


def told(*path: int) -> Update:
    return Update(advertised=[Advertisement(path=list(path), knowledge=Knowledge(kas=path[-1], epoch_ms=1, serial=1))])


def test_a_damped_route_is_the_last_resort_and_only_once_it_stands() -> None:
    rib = Rib(1, damping=DAMPING)
    near, far = Peer(("kbg2", "a"), 2), Peer(("kbg4", "b"), 4)
    for peer in (near, far):
        rib.up(peer)
    rib.learn(far.key, told(4, 3, 2), 0.0)
    for now_s in range(4):
        rib.learn(near.key, told(2), now_s + 0.5)
        rib.learn(near.key, Update(withdrawn=[2]), now_s + 1.0)
    rib.learn(near.key, told(2), 5.0)

    def chosen(now_s: float) -> list[int]:
        rib.select(now_s)
        return rib.best[2].path if 2 in rib.best else []

    assert chosen(5.0) == chosen(9.0) == [4, 3, 2], "there is another, and it does not flap"
    rib.learn(near.key, told(2), 9.5)
    rib.down(far.key, 10.0, keep=True)
    assert chosen(10.0) == [2], "it has stood since 5.0, and what is stale leads nowhere"
    rib.down(far.key, 10.0, keep=False)
    rib.learn(near.key, Update(withdrawn=[2]), 10.5)
    rib.learn(near.key, told(2), 11.0)
    assert chosen(12.9) == [] and chosen(13.0) == [2]
    assert [route.path for route in rib.ways(2, 13.0)] == [[2]]
    assert rib.suppressed(near.key, 2, 13.0)
