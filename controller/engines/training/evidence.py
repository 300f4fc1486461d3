"""The learning-curve model: what accuracy data nodes can be expected to teach, from what they publish of their data.

Evidence. A data node publishes how many samples it holds, a private histogram of their groups, and ``quality``: the
cross-validated accuracy of a quick simple model on its own data. That is one point on the task's learning curve:
error ``1 - quality`` at the density (samples per group present) of that node. A node that holds almost one group only
proves little, since always answering with that group scores high; so a node's word weighs ``samples x (1 - sum of
squared shares)``.

Model. With weighted mean probe error ``e`` and weighted mean density ``d``, a model that has learned ``N`` samples of
a group is expected to err on it with

    error(N) = e * (floor + (1 - floor) * (d / N) ** RATE),      floor = min(FLOOR_MAX, FLOOR_SLOPE * e / chance)

where ``chance`` is the error of guessing from the pooled mix, ``1 - sum of squared shares``. ``floor`` is the share of
the probe's error that no amount of data removes: a prior, growing with the error, because a small error is mostly rare
cases which more data covers, and a large one is mostly classes that overlap; a probe on a handful of samples of a group
(``FLOOR_DENSITY``) errs for want of them. Broad accuracy is the mean over groups, weighted with the pooled mix.

Honesty. This is an estimate for admission, not a promise: the MPVU measures. ``RATE`` and ``FLOOR_SLOPE`` were fitted
to pooled training on nine variants of two tasks. Predicted less measured accuracy: vignettes with 1500 / 500 / 200 /
100 samples at each of twelve nodes -0.01 / -0.03 / -0.09 / -0.15, with more noise -0.01 to -0.02, four UCI heart
hospitals +0.02, the same patients spread over six nodes +0.04. So it is low where every node's data is thin (an error
for want of data is then taken for noise), and slightly high where hospitals disagree on what a case is. It believes
``quality`` as reported, so a liar shifts the estimate by the weight of its data; it knows nothing of the model's own
capacity unless told that the model is ``capable`` (for the vignettes' transformer a floor of 0 fits: sixteen pooled or
routed runs with 200-1500 samples a node needed -0.3 to 0.2); and it assumes that the route lets no group be forgotten,
which is MTRCE's and the MPVUs' business.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
import numpy.typing as npt

from controller.values.decisions import Option

FLOOR_SLOPE = 1.5
RATE = 0.7
FLOOR_MAX = 0.9
FLOOR_DENSITY = 20.0  # samples per group below which a probe's error is taken for want of data rather than for noise
EPOCHS_PER_VISIT = 2.0  # a usual visit; HPO has the last word on each
Vector = npt.NDArray[np.float64]


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """What the options prove. ``counts``: samples (options, groups); ``probe_error``, ``density``: see above.

    ``capable``: the model to be trained has far more capacity than the probe, so no floor is taken from its error.
    """

    groups: list[str]
    counts: Vector
    probe_error: float
    density: float
    capable: bool = False

    @property
    def floor(self) -> float:
        """Share of the probe's error that more data does not remove."""
        if self.capable:
            return 0.0
        chance = max(float(1.0 - self.pooled @ self.pooled), 1e-9)
        return min(FLOOR_MAX, FLOOR_SLOPE * self.probe_error / chance) * min(1.0, self.density / FLOOR_DENSITY)

    @property
    def pooled(self) -> Vector:
        """Shares of the groups in all data together (groups,)."""
        totals = self.counts.sum(axis=0)
        return np.asarray(totals / max(totals.sum(), 1e-9))

    def group_accuracy(self, learned: Vector) -> Vector:
        """Return expected accuracies for numbers of samples learned; any shape, groups last."""
        share_left = self.floor + (1 - self.floor) * (self.density / np.maximum(learned, 1e-9)) ** RATE
        accuracy = 1.0 - np.minimum(1.0, self.probe_error * share_left)
        return np.where(learned > 0, accuracy, 0.0)

    def broad_accuracy(self, learned: Vector) -> Vector:
        """Return the expected accuracy over all groups, weighted with the pooled mix of all options; groups last."""
        return np.asarray(self.group_accuracy(learned) @ self.pooled)


def gather(options: Sequence[Option], groups: Sequence[str], *, capable: bool = False) -> Evidence:
    """Read the evidence of distinct data (see ``distinct_data``); groups that no option knows have count 0."""
    names = list(groups) or sorted({g for o in options for g in o.mix})
    shares = np.array([[o.mix.get(g, 0.0) for g in names] for o in options]).reshape(len(options), len(names))
    samples = np.array([o.samples for o in options], dtype=float)
    errors = np.array([max(1.0 - o.quality, 1 / (o.samples + 2)) for o in options])  # no probe proves perfection
    concentration = np.array([sum(s * s for s in o.mix.values()) for o in options])  # 1: one group only
    densities = samples * np.clip(concentration, 1e-3, 1.0)
    weights = samples * np.clip(1.0 - concentration, 1e-3, 1.0)
    total = max(float(weights.sum()), 1e-9)
    return Evidence(
        groups=names,
        counts=samples[:, None] * shares,
        probe_error=float(weights @ errors) / total,
        density=max(1.0, float(weights @ densities) / total),
        capable=capable,
    )


def distinct_data(options: Sequence[Option]) -> list[Option]:
    """Keep one option per data set, the quickest: the same data at another facility teaches nothing twice.

    Handles are opaque, so data sets are told apart by what is published of them: K-AS, samples, quality and mix.
    """
    best: dict[object, Option] = {}
    for option in options:
        key = (option.kas, option.samples, option.quality, tuple(sorted(option.mix.items())))
        if key not in best or visit_s(option) < visit_s(best[key]):
            best[key] = option
    return list(best.values())


def visit_s(option: Option) -> float:
    """Return the seconds that a visit takes at least: model in, data over, a usual number of epochs."""
    return option.reach_s + option.move_s + EPOCHS_PER_VISIT * option.epoch_s
