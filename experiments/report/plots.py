"""Plots of the report, as SVG text: the network with the route drawn, accuracy per visit, bytes per link."""

from __future__ import annotations

import io
import itertools
import math
from typing import Any

import matplotlib as mpl
import networkx as nx
from matplotlib.figure import Figure

from topologies.plan import NetworkPlan

mpl.use("svg")
mpl.rcParams |= {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
}

COLOURS = {
    "data": "#a9c6e6", "compute": "#f9bd7e", "mpvu": "#a5d6a0", "mdfp": "#d9b8d2", "model_owner": "#f2a3a2",
    "query_owner": "#d3b9a6", "host": "#bab0ac", "switch": "#d5d8dc", "gateway": "#b4bec4",
}  # fmt: skip
MOST_LINKS = 24
NAMES = {
    "data": "data node", "compute": "compute facility", "mpvu": "MPVU", "mdfp": "MDFP", "model_owner": "model owner",
    "query_owner": "query owner", "switch": "switch", "gateway": "KBG",
}  # fmt: skip


def svg(figure: Figure) -> str:
    """Return a figure as SVG text for a page."""
    out = io.StringIO()
    figure.savefig(out, format="svg", bbox_inches="tight", metadata={"Date": None, "Creator": None})
    text = out.getvalue()
    return text[text.index("<svg") :]


def layout(plan: NetworkPlan) -> dict[str, tuple[float, float]]:
    """Place K-AS on a circle; in each, the gateway toward the middle and terminals fanned out behind their switch."""
    numbers = plan.kas_numbers
    place: dict[str, tuple[float, float]] = {}
    for i, kas in enumerate(numbers):
        angle = math.pi * (3 / 4 - 2 * i / len(numbers))
        switches = [s for s in plan.switches if s.kas == kas]
        inner = [s for s in switches if not s.gateway]
        for s in switches:
            spread = 0.0 if s.gateway else (inner.index(s) - (len(inner) - 1) / 2) * 0.42
            radius = 0.9 if s.gateway else 1.6
            place[s.name] = (radius * math.cos(angle + spread) * 1.5, radius * math.sin(angle + spread))
        hosts = sorted((h for h in plan.hosts if h.kas == kas), key=lambda h: (h.switch, h.port))
        for j, host in enumerate(hosts):
            spread = (j - (len(hosts) - 1) / 2) * 0.2
            place[host.name] = (2.3 * math.cos(angle + spread) * 1.5, 2.3 * math.sin(angle + spread))
    return place


def topology(plan: NetworkPlan, stops: list[dict[str, Any]]) -> str:
    """Draw the network and, over it, the model's stops as numbered arrows."""
    figure = Figure(figsize=(9.5, 6.2))
    axes = figure.subplots()
    place = layout(plan)
    graph = nx.Graph((link.a, link.b) for link in plan.links)
    role = {s.name: "gateway" if s.gateway else "switch" for s in plan.switches} | {h.name: h.role for h in plan.hosts}
    nx.draw_networkx_edges(graph, place, ax=axes, edge_color="#c9ced3", width=0.9)
    for kind in dict.fromkeys(role.values()):
        members = [n for n in graph if role[n] == kind]
        shape = "s" if kind in ("switch", "gateway") else "o"
        nx.draw_networkx_nodes(
            graph,
            place,
            members,
            node_color=COLOURS[kind],
            node_shape=shape,
            node_size=430,
            ax=axes,
            label=NAMES.get(kind, kind),
        )
    nx.draw_networkx_labels(graph, place, ax=axes, font_size=6)
    _draw_route(axes, place, [s["node"] for s in stops if s["node"] in place])
    for kas in plan.kas_numbers:
        gate = next((s.name for s in plan.switches if s.kas == kas and s.gateway), None)
        if gate:
            axes.annotate(
                f"K-AS {kas}", place[gate], xytext=(0, 13), textcoords="offset points", ha="center", weight="bold"
            )
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, 0.0), ncols=4, frameon=False, fontsize=8, markerscale=0.5)
    axes.set_axis_off()
    return svg(figure)


def _draw_route(axes: Any, place: dict[str, tuple[float, float]], nodes: list[str]) -> None:
    for number, (a, b) in enumerate(itertools.pairwise(nodes), start=1):
        arrow = {
            "arrowstyle": "-|>",
            "color": "#c0392b",
            "alpha": 0.55,
            "lw": 1.3,
            "connectionstyle": "arc3,rad=0.18",
            "shrinkA": 8,
            "shrinkB": 8,
        }
        axes.annotate("", place[b], place[a], arrowprops=arrow)
        (xa, ya), (xb, yb) = place[a], place[b]
        x, y = xa + 0.72 * (xb - xa), ya + 0.72 * (yb - ya)
        axes.text(
            x + 0.06 * (yb - ya),
            y - 0.06 * (xb - xa),
            str(number),
            fontsize=6.5,
            color="#922b21",
            ha="center",
            va="center",
        )


def accuracy(route: list[dict[str, Any]], targets: dict[str, Any] | None, expert_group: str | None) -> str:
    """Draw accuracy after each visit, with the targets as lines; a rolled back visit is hollow."""
    figure = Figure(figsize=(7, 3.1))
    axes = figure.subplots()
    measured = [v for v in route if v["accuracy"]]
    for key, colour, label in (("broad", "#4c78a8", "broad"), ("expert", "#e45756", expert_group or "expert")):
        points = [
            (i, v["accuracy"][key], v["accepted"])
            for i, v in enumerate(measured, 1)
            if v["accuracy"].get(key) is not None
        ]
        if not points:
            continue
        axes.plot([p[0] for p in points], [p[1] for p in points], color=colour, lw=1.2, label=label)
        axes.scatter([p[0] for p in points], [p[1] for p in points], s=26, zorder=3, edgecolors=colour,
                     c=[colour if p[2] else "white" for p in points])  # fmt: skip
        if targets and targets.get(key):
            axes.axhline(targets[key], color=colour, lw=0.8, ls="--")
    axes.set(xlabel="training visit", ylabel="accuracy at the MPVU", ylim=(0, 1.02))
    axes.set_xticks(range(1, len(measured) + 1), [v["node"] for v in measured], rotation=45 if len(measured) > 8 else 0)
    if measured:
        axes.legend(frameon=False, loc="lower right")
    return svg(figure)


def link_bytes(links: list[dict[str, Any]]) -> str:
    """Draw the bytes that crossed the busiest links, largest first."""
    used = sorted(links, key=lambda r: r["bytes"])[-MOST_LINKS:]
    figure = Figure(figsize=(7, 0.6 + 0.19 * max(len(used), 4)))
    axes = figure.subplots()
    axes.barh(
        [r["link"] for r in used], [r["bytes"] / 1e6 for r in used], color="#4c78a8", label="AI frames in the capture"
    )
    axes.scatter(
        [r["port_counter_bytes"] / 1e6 for r in used],
        [r["link"] for r in used],
        marker="|",
        s=60,
        color="#e45756",
        label="port counters",
    )
    axes.set(xlabel="MB, both directions")
    axes.tick_params(axis="y", labelsize=7)
    axes.legend(frameon=False, loc="lower right")
    return svg(figure)
