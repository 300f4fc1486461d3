"""Folds of an object's journey: where it is, where it is going, and by which switches.

Each DCC tells its own part of a way (``object.steered``), and parts come in any order.
"""

from __future__ import annotations

from controller.oam.state import fold_jobs, fold_network
from controller.oam.state.canvas import Canvas, Record
from controller.oam.state.fields import Data, identity, names, number, text, whole
from controller.oam.state.tracks import MAX_ROUTE, route, track
from packets.events import Event

KINDS = {"MODEL_SHARD": "model", "DATA_SHARD": "data", "model": "model", "data": "data", "1": "model", "2": "data"}
DATA_PURPOSES = ("test_sample", "keep_test_sample", "late_sample", "keep_late_sample", "data", "use_data")


def object_launched(canvas: Canvas, event: Event) -> None:
    """The holder sent its launch packet: the object still is where it was, until a way is laid."""
    data = event.data
    record = track(canvas, _need(data))
    visit, node = whole(data, "visit"), text(data, "node")
    if visit <= record["arrived_visit"]:
        return
    if visit > record["visit"]:
        _new_leg(record, visit)
    record.update(bytes=whole(data, "bytes") or record["bytes"], from_node=node or record["from_node"])
    record["kind"] = _kind(canvas, record, data)
    if not record["moving"]:
        record.update(node=node, since_unix_s=event.t_unix_s)


def object_steered(canvas: Canvas, event: Event) -> None:
    """One K-AS laid its part of the way; the object is under way unless it has come in already."""
    data = event.data
    record, visit = track(canvas, _need(data)), whole(data, "visit")
    if visit < record["visit"]:
        return
    if visit > record["visit"]:
        _new_leg(record, visit)
    if record["to_node"] and text(data, "node") not in ("", record["to_node"]):
        record["parts"] = {}  # another rendezvous for the same stop: the parts so far led elsewhere
    record["parts"][text(data, "kas")] = names(data, "switches", MAX_ROUTE)
    ends = (("to_node", "node"), ("from_node", "from_node"))
    record.update({mine: told for mine, key in ends if (told := text(data, key))})
    record.update(purpose=text(data, "purpose") or record["purpose"])
    record["kind"] = _kind(canvas, record, data)
    record["route"] = route(canvas.neighbours, record["from_node"], list(record["parts"].values()), record["to_node"])
    if visit > record["arrived_visit"] and not record["moving"]:
        record.update(moving=True, node="", since_unix_s=event.t_unix_s)
    fold_jobs.stop_steered(canvas, event)


def object_arrived(canvas: Canvas, event: Event) -> None:
    """Whole and checked at a terminal."""
    data = event.data
    record, visit = track(canvas, _need(data)), whole(data, "visit")
    if visit < record["visit"]:
        return
    if visit > record["visit"]:
        _new_leg(record, visit)
    node = text(data, "node")
    record.update(visit=visit, arrived_visit=visit, node=node, to_node=node, moving=False, since_unix_s=event.t_unix_s)
    record.update(bytes=whole(data, "bytes") or record["bytes"], kind=_kind(canvas, record, data))
    record["route"] = route(canvas.neighbours, record["from_node"], list(record["parts"].values()), node)
    fold_jobs.stop_arrived(canvas, event)
    if record["purpose"] == "measure":
        canvas.remove("objects", _need(data))  # a copy: it goes no further, and stays nowhere


def object_delivered(canvas: Canvas, event: Event) -> None:
    """The sender's own account of a transfer: what it had to send again, and how fast it went."""
    data = event.data
    job = canvas.get("jobs", identity(data))
    for stop in job["stops"] if job else ():
        if stop["visit"] == whole(data, "visit"):
            canvas.touch("jobs", identity(data))
            stop["retransmissions"] = whole(data, "retransmissions")
            stop.update({key: number(data, key) for key in ("goodput_mbps", "rtt_ms")})


def object_returned(canvas: Canvas, event: Event) -> None:
    """An object's journey ended at its owner."""
    record, node = track(canvas, _need(event.data)), text(event.data, "node")
    record.update(node=node or record["node"], moving=False, purpose="home", since_unix_s=event.t_unix_s)
    fold_jobs.object_returned(canvas, event)


def model_deployed(canvas: Canvas, event: Event) -> None:
    """An object's journey ended at an MDFP, which serves it."""
    fold_network.model_deployed(canvas, event)
    if identity(event.data):
        record, node = track(canvas, _need(event.data)), text(event.data, "node")
        record.update(node=node, moving=False, kind="model", purpose="deploy", deployed=True)
        record["since_unix_s"] = event.t_unix_s


def _kind(canvas: Canvas, record: Record, data: Data) -> str:
    """Tell model from data by what was said, else by the job of that name, else by its purpose."""
    said = KINDS.get(text(data, "type"), "")
    if said or record["kind"]:
        return said or str(record["kind"])
    if canvas.get("jobs", record["object_id"]) is not None:
        return "model"
    purpose = text(data, "purpose") or record["purpose"]
    return "data" if purpose in DATA_PURPOSES else "model" if purpose else ""


def _new_leg(record: Record, visit: int) -> None:
    """Begin the way to the next stop at the place where the last one ended."""
    start = record["node"] or record["to_node"]
    record.update(visit=visit, moving=False, node=start, from_node=start, to_node="", parts={}, route=[])


def _need(data: Data) -> str:
    key = identity(data)
    if not key:
        raise ValueError("no object named")
    return key


FOLDS = {
    "object.launched": object_launched,
    "object.steered": object_steered,
    "object.arrived": object_arrived,
    "object.delivered": object_delivered,
    "object.returned": object_returned,
    "model.deployed": model_deployed,
}
