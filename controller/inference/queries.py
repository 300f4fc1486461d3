"""Queries: a class label names what is wanted; Q-FAM admits, QIRCE shares queries among MDFPs, flows carry them."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from dataclasses import dataclass, field

from controller.access.packets import AiPacket
from controller.access.places import Places
from controller.border.messages import AskModels, Model, Models, Spread, Way, place_key
from controller.errors import BorderError, SteeringError
from controller.services import Services
from controller.tools.communication import Entry, Exit
from controller.values.errors import NoPath
from controller.values.knowledge import ModelAt
from controller.values.paths import host_route, kas_graph
from packets.labels import class_label
from packets.messages import Ask, decode_message
from topologies.plan import HostPlan

ACCURACY_CLASSES = 10
Spot = tuple[int, str]


@dataclass
class Spreading:
    """What is installed for one asker's queries of a class."""

    task: str
    floor: float
    weights: list[tuple[str, int]] = field(default_factory=list)


class Queries:
    """Steers queries out of, through and into one domain."""

    def __init__(self, services: Services, places: Places) -> None:
        self.services, self.places = services, places
        self.active: dict[tuple[int, str], Spreading] = {}
        self._locks: defaultdict[tuple[int, str], asyncio.Lock] = defaultdict(asyncio.Lock)

    async def ask(self, ai: AiPacket) -> None:
        """Steer this asker's queries of a class from now on, release this one; ``SteeringError`` when not admitted."""
        message = decode_message(ai.payload)
        if not isinstance(message, Ask):
            raise SteeringError(f"a query packet carries an Ask, not {type(message).__name__}")
        floor = _floor(message.task, ai.label)
        async with self._locks[ai.label, ai.host.name]:
            if (ai.label, ai.host.name) not in self.active:
                await self._install(ai.host, ai.label, Spreading(message.task, floor))
        self.services.communication.release(ai.packets)

    async def _install(self, host: HostPlan, label: int, spreading: Spreading) -> None:
        spots, weights = await self._choose(host, spreading)
        spreading.weights = weights
        ways = _ways(self.services, host.kas, [(spots[node], weight) for node, weight in weights])
        for spread in _spreads(ways, host, label):
            if spread.kas != host.kas:
                await self.services.must(spread)
        own = [_exit(self.services, self.places, host.kas, way) for way in ways[host.kas].values()]
        await self.services.communication.spread(label, Entry(host.switch, host.port), host.address, own)
        self.active[label, host.name] = spreading
        self.services.emit(
            "query.steered", label=label, asker=host.name, task=spreading.task, kas=host.kas, weights=weights
        )

    async def _choose(self, host: HostPlan, spreading: Spreading) -> tuple[dict[str, Spot], list[tuple[str, int]]]:
        """Return where each candidate is, and the weights that QIRCE gives those that satisfy the class."""
        asked = [AskModels(kas=kas, task=spreading.task) for kas in self.services.all_kas]
        answers = await asyncio.gather(*(self.services.must(a) for a in asked))
        said = [(a.kas, r.models) for a, r in zip(asked, answers, strict=True) if isinstance(r, Models)]
        found = [(kas, model) for kas, models in said for model in models]
        models = [_model_at(kas, model, spreading.task) for kas, model in found]
        path_ms = {m.node: self._path_ms(host.kas, kas, model) for m, (kas, model) in zip(models, found, strict=True)}
        asked_for = spreading.task, models, spreading.floor, path_ms
        verdict, weights = await self.services.intelligence.answerers(*asked_for)
        if not verdict.admitted:
            raise SteeringError("; ".join(verdict.reasons))
        if not weights:
            raise SteeringError(f"no MDFP that hosts task {spreading.task} can be reached")
        return {place_key(kas, m.handle): (kas, m.handle) for kas, m in found}, weights

    def _path_ms(self, start: int, end: int, model: Model) -> float:
        if start == end:
            return model.inner_ms
        down = [(min(p), max(p)) for p in self.services.domain.down_kas]
        try:
            return kas_graph(self.services.domain.plan.kas_links, down).route(start, end).delay_ms + model.inner_ms
        except NoPath:
            return float("inf")

    def models(self, kas: int, task: str) -> list[Model]:
        """Return the deployed models of a task in one K-AS of this domain, nodes as handles."""
        found = self.services.intelligence.models(task, self.services.clock())
        return [self._offer(m) for m in found if m.kas == kas and self.services.processes.reachable(m.node)]

    def _offer(self, model: ModelAt) -> Model:
        domain = self.services.domain
        gateway = next((s.name for s in domain.switches_of(model.kas) if s.gateway), domain.hosts[model.node].switch)
        try:
            inner_ms = host_route(domain.plan, gateway, model.node, domain.down_links()).delay_ms
        except NoPath:
            inner_ms = float("inf")
        return Model(
            handle=self.places.handle(model.node),
            accuracy=model.accuracy,
            load=model.load,
            latency_ms=model.latency_ms,
            inner_ms=inner_ms,
        )

    def offer(self, ask: AskModels) -> Models:
        """Say which deployed models of a task a K-AS of this domain has."""
        return Models(models=self.models(ask.kas, ask.task))

    async def spread(self, request: Spread) -> None:
        """Queries from another K-AS come in: have their flows ready."""
        exits = [_exit(self.services, self.places, request.kas, way) for way in request.ways]
        for before in request.from_kas:
            border = self.services.domain.border(request.kas, before)
            if border is None:
                raise SteeringError(f"K-AS {request.kas} has no live border to K-AS {before}")
            await self.services.communication.spread(
                request.label, Entry(border.switch, border.port), request.asker, exits
            )

    async def reweigh(self) -> None:
        """Loads change: choose again for every active class, and install what came out differently (periodic)."""
        for (label, asker), spreading in list(self.active.items()):
            host = self.services.domain.hosts[asker]
            before = dict(spreading.weights)
            try:
                _, weights = await self._choose(host, spreading)
                if _differs(before, dict(weights)):
                    await self._install(host, label, spreading)
            except BorderError as error:  # one K-AS says nothing now: its classes stay as they are, others go on
                self.services.emit(
                    "warning", text=f"queries of {spreading.task} by {asker} keep their weights: {error}"
                )
            except SteeringError as error:
                del self.active[label, asker]
                await self.services.communication.unspread(label, host.address)
                self.services.emit("query.unserved", asker=asker, task=spreading.task, reason=str(error))


