"""What all agents have in common, made once: the task, its data dealt out, torch warmed up, and the speed of one core.

The zygote makes it before it forks; its memory is then shared by all agents (copy on write).  The real training step
matters: after it a forked agent costs a few MB, without it some 110 MB.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch

from controller.values.metrics import OwnMetric
from hosts.autonomy.policies import Policy, load_policies
from hosts.learning.data.faults import with_flipped_labels
from hosts.learning.spec import NodeData, Samples, TrainSettings, concat_samples
from hosts.learning.task import Task, bytes_to_model, load_task, model_to_bytes, partition
from hosts.process.config import MAX_MEMBERS, NodeSpec, ZygoteScenario

_WARM_SAMPLES = 512


@dataclass
class Nursery:
    """Task and data of all nodes. ``samples_per_s``: measured training speed of one core; ``metrics``: of MDFPs;
    ``members``, ``policies``: what autonomous objects find at every terminal.
    """

    task: Task
    data: dict[str, NodeData]
    samples_per_s: float
    metrics: dict[str, OwnMetric] = field(default_factory=dict)
    members: Sequence[NodeSpec] = ()
    policies: Mapping[str, Policy] = field(default_factory=dict)

    def queries(self) -> Samples | None:
        """Return unseen samples to ask about, for tasks that cannot invent any: test samples, never trained on."""
        if self.task.name == "vignettes" or not self.data:
            return None
        return concat_samples([self.data[name].test[1] for name in sorted(self.data)])


def prepare(scenario: ZygoteScenario, seed: int) -> Nursery:
    """Load the task, deal its data, train and evaluate once, and freeze what is there so that forks share it."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    task = load_task(scenario.task)
    data = partition(task, scenario.data_nodes, seed) if scenario.data_nodes else {}
    data = with_flipped_labels(task, data, scenario.task.flip, seed)
    samples_per_s = warm_up(task, next(iter(data.values())).train) if data else 0.0
    gc.collect()
    gc.freeze()
    members, policies = scenario.nodes[:MAX_MEMBERS], load_policies(scenario.policies)
    return Nursery(task, data, samples_per_s, scenario.metrics, members, policies)


def warm_up(task: Task, samples: Samples) -> float:
    """Run every torch path that agents use, and return the training speed of this core, samples per second."""
    few = samples.take(torch.arange(min(_WARM_SAMPLES, len(samples))))
    model = bytes_to_model(task, model_to_bytes(task.new_model(0)))
    task.train(model, few, TrainSettings(epochs=1.0))
    began_s = time.thread_time()  # processor time: other processes start on this machine at the same time
    task.train(model, few, TrainSettings(epochs=1.0))
    took_s = time.thread_time() - began_s
    task.evaluate(model, few)
    task.quality_probe(few)
    task.ask(model, [float(v) for v in few.inputs[0].tolist()])
    return len(few) / took_s if took_s > 0 else 0.0
