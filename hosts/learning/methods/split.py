"""Split learning: nodes hold the lower layers, a compute facility the upper ones; activations and gradients travel.

Each step, every node sends the activations of a batch with their labels; the facility takes one step on all of them
together and sends each node the gradient for its own. At the end of a pass the nodes' lower layers are averaged
(SplitFed, Thapa et al., AAAI 2022, its first variant with one shared upper part): so no node's classes are forgotten
while another trains. Data stay; labels and activations do not, which is less private than an update of weights.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import torch
from torch import nn
from torch.nn import functional as F

from hosts.learning.errors import LearningError
from hosts.learning.methods.types import Ledger, MethodSettings, Parts
from hosts.learning.methods.updates import State, average
from hosts.learning.models import TableModel, VignetteTransformer
from hosts.learning.spec import Samples, TrainSettings
from hosts.learning.task import Task, batches

Stage = Callable[[torch.Tensor], torch.Tensor]


def stages(model: nn.Module) -> tuple[list[Stage], list[list[nn.Module]]]:
    """Return a model as functions one after the other, and the modules that each holds; cuts lie between them."""
    if isinstance(model, VignetteTransformer):
        first, *middle, last = model.blocks
        run: list[Stage] = [
            lambda x: first(model.embed(x.long())),  # (batch, tokens, width)
            *middle,
            lambda x: last(x).mean(dim=1),  # (batch, width): the cheapest place to cut
            lambda x: model.head(model.norm(x)),
        ]
        return run, [[model.embed, first], *([block] for block in middle), [last], [model.norm, model.head]]
    if isinstance(model, TableModel):
        layers = list(model.layers)
        pairs = [layers[i : i + 2] for i in range(0, len(layers), 2)]
        lowest, *others = (_chain(pair) for pair in pairs)
        return [lambda x: lowest(model.features(x)), *others], pairs
    raise LearningError(f"split learning knows no layers of {type(model).__name__}")


def last_cut(model: nn.Module) -> int:
    """Return the cut above which least is left; ``LearningError`` for a model of one layer."""
    cut = len(stages(model)[0]) - 1
    if cut < 1:
        raise LearningError("split learning: a model of one layer cannot be cut; give it a hidden layer")
    return cut


def cut_sizes(model: nn.Module) -> tuple[int, int]:
    """Return the bytes of the layers below the last cut and of a sample's activations there; zeros: nowhere to cut."""
    try:
        cut, (_, held) = last_cut(model), stages(model)
    except LearningError:
        return 0, 0
    lower = sum(4 * p.numel() for group in held[:cut] for module in group for p in module.parameters())
    top = next(m for m in held[cut] if isinstance(m, nn.Linear))
    return lower, 4 * top.in_features


def _chain(pair: list[nn.Module]) -> Stage:
    def run(x: torch.Tensor) -> torch.Tensor:
        for layer in pair:
            x = layer(x)
        return x

    return run


class Half:
    """The stages from one cut to another, with an optimiser for their weights."""

    def __init__(self, task: Task, model: nn.Module, first: int, last: int | None) -> None:
        run, held = stages(model)
        cut = first or last or 0
        if not 0 < cut < len(run):
            raise LearningError(f"split learning cuts this model at 1..{len(run) - 1}, not at {cut}")
        self.model, self.task = model, task
        self._run = run[first:last]
        modules = [m for group in held[first:last] for m in group]
        self._weights = [p for m in modules for p in m.parameters()]
        self._names = {n for n, p in model.named_parameters() if any(p is w for w in self._weights)}
        self._optimiser: torch.optim.Optimizer | None = None

    def begin(self, rate: float) -> None:
        """Start a pass with a fresh optimiser."""
        torch.set_num_threads(1)
        self._optimiser = self.task.optimiser(self._weights, rate)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for stage in self._run:
            x = stage(x)
        return x

    def step(self) -> None:
        if self._optimiser is None:
            raise LearningError("split learning: a step before the pass has begun")
        self._optimiser.step()
        self._optimiser.zero_grad(set_to_none=True)

    def state(self) -> State:
        """Return this half's weights by name."""
        return {n: t.detach().clone() for n, t in self.model.state_dict().items() if n in self._names}

    def load(self, state: State) -> None:
        """Put weights in; ``LearningError`` unless they are this half's."""
        if state.keys() != self._names:
            raise LearningError("split learning: weights of another half")
        self.model.load_state_dict(state, strict=False)


