"""New samples in a running network: what a data node's sensing brings in, drawn from the world its data is from."""

from __future__ import annotations

import numpy as np

from hosts.learning.errors import LearningError
from hosts.learning.spec import Samples
from hosts.learning.task import Task, VignetteTask


def new_samples(task: Task, held: Samples, count: int, seed: int, group: str = "") -> Samples:
    """Return fresh samples of a node's own mix (or all of one group); ``LearningError`` where none can be had.

    Vignettes are generated, so they are new indeed; a table has the rows that it has.
    """
    if not isinstance(task, VignetteTask):
        raise LearningError(f"task {task.name} has no samples beyond its file; only vignettes can be collected anew")
    if not 1 <= count <= 100_000:
        raise LearningError(f"{count} new samples: ask for 1 to 100000")
    rng = np.random.default_rng(seed)
    shares = np.bincount(held.labels.numpy().astype(int), minlength=len(task.labels)).astype(float)
    if group:
        if group not in task.groups:
            raise LearningError(f"no group {group!r} in task {task.name}: it has {', '.join(task.groups)}")
        shares = (task.group_of.numpy() == task.groups.index(group)).astype(float)
    return task.generate(rng.multinomial(count, shares / shares.sum()), rng)


def merged_shares(old: dict[str, float], old_count: int, new: dict[str, float], new_count: int) -> dict[str, float]:
    """Return the shares of the union from two published histograms.

    Each sample is in one of them only, so the union costs no more privacy than either (parallel composition).
    """
    total = old_count + new_count
    return {g: (old.get(g, 0.0) * old_count + new.get(g, 0.0) * new_count) / total for g in {**old, **new}}
