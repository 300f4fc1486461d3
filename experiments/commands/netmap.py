"""``daitn map``: what the control centres believe of their network, how old it is, what it costs; and each job's cut.

Reads the databases that the DCCs of a run keep in its folder (they may be read while the run goes on) and the plan in
its event log; ``draw`` makes a PNG or SVG of it with networkx.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import time
from pathlib import Path
from typing import Any

import msgspec
import networkx as nx
from rich.console import Console
from rich.table import Table

from experiments.commands.words import shown
from experiments.errors import ExperimentError
from packets.events import decode_event
from topologies.plan import NetworkPlan

Record = dict[str, Any]
COLOURS = {
    "data": "#4878a8", "compute": "#e08a3c", "mpvu": "#6a9f58", "mdfp": "#a87ca0", "model_owner": "#c05850",
    "query_owner": "#967662", "switch": "#c8c8c8", "gateway": "#8a8a8a", "host": "#dddddd",
}  # fmt: skip


def rows(folder: Path, table: str) -> list[Record]:
    """Return a table's rows from every DCC of a run; ``ExperimentError`` when the folder is none of a run."""
    files = sorted(folder.glob("dcc*.sqlite"))
    if not files:
        raise ExperimentError(f"{folder} holds no control centre's database; name the folder of a run with --folder")
    found: list[Record] = []
    for file in files:
        with contextlib.closing(_opened(file)) as database:
            try:
                cursor = database.execute(f"SELECT * FROM {table}")  # a name of ours, not data
            except sqlite3.Error:
                continue  # a run of an earlier version
            names = [column[0] for column in cursor.description]
            found += [dict(zip(names, row, strict=True)) for row in cursor]
    return found


def _opened(file: Path) -> sqlite3.Connection:
    """Open a database to read, and leave no file beside it: where there is no write-ahead log nobody has it open."""
    how = "mode=ro" if file.with_name(f"{file.name}-wal").exists() else "mode=ro&immutable=1"
    return sqlite3.connect(f"{file.absolute().as_uri()}?{how}", uri=True, timeout=2.0)


def whole_map(folder: Path) -> Record:
    """Return G-KRRM of all K-AS: every terminal with its attributes, their ages and their cost in bytes."""
    fresh = {r["name"]: json.loads(r["detail"]) | {"t_unix_s": r["t_unix_s"]} for r in rows(folder, "freshness")}
    terminals = [_terminal(row, fresh.get(row["name"], {})) for row in rows(folder, "nodes")]
    cost = sum(t["bytes_per_s"] for t in terminals)
    return {"terminals": sorted(terminals, key=lambda t: t["name"]), "telemetry_bytes_per_s": round(cost, 1)}


def _terminal(row: Record, fresh: Record) -> Record:
    values, told = json.loads(row["attributes"]), fresh.get("attributes", {})
    attributes = {name: {"value": value, **told.get(name, {})} for name, value in values.items()}
    known = {k: fresh.get(k, 0) for k in ("heard_s_ago", "reports", "bytes", "bytes_per_s")}
    written = {"written_s_ago": round(time.time() - fresh["t_unix_s"], 1)} if fresh else {}
    return {"name": row["name"], "role": row["role"], "kas": row["kas"], "address": row["address"],
            "attributes": attributes, **known, **written}  # fmt: skip


def cut_of(folder: Path, object_id: int) -> Record:
    """Return the topology that was cut last for a job, in every K-AS (MS-DRRT)."""
    mine = [r for r in rows(folder, "cuts") if r["object_id"] == str(object_id)]
    if not mine:
        raise ExperimentError(f"no topology was cut for job {object_id:#x} in {folder}")
    return {str(r["kas"]): json.loads(r["detail"]) for r in sorted(mine, key=lambda r: r["kas"])}


def places_of(folder: Path, object_id: int) -> dict[tuple[int, str], str]:
    """Return {(K-AS, handle): place} of a job's cuts and of all MPVUs, for those who may know, as far as is kept."""
    places = dict[tuple[int, str], str]()
    with contextlib.suppress(ExperimentError):
        mpvus = sorted((h.kas, h.name) for h in plan_of(folder).hosts if h.role == "mpvu")
        for kas in {kas for kas, _ in mpvus}:
            places |= {(kas, f"@mpvu/{n}"): name for n, name in enumerate(n for k, n in mpvus if k == kas)}
    with contextlib.suppress(ExperimentError):
        for kas_of_cut, cut in cut_of(folder, object_id).items():
            for m in cut["meetings"]:
                place = m["facility"] if not m["move_data"] else f"{m['facility']} with data of {m['data_node']}"
                places[int(kas_of_cut), m["handle"]] = place
    return places


def plan_of(folder: Path) -> NetworkPlan:
    """Return the network of a run, from its event log."""
    try:
        with (folder / "events.jsonl").open("rb") as lines:
            line = next((x for x in lines if b'"kind":"network.up"' in x), None)
    except OSError as error:
        raise ExperimentError(f"{folder}: {error.strerror}; name the folder of a run with --folder") from None
    if line is None:
        raise ExperimentError(f"{folder}: its network never came up")
    return msgspec.convert(decode_event(line).data["plan"], NetworkPlan)


