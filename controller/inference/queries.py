"""Queries: a class label names what is wanted; Q-FAM admits, QIRCE shares queries among models, groups carry them.

The first query of a class in a K-AS comes up: it is decided, every switch at which queries come in gets its group, and
only then the query is let go.  Askers that choose for themselves ask for the models of their class (``replicas``).
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from controller.access.packets import AiPacket
from controller.access.places import Places
from controller.engines.inference.cats import USUAL, levels, own_metrics
from controller.errors import BorderError, ControllerError, SteeringError
from controller.inference.leads import Leads
from controller.inference.models import Deployed, DeployedModels, as_engines_see
from controller.runtime.bounded import Bounded
from controller.services import Services
from controller.values.decisions import Assessment
from controller.values.errors import EngineError
from packets.labels import label_address
from packets.messages import Ask, AskPart, AskReplicas, Known, Need, Replicas, decode_message
from packets.queries import MAX_REPLICAS, query_label
from topologies.plan import HostPlan

CLASSES_KEPT = 2048  # in one domain; the one decided longest ago is given back
ASKERS = ("query_owner", "model_owner")
Weights = dict[int, int]


@dataclass
class QueryClass:
    """A class of queries in one K-AS: who answers it, by label, and with which weight."""

    kas: int
    label: int
    task: str
    need: Need
    weights: Weights = field(default_factory=dict)
    switches: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class Decision:
    """Who answers a class, best first; ``silent``: K-AS that were asked for their models and did not say."""

    chosen: list[tuple[Deployed, int]]
    silent: frozenset[int]

    @property
    def weights(self) -> Weights:
        """Weight by label."""
        return {deployed.model.label: weight for deployed, weight in self.chosen}


class Queries:
    """Steers the queries that come in in one domain."""

    def __init__(self, services: Services, places: Places) -> None:
        self.services = services
        self.models = DeployedModels(services, places)
        self.leads = Leads(services, places)
        self.active = services.store.kept("classes of queries", tuple[int, int], QueryClass, 2 * CLASSES_KEPT)
        self._locks: Bounded[tuple[int, int], asyncio.Lock] = Bounded()
        self._metrics = USUAL + own_metrics(services.intelligence.engines.metrics)

    # --- asked

    async def ask(self, ai: AiPacket) -> None:
        """Steer the queries of a class from now on, release this one; ``SteeringError`` when it is not admitted."""
        message = decode_message(ai.payload)
        if not isinstance(message, Ask | AskPart):
            raise SteeringError(f"a query packet carries an Ask, not {type(message).__name__}")
        if query_label(message.task, message.need) != ai.label:
            raise SteeringError(f"the label of the query is not one of task {message.task} and what it needs")
        await self._ensure(ai.host, QueryClass(ai.host.kas, ai.label, message.task, message.need))
        self.services.communication.release(ai.packets)

    async def replicas(self, host: HostPlan, message: AskReplicas) -> Replicas:
        """Name the models of a class, for an asker that chooses for itself; ``SteeringError`` when not admitted."""
        label = query_label(message.task, message.need)
        wanted = await self._ensure(host, QueryClass(host.kas, label, message.task, message.need))
        seen = await self.models.of_task(wanted.task)
        known = [self._known(wanted, d) for d in seen.models if d.model.label in wanted.weights]
        return Replicas(label=label, replicas=sorted(known, key=lambda k: -k.weight)[:MAX_REPLICAS])

    def _known(self, wanted: QueryClass, deployed: Deployed) -> Known:
        m = deployed.model
        return Known(
            label=m.label, path_ms=self.models.path_ms(wanted.kas, deployed), service_ms=m.service_ms,
            in_flight=m.in_flight, arrivals_per_s=m.arrivals_per_s, accuracy=m.accuracy.get("broad", 0.0),
            weight=wanted.weights[m.label], age_s=m.age_s, metrics=m.metrics,
        )  # fmt: skip

    async def _ensure(self, host: HostPlan, wanted: QueryClass) -> QueryClass:
        """Return the class as it stands in the asker's K-AS, with rules at the asker's switch."""
        key = wanted.kas, wanted.label
        if key not in self._locks:
            self._locks[key] = asyncio.Lock()
        async with self._locks[key]:
            held = self.active.get(key)
            if held is None:
                began_s = self.services.clock()
                decision = await self._decide(wanted)
                await self._install(wanted, decision, {host.switch, *self._entries(host.kas)})
                self._tell(wanted, decision, host.name, (self.services.clock() - began_s) * 1e3)
                self.active[key] = held = wanted
                await self._bound()
            elif (held.task, held.need) != (wanted.task, wanted.need):
                text = f"label {wanted.label:#x} is that of task {held.task} with other needs; ask for a little less"
                raise SteeringError(text)
            elif host.switch not in held.switches:
                await self._install(held, None, {*held.switches, host.switch})
        return held

    def _entries(self, kas: int) -> set[str]:
        """Return the switches at which the queries of a K-AS come in."""
        return {h.switch for h in self.services.domain.hosts_of(kas) if h.role in ASKERS}

    # --- decided

    async def _decide(self, wanted: QueryClass) -> Decision:
        """Let Q-FAM admit a class and QIRCE share it; ``SteeringError`` with every reason, and what would be served."""
        seen = await self.models.of_task(wanted.task)
        reach = {d.key: self._reach_ms(wanted, d) for d in seen.models}
        models = [as_engines_see(wanted.task, d) for d in seen.models]
        try:
            verdict, shares = await self.services.intelligence.answerers(wanted.task, models, wanted.need, reach)
        except EngineError as error:  # of a lender that is silent now: classes that are served stay as they are
            raise BorderError(str(error)) from error
        if not verdict.admitted:
            raise SteeringError(_rejection(verdict))
        by_key = {d.key: d for d in seen.models}
        chosen = [(by_key[key], weight) for key, weight in shares[:MAX_REPLICAS]]
        if caches := [c for c in chosen if c[0].model.cache]:  # what two remember of each other's askers is of no use
            chosen = [min(caches, key=lambda c: (reach[c[0].key], c[0].key))]
        if not chosen:
            raise SteeringError(f"no MDFP that hosts task {wanted.task} can be reached")
        return Decision(chosen, seen.silent)

    def _reach_ms(self, wanted: QueryClass, deployed: Deployed) -> float:
        if wanted.need.local and deployed.kas != wanted.kas:
            return float("inf")
        return self.models.path_ms(wanted.kas, deployed)

    async def _install(self, wanted: QueryClass, decision: Decision | None, switches: set[str]) -> None:
        """Have the class shared at these switches as decided (None: as before), confirmed; leads stand first."""
        if decision is not None:
            await self._lay(wanted.kas, decision)
        weights = decision.weights if decision is not None else wanted.weights
        classes = self.services.communication.classes
        told = [name for name in sorted(switches) if classes.share(wanted.label, name, weights)]
        await self.services.communication.settle(told)
        wanted.weights, wanted.switches = weights, switches
        if self.active.get((wanted.kas, wanted.label)) is wanted:
            self.active[wanted.kas, wanted.label] = wanted

    async def _lay(self, kas: int, decision: Decision) -> None:
        missing = [d for d, _ in decision.chosen if not self.leads.leads(kas, d.model.label)]
        await asyncio.gather(*(self.leads.lay(kas, d.model.label, d.kas, d.model.handle) for d in missing))

    def _tell(self, wanted: QueryClass, decision: Decision, asker: str = "", took_ms: float = 0.0) -> None:
        """Tell who answers a class from now on; ``asker``: of its first query, which waited ``took_ms`` for it."""
        away = {d.key: self.models.path_ms(wanted.kas, d) for d, _ in decision.chosen}
        cats = {
            x.node: x.by_category | {"score": x.score}
            for x in levels([as_engines_see(wanted.task, d) for d, _ in decision.chosen], away, self._metrics)
        }
        models = [
            {"model": d.key, "label": d.model.label, "weight": weight, "kas": d.kas, "path_ms": round(away[d.key], 3),
             "service_ms": round(d.model.service_ms, 3), "in_flight": d.model.in_flight, "age_s": d.model.age_s,
             "accuracy": d.model.accuracy.get("broad", 0.0), "metrics": d.model.metrics, "cats": cats.get(d.key, {})}
            for d, weight in decision.chosen
        ]  # fmt: skip
        self.services.emit(
            "query.steered", label=wanted.label, address=label_address(wanted.label), task=wanted.task, kas=wanted.kas,
            need=wanted.need, switches=sorted(wanted.switches),
            weights=[(m["model"], m["weight"]) for m in models], models=models, first=bool(asker), asker=asker,
            took_ms=round(took_ms, 3),
        )  # fmt: skip

    async def _bound(self) -> None:
        while len(self.active) > CLASSES_KEPT:
            await self._give_back(self.active.pop(next(iter(self.active))))

    async def _give_back(self, held: QueryClass) -> None:
        communication = self.services.communication
        await communication.settle(communication.classes.unshare(held.label, held.switches))

    # --- kept true

    def restore(self) -> None:
        """Remember what an earlier life laid, for the switches that connect."""
        self.leads.restore()
        classes = self.services.communication.classes
        for key, held in list(self.active.items()):
            if all((label, held.kas) in classes.leads for label in held.weights):
                for name in sorted(held.switches):
                    classes.share(held.label, name, held.weights)
            else:
                del self.active[key]

    async def reweigh(self) -> None:
        """Loads change, models come and go: choose again for every active class, install what came out differently
        (periodic, and at once when a K-AS says so).
        """
        self.models.forget()
        for key, held in list(self.active.items()):
            try:
                decision = await self._decide(held)
                if decision.silent:
                    raise BorderError(f"K-AS {', '.join(map(str, sorted(decision.silent)))} did not answer")
                if _differs(held.weights, decision.weights):
                    await self._install(held, decision, held.switches)
                    self._tell(held, decision)
            except BorderError as error:  # one K-AS says nothing now: its classes stay as they are, others go on
                self.services.emit("warning", text=f"queries of {held.task} keep their weights: {error}")
            except ControllerError as error:
                await self._unserved(key, held, error)

    async def _unserved(self, key: tuple[int, int], held: QueryClass, error: Exception) -> None:
        """Nobody can answer a class any more: its next query comes up, and its asker is told why."""
        if self.active.pop(key, None) is None:
            return  # another look at the classes, under way at the same time, has said so
        await self._give_back(held)
        self.services.emit("query.unserved", task=held.task, kas=held.kas, label=held.label, reason=str(error))

    async def links_changed(self) -> None:
        """Links came or went: lead and share by the ways that are there now."""
        await self.leads.mend()
        await self.reweigh()


def _rejection(verdict: Assessment) -> str:
    """Return every reason, and the nearest class that would be served."""
    reasons = "; ".join(verdict.reasons)
    near = ", ".join(f"{name.replace('_s', '')} {value:.3g}" for name, value in verdict.nearest.items() if value)
    return f"{reasons} (would be served: {near})" if near else reasons


def _differs(before: Weights, after: Weights) -> bool:
    """Small changes of weight are not worth a message."""
    return before.keys() != after.keys() or any(abs(before[n] - w) > 0.2 * before[n] for n, w in after.items())
