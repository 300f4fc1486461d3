"""A learning task of one's own: ``file.py:Class``, a subclass of ``hosts.learning.task.Task``."""

from __future__ import annotations

from hosts.learning.base import Task
from hosts.learning.errors import LearningError
from hosts.learning.spec import TaskSpec
from topologies.own.files import make_own

HINT = ", in `data: {name: own, own: mine.py:Task}` or --task"


def load_own(spec: TaskSpec) -> Task:
    """Return the task that ``spec.own`` names, made with the spec; ``LearningError`` says what to mend."""
    return make_own("task", spec.own, Task, lambda kind: kind(spec), LearningError, HINT)  # type: ignore[call-arg]
