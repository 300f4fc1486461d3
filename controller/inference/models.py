"""QRRT-O at work: the deployed models of this domain as others may know them, and those of all K-AS, kept fresh."""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass

from controller.access.places import Places
from controller.border.messages import AskModels, Model, Models, place_key
from controller.runtime.bounded import Bounded
from controller.services import Services
from controller.values.errors import NoPath
from controller.values.knowledge import ModelAt
from controller.values.paths import host_route, kas_graph

FRESH_S = 0.05  # what is younger is not asked for again: many classes, and many askers, are of one task


@dataclass(frozen=True)
class Deployed:
    """A model somewhere: its K-AS, and what that says of it."""

    kas: int
    model: Model
    task: str = ""

    @property
    def key(self) -> str:
        """Its name among all models of the task."""
        place = place_key(self.kas, self.model.handle)
        return f"{place}#{self.model.label:x}" if self.model.label else place


@dataclass(frozen=True)
class Seen:
    """The models of a task as they were at ``at_s``; ``silent``: K-AS that did not say."""

    at_s: float
    models: list[Deployed]
    silent: frozenset[int]


class DeployedModels:
    """Offers this domain's models, gathers all. ``out``: nodes that are silent, and not asked where others are not;
    ``retired``: labels of models that are passed by.
    """

    def __init__(self, services: Services, places: Places) -> None:
        self.services, self.places = services, places
        self.out: set[str] = set()
        self.retired: Bounded[int, bool] = Bounded()
        self._seen: dict[str, Seen] = {}
        self._asking: dict[str, asyncio.Task[Seen]] = {}

    # --- this domain's

    def offer(self, ask: AskModels) -> Models:
        """Say which deployed models of a task a K-AS of this domain has, nodes as handles."""
        found = self.services.intelligence.models(ask.task, self.services.clock())
        here = [
            m for m in found
            if m.kas == ask.kas and m.label and m.label not in self.retired
            and self.services.processes.reachable(m.node)
        ]  # fmt: skip
        return Models(models=[self._offer(m) for m in here])

    def _offer(self, model: ModelAt) -> Model:
        return Model(
            handle=self.places.handle(model.node), accuracy=model.accuracy, load=model.load,
            latency_ms=model.latency_ms, inner_ms=self._inner_ms(model.kas, model.node), label=model.label,
            service_ms=model.service_ms, in_flight=model.in_flight, arrivals_per_s=model.arrivals_per_s,
            up_s=model.up_s, age_s=model.age_s, asked_by=model.asked_by, job=model.job, metrics=model.metrics,
            cache=model.cache, silent=model.node in self.out,
        )  # fmt: skip

    def _inner_ms(self, kas: int, node: str) -> float:
        domain = self.services.domain
        gateway = next((s.name for s in domain.switches_of(kas) if s.gateway), domain.hosts[node].switch)
        try:
            return host_route(domain.plan, gateway, node, domain.down_links()).delay_ms
        except NoPath:
            return math.inf

    # --- all

    async def of_task(self, task: str) -> Seen:
        """Return the models of a task in all K-AS, not older than ``FRESH_S``; asked for once, whoever waits."""
        seen = self._seen.get(task)
        if seen is not None and self.services.clock() - seen.at_s < FRESH_S:
            return seen
        asking = self._asking.get(task)
        if asking is None:
            asking = self._asking[task] = asyncio.ensure_future(self._ask(task))
            asking.add_done_callback(lambda _: self._asking.pop(task, None))
        return await asyncio.shield(asking)

    def forget(self) -> None:
        """Something changed: what was seen counts no more."""
        self._seen.clear()

    async def _ask(self, task: str) -> Seen:
        kas = self.services.all_kas
        answers = await asyncio.gather(*(self.services.may(AskModels(kas=k, task=task)) for k in kas))
        found = [(k, a) for k, a in zip(kas, answers, strict=True) if isinstance(a, Models)]
        models = [Deployed(k, m, task) for k, answer in found for m in answer.models]
        # where nothing is heard of any, the machine is slow rather than all of them dead: better late than refused
        models = [d for d in models if not d.model.silent] or models
        seen = Seen(self.services.clock(), models, frozenset(kas) - {k for k, _ in found})
        if len(self._seen) > 256:
            self._seen.clear()
        self._seen[task] = seen
        return seen

    def path_ms(self, start: int, deployed: Deployed) -> float:
        """Return the one-way milliseconds from a K-AS to a model (inf: no way)."""
        return self.between_ms(start, deployed.kas) + deployed.model.inner_ms

    def between_ms(self, start: int, end: int) -> float:
        """Return the one-way milliseconds between two K-AS (inf: no way)."""
        if start == end:
            return 0.0
        down = [(min(p), max(p)) for p in self.services.domain.down_kas]
        try:
            return kas_graph(self.services.domain.plan.kas_links, down).route(start, end).delay_ms
        except NoPath:
            return math.inf


def as_engines_see(task: str, deployed: Deployed) -> ModelAt:
    """Return a model as the engines are told of it; its node is its key among all."""
    m = deployed.model
    return ModelAt(
        node=deployed.key, task=task, accuracy=m.accuracy, load=m.load, latency_ms=m.latency_ms, kas=deployed.kas,
        age_s=m.age_s, label=m.label, service_ms=m.service_ms, in_flight=m.in_flight,
        arrivals_per_s=m.arrivals_per_s, up_s=m.up_s, metrics=m.metrics,
    )  # fmt: skip
