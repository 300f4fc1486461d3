"""The cascade's threshold: strict where little is known, never looser for less allowance, and it holds elsewhere."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hosts.learning.errors import LearningError
from hosts.learning.ways.calibrate import learn_temperature, scale
from hosts.learning.ways.switched import NEVER, Threshold, escalates, learn_threshold, switch

LABELS = 6
Answers = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def answers(seed: int, n: int = 2000, cheap: float = 1.0, large: float = 4.0) -> Answers:
    """Return (cheap, large, labels): models that see the label through noise, each as well as said."""
    make = torch.Generator().manual_seed(seed)
    labels = torch.randint(LABELS, (n,), generator=make)
    truth = torch.nn.functional.one_hot(labels, LABELS).double()
    noise = [torch.randn(n, LABELS, generator=make, dtype=torch.float64) for _ in range(2)]
    return (2 * cheap * truth + noise[0]).softmax(1), (large * truth + noise[1]).softmax(1), labels


def right(chances: torch.Tensor, labels: torch.Tensor) -> float:
    return float((chances.argmax(1) == labels).double().mean())


@given(st.integers(0, 99), st.floats(0, 0.2), st.floats(0, 0.2))
@settings(max_examples=25)
def test_who_allows_more_escalates_no_more(seed: int, one: float, other: float) -> None:
    less, more = (learn_threshold(*answers(seed, 400), allowed) for allowed in sorted((one, other)))
    assert more.value <= less.value and more.share_escalated <= less.share_escalated
    assert more.temperature == less.temperature


@given(st.integers(0, 99))
@settings(max_examples=25)
def test_what_is_told_of_the_sample_is_so(seed: int) -> None:
    cheap, large, labels = answers(seed)
    found = learn_threshold(cheap, large, labels, cheap_compute=0.1)
    goes_on = escalates(found, cheap)
    chances = switch(found, cheap, lambda rows: large[rows])
    assert found.accuracy == pytest.approx(right(chances, labels))
    assert found.share_escalated == pytest.approx(float(goes_on.double().mean()))
    assert found.compute == pytest.approx(0.1 + found.share_escalated)
    assert found.accuracy >= found.large_accuracy - 0.01 and found.large_accuracy == pytest.approx(right(large, labels))


def test_it_holds_on_other_samples_and_spares_compute() -> None:
    losses, shares = [], []
    for seed in range(40):
        found = learn_threshold(*answers(seed))
        cheap, large, labels = answers(1000 + seed)
        losses.append(right(large, labels) - right(switch(found, cheap, lambda rows, p=large: p[rows]), labels))
        shares.append(found.share_escalated)
    assert sum(loss > 0.01 for loss in losses) <= 3
    assert sum(shares) / len(shares) < 0.9


def test_too_few_samples_leave_all_to_the_large_model() -> None:
    found = learn_threshold(*answers(1, n=20))
    assert found.value == NEVER and found.share_escalated == 1.0 and found.accuracy == found.large_accuracy


def test_a_cheap_model_as_good_answers_all() -> None:
    _, large, labels = answers(3)
    found = learn_threshold(large, large, labels, cheap_compute=0.2)
    assert found.value == 0.0 and found.share_escalated == 0.0 and found.compute == pytest.approx(0.2)


def test_nobody_is_asked_where_nothing_goes_on() -> None:
    cheap, _, _ = answers(2, n=5)
    all_cheap = Threshold(value=0.0, accuracy=1, large_accuracy=1, share_escalated=0, compute=0)
    asked: list[torch.Tensor] = []
    found = switch(all_cheap, cheap, lambda rows: asked.append(rows) or cheap)  # type: ignore[func-returns-value]
    assert torch.allclose(found, cheap) and asked == []


@given(st.integers(0, 99), st.floats(0.2, 5))
@settings(max_examples=20)
def test_temperature_keeps_the_answer_and_is_found_again(seed: int, temperature: float) -> None:
    chances, _, labels = answers(seed, 1500)
    plain = learn_temperature(chances, labels)
    bent = scale(chances, 1 / temperature)
    assert torch.equal(scale(chances, temperature).argmax(1), chances.argmax(1))
    assert learn_temperature(bent, labels) == pytest.approx(min(10.0, max(0.1, plain * temperature)), rel=0.06)


def test_what_is_no_probability_is_refused() -> None:
    cheap, large, labels = answers(0, n=30)
    bad: list[Answers] = [
        (cheap * 2, large, labels), (cheap, large * float("nan"), labels), (cheap[:9], large, labels),
        (cheap, large, labels + LABELS), (cheap[:0], large[:0], labels[:0]), (-cheap, large, labels),
    ]  # fmt: skip
    for given_ in bad:
        with pytest.raises(LearningError):
            learn_threshold(*given_)
    with pytest.raises(LearningError):
        learn_threshold(cheap, large, labels, -0.1)
