"""A learning task of one's own: points on rings in the plane; each hospital sees mostly one ring.

    daitn run table --task examples/task_rings.py:Rings
    daitn check table --task examples/task_rings.py:Rings

A task says its groups (here: the classes), builds its model, makes each data node's share, and draws samples to ask.
Training is the usual one (cross-entropy, AdamW), unless you override ``train``.
"""

import numpy as np
import torch
from torch import nn

from hosts.learning.data.partitions import mixes
from hosts.learning.task import NodeData, Samples, Task

RINGS = ["inner", "middle", "outer"]


class Rings(Task):
    """Which of three rings a point lies on."""

    input_type = torch.float32

    def __init__(self, spec):
        super().__init__(spec, groups=RINGS, labels=RINGS, group_of=[0, 1, 2], width=2)

    def build(self):
        """Return a model of points (n, 2): logits (n, 3)."""
        return nn.Sequential(nn.Linear(2, 32), nn.Tanh(), nn.Linear(32, 3))

    def check_inputs(self, inputs):
        """Take any finite point."""
        if not bool(torch.isfinite(inputs).all()):
            raise ValueError("a point has finite coordinates")

    def probe_features(self, inputs):
        """Return what a linear model tells rings apart by."""
        points = inputs.numpy().astype(float)
        return np.concatenate([points, points**2], axis=1)

    def make_parts(self, nodes, rng):
        """Share out: which rings a node sees is drawn as the scenario's ``partition`` says."""
        shares = mixes(self.spec, nodes, len(RINGS), rng)
        sizes = self.spec.train_per_node, self.spec.test_per_node, self.spec.test_per_node
        parts = [[self._points(rng.choice(3, size, p=row), rng) for size in sizes] for row in shares]
        return [NodeData(train=train, test=(first, second)) for train, first, second in parts]

    def sample_of(self, group, rng):
        """Return a fresh point of a ring, and the ring."""
        label = RINGS.index(group) if group else rng.randrange(3)
        return self.pick(self._points(np.array([label]), np.random.default_rng(rng.getrandbits(32))), "", rng)

    @staticmethod
    def _points(labels, rng):
        radius, angle = 1.0 + labels + rng.normal(0, 0.15, len(labels)), rng.uniform(0, 2 * np.pi, len(labels))
        points = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1).astype(np.float32)
        return Samples(torch.from_numpy(points), torch.from_numpy(labels.astype(np.int16)))
