"""A learning task in plain PyTorch: its data, its model, training and testing. Runs alone on a laptop.

>>> task = load_task(TaskSpec(name="vignettes"))
>>> parts = partition(task, ["h11", "h12"], seed=0)
>>> model = task.new_model(seed=0)
>>> task.train(model, parts["h11"].train, TrainSettings(epochs=2))
>>> task.evaluate(model, parts["h12"].test[0]).broad
"""

from __future__ import annotations

import random
import time
import zlib
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from hosts.learning.data import vignettes
from hosts.learning.data.bundled import digits
from hosts.learning.data.encode import Table, encode
from hosts.learning.data.partitions import deal_rows, mixes
from hosts.learning.data.privacy import private_shares
from hosts.learning.data.read import read_rows
from hosts.learning.errors import LearningError, shown
from hosts.learning.models import TableModel, VignetteTransformer
from hosts.learning.ridge import ridge_accuracy
from hosts.learning.safe_bytes import bytes_to_model, bytes_to_samples, model_to_bytes, samples_to_bytes
from hosts.learning.spec import Evaluation, NodeData, Samples, TaskSpec, TrainResult, TrainSettings, concat_samples

__all__ = [
    "Evaluation", "LearningError", "NodeData", "Samples", "Task", "TaskSpec", "TrainResult", "TrainSettings",
    "bytes_to_model", "bytes_to_samples", "concat_samples", "load_task", "model_to_bytes", "partition",
    "samples_to_bytes",
]  # fmt: skip

_EVALUATE_ROWS = 512
_FOLDS = 3
MAX_EPOCHS = 1000
_PROBE_ROWS = 900


