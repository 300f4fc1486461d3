"""Folds of a job's events: what was asked, the verdict; per stop reason, expectation and the measurement."""

from __future__ import annotations

from controller.oam.state.canvas import Canvas, Record
from controller.oam.state.fields import Data, figures, identity, mapping, number, text, texts, web_safe, whole
from controller.oam.state.tracks import track
from packets.events import Event
from packets.labels import label_address, object_label

MAX_STOPS = 256
ENDED = ("finished", "failed", "stopped", "rejected")


def job_submitted(canvas: Canvas, event: Event) -> None:
    """A job is asked for; without an identity yet (0), it waits under its owner's name for the verdict."""
    data = event.data
    owner, spec = text(data, "owner"), mapping(data, "spec")
    job = _job(canvas, identity(data) or f"new-{owner}")
    job.update(owner=owner, spec=web_safe(spec), task=text(spec, "task"), submitted_unix_s=event.t_unix_s)
    job["expert_group"] = text(spec, "expert_group")
    expert = number(spec, "expert_accuracy") if job["expert_group"] else None
    job["targets"] = {"broad": number(spec, "broad_accuracy"), "expert": expert}
    if identity(data):
        _with_owner(canvas, job, event.t_unix_s)


def job_assessed(canvas: Canvas, event: Event) -> None:
    """T-FAM's verdict."""
    data, key = event.data, identity(event.data)
    admitted = data.get("admitted") is True
    job = _assessed_job(canvas, key, text(data, "owner"), event)
    job.update(reasons=texts(data, "reasons"), nearest=figures(data, "nearest"), predicted=figures(data, "predicted"))
    job["admitted"] = admitted
    if job["state"] == "submitted" or not admitted:
        job["state"] = "admitted" if admitted else "rejected"
    if admitted and key:
        _with_owner(canvas, job, event.t_unix_s)
    elif key:
        canvas.remove("objects", key)  # a rejected model stays with its owner: nothing of it is in the network


def _assessed_job(canvas: Canvas, key: str, owner: str, event: Event) -> Record:
    """Find the job that a verdict speaks of; one that waited without an identity gets it (rejected: its own name)."""
    unnamed = [name for name in canvas.sections["jobs"] if name.startswith("new-")]
    waiting = [name for name in unnamed if not owner or name == f"new-{owner}"]
    if (key and canvas.get("jobs", key)) or not waiting:
        return _job(canvas, key or f"rejected-{event.id}")
    before = dict(canvas.sections["jobs"][waiting[-1]])
    canvas.remove("jobs", waiting[-1])
    job = _job(canvas, key or f"rejected-{event.id}")
    job.update({name: value for name, value in before.items() if name not in ("object_id", "label")})
    return job


def job_decided(canvas: Canvas, event: Event) -> None:
    """MTRCE's word on the next stop: why, what it should bring, and what else was weighed."""
    data = event.data
    job = _job(canvas, _need(data))
    stop = _stop(job, whole(data, "visit"))
    stop.update({key: text(data, key) for key in ("action", "reason", "handle")})
    stop.update(kas=whole(data, "kas"), decided_unix_s=event.t_unix_s)
    stop["alternatives"] = web_safe(_listed(data, "alternatives", 8))
    stop["plan"] = web_safe(_listed(data, "plan", 16))
    stop["ages"] = figures(data, "ages")
    stop["expected"] = _expected(job, data)
    have = {"broad": job["broad"], "expert": job["expert"]}
    stop["gain"] = {k: round(v - had, 4) for k, v in stop["expected"].items() if (had := have[k]) is not None}
    if job["state"] not in ENDED:
        job["state"] = "running"
    job["next"] = stop["visit"]


def _expected(job: Record, data: Data) -> dict[str, float]:
    """Read an expectation given as {broad, expert} or per group as {broad and expert} shares."""
    groups = figures(data, "expected")
    broad = groups.get("broad", number(data, "expected_broad"))
    expert = groups.get("expert", groups.get(job["expert_group"], number(data, "expected_expert")))
    shares = [share for name, share in groups.items() if name not in ("broad", "expert")]
    if broad is None and shares:
        broad = sum(shares) / len(shares)
    return {name: round(share, 4) for name, share in (("broad", broad), ("expert", expert)) if share is not None}


def stop_steered(canvas: Canvas, event: Event) -> None:
    """A DCC laid its part of the way for the job's model."""
    data, job = event.data, canvas.get("jobs", identity(event.data))
    if job is None:
        return
    stop = _stop(_job(canvas, identity(data)), whole(data, "visit"))
    known = {key: value for key in ("node", "facility", "data_node") if (value := text(data, key))}
    stop.update(known)
    stop["flows"] = stop.get("flows", 0) + max(0, whole(data, "flows"))
    stop["action"] = stop.get("action") or text(data, "purpose")


