"""Deployed models that fall behind the world: found by MPVUs, trained on by their owners, put in their own places anew.

At the home of a job whose model is deployed.  As soon as an MPVU holds late samples, a copy of the model travels there
and is measured; where the drift engine says that it has fallen, its owner has it trained on (a job of its own, which
begins where the deployed one stands), and what comes home takes the places of the old one, one replica after the other:
the new one serves before the old one is passed by.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from controller.border.messages import AskFacilities, Facility
from controller.errors import ControllerError
from controller.inference.deployment import Deployment, Line, site_key
from controller.inference.models import Deployed
from controller.runtime.loop import Worker
from controller.services import Services
from controller.values.decisions import Measured
from controller.values.errors import EngineError
from packets.labels import object_label
from packets.messages import AnnounceObject, Recalibrate, Remeasured
from packets.queries import variant_task
from topologies.plan import HostPlan

Verified = Callable[[int], tuple[Measured, float] | None]
LOOK_S = 1.0
OVERTIME_S = 60.0  # beyond a job's deadline, then its model counts as left as it is


@dataclass
class Watch:
    """What is known of one deployed model. ``late``: samples that each MPVU had when it was last looked at, and when a
    copy was last sent there; ``busy_until_s``: it is being trained on.
    """

    late: dict[str, int] = field(default_factory=dict)
    measured: dict[str, int] = field(default_factory=dict)
    busy_until_s: float = 0.0


class Calibration:
    """Keeps the deployed models of one domain's owners true to what the data nodes see.

    ``verified(job)``: what MPVUs measured of its model, and its deadline in seconds; None: no such job.
    """

    def __init__(self, services: Services, worker: Worker, deployment: Deployment, verified: Verified) -> None:
        self.services, self.worker, self.deployment, self.verified = services, worker, deployment, verified
        self._watches: dict[int, Watch] = {}

    # --- measured

    async def look(self) -> None:
        """Send a copy of each deployed model to an MPVU that has late samples it was not measured by (periodic)."""
        lines = [line for line in self.deployment.lines.values() if self.verified(line.for_object)]
        self._watches = {n: w for n, w in self._watches.items() if any(line.for_object == n for line in lines)}
        if not lines:
            return
        mpvus = await self.services.facilities(lambda k: AskFacilities(kas=k, role="mpvu"))
        for line in lines:
            watch = self._watches.setdefault(line.for_object, Watch())
            if self.services.clock() >= watch.busy_until_s and (mpvu := _news(watch, mpvus)) is not None:
                self.worker.spawn(self._send(line, mpvu), f"copy of a model of job {line.for_object:#x} to an MPVU")

    async def _send(self, line: Line, mpvu: Facility) -> None:
        if (held := await self._least_asked(line.task, line.for_object)) is not None:
            await self.deployment.send_copy(held, mpvu.handle_key, measure=True)

    async def _least_asked(self, task: str, job: int) -> Deployed | None:
        """Return the deployed model of a job that holds the fewest queries; None: none is deployed."""
        return min(await self._replicas(task, job), key=lambda d: d.model.in_flight, default=None)

    async def _replicas(self, task: str, job: int) -> list[Deployed]:
        """Return the deployed models of a job."""
        return [d for d in (await self.deployment.queries.models.of_task(task)).models if d.model.job == job]

    # --- fallen

    async def remeasured(self, message: Remeasured) -> None:
        """An MPVU has measured a deployed model: have it trained on where it has fallen."""
        verified = self.verified(message.object_id)
        line = next((x for x in self.deployment.lines.values() if x.for_object == message.object_id), None)
        watch = self._watches.get(message.object_id)
        if verified is None or line is None or watch is None or self.services.clock() < watch.busy_until_s:
            return
        known, deadline_s = verified
        now = Measured(broad=message.broad, per_group=message.per_group, samples=message.samples)
        try:
            fallen = await self.services.intelligence.engines.fallen(known, now, message.group_samples)
        except EngineError as error:
            self.services.emit("warning", text=f"the model of job {message.object_id:#x} stays as it is: {error}")
            return
        self.services.emit(
            "model.drifted" if fallen else "model.remeasured", object_id=message.object_id, task=line.task,
            broad=now.broad, was=known.broad, per_group=now.per_group, samples=now.samples, reasons=fallen,
        )  # fmt: skip
        if fallen:
            watch.busy_until_s = self.services.clock() + deadline_s + OVERTIME_S
            word = Recalibrate(object_id=message.object_id, reason="; ".join(fallen)[:400], broad=now.broad)
            self.worker.spawn(self._tell_owner(line, watch, word), f"re-calibration of job {message.object_id:#x}")

    async def _tell_owner(self, line: Line, watch: Watch, word: Recalibrate) -> None:
        try:
            await self.services.processes.tell(line.owner, word, word.object_id)
        except ControllerError as error:
            watch.busy_until_s = 0.0
            self.services.emit("warning", text=f"the model of job {word.object_id:#x} stays as it is: {error}")

    # --- put in place

    async def place_of(self, message: AnnounceObject) -> str:
        """Return the place of the least asked of the models that one replaces ('': it replaces none)."""
        if not message.replaces:
            return ""
        held = await self._least_asked(variant_task(message.task, message.variant), message.replaces)
        return site_key(held) if held is not None else ""

    def deployed(self, object_id: int, host: HostPlan, message: AnnounceObject) -> None:
        """A model was announced to be deployed; one that replaces another takes all places of that once it serves."""
        self.deployment.deployed(host, message)
        if message.replaces:
            replacing = self._replace(object_label(object_id), message)
            self.worker.spawn(replacing, f"models of job {message.replaces:#x} give way to object {object_id:#x}")

    async def _replace(self, label: int, message: AnnounceObject) -> None:
        task, began_s = variant_task(message.task, message.variant), self.services.clock()
        olds = await self._replicas(task, message.replaces)
        new = await self.deployment.serving(task, lambda d: d.model.label == label, f"model {label:#x}")
        await self.deployment.take_places(new, olds)
        self.deployment.lines.pop((task, message.replaces), None)
        self.services.emit(
            "model.redeployed", object_id=message.for_object, replaces=message.replaces, task=task,
            labels=[d.model.label for d in await self._replicas(task, message.for_object)],
            replaced=[d.model.label for d in olds], broad=message.accuracy.get("broad", 0.0),
            seconds=round(self.services.clock() - began_s, 3),
        )  # fmt: skip


def _news(watch: Watch, mpvus: list[Facility]) -> Facility | None:
    """Return an MPVU whose late samples have come in (no more since the last look), and were not measured by yet."""
    found = None
    for mpvu in mpvus:
        key, late = mpvu.handle_key, int(mpvu.attributes.get("late_samples") or 0)
        settled, fresh = watch.late.get(key) == late, late > watch.measured.get(key, 0)
        watch.late[key] = late
        if found is None and settled and fresh:
            found, watch.measured[key] = mpvu, late
    return found
