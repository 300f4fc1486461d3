"""MPVU, model performance verification unit: measures models on test samples that every data node sent it.

It holds one of the two disjoint test samples of each data node, and of each model the last state that was accepted: a
visit that did harm is undone by launching that state instead, and one that taught something and wiped out something
else is kept in part, where a state on the way between the two measures better than both (``Order.merge``).
"""

from __future__ import annotations

import threading
import time
import zlib
from typing import Any, NamedTuple

import msgspec
import torch

from controller.values.decisions import Request
from hosts.inference.ways import fusion_to_bytes
from hosts.learning.compress import travelling
from hosts.learning.errors import LearningError
from hosts.learning.methods.merging import merge
from hosts.learning.methods.updates import state_of
from hosts.learning.spec import Evaluation, Samples
from hosts.learning.task import bytes_to_model, bytes_to_samples, concat_samples, model_to_bytes
from hosts.learning.ways.cascade import learn_cascade
from hosts.learning.ways.fusion import learn_fused
from hosts.learning.ways.models import seen_by, task_of
from hosts.roles.base import Action, Recent, Role
from hosts.terminal.dcc_line import PATIENT
from hosts.terminal.terminal import Terminal
from packets.messages import Ack, Order, Remeasured, Verdict, VerdictReply, Way
from packets.queries import SINGLE
from packets.transport import ReceivedObject

LATE_KEPT = 200  # of each data node
ACCEPTED_BYTES = 512 << 20  # accepted models, of all jobs together
_UNMEASURED = Evaluation(broad=0.0, per_group={}, samples=0)


class Found(NamedTuple):
    """What measuring came to: of the state to go on with, of the model as it came; ``share`` as in ``Verdict``."""

    kept: Evaluation
    whole: Evaluation
    share: float
    payload: bytes


