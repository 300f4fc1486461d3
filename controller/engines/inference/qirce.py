"""QIRCE: which MDFPs answer a class of queries, and in what proportion the queries are shared among them.

Shared by weight, each query goes its way by chance, so every model sees a stream of random arrivals.  The mean time of
a query then is least when the models are loaded such that one query more costs the same at each: of ``x`` queries a
second to a model that answers ``m`` of them and is ``d`` seconds away (there and back), the mean time
``x / (m - x) + x d`` in all is least for ``x = m - sqrt(m / (c - d))``, one ``c`` for all (the square-root rule of
optimal static load balancing: Tantawi and Towsley, JACM 1985).  Where a model has not measured itself yet, weights are
inverse to the expected time of a query, its inference stretched by the node's load as in an M/M/1 queue.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from controller.values.knowledge import ModelAt

BEST_WEIGHT = 100
MAX_STRETCH = 100.0  # a node that says it is full is still counted as very slow, not as gone
LEAST_MS = 0.05
FULLNESS = 0.9  # of what all can answer: above it the shares follow capacity alone
HEADROOM = 0.3  # of it that is planned for at least: what was asked a moment ago may double
SLOW_START_S = 10.0
SLOW_START_SHARE = 0.2  # of its capacity that a model is trusted with at first


def expected_ms(model: ModelAt, path_ms: float) -> float:
    """Return the expected milliseconds from sending a query to having its answer. ``path_ms``: one way."""
    if model.service_ms:
        return max(LEAST_MS, 2 * path_ms + (model.in_flight + 1) * model.service_ms / started(model))
    idle_share = 1.0 - min(1.0, max(0.0, model.load))
    stretch = min(MAX_STRETCH, 1.0 / idle_share) if idle_share > 0 else MAX_STRETCH
    return max(LEAST_MS, 2 * path_ms + max(0.0, model.latency_ms) * stretch)


def started(model: ModelAt) -> float:
    """Return the share of its capacity that a model is trusted with: less for one that has just come (slow start)."""
    if model.up_s < 0 or model.up_s >= SLOW_START_S:
        return 1.0
    return SLOW_START_SHARE + (1 - SLOW_START_SHARE) * model.up_s / SLOW_START_S


def choose(models: Sequence[ModelAt], path_ms: Mapping[str, float]) -> list[tuple[str, int]]:
    """Return (node, weight) of the nodes to share a query class, best first, its weight 100; empty: none in reach.

    ``path_ms``: one-way milliseconds from the asker to each node; nodes missing in it, or infinitely far, are left out.
    """
    near = [m for m in models if math.isfinite(w := path_ms.get(m.node, math.inf)) and w >= 0]
    if near and all(m.service_ms > 0 for m in near):
        return _weights(_shares(near, path_ms))
    times: dict[str, float] = {}
    for model in near:
        times[model.node] = min(expected_ms(model, path_ms[model.node]), times.get(model.node, math.inf))
    return _weights({node: 1 / time_ms for node, time_ms in times.items()})


def _weights(shares: Mapping[str, float]) -> list[tuple[str, int]]:
    ranked = sorted(((node, share) for node, share in shares.items() if share > 0), key=lambda x: (-x[1], x[0]))
    return [(node, max(1, round(BEST_WEIGHT * share / ranked[0][1]))) for node, share in ranked]


def _shares(models: Sequence[ModelAt], path_ms: Mapping[str, float]) -> dict[str, float]:
    """Return the queries a second for each node that make the mean time least, at the rate at which they come now."""
    rates = {m.node: started(m) * 1e3 / m.service_ms for m in models}
    away = {m.node: 2e-3 * path_ms[m.node] for m in models}
    asked = max(sum(m.arrivals_per_s for m in models), HEADROOM * sum(rates.values()))
    if asked >= FULLNESS * sum(rates.values()):
        return rates
    low = min(away[n] + 1 / rates[n] for n in rates)  # what the first query costs, at the best of them
    high = max(away[n] + rates[n] / max(1e-9, rates[n] * (1 - FULLNESS)) ** 2 for n in rates)
    for _ in range(60):
        cost = (low + high) / 2
        if sum(_share(rates[n], away[n], cost) for n in rates) < asked:
            low = cost
        else:
            high = cost
    return {n: _share(rates[n], away[n], high) for n in rates}


def _share(rate: float, away_s: float, cost_s: float) -> float:
    """Return the queries a second at which one more costs ``cost_s`` at a model (0: more than that from the first)."""
    over = cost_s - away_s
    return max(0.0, rate - math.sqrt(rate / over)) if over > 0 else 0.0
