"""Ways to train in rounds of one's own: what they get, what they may answer, and what is said when they fail."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from hosts.learning.errors import LearningError
from hosts.learning.methods.federated import Member
from hosts.learning.methods.own import OwnMethod, Update, combined, load_method, trained
from hosts.learning.methods.updates import average, state_of
from hosts.learning.spec import TrainSettings
from hosts.learning.task import TaskSpec, load_task, partition

ROOT = Path(__file__).parents[4]
TEMPLATE = f"{ROOT / 'examples/method_fair.py'}:Fair"
HEAD = "from hosts.learning.methods.own import OwnMethod\nclass Mine(OwnMethod):\n    def "


@pytest.fixture(scope="module")
def some() -> tuple:
    task = load_task(TaskSpec(name="vignettes", train_per_node=64, test_per_node=16))
    samples = partition(task, ["h1", "h2"], 1)["h1"].train
    return task, samples, state_of(task.new_model(0))


def own(tmp_path: Path, body: str) -> OwnMethod:
    file = tmp_path / "mine.py"
    file.write_text(HEAD + body)
    return load_method(f"{file}:Mine")


def test_as_it_is_it_is_federated_averaging(some: tuple) -> None:
    task, samples, state = some
    settings = TrainSettings(epochs=1.0, seed=3)
    usual = Member(task, samples, None).train(state, settings)  # type: ignore[arg-type]
    model = task.new_model(0)
    model.load_state_dict(state)
    trained(OwnMethod(), task, model, samples, settings)
    assert all(torch.equal(t, usual[n]) for n, t in state_of(model).items())
    updates = [Update(usual, 30, 0.5), Update(state, 10, 0.1)]
    mean = average([usual, state], [30.0, 10.0])
    assert all(torch.allclose(t, mean[n]) for n, t in combined(OwnMethod(), state, updates).items())


def test_the_template_heeds_who_does_badly(some: tuple) -> None:
    _, _, state = some
    other = {n: t + 1 for n, t in state.items()}
    found = combined(load_method(TEMPLATE), state, [Update(state, 100, 0.01), Update(other, 100, 1.0)])
    assert all(bool((t - state[n] > 0.8).all()) for n, t in found.items())


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (
            "combine(self, state, updates):\n        raise RuntimeError('boom')",
            r"combine failed: RuntimeError: boom .*line 4",
        ),
        ("combine(self, state, updates):\n        return None", "combine returned no state"),
        ("combine(self, state, updates):\n        return {n: t[:0] for n, t in state.items()}", "names and shapes"),
        ("combine(self, state, updates):\n        return {n: t / 0 for n, t in state.items()}", "without finite"),
        ("train(self, *a):\n        exit(3)", "train failed: SystemExit: 3"),
        ("train(self, *a):\n        return 0.3", "train returned 0.3, not a TrainResult"),
    ],
)
def test_one_that_fails_is_one_line(tmp_path: Path, some: tuple, body: str, said: str) -> None:
    task, samples, state = some
    method = own(tmp_path, body)
    with pytest.raises(LearningError, match=said) as caught:
        trained(method, task, task.new_model(0), samples, TrainSettings(epochs=0.1))
        combined(method, state, [Update(state, 1, 0.1)])
    assert "\n" not in str(caught.value) and "Mine" in str(caught.value)


@pytest.mark.parametrize(
    ("spec", "said"),
    [("x.py", "give file.py:Class"), ("x.py:A", "no file x.py"), (f"{TEMPLATE[:-4]}Q", "has no subclass 'Q'")],
)
def test_one_that_cannot_be_loaded_is_one_line(spec: str, said: str) -> None:
    with pytest.raises(LearningError, match=said):
        load_method(spec)
