"""HPO: what one visit is given."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.engines.training import hpo

MIXES = st.dictionaries(st.sampled_from("abcdefgh"), st.floats(0.0, 1.0), min_size=1).filter(lambda m: sum(m.values()))


@given(MIXES, st.floats(0.01, 1.0))
def test_weights_lift_what_is_rare_and_leave_the_mean_alone(mix: dict[str, float], strength: float) -> None:
    weights = hpo.group_weights(mix, strength)
    held = {g: share for g, share in mix.items() if share > 0}
    assert set(weights) == set(held)
    mean = sum(held[g] * weights[g] for g in held) / sum(held.values())
    assert mean == pytest.approx(1.0, abs=1e-3)
    by_share = sorted(held, key=lambda g: held[g])
    assert all(weights[a] >= weights[b] for a, b in pairwise(by_share))
    assert max(weights.values()) <= hpo.HEAVIEST * min(weights.values()) * (1 + 1e-2)


def test_no_strength_no_weights() -> None:
    assert hpo.group_weights({"a": 0.9, "b": 0.1}, 0.0) == {}
    assert hpo.group_weights({"a": 0.8, "b": 0.2}, 1.0) == {"a": 0.625, "b": 2.5}