def stop_arrived(canvas: Canvas, event: Event) -> None:
    """A job's object came in whole at a stop: how long it took, in seconds and bytes."""
    data = event.data
    if canvas.get("jobs", identity(data)) is None:
        return
    stop = _stop(_job(canvas, identity(data)), whole(data, "visit"))
    stop.update(node=text(data, "node"), arrived_unix_s=event.t_unix_s, bytes=whole(data, "bytes"))
    stop.update({key: number(data, key) for key in ("seconds", "goodput_mbps")})
    stop["retransmissions"] = whole(data, "retransmissions")


def visit_trained(canvas: Canvas, event: Event) -> None:
    """A visit trained the model: where, on how many samples, for how many epochs."""
    data = event.data
    stop = _stop(_job(canvas, _need(data)), whole(data, "visit"))
    stop["action"] = stop.get("action") or "train"
    stop.update({key: text(data, key) for key in ("node", "facility", "data_node")})
    stop.update(kas=whole(data, "kas", stop.get("kas", 0)), samples=whole(data, "samples"))
    stop.update(loss=number(data, "loss"), epochs=number(data, "epochs"), train_s=number(data, "seconds"))


def visit_verified(canvas: Canvas, event: Event) -> None:
    """An MPVU measured the model: one point on the accuracy chart, and (accepted) the figure to beat."""
    data = event.data
    job = _job(canvas, _need(data))
    stop = _stop(job, whole(data, "visit"))
    group = job["expert_group"]
    per_group = figures(data, "per_group")
    expert = number(data, "expert") if number(data, "expert") is not None else per_group.get(group)
    accepted = data.get("accepted") is not False
    measured = {"broad": number(data, "broad"), "expert": expert, "accepted": accepted, "per_group": per_group}
    stop.update(measured, action=stop.get("action") or "verify", node=text(data, "node"), verdict=text(data, "reason"))
    stop.update(kas=whole(data, "kas", stop.get("kas", 0)), samples=whole(data, "samples"))
    if accepted:
        job.update(broad=measured["broad"], expert=expert)


def job_changed(canvas: Canvas, event: Event) -> None:
    """The owner's word in mid-journey."""
    job = _job(canvas, _need(event.data))
    job["changed"] = {**job.get("changed", {}), **figures(event.data, "changes")}
    job["stopping"] = job.get("stopping", False) or event.data.get("stop") is True


def job_finished(canvas: Canvas, event: Event) -> None:
    """A job is over: its state, why, and the accuracies (0..1) that it ends with."""
    data = event.data
    job = _job(canvas, _need(data))
    job.update(state=text(data, "state", "finished"), reason=text(data, "reason"), finished_unix_s=event.t_unix_s)
    job["visits"] = whole(data, "visits", len(job["stops"]))
    for name in ("broad", "expert"):
        final = number(data, name)
        job[name] = job[name] if final is None else final


def object_returned(canvas: Canvas, event: Event) -> None:
    """A job's model is back with its owner."""
    if canvas.get("jobs", identity(event.data)) is not None:
        job = _job(canvas, identity(event.data))
        job.update(returned=True, returned_unix_s=event.t_unix_s)


def _need(data: Data) -> str:
    key = identity(data)
    if not key:
        raise ValueError("no object named")
    return key


def _job(canvas: Canvas, key: str) -> Record:
    job = canvas.touch(
        "jobs", key, object_id=key, label="", owner="", state="submitted", task="", expert_group="", targets={},
        spec={}, stops=[], broad=None, expert=None, reasons=[], nearest={}, predicted={},
        reason="", returned=False, next=None,
    )  # fmt: skip
    if not job["label"] and key.isdigit():
        job["label"] = label_address(object_label(int(key)))
    return job


def _stop(job: Record, visit: int) -> Record:
    """Return the stop of that number; stops stay in order, and the list stays bounded."""
    stops: list[Record] = job["stops"]
    for stop in stops:
        if stop["visit"] == visit:
            return stop
    if len(stops) >= MAX_STOPS:
        raise ValueError("too many stops")
    stops.append({"visit": visit})
    stops.sort(key=lambda stop: int(stop["visit"]))
    return next(stop for stop in stops if stop["visit"] == visit)


def _with_owner(canvas: Canvas, job: Record, t_unix_s: float) -> None:
    """Before its first launch the model is where its owner is."""
    if canvas.get("objects", job["object_id"]) is None:
        track(canvas, job["object_id"]).update(
            kind="model", node=job["owner"], home=job["owner"], job=job["object_id"], since_unix_s=t_unix_s
        )


def _listed(data: Data, key: str, limit: int) -> list[object]:
    value = data.get(key)
    return list(value)[:limit] if isinstance(value, list | tuple) else []


FOLDS = {
    "job.submitted": job_submitted,
    "job.assessed": job_assessed,
    "job.decided": job_decided,
    "visit.trained": visit_trained,
    "visit.verified": visit_verified,
    "job.changed": job_changed,
    "job.finished": job_finished,
}
