"""Data node: its data stays unless the DCC orders a visit elsewhere; two disjoint test samples go to the MPVUs.

What it reports about its data is a differentially private histogram and a quality figure, never a sample.
"""

from __future__ import annotations

import threading
import zlib
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch

from hosts.control import Command
from hosts.errors import BadCommand, DccRefused, DccSilent, HostError
from hosts.learning.data.collect import merged_shares, new_samples
from hosts.learning.errors import LearningError
from hosts.learning.spec import NodeData, Samples, concat_samples
from hosts.learning.task import samples_to_bytes
from hosts.roles.trainer import Trainer
from hosts.terminal.terminal import Terminal
from packets.errors import DaitnError
from packets.messages import Ack, AnnounceObject, AnnounceReply, AnyMessage, Message, Refused, SendData
from packets.transport import OutgoingObject
from packets.wire import NO_FLAGS, Flag, PacketType

TEST_COPIES = (0, 1)
READERS = {
    "test_sample": ("mpvu",),
    "late_sample": ("mpvu",),
    "data": ("compute",),
}  # whose certificate may answer for samples, and read them
_ROUNDS = 40


class DataNode(Trainer):
    """Trains on its own data, hands it to a compute facility where it may, feeds the MPVUs' test sets."""

    def __init__(self, terminal: Terminal) -> None:
        super().__init__(terminal)
        if terminal.data is None:
            raise HostError(f"data node {terminal.name} has no data; name it in the zygote's scenario with role data")
        self.data: NodeData = terminal.data
        self.commands |= {
            "send_test_samples": self._send_test_samples, "collect": self._collect, "drift": self._drift,
        }  # fmt: skip
        self._collected = 0
        self._delivered: set[int] = set()
        self._delivering = threading.Lock()
        self._moving: set[tuple[int, int]] = set()

    def attributes(self) -> dict[str, Any]:
        return super().attributes() | self._about_data

    @cached_property
    def _about_data(self) -> dict[str, Any]:
        """What may be told of the data; worked out once, since every look costs privacy budget."""
        task, train, seed = self.terminal.task, self.data.train, self.terminal.seed
        return {
            "samples": len(train),
            "group_shares": task.describe(train, seed),
            "epsilon": task.spec.epsilon,
            "quality": round(task.quality_probe(train, seed), 3),
            "data_age_s": 0.0,
            "data_may_move": self.terminal.plan.data_may_move,
        }

    # --- sensing ---

    def _collect(self, command: Command) -> Command:
        """Control op: new samples come in; they join the training set, and the DCC hears of it at once.

        ``tests``: the share of them (0..1) that is held back and goes to the MPVUs instead, to measure by. The
        histogram of those that join is published by itself, under the same epsilon: each sample is in one of these.
        """
        task, count, group = self.terminal.task, int(command.get("count", 100)), str(command.get("group", ""))
        tests = float(command.get("tests", 0.0))
        if not 0 <= tests < 1:
            raise BadCommand(f"tests: {tests:g}; give a share from 0 to below 1")
        self._collected += 1
        seed = zlib.crc32(f"{self.terminal.seed}/{self.terminal.name}/{self._collected}".encode())
        try:
            new = new_samples(task, self.data.train, count, seed, group)
        except LearningError as error:
            raise BadCommand(str(error)) from None
        new = self._hold_back(new, round(count * tests / len(TEST_COPIES)))
        told = self._about_data
        old = told["samples"], told["group_shares"]
        held = concat_samples([self.data.train, new])
        self.data = self.terminal.data = NodeData(train=held, test=self.data.test)
        shares = merged_shares(old[1], old[0], task.describe(new, seed), len(new))
        self._about_data = told | {"samples": len(held), "group_shares": shares}
        self.terminal.emit(
            "data.collected", name=self.terminal.name, kas=self.terminal.plan.kas, new=len(new), samples=len(held),
            group=group, epsilon=task.spec.epsilon,
        )  # fmt: skip
        self.terminal.touch()
        return {"new": len(new), "samples": len(held)}

    def _drift(self, command: Command) -> Command:
        """Control op: the world changes, and new samples show it: {"group", "seed"}, and those of ``_collect``."""
        self.drift_world(command)
        return self._collect(command | {"group": ""})

    def _hold_back(self, new: Samples, each: int) -> Samples:
        """Send so many of new samples to each of two MPVUs, as what is seen now; return the others."""
        if not each:
            return new
        halves = [new.take(torch.arange(copy * each, (copy + 1) * each)) for copy in TEST_COPIES]
        if not self.terminal.submit(lambda: self._send_late(halves)):
            self.terminal.complain(f"{self.terminal.name} is full: its late test samples were not sent")
        return new.take(torch.arange(len(TEST_COPIES) * each, len(new)))

    def _send_late(self, halves: Sequence[Samples]) -> None:
        for copy, samples in zip(TEST_COPIES, halves, strict=True):
            try:
                self._announce_and_launch("late_sample", samples, copy=copy)
            except DaitnError as error:
                self.terminal.complain(f"late test samples of {self.terminal.name}: {error}")

    def start(self) -> None:
        if not self.terminal.submit(self._deliver_until_done):
            self.terminal.complain(f"{self.terminal.name} is full: its test samples were not sent")

    # --- test samples ---

    def _send_test_samples(self, command: Command) -> Command:
        """Control op: make sure that both copies are with their MPVUs (they go by themselves at the start).

        ``again``: an MPVU was started anew and has lost them; one that has them counts them once.
        """
        if command.get("again"):
            self._delivered.clear()
        failed = self._deliver_missing()
        return {"delivered": sorted(self._delivered), "failed": failed}

    def _deliver_until_done(self) -> None:
        """MPVUs may register later than we do: try until both copies are there."""
        failed: dict[int, str] = {}
        for round_number in range(_ROUNDS):
            failed = self._deliver_missing()
            if not failed or self.terminal.stopping.wait(min(4.0, 0.5 * (round_number + 1))):
                return
        self.terminal.complain(f"test samples of {self.terminal.name} reached no MPVU: {failed}")

    def _deliver_missing(self) -> dict[int, str]:
        failed: dict[int, str] = {}
        with self._delivering:
            for copy in TEST_COPIES:
                if copy in self._delivered:
                    continue
                try:
                    self._announce_and_launch("test_sample", self.data.test[copy], copy=copy)
                    self._delivered.add(copy)
                except DaitnError as error:
                    failed[copy] = str(error)
        return failed

    # --- training data ---

    def answer(self, message: AnyMessage) -> Message:
        return self._serve_data(message) if isinstance(message, SendData) else super().answer(message)

    def _serve_data(self, message: SendData) -> Message:
        """Hand the training data over, if it may move and the DCC has ordered a visit that needs it."""
        name, visit = self.terminal.name, (message.for_object, message.visit)
        if not self.terminal.plan.data_may_move:
            return Refused(reason=f"the data of {name} may not leave it")
        if message.task and message.task != self.terminal.task.name:
            return Refused(reason=f"{name} holds no data of task {message.task!r}")
        with self._lock:
            if visit in self._moving:
                return Ack()
            self._moving.add(visit)
        try:
            obj = self._announce("data", self.data.train, for_object=message.for_object)
        except (DccRefused, DccSilent) as error:
            self._moving.discard(visit)
            return Refused(reason=f"{name} has no order to send data to {message.name}: {error}"[:400])
        if not self.terminal.submit(lambda: self._move(obj, visit)):
            self._moving.discard(visit)
            return Refused(reason=f"{name} is full")
        return Ack()

    def _move(self, obj: OutgoingObject, visit: tuple[int, int]) -> None:
        try:
            self.terminal.launch(obj)
        except DaitnError as error:
            self.terminal.complain(str(error), object_id=obj.object_id)
        finally:
            self._moving.discard(visit)

    # --- both ---

    def _announce(self, kind: str, samples: Samples, *, for_object: int = 0, copy: int = 0) -> OutgoingObject:
        payload = samples_to_bytes(samples)
        message = AnnounceObject(
            name=self.terminal.name, kind=kind, task=self.terminal.task.name, size_bytes=len(payload),
            for_object=for_object, copy=copy,
        )  # fmt: skip
        reply = self.terminal.dcc.ask(message, AnnounceReply, object_id=for_object)
        secret = self.terminal.guard is not None
        return OutgoingObject(
            object_id=reply.object_id, type=PacketType.DATA_SHARD, payload=payload, owner=self.terminal.plan.address,
            visit=0, visit_limit=1, requirements=None, flags=Flag.ENCRYPTED if secret else NO_FLAGS,
            receiver_roles=READERS[kind] if secret else (),
        )  # fmt: skip

    def _announce_and_launch(self, kind: str, samples: Samples, *, copy: int) -> None:
        self.terminal.launch(self._announce(kind, samples, copy=copy), attempts=2)
