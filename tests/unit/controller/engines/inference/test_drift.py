"""Drift is told from bad luck."""

from __future__ import annotations

import random

import pytest

from controller.engines.inference.drift import fallen
from controller.values.decisions import Measured


def measured(broad: float, samples: int, **groups: float) -> Measured:
    return Measured(broad=broad, per_group=groups, samples=samples)


def test_a_real_fall_is_told_with_what_fell_most_first() -> None:
    known, now = measured(0.9, 2000, heart=0.95, skin=0.9), measured(0.8, 500, heart=0.5, skin=0.88)
    found = fallen(known, now, {"heart": 100, "skin": 100})
    assert [line.split()[0] for line in found] == ["heart", "broad"]
    assert "from 0.950 to 0.500 on 100 late samples" in found[0]


@pytest.mark.parametrize(
    ("was", "now", "samples"),
    [(0.9, 0.88, 100_000), (0.9, 0.86, 60), (0.8, 0.95, 1000), (0.9, 0.1, 20)],
)
def test_what_is_small_or_chance_or_better_or_of_too_few_is_no_drift(was: float, now: float, samples: int) -> None:
    assert fallen(measured(was, 2000), measured(now, samples)) == []


def test_where_nothing_changed_there_are_few_alarms_however_many_groups() -> None:
    rng, alarms = random.Random(1), 0
    groups = [f"g{n}" for n in range(8)]
    for _ in range(400):

        def sample(count: int) -> dict[str, float]:
            return {g: sum(rng.random() < 0.8 for _ in range(count)) / count for g in groups}

        known, now = sample(200), sample(100)
        before = measured(sum(known.values()) / 8, 1600, **known)
        late = measured(sum(now.values()) / 8, 800, **now)
        alarms += bool(fallen(before, late, dict.fromkeys(groups, 100)))
    assert alarms <= 14  # 1 % of 400 are 4; what a normal approximation adds
