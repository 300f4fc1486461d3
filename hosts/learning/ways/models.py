"""Which models a task has beside its own: the vignettes have a cheap one, and one of vital signs."""

from __future__ import annotations

from hosts.learning.errors import LearningError
from hosts.learning.task import Task, VignetteTask
from hosts.learning.ways.pair import CheapVignetteTask
from hosts.learning.ways.vitals import VitalsTask


def task_of(task: Task, model: str) -> Task:
    """Return the task whose model it is ('': its own); ``LearningError`` where a task has no such model."""
    if not model:
        return task
    if not isinstance(task, VignetteTask):
        raise LearningError(f"task {task.name} has no {model} model; the vignettes have")
    return CheapVignetteTask(task.spec) if model == "cheap" else VitalsTask(task.spec)
