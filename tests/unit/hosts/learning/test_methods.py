"""Training methods behind one interface: they learn, they account for what they send, and their arithmetic is right."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from controller.engines.routing.orders import most_even
from controller.values.decisions import Option, Visit
from hosts.learning.compress import parse_spec
from hosts.learning.errors import LearningError
from hosts.learning.methods import METHODS, MethodSettings, run_method
from hosts.learning.methods.federated import Aggregator, Member
from hosts.learning.methods.gossip import source, target
from hosts.learning.methods.masks import Masker, add_up, from_words, to_words
from hosts.learning.methods.split import Lower, Upper
from hosts.learning.methods.updates import QuasiGlobalMomentum, average, state_of
from hosts.learning.spec import TrainSettings
from hosts.learning.task import Task, TaskSpec, load_task, model_to_bytes, partition

NODES = ["n1", "n2", "n3", "n4"]


@pytest.fixture(scope="module")
def task() -> Task:
    return load_task(TaskSpec(partition="iid", train_per_node=120, test_per_node=40, noise=0.1))


@pytest.fixture(scope="module")
def parts(task: Task):
    return partition(task, NODES, 0)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_learns_and_counts(task: Task, parts, name: str) -> None:
    result = run_method(name, task, parts, MethodSettings(rounds=2, epochs=1.0, batch_size=16))
    assert len(result.log) == 2
    assert (result.log[-1].broad or 0) > 0.1  # guessing gives 0.02
    assert result.bytes >= result.log[-1].bottleneck_bytes > 0
    assert result.log[1].steps > result.log[0].steps > 0
    assert result.log[-1].core_seconds >= result.seconds > 0


@pytest.mark.parametrize("name", ["routed", "learned", "tramfl", "federated", "gossip", "split"])
def test_a_method_repeats_under_its_seed(task: Task, parts, name: str) -> None:
    settings = MethodSettings(rounds=2, epochs=0.5, seed=3)
    first, second = (state_of(run_method(name, task, parts, settings, measure=False).model) for _ in range(2))
    assert all(torch.equal(first[n], second[n]) for n in first)


def test_federated_sends_the_model_to_all_and_back(task: Task, parts) -> None:
    result = run_method("federated", task, parts, MethodSettings(rounds=2, epochs=0.2), measure=False)
    assert result.bytes == pytest.approx(2 * 2 * len(NODES) * len(model_to_bytes(task.new_model(0))), rel=0.01)


@pytest.mark.parametrize(("spec", "share"), [("int8", 0.65), ("topk:0.2", 0.75), ("lossless", 0.99)])
def test_compression_saves_bytes_and_still_learns(task: Task, parts, spec: str, share: float) -> None:
    plain = run_method("federated", task, parts, MethodSettings(rounds=2, epochs=1.0, batch_size=16))
    coded = run_method("federated", task, parts, MethodSettings(rounds=2, epochs=1.0, batch_size=16, compression=spec))
    assert coded.bytes < share * plain.bytes
    assert (coded.log[-1].broad or 0) > 0.4 * (plain.log[-1].broad or 0)


def test_masked_rounds_come_to_what_open_ones_come_to(task: Task, parts) -> None:
    settings = MethodSettings(rounds=2, epochs=0.5)
    plain = state_of(run_method("federated", task, parts, settings, measure=False).model)
    masked = state_of(
        run_method("federated", task, parts, MethodSettings(rounds=2, epochs=0.5, secure=True), measure=False).model
    )
    assert all(torch.allclose(plain[n], masked[n], atol=2e-3) for n in plain)


def test_a_masked_update_tells_nothing_alone_and_the_sum_is_exact() -> None:
    update = {"w": torch.full((5000,), 0.25)}
    members = [Masker() for _ in range(3)]
    keys = {i: m.public for i, m in enumerate(members)}
    words = to_words(update, 3)
    hidden = [m.mask(words, keys, i, b"r0") for i, m in enumerate(members)]
    for one in hidden:  # as even as noise: each of 16 top nibbles about as often as any other
        counts = np.bincount(one >> 28, minlength=16)
        assert counts.min() > 5000 / 16 * 0.7
    assert torch.equal(from_words(add_up(hidden), update)["w"], torch.full((5000,), 0.75))
    again = members[0].mask(words, keys, 0, b"r1")
    assert float(np.mean(again == hidden[0])) < 0.01  # never the same stream twice


def test_a_missing_member_leaves_noise_not_a_sum() -> None:
    update = {"w": torch.full((1000,), 0.25)}
    members = [Masker() for _ in range(3)]
    keys = {i: m.public for i, m in enumerate(members)}
    hidden = [m.mask(to_words(update, 3), keys, i, b"") for i, m in enumerate(members)]
    assert float((from_words(add_up(hidden[:2]), update)["w"] - 0.5).abs().mean()) > 10


def test_masks_refuse_what_makes_no_sense() -> None:
    mine = Masker()
    words = to_words({"w": torch.zeros(3)}, 2)
    with pytest.raises(LearningError, match="my own key"):
        mine.mask(words, {0: Masker().public, 1: Masker().public}, 0, b"")
    with pytest.raises(LearningError, match="X25519"):
        mine.mask(words, {0: mine.public, 1: b"short"}, 0, b"")
    with pytest.raises(LearningError, match="not of this model"):
        from_words(words, {"w": torch.zeros(4)})
    with pytest.raises(LearningError, match="different lengths"):
        add_up([words, words[:1]])


def test_secure_and_compressed_exclude_each_other(task: Task, parts) -> None:
    with pytest.raises(LearningError, match="do not compress"):
        run_method("federated", task, parts, MethodSettings(secure=True, compression="int8"))


def test_an_unknown_method_names_those_there_are(task: Task, parts) -> None:
    with pytest.raises(LearningError, match="federated"):
        run_method("fedavg", task, parts, MethodSettings())


def test_training_ends_when_the_targets_are_met(task: Task, parts) -> None:
    settings = MethodSettings(rounds=9, epochs=1.0, batch_size=16, broad_accuracy=0.05, stop_at_targets=True)
    result = run_method("federated", task, parts, settings)
    assert len(result.log) < 9
    assert (result.log[-1].broad or 0) >= 0.05


@pytest.mark.parametrize("nodes", [1, 2, 3, 4, 5, 8, 12])
def test_gossip_pairs_up_and_mixes_everything(nodes: int) -> None:
    values = np.eye(nodes)
    for number in range(24):
        assert sorted(target(i, number, nodes) for i in range(nodes)) == list(range(nodes))
        assert all(target(source(i, number, nodes), number, nodes) == i for i in range(nodes))
        values = np.array([(values[i] + values[source(i, number, nodes)]) / 2 for i in range(nodes)])
    assert np.allclose(values, 1 / nodes, atol=1e-3)


def test_an_average_is_weighted() -> None:
    mean = average([{"w": torch.zeros(2)}, {"w": torch.ones(2)}], [1, 3])
    assert torch.allclose(mean["w"], torch.full((2,), 0.75))


def test_quasi_global_momentum_lifts_a_steady_move_and_not_the_first() -> None:
    momentum = QuasiGlobalMomentum(0.9)
    zero, one = {"w": torch.zeros(1)}, {"w": torch.ones(1)}
    assert float(momentum.apply(zero, one)["w"]) == 1.0
    assert float(momentum.apply(zero, one)["w"]) == pytest.approx(1.09)


def test_a_split_model_answers_as_the_whole_one_and_learns_as_it_does(task: Task, parts) -> None:
    """One node: split training is ordinary training, step by step."""
    data = parts["n1"].train
    settings = TrainSettings(epochs=1.0, batch_size=16, seed=5)
    whole, lower_model, upper_model = (task.new_model(1) for _ in range(3))
    task.train(whole, data, settings)
    lower, upper = Lower(task, lower_model, 1, data), Upper(task, upper_model, 1)
    upper.begin(settings.learning_rate)
    for number in range(lower.deal(settings)):
        lower.take(upper.learn([lower.send(number)])[0])
    upper_model.load_state_dict(lower.state(), strict=False)
    found = state_of(upper_model)
    assert all(torch.allclose(t, found[n], atol=1e-5) for n, t in state_of(whole).items())


def test_split_refuses_gradients_of_another_shape_and_cuts_that_are_none(task: Task, parts) -> None:
    lower = Lower(task, task.new_model(0), 1, parts["n1"].train)
    lower.deal(TrainSettings())
    with pytest.raises(LearningError, match="not for the activations"):
        lower.take(torch.zeros(1))
    with pytest.raises(LearningError, match="cuts this model at"):
        Upper(task, task.new_model(0), 7)


def test_an_update_for_another_round_is_refused(task: Task, parts) -> None:
    member = Member(task, parts["n1"].train, parse_spec("int8"))
    start = state_of(task.new_model(0))
    data = member.update(start, state_of(task.new_model(1)))
    with pytest.raises(LearningError, match="not held here"):
        Aggregator(state_of(task.new_model(2))).take([data], [1.0])


def test_digits_come_with_the_testbed_and_every_node_may_hold_one_class() -> None:
    digits = load_task(TaskSpec(name="digits", partition="one_class", hidden=32, test_share=0.25))
    held = partition(digits, [f"n{i}" for i in range(10)], 0)
    assert sorted(int(p.train.labels.unique().item()) for p in held.values()) == list(range(10))
    assert sum(len(p.train) + len(p.test[0]) + len(p.test[1]) for p in held.values()) == 1797
    learned = run_method("central", digits, held, MethodSettings(rounds=3, epochs=5.0, batch_size=32))
    assert (learned.log[-1].broad or 0) > 0.85


def option(handle: str, **mix: float) -> Option:
    return Option(kas=1, handle=handle, mix=mix, samples=100, epoch_s=1, reach_s=0.1)


def test_tram_fl_goes_where_the_histogram_becomes_most_even() -> None:
    offered = [option("a", x=1.0), option("b", y=1.0), option("c", x=0.5, y=0.5)]
    assert most_even(["x", "y"], [], offered)[0] == 2
    seen = [Visit(kas=1, handle="a", mix={"x": 1.0}, samples=100, epochs=2.0)]
    assert most_even(["x", "y"], seen, offered)[0] == 1
    assert sorted(most_even(["x", "y"], seen, offered)) == [0, 1, 2]
