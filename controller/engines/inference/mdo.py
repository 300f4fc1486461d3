"""MDO, the model deployment optimiser: may a model be deployed, and at which MDFP.

A deployed model needs more than its file: weights and activations while it answers, and the process around them.
Among the MDFPs that can take it, the one where it is missing, that is least busy and nearest to those who ask, is
chosen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from controller.values.errors import NoPlacement
from controller.values.knowledge import Node

MEMORY_FACTOR = 4.0  # file read, weights loaded, activations of a query, and the file kept for hand-over
PROCESS_MIB = 16.0
FULL_LOAD = 0.95


def memory_needed_mib(size_bytes: int) -> float:
    """Return the MiB that an MDFP needs to serve a model of this file size."""
    return PROCESS_MIB + MEMORY_FACTOR * size_bytes / 2**20


def place(task: str, size_bytes: int, mdfps: Sequence[Node], reach_ms: Mapping[str, float] | None = None) -> str:
    """Return the name of the MDFP that takes the model; ``NoPlacement`` says of every candidate why not.

    ``reach_ms``: one-way milliseconds from those who ask to each MDFP, where known.
    """
    reach = reach_ms or {}
    faults = {node.name: _fault(node, size_bytes, reach) for node in mdfps}
    able = [node for node in mdfps if not faults[node.name]]
    if not able:
        why = "; ".join(f"{name} {fault}" for name, fault in sorted(faults.items())) or "there is no MDFP"
        raise NoPlacement(f"no MDFP can take the model of task {task} ({size_bytes} bytes): {why}")
    return min(able, key=lambda node: _rank(node, task, reach)).name


def _fault(node: Node, size_bytes: int, reach_ms: Mapping[str, float]) -> str:
    """Return why a node cannot take the model ('' when it can). Memory never reported is not held against it."""
    needed, memory = memory_needed_mib(size_bytes), node.get("memory_mib")
    if not node.get("reachable", True) or reach_ms.get(node.name, 0.0) == float("inf"):
        return "is not reachable"
    if memory is not None and memory < needed:
        return f"has {memory:.0f} MiB of memory free, {needed:.0f} are needed"
    if node.get("load", 0.0) >= FULL_LOAD:
        return f"is busy (load {node.get('load'):.2f})"
    return ""


def _rank(node: Node, task: str, reach_ms: Mapping[str, float]) -> tuple[bool, bool, float, float, int, str]:
    models = node.get("models", [])
    hosts_it = any(entry["task"] == task for entry in models)
    memory_unknown = node.get("memory_mib") is None
    return (
        hosts_it,
        memory_unknown,
        round(node.get("load", 0.0), 1),
        reach_ms.get(node.name, 0.0),
        len(models),
        node.name,
    )
