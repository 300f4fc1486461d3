"""QIRCE: which MDFP answers a query class soonest, and in what proportion to share the queries among those that may.

Expected time of a query: the path there and back, plus the inference stretched by the node's load as in an M/M/1
queue, ``latency / (1 - load)``. Weights are inversely proportional to it, so that over an OpenFlow select group every
node is asked in proportion to how fast it answers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from controller.values.knowledge import ModelAt

BEST_WEIGHT = 100
MAX_STRETCH = 100.0  # a node that says it is full is still counted as very slow, not as gone
LEAST_MS = 0.05


def expected_ms(model: ModelAt, path_ms: float) -> float:
    """Return the expected milliseconds from sending a query to having its answer. ``path_ms``: one way."""
    idle_share = 1.0 - min(1.0, max(0.0, model.load))
    stretch = min(MAX_STRETCH, 1.0 / idle_share) if idle_share > 0 else MAX_STRETCH
    return max(LEAST_MS, 2 * path_ms + max(0.0, model.latency_ms) * stretch)


def choose(models: Sequence[ModelAt], path_ms: Mapping[str, float]) -> list[tuple[str, int]]:
    """Return (node, weight) of the nodes to share a query class, best first, its weight 100; empty: none in reach.

    ``path_ms``: one-way milliseconds from the asker to each node; nodes missing in it, or infinitely far, are left out.
    """
    times: dict[str, float] = {}
    for model in models:
        way_ms = path_ms.get(model.node, math.inf)
        if math.isfinite(way_ms) and way_ms >= 0:
            times[model.node] = min(expected_ms(model, way_ms), times.get(model.node, math.inf))
    ranked = sorted(times.items(), key=lambda item: (item[1], item[0]))
    return [(node, max(1, round(BEST_WEIGHT * ranked[0][1] / time_ms))) for node, time_ms in ranked]
