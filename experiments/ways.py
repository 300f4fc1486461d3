"""Ways of inference beside the plain model: what a scenario's ``ways`` name is made of it or trained, and deployed.

Each is asked as a class of models of its own: ``variant_task(task, way)``.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from controller.values.paths import host_route
from experiments.errors import RunFailed
from experiments.load import put
from experiments.testbed.testbed import Bed
from packets.labels import object_label
from packets.messages import Fixed, JobSpec
from packets.queries import variant_task
from topologies.plan import HostPlan, NetworkPlan

DEPLOY_S, READY_S, LOOK_S = 30.0, 20.0, 0.25
MEMBERS = 3  # of an ensemble, the plain model among them
SEEDS_APART = 1000  # of the jobs of one: a run's own seeds follow each other
CHEAP = Fixed(epochs=6.0, learning_rate=1e-2)  # a model so small learns slowly at the rate of a large one
CHEAP_SHORT_OF = 0.2  # of the accuracy that is asked of the plain model: it is there to know less
VITALS = Fixed(epochs=6.0, learning_rate=3e-3)
VITALS_OF = 0.3  # of the accuracy that is asked of the plain model: vitals alone tell few diseases apart
Train = Callable[[Sequence[JobSpec]], list[int]]


@dataclass(frozen=True)
class Part:
    """A model to deploy as a variant. ``source``: which, as an owner's ``deploy`` takes it; ``to``: its place ('':
    where MDO sees fit).
    """

    variant: str
    source: dict[str, Any]
    way: dict[str, Any]
    to: str = ""


@dataclass(frozen=True)
class Site:
    """An MDFP, and what orders call it."""

    name: str
    host: HostPlan
    edge: bool


def sites(plan: NetworkPlan) -> list[Site]:
    """Return all MDFPs, those of K-AS in which somebody asks first."""
    asked = {h.kas for h in plan.hosts if h.role == "query_owner"}
    met: Counter[int] = Counter()
    found = []
    for host in sorted((h for h in plan.hosts if h.role == "mdfp"), key=lambda h: (h.kas, h.name)):
        found.append(Site(f"{host.kas}:@mdfp/{met[host.kas]}", host, host.kas in asked))
        met[host.kas] += 1
    return sorted(found, key=lambda site: not site.edge)


def cached(plan: NetworkPlan, object_id: int) -> list[Part]:
    """Return a cache for each K-AS that asks and has an MDFP; where none has both, for each that has one."""
    found = sites(plan)
    first = {s.host.kas: s.name for s in reversed(found) if s.edge or not found[0].edge}
    return [Part("cached", {"object_id": object_id}, {"kind": "cached", "asks": [""]}, to) for to in first.values()]


def ends(plan: NetworkPlan) -> tuple[Site, Site]:
    """Return where the lower side of a cut is to be, near who asks, and the upper one: in another K-AS if it can be."""
    lower, *others = sites(plan)
    return lower, next((s for s in others if s.host.kas != lower.host.kas), others[0])


def split(plan: NetworkPlan, owner: Callable[..., dict[str, Any]], object_id: int) -> tuple[list[Part], dict[str, Any]]:
    """Have the owner cut its model as is best between two places; return both sides, and what was expected of them."""
    lower, upper = ends(plan)
    route = host_route(plan.domain(), lower.host.name, upper.host.name)
    cut = owner(
        "split", object_id=object_id, shares=[lower.host.cpu_share, upper.host.cpu_share],
        rate_mbps=route.rate_mbps, rtt_ms=2 * route.delay_ms,
    )  # fmt: skip
    sides = {"split-upper": upper, "split": lower}  # who is asked is there before who asks
    parts = [Part(v, cut[v]["source"], cut[v]["way"], s.name) for v, s in sides.items()]
    return parts, {k: cut[k] for k in ("at", "cut_ms", "whole_ms")}


def collaborative(plan: NetworkPlan, object_id: int, members: Sequence[int]) -> list[Part]:
    """Return an ensemble of the plain model, near who asks, and others, wherever MDO sees fit."""
    others = [Part(f"member{n}", {"object_id": m}, {}) for n, m in enumerate(members, 1)]
    way = {"kind": "collaborative", "asks": [p.variant for p in others]}
    return [*others, Part("collaborative", {"object_id": object_id}, way, sites(plan)[0].name)]


def cheap_job(job: JobSpec) -> JobSpec:
    """Return the job that trains the cheap model of a cascade beside the model of another."""
    return _beside(job, "cheap", max(0.0, job.broad_accuracy - CHEAP_SHORT_OF), CHEAP)


def switched(plan: NetworkPlan, object_id: int, cheap: int, learned: dict[str, Any]) -> list[Part]:
    """Return a cascade: the cheap model near who asks, and the large one, which it asks where it is unsure."""
    near, far = ends(plan)
    source = {"object_id": cheap, "accuracy": learned["accuracy"]}
    return [
        Part("large", {"object_id": object_id}, {}, far.name),
        Part("switched", source, learned["way"], near.name),
    ]


def vitals_job(job: JobSpec) -> JobSpec:
    """Return the job that trains the model of vitals beside the one of findings of another."""
    return _beside(job, "vitals", VITALS_OF * job.broad_accuracy, VITALS)


def multimodal(object_id: int, vitals: int, learned: dict[str, Any]) -> list[Part]:
    """Return the models of findings and of vitals, and the fusion that asks both, each where MDO sees fit."""
    source = {"file": learned["file"], "accuracy": learned["accuracy"]}
    return [
        Part("text", {"object_id": object_id}, {}),
        Part("vitals", {"object_id": vitals}, {"model": "vitals"}),
        Part("multimodal", source, learned["way"]),
    ]


def _beside(job: JobSpec, model: Literal["cheap", "vitals"], broad_accuracy: float, hyper: Fixed) -> JobSpec:
    return msgspec.structs.replace(
        job, model=model, method="routed", broad_accuracy=broad_accuracy, expert_group=None, expert_accuracy=0.0,
        hyper=hyper,
    )  # fmt: skip


def _learn(bed: Bed, owner: str, op: str, **models: int) -> dict[str, Any]:
    """Have an MPVU learn how two models answer as one; return what the owner was told."""
    mark = len(bed.events)
    copy = bed.tell(owner, op, DEPLOY_S, **models)["object_id"]
    return bed.wait_event("way.learned", DEPLOY_S, mark, copy=copy).data


def deploy_ways(
    bed: Bed, owner: str, object_id: int, job: JobSpec, train: Train
) -> dict[str, dict[str, Any]]:  # fmt: skip
    """Deploy every way of the scenario beside a trained model; return what is to be told of each.

    ``train``: has further jobs carried out, and returns their models. ``RunFailed``: one is not answered in the end.
    """
    told: dict[str, dict[str, Any]] = {}
    for way in bed.scenario.ways:
        about: dict[str, Any] = {}
        if way == "cached":
            parts = cached(bed.plan, object_id)
        elif way == "split":
            parts, about = split(bed.plan, lambda op, **said: bed.tell(owner, op, DEPLOY_S, **said), object_id)
        elif way == "switched":
            (cheap,) = train([cheap_job(job)])
            learned = _learn(bed, owner, "switch", object_id=object_id, cheap=cheap)
            parts = switched(bed.plan, object_id, cheap, learned)
            about = {"cheap": cheap, **{k: learned["way"].get(k, 1.0) for k in ("threshold", "temperature")}}
        elif way == "multimodal":
            (vitals,) = train([vitals_job(job)])
            learned = _learn(bed, owner, "fuse", object_id=object_id, vitals=vitals)
            parts = multimodal(object_id, vitals, learned)
            about = {"vitals": vitals, "accuracy": learned["accuracy"]["broad"]}
        else:
            seeds = [job.seed + SEEDS_APART * n for n in range(1, MEMBERS)]
            about = {"members": train([msgspec.structs.replace(job, seed=seed) for seed in seeds])}
            parts = collaborative(bed.plan, object_id, about["members"])
        about["models"] = [{"variant": p.variant, **deploy_part(bed, owner, p)} for p in parts]
        for part, model in zip(parts, about["models"], strict=True):
            _await_partners(bed, part, model["node"])
        await_ready(bed, way)
        bed.hub.emit("way.deployed", way=way, **about)
        told[way] = about
    return told


def deploy_part(bed: Bed, owner: str, part: Part) -> dict[str, Any]:
    """Deploy one; return where it is once the map knows it, by its label."""
    mark = len(bed.events)
    said = bed.tell(owner, "deploy", DEPLOY_S, variant=part.variant, way=part.way, to=part.to, **part.source)
    node = bed.wait_event("model.deployed", DEPLOY_S, mark, object_id=said["object_id"]).data["node"]
    label = object_label(said["object_id"])

    def knows(data: dict[str, Any]) -> bool:
        return any(m.get("label") == label for m in data["attributes"].get("models") or [])

    bed.wait_event("krrm.updated", DEPLOY_S, mark, name=node, where=knows)
    return {"node": node, "label": label}


def _await_partners(bed: Bed, part: Part, node: str) -> None:
    """Wait until a model has been told who serves the variants that it asks."""
    kas = next(h.kas for h in bed.plan.hosts if h.name == node)
    for variant in part.way.get("asks", []):
        task = variant_task(bed.scenario.data.name, variant)
        bed.wait_event("query.steered", READY_S, task=task, kas=kas)


def await_ready(bed: Bed, way: str) -> None:
    """Wait until a way is answered in every K-AS that asks."""
    askers = {h.kas: h.name for h in reversed(bed.plan.hosts) if h.role == "query_owner" and h.name not in bed.absent}
    end = time.monotonic() + READY_S
    for _, asker in sorted(askers.items()):
        while time.monotonic() < end:
            with contextlib.suppress(RunFailed):
                put(bed, asker, "", task=variant_task(bed.scenario.data.name, way), of_load=True)
                break
            time.sleep(LOOK_S)
        else:  # once more, to say why
            put(bed, asker, "", task=variant_task(bed.scenario.data.name, way), of_load=True)
