"""A model in two parts answers as it does whole; what travels between them comes back or is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hosts.learning.compress import Compression
from hosts.learning.data.encode import Table
from hosts.learning.errors import LearningError
from hosts.learning.spec import TaskSpec
from hosts.learning.task import TableTask, Task, VignetteTask
from hosts.learning.ways.pair import CheapVignetteTask
from hosts.learning.ways.split import (
    Cut,
    activations_to_bytes,
    bytes_to_activations,
    bytes_to_part,
    choose_cut,
    cut_model,
    expected_ms,
    possible_cuts,
)
from hosts.learning.ways.vitals import VitalsTask, draw_vitals

SPEC = TaskSpec()
TASKS: dict[str, Task] = {
    "vignettes": VignetteTask(SPEC), "cheap": CheapVignetteTask(SPEC), "vitals": VitalsTask(SPEC),
}  # fmt: skip
CUTS = [("vignettes", 1), ("vignettes", 2), ("cheap", 1), ("vitals", 1)]
GOOD_LINK = {"speed_lower": 1e9, "speed_upper": 1e9, "rate_mbps": 100.0, "rtt_ms": 1.0}


def inputs(task: Task, seed: int, rows: int = 5) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    if task.input_type == torch.int16:
        return torch.from_numpy(rng.integers(0, 160, (rows, task.width), dtype=np.int16))
    return torch.from_numpy(draw_vitals(rng.integers(0, 48, rows), rng))


def test_all_cuts_are_known() -> None:
    for name, task in TASKS.items():
        cuts = possible_cuts(task, task.new_model(0))
        assert [(name, cut.at) for cut in cuts if cut.cuts] == [pair for pair in CUTS if pair[0] == name]


@pytest.mark.parametrize(("name", "at"), CUTS)
def test_both_parts_answer_as_the_whole(name: str, at: int) -> None:
    task = TASKS[name]
    model = task.new_model(3).eval()
    lower, upper = cut_model(task, model, at)
    x = inputs(task, 1)
    with torch.inference_mode():
        assert torch.equal(upper(bytes_to_activations(upper, activations_to_bytes(lower, lower(x)))), model(x))


@pytest.mark.parametrize(("name", "at"), CUTS)
def test_float16_takes_half_the_bytes_and_changes_little(name: str, at: int) -> None:
    task = TASKS[name]
    lower, upper = cut_model(task, task.new_model(3), at)
    x = lower(inputs(task, 2, rows=64))
    whole, half = (activations_to_bytes(lower, x, half=h) for h in (False, True))
    assert len(whole) - len(half) == pytest.approx(2 * x.numel(), abs=16)
    assert torch.allclose(upper(bytes_to_activations(upper, half)), upper(x), atol=0.05)


@pytest.mark.parametrize(("name", "at"), CUTS)
def test_work_adds_up_and_sizes_are_those_of_activations(name: str, at: int) -> None:
    task = TASKS[name]
    model = task.new_model(0)
    cuts, halved = possible_cuts(task, model), possible_cuts(task, model, half=True)
    assert len({cut.lower_flops + cut.upper_flops for cut in cuts}) == 1
    assert [cut.lower_flops for cut in cuts] == sorted(cut.lower_flops for cut in cuts)
    lower, _ = cut_model(task, model, at)
    assert cuts[at].activation_bytes == 4 * lower(inputs(task, 0, rows=1)).numel() == 2 * halved[at].activation_bytes


@pytest.mark.parametrize(("name", "at"), CUTS)
@pytest.mark.parametrize("how", ["none", "int8"])
def test_a_part_travels_alone(name: str, at: int, how: str) -> None:
    task = TASKS[name]
    model = task.new_model(4)
    x = inputs(task, 5)
    parts = cut_model(task, model, at)
    there = [
        bytes_to_part(task, part.to_bytes(Compression(kind=how)), at, upper=bool(i), seal=part.seal)  # type: ignore[arg-type]
        for i, part in enumerate(parts)
    ]
    sent = activations_to_bytes(there[0], there[0](x))
    found, wanted = there[1](bytes_to_activations(there[1], sent)), parts[1](parts[0](x))
    assert torch.equal(found, wanted) if how == "none" else torch.allclose(found, wanted, atol=0.2)
    with pytest.raises(LearningError):
        bytes_to_part(task, parts[0].to_bytes(), at, upper=True, seal="")


SEALED = cut_model(TASKS["cheap"], TASKS["cheap"].new_model(0), 1)
SENT = activations_to_bytes(SEALED[0], SEALED[0](inputs(TASKS["cheap"], 0)))
KNOWN = bytes_to_activations(SEALED[1], SENT)


@given(st.integers(0, len(SENT) - 1))
@settings(max_examples=60)
def test_bytes_cut_short_are_refused(length: int) -> None:
    with pytest.raises(LearningError):
        bytes_to_activations(SEALED[1], SENT[:length])


@given(st.integers(0, len(SENT) - 1), st.integers(1, 255))
@settings(max_examples=200)
def test_altered_bytes_are_refused_or_say_the_same(at: int, flip: int) -> None:
    altered = bytearray(SENT)
    altered[at] ^= flip
    try:
        found = bytes_to_activations(SEALED[1], altered)
    except LearningError:
        return
    assert torch.equal(found, KNOWN)  # white space in the header


@given(st.binary(max_size=400))
def test_any_other_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(LearningError):
        bytes_to_activations(SEALED[1], data)


def test_activations_of_another_model_or_cut_are_refused() -> None:
    task = TASKS["vignettes"]
    lower, _ = cut_model(task, task.new_model(0), 1)
    data = activations_to_bytes(lower, lower(inputs(task, 0)))
    for seed, at in ((1, 1), (0, 2)):
        with pytest.raises(LearningError):
            bytes_to_activations(cut_model(task, task.new_model(seed), at)[1], data)


def test_what_does_not_fit_float16_is_not_sent_so() -> None:
    lower = SEALED[0]
    with pytest.raises(LearningError, match="float16"):
        activations_to_bytes(lower, torch.full((1, 12), 1e6), half=True)
    for bad in (torch.full((1, 12), float("nan")), torch.zeros(0, 12)):
        with pytest.raises(LearningError):
            activations_to_bytes(lower, bad)


speeds = st.floats(1e6, 1e13)


@given(speeds, speeds, st.floats(0.01, 1e4), st.floats(0, 500))
def test_the_choice_is_the_least_of_all(lower: float, upper: float, rate: float, rtt: float) -> None:
    cuts = [
        Cut(at=at, stages=3, lower_flops=10**6 * at, upper_flops=10**6 * (3 - at), activation_bytes=size)
        for at, size in enumerate((5000, 900, 40, 0))
    ]
    link = {"speed_lower": lower, "speed_upper": upper, "rate_mbps": rate, "rtt_ms": rtt}
    choice = choose_cut(cuts, **link)
    times = [expected_ms(cut, **link) for cut in cuts]
    assert choice.cut_ms == min(times[1:3]) and choice.whole_ms == min(times[0], times[3])
    assert choice.pays == (min(times[1:3]) < min(times[0], times[3]))


def test_a_slow_link_keeps_the_model_below_and_a_slow_device_sends_the_query() -> None:
    task = TASKS["vignettes"]
    cuts = possible_cuts(task, task.new_model(0))
    far = choose_cut(cuts, **{**GOOD_LINK, "rtt_ms": 300.0})
    weak = choose_cut(cuts, **{**GOOD_LINK, "speed_lower": 1e6})
    assert (far.whole, far.pays) == ("lower", False)
    assert (weak.whole, weak.pays) == ("upper", False)
    assert weak.cut is not None and weak.cut.at == 1


def test_cutting_pays_where_queries_are_large() -> None:
    cuts = [
        Cut(at=0, stages=2, lower_flops=0, upper_flops=10**9, activation_bytes=10**6),
        Cut(at=1, stages=2, lower_flops=10**7, upper_flops=10**9 - 10**7, activation_bytes=400),
        Cut(at=2, stages=2, lower_flops=10**9, upper_flops=0, activation_bytes=0),
    ]
    assert choose_cut(cuts, speed_lower=1e9, speed_upper=1e11, rate_mbps=10, rtt_ms=5).pays


def test_a_model_of_one_layer_has_no_place_to_cut() -> None:
    table = Table(
        features=np.zeros((9, 4), np.float32), labels=np.arange(9) % 3, label_names=["a", "b", "c"],
        sites=np.zeros(9, int), feature_names=["p", "q", "r", "s"],
    )  # fmt: skip
    task = TableTask(TaskSpec(name="digits", hidden=0), table)
    choice = choose_cut(possible_cuts(task, task.new_model(0)), **GOOD_LINK)
    assert choice.cut is None and choice.cut_ms is None and not choice.pays
    with pytest.raises(LearningError):
        cut_model(task, task.new_model(0), 1)


@pytest.mark.parametrize("wrong", [{"speed_lower": 0.0}, {"rate_mbps": -1.0}, {"rtt_ms": float("nan")}])
def test_a_link_that_cannot_be_is_refused(wrong: dict[str, float]) -> None:
    cuts = possible_cuts(TASKS["cheap"], TASKS["cheap"].new_model(0))
    with pytest.raises(LearningError):
        choose_cut(cuts, **{**GOOD_LINK, **wrong})
    with pytest.raises(LearningError):
        choose_cut(cuts[1:2], **GOOD_LINK)
