"""A network from a graph: GraphML, GML, node-link JSON, or a topology of TopoHub by name.

The graph's nodes become switches, its edges links. Which K-AS a node belongs to says an attribute of its own, or a
community rule of networkx; terminals are dealt over the K-AS, and inside each over its switches, in turn. The same
graph under the same rules is the same plan on every machine: switches are numbered in the order of its node names.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import count, cycle
from pathlib import Path
from typing import Any

import networkx as nx

from topologies.build import Builder, Rates, Terminal, check_reach
from topologies.errors import PlanError
from topologies.plan import NetworkPlan, Role

TOPOHUB = "topohub:"
KM_PER_MS = 200.0  # light in fibre: two thirds of c
EARTH_KM = 6371.0
STEMS: dict[Role, tuple[str, str]] = {
    "data": ("h", "h"), "compute": ("c", "c"), "mpvu": ("mpvu", "v"), "mdfp": ("mdfp", "m"),
    "model_owner": ("owner", "o"), "query_owner": ("asker", "q"),
}  # fmt: skip
LONGEST_NAME = 10  # of a terminal: its interface adds five characters to make fifteen


@dataclass(frozen=True)
class Rules:
    """How a graph is read. ``kas_by``: ``attribute:NAME`` or one of ``PARTITIONS``, then into ``parts`` K-AS.

    ``delay_by``: ``distance`` (of the nodes' coordinates, or an edge's ``dist`` in km), ``attribute:NAME`` (ms), or
    ``none``; a delay under ``least_delay_ms`` is none. ``rate_by``: ``attribute:NAME`` (Mbit/s), else ``Rates``.
    ``roles``: terminals of each role in the whole network.
    """

    roles: Mapping[str, int]
    kas_by: str = "fluid"
    parts: int = 4
    delay_by: str = "distance"
    least_delay_ms: float = 0.0
    rate_by: str = ""
    rates: Rates = field(default_factory=Rates)
    seed: int = 0
    cpu_share: Mapping[str, float] = field(default_factory=dict)
    data_may_move: bool | list[str] = False


def graph_plan(name: str, source: str, rules: Rules) -> NetworkPlan:
    """Return the plan of a graph; ``PlanError`` names what is wrong, and where."""
    graph = read_graph(source)
    kas_of = _kas(graph, source, rules)
    builder, names = Builder(rules.rates), dict[Any, str]()
    for node in sorted(graph, key=_order):
        names[node] = builder.add_switch(kas_of[node])
    for a, b, data in sorted(graph.edges(data=True), key=lambda e: (_order(e[0]), _order(e[1]))):
        if a != b:
            inside = kas_of[a] == kas_of[b]
            builder.add_link(names[a], names[b], _rate(data, rules, inside, source), _delay(graph, a, b, data, rules))
    _add_terminals(builder, rules)
    plan = builder.plan(name)
    check_reach(plan)
    return plan


def _order(node: Any) -> tuple[bool, float, str]:
    """Sort nodes by number where they are numbers, else by name."""
    text = str(node)
    return (False, float(text), "") if text.isdecimal() else (True, 0.0, text)


# --- reading ---------------------------------------------------------------------------------------------------------


def read_graph(source: str) -> Any:
    """Return an undirected networkx graph (a multigraph keeps its parallel links) of a file or a TopoHub name."""
    try:
        found = _topohub(source.removeprefix(TOPOHUB)) if source.startswith(TOPOHUB) else _file(Path(source))
    except OSError as error:
        raise PlanError(f"graph {source}: {error.strerror or error}") from None
    except (nx.NetworkXError, ValueError, KeyError, TypeError, SyntaxError, AttributeError) as error:
        raise PlanError(f"graph {source}: cannot be read: {' '.join(str(error).split())[:200]}") from None
    graph = nx.MultiGraph(found) if found.is_multigraph() else nx.Graph(found)
    if not graph:
        raise PlanError(f"graph {source}: it has no node")
    return graph


def _file(path: Path) -> Any:
    kind = path.suffix.lower()
    if kind in (".graphml", ".xml"):
        return nx.read_graphml(path)
    if kind == ".gml":
        try:
            return nx.read_gml(path)
        except nx.NetworkXError as error:
            if "duplicated" not in str(error):
                raise
            return nx.read_gml(path, label="id")  # Topology Zoo names several nodes alike
    if kind == ".json":
        return _node_link(json.loads(path.read_text()))
    raise PlanError(f"graph {path}: the name ends with .graphml, .gml or .json (node-link), or is topohub:NAME")


def _node_link(data: Any) -> Any:
    if not isinstance(data, dict) or "nodes" not in data:
        raise ValueError("it is no node-link JSON: it has no key 'nodes'")
    return nx.node_link_graph(data, edges="edges" if "edges" in data else "links")


def _topohub(name: str) -> Any:
    try:
        import topohub  # type: ignore[import-untyped,unused-ignore]
    except ImportError:
        raise PlanError(f"graph topohub:{name}: the package topohub is not installed: pip install topohub") from None
    try:
        return _node_link(topohub.get(name))
    except (KeyError, FileNotFoundError, OSError):
        raise PlanError(
            f"graph topohub:{name}: TopoHub has no topology of this name; names are like backbone/africa, "
            "topozoo/Abilene, sndlib/germany50, gabriel/50/0"
        ) from None


# --- K-AS ------------------------------------------------------------------------------------------------------------

Parts = list[set[Any]]
PARTITIONS: dict[str, Callable[[Any, int, int], Parts]] = {
    "fluid": lambda g, n, seed: list(nx.community.asyn_fluidc(g, n, seed=seed)),
    "greedy_modularity": lambda g, n, seed: list(nx.community.greedy_modularity_communities(g, cutoff=n, best_n=n)),
    "louvain": lambda g, n, seed: list(nx.community.louvain_communities(g, seed=seed)),
    "kernighan_lin": lambda g, n, seed: _halves(g, n, seed),
}


def _halves(graph: Any, parts: int, seed: int) -> Parts:
    """Cut the largest part in two (Kernighan and Lin) until there are as many as wanted."""
    found: Parts = [set(graph)]
    while len(found) < parts:
        found.sort(key=len)
        found += nx.community.kernighan_lin_bisection(graph.subgraph(found.pop()), seed=seed)
    return found


def _kas(graph: Any, source: str, rules: Rules) -> dict[Any, int]:
    """Return the K-AS number of every node."""
    what, _, attribute = rules.kas_by.partition(":")
    if what == "attribute":
        return _kas_by_attribute(graph, source, attribute)
    if what not in PARTITIONS:
        raise PlanError(f"kas_by {rules.kas_by!r}: give attribute:NAME or one of: {', '.join(PARTITIONS)}")
    if not 1 <= rules.parts <= len(graph):
        raise PlanError(f"graph {source}: {len(graph)} nodes cannot be {rules.parts} K-AS")
    if not nx.is_connected(graph):
        raise PlanError(f"graph {source}: it is in {nx.number_connected_components(graph)} pieces that no link joins")
    simple = nx.Graph()
    simple.add_nodes_from(sorted(graph, key=_order))
    simple.add_edges_from(sorted(((a, b) for a, b, *_ in graph.edges if a != b), key=lambda e: (str(e[0]), str(e[1]))))
    parts = PARTITIONS[what](simple, rules.parts, rules.seed) if rules.parts > 1 else [set(simple)]
    parts.sort(key=lambda part: min(map(_order, part)))
    return {node: number for number, part in enumerate(parts, 1) for node in part}


def _kas_by_attribute(graph: Any, source: str, attribute: str) -> dict[Any, int]:
    values = {node: data.get(attribute) for node, data in graph.nodes(data=True)}
    missing = [node for node, value in values.items() if value is None]
    if missing:
        known = sorted({key for _, data in graph.nodes(data=True) for key in data})
        raise PlanError(
            f"graph {source}: node {missing[0]!r} has no attribute {attribute!r}; attributes are: {', '.join(known)}"
        )
    numbers = {v: int(v) for v in values.values() if str(v).isdecimal() and 1 <= int(v) <= 250}
    if len(numbers) < len(set(values.values())):  # names: numbered in their order
        numbers = {v: n for n, v in enumerate(sorted(set(values.values()), key=str), 1)}
    return {node: numbers[value] for node, value in values.items()}


# --- links and terminals ---------------------------------------------------------------------------------------------


def _rate(data: Mapping[str, Any], rules: Rules, inside: bool, source: str) -> float:
    usual = rules.rates.lan_mbps if inside else rules.rates.wan_mbps
    attribute = rules.rate_by.removeprefix("attribute:")
    return _number(data, attribute, source, usual) if attribute else usual


def _delay(graph: Any, a: Any, b: Any, data: Mapping[str, Any], rules: Rules) -> float:
    what, _, attribute = rules.delay_by.partition(":")
    if what == "none":
        return 0.0
    if what == "attribute":
        delay_ms = _number(data, attribute, f"edge {a}-{b}", 0.0)
    elif what == "distance":
        delay_ms = _distance_km(graph.nodes[a], graph.nodes[b], data) / KM_PER_MS
    else:
        raise PlanError(f"delay_by {rules.delay_by!r}: give distance, attribute:NAME or none")
    return round(delay_ms, 3) if delay_ms >= rules.least_delay_ms else 0.0


def _number(data: Mapping[str, Any], attribute: str, where: str, otherwise: float) -> float:
    value = data.get(attribute, otherwise)
    try:
        return float(value)
    except (TypeError, ValueError):
        raise PlanError(f"{where}: {attribute} is {value!r}, not a number") from None


def _distance_km(a: Mapping[str, Any], b: Mapping[str, Any], data: Mapping[str, Any]) -> float:
    """Return an edge's own length, else the great circle between its ends; 0 where nothing is known."""
    if "dist" in data:
        return float(data["dist"])
    ends = [_coordinates(node) for node in (a, b)]
    if None in ends:
        return 0.0
    (lon_a, lat_a), (lon_b, lat_b) = (tuple(map(math.radians, end)) for end in ends if end)
    half = math.sin((lat_b - lat_a) / 2) ** 2 + math.cos(lat_a) * math.cos(lat_b) * math.sin((lon_b - lon_a) / 2) ** 2
    return 2 * EARTH_KM * math.asin(math.sqrt(half))


