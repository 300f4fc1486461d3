"""A learning task of one's own: ``file.py:Class``, a subclass of ``hosts.learning.task.Task``."""

from __future__ import annotations

from pathlib import Path

from hosts.learning.base import Task
from hosts.learning.errors import LearningError
from hosts.learning.spec import TaskSpec
from topologies.own.files import from_file, told


def load_own(spec: TaskSpec) -> Task:
    """Return the task that ``spec.own`` names; ``LearningError`` is one line that says what to mend.

    Runs the file's top level and the class's ``__init__``, which gets the spec.
    """
    where, _, name = spec.own.rpartition(":")
    if not where.endswith(".py") or not name:
        raise LearningError(
            f"task {spec.own!r}: give file.py:Class, in `data: {{name: own, own: mine.py:Task}}` or --task"
        )
    try:
        kind = getattr(from_file(Path(where), "task"), name, None)
        if not (isinstance(kind, type) and issubclass(kind, Task)):
            raise LearningError(f"task {spec.own}: {where} has no subclass {name!r} of hosts.learning.task.Task")
        return kind(spec)  # type: ignore[call-arg]  # a subclass says its groups, labels and width itself
    except FileNotFoundError:
        raise LearningError(f"task {spec.own}: there is no file {where}") from None
    except LearningError:
        raise
    except (Exception, SystemExit) as error:
        raise LearningError(f"task {spec.own}: cannot be loaded: {told(error, where)}") from error