class Mpvu(Role):
    """Gathers test samples, measures, keeps the last accepted state of every model, rolls back."""

    def __init__(self, terminal: Terminal) -> None:
        super().__init__(terminal)
        self.actions |= {
            "keep_test_sample": self.keep_test_sample, "keep_late_sample": self.keep_late_sample,
            "verify": self.verify, "measure": self.measure,
        }  # fmt: skip
        self._learners: dict[str, Action] = {"switched": self._learn_threshold, "multimodal": self._learn_fusion}
        self._samples: dict[tuple[str, int], Samples] = {}
        self._late: dict[str, Samples] = {}
        self._late_told = 0  # how many ever came
        self._pooled: Samples | None = None
        self._accepted: Recent[bytes] = Recent(most_bytes=ACCEPTED_BYTES)
        self._samples_lock = threading.Lock()

    def attributes(self) -> dict[str, Any]:
        held = sum(len(s) for s in self._current())
        return super().attributes() | {"test_samples": held, "late_samples": self._late_told}

    def keep_test_sample(self, obj: ReceivedObject, order: Order) -> None:
        """Add a data node's test sample; the same one sent again counts once."""
        samples = bytes_to_samples(self.terminal.task, obj.payload)
        with self._samples_lock:
            self._samples[obj.owner, zlib.crc32(obj.payload)] = samples
            self._pooled = None
        self.terminal.touch()

    def keep_late_sample(self, obj: ReceivedObject, order: Order) -> None:
        """Take what a data node sees now: its late samples, the last ``LATE_KEPT``, stand for it from now on."""
        samples = bytes_to_samples(self.terminal.task, obj.payload)
        with self._samples_lock:
            held = self._late.get(obj.owner)
            newest_first = samples if held is None else concat_samples([samples, held])
            self._late[obj.owner] = newest_first.take(torch.arange(min(len(newest_first), LATE_KEPT)))
            self._late_told += len(samples)
            self._pooled = None
        self.terminal.touch()

    def measure(self, obj: ReceivedObject, order: Order) -> None:
        """Measure a copy of a deployed model on late samples, and say what was found; it goes no further."""
        if order.way.kind in self._learners:
            self._learners[order.way.kind](obj, order)
            return
        with self._samples_lock:
            late = [self._late[owner] for owner in sorted(self._late)]
        if not late:
            raise LearningError(f"{self.terminal.name} holds no late samples to measure a deployed model by")
        task, samples = task_of(self.terminal.task, order.way.model), concat_samples(late)
        with self.terminal.computing("verifying", obj.object_id):
            found = task.evaluate(bytes_to_model(task, obj.payload), seen_by(task, samples))
        self._tell_measured(obj, order, found, samples)

    def _learn_threshold(self, obj: ReceivedObject, order: Order) -> None:
        """Learn on all test samples from where the cheap model of a cascade answers, and say it; samples stay here."""
        samples = self._gathered()
        with self.terminal.computing("verifying", obj.object_id):
            threshold, measured = learn_cascade(self.terminal.task, obj.payload, samples)
        way = msgspec.structs.replace(order.way, threshold=threshold.value, temperature=threshold.temperature)
        self.terminal.emit(
            "threshold.learned", object_id=order.for_object, node=self.terminal.name, samples=measured.samples,
            threshold=threshold.value, temperature=threshold.temperature, broad=round(threshold.accuracy, 4),
            large=round(threshold.large_accuracy, 4), sent_on=round(threshold.share_escalated, 4),
        )  # fmt: skip
        self._tell_measured(obj, order, measured, samples, way)

    def _learn_fusion(self, obj: ReceivedObject, order: Order) -> None:
        """Learn on all test samples how the answers to findings and to vitals are fused, and say it."""
        samples = self._gathered()
        with self.terminal.computing("verifying", obj.object_id):
            found = learn_fused(self.terminal.task, obj.payload, samples)
        self.terminal.emit(
            "fusion.learned", object_id=order.for_object, node=self.terminal.name, samples=found.measured.samples,
            broad=round(found.measured.broad, 4), text=round(found.text.broad, 4), vitals=round(found.vitals.broad, 4),
        )  # fmt: skip
        self._tell_measured(obj, order, found.measured, samples, order.way, fusion_to_bytes(found.fusion))

    def _tell_measured(
        self, obj: ReceivedObject, order: Order, found: Evaluation, samples: Samples, way: Way = SINGLE,
        fusion: bytes = b"",
    ) -> None:  # fmt: skip
        message = Remeasured(
            name=self.terminal.name, object_id=order.for_object, copy=obj.object_id, samples=found.samples,
            broad=found.broad, per_group=found.per_group, group_samples=self.terminal.task.group_counts(samples),
            way=way, fusion=fusion,
        )  # fmt: skip
        self.terminal.dcc.ask(message, Ack, object_id=order.for_object, attempts=PATIENT)

    def verify(self, obj: ReceivedObject, order: Order) -> None:
        """Measure a model, tell the DCC, let it go on: as it is when accepted, else as it was when last accepted."""
        started = time.perf_counter()
        try:
            found, problem = self._measure(obj, order), ""
        except LearningError as error:
            found, problem = Found(_UNMEASURED, _UNMEASURED, 1.0, bytes(obj.payload)), str(error)
        if problem and obj.object_id not in self._accepted:
            self.give_up_visit(obj, order, problem, lost=self._pooled is not None)
            return
        if problem:
            self.terminal.complain(f"{problem}: rolling back", object_id=obj.object_id)
        reply = self._ask_verdict(obj, found, time.perf_counter() - started)
        self._say(obj, order, found, reply)
        self._go_on(obj, reply.accepted and not problem, found.payload)

    def _measure(self, obj: ReceivedObject, order: Order) -> Found:
        """Measure the model as it came and, where the order says so, states between the last accepted one and it."""
        task = task_of(self.terminal.task, order.model)
        samples = seen_by(task, self._gathered())
        accepted = self._accepted.get(obj.object_id) if order.merge else None
        with self.terminal.computing("verifying", obj.object_id):
            model = bytes_to_model(task, obj.payload)
            before = state_of(bytes_to_model(task, accepted)) if accepted is not None else None
            best = merge(task, samples, before, model, order.merge, _asked(order))
        if best.share == 1:
            return Found(best.kept, best.whole, 1.0, bytes(obj.payload))
        model.load_state_dict(best.state)
        return Found(best.kept, best.whole, best.share, model_to_bytes(model, travelling(order.compression)))

    def _gathered(self) -> Samples:
        with self._samples_lock:
            if not self._samples and not self._late:
                raise LearningError(f"{self.terminal.name} holds no test samples yet: let the data nodes send theirs")
            if self._pooled is None:
                self._pooled = concat_samples(self._current())
            return self._pooled

    def _current(self) -> list[Samples]:
        """Return what stands for each data node: its late samples where it has sent any, else its test samples."""
        early, late = dict(self._samples), dict(self._late)
        return [early[key] for key in sorted(early) if key[0] not in late] + [late[owner] for owner in sorted(late)]

    def _ask_verdict(self, obj: ReceivedObject, found: Found, seconds: float) -> VerdictReply:
        measured = found.kept
        verdict = Verdict(
            name=self.terminal.name, object_id=obj.object_id, visit=obj.visit, samples=measured.samples,
            broad=measured.broad, per_group=measured.per_group, eval_s=seconds,
            share=found.share, whole=found.whole.per_group if found.share < 1 else {},
        )  # fmt: skip
        return self.guide(obj.object_id, obj.visit).judge(verdict)

    def _say(self, obj: ReceivedObject, order: Order, found: Found, reply: VerdictReply) -> None:
        measured = found.kept
        self.terminal.emit(
            "visit.verified", object_id=obj.object_id, visit=obj.visit, node=self.terminal.name,
            kas=self.terminal.plan.kas, broad=measured.broad, per_group=measured.per_group,
            expert=measured.per_group.get(order.expert_group, 0.0), samples=measured.samples,
            accepted=reply.accepted, reason=reply.reason, share=found.share, whole=round(found.whole.broad, 4),
        )  # fmt: skip

    def _go_on(self, obj: ReceivedObject, accepted: bool, payload: bytes) -> None:
        if accepted:
            self._accepted.note(obj.object_id, payload)
        elif (earlier := self._accepted.get(obj.object_id)) is not None:
            payload = earlier
        else:
            text = (
                f"{self.terminal.name} has no accepted state of {obj.object_id:#x} to roll back to: it goes on as it is"
            )
            self.terminal.emit("warning", text=text, node=self.terminal.name)
        self.go_on(obj, payload)


def _asked(order: Order) -> Request:
    """Return what the order's job asks for, as far as measuring needs it."""
    return Request(
        task=order.task, groups=[], broad_accuracy=order.broad_accuracy, expert_group=order.expert_group or None,
        expert_accuracy=order.expert_accuracy,
    )  # fmt: skip
