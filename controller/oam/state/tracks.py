"""An object's record, and how the parts of its way are joined along the plan's links."""

from __future__ import annotations

from collections import deque

from controller.oam.state.canvas import Canvas, Record
from packets.labels import label_address, object_label

MAX_ROUTE = 64


def track(canvas: Canvas, key: str) -> Record:
    """Return the record of an object; ``node`` is where it is ("" while under way), ``visit`` its stops so far."""
    record = canvas.touch(
        "objects", key, object_id=key, label=label_address(object_label(int(key))), kind="", purpose="", visit=0,
        node="", moving=False, from_node="", to_node="", parts={}, route=[], bytes=0, arrived_visit=-1, job="", home="",
    )  # fmt: skip
    return record


def route(neighbours: dict[str, list[str]], start: str, parts: list[list[str]], end: str) -> list[str]:
    """Join the parts of a way into one list of node names from ``start`` to ``end``.

    Next comes the part that links to where we stand; a hole (a part not told yet, or lost) is filled with the shortest
    way in the plan.
    """
    way = [start] if start else []
    left = [part for part in parts if part]
    while left:
        here = way[-1] if way else ""
        part = min(left, key=lambda p: _hops(neighbours, here, p[0]))
        left.remove(part)
        for name in part:
            _extend(neighbours, way, name)
    if end:
        _extend(neighbours, way, end)
    return way[:MAX_ROUTE]


def _extend(neighbours: dict[str, list[str]], way: list[str], name: str) -> None:
    if way and way[-1] != name and name not in neighbours.get(way[-1], []):
        way.extend(_shortest(neighbours, way[-1], name)[1:-1])
    if not way or way[-1] != name:
        way.append(name)


def _hops(neighbours: dict[str, list[str]], a: str, b: str) -> int:
    return len(_shortest(neighbours, a, b)) or 1_000


def _shortest(neighbours: dict[str, list[str]], a: str, b: str) -> list[str]:
    """Return the nodes of a shortest way from a to b (both included), [] when there is none.  Breadth first."""
    came_from = {a: ""}
    todo = deque([a])
    while todo and b not in came_from:
        here = todo.popleft()
        for beside in neighbours.get(here, []):
            if beside not in came_from:
                came_from[beside] = here
                todo.append(beside)
    way, here = [], b if b in came_from else ""
    while here:
        way.append(here)
        here = came_from[here]
    return way[::-1]
