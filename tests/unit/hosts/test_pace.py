"""Pauses between reports: none while answers come at once, and a short queue however many terminals there are."""

from __future__ import annotations

import heapq

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hosts.terminal.pace import EASY_S, LOOKED_AT, MAX_PAUSE_S, PATIENCE_S, PAUSES, Pace

SECONDS = st.floats(0.0, 1e4)


def paced(took_s: float, now_s: float) -> Pace:
    """Return the pace of a terminal all of whose reports waited so long."""
    pace = Pace()
    for _ in range(LOOKED_AT):
        pace.answered(now_s - took_s, now_s)
    return pace


def test_one_late_answer_is_no_queue() -> None:
    pace = paced(EASY_S / 2, 1.0)
    pace.answered(1.0, 9.0)
    assert pace.pause_s(9.0) == 0


def test_quick_answers_mean_no_pause() -> None:
    assert Pace().pause_s(0.0) == 0
    assert paced(EASY_S * 0.9, 1.0).pause_s(1.0) == 0


@given(SECONDS, SECONDS)
def test_a_pause_grows_with_the_wait_and_is_bounded(took_s: float, more_s: float) -> None:
    short, long = paced(took_s, took_s), paced(took_s + more_s, took_s + more_s)
    assert 0 <= short.pause_s(took_s) <= long.pause_s(took_s + more_s) + 1e-9 <= MAX_PAUSE_S + 2e-9
    assert PATIENCE_S[0] <= short.patience_s <= long.patience_s <= PATIENCE_S[1]


def test_a_pause_ends_and_a_quick_answer_forgets_it() -> None:
    pace = paced(EASY_S + 0.1, EASY_S + 0.1)
    assert pace.pause_s(EASY_S + 0.1) == pytest.approx(PAUSES * 0.1)
    assert pace.pause_s(EASY_S + 0.1 + PAUSES * 0.1) == pytest.approx(0)
    pace.answered(5.0, 5.001)
    assert pace.pause_s(5.001) == 0


def queue_of(terminals: int, reports_per_s: float, *, paced: bool) -> tuple[float, float]:
    """Serve terminals that always have something to say, first come first served; return (mean queue, reports/s)."""
    paces, served_at, waited, reports, end_s = [Pace() for _ in range(terminals)], 0.0, 0.0, 0, 20.0
    asks = [(i / reports_per_s, i) for i in range(terminals)]
    heapq.heapify(asks)
    while asks[0][0] < end_s:
        asked_s, i = heapq.heappop(asks)
        served_at = max(served_at, asked_s) + 1 / reports_per_s
        paces[i].answered(asked_s, served_at)
        if asked_s > end_s / 2:  # settled
            waited, reports = waited + served_at - asked_s, reports + 1
        heapq.heappush(asks, (served_at + (paces[i].pause_s(served_at) if paced else 0.0), i))
    return waited / (end_s / 2), reports / (end_s / 2)


@pytest.mark.parametrize("terminals", [200, 500, 1000])
def test_the_queue_is_a_fraction_of_the_terminals_and_the_server_stays_busy(terminals: int) -> None:
    queue, served = queue_of(terminals, 1500.0, paced=True)
    assert queue < terminals / 2 + 1500 * EASY_S, "a quarter in balance, a half while it swings"
    assert served > 0.9 * 1500
    unpaced, _ = queue_of(terminals, 1500.0, paced=False)
    assert unpaced > 0.9 * terminals, "without pauses every terminal has a report in the queue"