def _differs(before: dict[str, int], after: dict[str, int]) -> bool:
    """Small changes of weight are not worth a flow."""
    return before.keys() != after.keys() or any(abs(before[n] - w) > 0.2 * before[n] for n, w in after.items())


def _floor(task: str, label: int) -> float:
    """Return the least broad accuracy of a label's accuracy class (tenths); ``SteeringError``: another task's label."""
    for accuracy_class in range(ACCURACY_CLASSES):
        if class_label(task, accuracy_class) == label:
            return accuracy_class / ACCURACY_CLASSES
    raise SteeringError(f"the label of the query is not one of task {task}")


def _model_at(kas: int, model: Model, task: str) -> ModelAt:
    node = place_key(kas, model.handle)
    return ModelAt(node=node, task=task, accuracy=model.accuracy, load=model.load, latency_ms=model.latency_ms, kas=kas)


def _ways(services: Services, start: int, chosen: list[tuple[Spot, int]]) -> dict[int, dict[tuple[int, str], Way]]:
    """Return the ways on of each K-AS on the shortest paths from ``start``; weights add up where paths share a way."""
    ways: dict[int, dict[tuple[int, str], Way]] = {}
    for (kas, handle), weight in chosen:
        path = services.domain.kas_path(start, kas)
        for here, onward in zip(path, [*path[1:], 0], strict=True):
            key = (onward, "" if onward else handle)
            at = ways.setdefault(here, {})
            old = at[key].weight if key in at else 0
            at[key] = Way(weight=old + weight, to_kas=onward, handle=key[1])
    return ways


def _spreads(ways: dict[int, dict[tuple[int, str], Way]], host: HostPlan, label: int) -> list[Spread]:
    before: defaultdict[int, list[int]] = defaultdict(list)
    for kas, onward in ways.items():
        for to_kas, _ in onward:
            if to_kas:
                before[to_kas].append(kas)
    return [
        Spread(kas=kas, label=label, asker=host.address, from_kas=before[kas] or [kas], ways=list(onward.values()))
        for kas, onward in ways.items()
    ]


def _exit(services: Services, places: Places, kas: int, way: Way) -> tuple[Exit, int]:
    if not way.to_kas:
        host = places.resolve(0, kas, way.handle).host
        return Exit(host.switch, host.port, host), way.weight
    border = services.domain.border(kas, way.to_kas)
    if border is None:
        raise SteeringError(f"K-AS {kas} has no live border to K-AS {way.to_kas}")
    return Exit(border.switch, border.port), way.weight