class Task:
    """What all tasks share. ``groups``: departments or classes; ``labels``: answers; ``group_of[label]``: group
    number.
    """

    input_type: torch.dtype

    def __init__(
        self, spec: TaskSpec, *, groups: list[str], labels: list[str], group_of: list[int], width: int
    ) -> None:
        self.spec = spec
        self.name = spec.name
        self.groups = groups
        self.labels = labels
        self.width = width
        self.group_of = torch.tensor(group_of)

    def new_model(self, seed: int) -> nn.Module:
        """Return a fresh model; the same seed gives the same weights, and torch's global generator is left alone."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self._build()

    def _build(self) -> nn.Module:
        raise NotImplementedError

    def check_inputs(self, inputs: torch.Tensor) -> None:
        """Raise ``LearningError`` when inputs hold values that the model cannot take."""
        raise NotImplementedError

    def optimiser(self, weights: Iterable[nn.Parameter], rate: float) -> torch.optim.Optimizer:
        """Return a fresh optimiser of the task's kind."""
        if self.spec.optimiser == "sgd":
            return torch.optim.SGD(weights, rate, weight_decay=self.spec.weight_decay)
        return torch.optim.AdamW(weights, rate, weight_decay=self.spec.weight_decay)

    def train(self, model: nn.Module, samples: Samples, settings: TrainSettings) -> TrainResult:
        """Train in place on one thread; a fresh optimiser per visit. ``LearningError`` when the loss is
        not finite.
        """
        if not len(samples):
            raise LearningError("training on no samples: this node holds no data of the task")
        if not (0 < settings.epochs <= MAX_EPOCHS and settings.batch_size >= 1 and 0 < settings.learning_rate <= 1):
            raise LearningError(
                f"hyper-parameters {settings}: epochs must be in 0..{MAX_EPOCHS}, learning_rate in 0..1, all above 0"
            )
        started = time.perf_counter()
        torch.set_num_threads(1)
        model.train()
        optimiser = self.optimiser(model.parameters(), settings.learning_rate)
        weights = self._label_weights(settings.group_weights)
        losses: list[float] = []
        for rows in batches(len(samples), settings):
            batch = samples.take(rows)
            labels = batch.labels.long()
            loss = F.cross_entropy(model(batch.inputs), labels, weight=weights)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            losses.append(float(loss.detach()))
        tail = losses[-max(1, -(-len(samples) // settings.batch_size)) :]
        mean = float(np.mean(tail))
        if not np.isfinite(mean):
            raise LearningError("training diverged (loss is not finite): lower the learning rate")
        return TrainResult(loss=mean, samples=len(samples), seconds=time.perf_counter() - started)

    def _label_weights(self, group_weights: dict[str, float]) -> torch.Tensor | None:
        if not group_weights:
            return None
        unknown = set(group_weights) - set(self.groups)
        if unknown or min(group_weights.values()) <= 0:
            known = ", ".join(map(shown, self.groups))
            raise LearningError(f"group weights {group_weights}: must be above 0 and name groups of {known}")
        per_group = torch.tensor([group_weights.get(group, 1.0) for group in self.groups])
        return per_group[self.group_of]

    def evaluate(self, model: nn.Module, samples: Samples) -> Evaluation:
        """Measure accuracy, over all samples and per group."""
        if not len(samples):
            raise LearningError("evaluating on no samples: gather test samples first")
        torch.set_num_threads(1)
        model.eval()
        with torch.inference_mode():
            answers = torch.cat([model(part).argmax(dim=1) for part in torch.split(samples.inputs, _EVALUATE_ROWS)])
        right = (answers == samples.labels).double()  # (n,)
        groups = self.group_of[samples.labels.long()]
        held = torch.bincount(groups, minlength=len(self.groups))
        hits = torch.bincount(groups, weights=right, minlength=len(self.groups))
        per_group = {name: float(hits[i] / held[i]) for i, name in enumerate(self.groups) if held[i]}
        return Evaluation(broad=float(right.mean()), per_group=per_group, samples=len(samples))

    def group_counts(self, samples: Samples) -> dict[str, int]:
        """Return how many samples of each group there are: the truth, for the node itself and for tests."""
        counts = torch.bincount(self.group_of[samples.labels.long()], minlength=len(self.groups))
        return dict(zip(self.groups, counts.tolist(), strict=True))

    def describe(self, samples: Samples, seed: int = 0) -> dict[str, float]:
        """Return the share of each group as a node may publish it: differentially private with the spec's epsilon.

        The noise is drawn from ``seed`` and the data, so that runs repeat; a deployment would pass a secret seed.
        """
        counts = np.fromiter(self.group_counts(samples).values(), dtype=float)
        rng = np.random.default_rng([seed, zlib.crc32(samples.labels.numpy().tobytes())])
        shares = private_shares(counts, self.spec.epsilon, rng)
        return dict(zip(self.groups, shares.tolist(), strict=True))

    def quality_probe(self, samples: Samples, seed: int = 0) -> float:
        """Estimate what accuracy local data supports (0..1): cross-validated ridge regression on up to 900 samples, <
        0.3 s.
        """
        rng = np.random.default_rng(seed)
        rows = rng.permutation(len(samples))[:_PROBE_ROWS]
        if len(rows) < 2 * _FOLDS:
            return 0.0
        features = self._probe_features(samples.inputs[torch.from_numpy(rows)])
        labels = samples.labels.numpy()[rows].astype(int)
        folds = np.arange(len(rows)) % _FOLDS
        return float(np.mean([ridge_accuracy(features, labels, folds == fold) for fold in range(_FOLDS)]))

    def _probe_features(self, inputs: torch.Tensor) -> np.ndarray:
        return np.asarray(inputs.numpy(), dtype=float)

    def ask(self, model: nn.Module, sample: Sequence[float]) -> tuple[str, float]:
        """Answer one query: (label name, confidence 0..1). ``LearningError`` when the sample is not of this task."""
        try:
            values = torch.tensor([list(sample)], dtype=torch.float64)
        except (TypeError, ValueError, RuntimeError, OverflowError):
            raise LearningError("a query must be a list of numbers") from None
        if values.shape != (1, self.width):
            raise LearningError(f"a query of {values.numel()} numbers: task {self.name} takes {self.width}")
        self.check_inputs(values)
        model.eval()
        with torch.inference_mode():
            chances = model(values.to(self.input_type)).softmax(dim=1)[0]  # (labels,)
        return self.labels[int(chances.argmax())], float(chances.max())

    def pick(self, samples: Samples, group: str, rng: random.Random) -> tuple[list[float], str]:
        """Return one of the given samples of a group ("" for any) as (list, label name): a query from test data."""
        self._group_number(group)
        labels = samples.labels.long()
        rows = [
            i for i, label in enumerate(labels.tolist()) if not group or self.groups[int(self.group_of[label])] == group
        ]
        if not rows:
            raise LearningError(f"no sample of group {group!r} among {len(samples)}")
        row = rng.choice(rows)
        return [float(v) for v in samples.inputs[row].tolist()], self.labels[int(labels[row])]

    def sample_of(self, group: str, rng: random.Random) -> tuple[list[float], str]:
        """Return a query of a group ("" for any) as (list, expected label name)."""
        raise NotImplementedError

    def make_parts(self, nodes: int, rng: np.random.Generator) -> list[NodeData]:
        """Share the data out; ``partition`` is the way to call it."""
        raise NotImplementedError

    def _group_number(self, group: str) -> int | None:
        if not group:
            return None
        if group not in self.groups:
            raise LearningError(f"no group {group!r} in task {self.name}: it has {', '.join(map(shown, self.groups))}")
        return self.groups.index(group)


class VignetteTask(Task):
    """Clinical vignettes: findings in, diagnosis out; groups are departments."""

    input_type = torch.int16

    def __init__(self, spec: TaskSpec) -> None:
        if not 0 <= spec.noise < 1 or not 1 <= spec.findings_per_vignette <= 64:
            raise LearningError("vignettes: noise must be in 0..1 (below 1) and findings_per_vignette in 1..64")
        if spec.train_per_node < 1 or spec.test_per_node < 1:
            raise LearningError("vignettes: train_per_node and test_per_node must be at least 1")
        group_of = [label // vignettes.PER_DEPARTMENT for label in range(len(vignettes.LABELS))]
        super().__init__(
            spec,
            groups=vignettes.DEPARTMENTS,
            labels=vignettes.LABELS,
            group_of=group_of,
            width=spec.findings_per_vignette,
        )

    def _build(self) -> nn.Module:
        return VignetteTransformer(vignettes.TOKENS, len(self.labels))

    def check_inputs(self, inputs: torch.Tensor) -> None:
        if inputs.numel() and not bool(
            ((inputs >= 0) & (inputs < vignettes.TOKENS) & (inputs == inputs.round())).all()
        ):
            raise LearningError(f"a vignette holds finding numbers 0..{vignettes.TOKENS - 1}, whole")

    def _probe_features(self, inputs: torch.Tensor) -> np.ndarray:
        bag = torch.zeros(len(inputs), vignettes.TOKENS, dtype=torch.float64)
        return bag.scatter_add_(1, inputs.long(), torch.ones(inputs.shape, dtype=torch.float64)).numpy()

    def sample_of(self, group: str, rng: random.Random) -> tuple[list[float], str]:
        number = self._group_number(group)
        allowed = [label for label in range(len(self.labels)) if number is None or int(self.group_of[label]) == number]
        counts = np.zeros(len(self.labels), dtype=int)
        counts[rng.choice(allowed)] = 1
        fresh = self._generate(counts, np.random.default_rng(rng.getrandbits(32)))
        return self.pick(fresh, "", rng)

    def make_parts(self, nodes: int, rng: np.random.Generator) -> list[NodeData]:
        shares = mixes(self.spec, nodes, len(self.groups), rng)
        return [self._hospital(row, rng) for row in shares]

    def _hospital(self, shares: np.ndarray, rng: np.random.Generator) -> NodeData:
        per_label = np.repeat(shares / vignettes.PER_DEPARTMENT, vignettes.PER_DEPARTMENT)
        train, first, second = (
            self._generate(rng.multinomial(n, per_label / per_label.sum()), rng)
            for n in (self.spec.train_per_node, self.spec.test_per_node, self.spec.test_per_node)
        )
        return NodeData(train=train, test=(first, second))

    def _generate(self, counts: np.ndarray, rng: np.random.Generator) -> Samples:
        return vignettes.generate(counts, noise=self.spec.noise, length=self.spec.findings_per_vignette, rng=rng)


class TableTask(Task):
    """Any labelled table or text, and the UCI heart files; a group is a class."""

    input_type = torch.float32

    def __init__(self, spec: TaskSpec, table: Table) -> None:
        if not 0.05 <= spec.test_share <= 0.8:
            raise LearningError(f"test_share {spec.test_share:g}: must be in 0.05..0.8")
        if spec.hidden < 0:
            raise LearningError(f"hidden {spec.hidden}: must be 0 (logistic regression) or the width of a layer")
        names = table.label_names
        super().__init__(
            spec, groups=names, labels=names, group_of=list(range(len(names))), width=table.features.shape[1]
        )
        self.table = table

    def _build(self) -> nn.Module:
        return TableModel(self.width, len(self.labels), self.spec.hidden)

    def check_inputs(self, inputs: torch.Tensor) -> None:
        if not bool(torch.isfinite(inputs.float()).all()):
            raise LearningError("a table row must hold finite numbers")

    def _samples(self, rows: np.ndarray) -> Samples:
        features = torch.from_numpy(self.table.features[rows])
        return Samples(features, torch.from_numpy(self.table.labels[rows].astype(np.int16)))

    def sample_of(self, group: str, rng: random.Random) -> tuple[list[float], str]:
        """Any row of the table; ``pick`` from test samples where the query must be unseen."""
        return self.pick(self._samples(np.arange(len(self.table.labels))), group, rng)

    def make_parts(self, nodes: int, rng: np.random.Generator) -> list[NodeData]:
        dealt = deal_rows(self.spec, self.table.labels, self.table.sites, nodes, rng)
        return [self._split(rows, rng) for rows in dealt]

    def _split(self, rows: np.ndarray, rng: np.random.Generator) -> NodeData:
        """Stratified: of every class ``test_share`` goes to testing, dealt to the two copies in turn."""
        train: list[np.ndarray] = []
        copies: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
        turn = 0
        for label in range(len(self.labels)):
            mine = rng.permutation(rows[self.table.labels[rows] == label])
            tested = round(len(mine) * self.spec.test_share)
            train.append(mine[tested:])
            copies[turn].append(mine[:tested:2])
            copies[1 - turn].append(mine[1:tested:2])
            turn ^= tested % 2
        kept, first, second = (rng.permutation(np.concatenate(part)) for part in (train, *copies))
        return NodeData(train=self._samples(kept), test=(self._samples(first), self._samples(second)))


def load_task(spec: TaskSpec) -> Task:
    """Return the task of a description; reads its data, if it has any. ``LearningError`` in one line otherwise."""
    if spec.name == "vignettes":
        return VignetteTask(spec)
    if spec.name == "digits":
        return TableTask(spec, digits())
    rows = read_rows(spec.data, spec.label_column)
    return TableTask(spec, encode(rows, source=spec.data, text_column=spec.text_column, as_text=spec.name == "text"))


def partition(task: Task, node_names: Sequence[str], seed: int) -> dict[str, NodeData]:
    """Share a task's data out: training samples and two disjoint test samples each, every sample on one node."""
    if not node_names or len(set(node_names)) != len(node_names):
        raise LearningError("sharing data out needs at least one node, each name once")
    parts = task.make_parts(len(node_names), np.random.default_rng([seed, 7]))
    return dict(zip(node_names, parts, strict=True))


def batches(count: int, settings: TrainSettings) -> list[torch.Tensor]:
    """Row numbers per step: whole epochs reshuffled, the last one cut where ``epochs`` is a fraction."""
    generator = torch.Generator().manual_seed(settings.seed)
    wanted = max(1, round(settings.epochs * count))
    steps: list[torch.Tensor] = []
    while wanted > 0:
        rows = torch.randperm(count, generator=generator)[:wanted]
        steps.extend(torch.split(rows, settings.batch_size))
        wanted -= len(rows)
    return steps
