"""What all learning tasks share, in plain PyTorch: training, testing, answering, what a node may tell of its data."""

from __future__ import annotations

import random
import time
import zlib
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from hosts.learning.data.privacy import private_shares
from hosts.learning.errors import LearningError, shown
from hosts.learning.ridge import ridge_accuracy
from hosts.learning.spec import Evaluation, NodeData, Samples, TaskSpec, TrainResult, TrainSettings

_EVALUATE_ROWS = 512
_FOLDS = 3
MAX_EPOCHS = 1000
_PROBE_ROWS = 900


class Task:
    """What all tasks share. ``groups``: departments or classes; ``labels``: answers; ``group_of[label]``: group
    number.
    """

    input_type: torch.dtype
    notes: tuple[str, ...] = ()  # on its data, for a person

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
            return self.build()

    def build(self) -> nn.Module:
        """Return a fresh model: inputs (n, ``width``) of ``input_type`` in, logits (n, labels) out."""
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
        features = self.probe_features(samples.inputs[torch.from_numpy(rows)])
        labels = samples.labels.numpy()[rows].astype(int)
        folds = np.arange(len(rows)) % _FOLDS
        return float(np.mean([ridge_accuracy(features, labels, folds == fold) for fold in range(_FOLDS)]))

    def probe_features(self, inputs: torch.Tensor) -> np.ndarray:
        """Return what a linear model can learn from inputs, (n, any width): by it a node's quality is guessed."""
        return np.asarray(inputs.numpy(), dtype=float)

    def ask(self, model: nn.Module, sample: Sequence[float]) -> tuple[str, float]:
        """Answer one query: (label name, confidence 0..1). ``LearningError`` when the sample is not of this task."""
        return self.ask_all(model, [sample])[0]

    def ask_all(self, model: nn.Module, samples: Sequence[Sequence[float]]) -> list[tuple[str, float]]:
        """Answer queries together, as of ``ask``; ``LearningError`` when one sample is not of this task."""
        try:
            sizes = {len(s) for s in samples}
            if sizes - {self.width}:
                raise LearningError(
                    f"a query of {max(sizes - {self.width})} numbers: task {self.name} takes {self.width}"
                )
            values = torch.tensor([list(s) for s in samples], dtype=torch.float64)
        except (TypeError, ValueError, RuntimeError, OverflowError):
            raise LearningError("a query must be a list of numbers") from None
        self.check_inputs(values)
        model.eval()
        with torch.inference_mode():
            chances, chosen = model(values.to(self.input_type)).softmax(dim=1).max(dim=1)  # (queries,)
        return [(self.labels[i], c) for i, c in zip(chosen.tolist(), chances.tolist(), strict=True)]

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

    def sample_from(self, text: str) -> list[float]:
        """Return a query in somebody's own words as a sample; ``LearningError`` where the task takes none."""
        raise LearningError(f"task {self.name} is asked with numbers, not with words")

    def sample_of(self, group: str, rng: random.Random) -> tuple[list[float], str]:
        """Return a query of a group ("" for any) as (list, expected label name)."""
        raise NotImplementedError

    def drift(self, group: str, seed: int) -> None:
        """Change the world that samples are drawn from from now on, in one group ("": all); ``LearningError`` where the
        data is what it is.
        """
        raise LearningError(f"task {self.name} has the samples of its file; only the world of vignettes drifts")

    def make_parts(self, nodes: int, rng: np.random.Generator) -> list[NodeData]:
        """Share the data out; ``partition`` is the way to call it."""
        raise NotImplementedError

    def _group_number(self, group: str) -> int | None:
        if not group:
            return None
        if group not in self.groups:
            raise LearningError(f"no group {group!r} in task {self.name}: it has {', '.join(map(shown, self.groups))}")
        return self.groups.index(group)


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
