"""The ensemble: weights by accuracy, whoever is missing is left out."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hosts.learning.errors import LearningError
from hosts.learning.ways.collaborative import Pool, combine, weight_of, weights_of

POOLS: tuple[Pool, ...] = ("linear", "log")
KNOWN = {"a": 0.9, "b": 0.6, "c": 0.5}


def chances(seed: int, n: int = 8, labels: int = 5) -> torch.Tensor:
    return torch.randn(n, labels, generator=torch.Generator().manual_seed(seed)).softmax(1)


def members() -> dict[str, torch.Tensor | None]:
    return {name: chances(i) for i, name in enumerate(KNOWN)}


@given(st.floats(0, 1), st.floats(0, 1), st.integers(2, 200))
def test_the_more_accurate_weighs_no_less(one: float, other: float, labels: int) -> None:
    low, high = sorted((one, other))
    assert 0 <= weight_of(low, labels) <= weight_of(high, labels) < 20


@given(st.dictionaries(st.text(max_size=3), st.floats(0, 1), min_size=1, max_size=5), st.integers(2, 50))
def test_weights_add_up_to_one(accuracies: dict[str, float], labels: int) -> None:
    found = weights_of(accuracies, labels)
    assert found.keys() == accuracies.keys() and sum(found.values()) == pytest.approx(1)


def test_who_guesses_has_no_say() -> None:
    assert weight_of(0.2, 5) == pytest.approx(0) and weight_of(0.1, 5) == 0
    a, b = chances(0), chances(1)
    for pool in POOLS:
        assert torch.allclose(combine({"a": a, "b": b}, {"a": 0.9, "b": 0.1}, pool=pool), a.double(), atol=1e-6)
    together = combine({"a": a, "b": b}, {"a": 0.0, "b": 0.1})
    assert torch.allclose(together, (a + b).double() / 2, atol=1e-6)


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("missing", [*KNOWN])
def test_a_missing_member_is_left_out(pool: Pool, missing: str) -> None:
    answers = members()
    rest = {name: answer for name, answer in answers.items() if name != missing}
    found = combine({**answers, missing: None}, KNOWN, pool=pool)
    assert torch.equal(found, combine(rest, KNOWN, pool=pool))
    assert torch.allclose(found.sum(dim=1), torch.ones(8, dtype=torch.float64))


@pytest.mark.parametrize("pool", POOLS)
def test_one_answer_is_enough_and_none_is_not(pool: Pool) -> None:
    a = chances(0)
    assert torch.allclose(combine({"a": a, "b": None}, KNOWN, pool=pool), a.double(), atol=1e-6)
    with pytest.raises(LearningError, match="none"):
        combine({"a": None}, KNOWN, pool=pool)


@pytest.mark.parametrize("pool", POOLS)
def test_independent_members_are_better_together(pool: Pool) -> None:
    make = torch.Generator().manual_seed(7)
    labels = torch.randint(5, (3000,), generator=make)
    truth = torch.nn.functional.one_hot(labels, 5)
    answers: dict[str, torch.Tensor | None] = {
        name: (2 * truth + torch.randn(3000, 5, generator=make)).softmax(1) for name in KNOWN
    }
    alone = {n: float((a.argmax(1) == labels).double().mean()) for n, a in answers.items() if a is not None}
    assert float((combine(answers, alone, pool=pool).argmax(1) == labels).double().mean()) > max(alone.values()) + 0.05


def test_what_does_not_fit_is_refused() -> None:
    for answers, known in (
        ({"a": chances(0), "x": chances(1)}, KNOWN),
        ({"a": chances(0), "b": chances(1, labels=4)}, KNOWN),
        ({"a": chances(0)}, {"a": 1.5}),
        ({"a": 3 * chances(0)}, KNOWN),
    ):
        with pytest.raises(LearningError):
            combine(answers, known)
    with pytest.raises(LearningError):
        weights_of({}, 5)