def graph_of(plan: NetworkPlan, terminals: list[Record], cut: Record | None = None) -> nx.Graph:
    """Return the network as a graph: nodes with role, K-AS and attributes, ``member`` where a job's cut has them."""
    graph, known = nx.Graph(), {t["name"]: t for t in terminals}
    members = _members(cut) if cut else {h.name for h in plan.hosts if h.name in known}
    for switch in plan.switches:
        graph.add_node(switch.name, role="gateway" if switch.gateway else "switch", kas=switch.kas, member=True)
    for host in plan.hosts:
        values = {a: v["value"] for a, v in known.get(host.name, {}).get("attributes", {}).items()}
        graph.add_node(host.name, role=host.role, kas=host.kas, member=host.name in members, attributes=values)
    for link in plan.links:
        graph.add_edge(link.a, link.b, rate_mbps=link.rate_mbps, delay_ms=link.delay_ms)
    return graph


def _members(cut: Record) -> set[str]:
    names = {m[key] for part in cut.values() for m in part["meetings"] for key in ("data_node", "facility")}
    return names | {m["node"] for part in cut.values() for m in part["mpvus"]}


def check_drawing(file: Path) -> None:
    """Refuse what no drawing can be written to (``ExperimentError``)."""
    if file.suffix not in (".svg", ".png", ".pdf"):
        raise ExperimentError(f"{file}: a drawing ends in .svg, .png or .pdf")
    if not file.parent.is_dir():
        raise ExperimentError(f"{file}: the folder {file.parent} does not exist; make it, or name another")


def draw(graph: nx.Graph, file: Path, title: str) -> None:
    """Draw a graph into a PNG, SVG or PDF, by the file's ending; ``ExperimentError`` for any other."""
    check_drawing(file)
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    positions = nx.kamada_kawai_layout(graph)
    figure, axes = pyplot.subplots(figsize=(11, 8))
    for member, alpha in ((True, 1.0), (False, 0.25)):
        nodes = [n for n, about in graph.nodes(data=True) if about["member"] is member]
        colours = [COLOURS.get(graph.nodes[n]["role"], "#dddddd") for n in nodes]
        nx.draw_networkx_nodes(graph, positions, nodes, node_color=colours, node_size=520, alpha=alpha, ax=axes)
    nx.draw_networkx_edges(graph, positions, edge_color="#999999", ax=axes)
    nx.draw_networkx_labels(graph, positions, {n: _label(n, about) for n, about in graph.nodes(data=True)}, 7, ax=axes)
    roles = [r for r in COLOURS if r in {about["role"] for _, about in graph.nodes(data=True)}]
    for role in roles:
        axes.scatter([], [], color=COLOURS[role], label=role.replace("_", " "))
    axes.legend(loc="lower left", frameon=False, fontsize=8)
    axes.set_title(title)
    axes.axis("off")
    figure.savefig(file, bbox_inches="tight", dpi=120)
    pyplot.close(figure)


def _label(name: str, about: Record) -> str:
    trust = about.get("attributes", {}).get("trust")
    return f"{name}\n{trust:.2f}" if trust is not None else name


def say_map(found: Record, console: Console) -> None:
    """Print G-KRRM."""
    table = Table(
        "terminal", "role", "K-AS", "samples", "trust", "queue", "load", "oldest", "heard", "reports", "bytes/s",
        box=None, padding=(0, 2, 0, 0),
    )  # fmt: skip
    for terminal in found["terminals"]:
        held = terminal["attributes"]
        figures = [_figure(held.get(a, {}).get("value")) for a in ("samples", "trust", "queue", "load")]
        oldest = max((a.get("age_s", 0.0) for a in held.values()), default=0.0)
        table.add_row(
            terminal["name"], terminal["role"], str(terminal["kas"]), *figures, f"{oldest:.1f} s",
            f"{terminal['heard_s_ago']:.1f} s", str(terminal["reports"]), f"{terminal['bytes_per_s']:.0f}",
        )  # fmt: skip
    console.print(table)
    console.print(f"telemetry {found['telemetry_bytes_per_s']:.0f} bytes/s", highlight=False)


def say_cut(cut: Record, console: Console) -> None:
    """Print a job's MS-DRRT."""
    table = Table(
        "K-AS", "data", "met at", "samples", "quality", "trust", "epoch", "reach", "move", "age", "mostly",
        box=None, padding=(0, 2, 0, 0),
    )  # fmt: skip
    for kas, part in cut.items():
        for m in sorted(part["meetings"], key=lambda m: (m["data_node"], m["facility"])):
            times = [f"{m[key]:.2f} s" for key in ("epoch_s", "reach_s", "move_s", "age_s")]
            top = sorted(m["mix"].items(), key=lambda item: -item[1])[:2]
            table.add_row(
                kas, m["data_node"], m["facility"], str(m["samples"]), f"{m['quality']:.2f}", f"{m['trust']:.2f}",
                *times, shown(", ".join(f"{g} {share:.2f}" for g, share in top)),
            )  # fmt: skip
    console.print(table)
    for kas, part in cut.items():
        for m in part["mpvus"]:
            console.print(f"MPVU {m['node']} (K-AS {kas}): {m.get('test_samples', 0)} test samples", highlight=False)


def _figure(value: Any) -> str:
    return "" if value is None else f"{value:.2f}" if isinstance(value, float) else str(value)
