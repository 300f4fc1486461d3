"""Model owner: submits a job, launches a fresh model when admitted, takes it back with its training log, deploys it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from hosts.autonomy.departures import Departures
from hosts.control import Command
from hosts.errors import BadCommand, HostError
from hosts.inference.ways import NO_MODEL, CutSpec, cut_sides
from hosts.learning.compress import encoding_of, parse_spec
from hosts.learning.errors import LearningError
from hosts.learning.methods.split import cut_sizes
from hosts.learning.task import bytes_to_model, model_to_bytes
from hosts.learning.ways.models import task_of
from hosts.roles.base import OfModels, Role
from hosts.roles.own_jobs import OwnJob, OwnJobs
from hosts.roles.owner_pairs import Pairs, write
from hosts.terminal.terminal import Terminal
from packets.errors import DaitnError
from packets.messages import (
    Ack,
    AnnounceObject,
    AnnounceReply,
    Change,
    Inquire,
    JobSpec,
    JobStatus,
    LogPart,
    LogRequest,
    Message,
    MoveModel,
    Order,
    Recalibrate,
    Refused,
    Remeasured,
    Returned,
    Submit,
    SubmitReply,
)
from packets.options import Requirements
from packets.queries import variant_task
from packets.terms import Name
from packets.transport import OutgoingObject, ReceivedObject
from packets.wire import PacketType

UPPER = "split-upper"  # the variant that the lower side, `split`, asks
SHORT_OF = 0.03  # of the accuracy that a model had; less is no fall either (engine drift)
_MAX_LIMIT = 0xFFFF


class ModelOwner(Role):
    """Owns models and the requirements they must meet."""

    def __init__(self, terminal: Terminal) -> None:
        super().__init__(terminal)
        self.actions |= {"home": self.take_back}
        self.commands |= {
            "submit": self._submit, "deploy": self._deploy, "inquire": self._inquire, "change": self._change,
            "move": self._move, "split": self._split,
        }  # fmt: skip
        self._jobs = OwnJobs(terminal.folder)
        self._departures = Departures(terminal, self.itself)
        self._pairs = Pairs(terminal, self._trained, self._launch_later)
        self.commands |= self._pairs.commands

    # --- submit ---

    def _submit(self, command: Command) -> Command:
        try:
            spec = msgspec.convert(command.get("spec"), JobSpec)
        except msgspec.ValidationError as error:
            raise BadCommand(f"job spec: {error}") from None
        if spec.task != self.terminal.task.name:
            raise BadCommand(f"job spec: no task {spec.task!r} in this testbed, it runs {self.terminal.task.name!r}")
        try:
            parse_spec("none" if spec.compression == "auto" else spec.compression)
        except LearningError as error:
            raise BadCommand(f"job spec: {error}, or auto") from None
        try:
            model = task_of(self.terminal.task, spec.model).new_model(spec.seed)
        except LearningError as error:
            raise BadCommand(f"job spec: {error}") from None
        payload = model_to_bytes(model)
        lower, activation = cut_sizes(model)
        spec = msgspec.structs.replace(
            spec, model_bytes=len(payload), lower_bytes=lower, activation_bytes=activation
        )  # fmt: skip
        if spec.steering == "aats":
            reply = self._departures.submit(spec, lambda object_id: self._own(object_id, spec, payload))
            return {"reply": msgspec.to_builtins(reply)}
        reply = self.terminal.dcc.ask(
            Submit(name=self.terminal.name, spec=spec), SubmitReply, attempts=1, timeout_s=30.0
        )
        if reply.admitted:
            self._launch_later(self._own(reply.object_id, spec, payload))
        return {"reply": msgspec.to_builtins(reply)}

    def _own(self, object_id: int, spec: JobSpec, payload: bytes) -> OutgoingObject:
        """Remember a job that is admitted; return its model as it is first launched."""
        self._jobs.put(object_id, OwnJob(spec))
        return self._fresh(object_id, spec, payload)

    def tick(self) -> None:
        """Look whether objects that find their own way are overdue."""
        self._departures.tick()

    def _fresh(self, object_id: int, spec: JobSpec, payload: bytes) -> OutgoingObject:
        """The model at its first launch. The limit counts stops (also at MPVUs, and home), a guard like IP's TTL."""
        return OutgoingObject(
            object_id=object_id, type=PacketType.MODEL_SHARD, payload=payload, owner=self.terminal.plan.address,
            visit=0, visit_limit=min(_MAX_LIMIT, 4 * spec.max_visits + 8), requirements=_requirements(spec),
        )  # fmt: skip

    def _launch_later(self, obj: OutgoingObject) -> None:
        if not self.terminal.submit(lambda: self._launch(obj)):
            raise HostError(f"{self.terminal.name} is full: object {obj.object_id:#x} was not launched")

    def _launch(self, obj: OutgoingObject) -> None:
        try:
            self._by_dcc.go_on(obj)
        except DaitnError as error:
            self.terminal.complain(str(error), object_id=obj.object_id)

    # --- home ---

    def take_back(self, obj: ReceivedObject, order: Order) -> None:
        """Check and store the trained model with its log, then tell that it is home."""
        job = self._jobs.get(obj.object_id)
        if job is None:
            raise HostError(f"{self.terminal.name} never submitted it: not taken")
        payload = bytes(obj.payload)
        model = bytes_to_model(task_of(self.terminal.task, job.spec.model), payload)
        if encoding_of(payload)[0] != "none":
            payload = model_to_bytes(model)  # what is kept can be read by anybody who reads safetensors
        folder = self._jobs.store(obj.object_id, job, payload, self._whole_log(obj.object_id, order))
        job.accuracy = order.accuracy
        if job.replaces and not self.terminal.submit(lambda: self._redeploy(obj.object_id, job)):
            self.terminal.complain(f"{self.terminal.name} is full: model {obj.object_id:#x} was not deployed anew")
        self.terminal.emit(
            "object.returned", object_id=obj.object_id, node=self.terminal.name, bytes=len(payload), folder=str(folder)
        )
        message = Returned(name=self.terminal.name, object_id=obj.object_id, size_bytes=len(payload))
        self.guide(obj.object_id, obj.visit).returned(message)

    def _whole_log(self, object_id: int, order: Order) -> list[dict[str, Any]]:
        """The training log: what the order carries, and the rest in as many packets as it takes."""
        log = list(order.log)
        while len(log) < order.log_length:
            message = LogRequest(name=self.terminal.name, object_id=object_id, first=len(log))
            try:
                part = self.terminal.dcc.ask(message, LogPart, object_id=object_id)
            except HostError as error:
                self.terminal.complain(f"training log cut after {len(log)} of {order.log_length}: {error}")
                break
            if not part.entries:
                break
            log += part.entries
        return log

    # --- fallen behind ---

    def serve_dcc(self, message: OfModels) -> Message:
        """Have a deployed model trained on, as a job of its own that begins where the deployed one stands."""
        if isinstance(message, Remeasured):
            return self._pairs.learned(message)
        if not isinstance(message, Recalibrate):
            return super().serve_dcc(message)
        job = self._jobs.get(message.object_id)
        if job is None or job.model is None:
            return Refused(reason=f"{self.terminal.name} has no trained model of job {message.object_id:#x}")
        if not self.terminal.submit(lambda: self._recalibrate(job, message)):
            return Refused(reason=f"{self.terminal.name} is full: job {message.object_id:#x} is not trained on")
        return Ack()

    def _recalibrate(self, job: OwnJob, message: Recalibrate) -> None:
        assert job.model is not None
        about = f"model of job {message.object_id:#x} is not re-calibrated"
        try:
            for spec in (_as_it_was(job), msgspec.structs.replace(job.spec, trained=True)):
                wanted = Submit(name=self.terminal.name, spec=spec)
                reply = self.terminal.dcc.ask(wanted, SubmitReply, attempts=1, timeout_s=30.0)
                if reply.admitted:
                    break
            else:
                self.terminal.complain(f"{about}: {'; '.join(reply.reasons)}", object_id=message.object_id)
                return
            payload = job.model.read_bytes()
            self._jobs.put(reply.object_id, OwnJob(spec, replaces=message.object_id, beats=message.broad))
            self.terminal.emit(
                "model.recalibrating", object_id=reply.object_id, replaces=message.object_id, node=self.terminal.name,
                reason=message.reason,
            )  # fmt: skip
            self._launch(self._fresh(reply.object_id, spec, payload))
        except (DaitnError, OSError) as error:
            self.terminal.complain(f"{about}: {error}", object_id=message.object_id)

    def _redeploy(self, object_id: int, job: OwnJob) -> None:
        """Deploy a model that was trained on, in the places of those that it replaces, where it is the better one."""
        now = (job.accuracy or {}).get("broad", 0.0)
        if now <= job.beats:
            text = f"model {object_id:#x} is no better ({now:.3f}) than the one that is deployed ({job.beats:.3f})"
            self.terminal.complain(text, object_id=object_id)
            return
        try:
            self._deploy({"object_id": object_id, "replaces": job.replaces})
        except DaitnError as error:
            self.terminal.complain(f"model {object_id:#x} is not deployed anew: {error}", object_id=object_id)

    # --- afterwards ---

    def _deploy(self, command: Command) -> Command:
        """Deploy a trained model (of it a cache takes the accuracy alone), or the bytes of a file.

        {"object_id" | "file", "accuracy"?, "variant"?, "way"?, "to"?, "aats"?}. What is called otherwise than the
        task's model stays as it is when that one is trained on: it is told as no job's.
        """
        spec, payload, accuracy = self._trained(command)
        if command.get("aats"):
            return self._departures.deploy(command.get("object_id"))
        variant = command.get("variant", "")
        wanted: dict[str, Any] = {
            "m": "announce", "name": self.terminal.name, "kind": "deploy", "task": spec.task,
            "size_bytes": len(payload), "for_object": 0 if variant else command.get("object_id", 0),
            "accuracy": command.get("accuracy", accuracy), "variant": variant,
            "way": command.get("way") or {"model": spec.model}, "replaces": command.get("replaces", 0),
            "target": command.get("to", ""),
        }  # fmt: skip
        try:
            message = msgspec.convert(wanted, AnnounceObject)
            msgspec.convert(variant_task(spec.task, message.variant), Name)
        except msgspec.ValidationError as error:
            raise BadCommand(f"deployment: {error}") from None
        if message.way.kind == "cached":
            payload = NO_MODEL
            message = msgspec.structs.replace(message, size_bytes=len(payload))
        reply = self.terminal.dcc.ask(message, AnnounceReply)
        fresh = self._fresh(reply.object_id, spec, payload)
        self._launch_later(msgspec.structs.replace(fresh, visit_limit=4))
        return {"object_id": reply.object_id}

    def _split(self, command: Command) -> Command:
        """Cut a trained model in two, for ``deploy``: {"object_id", and what a ``CutSpec`` has}."""
        _, payload, accuracy = self._trained(command)
        about = {k: command.get(k) for k in CutSpec.__struct_fields__}
        try:
            sides = cut_sides(self.terminal.task, payload, UPPER, msgspec.convert(about, CutSpec))
        except (LearningError, msgspec.ValidationError) as error:
            raise BadCommand(f"split: {error}") from None
        folder = self.terminal.folder / f"{command['object_id']:x}"
        folder.mkdir(parents=True, exist_ok=True)
        told: Command = {k: getattr(sides.choice, k) for k in ("cut_ms", "whole_ms")} | {"at": sides.lower[1].cut}
        for variant, (data, way) in ((UPPER, sides.upper), ("split", sides.lower)):
            write(folder / f"{variant}.part", data)
            source = {"file": str(folder / f"{variant}.part"), "accuracy": accuracy}
            told[variant] = {"source": source, "way": msgspec.to_builtins(way)}
        return told

    def _trained(self, command: Command) -> tuple[JobSpec, bytes, dict[str, float]]:
        """Return what was asked of a model, its bytes and its accuracies."""
        if "file" in command:
            try:
                payload = Path(str(command["file"])).read_bytes()
            except OSError as error:
                raise BadCommand(f"file {command['file']!r}: {error.strerror}") from None
            return JobSpec(task=self.terminal.task.name), payload, {}
        job = self._job(command)
        if job.model is None:
            raise BadCommand(f"object {command['object_id']:#x} is not home yet; inquire how its job stands")
        try:
            return job.spec, job.model.read_bytes(), job.accuracy or {}
        except OSError as error:
            raise BadCommand(f"model of object {command['object_id']:#x}: {job.model}: {error.strerror}") from None

    def _move(self, command: Command) -> Command:
        """Have a deployed model moved: {"label", "to"? (``kas:@mdfp/number``; left out: where MDO sees fit)}."""
        label = command.get("label")
        if not isinstance(label, int):
            raise BadCommand(f"label {label!r}; give the number of a deployed model's label")
        task, to = str(command.get("task") or self.terminal.task.name), str(command.get("to") or "")
        self.terminal.dcc.ask(MoveModel(name=self.terminal.name, task=task, label=label, to=to), Ack)
        return {"moving": label}

    def _change(self, command: Command) -> Command:
        """Change a running job, or stop it: {"object_id", "stop"?, "max_visits"?, "deadline_s"?, ...}."""
        self._check_led(command)
        wanted = {key: value for key, value in command.items() if key != "op"}
        try:
            message = msgspec.convert({**wanted, "name": self.terminal.name, "m": "change"}, Change)
        except msgspec.ValidationError as error:
            raise BadCommand(f"change of a job: {error}") from None
        status = self.terminal.dcc.ask(message, JobStatus, object_id=message.object_id)
        return {"status": msgspec.to_builtins(status)}

    def _inquire(self, command: Command) -> Command:
        self._check_led(command)
        message = Inquire(name=self.terminal.name, object_id=command["object_id"])
        status = self.terminal.dcc.ask(message, JobStatus, object_id=command["object_id"])
        return {"status": msgspec.to_builtins(status)}

    def _check_led(self, command: Command) -> None:
        """Of a job that finds its own way nobody knows anything before its model is home."""
        if self._job(command).spec.steering == "aats":
            raise BadCommand(f"object_id {command['object_id']}: it finds its own way; nothing reaches it meanwhile")

    def _job(self, command: Command) -> OwnJob:
        object_id = command.get("object_id")
        if (job := self._jobs.get(object_id)) is None:
            raise BadCommand(f"object_id {object_id!r} is no job of {self.terminal.name}; its jobs: {self._jobs}")
        return job


def _as_it_was(job: OwnJob) -> JobSpec:
    """Return what a model that has fallen is to reach again: what it was verified with, give or take ``SHORT_OF``."""
    was, spec = job.accuracy or {}, job.spec
    broad = max(spec.broad_accuracy, was.get("broad", 0.0) - SHORT_OF)
    expert = max(spec.expert_accuracy, was.get(spec.expert_group or "", 0.0) - SHORT_OF)
    return msgspec.structs.replace(spec, broad_accuracy=broad, expert_accuracy=expert, trained=True)


def _requirements(spec: JobSpec) -> Requirements:
    return Requirements.of(
        spec.task, broad_accuracy=spec.broad_accuracy, expert_group=spec.expert_group,
        expert_accuracy=spec.expert_accuracy, trust_floor=spec.trust_floor, deadline_s=spec.deadline_s,
    )  # fmt: skip
