"""Orders of visits that others have proposed, as baselines for MTRCE; the rule of Tram-FL is here."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from controller.values.decisions import Mix, Option, Visit

BASELINES = ("random", "fixed", "cycle", "tramfl")


def most_even(groups: Sequence[str], visits: Sequence[Visit], options: Sequence[Option]) -> list[int]:
    """Return the options' indices in the order of Tram-FL's rule (Maejima, Nishio, Yamamoto, 2023).

    The model carries per-group counts of the samples it was trained on; next is where the histogram, with that node's
    samples added, has the least variance. Ties go to the first. Rejected visits count as used.
    """
    rate = visits[-1].epochs if visits else 1.0
    used = np.zeros(len(groups))
    for visit in visits:
        used += _counts(groups, visit.mix, visit.samples * visit.epochs)
    adds = [_counts(groups, o.mix, o.samples * rate) for o in options]
    left, order = list(range(len(options))), list[int]()
    while left:
        best = min(left, key=lambda i: (_variance(used + adds[i]), i))
        left.remove(best)
        order.append(best)
        used = used + adds[best]
    return order


def _counts(groups: Sequence[str], mix: Mix, samples: float) -> npt.NDArray[np.float64]:
    return np.array([mix.get(g, 0.0) * samples for g in groups])


def _variance(counts: npt.NDArray[np.float64]) -> float:
    return round(float(np.var(counts / max(float(counts.sum()), 1e-9))), 12)