def _coordinates(node: Mapping[str, Any]) -> tuple[float, float] | None:
    """Return (longitude, latitude) as TopoHub (``pos``) or Topology Zoo names them."""
    if isinstance(node.get("pos"), list | tuple):
        return float(node["pos"][0]), float(node["pos"][1])
    if "Longitude" in node and "Latitude" in node:
        return float(node["Longitude"]), float(node["Latitude"])
    return None


def _add_terminals(builder: Builder, rules: Rules) -> None:
    """Deal the terminals of each role over the K-AS in turn, inside each over its switches, gateways last."""
    kas = sorted({s.kas for s in builder.switches})
    kas_of = {s.name: s.kas for s in builder.switches}
    edge = {x.a for x in builder.links if kas_of[x.a] != kas_of[x.b]}
    edge |= {x.b for x in builder.links if kas_of[x.a] != kas_of[x.b]}
    inner = {k: [s.name for s in builder.switches if s.kas == k and s.name not in edge] for k in kas}
    turns = {k: cycle(inner[k] or [s.name for s in builder.switches if s.kas == k]) for k in kas}
    turn = cycle(kas)
    for role, stems in STEMS.items():
        numbers = {k: count(1) for k in kas}
        for _ in range(rules.roles.get(role, 0)):
            k = next(turn)
            name = terminal_name(stems, k, next(numbers[k]))
            may_move = rules.data_may_move if isinstance(rules.data_may_move, bool) else name in rules.data_may_move
            share = rules.cpu_share.get(name, rules.cpu_share.get(role, 1.0))
            terminal = Terminal(name, role, cpu_share=share, data_may_move=may_move and role == "data")
            builder.add_terminal_at(next(turns[k]), terminal)


def terminal_name(stems: tuple[str, str], kas: int, number: int) -> str:
    """Return ``h3n12``: a name that no other K-AS and number have; the short stem where the long one does not fit."""
    long, short = (f"{stem}{kas}n{number}" for stem in stems)
    return long if len(long) <= LONGEST_NAME else short
