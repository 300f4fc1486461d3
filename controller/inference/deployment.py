"""MDO at work: deployed models go where they are asked for, as travelling objects; none ends before its label does.

At the control centre in whose domain an owner deployed it, a model is placed, copied, moved and scaled down.  A move is
make before break: the copy serves before the old one is passed by, and that one ends when it has answered all it had.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from controller.border.messages import AskFacilities, CopyModel, Done, Facility, RetireModel
from controller.engines.inference.mdo import memory_needed_mib
from controller.errors import ControllerError, Denied, SteeringError
from controller.inference.demand import SteadyDemand
from controller.inference.health import Health
from controller.inference.models import Deployed
from controller.inference.queries import Queries
from controller.runtime.loop import Worker
from controller.services import Services
from controller.steering.announced import Objects
from controller.values.placement import Change, Demand, ModelNeed, Placement, PlacementSettings, Site
from packets.messages import Ack, AnnounceObject, Copy, MoveModel, Retire
from packets.queries import variant_task
from topologies.plan import HostPlan

LINES_KEPT = 256
COPY_S, LOOK_S = 60.0, 0.1
DRAIN_S, MOST_DRAIN_S = 1.0, 10.0  # a model that is passed by still gets what is on its way to it
ROUND_S = 5.0
SPEED = 1e3  # units of work a second of a site that answers a query in one millisecond
SETTLE_ROUNDS = {"add": 1, "move": 1, "remove": 3}  # in a row that say the same: what goes is soon missed again
PRICES = PlacementSettings(replica_ms=1.0, copy_ms=1.0)  # one is brought in where it saves 2 ms, kept where it saves 1


@dataclass
class Line:
    """A model that an owner deployed, of the job ``for_object`` (0: of a file); ``size_bytes``: of its file."""

    task: str
    for_object: int
    size_bytes: int
    owner: HostPlan


class Deployment:
    """Places, moves and retires the models that were deployed from this domain. ``every_s`` 0: only when it is told."""

    def __init__(self, services: Services, worker: Worker, queries: Queries, objects: Objects, health: Health) -> None:
        self.services, self.worker, self.queries = services, worker, queries
        self.objects, self.health = objects, health
        self.every_s = 0.0
        self.settings = PRICES
        self.lines = services.store.kept("deployed models", tuple[str, int], Line, LINES_KEPT)
        self._ending = services.store.kept("models that end", int, RetireModel)
        queries.models.retired.update(dict.fromkeys(self._ending, True))
        self._wanted: dict[tuple[str, str, str], int] = {}
        self._demand = SteadyDemand()
        self.moving = asyncio.Lock()
        self._next_s = 0.0

    # --- told

    def deployed(self, host: HostPlan, message: AnnounceObject) -> None:
        """A model was announced here to be deployed: by its owner (what is copied is looked after at its home); a cache
        stays where it is.
        """
        if host.role != "model_owner" or message.way.kind == "cached":
            return
        task = variant_task(message.task, message.variant)
        line = Line(task, message.for_object, message.size_bytes, host)
        self.lines.setdefault((task, message.for_object), line)

    async def move(self, host: HostPlan, message: MoveModel) -> Ack:
        """An owner has a replica of its model moved (``to`` '': where MDO sees fit); ``SteeringError``: it is none."""
        held = await self._replica(message.task, message.label)
        line = self.lines.get((held.task, held.model.job))
        if line is None or line.owner.name != host.name:
            raise Denied(
                "not-owner", f"model {message.label:#x} of task {message.task} was not deployed by {host.name}"
            )
        self.worker.spawn(self._move(held, message.to, f"{host.name} wants it"), f"move of model {message.label:#x}")
        return Ack()

    async def _replica(self, task: str, label: int) -> Deployed:
        seen = await self.queries.models.of_task(task)
        found = next((d for d in seen.models if d.model.label == label), None)
        if found is None:
            raise SteeringError(f"no deployed model of task {task} has label {label:#x}")
        return found

    # --- done

    async def _move(self, held: Deployed, to: str, why: str) -> Deployed:
        """Copy a replica to another place, wait until it serves, then retire the old one; return the new one."""
        async with self.moving:
            began_s = self.services.clock()
            new = await self._copy(held, to)
            self._tell("moved", held, new, why, began_s)
            await self.pass_by(held)
            return new

    async def _copy(self, held: Deployed, to: str) -> Deployed:
        """Have a replica sent to another place; return the new one, serving."""
        before = {d.model.label for d in (await self.queries.models.of_task(held.task)).models}
        await self.send_copy(held, to)
        about = f"the copy of model {held.model.label:#x}"
        return await self.serving(held.task, lambda d: d.model.label not in before, about)

    async def send_copy(self, held: Deployed, to: str, *, measure: bool = False) -> None:
        """Have a replica's terminal send a copy to another place; ``measure``: to an MPVU, which measures it."""
        label, handle = held.model.label, held.model.handle
        await self.services.must(CopyModel(kas=held.kas, label=label, handle=handle, to=to, measure=measure))

    async def serving(self, task: str, is_it: Callable[[Deployed], bool], about: str) -> Deployed:
        """Return a model once it serves, all K-AS told; ``SteeringError`` after a while."""
        end_s = self.services.clock() + COPY_S
        while self.services.clock() < end_s:
            await asyncio.sleep(LOOK_S)
            self.queries.models.forget()
            seen = await self.queries.models.of_task(task)
            found = next((d for d in seen.models if is_it(d)), None)
            if found is not None:
                await self.health.tell_of(found.kas)
                return found
        raise SteeringError(f"{about} was not there within {COPY_S:g} s")

    async def pass_by(self, held: Deployed) -> None:
        """Have a replica passed by, and end."""
        await self.services.must(RetireModel(kas=held.kas, label=held.model.label, handle=held.model.handle))

    async def take_places(self, new: Deployed, olds: Sequence[Deployed]) -> None:
        """Put a model in the places of others, one after the other, and have those end; it stands in one of them."""
        async with self.moving:
            for old in olds:
                if site_key(old) != site_key(new):
                    await self._copy(new, site_key(old))
                await self.pass_by(old)

    def _tell(self, what: str, held: Deployed, new: Deployed | None, why: str, began_s: float) -> None:
        self.services.emit(
            f"model.{what}", label=held.model.label, model=held.key, to=new.key if new else "",
            new_label=new.model.label if new else 0, reason=why, seconds=round(self.services.clock() - began_s, 3),
        )  # fmt: skip

    # --- asked by others

    async def copy(self, word: CopyModel) -> Done:
        """A terminal of this domain sends a copy of a model that it serves."""
        host = self.queries.models.places.resolve(0, word.kas, word.handle).host
        await self.services.processes.tell(host, Copy(label=word.label, to=word.to, measure=word.measure), 0)
        return Done()

    async def retire(self, word: RetireModel) -> Done:
        """Have a model of this domain passed by, and end when it has answered all that it was asked."""
        host = self.queries.models.places.resolve(0, word.kas, word.handle).host
        self.queries.models.retired[word.label] = True
        self._ending[word.label] = word
        await self.health.tell_of(word.kas)
        self.worker.spawn(self._end(host, word), f"end of model {word.label:#x} at {host.name}")
        return Done()

    async def _end(self, host: HostPlan, word: RetireModel) -> None:
        end_s = self.services.clock() + MOST_DRAIN_S
        await asyncio.sleep(DRAIN_S)
        while self._in_flight(host.name, word.label) and self.services.clock() < end_s:
            await asyncio.sleep(LOOK_S)
        await self.services.processes.tell(host, Retire(label=word.label), 0)
        await self.queries.leads.gone(word.label)
        self._ending.pop(word.label, None)
        self.services.emit("model.retired", label=word.label, node=host.name, kas=host.kas)

    def resume(self) -> None:
        """See to the end of models that an earlier life had passed by."""
        for word in list(self._ending.values()):
            host = self.queries.models.places.resolve(0, word.kas, word.handle).host
            self.worker.spawn(self._end(host, word), f"end of model {word.label:#x} at {host.name}")

    def _in_flight(self, name: str, label: int) -> int:
        if name not in self.services.krrm:
            return 0
        models = self.services.krrm.node(name).get("models") or []
        return next((int(m.get("in_flight", 0)) for m in models if m.get("label") == label), 0)

    # --- rounds

    async def round(self) -> None:
        """Look whether the models are where they are asked for (periodic, where that is switched on)."""
        now_s = self.services.clock()
        if not self.every_s or now_s < self._next_s or self.moving.locked():
            return
        self._next_s = now_s + self.every_s
        for line in list(self.lines.values()):
            try:
                await self._line(line)
            except ControllerError as error:
                self.services.emit("warning", text=f"placement of models of task {line.task}: {error}")

    async def _line(self, line: Line) -> None:
        seen = await self.queries.models.of_task(line.task)
        replicas = {site_key(d): d for d in seen.models if d.model.job == line.for_object}
        heard = [d for d in replicas.values() if not d.model.silent]
        if seen.silent or not any(d.model.service_ms for d in heard):
            return
        placement = await self._optimise(line, replicas)
        for change in self._settled(placement, line):
            await self._change(change, replicas)

    async def _optimise(self, line: Line, replicas: Mapping[str, Deployed]) -> Placement:
        """Work out where the replicas belong: demand as the models count it, by the K-AS it comes from."""
        sites, path_ms = await self._sites(line, replicas)
        asked: dict[str, float] = {}
        for d in replicas.values():
            for kas, rate in d.model.asked_by.items():
                asked[kas] = asked.get(kas, 0.0) + rate
        steady = self._demand.saw((line.task, line.for_object), asked)
        need = ModelNeed(model=line.task, memory_mib=memory_needed_mib(line.size_bytes), work=1.0,
                         size_bytes=line.size_bytes)  # fmt: skip
        demands = [Demand(model=line.task, origin=kas, rate_per_s=rate) for kas, rate in steady.items()]
        return await self.services.intelligence.engines.optimise(sites, [need], demands, path_ms, self.settings)

    async def _sites(
        self, line: Line, replicas: Mapping[str, Deployed]
    ) -> tuple[list[Site], dict[str, dict[str, float]]]:
        """Return MDFPs as sites (their speed as measured, or as the mean where one has not served), and the ways; one
        whose replica is silent, or about to end, is none.
        """
        found = await self.services.facilities(lambda k: AskFacilities(kas=k, role="mdfp"))
        speeds = {key: SPEED / d.model.service_ms for key, d in replicas.items() if d.model.service_ms}
        usual = sum(speeds.values()) / len(speeds)
        sites = [
            Site(
                name=f.handle_key, memory_mib=float(f.attributes.get("memory_mib") or 0.0),
                speed=speeds.get(f.handle_key, usual),
                hosts=[line.task] if f.handle_key in replicas else [],
            )
            for f in found
            if f.attributes.get("ready") and (f.handle_key in replicas or line.task not in _tasks(f))
        ]  # fmt: skip
        kas_of = {f.handle_key: f.kas for f in found}
        ways = {
            str(k): {s.name: self.queries.models.between_ms(k, kas_of[s.name]) for s in sites}
            for k in self.services.all_kas
        }
        return sites, ways

    def _settled(self, placement: Placement, line: Line) -> list[Change]:
        """Return the changes that rounds in a row have asked for."""
        asked = {(line.task, c.kind, c.site): c for c in placement.changes}
        self._wanted = {k: n for k, n in self._wanted.items() if k[0] != line.task or k in asked}
        for key in asked:
            self._wanted[key] = self._wanted.get(key, 0) + 1
        return [c for key, c in asked.items() if self._wanted[key] >= SETTLE_ROUNDS[c.kind]]

    async def _change(self, change: Change, replicas: dict[str, Deployed]) -> None:
        began_s = self.services.clock()
        if change.kind == "remove" and len(replicas) > 1:
            held = replicas.pop(change.site)
            self._tell("scaled", held, None, change.reason, began_s)
            await self.pass_by(held)
        elif change.kind == "move":
            replicas[change.site] = await self._move(replicas.pop(change.source), change.site, change.reason)
        elif change.kind == "add":
            async with self.moving:
                source = min(replicas.values(), key=lambda d: d.model.in_flight)
                new = replicas[change.site] = await self._copy(source, change.site)
                self._tell("copied", source, new, change.reason, began_s)


def _tasks(facility: Facility) -> set[str]:
    return {str(m.get("task")) for m in facility.attributes.get("models") or []}


def site_key(deployed: Deployed) -> str:
    """Return the place of a replica among all K-AS."""
    return deployed.key.partition("#")[0]
