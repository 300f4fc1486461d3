"""Who holds what: shares of groups per node, and rows of a table per node. Seeded; every sample on exactly one node."""

from __future__ import annotations

import numpy as np

from hosts.learning.errors import LearningError
from hosts.learning.spec import TaskSpec

_FLOOR = 1e-6


def _balance(weights: np.ndarray) -> np.ndarray:
    """Scale rows and columns in turn until every node is as large and every group as common as any other (nodes,
    groups).
    """
    nodes, groups = weights.shape
    weights = np.maximum(weights, _FLOOR)
    for _ in range(200):
        weights = weights * (nodes / groups / weights.sum(axis=0, keepdims=True))
        weights = weights / weights.sum(axis=1, keepdims=True)
    return weights


def mixes(spec: TaskSpec, nodes: int, groups: int, rng: np.random.Generator) -> np.ndarray:
    """Return each node's shares of the groups, shape (nodes, groups), rows summing to 1.

    ``dirichlet``: one draw of Dir(alpha) per node, then balanced so that over the whole country every group is
    equally common: what differs is who sees it. ``one_class``: a node sees one group; ``shards``: ``shards_per_node``
    of them.
    """
    if spec.partition == "iid":
        return np.full((nodes, groups), 1 / groups)
    if spec.partition == "dirichlet":
        if spec.alpha <= 0:
            raise LearningError(f"partition dirichlet with alpha {spec.alpha:g}: alpha must be above 0")
        return _balance(rng.dirichlet(np.full(groups, spec.alpha), size=nodes))
    if spec.partition in ("one_class", "shards"):
        each = 1 if spec.partition == "one_class" else spec.shards_per_node
        return _dealt(nodes, groups, min(each, groups), rng)
    raise LearningError(
        "partition natural needs data that names its sites: use dirichlet, iid, one_class or shards here"
    )


def _dealt(nodes: int, groups: int, each: int, rng: np.random.Generator) -> np.ndarray:
    if each < 1:
        raise LearningError(f"partition shards with shards_per_node {each}: must be at least 1")
    used = np.zeros(groups)
    shares = np.zeros((nodes, groups))
    for node in range(nodes):  # always the groups that fewest nodes hold so far, so that no node holds one twice
        chosen = np.lexsort((rng.random(groups), used))[:each]
        shares[node, chosen] = 1 / each
        used[chosen] += 1
    return shares


def whole_counts(shares: np.ndarray, total: int) -> np.ndarray:
    """Turn shares into whole numbers that add up to ``total`` (largest remainder)."""
    exact = shares / shares.sum() * total
    counts: np.ndarray = np.floor(exact).astype(int)
    for i in np.argsort(counts - exact, kind="stable")[: total - counts.sum()]:
        counts[i] += 1
    return counts


def deal_rows(
    spec: TaskSpec, labels: np.ndarray, sites: np.ndarray, nodes: int, rng: np.random.Generator
) -> list[np.ndarray]:
    """Give each row of a table to one node; returns row numbers per node."""
    if spec.partition == "natural":
        return _by_site(sites, nodes)
    if spec.partition == "iid":
        return list(np.array_split(rng.permutation(len(labels)), nodes))
    classes = int(labels.max()) + 1
    shares = mixes(spec, nodes, classes, rng)
    held: list[list[np.ndarray]] = [[] for _ in range(nodes)]
    for group in range(classes):
        rows = rng.permutation(np.flatnonzero(labels == group))
        column = shares[:, group] if shares[:, group].sum() else np.ones(nodes)
        cuts = np.cumsum(whole_counts(column, len(rows)))[:-1]
        for node, part in enumerate(np.split(rows, cuts)):
            held[node].append(part)
    return [np.concatenate(parts) for parts in held]


def _by_site(sites: np.ndarray, nodes: int) -> list[np.ndarray]:
    found = int(sites.max()) + 1
    if found != nodes:
        raise LearningError(
            f"partition natural: the data has {found} sites but the scenario {nodes} data nodes: make them equal"
        )
    return [np.flatnonzero(sites == site) for site in range(found)]
