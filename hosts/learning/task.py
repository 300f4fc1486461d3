"""A learning task in plain PyTorch: its data, its model, training and testing. Runs alone on a laptop.

>>> task = load_task(TaskSpec(name="vignettes"))
>>> parts = partition(task, ["h11", "h12"], seed=0)
>>> model = task.new_model(seed=0)
>>> task.train(model, parts["h11"].train, TrainSettings(epochs=2))
>>> task.evaluate(model, parts["h12"].test[0]).broad
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hosts.learning.base import Task, batches
from hosts.learning.data.bundled import digits
from hosts.learning.data.encode import encode
from hosts.learning.data.read import read_rows
from hosts.learning.errors import LearningError
from hosts.learning.own import load_own
from hosts.learning.safe_bytes import bytes_to_model, bytes_to_samples, model_to_bytes, samples_to_bytes
from hosts.learning.spec import Evaluation, NodeData, Samples, TaskSpec, TrainResult, TrainSettings, concat_samples
from hosts.learning.tasks import TableTask, TextTask, VignetteTask

__all__ = [
    "Evaluation", "LearningError", "NodeData", "Samples", "TableTask", "Task", "TaskSpec", "TextTask", "TrainResult",
    "TrainSettings", "VignetteTask", "batches", "bytes_to_model", "bytes_to_samples", "concat_samples", "load_task",
    "model_to_bytes", "partition", "samples_to_bytes",
]  # fmt: skip


def load_task(spec: TaskSpec) -> Task:
    """Return the task of a description; reads its data, if it has any. ``LearningError`` in one line otherwise."""
    if spec.name == "vignettes":
        return VignetteTask(spec)
    if spec.name == "own":
        return load_own(spec)
    if spec.name == "digits":
        return TableTask(spec, digits())
    rows = read_rows(spec.data, spec.label_column, spec.columns)
    as_text = spec.name == "text"
    table = encode(rows, source=spec.data, text_column=spec.text_column, as_text=as_text)
    return (TextTask if as_text else TableTask)(spec, table)


def partition(task: Task, node_names: Sequence[str], seed: int) -> dict[str, NodeData]:
    """Share a task's data out: training samples and two disjoint test samples each, every sample on one node."""
    if not node_names or len(set(node_names)) != len(node_names):
        raise LearningError("sharing data out needs at least one node, each name once")
    parts = task.make_parts(len(node_names), np.random.default_rng([seed, 7]))
    return dict(zip(node_names, parts, strict=True))