class Lower(Half):
    """A data node's half."""

    def __init__(self, task: Task, model: nn.Module, cut: int, samples: Samples) -> None:
        super().__init__(task, model, 0, cut)
        self.samples = samples
        self.seconds = 0.0
        self._open: torch.Tensor | None = None
        self._rows: list[torch.Tensor] = []

    def deal(self, settings: TrainSettings) -> int:
        """Shuffle the samples for a pass; returns the number of its batches."""
        self.begin(settings.learning_rate)
        self._rows = batches(len(self.samples), settings)
        return len(self._rows)

    def send(self, number: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return activations (batch, ...) float32 and labels (batch,) int16 of batch ``number``."""
        started = time.perf_counter()
        batch = self.samples.take(self._rows[number])
        self._open = self.forward(batch.inputs)
        self.seconds += time.perf_counter() - started
        return self._open.detach(), batch.labels

    def take(self, gradient: torch.Tensor) -> None:
        """Take the facility's gradient for the activations sent last; one optimiser step."""
        if self._open is None or gradient.shape != self._open.shape or not bool(torch.isfinite(gradient).all()):
            raise LearningError(f"gradient of shape {tuple(gradient.shape)}: not for the activations that were sent")
        started = time.perf_counter()
        self._open.backward(gradient)  # type: ignore[no-untyped-call]
        self.step()
        self._open = None
        self.seconds += time.perf_counter() - started


class Upper(Half):
    """The compute facility's half."""

    def __init__(self, task: Task, model: nn.Module, cut: int) -> None:
        super().__init__(task, model, cut, None)
        self.losses: list[float] = []

    def learn(self, sent: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> list[torch.Tensor]:
        """Take one step on all nodes' batches; return each one's gradient, scaled as if it trained alone."""
        inputs = [a.detach().requires_grad_() for a, _ in sent]
        labels = torch.cat([y.long() for _, y in sent])
        if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < len(self.task.labels):
            raise LearningError(f"labels outside 0..{len(self.task.labels) - 1}: not of task {self.task.name}")
        loss = F.cross_entropy(self.forward(torch.cat(inputs)), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        self.step()
        self.losses.append(float(loss.detach()))
        grads = [i.grad if i.grad is not None else torch.zeros_like(i) for i in inputs]
        return [g * (len(labels) / max(len(g), 1)) for g in grads]


def train_split(task: Task, parts: Parts, settings: MethodSettings, ledger: Ledger) -> nn.Module:
    """Run ``rounds`` passes; bytes: activations, labels and gradients of every batch, and lower halves at its ends."""
    model = task.new_model(settings.seed)
    cut = settings.cut or last_cut(model)
    upper = Upper(task, model, cut)
    nodes = [Lower(task, task.new_model(settings.seed), cut, part.train) for part in parts.values()]
    for number in range(settings.rounds):
        lower = _pass(upper, nodes, settings, number, ledger)
        for node in nodes:
            node.load(lower)
        model.load_state_dict(lower, strict=False)
        ledger.close(model, *parts)
    return model


def _pass(upper: Upper, nodes: list[Lower], settings: MethodSettings, number: int, ledger: Ledger) -> State:
    upper.begin(settings.rate(number))
    counts = [node.deal(_local(settings, number, i)) for i, node in enumerate(nodes)]
    started = time.perf_counter()
    for step in range(max(counts)):
        there = [node for node, count in zip(nodes, counts, strict=True) if step < count]
        sent = [node.send(step) for node in there]
        for node, gradient in zip(there, upper.learn(sent), strict=True):
            node.take(gradient)
        for activations, labels in sent:
            ledger.sent(2 * 4 * activations.numel() + 2 * labels.numel())
    total = time.perf_counter() - started
    apart = [node.seconds for node in nodes]
    for node in nodes:
        node.seconds = 0.0
    ledger.trained(total - sum(apart) + max(apart), steps=max(counts) * (1 + len(nodes)))
    halves = [node.state() for node in nodes]
    for half in halves:
        ledger.sent(2 * sum(4 * t.numel() for t in half.values()))
    return average(halves, [float(len(node.samples)) for node in nodes])


def _local(settings: MethodSettings, number: int, member: int) -> TrainSettings:
    return TrainSettings(
        epochs=settings.epochs, batch_size=settings.batch_size, learning_rate=settings.rate(number),
        seed=settings.seed * 10_007 + number * 101 + member,
    )  # fmt: skip
