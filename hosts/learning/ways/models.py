"""Which models a task has beside its own, and what they see: the vignettes have a cheap one, and one of vital signs."""

from __future__ import annotations

from collections.abc import Sequence

from hosts.learning.errors import LearningError
from hosts.learning.spec import Samples
from hosts.learning.task import Task, VignetteTask
from hosts.learning.ways.pair import CheapVignetteTask
from hosts.learning.ways.vitals import VitalsTask, with_vitals


def task_of(task: Task, model: str) -> Task:
    """Return the task whose model it is ('': its own); ``LearningError`` where a task has no such model."""
    if not model:
        return task
    if not isinstance(task, VignetteTask):
        raise LearningError(f"task {task.name} has no {model} model; the vignettes have")
    return CheapVignetteTask(task.spec) if model == "cheap" else VitalsTask(task.spec)


def seen_by(task: Task, samples: Samples) -> Samples:
    """Return samples of findings as a model of the task takes them."""
    return with_vitals(samples) if isinstance(task, VitalsTask) else samples


def both_of(task: Task, findings: Sequence[float], label: str) -> list[float]:
    """Return a patient as a multimodal model is asked; ``LearningError`` where a task has no vitals."""
    vitals = task_of(task, "vitals")
    assert isinstance(vitals, VitalsTask)
    return [*findings, *vitals.beside(findings, label)]
