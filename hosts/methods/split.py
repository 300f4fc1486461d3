"""Split learning between terminals: members hold the lower layers, the facility the upper ones.

The lower layers go out and come back as labelled objects; in between each member and the facility know each other's
address and exchange a batch's activations and gradients straight, many times a second.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import msgspec
import torch
from safetensors.torch import save

from hosts.learning.compress import PLAIN, decode, encode
from hosts.learning.errors import LearningError
from hosts.learning.methods.split import Lower, Upper, last_cut
from hosts.learning.methods.updates import average, state_of
from hosts.learning.spec import Samples
from hosts.learning.task import Task
from hosts.learning.tensors import load_tensors
from hosts.methods.envelope import Envelope
from hosts.methods.exchange import Exchange, Piece
from hosts.methods.group import SENDERS, Group, GroupFailed, Led, answer
from hosts.terminal.terminal import Terminal
from packets.errors import DaitnError

STEP_S = 20.0
MAX_STEPS = 4096
MAX_ACTIVATIONS = 1 << 24


def lead(group: Group) -> Led:
    """Lead one pass over all members' data for each of the order's rounds."""
    found = Led(group.state, 0, 0.0, 0.0)
    for round_ in range(group.order.rounds):
        found = _Pass(group, group.number(round_)).run()
        group.state = found.state
    return found


class _Pass:
    """One pass: lower halves out, steps, lower halves back."""

    def __init__(self, group: Group, number: int) -> None:
        self.group, self.number = group, number
        self.task = group.terminal.task
        self.model = self.task.new_model(0)
        self.model.load_state_dict(group.state)
        self.cut = last_cut(self.model)
        self.upper = Upper(self.task, self.model, self.cut)
        self.upper.begin(group.order.learning_rate)
        self.seconds = 0.0

    def run(self) -> Led:
        ready = self._begin()
        steps = {m: min(MAX_STEPS, p.envelope.rounds) for m, p in ready.items()}
        there = dict(ready)
        for step in range(max(steps.values())):
            at_rest = {m: p for m, p in there.items() if step >= steps[m]}
            there = at_rest | self._step(step, {m: p for m, p in there.items() if step < steps[m]})
        return self._end(there)

    def _begin(self) -> dict[int, Piece]:
        lower = Lower(self.task, self.model, self.cut, _none(self.task)).state()
        body, _ = encode(lower, PLAIN)

        def question(member: int) -> tuple[Envelope, bytes]:
            return msgspec.structs.replace(self.group.envelope("split", self.number, member), cut=self.cut), body

        return self.group.ask(self.number, question, "ready", straight=True)

    def _step(self, step: int, there: dict[int, Piece]) -> dict[int, Piece]:
        """Take one batch of every member, learn, send each its gradient; who is silent is out of the pass."""
        job, number = self.group.obj.object_id, straight_number(self.number, step)
        sent = self.group.exchange.take(job, ("acts",), number, set(there), STEP_S)
        if len(sent) < max(1, len(there) // 2):
            raise GroupFailed(f"{len(sent)} of {len(there)} members sent activations in step {step}")
        batches = {m: read_batch(p.body) for m, p in sorted(sent.items())}
        started = time.perf_counter()
        with self.group.terminal.computing("training", job):
            gradients = self.upper.learn(list(batches.values()))
        self.seconds += time.perf_counter() - started
        with ThreadPoolExecutor(SENDERS) as pool:
            for member, gradient in zip(batches, gradients, strict=True):
                pool.submit(self._answer, there[member], gradient, number, step)
        return {m: there[m] for m in batches}

    def _answer(self, ready: Piece, gradient: torch.Tensor, number: int, step: int) -> None:
        envelope = Envelope(job=self.group.obj.object_id, kind="grads", number=number, member=ready.envelope.member)
        body = bytes(save({"gradient": gradient.contiguous()}))
        try:
            self.group.exchange.send_straight(
                envelope, body, to=ready.sender, object_id=ready.envelope.straight, visit=step + 1
            )
        except DaitnError as error:
            self.group.terminal.complain(f"split: {error}")

    def _end(self, there: dict[int, Piece]) -> Led:
        job = self.group.obj.object_id
        back = self.group.exchange.take(job, ("lower", "problem"), self.number, set(there), STEP_S)
        good = {m: p for m, p in sorted(back.items()) if p.envelope.kind == "lower"}
        if not good:
            raise GroupFailed("no member sent its half back")
        like = Lower(self.task, self.model, self.cut, _none(self.task)).state()
        halves = [decode(p.body, like) for p in good.values()]
        lower = average(halves, [float(max(1, p.envelope.samples)) for p in good.values()])
        self.model.load_state_dict(lower, strict=False)
        samples, _ = self.group.tell(self.number, good)
        losses = self.upper.losses
        return Led(state_of(self.model), samples, sum(losses) / max(1, len(losses)), self.seconds)


@dataclass
class SplitMember:
    """A data node's part of a pass."""

    terminal: Terminal
    exchange: Exchange
    samples: Samples

    def take_part(self, piece: Piece) -> None:
        """Load the lower half, then send activations and take gradients until all batches are through."""
        asked, task = piece.envelope, self.terminal.task
        lower = Lower(task, task.new_model(0), asked.cut, self.samples)
        lower.load(decode(piece.body, lower.state()))
        steps = lower.deal(asked.settings)
        self.exchange.open_straight(piece.object_id)
        ready = msgspec.structs.replace(
            answer(asked, "ready", samples=len(self.samples)), rounds=min(steps, MAX_STEPS), straight=piece.object_id
        )
        self.exchange.send(ready, b"", target=asked.reply, about=piece.object_id)
        for step in range(steps):
            self._step(piece, lower, step)
        body, _ = encode(lower.state(), PLAIN)
        about = {"samples": len(self.samples), "seconds": lower.seconds}
        self.exchange.send(answer(asked, "lower", **about), body, target=asked.reply, about=piece.object_id)

    def _step(self, piece: Piece, lower: Lower, step: int) -> None:
        asked, number = piece.envelope, straight_number(piece.envelope.number, step)
        with self.terminal.computing("training", asked.job):
            activations, labels = lower.send(step)
        body = bytes(save({"activations": activations.contiguous(), "labels": labels.contiguous()}))
        envelope = msgspec.structs.replace(answer(asked, "acts"), number=number)
        self.exchange.send_straight(envelope, body, to=piece.sender, object_id=piece.object_id, visit=step + 1)
        found = self.exchange.take(asked.job, ("grads",), number, {asked.member}, STEP_S)
        if asked.member not in found:
            raise LearningError(f"split: no gradient for batch {step} in {STEP_S:g} s")
        with self.terminal.computing("training", asked.job):
            lower.take(_gradient(found[asked.member].body))


def straight_number(number: int, step: int) -> int:
    """Return a number for the pieces of a step that no other step of this job has."""
    return number * MAX_STEPS + step


def read_batch(body: bytes) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (activations, labels) of a batch; ``LearningError`` when the bytes are none."""
    tensors = load_tensors(body, "batch")
    if tensors.keys() != {"activations", "labels"}:
        raise LearningError("split: a batch holds activations and labels")
    activations, labels = tensors["activations"], tensors["labels"]
    if activations.dtype != torch.float32 or labels.dtype != torch.int16 or activations.numel() > MAX_ACTIVATIONS:
        raise LearningError("split: activations must be float32, labels int16")
    if activations.ndim < 2 or labels.shape != activations.shape[:1] or not bool(torch.isfinite(activations).all()):
        raise LearningError("split: one label for each row of finite activations")
    return activations, labels


def _gradient(body: bytes) -> torch.Tensor:
    tensors = load_tensors(body, "gradient")
    if tensors.keys() != {"gradient"}:
        raise LearningError("split: a gradient was expected")
    return tensors["gradient"]


def _none(task: Task) -> Samples:
    return Samples(torch.zeros(0, task.width, dtype=task.input_type), torch.zeros(0, dtype=torch.int16))
