"""Learning tasks of one's own: the template learns, what is no task is refused in one line."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from experiments.scenarios.scenario import dump, load, with_task
from hosts.learning.errors import LearningError
from hosts.learning.task import (
    TaskSpec,
    TrainSettings,
    bytes_to_model,
    bytes_to_samples,
    concat_samples,
    load_task,
    model_to_bytes,
    partition,
    samples_to_bytes,
)

EXAMPLE = f"{Path(__file__).parents[4] / 'examples' / 'task_rings.py'}:Rings"


def test_the_template_is_shared_out_learnt_sent_and_asked() -> None:
    task = load_task(TaskSpec(name="own", own=EXAMPLE, train_per_node=300, test_per_node=60))
    assert task.name == "own"
    parts = partition(task, ["h1", "h2", "h3"], seed=3)
    train = concat_samples([part.train for part in parts.values()])
    model = task.new_model(1)
    task.train(model, train, TrainSettings(epochs=20, learning_rate=0.01))
    test = concat_samples([part.test[0] for part in parts.values()])
    assert task.evaluate(model, test).broad > 0.9
    assert task.quality_probe(train) > 0.6
    there = bytes_to_model(task, model_to_bytes(model))
    assert task.evaluate(there, bytes_to_samples(task, samples_to_bytes(test))).broad > 0.9
    sample, expected = task.sample_of("outer", random.Random(1))
    assert task.ask(there, sample)[0] == expected == "outer"


@pytest.mark.parametrize(
    ("own", "text", "told"),
    [
        ("none.py:Task", None, "there is no file"),
        ("x.py", "", "give file.py:Class"),
        ("x.py:Other", "class Task: ...", "has no subclass 'Other'"),
        ("x.py:Task", "class Task: ...", "has no subclass 'Task'"),
        ("x.py:Task", "import nothing_there", "cannot be loaded: ModuleNotFoundError"),
        ("x.py:Task", "1 / 0", "cannot be loaded: ZeroDivisionError"),
        ("x.py:Task", "from hosts.learning.task import Task as T\nclass Task(T): pass", "cannot be loaded: TypeError"),
    ],
)
def test_what_is_no_task_is_said_in_one_line(tmp_path: Path, own: str, text: str | None, told: str) -> None:
    if text is not None:
        (tmp_path / "x.py").write_text(text)
    with pytest.raises(LearningError, match=told) as caught:
        load_task(TaskSpec(name="own", own=str(tmp_path / own)))
    assert "\n" not in str(caught.value)


def test_a_scenario_names_it_from_where_it_lies_and_its_jobs_follow(tmp_path: Path) -> None:
    found = with_task(load("table"), "mine.py:Task", tmp_path)
    assert found.data.own == f"{tmp_path}/mine.py:Task"
    assert {job.task for job in found.jobs} == {"own"}
    (tmp_path / "x.yaml").write_bytes(dump(load("table")).replace(b"  own: ''", b"  own: mine.py:Task"))
    found = load(str(tmp_path / "x.yaml"))
    assert (found.data.name, found.data.own) == ("own", f"{tmp_path}/mine.py:Task")
