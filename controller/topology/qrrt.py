"""QS-QRRT: the query-specific topology, which deployed models of a task can be asked where, and how busy they are.

``qs_qrrt`` cuts it from the map (QRRT-O); ``QrrtA`` keeps it and cuts anew only when the map changed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from controller.topology.drrt import usable
from controller.topology.krrm import Krrm
from controller.values.decisions import Mix
from controller.values.knowledge import ModelAt, Node
from topologies.plan import DomainPlan


class QsQrrt(msgspec.Struct, frozen=True, kw_only=True):
    """The models that can be asked about ``task``, sorted by node."""

    task: str
    models: list[ModelAt]


class QrrtA:
    """Keep one task's query topology; ``recut`` counts how often it had to be cut anew."""

    def __init__(
        self,
        krrm: Krrm,
        domain: DomainPlan,
        task: str,
        *,
        trust_floor: float = 0.0,
        verified: Mapping[str, Mix] | None = None,
    ) -> None:
        self.recut = 0
        self._krrm = krrm
        self._domain = domain
        self._task = task
        self._trust_floor = trust_floor
        self._verified = verified
        self._at_version = -1
        self._kept: QsQrrt = QsQrrt(task=task, models=[])

    def refresh(self, now_s: float) -> QsQrrt:
        """Return the topology as the map has it now (ages are those of the last change)."""
        if self._at_version != self._krrm.version:
            self.recut += 1
            self._kept = qs_qrrt(
                self._krrm, self._domain, self._task, now_s, trust_floor=self._trust_floor, verified=self._verified
            )
            self._at_version = self._krrm.version
        return self._kept


def qs_qrrt(
    krrm: Krrm,
    domain_plan: DomainPlan,
    task: str,
    now_s: float,
    *,
    trust_floor: float = 0.0,
    verified: Mapping[str, Mix] | None = None,
) -> QsQrrt:
    """Cut the query topology of a task: reachable, trusted MDFPs of this domain that host a model of it.

    ``verified``: what the MPVUs measured of the model deployed at each node; it wins over what the node says of itself.
    """
    hosts = [n for n in krrm.nodes("mdfp") if n.kas in domain_plan.kas and usable(n, trust_floor)]
    known = verified or {}
    models = [_model_at(n, entry, known.get(n.name), now_s) for n in hosts for entry in _hosted(n, task)]
    return QsQrrt(task=task, models=models)


def _hosted(node: Node, task: str) -> list[dict[str, Any]]:
    """Return what a node says of each model of a task that it hosts."""
    return [entry for entry in node.get("models", []) if entry["task"] == task]


def _model_at(node: Node, entry: Mapping[str, Any], verified: Mix | None, now_s: float) -> ModelAt:
    told_s = node.attributes["models"].t_s
    since_s = entry.get("up_s", -1.0)
    return ModelAt(
        node=node.name,
        task=entry["task"],
        accuracy=dict(verified if verified is not None else entry["accuracy"]),
        load=node.get("load", 0.0),
        latency_ms=node.get("latency_ms", 0.0),
        kas=node.kas,
        age_s=round(max(0.0, now_s - told_s), 3),
        label=int(entry.get("label", 0)),
        service_ms=float(entry.get("service_ms", 0.0)),
        in_flight=int(entry.get("in_flight", 0)),
        arrivals_per_s=float(entry.get("arrivals_per_s", 0.0)),
        asked_by=dict(entry.get("asked_by", {})),
        job=int(entry.get("job", 0)),
        metrics=dict(node.get("metrics", {})),
        cache="hits" in entry,
        up_s=since_s if since_s < 0 else since_s + max(0.0, now_s - told_s),
    )
