"""Shortest paths: inside a domain by name, between K-AS by number; exact, deterministic, cached.

The cost of a link is its delay plus the serialisation of 1 MB at its rate (an AI object is about that large), counted
in whole nanoseconds, so that sums are exact in any order and two runs agree. Each hop adds one nanosecond: of equally
cheap paths the one with fewer hops wins, then the one whose names come first. Distances are computed per destination
by scipy's Dijkstra on arrays and kept; a plan is a value: a link that goes down is passed in ``without``, never
edited into the plan.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Hashable, Iterable, Sequence
from itertools import pairwise
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array
from scipy.sparse.csgraph import dijkstra

from controller.values.errors import NoPath
from topologies.plan import DomainPlan, KasLink

OBJECT_BITS = 8_000_000
GRAPHS_KEPT = 16
TREES_KEPT = 256


class Edge(msgspec.Struct, frozen=True):
    """One usable link between two places."""

    a: Hashable
    b: Hashable
    rate_mbps: float
    delay_ms: float

    @property
    def cost_ns(self) -> int:
        """What a link costs, in nanoseconds: its delay and the time that it takes to send on it."""
        return 1 + round(self.delay_ms * 1e6) + round(OBJECT_BITS * 1e3 / self.rate_mbps)


class Route(msgspec.Struct, frozen=True):
    """A path: its places in order, its narrowest rate and its one-way delay."""

    places: list[Any]
    rate_mbps: float
    delay_ms: float

    def transfer_s(self, size_bytes: float) -> float:
        """Return the seconds that an object of this size needs along the path (no other traffic)."""
        serialise_s = size_bytes * 8 / (self.rate_mbps * 1e6) if size_bytes else 0.0
        return self.delay_ms / 1e3 + serialise_s


class Graph:
    """An undirected graph on arrays, with one shortest-path tree kept per destination asked for."""

    def __init__(self, places: Iterable[Any], edges: Iterable[Edge]) -> None:
        cheapest: dict[tuple[Any, Any], Edge] = {}
        for edge in edges:
            for key in ((edge.a, edge.b), (edge.b, edge.a)):
                if key not in cheapest or edge.cost_ns < cheapest[key].cost_ns:
                    cheapest[key] = edge
        self.places: list[Any] = sorted({*places, *(a for a, _ in cheapest)})
        self._index = {place: i for i, place in enumerate(self.places)}
        self._edges = {(self._index[a], self._index[b]): edge for (a, b), edge in cheapest.items()}
        self._matrix = self._build_matrix()
        self._trees: OrderedDict[int, npt.NDArray[np.float64]] = OrderedDict()

    def _build_matrix(self) -> Any:
        ends = np.array(sorted(self._edges), dtype=np.int64).reshape(-1, 2)  # (edges, 2), by row then column
        costs = np.array([self._edges[a, b].cost_ns for a, b in ends.tolist()], dtype=np.float64)
        return csr_array((costs, (ends[:, 0], ends[:, 1])), shape=(len(self.places), len(self.places)))

    def route(self, a: Any, b: Any) -> Route:
        """Return the cheapest path from ``a`` to ``b``, both included; ``NoPath`` when there is none."""
        source, goal = self._place(a, b, a), self._place(a, b, b)
        cost_to_goal = self._tree(goal)
        if not np.isfinite(cost_to_goal[source]):
            raise NoPath(f"no path from {a} to {b}: every chain of links between them is missing or down")
        steps = [source]
        while steps[-1] != goal:
            steps.append(self._next(steps[-1], cost_to_goal))
        hops = [self._edges[pair] for pair in pairwise(steps)]
        rate_mbps = min((edge.rate_mbps for edge in hops), default=float("inf"))
        return Route([self.places[i] for i in steps], rate_mbps, sum(edge.delay_ms for edge in hops))

    def costs_ns(self, b: Any) -> dict[Any, float]:
        """Return the cost of reaching ``b`` from every place (``inf``: no path)."""
        return dict(zip(self.places, self._tree(self._place(b, b, b)).tolist(), strict=True))

    def _place(self, a: Any, b: Any, wanted: Any) -> int:
        if wanted not in self._index:
            raise NoPath(f"no path from {a} to {b}: {wanted} is not in this network")
        return self._index[wanted]

    def _tree(self, goal: int) -> npt.NDArray[np.float64]:
        if goal not in self._trees:
            self._trees[goal] = dijkstra(self._matrix, directed=True, indices=goal)  # (places,)
            while len(self._trees) > TREES_KEPT:
                self._trees.popitem(last=False)
        self._trees.move_to_end(goal)
        return self._trees[goal]

    def _next(self, at: int, cost_to_goal: npt.NDArray[np.float64]) -> int:
        """Return the first neighbour by name on a cheapest path; costs are whole numbers, so equality is exact."""
        row = slice(self._matrix.indptr[at], self._matrix.indptr[at + 1])
        neighbours, costs = self._matrix.indices[row], self._matrix.data[row]
        on_path = neighbours[costs + cost_to_goal[neighbours] == cost_to_goal[at]]
        return int(on_path.min())


_graphs: OrderedDict[tuple[int, frozenset[str], bool], tuple[object, Graph]] = OrderedDict()


def _kept(source: object, without: Collection[str], hosts: bool, build: Callable[[], Graph]) -> Graph:
    """Return the graph of a plan, built once per plan object (which is held, so that its identity stays its own)."""
    key = (id(source), frozenset(without), hosts)
    held = _graphs.get(key)
    if held is None or held[0] is not source:
        held = _graphs[key] = (source, build())
        while len(_graphs) > GRAPHS_KEPT:
            _graphs.popitem(last=False)
    _graphs.move_to_end(key)
    return held[1]


def domain_graph(domain: DomainPlan, without: Collection[str] = (), *, hosts: bool = False) -> Graph:
    """Return the graph of a domain's switches (and hosts), less the links named in ``without``."""

    def build() -> Graph:
        places = {s.name for s in domain.switches} | ({h.name for h in domain.hosts} if hosts else set())
        links = [li for li in domain.links if li.name not in without and {li.a, li.b} <= places]
        return Graph(places, [Edge(li.a, li.b, li.rate_mbps, li.delay_ms) for li in links])

    return _kept(domain, without, hosts, build)


