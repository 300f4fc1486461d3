"""Folds of where models serve: one record a replica, from when it came to its end, how it came and how it went."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from controller.oam.state.canvas import Canvas, Record
from controller.oam.state.fields import Data, text, whole
from packets.events import Event
from packets.labels import object_label

SPANS_KEPT = 32  # times that one node was out


def deployed(canvas: Canvas, event: Event) -> None:
    """A replica serves from now on; another of its task at that node has given its place to it."""
    data, at_s = event.data, event.t_unix_s
    node, task, label = text(data, "node"), text(data, "task"), str(object_label(whole(data, "object_id")))
    for record in _serving(canvas, node):
        if record["task"] == task and record["label"] != label:
            _end(canvas, record, at_s, "replaced")
    canvas.touch("placed", label).update(
        label=label, node=node, task=task, from_unix_s=at_s, to_unix_s=None, came="deployed", came_from="",
        came_why="", went="", went_why="",
    )  # fmt: skip


def came(canvas: Canvas, event: Event) -> None:
    """A replica came as a copy of another, to stand beside it or in its stead."""
    data, how = event.data, event.kind.partition(".")[2]
    new, old = canvas.get("placed", text(data, "new_label")), canvas.get("placed", text(data, "label"))
    if new is not None and old is not None:
        canvas.touch("placed", new["label"]).update(came=how, came_from=old["node"], came_why=text(data, "reason"))
        if how == "moved":
            canvas.touch("placed", old["label"])["went"] = how


def scaled(canvas: Canvas, event: Event) -> None:
    """A replica is to go, there are more than are asked for."""
    record = canvas.get("placed", text(event.data, "label"))
    if record is not None:
        canvas.touch("placed", record["label"]).update(went="scaled", went_why=text(event.data, "reason"))


def retired(canvas: Canvas, event: Event) -> None:
    """A replica serves no more."""
    record = canvas.get("placed", text(event.data, "label"))
    if record is not None and record["to_unix_s"] is None:
        _end(canvas, record, event.t_unix_s, record["went"] or "retired")


def gone(canvas: Canvas, event: Event) -> None:
    """A terminal's process ended, and with it whatever it served."""
    for record in _serving(canvas, text(event.data, "name")):
        _end(canvas, record, event.t_unix_s, "gone")


def out(canvas: Canvas, event: Event) -> None:
    """A node is asked by nobody from now on."""
    spans = _spans(canvas, event.data)
    if not spans or spans[-1][1] is not None:
        spans.append([event.t_unix_s, None])
        del spans[:-SPANS_KEPT]


def back(canvas: Canvas, event: Event) -> None:
    """A node that was out is asked again."""
    spans = _spans(canvas, event.data)
    if spans and spans[-1][1] is None:
        spans[-1][1] = event.t_unix_s


def _serving(canvas: Canvas, node: str) -> Iterator[Record]:
    return (r for r in list(canvas.sections["placed"].values()) if r["node"] == node and r["to_unix_s"] is None)


def _end(canvas: Canvas, record: Record, at_s: float, went: str) -> None:
    canvas.touch("placed", record["label"]).update(to_unix_s=at_s, went=went)


def _spans(canvas: Canvas, data: Data) -> list[list[float | None]]:
    node = text(data, "node", limit=64)
    record = canvas.touch("outs", node, node=node, spans=[])
    spans: list[list[float | None]] = record["spans"]
    return spans


FOLDS: dict[str, Callable[[Canvas, Event], None]] = {
    "model.deployed": deployed,
    "model.moved": came,
    "model.copied": came,
    "model.scaled": scaled,
    "model.retired": retired,
    "model.out": out,
    "model.back": back,
    "agent.gone": gone,
}
