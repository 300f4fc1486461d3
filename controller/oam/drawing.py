"""The map as a drawing: terminals, switches and links laid out by networkx, written as one SVG (no matplotlib)."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

import networkx as nx

SIDE = 900
MARGIN = 60
COLOURS = {
    "data": "#4878a8", "compute": "#e08a3c", "mpvu": "#6a9f58", "mdfp": "#a87ca0", "model_owner": "#c05850",
    "query_owner": "#967662",
}  # fmt: skip


def graph_of(sections: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> nx.Graph:
    """Return the network as the page's state has it: nodes with role, state and trust, edges with their load."""
    graph = nx.Graph()
    for name, switch in sorted(sections["switches"].items()):
        graph.add_node(name, role="switch", kas=switch.get("kas", 0), state="", trust=None)
    for name, terminal in sorted(sections["terminals"].items()):
        trust = (terminal.get("attributes") or {}).get("trust")
        role, state = terminal.get("role", "host"), terminal.get("state", "")
        graph.add_node(name, role=role, kas=terminal.get("kas", 0), state=state, trust=trust)
    for link in sections["links"].values():
        if link["a"] in graph and link["b"] in graph:
            graph.add_edge(link["a"], link["b"], load=link.get("load") or 0.0)
    return graph


def svg(sections: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> str:
    """Return the drawing; an empty one where no network is up."""
    graph = graph_of(sections)
    places = nx.kamada_kawai_layout(graph) if len(graph) > 1 else dict.fromkeys(graph, (0.0, 0.0))
    at = {n: tuple(round(MARGIN + (float(c) + 1) / 2 * (SIDE - 2 * MARGIN), 1) for c in xy) for n, xy in places.items()}
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {SIDE} {SIDE}" font-family="sans-serif">']
    for a, b, about in graph.edges(data=True):
        (x1, y1), (x2, y2), width = at[a], at[b], 1 + 4 * min(1.0, about["load"])
        parts.append(f'<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}" stroke="#999" stroke-width="{width:.1f}"/>')
    for name, about in graph.nodes(data=True):
        parts.extend(_node(name, about, *at[name]))
    return "\n".join([*parts, "</svg>\n"])


def _node(name: str, about: Mapping[str, Any], x: float, y: float) -> list[str]:
    gone = ' opacity="0.3"' if about["state"] == "gone" else ""
    trust = f" {about['trust']:.2f}" if isinstance(about["trust"], int | float) else ""
    colour = COLOURS.get(about["role"], "#c8c8c8")
    return [
        f'<circle cx="{x}" cy="{y}" r="14" fill="{colour}"{gone}><title>{escape(str(about["role"]))}</title></circle>',
        f'<text x="{x}" y="{y + 28}" font-size="13" text-anchor="middle"{gone}>{escape(name)}{trust}</text>',
    ]
