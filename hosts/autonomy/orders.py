"""What an autonomous object's stop comes to at a terminal: the order for its role, the log for its owner. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from controller.engines.training import gate, hpo
from controller.values.decisions import Mix
from hosts.autonomy.course import Course
from packets.aats.journey import Action, Stop, TrailError
from packets.aats.probe import MAX_GROUPS, MAX_MODELS, Hosting
from packets.messages import Order, Way

About = Mapping[str, Any]


def order_of(course: Course, action: Action, about: About, *, object_id: int, visit: int) -> Order:
    """Return what a role is to do at a stop; ``about``: what this terminal tells of itself."""
    spec = course.spec
    common: dict[str, Any] = {
        "object_id": object_id, "visit": visit, "task": spec.task, "model": spec.model,
        "expert_group": spec.expert_group or "",
        "compression": "none" if spec.compression == "auto" else spec.compression,
    }  # fmt: skip
    if action == "train":
        visits, mix = len(course.visits), mix_of(about)
        hyper = hpo.settled(hpo.hyper(course.request, visits, about.get("samples", 0)), spec.hyper, mix, visits)
        return Order(
            action="train", epochs=hyper.epochs, batch_size=hyper.batch_size, learning_rate=hyper.learning_rate,
            group_weights=hyper.group_weights, **common,
        )  # fmt: skip
    keeps_part = action == "verify" and spec.merge and spec.gate and course.measured and course.unverified
    return Order(
        action="verify", merge=hpo.MERGE if keeps_part else [], broad_accuracy=spec.broad_accuracy,
        expert_accuracy=spec.expert_accuracy, **common,
    )  # fmt: skip


def order_home(course: Course, trail: Sequence[Stop], *, object_id: int, visit: int) -> Order:
    """Return the owner's order: the whole log of the journey is in it."""
    log = [_entry(number, stop, course.spec.expert_group) for number, stop in enumerate(trail[1:])]
    return Order(
        action="home", object_id=object_id, visit=visit, log=log, log_length=len(log), accuracy=_accuracy(course),
        task=course.spec.task, model=course.spec.model,
    )  # fmt: skip


def order_deploy(course: Course, digest: bytes, *, object_id: int, visit: int) -> Order:
    """Return an MDFP's order; ``TrailError`` where the model, by its digest, is not the one that was verified."""
    if not course.pool or digest != course.digest:
        raise TrailError("what is to be deployed is not the model that was verified")
    spec = course.spec
    return Order(
        action="deploy", object_id=object_id, visit=visit, for_object=object_id, task=spec.task, model=spec.model,
        way=Way(model=spec.model), accuracy=_accuracy(course),
    )  # fmt: skip


def _accuracy(course: Course) -> dict[str, float]:
    pooled, group = gate.pooled(course.pool.values()), course.spec.expert_group
    if pooled is None:
        return {}
    expert = round(pooled.per_group.get(group or "", 0.0), 4)
    return {"broad": round(pooled.broad, 4)} | ({"expert": expert, group: expert} if group else {})


def _entry(visit: int, stop: Stop, expert_group: str | None) -> dict[str, Any]:
    """Return a stop as a training log has it."""
    entry: dict[str, Any] = {"visit": visit, "kas": stop.kas, "address": stop.address}
    if stop.problem:
        return entry | {"problem": stop.problem}
    if stop.action == "train":
        return entry | {"samples": stop.samples, "loss": round(stop.loss, 3)}
    expert = stop.per_group.get(expert_group or "", 0.0)
    measured = {"broad": round(stop.broad, 4), "expert": round(expert, 4)}
    return entry | measured | {"accepted": stop.accepted, "share": stop.share}


def of_use(role: str, about: About) -> bool:
    """Tell whether a terminal of a role can do what objects come to it for."""
    return bool(about.get("reachable", True)) and (role != "mpvu" or about.get("test_samples", 0) > 0)


def mix_of(about: About) -> Mix:
    """Return the shares of groups that a terminal tells, within a packet's bounds."""
    shares = about.get("group_shares", {})
    return {str(g)[:80]: share_of(s) for g, s in sorted(shares.items(), key=lambda one: -one[1])[:MAX_GROUPS]}


def models_of(about: About) -> list[Hosting]:
    """Return the models that an MDFP tells of, within a packet's bounds."""
    return [
        Hosting(
            label=m["label"], task=m["task"], service_ms=max(0.0, m["service_ms"]), in_flight=m["in_flight"],
            accuracy={g: share_of(a) for g, a in list(m["accuracy"].items())[:MAX_GROUPS]},
        )
        for m in about.get("models", [])[:MAX_MODELS]
    ]  # fmt: skip


def share_of(figure: float) -> float:
    """Return a figure as a share of 1."""
    return min(1.0, max(0.0, figure)) if math.isfinite(figure) else 0.0