def switch_path(domain: DomainPlan, src_switch: str, dst_switch: str, without: Collection[str] = ()) -> list[str]:
    """Return the names of the switches from ``src_switch`` to ``dst_switch``, both included; ``NoPath``."""
    return list(domain_graph(domain, without).route(src_switch, dst_switch).places)


def host_route(domain: DomainPlan, a: str, b: str, without: Collection[str] = ()) -> Route:
    """Return the route between two nodes of a domain, hosts (always leaves) or switches; ``NoPath``."""
    return domain_graph(domain, without, hosts=True).route(a, b)


def kas_graph(kas_links: Sequence[KasLink], without: Collection[tuple[int, int]] = ()) -> Graph:
    """Return the K-AS level graph, less the links between the pairs in ``without`` (either order)."""
    down = {frozenset(pair) for pair in without}

    def build() -> Graph:
        up = [li for li in kas_links if frozenset((li.a_kas, li.b_kas)) not in down]
        return Graph((), [Edge(li.a_kas, li.b_kas, li.rate_mbps, li.delay_ms) for li in up])

    return _kept(kas_links, {repr(sorted(pair)) for pair in down}, False, build)


def kas_path(kas_links: Sequence[KasLink], a: int, b: int, without: Collection[tuple[int, int]] = ()) -> list[int]:
    """Return the K-AS numbers from ``a`` to ``b``, both included (``[a]`` when they are the same); ``NoPath``."""
    return [a] if a == b else list(kas_graph(kas_links, without).route(a, b).places)
